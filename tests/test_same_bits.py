"""The same request gives the same bits: whatever shares its batch, in whatever order and steps, for any number of threads,
any top_n, positions and other temperatures; at every CPU level that this machine has.

A small random model answers the same seeded requests from several servers (threads, batch sizes and cache sizes differ),
one at a time and many at once. Replies to one request must agree in every byte but id, created and timings; and a number
that several requests ask for, each with other fields, must be the same number. JSON and ndjson write the shortest
decimal that reads back as the same float, so equal texts are equal bits. A few requests go to SmolLM2 too.
"""

import concurrent.futures
import json
import pathlib
import random
import re
import subprocess

import arch_models
import pytest
from serving import Server

SEED = 20261124
N_CTX = 320
TEMPERATURES = [0.001, 0.3, 1.0, 1.7, 1000.0]
LENGTHS = [1, 2, 15, 16, 17, 31, 33, 64, 70, 130, 257, N_CTX]  # around tiles, key blocks and steps
# (threads, tokens of a batch, tokens of the KV cache, requests at once)
REFERENCE = (1, 512, 4096, 1)
SERVERS = [(4, 256, 512, 8), (1, 7, N_CTX, 3), (3, 100, N_CTX, 8)]
# One of each kind of attention: grouped heads and an output matrix of its own; sliding windows and tied embeddings.
# Vocabularies of several parts that threads share out.
MODELS = {"llama_untied": {"n_embd": 96, "n_head": 6, "n_head_kv": 2, "head_dim": 16, "n_ff": 160, "n_layer": 2,
                           "n_vocab": 4999},
          "gemma3": {"n_embd": 64, "n_head": 4, "n_head_kv": 2, "head_dim": 32, "n_ff": 96, "n_layer": 6, "n_vocab": 3433,
                     "keys": {"rope.freq_base": 1000000.0, "attention.sliding_window": 100}}}  # fmt: skip


def make_requests(prompts, n, n_vocab, seed):
    """Requests over some of the prompts, every field drawn at random. Each comes with the keys of its prompts."""
    r = random.Random(seed)
    for _ in range(n):
        chosen = r.sample(range(len(prompts)), r.choice([1, 1, 2, 5]))
        shortest = min(len(prompts[i]) for i in chosen)
        positions = r.choice(["all", "last", {"start": r.randrange(shortest), "step": r.randint(1, 9)},
                              [r.randrange(shortest) for _ in range(r.randint(1, 6))]])  # fmt: skip
        full = r.random() < 0.12
        if full:
            positions = r.choice(["last", {"start": -12}])  # one row, and more than go one at a time
        yield chosen, {
            "prompt": [prompts[i] for i in chosen], "positions": positions, "values": r.choice(["logprob", "prob", "logit"]),
            "temperatures": r.sample(TEMPERATURES, r.randint(1, 5)), "top_n": "full" if full else r.choice([0, 1, 5, 20, 200]),
            "token_ids": r.sample(range(n_vocab), r.choice([0, 3])),
            "format": r.choice(["json", "ndjson", "safetensors"])}  # fmt: skip


def without_times(reply):
    """A reply's body but for what may differ."""
    text = re.sub(rb'"(id|created)":("dist-[^"]*"|\d+),', b"", reply.body, count=2)
    return re.sub(rb'"timing_ms":\{[^}]*\}', b"", text)


def results(reply, form):
    """The results of a JSON or ndjson reply in the shape of JSON, floats as their texts; None of safetensors."""
    if form == "json":
        return reply.json(parse_float=str)["results"]
    if form == "safetensors":
        return None
    found = []
    for line in reply.lines(parse_float=str)[1:-1]:
        if "tokens" in line:
            found.append({"positions": []})
        elif "position" in line:
            found[line["index"]]["positions"].append(line)
    return found


def numbers(reply, chosen, request):
    """Yields (what it is, its text) for each number that another request may ask for too."""
    kind, temperatures = request["values"], request["temperatures"]
    for prompt, result in zip(chosen, results(reply, request["format"]) or (), strict=False):
        for row in result["positions"]:
            at = prompt, row["position"]
            for k, t in enumerate(temperatures):
                for key in ("logsumexp", "entropy", "varentropy"):
                    yield (*at, t, key), row[key][k]
                if row["next"]:
                    yield (*at, t, "next"), row["next"]["logprob"][k]
            if row["next"]:
                yield (*at, "rank"), row["next"]["rank"]
            for i, entry in enumerate(row.get("top", ())):
                yield (*at, "top", i), entry["id"]
            for entry in row.get("top", []) + row["token_ids"]:
                values = [entry[kind]] if kind == "logit" else entry[kind]
                for t, value in zip([None] if kind == "logit" else temperatures, values, strict=True):
                    yield (*at, t, kind, entry["id"]), value
            for t, values in zip([None] if kind == "logit" else temperatures, row.get("full", ()), strict=False):
                for i, value in enumerate(values):
                    yield (*at, t, kind, i), value


