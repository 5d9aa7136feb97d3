"""``Client``: a logitd server as Python functions. ``AsyncClient`` (async_client.py) is the same for asyncio.

What is sent, what comes back and when to try again is decided in _requests.py and _replies.py; here is only what a
blocking client does about it. A client keeps its connections, may be used from several threads, and is closed by
``close()`` or at the end of a ``with``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import httpx
from tqdm.auto import tqdm

from logitd._replies import (
    FullReader,
    FullRows,
    LineReader,
    Position,
    Reader,
    Steps,
    distribution_steps,
    tokens_of,
    vocab_steps,
)
from logitd._requests import (
    NDJSON,
    SAFETENSORS,
    Batch,
    DType,
    Json,
    Options,
    Positions,
    Prompt,
    Prompts,
    Request,
    Retry,
    Values,
    distribution_body,
    get,
    is_loopback,
    is_many,
    parse_retry_after,
    plain,
    post,
    tokenize_body,
)
from logitd.distribution import Distribution, Token
from logitd.errors import ConnectionFailed, LogitdError, api_error
from logitd.vocab import Vocab

if TYPE_CHECKING:
    from typing_extensions import Unpack

R = TypeVar("R")
Item = TypeVar("Item")
URL = "http://127.0.0.1:8080"


def connection_options(url: str, api_key: str | None, timeout: float | httpx.Timeout) -> dict[str, Any]:
    """What both of httpx's clients are made with."""
    try:
        is_url = httpx.URL(url).scheme in ("http", "https") and httpx.URL(url).host != ""
    except httpx.InvalidURL:
        is_url = False
    if not is_url:
        raise LogitdError(f"{url!r} is not the URL of a server; it must look like {URL}")
    headers = {"User-Agent": "logitd-python"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    if is_loopback(url):
        headers["Accept-Encoding"] = "identity"
    if not isinstance(timeout, httpx.Timeout):
        timeout = httpx.Timeout(timeout, connect=min(timeout, 10.0))
    return {"base_url": url, "headers": headers, "timeout": timeout, "trust_env": not is_loopback(url)}


def connection_failed(error: httpx.RequestError, url: str) -> ConnectionFailed:
    """Httpx's words as a sentence with what to do."""
    if isinstance(error, httpx.ConnectError):
        return ConnectionFailed(
            f"no server answers at {url}: {error}; is it running, as by ./dev serve or logitd.Server?"
        )
    if isinstance(error, httpx.TimeoutException):
        return ConnectionFailed(
            f"{url} did not answer in time ({type(error).__name__}); give the client a longer timeout"
        )
    return ConnectionFailed(f"the connection to {url} broke: {str(error) or type(error).__name__}")


def wait_or_raise(retry: Retry, response: httpx.Response, n_sent: int, waited_s: float) -> float:
    """Of a response that is no success and was read: the seconds to wait before sending again, or the exception."""
    retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
    wait = retry.wait_s(response.status_code, n_sent, waited_s, retry_after_s)
    if wait is not None:
        return wait
    request_id = response.headers.get("X-Request-Id")
    raise api_error(response.status_code, response.content, request_id=request_id, retry_after_s=retry_after_s)


def health_of(response: httpx.Response) -> Json:
    """The body, whose status may be 503; anything but JSON is an error."""
    if "json" not in response.headers.get("Content-Type", "") or response.status_code not in (200, 503):
        raise api_error(response.status_code, response.content)
    reply: Json = response.json()
    return reply


def byte_bar(response: httpx.Response, shown: bool) -> tqdm[Any]:
    """A bar over the bytes of a reply."""
    total = int(response.headers.get("Content-Length", 0)) or None
    return tqdm(total=total, unit="B", unit_scale=True, desc="reply", disable=not shown)


class Client:
    """A logitd server.

    Args:
        url: where it listens; without a path.
        api_key: for servers that ask for one.
        timeout: seconds until a connected server must send something; computing a long text takes a while.
        retries: when a busy server (429, 503) is asked again: a ``Retry``, or how often at most (0: never).

    Every method raises a ``LogitdError``: ``ConnectionFailed``, or an ``ApiError`` with the server's sentence.
    """

    def __init__(
        self,
        url: str = URL,
        api_key: str | None = None,
        *,
        timeout: float | httpx.Timeout = 600.0,
        retries: Retry | int = 5,
    ) -> None:
        self.url = url.rstrip("/")
        self.retry = retries if isinstance(retries, Retry) else Retry(attempts=retries + 1)
        self._http = httpx.Client(**connection_options(self.url, api_key, timeout))

    # ------------------------------------------------------------------------------------------------------- asking

    @overload
    def distribution(  # type: ignore[overload-overlap]  # a str is also a sequence of them
        self, prompt: Prompt, *, progress: bool = False, **options: Unpack[Options]
    ) -> Distribution: ...
    @overload
    def distribution(
        self, prompt: Batch, *, progress: bool = False, **options: Unpack[Options]
    ) -> list[Distribution]: ...
    def distribution(
        self,
        prompt: Prompts,
        *,
        positions: Positions = "all",
        temperatures: Sequence[float] | None = None,
        temperature: float | None = None,
        top_n: int | Literal["full"] = 20,
        values: Values = "logprob",
        token_ids: Sequence[int] = (),
        stats: bool = True,
        add_bos: bool | None = None,
        special: bool | None = None,
        dtype: DType = "float32",
        progress: bool = False,
    ) -> Distribution | list[Distribution]:
        """What the model believes comes next at the positions of a prompt.

        Args:
            prompt: a text or token ids; or several, for a list of distributions.
            positions: ``"all"``, ``"last"``, a list (negative: from the end), a slice or a range.
            temperatures: up to 32, each from 0.001 to 1000; one pass computes all. Default: 1.
            temperature: or one.
            top_n: entries at each position, most likely first, up to 1024; or ``"full"``, the vocabulary in id order.
            values: what entries hold; logits are before temperature.
            token_ids: ids whose values are wanted at every position.
            stats: logsumexp, entropy, varentropy, and the token that came next.
            add_bos: of text: put BOS first; None: as the model wants it.
            special: of text: read control tokens such as ``<|im_start|>``.
            dtype: of entries and full rows.
            progress: a bar over the bytes of the reply. Full rows come as they are computed; all else comes at the
                end, so that ``stream`` is the way to watch it.
        """
        body = distribution_body(
            prompt, positions=positions, temperatures=temperatures, temperature=temperature, top_n=top_n, values=values,
            token_ids=token_ids, stats=stats, add_bos=add_bos, special=special, dtype=dtype,
        )  # fmt: skip
        request = post("/distribution", {**body, "format": "safetensors"}, SAFETENSORS)
        results = self._run(distribution_steps(request, values, body["token_ids"]), progress)
        return results if is_many(body["prompt"]) else results[0]

    def stream(
        self,
        prompt: Prompts,
        *,
        positions: Positions = "all",
        temperatures: Sequence[float] | None = None,
        temperature: float | None = None,
        top_n: int = 20,
        values: Values = "logprob",
        token_ids: Sequence[int] = (),
        stats: bool = True,
        add_bos: bool | None = None,
        special: bool | None = None,
        progress: bool = False,
    ) -> Iterator[Position]:
        """The same, a ``Position`` at a time as the server computes them, of each prompt in order.

        ``progress`` shows a bar over the positions. Leaving the loop early ends the request.
        """
        body = distribution_body(
            prompt, positions=positions, temperatures=temperatures, temperature=temperature, top_n=top_n, values=values,
            token_ids=token_ids, stats=stats, add_bos=add_bos, special=special, dtype="float32",
        )  # fmt: skip
        return self._read(post("/distribution", {**body, "format": "ndjson"}, NDJSON), LineReader(), progress)

    def iter_full(
        self,
        prompt: Prompts,
        *,
        rows: int = 16,
        positions: Positions = "all",
        temperatures: Sequence[float] | None = None,
        temperature: float | None = None,
        values: Values = "logprob",
        add_bos: bool | None = None,
        special: bool | None = None,
        dtype: DType = "float32",
        progress: bool = False,
    ) -> Iterator[FullRows]:
        """The whole vocabulary at every position, ``rows`` positions at a time, from one pass of the model.

        The server makes rows as they are read: however long the prompt, neither side holds more than a few blocks of
        ``rows`` × temperatures × vocabulary values.
        """
        body = distribution_body(
            prompt, positions=positions, temperatures=temperatures, temperature=temperature, top_n="full",
            values=values, token_ids=(), stats=False, add_bos=add_bos, special=special, dtype=dtype,
        )  # fmt: skip
        request = post("/distribution", {**body, "format": "safetensors"}, SAFETENSORS)
        return self._read(request, FullReader(positions, rows), progress)

    def tokenize(self, text: str, *, add_bos: bool | None = None, special: bool = False) -> list[Token]:
        """A text as the model's tokens."""
        return tokens_of(self._send(post("/tokenize", tokenize_body(text, add_bos, special))))

    def detokenize(self, ids: Sequence[int]) -> str:
        """Token ids as text, U+FFFD where bytes are no UTF-8."""
        text: str = json.loads(self._send(post("/detokenize", {"ids": plain(ids)})))["text"]
        return text

    def vocab(self) -> Vocab:
        """The model's vocabulary; fetched once a model."""
        return self._run(vocab_steps())

    def model(self) -> Json:
        """``GET /model``: what is served, and the server's limits."""
        reply: Json = json.loads(self._send(get("/model")))
        return reply

    def health(self) -> Json:
        """``GET /health``: counters, and whether it is ready; also of a server that says it is not."""
        try:
            return health_of(self._http.get("/health"))
        except httpx.RequestError as error:
            raise connection_failed(error, self.url) from error

    def metrics(self) -> str:
        """``GET /metrics``: Prometheus text."""
        return self._send(get("/metrics")).decode()

    # ----------------------------------------------------------------------------------------------------------- I/O

    @contextlib.contextmanager
    def _open(self, request: Request) -> Iterator[httpx.Response]:
        """A successful response that is not read yet, after as many tries as ``retry`` allows."""
        n_sent, waited_s = 0, 0.0
        try:
            while True:
                n_sent += 1
                with self._http.stream(
                    request.method, request.path, content=request.body, headers=request.headers
                ) as response:
                    if response.is_success:
                        yield response
                        return
                    response.read()
                wait = wait_or_raise(self.retry, response, n_sent, waited_s)
                time.sleep(wait)
                waited_s += wait
        except httpx.RequestError as error:
            raise connection_failed(error, self.url) from error

    def _send(self, request: Request, progress: bool = False) -> bytes:
        with self._open(request) as response, byte_bar(response, progress) as bar:
            pieces = []
            for piece in response.iter_bytes():
                pieces.append(piece)
                bar.update(len(piece))
            return b"".join(pieces)

    def _run(self, steps: Steps[R], progress: bool = False) -> R:
        reply: bytes | None = None
        while True:
            try:
                request = next(steps) if reply is None else steps.send(reply)
            except StopIteration as done:
                result: R = done.value
                return result
            reply, progress = self._send(request, progress), False  # a bar for the first reply alone

    def _read(self, request: Request, reader: Reader[Item], progress: bool) -> Iterator[Item]:
        with self._open(request) as response, tqdm(unit="position", disable=not progress) as bar:
            for piece in response.iter_bytes():
                items = reader.feed(piece)
                bar.total = reader.n_positions
                bar.update(reader.n_read - bar.n)
                yield from items
            reader.finish()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"
