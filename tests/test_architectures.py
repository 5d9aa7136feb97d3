"""Every architecture and option that logitd claims, on small random models, against float64.

The models are made here by tests/oracle/arch_models.py; expected logits are tests/fixtures/arch_logits.npz, on which
transformers, a numpy forward pass and llama.cpp agree (make_arch_fixtures.py). Where torch is installed the oracle also
says that the models made here are those of the fixture.
"""

import pathlib

import arch_models
import gguf
import numpy as np
import pytest
import stats
from serving import Server

FIXTURE = np.load(pathlib.Path(__file__).resolve().parent / "fixtures" / "arch_logits.npz")
TEMPERATURES = [0.5, 1.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("arch")


def expected(name):
    """(positions, ids, logits [P, K] float64, logsumexp [P]) of a variant."""
    return [FIXTURE[f"{name}.{key}"] for key in ("positions", "ids", "logits", "logsumexp")]


@pytest.mark.parametrize("name", arch_models.VARIANTS)
def test_server_agrees_with_the_oracle(name, folder, logitd):
    v = arch_models.VARIANTS[name]
    positions, ids, logits, logsumexp = expected(name)
    request = {"prompt": arch_models.prompt(name), "positions": positions.tolist(), "token_ids": ids.tolist(), "top_n": 3}
    with Server(logitd, arch_models.write(name, folder / f"{name}.gguf"), "--threads", 2) as server:
        plain = server.distribution(**request, values="logit")
        tempered = server.distribution(**request, temperatures=TEMPERATURES)
        full = server.distribution(**request | {"top_n": "full", "positions": [-1]})
    assert plain["model"]["architecture"] == v.arch
    assert plain["model"]["n_vocab"] == v.n_vocab
    rows = plain["results"][0]["positions"]
    assert [row["position"] for row in rows] == positions.tolist()

    worst = stats.Worst("logit"), stats.Worst("logsumexp"), stats.Worst("logprob")

    def where(i):
        return f"position {positions[i // len(ids)]}, token {ids[i % len(ids)]}"

    got = [[entry["logit"] for entry in row["token_ids"]] for row in rows]
    worst[0].add(got, logits, stats.logit_bound(), where)
    worst[1].add([row["logsumexp"][0] for row in rows], logsumexp, stats.bound(1), lambda i: f"position {positions[i]}")
    tempered = tempered["results"][0]["positions"]
    got = np.array([[entry["logprob"] for entry in row["token_ids"]] for row in tempered])
    worst[2].add(got[..., 1], logits - logsumexp[:, None], stats.bound(1), where)
    assert all(w.ok() for w in worst), "\n".join(map(str, worst))
    # What T = 0.5 says is what T = 1 says, sharpened: differences of log-probabilities double.
    half = got[..., 0] - got[..., :1, 0]
    assert np.abs(half - 2 * (got[..., 1] - got[..., :1, 1])).max() <= 2 * stats.bound(0.5)

    row = np.array(full["results"][0]["positions"][0]["full"][0], dtype=float)
    assert row.shape == (v.n_vocab,)
    assert abs(np.exp(row).sum() - 1) <= 1e-5


def test_weights_that_give_no_number_end_in_an_error(folder, logitd):
    path = folder / "not_finite.gguf"
    arch_models.write("llama_mha", path)  # f32, tied: one token's embedding is one column of the logits
    prompt, poisoned = arch_models.prompt("llama_mha")[:5], 1000
    assert poisoned not in prompt
    tensors = {t.name: t.data for t in gguf.GGUFReader(path, "r+").tensors}
    tensors["token_embd.weight"].view(np.float32).reshape(1024, 128)[poisoned] = np.nan
    with Server(logitd, path, "--threads", 2) as server:
        for asked in ({}, {"top_n": "full"}, {"top_n": "full", "format": "safetensors"}, {"top_n": "full", "format": "ndjson"}):
            reply = server.post("/distribution", {"prompt": prompt, "positions": [2, 3], **asked})
            assert reply.status == 500, asked
            assert "weights gave logits that are not finite numbers, at position 2" in reply.json()["error"]["message"]
        assert server.get("/health").json()["status"] == "ok"


@pytest.mark.parametrize("name", arch_models.VARIANTS)
def test_fixture_is_of_these_models(name, folder):
    oracle = pytest.importorskip("oracle", reason="torch and transformers are not installed", exc_type=ImportError)
    positions, ids, logits, logsumexp = expected(name)
    model = oracle.Oracle(arch_models.write(name, folder / f"{name}_again.gguf"))
    live = model.logits(model.hidden(arch_models.prompt(name)))[positions]
    assert np.abs(live[:, ids] - logits).max() <= 1e-9
    assert np.abs(live.max(-1) + stats.log_normalizer(live, 1.0) - logsumexp).max() <= 1e-9


def test_oracle_refuses_narrow_floats():
    """The assertion behind every expected number: requests for float32 are widened, results in float32 raise."""
    oracle = pytest.importorskip("oracle", reason="torch and transformers are not installed", exc_type=ImportError)
    torch = oracle.torch
    single = torch.ones(3, dtype=torch.float32)
    with oracle.float64_only():
        x = torch.ones(3)
        for widened in (x.float(), x.to(torch.float32), x.softmax(-1, dtype=torch.float32), torch.arange(3).float(),
                        torch.zeros(3, dtype=torch.half), torch.nn.functional.softmax(x, dim=-1, dtype=torch.float)):
            assert widened.dtype == torch.float64
        with pytest.raises(oracle.NarrowFloatError, match="float32"):
            single + 1
