"""Writes bench/cuda_mix.def: the instructions of one unit of each kernel's work, as the emulated device counts them.

    LD_LIBRARY_PATH=build/tests/cuda_emu python bench/cuda_mix.py build

Runs logitd-bench's section cuda there. To be done again when kernels or the units of cuda_work.c change:
tests/test_cuda_bench.py compares, and fails when a kernel's counts are off by more than 2 %.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE / "cuda_mix.def"
OTHER = {"section", "name", "kernel", "units"}
HEAD = """/*
 * cuda_mix.def: MIX(kernel, counts of one unit of its work in the order of tests/cuda_emu/counts.def), as counted on the
 * emulated device. Made by bench/cuda_mix.py.
 */
"""


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


def main():
    mixes = count(sys.argv[1])
    FILE.write_text(text(mixes))
    print(f"{FILE}: {len(mixes)} kernels")


if __name__ == "__main__":
    main()
