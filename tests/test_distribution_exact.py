"""The main promise: `exact` distributions of both real models are within their bounds of float64, and the same
request gives the same bytes whatever else is asked or served.

Expected values: tests/fixtures/distribution_MODEL_TEXT.npz, by tests/oracle/make_distribution_fixtures.py.
"""

import concurrent.futures
import pathlib
import random

import numpy as np
import pytest
import stats
from serving import Server

FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures"
MODELS = ("smollm2", "gemma3")
TEXTS = ("english", "code", "multilingual")


@pytest.fixture(scope="module", params=MODELS)
def model(request, logitd, model_path):
    """(name, running server) for each real model in turn."""
    with Server(logitd, model_path(request.param)) as running:
        yield request.param, running


def load(name, text):
    return dict(np.load(FIXTURES / f"distribution_{name}_{text}.npz"))


def column(positions, *path):
    """The numbers at `path` of every position, as an array; null becomes NaN."""
    rows = positions
    for key in path:
        rows = [row[key] for row in rows]
    return np.array(rows, dtype=float)


def entries(positions, key, name):
    """(ids [P, K], values [P, K, …]) of `top` or `token_ids`."""
    ids = np.array([[e["id"] for e in row[key]] for row in positions])
    return ids, np.array([[e[name] for e in row[key]] for row in positions], dtype=float)


def check_all(*worsts):
    assert all(w.ok() for w in worsts), "\n".join(map(str, worsts))


# ---------------------------------------------------------------------------------------------- within the bounds


@pytest.fixture(scope="module", params=TEXTS)
def answer(request, model):
    """(fixture, the server's result) of a whole text: every position, top 20, listed ids, all temperatures."""
    name, server = model
    want = load(name, request.param)
    reply = server.distribution(prompt=want["ids"].tolist(), temperatures=want["temperatures"].tolist(), top_n=20,
                                token_ids=want["listed"].tolist())
    assert reply["numerics"]["precision"] == "exact"
    result = reply["results"][0]
    assert [row["position"] for row in result["positions"]] == list(range(len(want["ids"])))
    return want, result


def test_statistics_within_bounds(answer):
    want, positions = answer[0], answer[1]["positions"]
    worsts = [stats.Worst(key) for key in ("logsumexp", "entropy", "varentropy")]
    for k, t in enumerate(want["temperatures"]):
        bounds = stats.bound(t), stats.bound(t), stats.varentropy_bound(t, want["varentropy"][:, k])
        for worst, allowed in zip(worsts, bounds, strict=True):
            got = column(positions, worst.name)[:, k]
            worst.add(got, want[worst.name][:, k], allowed, lambda i, t=t: f"position {i}, T = {t}")
    check_all(*worsts)


def test_next_token_within_bounds(answer):
    want, positions = answer[0], answer[1]["positions"]
    assert positions[-1]["next"] is None
    positions = positions[:-1]
    assert [row["next"]["id"] for row in positions] == want["ids"][1:].tolist()
    worst = stats.Worst("next logprob")
    got = column(positions, "next", "logprob")
    assert got.max() <= 0
    for k, t in enumerate(want["temperatures"]):
        worst.add(got[:, k], want["next_logprob"][:, k], stats.bound(t), lambda i, t=t: f"position {i}, T = {t}")
    check_all(worst)
    rank = column(positions, "next", "rank")
    wrong = np.flatnonzero((rank < want["next_rank_min"]) | (rank > want["next_rank_max"]))
    assert wrong.size == 0, f"position {wrong[0]}: rank {rank[wrong[0]]}, oracle {want['next_rank'][wrong[0]]}"


def test_summary_within_bounds(answer):
    want, summary = answer[0], answer[1]["summary"]
    assert [s["temperature"] for s in summary] == want["temperatures"].tolist()
    assert {s["n"] for s in summary} == {len(want["ids"]) - 1}
    worst = stats.Worst("mean")
    for k, (s, t) in enumerate(zip(summary, want["temperatures"], strict=True)):
        cross_entropy = -want["next_logprob"][:, k].astype(float).mean()
        worst.add(s["cross_entropy"], cross_entropy, stats.bound(t), lambda _, t=t: f"cross_entropy, T = {t}")
        worst.add(s["mean_entropy"], want["entropy"][:, k].astype(float).mean(), stats.bound(t),
                  lambda _, t=t: f"mean_entropy, T = {t}")
        if s["perplexity"] is not None:  # e^cross_entropy at T = 0.01 has no number
            worst.add(np.log(s["perplexity"]), cross_entropy, stats.bound(t), lambda _, t=t: f"perplexity, T = {t}")
    assert summary[2]["perplexity"] is not None
    check_all(worst)


