"""Writes the guide: measures on the real model, then fills the text and draws the pictures.

    python python/guide/build.py [--out DIR]      default: this folder

The text is ``guide.md.in``, a format string for the numbers that ``measure`` returns. Nothing in it was typed in.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")  # no display

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "notebooks")]

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

import logitd  # noqa: E402  (after the path)
from style import BLUE, GREEN, GREY, ORANGE, label, percent, use  # noqa: E402
from texts import CODE, PROSE  # noqa: E402

QUESTION = "The capital of France is"
WRONG = "The capital of Spain is Lisbon. "
RETRACTED = WRONG + "Actually, I was wrong: the capital of Spain is Madrid. "
ANSWER = "The capital of Spain is"
ASKED = "Question: What is the capital of Spain?\nAnswer: " + ANSWER
TEXT = "The keys of the old house are on the table. The keys of the old house is on the table."


def save(figure: Any, path: Path) -> None:
    """As SVG without a date, so that nothing changes where nothing changed."""
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def one_position(client: logitd.Client, out: Path) -> dict[str, Any]:
    """Logits of one position, and the probabilities that they are."""
    logit = client.distribution(QUESTION, positions="last", top_n="full", values="logit").logit[0]
    dist = client.distribution(QUESTION, positions="last")
    best = dist.top(n=8)
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(8, 2.8))
    names = [label(c.text) for c in best]
    left.barh(names, [logit[c.id] for c in best], color=GREY)
    left.invert_yaxis()
    left.set_title("logits")
    right.barh(names, [c.prob for c in best], color=BLUE)
    right.set_title("probabilities: softmax of all logits")
    save(figure, out / "one-position.svg")
    ids = [t.id for t in client.tokenize(f"{QUESTION} Reykjavik")]
    word = client.distribution(ids, top_n=0)
    pieces = ids[len(client.tokenize(QUESTION)) :]
    parts = word.next_logprob[-len(pieces) - 1 : -1, 0].astype(float)
    bare = client.distribution(QUESTION, positions="last", token_ids=[dist.vocab.id("Paris")])
    return {
        "first": best[0].text.strip(),
        "first_p": percent(best[0].prob, 1),
        "first_logit": f"{logit[best[0].id]:.2f}",
        "logsumexp": f"{dist.logsumexp[0, 0]:.2f}",
        "first_logprob": f"{best[0].logprob:.2f}",
        "entropy": f"{dist.entropy[0, 0]:.2f}",
        "choices": f"{np.exp(dist.entropy[0, 0]):.1f}",
        "outside": percent(1 - sum(c.prob for c in dist.top(n=20)), 1),
        "n_vocab": f"{len(logit):,}",
        "pieces": " + ".join(f"`{dist.vocab.text(i).replace(' ', '·')}`" for i in pieces),
        "parts": " + ".join(f"{-p:.2f}" for p in parts),
        "word": f"{-parts.sum():.2f}",
        "no_space": f"{np.exp(bare.listed_logprob.item()):.1e}",
    }


def along_a_text(client: logitd.Client, out: Path) -> dict[str, Any]:
    """Surprisal and entropy of each token of two sentences that differ in one word."""
    dist = client.distribution(TEXT)
    surprisal, entropy = dist.of_tokens("surprisal"), dist.of_tokens("entropy")
    figure, axes = plt.subplots(figsize=(9.5, 3))
    x = np.arange(len(dist.tokens))
    axes.bar(x, np.nan_to_num(surprisal), color=ORANGE, label="surprisal of the token")
    axes.plot(x, entropy, "o-", color=BLUE, markersize=3, label="entropy before it")
    axes.set_xticks(x, [label(t.text) for t in dist.tokens], rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("nats")
    axes.legend()
    save(figure, out / "along-a-text.svg")
    verb = {word: [i for i, t in enumerate(dist.tokens) if t.text == f" {word}"][-1] for word in ("are", "is")}
    again = range(len(dist.tokens) // 2 + 1, len(dist.tokens))  # the second sentence, but for its first word
    rest = np.mean([surprisal[i] for i in again if i != verb["is"]])
    alone = client.distribution(
        "The keys of the old house", positions="last", token_ids=[dist.vocab.id(" are"), dist.vocab.id(" is")]
    )
    are, is_ = np.exp(alone.listed_logprob[0, 0].astype(float))
    mean = dist.summary[0]
    return {
        "n": mean.n,
        "cross": f"{mean.cross_entropy:.2f}",
        "perplexity": f"{mean.perplexity:.1f}",
        "bits": f"{mean.bits_per_byte:.2f}",
        "are": percent(are, 1),
        "is": percent(is_, 1),
        "verb_surprisal": f"{surprisal[verb['is']]:.2f}",
        "expected": dist.top(verb["is"] - 1, n=1)[0].text.strip(),
        "rest": f"{rest:.2f}",
        "verb_rank": f"{int(dist.of_tokens('rank')[verb['is']]):,}",
    }


def temperatures(client: logitd.Client, out: Path) -> dict[str, Any]:
    """Entropy and cross-entropy of prose and code over temperature."""
    asked = np.sort(np.append(np.geomspace(0.1, 3, 31), 1.0))
    figure, axes = plt.subplots(figsize=(7, 3.2))
    found: dict[str, Any] = {}
    for name, text, colour in (("prose", PROSE, BLUE), ("code", CODE, GREEN)):
        summary = client.distribution(text, temperatures=asked, top_n=0).summary
        cross = np.array([s.cross_entropy for s in summary])
        axes.plot(asked, cross, color=colour, label=f"{name}: cross-entropy")
        axes.plot(asked, [s.mean_entropy for s in summary], "--", color=colour, label=f"{name}: mean entropy")
        found[f"{name}_lowest"] = f"{asked[cross.argmin()]:.2f}"
        found[f"{name}_cross"] = f"{cross[asked == 1.0].item():.2f}"
        found[f"{name}_cold"] = f"{cross[0]:.1f}"
    axes.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="temperature", ylabel="nats", xscale="log", ylim=(0, 11))
    axes.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
    axes.legend()
    save(figure, out / "temperature.svg")
    return found


def two_pasts(client: logitd.Client, out: Path) -> dict[str, Any]:
    """The same words after nothing, after a claim and after its correction."""
    prompts = {"nothing": ASKED, "a wrong claim": WRONG + ASKED, "its correction": RETRACTED + ASKED}
    rows = [d.logprob[0, 0] for d in client.distribution(list(prompts.values()), positions="last", top_n="full")]
    vocab = client.vocab()
    names = ["Madrid", "Lisbon"]
    p = np.exp([[row[vocab.id(f" {name}")] for name in names] for row in rows])
    figure, axes = plt.subplots(figsize=(6, 2.8))
    for k, (name, colour) in enumerate(zip(names, (BLUE, ORANGE), strict=True)):
        axes.bar(np.arange(len(rows)) + 0.35 * (k - 0.5), p[:, k], 0.33, color=colour, label=name)
    axes.set_xticks(range(len(rows)), [f"after {name}" for name in prompts])
    axes.set_title(f"probability of being next after “… {ANSWER}”")
    axes.legend()
    save(figure, out / "two-pasts.svg")
    return {
        "madrid": [percent(x, 1) for x in p[:, 0]],
        "lisbon": [percent(x, 1) for x in p[:, 1]],
        "kl_claim": f"{logitd.kl_divergence(rows[1], rows[0]):.2f}",
        "kl_back": f"{logitd.kl_divergence(rows[0], rows[1]):.2f}",
        "kl_corrected": f"{logitd.kl_divergence(rows[2], rows[0]):.2f}",
    }


def build(out: Path) -> None:
    """Text and pictures."""
    use()
    with logitd.Server("smollm2") as server, server.client() as client:
        parts = [part(client, out) for part in (one_position, along_a_text, temperatures, two_pasts)]
        numbers: dict[str, Any] = {"model": client.model()["name"]}
    for part in parts:
        numbers |= part
    text = (HERE / "guide.md.in").read_text(encoding="utf-8")
    (out / "from-logits-to-insight.md").write_text(text.format(**numbers), encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Writes the guide.")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    build(args.out)


if __name__ == "__main__":
    main()
