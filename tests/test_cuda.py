"""The CUDA backend through the server, on the emulated driver of tests/cuda_emu: a build with nvcc makes both.

The emulated driver executes the very PTX that the program embeds and fails a launch at the first wrong access, so these
tests say what the kernels compute, never how fast.
"""

import json
import os
import subprocess

import arch_models
import pytest
import test_architectures
from serving import Server

# One of each architecture, and what is rare: untied, odd heads, every K format, RoPE scaling, windows, soft caps.
VARIANTS = ["llama_untied", "llama_head80", "llama_kquants", "llama_yarn", "gemma3_softcap", "qwen2", "qwen3", "gpt2"]
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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return arch_models.write("llama_mha", tmp_path_factory.mktemp("cuda") / "tiny.gguf")


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


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_same_bits_in_any_batch(seed, emulated, logitd, tiny):
    """Alone or beside others, cut into batches of 7 tokens or whole; warps run in another order for every seed."""
    emulated(LOGITD_EMU_SEED=seed)
    ids = arch_models.prompt("llama_mha")
    request = {"temperatures": [0.7, 1], "top_n": 9, "token_ids": [3, 1000]}
    with Server(logitd, tiny, "--backend", "cuda") as server:
        whole = results(server, prompt=ids, **request)
        company = server.distribution(prompt=[ids[:5], ids, ids[3:]], **request)["results"]
        company[1]["index"] = 0
        assert json.dumps([company[1]]) == whole
        full = server.distribution(prompt=ids, top_n="full", values="logit", positions=[-1])
        top = json.loads(whole)[0]["positions"][-1]["top"]
        row = full["results"][0]["positions"][0]["full"][0]
        assert [e["id"] for e in top] == sorted(range(len(row)), key=lambda i: (-row[i], i))[:9]
    with Server(logitd, tiny, "--backend", "cuda", "--batch-tokens", 7) as server:
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
    emulated(LOGITD_EMU_MEMORY_MB=64)
    command = [logitd, "score", "--model", model_path("smollm2"), "--backend", "cuda"]
    done = subprocess.run(command, input="a b", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has no memory for tensor " in done.stderr and " MB wanted, " in done.stderr and " MB free" in done.stderr


def test_other_precisions_are_refused(emulated, logitd, tiny):
    command = [logitd, "score", "--model", tiny, "--backend", "cuda", "--precision", "bf16"]
    done = subprocess.run(command, input="a b", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'no precision "bf16"; it offers exact' in done.stderr