def expected_logprobs(want, key, k):
    """Log-probabilities from the fixture's logits at temperature k: [detailed, n]."""
    t = want["temperatures"][k]
    top = want["top_logit"][:, :1].astype(float)
    log_total = want["logsumexp"][want["detailed"], k][:, None] - top / t
    return (want[key].astype(float) - top) / t - log_total


def test_listed_ids_within_bounds(answer):
    want, positions = answer[0], answer[1]["positions"]
    ids, got = entries([positions[i] for i in want["detailed"]], "token_ids", "logprob")
    assert (ids == want["listed"]).all()
    worst = stats.Worst("listed logprob")
    for k, t in enumerate(want["temperatures"]):
        worst.add(got[..., k], expected_logprobs(want, "listed_logit", k), stats.bound(t),
                  lambda i, t=t: f"position {want['detailed'][i // ids.shape[1]]}, token {ids.flat[i]}, T = {t}")
    check_all(worst)
    assert got.max() <= 0


def test_top_n_is_the_oracles(answer):
    """Rank by rank the values are within the bound, and the ids the same except among ties within it."""
    want, positions = answer[0], answer[1]["positions"]
    ids, got = entries([positions[i] for i in want["detailed"]], "top", "logprob")
    worst = stats.Worst("top logprob")
    for k, t in enumerate(want["temperatures"]):
        worst.add(got[..., k], expected_logprobs(want, "top_logit", k), stats.bound(t),
                  lambda i, t=t: f"position {want['detailed'][i // 20]}, rank {i % 20}, T = {t}")
        assert (np.diff(got[..., k], axis=-1) <= 0).all(), f"top not in order at T = {t}"
    check_all(worst)
    for row, (mine, theirs) in enumerate(zip(ids, want["top_id"], strict=True)):
        assert len(set(mine)) == 20
        logit_of = dict(zip(theirs, want["top_logit"][row], strict=True))
        for rank in np.flatnonzero(mine != theirs):
            # An id that the oracle has below its top 20 can only be tied with the last of them.
            gap = want["top_logit"][row, rank] - logit_of.get(mine[rank], want["top_logit"][row, -1])
            assert abs(gap) <= 2 * stats.bound(1.0), (
                f"position {want['detailed'][row]}, rank {rank}: id {mine[rank]}, oracle {theirs[rank]}")


def test_logits_and_probabilities(model):
    """`values` logit and prob say the same as logprob, at some positions of the code text."""
    name, server = model
    want = load(name, "code")
    some = want["detailed"][::37]
    request = {"prompt": want["ids"].tolist(), "positions": some.tolist(), "top_n": 5,
               "temperatures": want["temperatures"].tolist(), "token_ids": want["listed"].tolist()}
    at = np.isin(want["detailed"], some)
    logit = entries(server.distribution(**request, values="logit")["results"][0]["positions"], "token_ids", "logit")[1]
    worst = stats.Worst("logit")
    worst.add(logit, want["listed_logit"][at], stats.logit_bound(), lambda i: f"entry {i}")
    prob = entries(server.distribution(**request, values="prob")["results"][0]["positions"], "token_ids", "prob")[1]
    worst_prob = stats.Worst("prob")
    for k, t in enumerate(want["temperatures"]):
        p = np.exp(expected_logprobs(want, "listed_logit", k)[at])
        worst_prob.add(prob[..., k], p, p * np.expm1(stats.bound(t)) + 1e-37, lambda i, t=t: f"entry {i}, T = {t}")
    check_all(worst, worst_prob)


