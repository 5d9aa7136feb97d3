"""What the emulated device counted of each kernel, for a unit of its work: writes bench/cuda_mix.def, which the static
table predicts from, and quotes it in the kernels' cards in cuda/.

    LD_LIBRARY_PATH=build/tests/cuda_emu python bench/cuda_mix.py build        counts anew, then writes both
    python bench/cuda_mix.py                                                   writes the cards from cuda_mix.def

Counting runs logitd-bench's section cuda. To be done again when kernels or the units of cuda_work.c change:
tests/test_cuda_bench.py compares, and fails when a kernel's counts are off by more than 2 %, a card quotes other numbers
than cuda_mix.def, or a kernel has no card.
"""

import collections
import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE / "cuda_mix.def"
CUDA = HERE.parent / "cuda"
OTHER = {"section", "name", "kernel", "units"}
HEAD = """/*
 * cuda_mix.def: MIX(kernel, counts of one unit of its work in the order of tests/cuda_emu/counts.def), as counted on the
 * emulated device. Made by bench/cuda_mix.py.
 */
"""

# ------------------------------------------------------------------------------------------------------------- counting


def mixes_of(cases):
    """Counts of a unit by kernel, in the order of counts.def, over all its launches."""
    sums = {}
    for case in cases:
        counts = [value for name, value in case.items() if name not in OTHER]
        total = sums.setdefault(case["kernel"], [0.0] * (len(counts) + 1))
        for i, value in enumerate([case["units"] * case["launches"], *counts]):
            total[i] += value
    return {kernel: [value / total[0] for value in total[1:]] for kernel, total in sums.items()}


def count(build):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "cuda.json"
        command = [pathlib.Path(build) / "logitd-bench", "--only", "cuda", "--json", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        document = json.loads(path.read_text())
    if "counts" not in document:
        sys.exit(f"cuda_mix: nothing was counted: {'; '.join(document.get('notes', []))}")
    return mixes_of(document["counts"])


def text(mixes):
    rows = (f"MIX({kernel}, {', '.join(f'{value:.5g}' for value in counts)})\n" for kernel, counts in mixes.items())
    return HEAD + "".join(rows)


def read():
    rows = {}
    for line in FILE.read_text().splitlines():
        if line.startswith("MIX("):
            kernel, *counts = line[4:-1].split(", ")
            rows[kernel] = [float(value) for value in counts]
    return rows


def differences(mixes, kept):
    """A sentence for each kernel whose instructions differ, or which is not in both."""
    for kernel in sorted(mixes.keys() | kept.keys()):
        if kernel not in mixes or kernel not in kept:
            yield f"{kernel} is {'no longer launched' if kernel in kept else 'not in the file'}"
        elif any(abs(a - b) > 0.02 * max(abs(a), abs(b)) + 1e-3 for a, b in zip(mixes[kernel], kept[kernel], strict=True)):
            yield f"{kernel} has other counts"


# ---------------------------------------------------------------------------------------------------------------- cards

CARD = re.compile(r"/\*\n \* Kernel cards?: (.*)\n(?: \*.*\n)*? \*/\n")
QUOTE = " *   counted for each "  # begins the lines that are ours; they end the card
COLUMNS = {  # of warp instructions, by the units of counts.def
    "mma": ("mma_float", "mma_integer"),
    "float": ("f32", "f64"),
    "int": ("integer",),
    "special": ("special", "convert", "convert64"),
    "memory": ("load_matrix", "shared", "global", "async"),
    "rest": ("warp", "barriers", "moves", "other"),
}


def count_names():
    return re.findall(r"^(?:COUNT|UNIT)\((\w+)\)", (HERE.parent / "tests/cuda_emu/counts.def").read_text(), re.MULTILINE)


def unit_of(kernel):
    """What the unit of its work is called, from the table of families in cuda_work.c."""
    families = re.findall(r'^    \{"(\w+)", "([^"]+)", \w+\},$', (HERE / "cuda_work.c").read_text(), re.MULTILINE)
    return next(unit for prefix, unit in families if kernel.startswith(prefix))


def expand(title):
    """Words of a card's title; a_{b,c}_d is two."""
    for word in re.findall(r"[\w{},]+", title):
        choices = (part.split(",") for part in re.split(r"[{}]", word.strip(",")))
        yield from map("".join, itertools.product(*choices))


def number(value):
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def request(n, done, ideal):
    """What a request took, and what it would have without waste."""
    return f"{number(done / n)} ({number(ideal / n)})" if n else "-"


def row(kernel, counts):
    c = dict(zip(count_names(), counts, strict=True))
    cells = [c["warp_instructions"], *(sum(c[unit] for unit in units) for units in COLUMNS.values())]
    sectors = c["global_load_sectors"] + c["global_store_sectors"]
    requests = [request(c["global_loads"] + c["global_stores"], sectors, c["global_sectors_ideal"]),
                request(c["shared_requests"], c["shared_wavefronts"], c["shared_wavefronts_ideal"])]
    return f" *   {kernel:26}" + "".join(f"{number(cell):>8}" for cell in cells) + "".join(f"{r:>14}" for r in requests)


def quote(kernels, mixes):
    """The lines of a card of these kernels."""
    head = f" *   {'issued':>34}" + "".join(f"{name:>8}" for name in COLUMNS) + f"{'sectors':>14}{'wavefronts':>14}"
    return [f"{QUOTE}{unit_of(kernels[0])} (bench/cuda_mix.py):", head, *(row(kernel, mixes[kernel]) for kernel in kernels)]


def cards(mixes):
    """[(file, its text with cards that quote these counts)]; raises when a kernel has not one card."""
    found = collections.Counter()

    def requote(match):
        kernels = [word for word in expand(match[1]) if word in mixes]
        found.update(kernels)
        lines = match[0].splitlines()[:-1]
        first = next((i for i, line in enumerate(lines) if line.startswith(QUOTE)), len(lines))
        return "\n".join([*lines[:first], *(quote(kernels, mixes) if kernels else []), " */", ""])

    files = [(path, CARD.sub(requote, path.read_text())) for path in sorted(CUDA.glob("*.cu"))]
    wrong = [kernel for kernel in mixes if found[kernel] != 1]
    if wrong:
        raise ValueError(f"no card, or more than one: {', '.join(wrong)}")
    return files


def main():
    if len(sys.argv) > 1:
        FILE.write_text(text(count(sys.argv[1])))
    mixes = read()
    for path, with_quotes in cards(mixes):
        path.write_text(with_quotes)
    print(f"{FILE} and the cards in {CUDA}: {len(mixes)} kernels")


if __name__ == "__main__":
    main()
