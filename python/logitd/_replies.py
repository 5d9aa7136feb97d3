"""Replies of the server as Python objects: pure functions, and readers that are fed pieces of a reply as they come.

The readers hold what they need of one piece of work (a line, a block of rows) and nothing of the rest.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors

from logitd._requests import Json, Positions, Request, get, positions_of
from logitd.distribution import Distribution, FloatArray, IntArray, Token
from logitd.errors import ConnectionFailed, LogitdError, ServerFailed
from logitd.vocab import Vocab

R = TypeVar("R")
Item_co = TypeVar("Item_co", covariant=True)

Steps: TypeAlias = Generator[Request, bytes, R]
"""Yields requests, is sent the bytes of their replies, and returns a result: a client has only to carry them."""

DTYPES: dict[str, type] = {"F32": np.float32, "F16": np.float16}
ENTRIES = ("logprob", "prob", "logit")
VOCABS: dict[str, Vocab] = {}
"""Vocabularies that were fetched, by the model's sha256: one a model and process."""


@dataclass(frozen=True, eq=False)
class FullRows:
    """Some rows of full distributions.

    Attributes:
        index: which prompt.
        positions: i32 [R].
        values: [R, T, V] log-probabilities or probabilities, or [R, V] logits.
    """

    index: int
    positions: IntArray
    values: FloatArray


@dataclass(frozen=True, eq=False)
class Position:
    """One position of a prompt, as it was computed. T temperatures, N entries, K listed ids; nats.

    ``logsumexp``, ``entropy``, ``varentropy`` and ``next_logprob`` are f32 [T], or None without stats;
    ``next_id`` is -1 and ``next_logprob`` NaN at the last position. ``top_value`` is [T, N] and ``listed_value``
    [T, K]; of ``values="logit"`` [N] and [K].
    """

    index: int
    position: int
    token_id: int
    logsumexp: FloatArray | None
    entropy: FloatArray | None
    varentropy: FloatArray | None
    next_id: int
    next_text: str
    next_rank: int
    next_logprob: FloatArray | None
    top_id: IntArray
    top_text: list[str]
    top_value: FloatArray
    listed_value: FloatArray


# -------------------------------------------------------------------------------------------------------------- whole


def metadata_of(reply: bytes) -> Json:
    """``__metadata__`` of a safetensors reply, its values read as the JSON that they are."""
    size = int.from_bytes(reply[:8], "little")
    return {k: json.loads(v) for k, v in json.loads(reply[8 : 8 + size])["__metadata__"].items()}


def vocab_steps(sha256: str | None = None) -> Steps[Vocab]:
    """Steps to a Vocab: of the model with this checksum, or of the one that is served."""
    if sha256 is None:
        sha256 = json.loads((yield get("/model")))["sha256"]
    if sha256 not in VOCABS:
        reply = yield get("/vocab?format=safetensors")
        VOCABS[metadata_of(reply)["model"]["sha256"]] = Vocab.from_reply(reply)
        if sha256 not in VOCABS:
            raise LogitdError("the server's model changed between two requests; ask again")
    return VOCABS[sha256]


