"""POST /distribution of a real server: every field of the request does what openapi.json says, every member of the reply is
there, and the same question gives the same bytes however it is put. What the numbers should be is test_distribution_exact.py's.
"""

import concurrent.futures
import json
import math

import pytest

TEXT = "The cat — «naïve» 𓀀 sat.\n"
T = [0.5, 1.0, 2.0]


def stable(reply):
    """A JSON reply without what may differ between two runs."""
    return {k: v for k, v in reply.items() if k not in ("id", "created", "timing_ms")}


def ids_of(result):
    return [token["id"] for token in result["tokens"]]


@pytest.fixture(scope="module")
def whole(server):
    """Every position of TEXT with everything asked for."""
    return server.distribution(prompt=TEXT, temperatures=T, token_ids=[0, 7, 7], top_n=5)


def test_members(server, whole):
    assert set(whole) == {"object", "id", "created", "model", "numerics", "temperatures", "values", "usage", "timing_ms", "results"}
    assert whole["object"] == "distribution" and whole["temperatures"] == T and whole["values"] == "logprob"
    assert set(whole["model"]) == {"name", "architecture", "n_vocab", "sha256"}
    assert whole["model"]["n_vocab"] == 49152
    assert whole["model"]["sha256"] == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert set(whole["numerics"]) == {"backend", "precision", "kernel", "logprob_bound"}
    assert whole["numerics"]["precision"] == "exact" and whole["numerics"]["logprob_bound"] == 3e-4
    assert set(whole["timing_ms"]) == {"queue", "compute"} and whole["timing_ms"]["compute"] > 0
    (result,) = whole["results"]
    assert set(result) == {"index", "tokens", "summary", "positions"} and result["index"] == 0
    n = len(result["tokens"])
    assert whole["usage"] == {"prompt_tokens": n, "positions": n}
    for i, position in enumerate(result["positions"]):
        assert set(position) == {
            "position", "token_id", "logsumexp", "entropy", "varentropy", "next", "top", "token_ids"}  # fmt: skip
        assert position["position"] == i and position["token_id"] == result["tokens"][i]["id"]
        for name in ("logsumexp", "entropy", "varentropy"):
            assert len(position[name]) == 3 and all(math.isfinite(v) for v in position[name])
        assert [e["id"] for e in position["token_ids"]] == [0, 7, 7]
        assert position["token_ids"][1] == position["token_ids"][2]
        assert len(position["top"]) == 5
        logprobs = [e["logprob"][1] for e in position["top"]]
        assert logprobs == sorted(logprobs, reverse=True)
    assert result["positions"][-1]["next"] is None
    assert all(p["next"]["id"] == q["token_id"] for p, q in zip(result["positions"], result["positions"][1:]))


def test_tokens_are_the_text(whole):
    tokens = whole["results"][0]["tokens"]
    assert bytes(b for t in tokens for b in t["bytes"]) == TEXT.encode()
    offset = 0
    for token in tokens:
        assert token["offset"] == offset
        assert token["text"] == bytes(token["bytes"]).decode(errors="replace")
        offset += len(token["bytes"])
    assert any("�" in token["text"] for token in tokens)  # the hieroglyph is cut into fragments


def test_next_agrees_with_entries(server, whole):
    """rank and logprob of `next` are those of the same token in the whole distribution."""
    result = whole["results"][0]
    full = server.distribution(prompt=TEXT, temperatures=T, top_n="full", positions=[0, 3])["results"][0]["positions"]
    logits = server.distribution(prompt=TEXT, top_n="full", values="logit", positions=[0, 3])["results"][0]["positions"]
    for row, (row_logits,) in zip(full, (p["full"] for p in logits)):
        same = result["positions"][row["position"]]
        next_token = same["next"]
        for t in range(3):
            values = row["full"][t]
            assert len(values) == 49152
            assert next_token["logprob"][t] == values[next_token["id"]]
            assert next_token["rank"] == sum(v > row_logits[next_token["id"]] for v in row_logits)
            assert math.fsum(map(math.exp, values)) == pytest.approx(1, abs=1e-5)
            assert -math.fsum(v * math.exp(v) for v in values) == pytest.approx(same["entropy"][t], abs=1e-3)
            assert [values[e["id"]] for e in same["top"]] == [e["logprob"][t] for e in same["top"]]
            assert [values[e["id"]] for e in same["token_ids"]] == [e["logprob"][t] for e in same["token_ids"]]
        order = sorted(range(49152), key=lambda v: (-row_logits[v], v))
        assert [e["id"] for e in same["top"]] == order[:5]


