"""A distribution as HTML: the text in colour, what was believed at a token in its tooltip. No script, nothing fetched.

The colour is one hue of growing opacity over whatever background the page has, with the page's own ink: readable in
light and dark, and the same to any colour vision.
"""

from __future__ import annotations

import html
import math

from logitd._heat import NAMES, UNITS, Heat, heat, number, visible, visible_lines
from logitd.distribution import By, Distribution, NotAsked

HUE = "221,106,18"
MOST_OPAQUE = 0.66
N_TOP = 5

STYLE = (
    "<style>.logitd{font:14px/1.9 ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre-wrap;"
    "overflow-wrap:anywhere}.logitd>span{border-radius:3px;padding:2px 0;box-shadow:inset 1px 0 rgba(128,128,128,.35)}"
    ".logitd>span:hover{outline:1px solid currentColor}.logitd i{opacity:.45;font-style:normal}"
    ".logitd-legend{font:12px system-ui,sans-serif;opacity:.8;margin-top:.5em}.logitd-legend>span{display:inline-block;"
    "width:9em;height:.8em;margin:0 .5em;vertical-align:middle;border:1px solid rgba(128,128,128,.5)}</style>"
)


def alpha(level: float) -> float:
    """Opacity of a level from 0 to 1."""
    return 0.0 if math.isnan(level) else MOST_OPAQUE * level


def token_html(text: str, n_bytes: int) -> str:
    """A token with its white space visible; line breaks also break."""
    shown = "\n".join(visible_lines(text, n_bytes))
    return "".join(f"<i>{html.escape(c)}</i>" if c in "⏎→␍␀␛·" and c not in text else html.escape(c) for c in shown)


def tooltip(dist: Distribution, shown: Heat, i: int, temperature: float | None) -> str:
    """The token's value, and the most likely tokens before it came."""
    token = dist.tokens[i]
    lines = [f"{i}: {visible(token.text, len(token.bytes))!r}  id {token.id}", shown.describe(i)]
    try:
        row = dist.row(i - 1) if i else None
        if row is not None and "next_rank" in dist.arrays and shown.by != "rank":
            lines.append(f"rank {int(dist.next_rank[row]):,}")
        if row is not None:
            best = dist.top(i - 1, temperature=temperature, n=N_TOP)
            lines += [f"{100 * c.prob:5.1f} %  {visible(c.text, 1)}" for c in best]
    except (NotAsked, LookupError):
        pass
    return "\n".join(lines)


def legend(dist: Distribution, shown: Heat, temperature: float | None) -> str:
    """The scale, and of what."""
    t = dist.temperatures[dist.temperature_index(temperature)]
    ends = [number(shown.by, value) for value in (shown.low, shown.high)]
    gradient = f"linear-gradient(to right,rgba({HUE},0),rgba({HUE},{MOST_OPAQUE}))"
    unit = f" {UNITS[shown.by]}".rstrip()
    return (
        f'<div class="logitd-legend">{NAMES[shown.by]} {ends[0]}<span style="background:{gradient}"></span>{ends[1]}'
        f"{unit} · T = {t:g} · {html.escape(str(dist.model['name']))}</div>"
    )


def render(dist: Distribution, by: By = "surprisal", temperature: float | None = None) -> str:
    """The whole text."""
    shown = heat(dist, by, temperature)
    parts = [
        f'<span style="background:rgba({HUE},{alpha(shown.levels[i]):.3f})"'
        f' title="{html.escape(tooltip(dist, shown, i, temperature)).replace(chr(10), "&#10;")}">'
        f"{token_html(token.text, len(token.bytes))}</span>"
        for i, token in enumerate(dist.tokens)
    ]
    return f'{STYLE}<div class="logitd" role="group">{"".join(parts)}</div>{legend(dist, shown, temperature)}'
