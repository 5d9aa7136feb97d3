"""logitd.Server: a private server that starts, says why it does not, and is gone afterwards; and the wheel that holds all."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import logitd
import pytest
from logitd.server import find_binary, find_model

ROOT = Path(__file__).resolve().parent.parent


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_runs_as_long_as_its_block(logitd_binary):
    with logitd.Server("smollm2", "--threads", 1, binary=logitd_binary) as server, server.client() as client:
        assert client.distribution("The cat", top_n=3).top()[0].id >= 0
        assert client.model()["name"] and str(server.process.pid) in repr(server)
        pid = server.process.pid
    assert server.process.returncode == 0 and not is_there(pid) and "draining" in server.log
    assert server.close() == 0  # again is nothing
    with pytest.raises(logitd.ConnectionFailed):
        logitd.Client(server.url).health()


@pytest.fixture
def logitd_binary(request):
    return request.getfixturevalue("logitd")


def test_it_ends_with_python_and_not_by_ctrl_c(logitd_binary):
    """A script that never closes it: Ctrl-C leaves it alone, the interpreter's end ends it."""
    script = (
        "import logitd, os, signal, sys\n"
        f"server = logitd.Server('smollm2', binary={str(logitd_binary)!r})\n"
        "try: os.killpg(0, signal.SIGINT)\n"
        "except KeyboardInterrupt: pass\n"
        "print(server.process.pid, server.client().health()['status'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT / "python", capture_output=True, text=True,
                          start_new_session=True, check=True)  # fmt: skip
    pid, status = done.stdout.split()
    assert status == "ok" and not is_there(int(pid))


def test_why_it_does_not_start(logitd_binary, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(logitd.ServerStartFailed, match=r"bad.gguf") as caught:
        logitd.Server(tmp_path / "bad.gguf", binary=logitd_binary)
    assert "it ended with 1; it said:" in str(caught.value)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    with pytest.raises(logitd.ServerStartFailed, match=r"did not listen within 0.3 s"):
        logitd.Server("smollm2", binary=silent, start_s=0.3)
    silent.write_text("no program\n")
    with pytest.raises(logitd.ServerStartFailed, match="cannot be run"):
        logitd.Server("smollm2", binary=silent)


def test_a_server_that_dies_is_a_failed_connection(logitd_binary):
    with logitd.Server("smollm2", binary=logitd_binary) as server, server.client() as client:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        with pytest.raises(logitd.ConnectionFailed):
            client.distribution("x")


def test_finding(tmp_path, monkeypatch):
    with pytest.raises(logitd.LogitdError, match="there is no file /nonexistent"):
        find_binary("/nonexistent")
    with pytest.raises(logitd.LogitdError, match=r"there is no model x.gguf: name a GGUF file or one of: smollm2, gemma3"):
        find_model("x.gguf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(logitd.LogitdError, match=r"fetch it with: ./dev model gemma3"):
        find_model("gemma3")
    (tmp_path / "logitd").mkdir()
    (tmp_path / "logitd" / "gemma-3-270m-q4_k_m.gguf").touch()
    assert find_model("gemma3") == tmp_path / "logitd" / "gemma-3-270m-q4_k_m.gguf"
    program = tmp_path / "logitd-bin" / "logitd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr("logitd.server.__file__", str(tmp_path / "site" / "logitd" / "server.py"))
    assert find_binary() == program
    monkeypatch.setenv("PATH", "")
    with pytest.raises(logitd.LogitdError, match=r"no logitd in PATH, and this package is not in its repository.* pip install -e ./python"):
        find_binary()
    (tmp_path / "dev").touch()
    with pytest.raises(logitd.LogitdError, match=r"no logitd in PATH, nor .*/build/logitd; run ./dev build"):
        find_binary()


def test_the_wheel_holds_what_the_package_needs(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                    "--disable-pip-version-check", "--wheel-dir", tmp_path, ROOT / "python"], check=True)  # fmt: skip
    (wheel,) = tmp_path.glob("logitd-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"logitd/{path.name}" for path in (ROOT / "python" / "logitd").iterdir() if path.is_file()}
    assert wanted <= names and {"logitd/py.typed", "logitd/widget.js", "logitd/widget.css"} <= wanted
