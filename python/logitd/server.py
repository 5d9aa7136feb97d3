"""``Server``: a private `logitd serve` on a free port, for notebooks, tests and batch jobs.

It is started by the constructor and ended (SIGTERM, so that it finishes what it accepted) by ``close()``, at the end of
a ``with``, or at the latest when Python exits. It gets no Ctrl-C of its own: an interrupted notebook keeps its server.
"""

from __future__ import annotations

import atexit
import collections
import os
import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from logitd.async_client import AsyncClient
from logitd.client import Client
from logitd.errors import LogitdError, ServerStartFailed

MODELS = {"smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3": "gemma-3-270m-q4_k_m.gguf"}
"""Files that ``./dev model NAME`` fetches into the user's cache folder."""
READY = "listening on "
LOG_LINES = 200


def find_binary(binary: str | os.PathLike[str] | None = None) -> Path:
    """The logitd to run: the one named, else ``build/logitd`` of the repository around this package, else PATH's."""
    if binary is not None:
        if Path(binary).is_file():
            return Path(binary)
        raise LogitdError(f"there is no file {binary}")
    root = Path(__file__).resolve().parents[2]
    built = root / "build" / "logitd"
    if built.is_file():
        return built
    found = shutil.which("logitd")
    if found is None and (root / "dev").is_file():
        raise LogitdError(f"no logitd in PATH, nor {built}; run ./dev build, or name it: Server(model, binary=…)")
    if found is None:
        raise LogitdError(
            "no logitd in PATH, and this package is not in its repository, whose build/logitd it would take: install it"
            " there with pip install -e ./python, or name the file: Server(model, binary=…)"
        )
    return Path(found)


def find_model(model: str | os.PathLike[str]) -> Path:
    """A GGUF file, or the cached file of a model that ``./dev model`` knows by name."""
    if str(model) in MODELS:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logitd"
        path = cache / MODELS[str(model)]
        if not path.is_file():
            raise LogitdError(f"{path} is not there yet; fetch it with: ./dev model {model}")
        return path
    if not Path(model).is_file():
        raise LogitdError(f"there is no model {model}: name a GGUF file or one of: {', '.join(MODELS)}")
    return Path(model)


class Server:
    """A running server.

    Args:
        model: a GGUF file, or ``"smollm2"`` or ``"gemma3"``, which ``./dev model`` fetches.
        options: more arguments of ``logitd serve``, as ``"--threads", 2``.
        binary: the ``logitd`` to run; default: the repository's build, else the one in PATH.
        start_s: seconds that it may take until it listens.

    Attributes:
        url: where it listens.
        process: the running process.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "smollm2",
        *options: str | int | float | os.PathLike[str],
        binary: str | os.PathLike[str] | None = None,
        start_s: float = 120.0,
    ) -> None:
        command = [
            str(find_binary(binary)),
            "serve",
            "--model",
            str(find_model(model)),
            "--port",
            "0",
            *map(str, options),
        ]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ServerStartFailed(f"{command[0]} cannot be run: {error}") from error
        atexit.register(self.close)
        self._log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self.url = ""
        self._told = threading.Event()  # it listens, or its output ended
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_stdout, self._read_stderr)]
        for reader in self._readers:
            reader.start()
        self._told.wait(start_s)
        if not self.url:
            ended = self.process.poll() is not None or self._told.is_set()
            code = self.close()
            why = f"it ended with {code}" if ended else f"it did not listen within {start_s:g} s"
            raise ServerStartFailed(f"{' '.join(command)} did not start: {why}; it said:\n{self.log}")

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(READY):
                self.url = line.removeprefix(READY).strip()
                self._told.set()
        self._told.set()

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        self._log.extend(self.process.stderr)

    @property
    def log(self) -> str:
        """The last lines that it wrote on stderr."""
        return "".join(list(self._log))

    def client(self, **options: Any) -> Client:
        """A ``Client`` of it."""
        return Client(self.url, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        """An ``AsyncClient`` of it."""
        return AsyncClient(self.url, **options)

    def close(self, timeout_s: float = 70.0) -> int:
        """Ends it and waits, as long as it lets accepted requests go on; returns its exit code (0)."""
        atexit.unregister(self.close)
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for reader in self._readers:
            reader.join(5)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return self.process.returncode

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Server({self.url!r}, pid {self.process.pid})"
