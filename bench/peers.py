"""logitd beside llama.cpp and transformers: the same file, the same tokens, in turn within one run.

    python bench/peers.py --build build --model M.gguf [--tokens 512] [--rounds 5] [--threads N]
                          [--precision exact,fast,bf16] [--json FILE]

peer_models.py says what the work is. The contestants alternate, so that a machine whose speed drifts favours none, with
a pause before each so that threads of the one before have gone to sleep. Prints best and median times and the ratios to
logitd; the errors of each against float64 (tests/oracle), over all positions and, at some, over the whole vocabulary;
and the generation speed of llama.cpp beside logitd-bench's decode.

Needs torch, transformers, gguf, llama-cpp-python: ./dev bench --peers installs them. Not part of the tests.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "oracle")]

import stats  # noqa: E402  (after the path)
from cases import SCHEMA, quantile, result_file, timed  # noqa: E402
from oracle import Oracle  # noqa: E402
from peer_models import LlamaCpp, Logitd, Transformers  # noqa: E402
from serving import Server  # noqa: E402

PAUSE_S = 0.4  # an OpenMP pool spins for up to 0.2 s after its last work
WHOLE_ROWS = 16  # positions whose whole distributions are compared
DECODE_CONTEXT, DECODE_STEPS = 128, 64  # as section_model.c


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", type=pathlib.Path, default="build")
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--tokens", type=int, default=512)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--precision", default="exact", help="of logitd, comma-separated")
    p.add_argument("--json", type=result_file)
    args = p.parse_args()
    args.model = args.model.resolve()
    if args.tokens < 2 or args.rounds < 1:
        p.error("--tokens must be 2 or more, --rounds 1 or more")
    return args


def token_ids(n_vocab, n):
    """The same ids as session_token of session.c."""
    return [(i * 7919 + 1000) % n_vocab for i in range(n)]


def open_contestants(args):
    """logitd's precisions first."""
    ours = []
    for precision in args.precision.split(","):
        server = Server(args.build / "logitd", args.model, "--threads", args.threads, "--precision", precision)
        ours.append(Logitd(server, precision))
    peers = [LlamaCpp(args.model, max(args.tokens, DECODE_CONTEXT + DECODE_STEPS), args.threads)]
    peers += [Transformers(args.model, dtype, args.threads) for dtype in ("float32", "bfloat16")]
    return ours, peers


# ------------------------------------------------------------------------------------------------------------- times


def time_in_turn(contestants, ids, rounds):
    """{name: [ms]} and what each computed in its last round."""
    times, results = {c.name: [] for c in contestants}, {}
    for _ in range(rounds):
        for c in contestants:
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            results[c.name] = c.run(ids)
            times[c.name].append((time.perf_counter() - start) * 1e3)
    return times, results


def print_times(times, ours, n_tokens):
    names = ", ".join(c.name for c in ours)
    print(f"\n{'':24} {'best ms':>10} {'median ms':>10} {'positions/s':>12}   ratio to {names}: best (median)")
    for name, ms in times.items():
        ratios = [f"{min(ms) / min(times[c.name]):.2f}x ({quantile(ms, 0.5) / quantile(times[c.name], 0.5):.2f}x)"
                  for c in ours]
        print(f"{name:24} {min(ms):10.1f} {quantile(ms, 0.5):10.1f} {n_tokens / min(ms) * 1e3:12.0f}   {'  '.join(ratios)}")


# ------------------------------------------------------------------------------------------------------------ errors


class Errors:
    """The worst distances of one contestant from float64, in nats."""

    def __init__(self, numbers, positions, logprobs):
        self.numbers, self.logprobs = numbers, dict(zip(positions, logprobs, strict=True))
        self.worst = dict.fromkeys(("next", "logsumexp", "entropy", "any token", "KL"), 0.0)

    def note(self, kind, value):
        self.worst[kind] = max(self.worst[kind], float(value))

    def add(self, start, truth, targets):
        """truth: [n, V] float64 logits of positions start …; targets: the next tokens of those that have one."""
        n, (logsumexp, entropy, _) = len(truth), stats.statistics(truth, 1.0)
        want = stats.logprobs(truth, 1.0)
        self.note("logsumexp", np.abs(self.numbers["logsumexp"][start : start + n] - logsumexp).max())
        self.note("entropy", np.abs(self.numbers["entropy"][start : start + n] - entropy).max())
        if len(targets):
            got = self.numbers["next_logprob"][start : start + len(targets)]
            self.note("next", np.abs(got - want[np.arange(len(targets)), targets]).max())
        for i in range(n):
            if (got := self.logprobs.get(start + i)) is not None:
                self.note("any token", np.abs(got - want[i]).max())
                self.note("KL", (np.exp(want[i]) * (want[i] - got)).sum())


