"""./dev bench: logitd-bench and the many-client bench in one run; then JSON, plots, and what changed.

    python bench/run.py --build build --model M.gguf [--json FILE] [--plots DIR] [--compare OLD.json] [--only A,B]
                        [options of logitd-bench]

The tables go to stdout as they grow. Needs the standard library, and matplotlib for --plots.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import clients
import compare
from cases import BenchFileError, read, result_file
from serving import Server  # clients.py put tests/ in the path

CLIENTS = "clients"
NATIVE = ["peaks", "matmul", "projection", "profile", "requests", "decode", "threads", "cuda"]  # sections of logitd-bench


def arguments(argv):
    p = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0], allow_abbrev=False,
                                epilog="Other options go to logitd-bench; see build/logitd-bench --help. "
                                       "./dev bench --peers: beside llama.cpp and transformers.")
    p.add_argument("--build", type=pathlib.Path, default="build", help="folder of the binaries")
    p.add_argument("--model", type=pathlib.Path, required=True, help="the GGUF file")
    p.add_argument("--only", help=f"sections: {', '.join(NATIVE)}, {CLIENTS} (default all)")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--precision", default="exact")
    p.add_argument("--clients", default="1,8,32,128", help="numbers of HTTP clients (default 1,8,32,128)")
    p.add_argument("--json", type=result_file, metavar="FILE", help="write all results there")
    p.add_argument("--plots", type=pathlib.Path, metavar="DIR", help="draw them as SVG there")
    p.add_argument("--compare", type=pathlib.Path, metavar="OLD.json", help="then say what changed since that run")
    args, args.native = p.parse_known_args(argv)
    args.sections = args.only.split(",") if args.only else [*NATIVE, CLIENTS]
    try:
        args.client_counts = [int(n) for n in args.clients.split(",")]
    except ValueError:
        p.error(f"--clients is {args.clients}; it must be numbers, like 1,8,32")
    if unknown := [s for s in args.sections if s not in (*NATIVE, CLIENTS)]:
        p.error(f"--only: there is no section {unknown[0]}; choose from {', '.join(NATIVE)}, {CLIENTS}")
    return args


def run_native(args):
    """logitd-bench's document. The machine's peaks are measured in any case: every figure stands beside them."""
    sections = [s for s in args.sections if s != CLIENTS] or ["peaks"]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "cases.json"
        command = [args.build / "logitd-bench", "--model", args.model, "--threads", args.threads, "--json", path,
                   "--precision", args.precision, "--only", ",".join(sections), *args.native]
        done = subprocess.run([str(word) for word in command], check=False)
        if done.returncode != 0:
            sys.exit(done.returncode)
        return read(path)


def run_clients(args):
    print("\nclients: many clients over HTTP, prompts of mixed lengths, replies as JSON\n", flush=True)
    with Server(args.build / "logitd", args.model.resolve(), "--threads", args.threads, "--precision", args.precision) as server:
        return clients.measure(server, lambda line: print(f"  {line}", flush=True), args.client_counts)


def main():
    args = arguments(sys.argv[1:])
    try:
        old = read(args.compare) if args.compare else None  # before minutes of work
        draw = __import__("plots").draw if args.plots else None
    except BenchFileError as error:
        sys.exit(f"bench: {error}")
    except ImportError:
        sys.exit("bench: --plots needs matplotlib; ./dev bench --plots DIR installs it")
    document = run_native(args)
    if CLIENTS in args.sections:
        document["cases"] += run_clients(args)
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"\nresults: {args.json}")
    if draw:
        for path in draw(document, args.plots):
            print(f"plot: {path}")
    if old:
        print("\n" + compare.text(old, document))


if __name__ == "__main__":
    main()
