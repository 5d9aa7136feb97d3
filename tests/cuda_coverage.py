"""The share of every kernel's PTX that tests have run, from the counts of the emulated driver (tests/cuda_emu/counters.h).

    cuda_coverage.py FOLDER      counts, a file a test; fails when a kernel has a line that none of them ran

A line is one statement of the PTX text. There is no list of exceptions: a path that nothing can take is taken out of the
source (__builtin_assume where only the compiler does not know it).
"""

import collections
import pathlib
import sys


def counts(folder):
    """{kernel: {PTX line: times that a warp came there}}, summed over the files."""
    ran = collections.defaultdict(collections.Counter)
    for path in sorted(folder.iterdir()):
        for row in path.read_text().splitlines():
            kind, name, *rest = row.split("\t")
            if kind == "line":
                ran[name][int(rest[0])] += int(rest[2])
    return ran


def main():
    ran = counts(pathlib.Path(sys.argv[1]))
    missed = {name: sorted(line for line, n in lines.items() if n == 0) for name, lines in sorted(ran.items())}
    for name, lines in missed.items():
        total = len(ran[name])
        print(f"{name:32} {100 * (total - len(lines)) / total:6.2f} % of {total} lines")
        for line in lines:
            print(f"    kernels.ptx:{line} is run by no test")
    n_missed = sum(map(len, missed.values()))
    print(f"{len(ran)} kernels, {sum(map(len, ran.values()))} lines, {n_missed} of them not run")
    return 1 if n_missed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
