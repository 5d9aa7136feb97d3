"""What changed between two runs: a ratio for each case, sorted, with those beyond the runs' own noise marked.

    python bench/compare.py OLD.json NEW.json

A ratio is old best time / new best time: above 1 the new run is faster. The noise of a case is the larger of the two
spreads (median over best, less one): within it a ratio says nothing. The machine's own peaks are cases too and come
first: when they moved, so did everything.
"""

import math
import sys

from cases import BenchFileError, key, read

FASTER, SLOWER, WITHIN = "faster", "SLOWER", ""


def compare(old, new):
    """Rows of the cases in both, fastest gain first: (section, name, old ms, new ms, ratio, noise, verdict)."""
    before = {key(case): case for case in old["cases"]}
    rows = []
    for case in new["cases"]:
        if (was := before.get(key(case))) is None:
            continue
        ratio = was["best_ms"] / case["best_ms"]
        noise = max(was["spread"], case["spread"])
        verdict = WITHIN if abs(math.log(ratio)) <= math.log1p(noise) else FASTER if ratio > 1 else SLOWER
        rows.append((case["section"], case["name"], was["best_ms"], case["best_ms"], ratio, noise, verdict))
    return sorted(rows, key=lambda row: -row[4])


def only_in(one, other):
    """Names of the cases of `one` that `other` does not have."""
    there = {key(case) for case in other["cases"]}
    return [" ".join(key(case)) for case in one["cases"] if key(case) not in there]


def differences(old, new):
    """A line for each fact that should be the same in both runs and is not."""
    facts = [("processor", ("machine", "cpu")), ("threads", ("threads",)), ("model", ("model", "sha256")),
             ("kernel", ("model", "kernel")), ("precision", ("model", "precision"))]
    for name, path in facts:
        was, is_now = old, new
        for step in path:
            was, is_now = (was or {}).get(step), (is_now or {}).get(step)
        if was != is_now:
            yield f"not the same {name}: {was} before, {is_now} now"


def text(old, new):
    """The whole comparison for a person."""
    rows = compare(old, new)
    peaks, others = [r for r in rows if r[0] == "peaks"], [r for r in rows if r[0] != "peaks"]
    lines = [f"{old['date']} before, {new['date']} now; a ratio above 1 is faster now", *differences(old, new), ""]
    lines.append(f"{'':60} {'old ms':>10} {'new ms':>10} {'ratio':>7} {'noise':>7}")
    for group in (peaks, others):
        for section, name, was, is_now, ratio, noise, verdict in group:
            row = f"{section + ': ' + name:60} {was:10.3f} {is_now:10.3f} {ratio:6.3f}x {100 * noise:6.1f}% {verdict}"
            lines.append(row.rstrip())
        lines += [""] if group else []
    changed = {v: sum(r[6] == v for r in others) for v in (FASTER, SLOWER, WITHIN)}
    if others:
        mean = math.exp(sum(math.log(r[4]) for r in others) / len(others))
        lines.append(f"{len(others)} cases: {changed[FASTER]} faster, {changed[SLOWER]} slower, {changed[WITHIN]} within "
                     f"the noise; geometric mean {mean:.3f}x")
    for title, names in (("only before", only_in(old, new)), ("only now", only_in(new, old))):
        if names:
            lines.append(f"{title}: {', '.join(names)}")
    return "\n".join(lines)


def main():
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} OLD.json NEW.json")
    try:
        print(text(read(sys.argv[1]), read(sys.argv[2])))
    except BenchFileError as error:
        sys.exit(f"compare: {error}")


if __name__ == "__main__":
    main()
