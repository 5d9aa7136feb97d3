"""How strongly a token is coloured, and how it is shown: what HTML, terminal and widget have in common."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitd.distribution import By, Distribution

UNITS: dict[By, str] = {"surprisal": "nats", "rank": "", "entropy": "nats", "top1": "probability"}
NAMES: dict[By, str] = {
    "surprisal": "surprisal",
    "rank": "rank",
    "entropy": "entropy before",
    "top1": "top-1 probability",
}
SIGMAS = 2.5
INVISIBLE = str.maketrans({"\n": "⏎", "\t": "→", "\r": "␍", "\0": "␀", "\x1b": "␛"})


class Heat(NamedTuple):
    """Values of tokens and their colours.

    Attributes:
        by: what the values are.
        values: f64 [n]; NaN where there is none.
        levels: f64 [n] from 0 to 1; NaN where there is none.
        low: the value that level 0 stands for.
        high: and level 1.
    """

    by: By
    values: NDArray[np.float64]
    levels: NDArray[np.float64]
    low: float
    high: float

    def describe(self, i: int) -> str:
        """The value of a token in words."""
        value = float(self.values[i])
        if math.isnan(value):
            return "nothing was asked before it" if i else "first token"
        return f"{NAMES[self.by]} {number(self.by, value)} {UNITS[self.by]}".rstrip()


def number(by: By, value: float) -> str:
    """A value as people read it."""
    return f"{value:,.0f}" if by == "rank" else f"{value:.2f}"


def heat(dist: Distribution, by: By = "surprisal", temperature: float | None = None) -> Heat:
    """Levels run over µ ± 2.5 σ of the values, no further than they do; of ranks, over their logarithms."""
    values = dist.of_tokens(by, temperature=temperature)
    scaled = np.log1p(values) if by == "rank" else values
    known = scaled[np.isfinite(scaled)]
    low, high = 0.0, 1.0
    if len(known):
        low = max(float(known.min()), float(known.mean() - SIGMAS * known.std()))
        high = min(float(known.max()), float(known.mean() + SIGMAS * known.std()))
    levels = np.clip((scaled - low) / (high - low), 0.0, 1.0) if high > low else np.where(np.isnan(scaled), np.nan, 0.0)
    ends = (math.expm1(low), math.expm1(high)) if by == "rank" else (low, high)
    return Heat(by, values, levels, *ends)


def visible(text: str, n_bytes: int | None = None) -> str:
    """A token's text with its control characters as signs; a fragment of a character as its place-holder."""
    shown = text.translate(INVISIBLE)
    if text.isspace():
        shown = shown.replace(" ", "·")
    return shown if shown else f"[{n_bytes or 0} bytes]"


def visible_lines(text: str, n_bytes: int | None = None) -> list[str]:
    """The same, cut behind each line break; the last piece is empty if the token ends with one."""
    shown, lines = visible(text, n_bytes), [""]
    for i, sign in enumerate(shown):
        lines[-1] += sign
        if text[i : i + 1] == "\n":
            lines.append("")
    return lines