def distribution_steps(request: Request, values: str, token_ids: list[int]) -> Steps[list[Distribution]]:
    """Steps to a Distribution for each prompt of a request for safetensors."""
    reply = yield request
    metadata, arrays = metadata_of(reply), load_safetensors(reply)
    vocab = yield from vocab_steps(metadata["model"]["sha256"])
    by_prompt: dict[int, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        _, index, short = name.split(".")
        by_prompt.setdefault(int(index), {"listed_id": np.array(token_ids, np.int32)})[short] = array
    return [
        Distribution(
            by_prompt[index],
            temperatures=metadata["temperatures"],
            values=values,
            vocab=vocab,
            model=metadata["model"],
            numerics=metadata["numerics"],
        )
        for index in sorted(by_prompt)
    ]


def tokens_of(reply: bytes) -> list[Token]:
    """Of ``POST /tokenize``."""
    return [Token(token["id"], token["text"], bytes(token["bytes"]), None) for token in json.loads(reply)["tokens"]]


# -------------------------------------------------------------------------------------------------------- line by line


def _floats(values: Any, null: float) -> FloatArray:
    """JSON's numbers, shortest decimals of float32s, are those bits again."""
    if isinstance(values, list) and None in values:
        values = [null if value is None else value for value in values]
    return np.array(values, dtype=np.float64).astype(np.float32)


def _entries(entries: list[Json], values: str, n_t: int) -> FloatArray:
    """[T, N], or [N] of logits; null is an infinity that JSON cannot hold."""
    if values == "logit":
        return _floats([entry["logit"] for entry in entries], -np.inf)
    return np.array([_floats(entry[values], -np.inf) for entry in entries], np.float32).reshape(-1, n_t).T


def position_of(line: Json, values: str, n_t: int) -> Position:
    """One line of an NDJSON reply."""
    has_stats = "logsumexp" in line
    following = line.get("next") or {"id": -1, "text": "", "rank": -1, "logprob": [None] * n_t}

    def stat(name: str) -> FloatArray | None:
        return _floats(line[name], np.nan) if has_stats else None

    return Position(
        index=line["index"],
        position=line["position"],
        token_id=line["token_id"],
        logsumexp=stat("logsumexp"),
        entropy=stat("entropy"),
        varentropy=stat("varentropy"),
        next_id=following["id"],
        next_text=following["text"],
        next_rank=following["rank"],
        next_logprob=_floats(following["logprob"], np.nan) if has_stats else None,
        top_id=np.array([entry["id"] for entry in line["top"]], np.int32),
        top_text=[entry["text"] for entry in line["top"]],
        top_value=_entries(line["top"], values, n_t),
        listed_value=_entries(line["token_ids"], values, n_t),
    )


class Reader(Protocol[Item_co]):
    """Fed the pieces of a reply, gives what is complete."""

    n_positions: int
    """How many the reply holds; known with the first of them."""
    n_read: int
    """How many were read."""

    def feed(self, piece: bytes) -> Sequence[Item_co]: ...

    def finish(self) -> None:
        """Raises if the reply ended too early."""


class LineReader:
    """Reads NDJSON of ``/distribution``."""

    def __init__(self) -> None:
        self.n_positions = self.n_read = 0
        self._rest = b""
        self._head: Json = {}
        self._complete = False

    def feed(self, piece: bytes) -> list[Position]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [item for line in lines if line for item in self._line(json.loads(line))]

    def _line(self, line: Json) -> list[Position]:
        if "position" in line:
            self.n_read += 1
            return [position_of(line, self._head["values"], len(self._head["temperatures"]))]
        if "error" in line:
            raise ServerFailed(line["error"]["message"], status=200, code=line["error"]["code"])
        if "usage" in line:
            self._head, self.n_positions = line, line["usage"]["positions"]
        self._complete |= "timing_ms" in line
        return []

    def finish(self) -> None:
        if not self._complete:
            raise ConnectionFailed("the reply was cut short: the server ended, or the connection broke")


class FullReader:
    """Reads the full rows of a safetensors reply in blocks, and skips all else."""

    def __init__(self, positions: Positions, rows: int) -> None:
        self.n_positions = self.n_read = 0
        self._asked, self._rows = positions, rows
        self._data = bytearray()
        self._plan: Iterator[tuple[int, _Block | None]] | None = None
        self._wanted: tuple[int, _Block | None] | None = None

    def feed(self, piece: bytes) -> list[FullRows]:
        self._data += piece
        if self._plan is None and not self._begin():
            return []
        out = []
        while self._wanted is not None:
            n_bytes, block = self._wanted
            if block is None:  # may be long, and is not kept
                n = min(n_bytes, len(self._data))
                del self._data[:n]
                self._wanted = (n_bytes - n, None)
                if n < n_bytes:
                    break
            elif len(self._data) < n_bytes:
                break
            else:
                out.append(block.rows(self._data[:n_bytes]))
                self.n_read += len(block.positions)
                del self._data[:n_bytes]
            self._wanted = next(self._plan, None) if self._plan else None
        return out

    def _begin(self) -> bool:
        size = int.from_bytes(self._data[:8], "little")
        if len(self._data) < 8 or len(self._data) < 8 + size:
            return False
        head = json.loads(bytes(self._data[8 : 8 + size]))
        del self._data[: 8 + size]
        head.pop("__metadata__")
        tensors = sorted(head.items(), key=lambda item: item[1]["data_offsets"])
        self.n_positions = sum(tensor["shape"][0] for name, tensor in tensors if name.split(".")[2] in ENTRIES)
        self._plan = self._blocks(head, tensors)
        self._wanted = next(self._plan, None)
        return True

    def _blocks(self, head: Json, tensors: list[tuple[str, Json]]) -> Iterator[tuple[int, _Block | None]]:
        """Bytes, and what they are if they are wanted, in the order of the file."""
        for name, tensor in tensors:
            _, index, kind = name.split(".")
            begin, end = tensor["data_offsets"]
            if kind not in ENTRIES:
                yield end - begin, None
                continue
            n, *shape = tensor["shape"]
            positions = positions_of(self._asked, head[f"prompt.{index}.tokens"]["shape"][0])
            for i in range(0, n, self._rows):
                some = np.array(positions[i : i + self._rows], np.int32)
                yield (end - begin) // n * len(some), _Block(int(index), some, DTYPES[tensor["dtype"]], shape)

    def finish(self) -> None:
        if self._plan is None or self._wanted is not None:
            raise ConnectionFailed("the reply was cut short: the server ended, or the connection broke")


@dataclass(frozen=True)
class _Block:
    """What some bytes of the full tensor are."""

    index: int
    positions: IntArray
    dtype: type
    shape: list[int]

    def rows(self, data: bytearray) -> FullRows:
        return FullRows(self.index, self.positions, np.frombuffer(data, self.dtype).reshape(-1, *self.shape))
