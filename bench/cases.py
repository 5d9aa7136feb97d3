"""The document that logitd-bench writes, as Python sees it: reading it, adding to it, and the times of a case.

Standard library only. report.h says what a case holds; this file adds the same members for what is measured in Python.
Does not measure anything.
"""

import argparse
import json
import pathlib

SCHEMA = 1


class BenchFileError(Exception):
    """A sentence for the person who named the file."""


def read(path):
    """The document in a file."""
    try:
        document = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchFileError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or "cases" not in document:
        raise BenchFileError(f"{path} is no result of this bench: it must be an object with \"schema\": {SCHEMA} and \"cases\"")
    return document


def result_file(text):
    """Type of an option: a path that can be written, found out before minutes of work. A file that is there stays as it is."""
    path = pathlib.Path(text)
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {error.strerror}") from None
    return path


def key(case):
    """What makes a case the same case in another run."""
    return case["section"], case["name"]


def quantile(values, q):
    """Of a list, with linear interpolation: q = 0.5 is the median."""
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def timed(section, name, ms, **members):
    """A case from the times of its runs; `positions`, if given, also becomes a rate."""
    best, median = min(ms), quantile(ms, 0.5)
    case = {"section": section, "name": name, "n_runs": len(ms), "best_ms": best, "median_ms": median,
            "spread": (median - best) / best, **members}
    if "positions" in members:
        case["positions_per_s"] = members["positions"] / best * 1e3
    return case
