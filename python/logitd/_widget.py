"""``widget(dist, client)``: the text in a notebook, with a token's distribution on hover and a temperature slider.

What is shown is computed here as plain data (``tokens_state``, ``position_state``); widget.js draws it. The logits of
the chosen position go to the page once, so that the slider needs neither the server nor this process. The order of the
most likely tokens does not depend on the temperature.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from logitd._heat import heat, visible, visible_lines
from logitd._html import HUE, alpha
from logitd.distribution import By, Distribution, FloatArray
from logitd.errors import LogitdError

if TYPE_CHECKING:
    from logitd.client import Client

N_TOP = 15


def tokens_state(dist: Distribution, by: By = "surprisal", temperature: float | None = None) -> list[dict[str, Any]]:
    """For each token: its text as shown, its colour, what was believed before it, and the lines it is shown on."""
    shown = heat(dist, by, temperature)
    asked = set(dist.positions.tolist())
    return [
        {
            "text": visible(token.text, len(token.bytes)),
            "colour": f"rgba({HUE},{alpha(shown.levels[i]):.3f})",
            "value": shown.describe(i),
            "lines": visible_lines(token.text, len(token.bytes)),
            "asked": i in asked,
        }
        for i, token in enumerate(dist.tokens)
    ]


def logits_at(dist: Distribution, position: int, client: Client | None) -> FloatArray:
    """f32 [V]: the logits of a position, from the distribution if it holds them, else from the server."""
    if "logit" in dist.arrays:
        return np.asarray(dist.logit[dist.row(position)])
    if client is None:
        raise LogitdError('a widget needs a client, or a distribution with top_n="full", values="logit"')
    ids = dist.token_id[: position + 1].tolist()
    full = client.distribution(ids, positions="last", top_n="full", values="logit", stats=False)
    return np.asarray(full.logit[0])


def position_state(dist: Distribution, position: int, client: Client | None) -> dict[str, Any]:
    """What the page needs to draw a position at any temperature.

    ``logits`` f32 [V] as bytes; ``top``: id, text and logit of the most likely tokens; ``next``: those of the token
    that came, with its rank, or None at the end.
    """
    logits = logits_at(dist, position, client).astype("<f4", copy=False)
    best = np.argsort(-logits, kind="stable")[:N_TOP]

    def entry(token_id: int) -> dict[str, Any]:
        shown = visible(dist.vocab.text(token_id), len(dist.vocab[token_id]))
        return {"id": token_id, "text": shown, "logit": float(logits[token_id])}

    following = None
    if position + 1 < len(dist.token_id):
        token_id = int(dist.token_id[position + 1])
        following = entry(token_id) | {"rank": int((logits > logits[token_id]).sum())}
    top = [entry(i) for i in best.tolist()]
    return {"position": position, "top": top, "next": following, "logits": logits.tobytes()}


def widget(
    dist: Distribution, client: Client | None = None, *, by: By = "surprisal", temperature: float | None = None
) -> Any:
    """An anywidget: hover or focus a token for what came before it, click it to keep it, move the temperature.

    Args:
        dist: what to show.
        client: asked for the logits of a position when ``dist`` does not hold them.
        by: what colours the tokens.
        temperature: of the colours; one that was asked.
    """
    try:
        import anywidget  # noqa: PLC0415
        import traitlets  # noqa: PLC0415
    except ImportError:
        raise LogitdError("a widget needs anywidget: pip install 'logitd[widget]'") from None

    class DistributionWidget(anywidget.AnyWidget):
        _esm = Path(__file__).with_name("widget.js")
        _css = Path(__file__).with_name("widget.css")
        tokens: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
        chosen = traitlets.Int(-1).tag(sync=True)
        state = traitlets.Dict().tag(sync=True)
        error = traitlets.Unicode("").tag(sync=True)

        @traitlets.observe("chosen")
        def _choose(self, change: Any) -> None:
            if change["new"] < 0:
                return
            try:
                self.state, self.error = position_state(dist, change["new"], client), ""
            except LogitdError as error:
                self.error = str(error)

    made = DistributionWidget(tokens=tokens_state(dist, by, temperature))
    made.chosen = int(dist.positions[-1]) if len(dist) else -1
    return made
