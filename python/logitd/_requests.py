"""Requests and when to send them again: pure functions that both clients share. Nothing here touches a socket."""

from __future__ import annotations

import email.utils
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal, TypeAlias, TypedDict
from urllib.parse import urlsplit

from logitd.errors import LogitdError

Prompt: TypeAlias = "str | Sequence[int]"
Batch: TypeAlias = "Sequence[str] | Sequence[Sequence[int]]"
Prompts: TypeAlias = "Prompt | Batch"


class Slice(TypedDict, total=False):
    """Positions as a Python slice; what is left out or None is as in Python."""

    start: int | None
    stop: int | None
    step: int | None


Positions: TypeAlias = "Literal['all', 'last'] | Sequence[int] | slice | range | Slice"
Values: TypeAlias = Literal["logprob", "prob", "logit"]
DType: TypeAlias = Literal["float32", "float16"]
Json: TypeAlias = dict[str, Any]


class Options(TypedDict, total=False):
    """The keywords of ``distribution``, for type checkers; ``Client.distribution`` describes them."""

    positions: Positions
    temperatures: Sequence[float] | None
    temperature: float | None
    top_n: int | Literal["full"]
    values: Values
    token_ids: Sequence[int]
    stats: bool
    add_bos: bool | None
    special: bool | None
    dtype: DType


SAFETENSORS = "application/vnd.safetensors"
NDJSON = "application/x-ndjson"


@dataclass(frozen=True)
class Request:
    """One HTTP exchange to come."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def post(path: str, body: Json, accept: str = "application/json") -> Request:
    """A POST of JSON."""
    headers = {"Content-Type": "application/json", "Accept": accept}
    try:
        data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise LogitdError(f"the request is no JSON: {error}") from error
    return Request("POST", path, data, headers)


def get(path: str) -> Request:
    """A GET."""
    return Request("GET", path)


def plain(value: Any) -> Any:
    """A value as JSON knows it: arrays and numbers of NumPy and its kin, tuples, ranges, slices and other iterables.

    What is wrong in it is left to the server, which says so in a sentence; but bytes are not read as token ids.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise LogitdError("bytes are neither a text nor token ids; decode them, as by .decode()")
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, slice):
        return plain({"start": value.start, "stop": value.stop, "step": value.step})
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(one) for one in value]
    return value


def is_many(prompt: Any) -> bool:
    """Whether a plain prompt is a batch: texts, or lists of ids."""
    return isinstance(prompt, list) and len(prompt) > 0 and isinstance(prompt[0], (str, list))


def positions_of(positions: Positions, n_tokens: int) -> list[int]:
    """Which positions of a prompt of ``n_tokens`` a request means, as the server resolves them."""
    if positions == "all":
        return list(range(n_tokens))
    if positions == "last":
        return [n_tokens - 1]
    if isinstance(positions, dict):
        positions = slice(positions.get("start"), positions.get("stop"), positions.get("step"))
    if isinstance(positions, slice):
        return list(range(n_tokens))[positions]
    return [int(i) % n_tokens for i in positions]


def distribution_body(
    prompt: Prompts,
    *,
    positions: Positions,
    temperatures: Sequence[float] | None,
    temperature: float | None,
    top_n: int | Literal["full"],
    values: Values,
    token_ids: Sequence[int],
    stats: bool,
    add_bos: bool | None,
    special: bool | None,
    dtype: DType,
) -> Json:
    """The body of ``POST /distribution``; what is None is left to the server."""
    body: Json = {
        "prompt": prompt,
        "positions": positions,
        "temperatures": temperatures,
        "temperature": temperature,
        "top_n": top_n,
        "values": values,
        "token_ids": token_ids,
        "stats": stats,
        "dtype": dtype,
        "add_bos": add_bos,
        "special": special,
    }
    return {key: plain(value) for key, value in body.items() if value is not None or key == "prompt"}


def tokenize_body(text: str, add_bos: bool | None, special: bool) -> Json:
    """The body of ``POST /tokenize``."""
    return {"text": text, "special": special} | ({} if add_bos is None else {"add_bos": add_bos})


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine: no proxy belongs between, and compression costs more than it saves."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def parse_retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None if it is missing or neither."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        at = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (at - (now or datetime.now(timezone.utc))).total_seconds())


@dataclass(frozen=True)
class Retry:
    """When a busy server (429, 503) is asked again.

    Attributes:
        attempts: how often one request is sent at most, the first time included.
        total_s: seconds that all the waiting for one request may take; a wait that would pass it is not begun.
        first_s: the wait after the first refusal when the server names none; each further one is twice as long.
    """

    attempts: int = 6
    total_s: float = 60.0
    first_s: float = 0.25

    def wait_s(self, status: int, n_sent: int, waited_s: float, retry_after_s: float | None) -> float | None:
        """Seconds to wait before sending again; None: give up."""
        if status not in (429, 503) or n_sent >= self.attempts:
            return None
        wait = self.first_s * 2 ** (n_sent - 1) if retry_after_s is None else retry_after_s
        return wait if waited_s + wait <= self.total_s else None
