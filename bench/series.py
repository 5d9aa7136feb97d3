"""Which cases a plot shows: one row of PLOTS a plot, and the functions that pick its lines from a document.

Standard library only. Does not draw; plots.py does.
"""

import dataclasses


@dataclasses.dataclass
class Line:
    label: str
    xs: list
    ys: list  # positions/s
    limits: list  # positions/s that the machine's limit allows, or [] where a case has none


@dataclasses.dataclass
class Plot:
    name: str  # of the file
    title: str
    x: str  # member of a case
    x_label: str
    lines: dict  # label: predicate of a case
    log: bool = True  # positions/s on a logarithmic axis


def plain(case, section):
    """One temperature, top 20, the model's own matrix."""
    return (case["section"] == section and case.get("temperatures") == 1 and case.get("top_n") == 20
            and "random" not in case["name"] and "last position" not in case["name"])


def largest(case, section, word):
    """A sweep that the names tell by a word, or the plain case that it starts from."""
    return case["section"] == section and case.get("top_n") == 20 and (word in case["name"] or plain(case, section))


PLOTS = [
    Plot("positions", "Positions of one request", "positions", "positions", {
        "whole requests": lambda c: plain(c, "requests"),
        "final projection": lambda c: plain(c, "projection")}),
    Plot("vocabulary", "Final projection over the vocabulary", "vocabulary", "tokens of the vocabulary", {
        "final projection": lambda c: c["section"] == "projection" and "random vocabulary" in c["name"]}),
    Plot("temperatures", "Temperatures from one pass", "temperatures", "temperatures", {
        "whole requests": lambda c: largest(c, "requests", "temperatures"),
        "final projection": lambda c: largest(c, "projection", "temperatures")}),
    Plot("clients", "Clients at once over HTTP", "clients", "clients", {
        "mixed lengths": lambda c: c["section"] == "clients" and "mixed lengths" in c["name"]}, log=False),
    Plot("decode", "One new token a sequence", "positions", "sequences", {
        "decode": lambda c: c["section"] == "decode"}),
    Plot("threads", "One request over threads", "threads", "threads", {
        "whole requests": lambda c: c["section"] == "threads"}, log=False),
]


def at_most_positions(cases, x):
    """Where the sweep is not over positions, the cases of its own number of positions: that of most cases."""
    if x == "positions" or not cases:
        return cases
    counts = [c.get("positions") for c in cases]
    common = max(set(counts), key=counts.count)
    return cases if x in ("clients", "threads") else [c for c in cases if c.get("positions") == common]


def request_limit(document):
    """positions/s that the machine allows the typical request: that of the case with most temperatures. None: not
    measured."""
    limits = [c for c in document["cases"] if c["section"] == "requests" and c.get("temperatures", 1) > 1]
    return limits[0]["limit_positions_per_s"] if limits else None


def select(document, plot):
    """The plot's lines that have cases, points in order of x."""
    lines = []
    for label, wanted in plot.lines.items():
        cases = [c for c in document["cases"] if wanted(c) and plot.x in c and "positions_per_s" in c]
        cases = sorted(at_most_positions(cases, plot.x), key=lambda c: c[plot.x])
        if not cases:
            continue
        limits = [c.get("limit_positions_per_s") for c in cases]
        lines.append(Line(label, [c[plot.x] for c in cases], [c["positions_per_s"] for c in cases],
                          limits if all(limits) else []))
    if plot.name == "clients" and lines:
        lines += flat_lines(document, lines[0].xs)
    return lines


def flat_lines(document, xs):
    """What the clients are held against: one large request, and the limit of a request."""
    large = [c for c in document["cases"] if c["section"] == "clients" and c["name"].startswith("one request")]
    flat = [Line(c["name"], xs, [c["positions_per_s"]] * len(xs), []) for c in large]
    if (limit := request_limit(document)) is not None:
        flat.append(Line("limit of one request", xs, [limit] * len(xs), []))
    return flat


def has_data(document, plot):
    return any(len(line.xs) > 1 for line in select(document, plot))


def profile_bars(document):
    """(operation, share of time, share of limit or None) of the longest profiled pass, without what is below 0.2 %."""
    cases = [c for c in document["cases"] if c["section"] == "profile"]
    if not cases:
        return []
    n = max(c["positions"] for c in cases)
    return [(c["name"].partition(": ")[2], c["share_of_time"], c.get("share_of_limit")) for c in cases
            if c["positions"] == n and 0.002 <= c.get("share_of_time", 0) < 1]
