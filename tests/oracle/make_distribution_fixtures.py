"""Writes tests/fixtures/distribution_MODEL_TEXT.npz: float64 distributions of the two real models on three texts.

    make_distribution_fixtures.py SMOLLM2.gguf GEMMA3.gguf

Token ids come from llama.cpp's tokenizer (with Gemma's BOS). For every position, in the order of `temperatures`:
logsumexp, entropy, varentropy, logprob of the next token and its rank. For `detailed` positions (all of them in a short
text, every other one in a long one) the 20 most likely ids with their logits, and the logits of `listed` ids, a seeded
sample with both ends of the vocabulary. Logits, entropies and log-probabilities are rounded to float32 at the end,
which moves them by less than a hundredth of what is allowed (README.md).
"""

import pathlib
import sys

import llama_cpp
import numpy as np
import stats
from oracle import Oracle

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
TEXTS = ("english", "code", "multilingual")
TEMPERATURES = (0.01, 0.5, 1.0, 2.0)
N_TOP, N_LISTED = 20, 48
LONG = 1000  # tokens


def token_ids(model_path, text):
    """llama.cpp's ids, with BOS where the model adds one."""
    model = llama_cpp.Llama(model_path, vocab_only=True, verbose=False)
    return model.tokenize(text, add_bos=True, special=False)


def listed_ids(n_vocab):
    sample = np.random.RandomState(n_vocab).permutation(n_vocab)[: N_LISTED - 4]
    return np.unique([0, 1, n_vocab - 2, n_vocab - 1, *sample]).astype(np.int32)


def describe(model, ids):
    """The arrays of one fixture."""
    n = len(ids)
    listed = listed_ids(model.n_vocab)
    detailed = np.arange(0, n, 2 if n >= LONG else 1, dtype=np.int32)
    next_ids = np.array([*ids[1:], 0])  # the last one is not used
    rows = {key: [] for key in ("stats", "next_logprob", "rank", "top_id", "top_logit", "listed_logit")}
    for start, logits in model.chunks(ids):
        here = np.arange(start, start + len(logits))
        rows["stats"].append(np.stack([stats.statistics(logits, t) for t in TEMPERATURES], -1))
        targets = next_ids[here]
        own = np.arange(len(here)), targets
        rows["next_logprob"].append(np.stack([stats.logprobs(logits, t)[own] for t in TEMPERATURES], -1))
        rows["rank"].append(np.stack(stats.ranks(logits, targets), -1))
        logits = logits[np.isin(here, detailed)]
        top = stats.top_ids(logits, N_TOP)
        rows["top_id"].append(top)
        rows["top_logit"].append(np.take_along_axis(logits, top, -1))
        rows["listed_logit"].append(logits[:, listed])
    logsumexp, entropy, varentropy = np.concatenate(rows["stats"], 1)
    rank = np.concatenate(rows["rank"])[:-1].astype(np.int32)
    return {"ids": np.array(ids, np.int32), "temperatures": np.array(TEMPERATURES),
            "logsumexp": logsumexp, "entropy": np.float32(entropy), "varentropy": np.float32(varentropy),
            "next_logprob": np.float32(np.concatenate(rows["next_logprob"])[:-1]),
            "next_rank": rank[:, 0], "next_rank_min": rank[:, 1], "next_rank_max": rank[:, 2],
            "detailed": detailed, "listed": listed, "top_id": np.concatenate(rows["top_id"]).astype(np.int32),
            "top_logit": np.float32(np.concatenate(rows["top_logit"])),
            "listed_logit": np.float32(np.concatenate(rows["listed_logit"]))}


def main():
    for name, path in zip(("smollm2", "gemma3"), sys.argv[1:], strict=True):
        model = Oracle(path)
        for text in TEXTS:
            ids = token_ids(path, (FIXTURES / "texts" / f"{text}.txt").read_bytes())
            out = FIXTURES / f"distribution_{name}_{text}.npz"
            np.savez_compressed(out, **describe(model, ids))
            print(out, len(ids), "tokens", out.stat().st_size, "bytes", flush=True)


if __name__ == "__main__":
    main()