def test_summary(whole):
    result = whole["results"][0]
    for t, summary in enumerate(result["summary"]):
        nexts = [p["next"] for p in result["positions"] if p["next"]]
        loss = -sum(n["logprob"][t] for n in nexts) / len(nexts)
        n_bytes = sum(len(token["bytes"]) for token in result["tokens"][1:])
        assert summary["temperature"] == T[t] and summary["n"] == len(nexts)
        assert summary["cross_entropy"] == pytest.approx(loss, abs=1e-5)
        assert summary["perplexity"] == pytest.approx(math.exp(summary["cross_entropy"]))
        assert summary["bits_per_byte"] == pytest.approx(loss * len(nexts) / math.log(2) / n_bytes, abs=1e-5)
        assert summary["mean_entropy"] == pytest.approx(
            sum(p["entropy"][t] for p in result["positions"]) / len(result["positions"]), abs=1e-5)  # fmt: skip


def test_summary_of_nothing(server):
    (summary,) = server.distribution(prompt="The cat", positions="last")["results"][0]["summary"]
    assert summary["n"] == 0
    assert summary["cross_entropy"] is None and summary["perplexity"] is None and summary["bits_per_byte"] is None
    assert summary["mean_entropy"] > 0
    result = server.distribution(prompt="The cat", positions=[])["results"][0]
    assert result["positions"] == [] and result["summary"][0]["mean_entropy"] is None


@pytest.mark.parametrize("positions", [
    "all", "last", [0], [-1, 2, 2, 0], [], {}, {"start": 3}, {"stop": -2}, {"step": -2}, {"start": -3, "stop": None},
    {"start": 1, "stop": 100, "step": 3}, {"start": 100}, {"start": 5, "stop": 2, "step": -1}, {"step": -100},
])  # fmt: skip
def test_positions(server, whole, positions):
    rows = whole["results"][0]["positions"]
    every = list(range(len(rows)))
    if positions == "all":
        wanted = every
    elif positions == "last":
        wanted = every[-1:]
    elif isinstance(positions, list):
        wanted = [every[i] for i in positions]
    else:
        wanted = every[slice(positions.get("start"), positions.get("stop"), positions.get("step"))]
    reply = server.distribution(prompt=TEXT, temperatures=T, token_ids=[0, 7, 7], top_n=5, positions=positions)
    assert reply["results"][0]["positions"] == [rows[i] for i in wanted]
    assert reply["usage"] == {"prompt_tokens": len(rows), "positions": len(wanted)}


@pytest.mark.parametrize("values", ["logprob", "prob", "logit"])
def test_values(server, whole, values):
    reply = server.distribution(prompt=TEXT, temperatures=T, token_ids=[0, 7, 7], top_n=5, values=values)
    assert reply["values"] == values
    for row, same in zip(reply["results"][0]["positions"], whole["results"][0]["positions"]):
        assert row["next"] == same["next"]  # always logprob
        assert [e["id"] for e in row["top"]] == [e["id"] for e in same["top"]]
        for e, f in zip(row["top"] + row["token_ids"], same["top"] + same["token_ids"]):
            assert set(e) == {"id", "text", values}
            for t in range(3):
                if values == "logit":
                    assert e["logit"] / T[t] - same["logsumexp"][t] == pytest.approx(f["logprob"][t], abs=1e-3)
                elif values == "prob":
                    assert e["prob"][t] == pytest.approx(math.exp(f["logprob"][t]), rel=1e-4, abs=1e-12)
                else:
                    assert e["logprob"][t] == f["logprob"][t]
    full = server.distribution(prompt=TEXT, temperatures=T, top_n="full", values=values, positions=[1])["results"][0]
    rows = full["positions"][0]["full"]
    assert len(rows) == (1 if values == "logit" else 3)
    first = reply["results"][0]["positions"][1]["top"][0]
    assert [row[first["id"]] for row in rows] == ([first["logit"]] if values == "logit" else first[values])


