#!/usr/bin/env python3
"""Draws what a model believed at every word of a text, from one request to a running logitd.

    python3 python/examples/picture.py [--url http://127.0.0.1:8080] [--text FILE] [--out picture.svg]

Above: the text as tokens, coloured by surprisal (-log p of the token that came, in nats) at temperature 1.
Below left: entropy of the distribution at each token. Below right: mean entropy and cross-entropy of the whole text
at 32 temperatures. Only the standard library is needed.
"""

import argparse
import html
import json
import math
import pathlib
import urllib.request

TEXT = (
    "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is Paris. "
    "Actually, I was wrong: the capital of Spain is Madrid.\n"
    "for i in range(10):\n    print(i)\n"
)
TEMPERATURES = sorted([1.0] + [round(0.1 * 30 ** (i / 30), 4) for i in range(31)])  # 0.1 … 3, even in the logarithm
WIDTH, MARGIN, LINE, CHAR = 980, 24, 34, 9.05
# One hue, light to dark: read the same with any colour vision, and in print.
SCALE = [(255, 255, 255), (253, 224, 194), (249, 173, 113), (225, 109, 50), (153, 52, 4)]


def ask(url, text):
    """The whole reply."""
    body = json.dumps({"prompt": text, "temperatures": TEMPERATURES, "top_n": 1}).encode()
    request = urllib.request.Request(url + "/distribution", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def colour(value, largest):
    """Fill and ink of a value."""
    x = min(max(value / largest, 0.0), 1.0) * (len(SCALE) - 1)
    i = min(int(x), len(SCALE) - 2)
    rgb = [round(a + (b - a) * (x - i)) for a, b in zip(SCALE[i], SCALE[i + 1], strict=True)]
    return "#%02x%02x%02x" % tuple(rgb), "#ffffff" if x > 3.0 else "#1b1b1b"


def draw_tokens(tokens, surprisals, largest):
    """SVG of the coloured tokens, and the height they take."""
    out, x, y = [], MARGIN, 90
    for token, surprisal in zip(tokens, surprisals, strict=True):
        shown = token["text"].replace("\n", "⏎").replace(" ", "·")
        width = CHAR * len(shown) + 6
        if x + width > WIDTH - MARGIN:
            x, y = MARGIN, y + LINE
        fill, ink = ("#eeeeee", "#1b1b1b") if surprisal is None else colour(surprisal, largest)
        tip = "first token" if surprisal is None else f"surprisal {surprisal:.2f} nats"
        out.append(
            f'<g><title>{tip}</title><rect x="{x}" y="{y - 18}" width="{width:.1f}" height="25" rx="3" fill="{fill}"'
            f' stroke="#d8d8d8"/><text x="{x + 3}" y="{y}" class="mono" fill="{ink}">{html.escape(shown)}</text></g>'
        )
        x += width + 2
        if token["text"].endswith("\n"):
            x, y = MARGIN, y + LINE
    return out, y + (LINE if x > MARGIN else 0)


def draw_chart(box, title, series, x_label, marks=(), y_max=None):
    """Lines in a box (x, y, width, height); series: [(name, colour, [(x, y) …])]."""
    left, top, width, height = box
    points = [p for _, _, line in series for p in line]
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    y1 = y_max or 1.05 * max(p[1] for p in points)

    def at(x, y):
        return left + (x - x0) / (x1 - x0) * width, top + height - min(y, y1) / y1 * height

    out = [f'<text x="{left}" y="{top - 10}" class="head">{html.escape(title)}</text>']
    for k in range(5):
        y = at(x0, y1 * k / 4)[1]
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{y1 * k / 4:.1f}</text>')
    for mark in marks:
        x = at(mark, 0)[0]
        out.append(
            f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + height}" stroke="#999" stroke-dasharray="3 3"/>'
        )
        out.append(f'<text x="{x:.1f}" y="{top + height + 15}" class="tick" text-anchor="middle">{mark:g}</text>')
    for k, (name, stroke, line) in enumerate(series):
        path = " ".join("%.1f,%.1f" % at(x, y) for x, y in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2"/>')
        out.append(
            f'<text x="{left + width - 4}" y="{top + height - 26 + 16 * k}" class="tick" text-anchor="end" style="fill:{stroke}">'
            f"{html.escape(name)}</text>"
        )
    out.append(
        f'<text x="{left + width / 2}" y="{top + height + 30}" class="tick" text-anchor="middle">{x_label}</text>'
    )
    return out


def picture(url, text):
    """The SVG."""
    answer, one = ask(url, text), TEMPERATURES.index(1.0)
    result = answer["results"][0]
    positions = result["positions"]
    surprisals = [None] + [-p["next"]["logprob"][one] for p in positions if p["next"]]
    tokens, y = draw_tokens(result["tokens"], surprisals, 12.0)
    top, half = y + 40, (WIDTH - 3 * MARGIN - 60) / 2
    entropy = [(i, p["entropy"][one]) for i, p in enumerate(positions)]
    sweep = [(s["temperature"], s["mean_entropy"], s["cross_entropy"]) for s in result["summary"]]
    parts = draw_chart(
        (MARGIN + 30, top, half, 130), "Entropy after each token (nats, T = 1)", [("", "#08519c", entropy)], "token"
    )
    parts += draw_chart(
        (2 * MARGIN + half + 60, top, half, 130),
        "The same text at 32 temperatures",
        [
            ("cross-entropy", "#99340a", [(t, c) for t, _, c in sweep]),
            ("mean entropy", "#08519c", [(t, e) for t, e, _ in sweep]),
        ],
        "temperature",
        marks=(0.5, 1, 2, 3),
        y_max=math.log(answer["model"]["n_vocab"]),
    )
    model = answer["model"]["name"]
    head = (
        f"{len(positions)} positions × {len(TEMPERATURES)} temperatures × {answer['model']['n_vocab']:,} tokens "
        f"in one pass of {answer['timing_ms']['compute']:.0f} ms"
    )
    height = top + 190
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
            "<style>.mono{font:15px 'DejaVu Sans Mono',Menlo,Consolas,monospace}.head{font:600 14px sans-serif;fill:#1b1b1b}"
            ".tick{font:12px sans-serif;fill:#555}</style>",
            f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
            f'<text x="{MARGIN}" y="30" class="head">Surprisal of each token (white 0, dark 12 nats and more)</text>',
            f'<text x="{MARGIN}" y="49" class="tick">{html.escape(model)}: {head}</text>',
            *tokens,
            *parts,
            "</svg>\n",
        ]
    )


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--text", help="a file; default: a short text of its own")
    parser.add_argument("--out", default="picture.svg")
    args = parser.parse_args()
    text = pathlib.Path(args.text).read_text(encoding="utf-8") if args.text else TEXT
    pathlib.Path(args.out).write_text(picture(args.url, text), encoding="utf-8")
    print(args.out)


if __name__ == "__main__":
    main()
