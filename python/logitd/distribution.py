"""What a model believed at the positions of one prompt: NumPy arrays under the names that the HTTP API gives them.

Shapes: n tokens of the prompt, P returned positions, T temperatures, N = top_n, K listed ids, V the vocabulary.
Logarithms are natural (nats). Row p of an array is about the token that follows position ``positions[p]``. Nothing here
talks to a server.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitd.errors import LogitdError
from logitd.vocab import Vocab

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

FloatArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.int32]
By: TypeAlias = Literal["surprisal", "rank", "entropy", "top1"]


class NotAsked(LogitdError, AttributeError):
    """An array that the request did not ask for."""


class Token(NamedTuple):
    """A token of the prompt: ``text`` has U+FFFD where it is a fragment, ``bytes`` is exact.

    ``offset`` is its first byte in the prompt's text; None for a BOS, and where the prompt was ids.
    """

    id: int
    text: str
    bytes: bytes
    offset: int | None


class Candidate(NamedTuple):
    """A token that might come next."""

    id: int
    text: str
    logprob: float

    @property
    def prob(self) -> float:
        """Its probability."""
        return math.exp(self.logprob)


class Summary(NamedTuple):
    """Means over the returned positions at one temperature; NaN where there is nothing to average.

    ``cross_entropy`` is the mean surprisal, in nats, of the ``n`` tokens that came next; ``bits_per_byte`` counts the
    bytes of those that are text.
    """

    temperature: float
    cross_entropy: float
    perplexity: float
    bits_per_byte: float
    mean_entropy: float
    n: int


class _Array:
    """An attribute that is an array of the reply, or says how to ask for it."""

    def __init__(self, shape: str, ask: str) -> None:
        self.ask = ask
        self.__doc__ = shape

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, dist: None, owner: type) -> _Array: ...
    @overload
    def __get__(self, dist: Distribution, owner: type) -> FloatArray: ...
    def __get__(self, dist: Distribution | None, owner: type) -> _Array | FloatArray:
        if dist is None:
            return self
        if self.name not in dist.arrays:
            raise NotAsked(f"{self.name} was not asked for; {self.ask}")
        return dist.arrays[self.name]


_STATS = "it comes with stats=True"


class Distribution:
    """The reply for one prompt.

    Attributes:
        arrays: every array by its name; those below are also attributes.
        temperatures: f64 [T], as they were asked.
        values: what entries hold: ``"logprob"``, ``"prob"`` or ``"logit"`` (before temperature, so without T).
        vocab: ids to bytes and text.
        model: name, architecture, n_vocab, sha256.
        numerics: backend, precision, kernel, logprob_bound: the worst error in a logprob, times min(T, 1).
    """

    logsumexp = _Array("f32 [P, T]: log Σ exp(logit / T).", _STATS)
    entropy = _Array("f32 [P, T]: nats.", _STATS)
    varentropy = _Array("f32 [P, T]: variance of the surprisal, nats².", _STATS)
    next_logprob = _Array("f32 [P, T]: of the token that came; NaN at the last position.", _STATS)
    logprob = _Array("[P, T, V]: the whole vocabulary.", 'ask with top_n="full"')
    prob = _Array("[P, T, V]: the whole vocabulary.", 'ask with top_n="full", values="prob"')
    logit = _Array("[P, V]: the whole vocabulary.", 'ask with top_n="full", values="logit"')
    top_logprob = _Array("[P, T, N]: of top_id.", "ask with top_n from 1 to 1024")
    top_prob = _Array("[P, T, N]: of top_id.", 'ask with top_n from 1 to 1024, values="prob"')
    top_logit = _Array("[P, N]: of top_id.", 'ask with top_n from 1 to 1024, values="logit"')
    listed_logprob = _Array("[P, T, K]: of listed_id.", "ask with token_ids")
    listed_prob = _Array("[P, T, K]: of listed_id.", 'ask with token_ids, values="prob"')
    listed_logit = _Array("[P, K]: of listed_id.", 'ask with token_ids, values="logit"')

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        *,
        temperatures: Sequence[float],
        values: str,
        vocab: Vocab,
        model: dict[str, Any],
        numerics: dict[str, Any],
    ) -> None:
        self.arrays = dict(arrays)
        self.temperatures: NDArray[np.float64] = np.array(temperatures, dtype=np.float64)
        self.values = values
        self.vocab = vocab
        self.model = model
        self.numerics = numerics

    # -------------------------------------------------------------------------------------------------------- arrays

    @property
    def token_id(self) -> IntArray:
        """i32 [n]: the prompt's tokens."""
        return self.arrays["tokens"]

    @property
    def positions(self) -> IntArray:
        """i32 [P]: which position each row is about."""
        return self.arrays["positions"]

    @property
    def next_id(self) -> IntArray:
        """i32 [P]: the token that came after each position, -1 at the last."""
        return np.append(self.token_id, np.int32(-1))[self.positions + 1]

    @property
    def next_rank(self) -> IntArray:
        """i32 [P]: how many tokens had a strictly larger logit than the one that came; -1 at the last position."""
        if "next_rank" not in self.arrays:
            raise NotAsked(f"next_rank was not asked for; {_STATS}")
        return self.arrays["next_rank"]

    @property
    def top_id(self) -> IntArray:
        """i32 [P, N]: the most likely tokens, most likely first."""
        if "top_id" not in self.arrays:
            raise NotAsked("top_id was not asked for; ask with top_n from 1 to 1024")
        return self.arrays["top_id"]

    @property
    def listed_id(self) -> IntArray:
        """i32 [K]: the ids that were asked for by ``token_ids``."""
        return self.arrays["listed_id"]

    @property
    def surprisal(self) -> FloatArray:
        """f32 [P, T]: -logprob of the token that came, nats; NaN at the last position."""
        return -self.next_logprob

    @cached_property
    def tokens(self) -> list[Token]:
        """The prompt's tokens."""
        offsets = self.arrays["offsets"].tolist() if "offsets" in self.arrays else [-1] * len(self.token_id)
        return [
            Token(i, self.vocab.text(i), self.vocab[i], offset if offset >= 0 else None)
            for i, offset in zip(self.token_id.tolist(), offsets, strict=True)
        ]

    # ------------------------------------------------------------------------------------------------------- reading

    def row(self, position: int) -> int:
        """The row about a position of the prompt (negative: from the end)."""
        try:
            return self._rows[operator.index(position) + (len(self.token_id) if position < 0 else 0)]
        except KeyError:
            raise LogitdError(f"position {position} was not asked for or is not in the prompt") from None

    @cached_property
    def _rows(self) -> dict[int, int]:
        return {position: i for i, position in enumerate(self.positions.tolist())}

    def temperature_index(self, temperature: float | None = None) -> int:
        """Where a temperature stands in ``temperatures``; None means 1 if it was asked, else the first."""
        found = np.flatnonzero(self.temperatures == (1.0 if temperature is None else temperature))
        if len(found):
            return int(found[0])
        if temperature is None:
            return 0
        raise LogitdError(f"temperature {temperature} was not asked for, but {self.temperatures.tolist()}")

    def top(self, position: int = -1, *, temperature: float | None = None, n: int = 10) -> list[Candidate]:
        """The ``n`` most likely tokens after a position, most likely first."""
        row, t = self.row(position), self.temperature_index(temperature)
        if "top_id" in self.arrays:
            ids, values = self.top_id[row, :n], self.arrays[f"top_{self.values}"][row]
            logprobs = self._logprobs(values, row, t)[:n]
        else:
            full = self._logprobs(getattr(self, self.values)[row], row, t)
            ids = np.argsort(-full, kind="stable")[:n].astype(np.int32)
            logprobs = full[ids]
        return [Candidate(i, self.vocab.text(i), p) for i, p in zip(ids.tolist(), logprobs.tolist(), strict=True)]

    def _logprobs(self, values: FloatArray, row: int, t: int) -> NDArray[np.float64]:
        """Entries of one row ([T, …], or […] of logits) as log-probabilities at temperature t."""
        if self.values == "logprob":
            return np.asarray(values[t], dtype=np.float64)
        if self.values == "prob":
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(values[t].astype(np.float64)))
        if len(values) == self.vocab.n_vocab:
            return log_softmax(values, self.temperatures[t])
        return np.asarray(values / self.temperatures[t] - np.float64(self.logsumexp[row, t]))

    def of_tokens(self, by: By = "surprisal", *, temperature: float | None = None) -> NDArray[np.float64]:
        """For each token of the prompt, what was believed before it came.

        Args:
            by: ``"surprisal"`` (nats) and ``"rank"`` of the token itself; ``"entropy"`` (nats) and ``"top1"`` (the
                probability of the most likely token) of the distribution that it came from.
            temperature: one of those that were asked.

        Returns:
            f64 [n]; NaN at the first token, and where the position before it was not asked for.
        """
        t = self.temperature_index(temperature)
        if by == "surprisal":
            of_rows: FloatArray = self.surprisal[:, t].astype(np.float64)
        elif by == "rank":
            of_rows = self.next_rank.astype(np.float64)
        elif by == "entropy":
            of_rows = self.entropy[:, t].astype(np.float64)
        elif by == "top1":
            of_rows = np.array([self.top(p, temperature=self.temperatures[t], n=1)[0].prob for p in self.positions])
        else:
            raise LogitdError(f'by is {by!r}; it must be "surprisal", "rank", "entropy" or "top1"')
        out = np.full(len(self.token_id), np.nan)
        inside = self.positions + 1 < len(out)
        out[self.positions[inside] + 1] = of_rows[inside]
        return out

    @property
    def summary(self) -> list[Summary]:
        """Means over the returned positions, one a temperature; the same numbers as in a JSON reply."""
        came = self.next_id[self.next_id >= 0].tolist()
        n_bytes = sum(len(self.vocab[i]) for i in came if i not in self.vocab.control)
        logprob = self.next_logprob[self.next_id >= 0].astype(np.float64)
        out = []
        for t, temperature in enumerate(self.temperatures.tolist()):
            total, cross_entropy = _sum(logprob[:, t]), math.nan
            if came:
                cross_entropy = -total / len(came)
            perplexity = math.exp(cross_entropy) if cross_entropy < 700 else cross_entropy * math.inf
            bits = -total / (math.log(2) * n_bytes) if came and n_bytes else math.nan
            n_rows = len(self.positions)
            mean = _sum(self.entropy[:, t].astype(np.float64) / n_rows) if n_rows else math.nan
            out.append(Summary(temperature, cross_entropy, perplexity, bits, mean, len(came)))
        return out

    # --------------------------------------------------------------------------------------------- tables and files

    def to_pandas(self, *, entries: bool = False) -> pd.DataFrame:
        """A row for each position and temperature; with ``entries`` for each of its most likely tokens (or of V)."""
        from logitd import _tables  # noqa: PLC0415 (pandas is optional)

        return _tables.to_pandas_entries(self) if entries else _tables.to_pandas(self)

    def to_xarray(self) -> xr.Dataset:
        """The arrays with named dimensions: position, temperature, order (of top_n), listed, vocab, token."""
        from logitd import _tables  # noqa: PLC0415 (xarray is optional)

        return _tables.to_xarray(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything to a .safetensors, .npz or .parquet file, for ``logitd.load``.

        A .parquet file has a row for each position, and the texts of its tokens, for other readers.
        """
        from logitd import _files  # noqa: PLC0415 (it needs this module)

        _files.save(self, path)

    # ------------------------------------------------------------------------------------------------------- display

    def html(self, by: By = "surprisal", *, temperature: float | None = None) -> str:
        """The text as HTML, each token coloured by ``of_tokens``; self-contained, for light and dark pages."""
        from logitd import _html  # noqa: PLC0415 (it needs this module)

        return _html.render(self, by, temperature)

    def _repr_html_(self) -> str:
        has_stats = "next_logprob" in self.arrays
        return self.html("surprisal" if has_stats else "top1") if has_stats or "top_id" in self.arrays else ""

    def __len__(self) -> int:
        """Number of positions."""
        return len(self.positions)

    def __repr__(self) -> str:
        temperatures = ", ".join(f"{t:g}" for t in self.temperatures)
        what = (
            "the whole vocabulary"
            if self.values in self.arrays
            else f"top {self.arrays['top_id'].shape[1]}"
            if "top_id" in self.arrays
            else "statistics"
        )
        return f"Distribution({len(self.token_id)} tokens, {len(self)} positions, T = {temperatures}, {what})"


def load(path: str | os.PathLike[str]) -> Distribution:
    """What ``Distribution.save`` wrote."""
    from logitd import _files  # noqa: PLC0415 (it needs this module)

    return _files.load(path)


def log_softmax(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Log-probabilities (nats, f64) of logits […, V] at a temperature, with the largest logit taken out first."""
    x = np.asarray(logits, dtype=np.float64)
    x = (x - x.max(axis=-1, keepdims=True)) / temperature
    return np.asarray(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)))


def kl_divergence(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """KL(p ‖ q) = Σ p (log p - log q) in nats, of log-probabilities […, V] → […]."""
    log_p, log_q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        terms = np.exp(log_p) * (log_p - log_q)
    return np.asarray(np.where(np.isneginf(log_p), 0.0, terms).sum(axis=-1))


def _sum(values: NDArray[np.float64]) -> float:
    """In order, as the server adds."""
    return float(np.add.accumulate(values)[-1]) if len(values) else 0.0
