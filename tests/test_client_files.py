"""Distributions of the Python client in files, DataFrames and Datasets: everything comes back, bit for bit."""

import logitd
import numpy as np
import pandas as pd
import pytest
import safetensors

TEXT = "naïve 𓀀\n<|im_start|>"
T = [0.5, 1.0]
REQUESTS = {
    "top": {"temperatures": T, "token_ids": [9, 9, 2]},
    "logits": {"temperatures": T, "values": "logit", "top_n": 3},
    "full": {"temperatures": T, "top_n": "full", "dtype": "float16", "positions": [2, 0, 2]},
    "ids only": {"stats": False, "top_n": 0},
    "no positions": {"positions": []},
}


@pytest.fixture(scope="module", params=REQUESTS.values(), ids=REQUESTS)
def dist(server, request):
    with logitd.Client(server.url) as client:
        return client.distribution(TEXT, special=True, **request.param)


@pytest.mark.parametrize("ending", ["safetensors", "npz", "parquet"])
def test_saved_and_loaded(dist, ending, tmp_path):
    path = tmp_path / f"saved.{ending}"
    dist.save(path)
    again = logitd.load(path)
    assert set(again.arrays) == set(dist.arrays)
    for name, array in dist.arrays.items():
        assert again.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(again.arrays[name], array)
    np.testing.assert_array_equal(again.temperatures, dist.temperatures)
    assert (again.values, again.model, again.numerics) == (dist.values, dist.model, dist.numerics)
    assert again.tokens == dist.tokens and again.vocab.n_vocab == dist.vocab.n_vocab
    if "next_logprob" in dist.arrays:
        np.testing.assert_equal(again.summary, dist.summary)
    if len(dist) and ("top_id" in dist.arrays or "logprob" in dist.arrays):
        assert again.top(2) == dist.top(2)


def test_files_that_are_none(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", a=np.zeros(1))
    for ending in ("parquet", "safetensors", "npz"):
        with pytest.raises(logitd.LogitdError, match=rf"x.{ending} was not written by Distribution.save"):
            logitd.load(tmp_path / f"x.{ending}")
    with pytest.raises(logitd.LogitdError, match=r"must end with .safetensors, .npz or .parquet"):
        logitd.load("x.csv")


def test_parquet_is_readable_by_others(server, tmp_path):
    with logitd.Client(server.url) as client:
        dist = client.distribution("The cat sat", temperatures=T, top_n=2)
    dist.save(tmp_path / "x.parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert frame["token"].tolist() == ["The", " cat", " sat"] and frame["next"].tolist() [:2] == [" cat", " sat"] and pd.isna(frame["next"].iloc[2])
    assert frame["positions"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(np.stack(frame["entropy"]), dist.entropy)


def test_pandas(server):
    with logitd.Client(server.url) as client:
        dist = client.distribution("The cat sat", temperatures=T, top_n=2)
        logits = client.distribution("The cat", values="logit", top_n="full", positions="last")
    frame = dist.to_pandas()
    assert len(frame) == 6 and frame["temperature"].tolist() == T * 3
    row = frame[(frame["position"] == 1) & (frame["temperature"] == 1.0)].iloc[0]
    assert (row["token"], row["next"], row["next_rank"]) == (" cat", " sat", dist.next_rank[1])
    assert row["surprisal"] == dist.surprisal[1, 1] and row["entropy"] == dist.entropy[1, 1]
    assert np.isnan(frame["surprisal"].iloc[-1]) and pd.isna(frame["next"].iloc[-1])
    entries = dist.to_pandas(entries=True)
    assert len(entries) == 3 * 2 * 2
    one = entries[(entries["position"] == 2) & (entries["temperature"] == 0.5)]
    assert one["id"].tolist() == dist.top_id[2].tolist() and one["text"].tolist() == dist.vocab.texts(dist.top_id[2])
    assert one["logprob"].tolist() == dist.top_logprob[2, 0].tolist()
    full = logits.to_pandas(entries=True)
    assert full["id"].tolist() == list(range(49152)) and "temperature" not in full
    np.testing.assert_array_equal(full["logit"].to_numpy(), logits.logit[0])


def test_xarray(server):
    with logitd.Client(server.url) as client:
        dist = client.distribution("The cat sat", temperatures=T, top_n=2, token_ids=[7, 8], positions=[1, 2])
        logits = client.distribution("The cat", values="logit", top_n="full")
    data = dist.to_xarray()
    assert data["entropy"].sel(position=2, temperature=0.5).item() == dist.entropy[1, 0]
    assert data["listed_logprob"].sel(position=1, temperature=1.0, listed=8).item() == dist.listed_logprob[0, 1, 1]
    assert data["top_logprob"].dims == ("position", "temperature", "order") and data.attrs["values"] == "logprob"
    assert data["token_text"].values.tolist() == ["The", " cat", " sat"]
    assert logits.to_xarray()["logit"].dims == ("position", "vocab")