def test_one_temperature(server, whole):
    assert server.distribution(prompt="a", temperature=0.7)["temperatures"] == [0.7]
    for t, temperature in enumerate(T):  # the others do not change a bit of it
        rows = server.distribution(prompt=TEXT, temperature=temperature, top_n=5)["results"][0]["positions"]
        for row, same in zip(rows, whole["results"][0]["positions"]):
            assert row["entropy"][0] == same["entropy"][t] and row["logsumexp"][0] == same["logsumexp"][t]
            assert [e["logprob"][0] for e in row["top"]] == [e["logprob"][t] for e in same["top"]]


def test_temperatures_keep_order_and_duplicates(server):
    wanted = [3, 0.001, 3, 1000] + [1] * 28
    reply = server.distribution(prompt="The cat", temperatures=wanted, top_n=1)
    assert reply["temperatures"] == wanted
    for row in reply["results"][0]["positions"]:
        assert row["entropy"][0] == row["entropy"][2] and len(set(row["entropy"][4:])) == 1
        assert row["entropy"][1] < row["entropy"][4] < row["entropy"][0] < row["entropy"][3] <= math.log(49152) + 1e-4


def test_top_n(server, whole):
    for n in (0, 1, 1024):
        rows = server.distribution(prompt=TEXT, temperatures=T, top_n=n)["results"][0]["positions"]
        for row, same in zip(rows, whole["results"][0]["positions"]):
            assert len(row["top"]) == n and row["top"][:5] == same["top"][:n]
            assert row["token_ids"] == []
    assert len(server.distribution(prompt="a")["results"][0]["positions"][0]["top"]) == 20


def test_without_stats(server, whole):
    result = server.distribution(prompt=TEXT, temperatures=T, top_n=5, stats=False)["results"][0]
    assert set(result) == {"index", "tokens", "positions"}
    assert [set(p) for p in result["positions"]] == [{"position", "token_id", "top", "token_ids"}] * len(result["positions"])
    assert [p["top"] for p in result["positions"]] == [p["top"] for p in whole["results"][0]["positions"]]


def test_ids_are_the_same_question(server, whole):
    ids = ids_of(whole["results"][0])
    for prompt in (ids, [ids]):
        result = server.distribution(prompt=prompt, temperatures=T, token_ids=[0, 7, 7], top_n=5)["results"][0]
        assert result["positions"] == whole["results"][0]["positions"]
        assert [t["offset"] for t in result["tokens"]] == [None] * len(ids)


def test_batch_is_its_singles(server):
    prompts = ["One two three.", "x", TEXT * 5, "def f(a):\n    return a\n"] * 3
    batch = server.distribution(prompt=prompts, temperatures=T)["results"]
    assert [r["index"] for r in batch] == list(range(12))
    for prompt, result in zip(prompts, batch):
        (single,) = server.distribution(prompt=prompt, temperatures=T)["results"]
        assert {**result, "index": 0} == single


def test_concurrent_clients_get_what_they_get_alone(server):
    bodies = [{"prompt": f"{i} green bottles " * (i % 3 + 1), "temperatures": [0.5, 1], "top_n": 3} for i in range(32)]
    bodies[7].update(top_n="full", positions="last")

    def ask(body):
        return stable(server.distribution(**body))

    alone = [ask(body) for body in bodies]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, bodies)) == alone


