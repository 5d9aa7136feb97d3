"""The CUDA backend through the server, on the emulated driver of tests/cuda_emu: a build with nvcc makes both.

The emulated driver executes the very PTX that the program embeds and fails a launch at the first wrong access, so these
tests say what the kernels compute, never how fast.
"""

import contextlib
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import time

import arch_models
import bf16_model
import cut_model
import forward64
import numpy as np
import pytest
import test_architectures
from serving import Server

# One of each architecture, and what is rare: untied, odd heads, every K format, RoPE scaling, windows, soft caps.
VARIANTS = ["llama_untied", "llama_head80", "llama_kquants", "llama_yarn", "gemma3_softcap", "qwen2", "qwen3", "gpt2"]
FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures"
BF16_BOUND = 2.0  # nats at T = 1, as measured: README
TEXT = "The capital of France is Paris. The capital of Germany is"


@pytest.fixture
def emulated(logitd, monkeypatch):
    """emulated(LOGITD_EMU_X=…): the programs started from now on find the emulated driver, with these settings."""
    folder = logitd.parent / "tests" / "cuda_emu"
    if not (logitd.parent / "cuda" / "kernels.ptx").exists() or not (folder / "libcuda.so.1").exists():
        pytest.skip("this build has no CUDA kernels or no emulated driver: it was made without nvcc")

    def use(**settings):
        monkeypatch.setenv("LD_LIBRARY_PATH", f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}")
        for name, value in settings.items():
            monkeypatch.setenv(name, str(value))

    use()
    return use


def results(server, **request):
    reply = server.distribution(**request)
    assert reply["numerics"]["backend"] == "cuda"
    return json.dumps(reply["results"])


@pytest.mark.parametrize("name", VARIANTS)
def test_agrees_with_the_oracle(name, emulated, tmp_path, logitd):
    with Server(logitd, arch_models.write(name, tmp_path / "model.gguf")) as server:
        results(server, prompt=[1, 2], top_n=1)  # auto takes the GPU
    test_architectures.test_server_agrees_with_the_oracle(name, tmp_path, logitd)


def test_smollm2_agrees_with_the_cpu(emulated, logitd, model_path):
    request = {"prompt": TEXT, "temperatures": [0.5, 1], "top_n": 5}
    replies = []
    for backend in ("cpu", "cuda"):
        with Server(logitd, model_path("smollm2"), "--backend", backend, "--ctx", 64, "--batch-tokens", 32) as server:
            replies.append(server.distribution(**request)["results"][0]["positions"])
    for cpu, cuda in zip(*replies, strict=True):
        where = f"position {cpu['position']}"
        assert [e["id"] for e in cuda["top"]] == [e["id"] for e in cpu["top"]], where
        for key in ("logsumexp", "entropy", "varentropy"):
            assert cuda[key] == pytest.approx(cpu[key], rel=1e-5, abs=3e-4), (where, key)
        if cpu["next"]:
            assert cuda["next"]["rank"] == cpu["next"]["rank"], where
            assert cuda["next"]["logprob"] == pytest.approx(cpu["next"]["logprob"], abs=3e-4), where


def worst_difference(mine, theirs):
    """{statistic: the largest difference} over all positions, and the positions whose ranks differ."""
    worst, other_ranks = {}, 0
    for a, b in zip(mine, theirs, strict=True):
        pairs = [(key, a[key], b[key]) for key in ("logsumexp", "entropy")]
        if a["next"]:
            pairs.append(("next", a["next"]["logprob"], b["next"]["logprob"]))
            other_ranks += a["next"]["rank"] != b["next"]["rank"]
        listed = [[e["logprob"] for e in row["token_ids"]] for row in (a, b)]
        pairs.append(("listed", *listed))
        for key, x, y in pairs:
            worst[key] = max(worst.get(key, 0.0), float(np.abs(np.array(x) - np.array(y)).max()))
    return worst, other_ranks


