"""``AsyncClient``: ``Client`` for asyncio, with the same arguments and results; only the waiting differs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar, overload

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
    is_many,
    plain,
    post,
    tokenize_body,
)
from logitd.client import URL, byte_bar, connection_failed, connection_options, health_of, wait_or_raise
from logitd.distribution import Distribution, Token
from logitd.vocab import Vocab

if TYPE_CHECKING:
    from typing_extensions import Unpack

R = TypeVar("R")
Item = TypeVar("Item")


class AsyncClient:
    """A logitd server, for asyncio; see ``Client`` for the arguments of everything."""

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
        self._http = httpx.AsyncClient(**connection_options(self.url, api_key, timeout))

    # ------------------------------------------------------------------------------------------------------- asking

    @overload
    async def distribution(  # type: ignore[overload-overlap]  # a str is also a sequence of them
        self, prompt: Prompt, *, progress: bool = False, **options: Unpack[Options]
    ) -> Distribution: ...
    @overload
    async def distribution(
        self, prompt: Batch, *, progress: bool = False, **options: Unpack[Options]
    ) -> list[Distribution]: ...
    async def distribution(
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
        """As ``Client.distribution``."""
        body = distribution_body(
            prompt, positions=positions, temperatures=temperatures, temperature=temperature, top_n=top_n, values=values,
            token_ids=token_ids, stats=stats, add_bos=add_bos, special=special, dtype=dtype,
        )  # fmt: skip
        request = post("/distribution", {**body, "format": "safetensors"}, SAFETENSORS)
        results = await self._run(distribution_steps(request, values, body["token_ids"]), progress)
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
    ) -> AsyncIterator[Position]:
        """As ``Client.stream``, for ``async for``."""
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
    ) -> AsyncIterator[FullRows]:
        """As ``Client.iter_full``, for ``async for``."""
        body = distribution_body(
            prompt, positions=positions, temperatures=temperatures, temperature=temperature, top_n="full",
            values=values, token_ids=(), stats=False, add_bos=add_bos, special=special, dtype=dtype,
        )  # fmt: skip
        request = post("/distribution", {**body, "format": "safetensors"}, SAFETENSORS)
        return self._read(request, FullReader(positions, rows), progress)

    async def tokenize(self, text: str, *, add_bos: bool | None = None, special: bool = False) -> list[Token]:
        """As ``Client.tokenize``."""
        return tokens_of(await self._send(post("/tokenize", tokenize_body(text, add_bos, special))))

    async def detokenize(self, ids: Sequence[int]) -> str:
        """As ``Client.detokenize``."""
        text: str = json.loads(await self._send(post("/detokenize", {"ids": plain(ids)})))["text"]
        return text

    async def vocab(self) -> Vocab:
        """As ``Client.vocab``."""
        return await self._run(vocab_steps())

    async def model(self) -> Json:
        """As ``Client.model``."""
        reply: Json = json.loads(await self._send(get("/model")))
        return reply

    async def health(self) -> Json:
        """As ``Client.health``."""
        try:
            return health_of(await self._http.get("/health"))
        except httpx.RequestError as error:
            raise connection_failed(error, self.url) from error

    async def metrics(self) -> str:
        """As ``Client.metrics``."""
        return (await self._send(get("/metrics"))).decode()

    # ----------------------------------------------------------------------------------------------------------- I/O

    @contextlib.asynccontextmanager
    async def _open(self, request: Request) -> AsyncIterator[httpx.Response]:
        n_sent, waited_s = 0, 0.0
        try:
            while True:
                n_sent += 1
                async with self._http.stream(
                    request.method, request.path, content=request.body, headers=request.headers
                ) as response:
                    if response.is_success:
                        yield response
                        return
                    await response.aread()
                wait = wait_or_raise(self.retry, response, n_sent, waited_s)
                await asyncio.sleep(wait)
                waited_s += wait
        except httpx.RequestError as error:
            raise connection_failed(error, self.url) from error

    async def _send(self, request: Request, progress: bool = False) -> bytes:
        async with self._open(request) as response:
            with byte_bar(response, progress) as bar:
                pieces = []
                async for piece in response.aiter_bytes():
                    pieces.append(piece)
                    bar.update(len(piece))
                return b"".join(pieces)

    async def _run(self, steps: Steps[R], progress: bool = False) -> R:
        reply: bytes | None = None
        while True:
            try:
                request = next(steps) if reply is None else steps.send(reply)
            except StopIteration as done:
                result: R = done.value
                return result
            reply, progress = await self._send(request, progress), False  # a bar for the first reply alone

    async def _read(self, request: Request, reader: Reader[Item], progress: bool) -> AsyncIterator[Item]:
        async with self._open(request) as response:
            with tqdm(unit="position", disable=not progress) as bar:
                async for piece in response.aiter_bytes():
                    items = reader.feed(piece)
                    bar.total = reader.n_positions
                    bar.update(reader.n_read - bar.n)
                    for item in items:
                        yield item
                reader.finish()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"