def test_bos_and_special(server):
    plain = server.distribution(prompt="a", positions="last", top_n=1)
    assert server.get("/model").json()["add_bos"] is False and len(plain["results"][0]["tokens"]) == 1
    with_bos = server.distribution(prompt="a", add_bos=True, positions="last", top_n=1)["results"][0]["tokens"]
    assert [t["offset"] for t in with_bos] == [None, 0]
    assert with_bos[0]["id"] == 1 and with_bos[0]["text"] == "<|im_start|>"
    assert len(server.distribution(prompt="", add_bos=True, top_n=1)["results"][0]["tokens"]) == 1
    read = server.distribution(prompt="<|im_start|>user", special=True, top_n=1)["results"][0]["tokens"]
    assert [t["id"] for t in read][0] == 1 and len(read) == 2
    assert len(server.distribution(prompt="<|im_start|>user", top_n=1)["results"][0]["tokens"]) > 2


def test_bits_per_byte_counts_no_control_token(server):
    result = server.distribution(prompt="a<|im_end|>", special=True)["results"][0]
    assert len(result["tokens"]) == 2 and result["summary"][0]["n"] == 1
    assert result["summary"][0]["bits_per_byte"] is None and result["summary"][0]["cross_entropy"] > 0


def test_ndjson_holds_the_same(server, whole):
    body = {"prompt": [TEXT, "x"], "temperatures": T, "token_ids": [0, 7, 7], "top_n": 5}
    reply = server.post("/distribution", body, {"Accept": "application/x-ndjson"})
    assert reply.headers["Content-Type"] == "application/x-ndjson"
    lines = reply.lines()
    assert set(lines[0]) == {"object", "id", "created", "model", "numerics", "temperatures", "values", "usage"}
    assert set(lines[-1]) == {"timing_ms"}
    n = len(whole["results"][0]["tokens"])
    wanted = [(0, "tokens")] + [(0, "position")] * n + [(0, "summary"), (1, "tokens"), (1, "position"), (1, "summary")]
    assert [(line["index"], list(line)[1]) for line in lines[1:-1]] == wanted
    result = whole["results"][0]
    assert [lines[1]["tokens"], lines[2 + n]["summary"]] == [result["tokens"], result["summary"]]
    assert lines[2 : 2 + n] == [{"index": 0, **row} for row in result["positions"]]


def test_ndjson_full(server):
    body = {"prompt": TEXT, "top_n": "full", "positions": {"stop": 20}, "stats": False}
    as_json = server.distribution(**body)["results"][0]["positions"]
    lines = server.post("/distribution", {**body, "format": "ndjson"}).lines()
    assert [{k: v for k, v in line.items() if k != "index"} for line in lines[2:-1]] == as_json


def test_the_same_bytes_again(server):
    bodies = [server.post("/distribution", {"prompt": TEXT, "temperatures": T}).body for _ in range(2)]
    first, second = (json.dumps(stable(json.loads(b))) for b in bodies)
    assert first == second
    assert len({json.loads(b)["id"] for b in bodies}) == 2


def test_tokenize_and_back(server, whole):
    tokens = server.post("/tokenize", {"text": TEXT}).json()["tokens"]
    assert tokens == [{k: t[k] for k in ("id", "text", "bytes")} for t in whole["results"][0]["tokens"]]
    back = server.post("/detokenize", {"ids": [t["id"] for t in tokens]}).json()
    assert back == {"text": TEXT, "bytes": list(TEXT.encode())}
    assert server.post("/tokenize", {"text": ""}).json() == {"tokens": []}
    assert server.post("/detokenize", {"ids": []}).json() == {"text": "", "bytes": []}
    fragment = next(t for t in tokens if "�" in t["text"])
    assert server.post("/detokenize", {"ids": [fragment["id"]]}).json() == {"text": fragment["text"], "bytes": fragment["bytes"]}
    assert server.post("/tokenize", {"text": "a", "add_bos": True}).json()["tokens"][0]["id"] == 1


def test_model_and_health(server):
    model = server.get("/model").json()
    assert model["architecture"] == "llama" and model["n_layer"] == 30 and model["n_embd"] == 576
    assert model["limits"]["temperatures"] == 32 and model["limits"]["prompt_tokens"] == model["n_ctx"]
    assert "json" in model["formats"] and "ndjson" in model["formats"]
    health = server.get("/health")
    assert health.status == 200 and health.json()["status"] == "ok"
