"""The vocabulary of a model: every token's bytes, and its text as people read it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors


class Vocab(Mapping[int, bytes]):
    """Token id → bytes, of all ids or (in a distribution that was loaded from a file) of those that occur.

    A token may be a fragment of a character: its bytes are exact, its text has U+FFFD there. A control token
    (``<|im_start|>``) has its name for bytes.

    Attributes:
        n_vocab: number of ids of the model.
        control: the ids of control tokens.
    """

    def __init__(self, pieces: Mapping[int, bytes], n_vocab: int, control: Iterable[int] = ()) -> None:
        self._pieces = dict(pieces)
        self._ids: dict[bytes, int] | None = None
        self.n_vocab = n_vocab
        self.control = frozenset(control)

    @classmethod
    def from_reply(cls, reply: bytes) -> Vocab:
        """Of ``GET /vocab?format=safetensors``."""
        arrays = load_safetensors(reply)
        data, offsets = arrays["bytes"].tobytes(), arrays["bytes_offsets"].tolist()
        pieces = {i: data[a:b] for i, (a, b) in enumerate(itertools.pairwise(offsets))}
        return cls(pieces, len(pieces), np.flatnonzero(arrays["control"]).tolist())

    def __getitem__(self, token_id: int) -> bytes:
        return self._pieces[int(token_id)]

    def __iter__(self) -> Iterator[int]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def text(self, token_id: int) -> str:
        """The token as text, U+FFFD where it is a fragment of a character."""
        return self[token_id].decode(errors="replace")

    def texts(self, token_ids: Iterable[int] | NDArray[np.integer]) -> list[str]:
        """``text`` of each."""
        return [self.text(i) for i in token_ids]

    def id(self, piece: str | bytes) -> int:
        """The id of exactly this piece (``vocab.id(" Paris")``), the lowest if there are several; KeyError if none."""
        if self._ids is None:
            self._ids = {}
            for token_id, data in self._pieces.items():
                self._ids.setdefault(data, token_id)
        return self._ids[piece.encode() if isinstance(piece, str) else piece]

    def subset(self, token_ids: Iterable[int]) -> Vocab:
        """The same vocabulary with only these ids at hand."""
        ids = {int(i) for i in token_ids}
        return Vocab({i: self[i] for i in ids}, self.n_vocab, self.control & ids)

    def __repr__(self) -> str:
        return f"Vocab({len(self):,} of {self.n_vocab:,} tokens)"