def measure_errors(args, contestants, results, ids):
    positions = [int(p) for p in np.linspace(0, len(ids) - 1, min(WHOLE_ROWS, len(ids))).round()]
    positions = sorted(set(positions))
    errors = {}
    for c in contestants:
        numbers = c.numbers(results[c.name]) if isinstance(c, Logitd) else results[c.name]
        errors[c.name] = Errors(numbers, positions, c.logprobs(ids, positions))
    for start, truth in Oracle(args.model).chunks(ids):
        targets = np.array(ids[start + 1 : start + 1 + len(truth)])
        for e in errors.values():
            e.add(start, truth, targets)
    print(f"\nerrors against float64 in nats: {len(ids)} positions; any token and KL: whole distributions at "
          f"{len(positions)} of them")
    print(f"{'':24}" + "".join(f"{kind:>12}" for kind in errors[contestants[0].name].worst))
    for name, e in errors.items():
        print(f"{name:24}" + "".join(f"{value:12.1e}" for value in e.worst.values()))
    return {name: e.worst for name, e in errors.items()}


# -------------------------------------------------------------------------------------------------------- generation


def our_decode(args, precision):
    """logitd-bench's case of one sequence."""
    command = [args.build / "logitd-bench", "--model", args.model, "--threads", args.threads, "--precision", precision,
               "--only", "decode", "--json", "-"]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["cases"][0]


def measure_generation(args, ours, llama, n_vocab, rounds):
    """Medians of single tokens after the same context, the best of a few rounds in turn; prints tokens/s."""
    ids = token_ids(n_vocab, DECODE_CONTEXT + DECODE_STEPS)
    best = {}
    for _ in range(rounds):
        time.sleep(PAUSE_S)
        steps = {"llama.cpp": quantile(llama.step_times(ids, DECODE_CONTEXT), 0.5)}
        time.sleep(PAUSE_S)
        steps |= {c.name: our_decode(args, c.name.split()[1])["median_ms"] for c in ours}
        best = {name: min(ms, best.get(name, ms)) for name, ms in steps.items()}
    print(f"\ngeneration of one sequence after {DECODE_CONTEXT} tokens (logitd: statistics and top 20 of each too)")
    for name, ms in best.items():
        print(f"{name:24} {ms:10.2f} ms a token {1e3 / ms:9.1f} tokens/s {best['llama.cpp'] / ms:6.2f}x llama.cpp")
    return best


# -------------------------------------------------------------------------------------------------------------- main


def main():
    args = arguments()
    ours, peers = open_contestants(args)
    llama, contestants = peers[0], ours + peers
    model = ours[0].server.get("/model").json()
    ids = token_ids(model["n_vocab"], args.tokens)
    print(f"{args.model.name}, {args.tokens} tokens, {args.threads} threads, {args.rounds} rounds in turn", flush=True)
    for peer in peers:
        peer.choose_chunk(ids)
        print(f"  {peer.name}: statistics {peer.chunk} positions at a time", flush=True)
    time_in_turn(ours, ids, 1)  # warm
    times, results = time_in_turn(contestants, ids, args.rounds)
    print_times(times, ours, args.tokens)
    print(f"llama.cpp, its forward pass and logits alone: {llama.forward_ms:.1f} ms in its last round")
    generation = measure_generation(args, ours, llama, model["n_vocab"], rounds=3)
    errors = measure_errors(args, contestants, results, ids)
    if args.json:
        cases = [timed("peers", name, ms, positions=args.tokens, errors=errors[name]) for name, ms in times.items()]
        cases += [timed("peers", f"{name}, generation", [ms], positions=1) for name, ms in generation.items()]
        document = {"schema": SCHEMA, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "machine": {"processors": os.cpu_count()}, "threads": args.threads, "model": model, "cases": cases}
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"\nresults: {args.json}")
    for c in contestants:
        c.close()


if __name__ == "__main__":
    main()
