"""Draws the results of a run as SVG files: positions/s against what it should not fall with, beside the limit.

    python bench/plots.py RESULTS.json DIR

Needs matplotlib. What is drawn is chosen from the cases by PLOTS; the drawing itself computes nothing.
"""

import pathlib
import sys

import matplotlib

matplotlib.use("svg")  # no display

import matplotlib.pyplot as plt  # noqa: E402  (after the backend)
from cases import BenchFileError, read  # noqa: E402
from series import PLOTS, has_data, profile_bars, select  # noqa: E402

STYLE = {"svg.hashsalt": "logitd", "font.size": 10, "axes.grid": True, "grid.alpha": 0.25, "axes.spines.top": False,
         "axes.spines.right": False, "figure.figsize": (6.4, 4.0), "savefig.facecolor": "white"}


def subtitle(document):
    model = document["model"]
    return (f"{model['name']}, {model['kernel']} {model['precision']}, {document['machine']['cpu']}, "
            f"{document['threads']} threads, {document['date'][:10]}")


def save(figure, path):
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    return path


def draw_lines(document, plot, path):
    figure, axes = plt.subplots()
    for i, line in enumerate(select(document, plot)):
        axes.plot(line.xs, line.ys, "o-", color=f"C{i}", label=line.label)
        if line.limits:
            axes.plot(line.xs, line.limits, "--", color=f"C{i}", alpha=0.6, label=f"limit of {line.label}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log" if plot.log else "linear")
    if not plot.log:
        axes.set_ylim(bottom=0)
    ticks = sorted({x for line in select(document, plot) for x in line.xs})
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks], rotation=45 if len(ticks) > 6 else 0)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel("positions/s")
    axes.set_title(f"{plot.title}\n", loc="left")
    axes.text(0, 1.02, subtitle(document), transform=axes.transAxes, fontsize=7, color="0.4")
    axes.legend(fontsize=8, frameon=False)
    return save(figure, path)


def draw_profile(document, path):
    bars = profile_bars(document)
    figure, axes = plt.subplots(figsize=(6.4, 0.9 + 0.24 * len(bars)))
    names = [name for name, _, _ in bars]
    axes.barh(names, [100 * share for _, share, _ in bars], color="C0")
    for name, share, of_limit in bars:
        axes.text(100 * share, name, f" {100 * of_limit:.0f}% of limit" if of_limit else "", va="center", fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("% of the pass")
    axes.set_title("Where the time of a forward pass goes\n", loc="left")
    axes.text(0, 1.02, subtitle(document), transform=axes.transAxes, fontsize=7, color="0.4")
    return save(figure, path)


def draw(document, folder):
    """Writes every plot that the document has cases for; yields the paths."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for plot in PLOTS:
            if has_data(document, plot):
                yield draw_lines(document, plot, folder / f"{plot.name}.svg")
        if profile_bars(document):
            yield draw_profile(document, folder / "profile.svg")


def main():
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} RESULTS.json DIR")
    try:
        document = read(sys.argv[1])
    except BenchFileError as error:
        sys.exit(f"plots: {error}")
    for path in draw(document, sys.argv[2]):
        print(path)


if __name__ == "__main__":
    main()