def test_full_rows(model):
    """A whole row sums to one, has no logprob above zero, holds the listed values and the top's order."""
    name, server = model
    want = load(name, "english")
    some = [0, 1, len(want["ids"]) // 2 // 2 * 2, -1]
    temperatures = want["temperatures"].tolist()
    request = {"prompt": want["ids"].tolist(), "positions": some, "temperatures": temperatures}
    rows = server.distribution(**request, top_n="full")["results"][0]["positions"]
    tops = server.distribution(**request, top_n=20, token_ids=want["listed"].tolist())["results"][0]["positions"]
    for row, top in zip(rows, tops, strict=True):
        full = np.array(row["full"], dtype=float)
        assert full.shape == (len(temperatures), want["listed"][-1] + 1)
        assert full.max() <= 0, f"position {row['position']}: logprob {full.max()}"
        assert np.abs(np.exp(full).sum(-1) - 1).max() <= 1e-5
        for key in ("top", "token_ids"):
            ids, values = entries([top], key, "logprob")
            assert (full[:, ids[0]].T == values[0]).all(), f"position {row['position']}: full and {key} differ"
        top_ids = [e["id"] for e in top["top"]]
        assert (np.sort(full, axis=-1)[:, :-21:-1] == full[:, top_ids]).all(), f"position {row['position']}"


@pytest.mark.parametrize("text", TEXTS)
def test_text_gives_the_oracles_ids(model, text):
    name, server = model
    raw = (FIXTURES / "texts" / f"{text}.txt").read_bytes()
    result = server.distribution(prompt=raw.decode(), positions="last", top_n=0)["results"][0]
    assert [token["id"] for token in result["tokens"]] == load(name, text)["ids"].tolist()
    tokens = [token for token in result["tokens"] if token["offset"] is not None]
    assert b"".join(bytes(token["bytes"]) for token in tokens) == raw
    assert len(result["tokens"]) - len(tokens) == (name == "gemma3")  # its BOS


# ------------------------------------------------------------------------------------------------- the same bytes


def numbers(reply, request):
    """{(prompt, position, temperature or None, what): text of the number} of a reply read with parse_float=str."""
    found = {}
    for prompt, result in zip(request["prompt"], reply["results"], strict=True):
        for row in result["positions"]:
            at = tuple(prompt), row["position"]
            for k, t in enumerate(request["temperatures"]):
                for key in ("logsumexp", "entropy", "varentropy"):
                    found[(*at, t, key)] = row[key][k]
                if row["next"]:
                    found[(*at, t, "next")] = row["next"]["logprob"][k]
                for e in row["top"] + row["token_ids"]:
                    found[(*at, t, e["id"])] = e["logprob"][k]
            if row["next"]:
                found[(*at, None, "rank")] = row["next"]["rank"]
    return found


def ask(server, request):
    reply = server.post("/distribution", request)
    assert reply.status == 200, reply.body[:600]
    return numbers(reply.json(parse_float=str), request)


def shuffled_requests(prompts, n, seed):
    """Requests over some of the prompts with other positions, temperatures, top_n and listed ids."""
    r = random.Random(seed)
    for _ in range(n):
        chosen = r.sample(prompts, r.randint(1, len(prompts)))
        shortest = min(map(len, chosen))
        temperatures = r.sample([0.01, 0.5, 1.0, 1.7, 2.0], r.randint(1, 5))
        positions = "all" if r.random() < 0.3 else r.sample(range(shortest), r.randint(1, shortest))
        yield {"prompt": chosen, "positions": positions, "temperatures": temperatures,
               "top_n": r.choice([0, 1, 7, 20, 100]), "token_ids": r.sample(range(40000), r.randint(0, 9))}


@pytest.mark.parametrize("name", MODELS)
def test_same_bytes_whatever_else(name, logitd, model_path):
    """A number depends on its prompt, position and temperature alone: not on what shares the request or the batch, on
    the other fields, or on --threads. The longest prompt does not fit in one batch of 512 tokens."""
    ids = {text: load(name, text)["ids"].tolist() for text in TEXTS}
    prompts = [ids["english"][:530], ids["code"][:97], ids["multilingual"][:33], ids["code"][200:216], ids["english"][:1]]
    requests = list(shuffled_requests(prompts, 14, seed=7))
    known = {}
    for threads in (1, 2):
        with Server(logitd, model_path(name), "--threads", threads) as server:
            for prompt in prompts:  # each alone
                found = ask(server, {"prompt": [prompt], "temperatures": [0.01, 0.5, 1.0, 1.7, 2.0], "top_n": 100})
                assert all(known.setdefault(key, value) == value for key, value in found.items()), f"{threads} threads"
            with concurrent.futures.ThreadPoolExecutor(4) as pool:  # batched, and several at once
                for request, found in zip(requests, pool.map(lambda r: ask(server, r), requests), strict=True):
                    for key, value in found.items():
                        assert known.setdefault(key, value) == value, (
                            f"{key[1:]} of a prompt of {len(key[0])}: {value}, before {known[key]}; {threads} threads, "
                            f"{len(request['prompt'])} prompts, temperatures {request['temperatures']}")
