"""``python -m logitd "a text"``: the text in a terminal, each token coloured by what the model believed before it."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, TextIO

from logitd._heat import NAMES, UNITS, Heat, heat, number, visible_lines
from logitd.client import URL, Client
from logitd.distribution import Distribution
from logitd.errors import LogitdError
from logitd.server import Server

Depth = Literal["none", "256", "24bit"]
RAMP = [(255, 245, 235), (253, 208, 162), (253, 141, 60), (217, 72, 1), (127, 39, 4)]
"""Backgrounds from level 0 to 1: one hue from light to dark, so that it needs no particular colour vision."""
RAMP_256 = [231, 223, 215, 209, 202, 166, 130, 94]
EVEN_LUMINANCE = 0.179
"""Black and white ink have the same contrast there, 4.6 to 1."""
N_BLACK_INK = 6  # of RAMP_256: white ink on the others


def colour_depth(when: str, out: TextIO, env: Mapping[str, str]) -> Depth:
    """What the terminal can show: nothing with NO_COLOR or without a terminal, unless ``when`` is "always"."""
    is_dumb = env.get("TERM", "") in ("", "dumb")
    if when == "never" or (when == "auto" and (env.get("NO_COLOR") or not out.isatty() or is_dumb)):
        return "none"
    return "24bit" if env.get("COLORTERM", "") in ("truecolor", "24bit") else "256"


def luminance(rgb: list[int]) -> float:
    """WCAG's relative luminance, 0 to 1."""
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def paint(text: str, level: float, depth: Depth) -> str:
    """The text on the background of a level; NaN is no colour."""
    if depth == "none" or math.isnan(level):
        return text
    if depth == "256":
        i = min(int(level * len(RAMP_256)), len(RAMP_256) - 1)
        return f"\x1b[38;5;{16 if i < N_BLACK_INK else 231};48;5;{RAMP_256[i]}m{text}\x1b[0m"
    x = level * (len(RAMP) - 1)
    i = min(int(x), len(RAMP) - 2)
    back = [round(a + (b - a) * (x - i)) for a, b in zip(RAMP[i], RAMP[i + 1], strict=True)]
    ink = 0 if luminance(back) > EVEN_LUMINANCE else 255
    return f"\x1b[38;2;{ink};{ink};{ink};48;2;{back[0]};{back[1]};{back[2]}m{text}\x1b[0m"


def heat_line(dist: Distribution, shown: Heat, depth: Depth) -> str:
    """The text; without colour, each token with its value behind it."""
    out = []
    for i, token in enumerate(dist.tokens):
        lines = visible_lines(token.text, len(token.bytes))
        ends = not lines[-1]
        out.append("\n".join(paint(line, shown.levels[i], depth) for line in lines[: len(lines) - ends]))
        value = float(shown.values[i])
        if depth == "none" and not math.isnan(value):
            out.append(f"[{number(shown.by, value)}]")
        out.append("\n" * ends)
    return "".join(out).rstrip("\n")


def legend(dist: Distribution, shown: Heat, depth: Depth) -> str:
    """The scale and the means."""
    steps = "".join(paint(" ", i / 15, depth) for i in range(16)) if depth != "none" else "…"
    unit = f" {UNITS[shown.by]}".rstrip()
    scale = f"{NAMES[shown.by]} {number(shown.by, shown.low)} {steps} {number(shown.by, shown.high)}{unit}"
    mean = dist.summary[0]
    if math.isnan(mean.cross_entropy):
        return scale
    means = f"cross-entropy {mean.cross_entropy:.3f} nats, {mean.bits_per_byte:.3f} bits a byte"
    return f"{scale}; {means}, T = {mean.temperature:g}"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m logitd", description="Prints a text coloured by what a model believed.")
    source = p.add_mutually_exclusive_group()
    source.add_argument("text", nargs="?", help="the text; default: --file, or what comes on stdin")
    source.add_argument("--file", type=Path, metavar="F", help="a text file, in UTF-8")
    p.add_argument("--by", choices=list(NAMES), default="surprisal", help="what colours a token (default surprisal)")
    p.add_argument("--temperature", type=float, default=1.0, metavar="T", help="default 1")
    server = p.add_mutually_exclusive_group()
    server.add_argument("--url", default=URL, help=f"the server (default {URL})")
    server.add_argument("--model", metavar="M", help="start a private server on a GGUF file, or on smollm2 or gemma3")
    p.add_argument("--api-key-file", type=Path, metavar="F", help="a file that holds the server's key")
    p.add_argument("--color", choices=["auto", "always", "never"], default="auto", help="default auto: in a terminal")
    return p.parse_args(argv)


def text_of(args: argparse.Namespace) -> str:
    """The text that was given."""
    try:
        text: str = args.text or (args.file.read_text(encoding="utf-8") if args.file else sys.stdin.read())
    except UnicodeError as error:
        raise LogitdError(f"{args.file or 'what comes on stdin'} is no text in UTF-8: {error}") from error
    if not text:
        raise LogitdError("there is no text: give one as an argument, by --file or on stdin")
    return text


@contextlib.contextmanager
def connect(args: argparse.Namespace) -> Iterator[Client]:
    """A client of the server that is named, or of one that lives as long as this."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(Server(args.model)).url if args.model else args.url
        key = args.api_key_file.read_text().strip() if args.api_key_file else None
        yield stack.enter_context(Client(url, key))


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0; 1 with a sentence on stderr; 130 after Ctrl-C."""
    args = arguments(argv)
    try:
        text = text_of(args)
        with connect(args) as client:
            dist = client.distribution(text, temperatures=[args.temperature], top_n=1)
    except (LogitdError, OSError) as error:
        print(f"logitd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    shown, depth = heat(dist, args.by), colour_depth(args.color, sys.stdout, os.environ)
    print(heat_line(dist, shown, depth), legend(dist, shown, depth), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
