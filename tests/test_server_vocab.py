"""GET /vocab: every id's text and bytes, the same in JSON and safetensors, and as /tokenize and /detokenize say them."""

import gzip
import json

import numpy as np
import pytest
from safetensors.numpy import load
from serving import Server
from test_server_errors import error_of

MEDIA_TYPE = "application/vnd.safetensors"


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def vocab_server(request, logitd, model_path):
    with Server(logitd, model_path(request.param)) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(vocab_server):
    reply = vocab_server.get("/vocab")
    assert reply.status == 200 and reply.headers["Content-Type"] == "application/json"
    vocab = reply.json()
    assert set(vocab) == {"object", "model", "tokens"} and vocab["object"] == "vocab"
    assert vocab["model"] == vocab_server.distribution(prompt="a", top_n=0)["model"]
    return vocab["tokens"]


def test_every_id_is_there(vocab_server, tokens):
    n_vocab = vocab_server.get("/model").json()["n_vocab"]
    assert [token["id"] for token in tokens] == list(range(n_vocab))
    assert all(set(token) == {"id", "text", "bytes"} for token in tokens)
    for token in tokens:
        assert token["text"] == bytes(token["bytes"]).decode(errors="replace")
    assert any("�" in token["text"] for token in tokens)


def test_it_agrees_with_the_other_routes(vocab_server, tokens):
    for token in vocab_server.post("/tokenize", {"text": "The cat — 猫 𓀀\n"}).json()["tokens"]:
        assert token == tokens[token["id"]]
    ids = list(range(0, len(tokens), len(tokens) // 50))
    for i in ids:
        assert vocab_server.post("/detokenize", {"ids": [i]}).json()["bytes"] == tokens[i]["bytes"]
    for token in vocab_server.distribution(prompt="The")["results"][0]["positions"][0]["top"]:
        assert token["text"] == tokens[token["id"]]["text"]


def test_safetensors(vocab_server, tokens):
    reply = vocab_server.get("/vocab", {"Accept": MEDIA_TYPE})
    assert reply.status == 200 and reply.headers["Content-Type"] == MEDIA_TYPE
    assert int(reply.headers["Content-Length"]) == len(reply.body)
    arrays = load(reply.body)
    assert set(arrays) == {"bytes", "bytes_offsets", "text", "text_offsets", "control"}
    for name in ("bytes", "text"):
        data, offsets = arrays[name].tobytes(), arrays[f"{name}_offsets"]
        assert arrays[name].dtype == np.uint8 and offsets.dtype == np.int64
        assert offsets.shape == (len(tokens) + 1,) and offsets[0] == 0 and offsets[-1] == len(data)
        for i, token in enumerate(tokens):
            piece = data[offsets[i] : offsets[i + 1]]
            assert piece == (bytes(token["bytes"]) if name == "bytes" else token["text"].encode())


def test_control_tokens_are_those_read_only_where_asked(vocab_server, tokens):
    """A control token's name is that token in text only with `special`."""
    arrays = load(vocab_server.get("/vocab?format=safetensors").body)
    control = arrays["control"]
    assert control.dtype == np.uint8 and control.shape == (len(tokens),) and set(control.tolist()) == {0, 1}
    encode = lambda text, special: [  # noqa: E731
        t["id"] for t in vocab_server.post("/tokenize", {"text": text, "special": special, "add_bos": False}).json()["tokens"]]
    for i in np.flatnonzero(control)[:8].tolist():
        assert encode(tokens[i]["text"], True) == [i] and encode(tokens[i]["text"], False) != [i]
    for i in (500, 1000, len(tokens) // 2):
        assert not control[i]


def test_the_query_wins_over_accept(server):
    plain = server.get("/vocab", {"Accept": MEDIA_TYPE})
    assert server.get("/vocab?format=safetensors").body == plain.body
    assert server.get("/vocab?format=json", {"Accept": MEDIA_TYPE}).headers["Content-Type"] == "application/json"
    coded = server.get("/vocab", {"Accept-Encoding": "gzip"})
    assert json.loads(gzip.decompress(coded.body)) == server.get("/vocab").json()


@pytest.mark.parametrize("query", ["format=ndjson", "format=xml", "format=", "format"])
def test_other_formats_are_refused(server, query):
    error = error_of(server.get(f"/vocab?{query}"), 400)
    assert error["param"] == "format" and '"json" or "safetensors"' in error["message"]


def test_other_types_get_json(server):
    assert server.get("/vocab", {"Accept": "application/x-ndjson"}).headers["Content-Type"] == "application/json"


def test_head(server):
    reply = server.request("HEAD", "/vocab")
    assert reply.status == 200 and reply.body == b""