class Known:
    """What replies have said so far."""

    def __init__(self):
        self.replies, self.numbers, self.n = {}, {}, 0

    def check(self, i, chosen, request, reply, where):
        assert reply.status == 200, f"{where}: {reply.body[:600]}"
        self.n += 1
        body = without_times(reply)
        before, at = self.replies.setdefault(i, (body, where))
        if before == body and at != where:
            return  # its numbers are known
        asked = {k: v for k, v in request.items() if k != "prompt"} | {"lengths": [len(p) for p in request["prompt"]]}
        for key, value in numbers(reply, chosen, request):
            known, source = self.numbers.setdefault(key, (value, where))
            assert known == value, f"{key}: {value} with {where}, {known} with {source}; request {i}: {asked}"
        assert before == body, f"replies to request {i} with {where} and {at} differ: {asked}"


def ask_all(logitd, model, config, extra, requests, known, seed):
    """All requests to one server, in an order of its own."""
    threads, batch, kv, at_once = config
    order = list(enumerate(requests))
    random.Random(seed).shuffle(order)
    where = f"--threads {threads} --batch-tokens {batch} --kv-tokens {kv} {' '.join(extra)}, {at_once} at once"
    with Server(logitd, model, "--threads", threads, "--batch-tokens", batch, "--kv-tokens", kv, *extra) as server:
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            replies = pool.map(lambda item: server.post("/distribution", item[1][1]), order)
            for (i, (chosen, request)), reply in zip(order, replies, strict=True):
                known.check(i, chosen, request, reply, where)


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("same_bits")
    made = {}

    def make(name):
        if name not in made:
            made[name] = arch_models.write(name, folder / f"{name}.gguf", n_ctx=N_CTX, **MODELS[name])
        return made[name]

    return make


def levels_of_this_machine(logitd, model):
    """CPU levels that the binary has and this processor runs, found by asking for each."""

    def run(level):
        return subprocess.run([logitd, "score", "--model", model, "--cpu", level], input="ab", capture_output=True,
                              text=True, check=False)  # fmt: skip

    names = re.search(r"this build has auto, ([\w, ]+)", run("none").stderr)[1].split(", ")
    done = {name: run(name) for name in names}
    for name, result in done.items():
        assert result.returncode == 0 or f'cannot run the CPU level "{name}"' in result.stderr, result.stderr
    return [name for name in names if done[name].returncode == 0]


@pytest.mark.parametrize("name", MODELS)
def test_same_bits_on_a_small_model(name, logitd, small_model):
    model, n_vocab = small_model(name), MODELS[name]["n_vocab"]
    r = random.Random(SEED)
    prompts = [[r.randrange(n_vocab) for _ in range(n)] for n in LENGTHS]
    requests = list(make_requests(prompts, 14, n_vocab, SEED))
    levels = levels_of_this_machine(logitd, model)
    assert {"reference", "portable"} <= set(levels)
    for level in levels:
        known = Known()
        servers = SERVERS[: {"reference": 1, "portable": 2}.get(level)]  # the slow ones see fewer
        for k, config in enumerate([REFERENCE, *servers]):
            ask_all(logitd, model, config, ["--cpu", level], requests, known, SEED + k)
        assert known.n == len(requests) * (1 + len(servers)) and len(known.numbers) > 10000
        print(f"{name} {level}: {known.n} replies, {len(known.numbers)} numbers, seed {SEED}")


def test_same_bits_on_smollm2(logitd, model_path):
    path = model_path("smollm2")
    r = random.Random(SEED)
    prompts = [[r.randrange(49152) for _ in range(n)] for n in (1, 5, 16, 33, 47)]
    requests = list(make_requests(prompts, 4, 49152, SEED))
    known = Known()
    for k, config in enumerate([(2, 512, 8192, 1), (1, 40, 8192, 4)]):
        ask_all(logitd, path, config, [], requests, known, SEED + k)
    assert known.n == 8
