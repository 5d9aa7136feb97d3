"""logitd and PyTorch/transformers on the same file and the same tokens, in turn, within one run.

    python bench/peers.py --build build --model M.gguf [--tokens 512] [--rounds 5] [--dtype float32] [--threads N]

The work of both: one forward pass over the tokens; for every position logsumexp, entropy, varentropy, the next token's
log-probability and rank, and the 20 most likely tokens. logitd is asked over HTTP, reply included; transformers runs in
this process, from token ids to the tensors, its output matrix in chunks of positions (the fastest of 64, 128, 512 is
taken). The two alternate, so that a machine whose speed drifts favours neither. Prints best and median of each, their
ratio, and how far apart the log-probabilities are (transformers in float32 is no oracle: see tests/oracle).

Needs torch, transformers, accelerate, gguf; not part of the tests.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time

import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))

from serving import Server  # noqa: E402  (after the path)


class Transformers:
    def __init__(self, path, dtype, n_threads):
        torch.set_num_threads(n_threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=dtype
        ).eval()
        self.chunk = 128

    @torch.no_grad()
    def run(self, ids):
        tokens = torch.tensor([ids])
        hidden = self.model.model(tokens).last_hidden_state[0]
        following = tokens[0, 1:]
        rows = []
        for first in range(0, len(ids), self.chunk):
            logits = self.model.lm_head(hidden[first : first + self.chunk]).float()
            logprobs = torch.log_softmax(logits, dim=-1)
            probs = logprobs.exp()
            entropy = -(probs * logprobs).sum(-1)
            varentropy = (probs * logprobs**2).sum(-1) - entropy**2
            target = following[first : first + self.chunk]
            n = len(target)  # the last position has no next token
            at_target = logits[:n].gather(1, target[:, None])
            rank = (logits[:n] > at_target).sum(-1)
            top = logprobs.topk(20, dim=-1)
            rows.append((logits.logsumexp(-1), entropy, varentropy, logprobs[:n].gather(1, target[:, None]), rank, top))
        return torch.cat([row[3] for row in rows])[:, 0]

    def choose_chunk(self, ids):
        seconds = {}
        for self.chunk in (64, 128, 512):
            start = time.perf_counter()
            self.run(ids)
            seconds[self.chunk] = time.perf_counter() - start
        self.chunk = min(seconds, key=seconds.get)


def ask(server, ids):
    reply = server.post("/distribution", {"prompt": ids, "top_n": 20})
    assert reply.status == 200, reply.body[:300]
    return reply


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=pathlib.Path, default="build")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    ours, theirs = [], []
    with Server(args.build / "logitd", args.model.resolve(), "--threads", args.threads) as server:
        n_vocab = server.get("/model").json()["n_vocab"]
        ids = [(i * 7919 + 1000) % n_vocab for i in range(args.tokens)]
        peer = Transformers(args.model.resolve(), getattr(torch, args.dtype), args.threads)
        peer.choose_chunk(ids)
        ask(server, ids)
        for _ in range(args.rounds):
            start = time.perf_counter()
            reply = ask(server, ids)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            logprobs = peer.run(ids)
            theirs.append(time.perf_counter() - start)
    rows = json.loads(reply.body)["results"][0]["positions"]
    apart = max(abs(row["next"]["logprob"][0] - logprobs[i].item()) for i, row in enumerate(rows[:-1]))
    print(f"{args.model.name}, {args.tokens} tokens, {args.threads} threads, {args.rounds} rounds in turn")
    for name, seconds in (("logitd (exact, over HTTP)", ours), (f"transformers {args.dtype}", theirs)):
        best, median = min(seconds), statistics.median(seconds)
        print(f"  {name:28} best {best * 1e3:8.1f} ms  median {median * 1e3:8.1f} ms  {args.tokens / best:7.0f} tokens/s")
    print(f"  ratio: best {min(theirs) / min(ours):.2f}x, median "
          f"{statistics.median(theirs) / statistics.median(ours):.2f}x; next log-probabilities differ by up to {apart:.2e}")


if __name__ == "__main__":
    main()