@pytest.fixture(scope="module")
def gemma_cut(tmp_path_factory, model_path):
    """Six layers of Gemma 3, of which one attends to all, and 5,000 tokens; a window that a short prompt leaves."""
    path = tmp_path_factory.mktemp("cut") / "gemma3.gguf"
    return cut_model.cut(model_path("gemma3"), path, 6, 5000, **{"attention.sliding_window": 16})


def test_a_cut_of_gemma_agrees_with_the_cpu(emulated, logitd, gemma_cut):
    """The real weights: Q4_K, Q5_0, Q6_K and Q8_0, heads of 256 features, windows and whole layers."""
    request = {"prompt": [2, *range(600, 4600, 200)], "token_ids": list(range(0, 5000, 97)), "top_n": 3}
    rows = {}
    for name, options in {"cpu": (), "exact": ("cuda",), "bf16": ("cuda", "--precision", "bf16")}.items():
        with Server(logitd, gemma_cut, "--ctx", 64, "--batch-tokens", 32, "--backend", *(options or ("cpu",))) as server:
            rows[name] = server.distribution(**request)["results"][0]["positions"]
    worst, other_ranks = worst_difference(rows["exact"], rows["cpu"])
    assert max(worst.values()) <= 3e-4 and other_ranks == 0, worst
    worst, _ = worst_difference(rows["bf16"], rows["cpu"])
    assert 1e-3 < max(worst.values()) <= BF16_BOUND, worst


def test_bf16_of_smollm2_is_within_its_bound(emulated, logitd, model_path):
    """Against float64; the bound is in the reply."""
    want = np.load(FIXTURES / "distribution_smollm2_code.npz")
    with Server(logitd, model_path("smollm2"), "--backend", "cuda", "--precision", "bf16", "--ctx", 64) as server:
        model = server.get("/model").json()
        reply = server.distribution(prompt=want["ids"][:16].tolist(), top_n=0)
    assert reply["numerics"]["precision"] == "bf16" and reply["numerics"]["logprob_bound"] == BF16_BOUND
    assert (model["precision"], model["logprob_bound"]) == ("bf16", BF16_BOUND)
    rows, at_one = reply["results"][0]["positions"], want["temperatures"].tolist().index(1.0)
    logsumexp = np.array([row["logsumexp"][0] for row in rows]) - want["logsumexp"][:16, at_one]
    logprob = np.array([row["next"]["logprob"][0] for row in rows[:-1]]) - want["next_logprob"][:15, at_one]
    assert np.abs(logprob).max() <= BF16_BOUND and np.abs(logsumexp).max() <= BF16_BOUND
    assert np.abs(logprob).max() > 1e-3, "nearer than bf16 can be"


@pytest.mark.parametrize("name", ["llama_mha", "llama_untied", "llama_kquants", pytest.param("smollm2", marks=pytest.mark.long)])
def test_bf16_is_what_its_model_computes(name, emulated, logitd, model_path, tmp_path):
    """One layer and the projection: floats, every format, the real weights. bf16_model.py says why one layer, and why at a
    few positions a rounding goes the other way."""
    whole = model_path(name) if name == "smollm2" else arch_models.write(name, tmp_path / "whole.gguf")
    model = cut_model.cut(whole, tmp_path / "model.gguf", 1, 1 << 20)  # all tokens
    ids = np.arange(100, 1000, 75)
    exact = forward64.Model(model)
    bf16 = bf16_model.Bf16Model(exact)
    logits = bf16.logits(bf16.hidden(ids))
    cost = np.abs(logits - exact.logits(exact.hidden(ids))).max(-1)
    with Server(logitd, model, "--backend", "cuda", "--precision", "bf16", "--ctx", 64) as server:
        reply = server.distribution(prompt=ids.tolist(), top_n="full", values="logit")
    kernels = np.array([row["full"][0] for row in reply["results"][0]["positions"]])
    apart = np.abs(kernels - logits).max(-1)
    assert cost.min() > 0.02
    # An arithmetic that differs anywhere differs at every position by about the cost.
    assert (apart <= 5e-5).mean() >= 1 / 3 and (apart <= cost / 2).all(), (apart, cost)


