"""How the notebooks look: colours that any colour vision tells apart, quiet axes, and sentences made from numbers."""

from __future__ import annotations

import matplotlib.pyplot as plt
from cycler import cycler
from IPython.display import Markdown, display

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"  # Okabe, Ito
GREY = "#777777"


def use() -> None:
    """Sets Matplotlib up; call it once."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, PINK, YELLOW, SKY]),
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "figure.figsize": (9.5, 3.6),
            "figure.constrained_layout.use": True,
            "figure.dpi": 96,
            "font.size": 10,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "svg.hashsalt": "logitd",
        }
    )


def say(text: str) -> None:
    """Shows Markdown: what was seen, with the numbers that were computed."""
    display(Markdown(text))


def label(text: str) -> str:
    """A token on an axis: line breaks, and spaces that stand alone, are visible."""
    text = text.replace("\n", "⏎").replace("\t", "→")
    return "·" * len(text) if text.isspace() else text


def shown(text: str) -> str:
    """A token as code in Markdown, its white space visible."""
    return "`" + text.replace("\n", "⏎").replace(" ", "·").replace("`", "ˋ") + "`"


def percent(share: float, digits: int = 0) -> str:
    """A share of 1 in words."""
    return f"{100 * share:.{digits}f} %"