@pytest.mark.long
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_bf16_of_whole_texts_is_within_its_bound(name, model_path):
    exact = forward64.Model(model_path(name))
    for text in ("english", "code", "multilingual"):
        ids = np.load(FIXTURES / f"distribution_{name}_{text}.npz")["ids"]
        largest, _, divergence = bf16_model.differences(exact, ids)
        print(f"{name}, {text}: any log-probability {largest.max():.3f} nats at most, mean KL {divergence.mean():.2g}")
        assert largest.max() <= BF16_BOUND and 0 < divergence.mean() < 1e-3


@pytest.mark.parametrize(
    "precision, name, seed",
    [("exact", "llama_mha", 1), ("exact", "llama_kquants", 2), ("bf16", "llama_mha", 3), ("bf16", "llama_kquants", 4)],
)
def test_same_bits_in_any_batch(precision, name, seed, emulated, logitd, tmp_path):
    """Alone or beside others, cut into batches of 7 tokens or whole; warps run in another order for every seed."""
    emulated(LOGITD_EMU_SEED=seed)
    model = arch_models.write(name, tmp_path / "model.gguf")
    options = ("--backend", "cuda", "--precision", precision)
    ids = arch_models.prompt(name)
    request = {"temperatures": [0.7, 1], "top_n": 9, "token_ids": [3, 1000]}
    with Server(logitd, model, *options) as server:
        whole = results(server, prompt=ids, **request)
        company = server.distribution(prompt=[ids[:5], ids, ids[3:]], **request)["results"]
        company[1]["index"] = 0
        assert json.dumps([company[1]]) == whole
        full = server.distribution(prompt=ids, top_n="full", values="logit", positions=[-1])
        top = json.loads(whole)[0]["positions"][-1]["top"]
        row = full["results"][0]["positions"][0]["full"][0]
        assert [e["id"] for e in top] == sorted(range(len(row)), key=lambda i: (-row[i], i))[:9]
    with Server(logitd, model, *options, "--batch-tokens", 7) as server:
        assert results(server, prompt=ids, **request) == whole


def test_a_broken_device_ends_in_503(emulated, logitd, tiny):
    emulated(LOGITD_EMU_FAIL_LAUNCH=40)
    with Server(logitd, tiny, "--backend", "cuda") as server:
        for _ in range(2):
            reply = server.post("/distribution", {"prompt": [1, 2, 3]})
            assert reply.status == 503
            assert "the GPU (" in reply.json()["error"]["message"]
        health = server.get("/health")
        assert health.status == 503 and health.json()["status"] == "failed"
        assert "the GPU (" in health.json()["error"]["message"]


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"LOGITD_EMU_DEVICES": 0}, "no device"),
        ({"LOGITD_EMU_CAPABILITY": 75}, "compute capability 8.0 or more"),
        ({"LOGITD_EMU_DRIVER_VERSION": 10020}, "it is of CUDA 10.2, and 11.0 or newer is needed"),
    ],
)
def test_no_usable_device(settings, sentence, emulated, logitd, tiny):
    emulated(**settings)
    command = [logitd, "score", "--model", tiny, "--format", "json"]
    done = subprocess.run([*command, "--backend", "cuda"], input="a b", capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    done = subprocess.run(command, input="a b", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["numerics"]["backend"] == "cpu"  # auto goes on without


def test_too_little_memory_says_how_much(emulated, logitd, model_path):
    """All that the limits allow is taken at start: weights, KV cache, buffers, and statistics of the largest batch."""
    command = [logitd, "score", "--model", model_path("smollm2"), "--backend", "cuda", "--ctx", "64"]

    def run(megabytes):
        emulated(LOGITD_EMU_MEMORY_MB=megabytes)
        done = subprocess.run(command, input="a b", capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    status, said = run(4096)
    assert status == 0
    whole, statistics = map(float, re.search(r"holds ([0-9.]+) MB: .* and ([0-9.]+) MB for statistics", said).groups())
    # 16 MB: more than what the projection needs beside its statistics, less than any of these.
    for megabytes, what in ((64, "tensor "), ((whole - statistics - 16) / 1.048576, ""),
                            ((whole - 16) / 1.048576, "the statistics of a batch")):
        status, said = run(int(megabytes))
        assert status == 1
        assert re.search(rf"has no memory for {what}[^:]*: [0-9.]+ MB wanted, [0-9.]+ of {int(megabytes) * 1.048576:.1f} MB free",
                         said), said


def loads_on_a_terminal(command):
    """What a program writes to a terminal as its stderr, and its exit status. It is stopped for a while as soon as it
    loads, so that any machine takes the half second from which on a load is shown."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=theirs) as program:
        os.close(theirs)
        time.sleep(0.1)
        program.send_signal(signal.SIGSTOP)
        time.sleep(0.6)
        program.send_signal(signal.SIGCONT)
        said = b""
        with contextlib.suppress(OSError):  # EIO: the terminal's other end is closed
            while piece := os.read(ours, 4096):
                said += piece
        os.close(ours)
    return said.decode(), program.returncode


def test_the_upload_shows_a_bar_and_a_kv_cache_too_large_its_size(emulated, logitd, model_path):
    emulated(LOGITD_EMU_MEMORY_MB=600)
    command = [logitd, "score", "--model", model_path("gemma3"), "--backend", "cuda", "--kv-tokens", "200000"]
    said, status = loads_on_a_terminal(command)
    assert status == 1
    bars = re.findall(r"\r\033\[K\[(#*)(\.*)\] preparing the weights, (\d+) %", said)
    shares = [int(percent) for *_, percent in bars]
    assert shares == sorted(shares) and 0 < shares[0] and shares[-1] <= 60, said  # the vocabulary is the rest
    assert all(len(done) + len(left) == 40 and abs(len(done) - percent * 0.4) <= 1
               for (done, left, _), percent in zip(bars, shares, strict=True)), said
    # What is said at the end takes the bar's place. The cache is 200,000 keys and values of 18 layers with one head of 256
    # features, f32; what failed was the keys or the values of a layer, in whole blocks of tokens.
    end = said[said.rindex(" %") + 2 :]
    megabytes = 200_000 * 256 * 2 * 4 / 1e6
    found = re.match(r"\r\033\[K[-0-9:. ]+ error: the GPU \(.*\) has no memory for a layer's KV cache: ([0-9.]+) MB wanted, "
                     r"([0-9.]+) of 629.1 MB free\r\n", end)
    assert found, said
    assert megabytes / 2 <= float(found[1]) <= 1.01 * megabytes / 2 and float(found[2]) < float(found[1])
    assert end[found.end() :].startswith(
        "\r\033[Klogitd: there is no memory for the working buffers of 512 tokens and a KV cache of 200000, which takes "
        f"{18 * megabytes:.1f} MB; make --kv-tokens, --ctx or --batch-tokens smaller\r\n"), said


@pytest.mark.parametrize("seed", [1, 2])
def test_full_rows_come_back_while_others_are_made(seed, emulated, logitd, tiny):
    """Rows are made 16 at a time on one stream and copied on another: in any order that their events allow, each is
    what it is alone."""
    emulated(LOGITD_EMU_SEED=seed)
    ids = arch_models.prompt("llama_mha")
    request = {"prompt": ids * 2, "top_n": "full", "values": "logit", "stats": False}
    with Server(logitd, tiny, "--backend", "cuda") as server:
        rows = [p["full"] for p in server.distribution(**request)["results"][0]["positions"]]
        assert len(rows) > 32  # several parts
        for i in (0, 15, 16, 31, len(rows) - 1):
            alone = server.distribution(**request | {"positions": [i]})
            assert alone["results"][0]["positions"][0]["full"] == rows[i], i


def test_other_precisions_are_refused(emulated, logitd, tiny):
    command = [logitd, "score", "--model", tiny, "--backend", "cuda", "--precision", "fast"]
    done = subprocess.run(command, input="a b", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'no precision "fast"; it offers exact and bf16' in done.stderr
