"""safetensors replies: every tensor of openapi.json with its dtype and shape, the bits of the JSON reply, an exact
Content-Length, float16, replies that stream at the pace of their reader, and those that are refused for their size.
"""

import http.client
import json
import socket
import time

import numpy as np
import pytest
import safetensors
import stats
from safetensors.numpy import load
from serving import Server, request_bytes, wait_until

TEXT = "The cat — «naïve» 𓀀 sat.\n"
T = [0.5, 1.0, 2.0]
MEDIA_TYPE = "application/vnd.safetensors"


def tensors_of(reply):
    """The tensors of a reply and its metadata, each value read as the JSON that it is."""
    assert reply.status == 200, reply.body[:300]
    assert reply.headers["Content-Type"] == MEDIA_TYPE
    assert int(reply.headers["Content-Length"]) == len(reply.body) and "Transfer-Encoding" not in reply.headers
    size = int.from_bytes(reply.body[:8], "little")
    assert size % 8 == 0
    metadata = json.loads(reply.body[8 : 8 + size])["__metadata__"]
    return load(reply.body), {k: json.loads(v) for k, v in metadata.items()}


def ask(server, **body):
    return tensors_of(server.post("/distribution", {"format": "safetensors", **body}))


def float32(values):
    """JSON's numbers, which are the shortest decimals of float32s; null is NaN here."""
    return np.array(values, dtype=np.float64).astype(np.float32)


def assert_same(got, wanted, shape):
    assert got.shape == tuple(shape) and got.dtype == wanted.dtype
    np.testing.assert_array_equal(got.reshape(-1), wanted.reshape(-1))


def check_prompt(tensors, result, i, values, n_listed, n_top):
    """Every tensor of prompt i, apart from the full one, against the JSON result with the same fields."""
    rows = result["positions"]
    n, n_t = len(rows), len(T)
    entry_shape = lambda width: [n, width] if values == "logit" else [n, n_t, width]  # noqa: E731
    entries = lambda key: float32([np.array([e[values] for e in row[key]]).T for row in rows])  # noqa: E731
    get = lambda name: tensors[f"prompt.{i}.{name}"]  # noqa: E731
    names = {"tokens", "offsets", "positions", "logsumexp", "entropy", "varentropy", "next_logprob", "next_rank"}
    assert_same(get("tokens"), np.array([t["id"] for t in result["tokens"]], np.int32), [len(result["tokens"])])
    assert_same(get("offsets"), np.array([t["offset"] for t in result["tokens"]], np.int32), [len(result["tokens"])])
    assert_same(get("positions"), np.array([row["position"] for row in rows], np.int32), [n])
    for name in ("logsumexp", "entropy", "varentropy"):
        assert_same(get(name), float32([row[name] for row in rows]), [n, n_t])
    nexts = [row["next"] or {"rank": -1, "logprob": [np.nan] * n_t} for row in rows]
    assert_same(get("next_rank"), np.array([e["rank"] for e in nexts], np.int32), [n])
    assert_same(get("next_logprob"), float32([e["logprob"] for e in nexts]), [n, n_t])
    if n_top:
        names |= {"top_id", f"top_{values}"}
        assert_same(get("top_id"), np.array([[e["id"] for e in row["top"]] for row in rows], np.int32), [n, n_top])
        assert_same(get(f"top_{values}"), entries("top"), entry_shape(n_top))
    if n_listed:
        names |= {f"listed_{values}"}
        assert_same(get(f"listed_{values}"), entries("token_ids"), entry_shape(n_listed))
    assert {name.split(".", 2)[2] for name in tensors if name.startswith(f"prompt.{i}.")} == names


@pytest.mark.parametrize("values", ["logprob", "prob", "logit"])
@pytest.mark.parametrize("n_top, listed", [(5, [0, 7, 7]), (5, []), (0, [7]), (0, [])])
def test_entries_are_the_jsons(server, values, n_top, listed):
    body = {"prompt": [TEXT, "x"], "temperatures": T, "values": values, "top_n": n_top, "token_ids": listed}
    tensors, metadata = ask(server, **body)
    as_json = server.distribution(**body)
    for i, result in enumerate(as_json["results"]):
        check_prompt(tensors, result, i, values, len(listed), n_top)
    assert metadata == {key: as_json[key] for key in ("model", "numerics", "temperatures", "usage")}
    assert np.isnan(tensors["prompt.0.next_logprob"][-1]).all() and tensors["prompt.0.next_rank"][-1] == -1
    assert np.isfinite(tensors["prompt.0.next_logprob"][:-1]).all()


@pytest.mark.parametrize("values", ["logprob", "prob", "logit"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_full(server, values, dtype):
    body = {"prompt": [TEXT, "x y"], "temperatures": T, "values": values, "top_n": "full", "positions": [1, 0, 1]}
    tensors, _ = ask(server, **body, dtype=dtype)
    for i, result in enumerate(server.distribution(**body)["results"]):
        got = tensors.pop(f"prompt.{i}.{values}")
        wanted = float32([row["full"] for row in result["positions"]]).astype(dtype)
        assert_same(got, wanted, [3, 49152] if values == "logit" else [3, 3, 49152])
        assert f"prompt.{i}.top_id" not in tensors
    assert {name.split(".")[2] for name in tensors} == {
        "tokens", "offsets", "positions", "logsumexp", "entropy", "varentropy", "next_logprob", "next_rank"}  # fmt: skip


def test_every_temperature_to_the_rounding_of_floats(server):
    """32 temperatures from bound to bound: what float64 makes of the logits that the server gives. The bound of exact is 0.3
    nats at T = 0.001; the way from logits to numbers has no more than float32's rounding."""
    temperatures, listed = np.geomspace(0.001, 1000, 32).tolist(), [0, 49151, 7, 7]
    logits = ask(server, prompt=TEXT, values="logit", top_n="full")[0]["prompt.0.logit"].astype(np.float64)
    got, _ = ask(server, prompt=TEXT, temperatures=temperatures, top_n=1024, token_ids=listed)
    probs, _ = ask(server, prompt=TEXT, temperatures=temperatures, top_n=1024, token_ids=listed, values="prob")
    ids, following = got["prompt.0.top_id"], got["prompt.0.tokens"][1:, None]
    assert (ids == np.argsort(-logits, axis=1, kind="stable")[:, :1024]).all()
    close = lambda number, wanted: np.testing.assert_allclose(number, wanted, rtol=1e-6, atol=2e-6)  # noqa: E731
    for k, t in enumerate(temperatures):
        logsumexp, entropy, varentropy = stats.statistics(logits, t)
        logprobs = stats.logprobs(logits, t)
        close(got["prompt.0.logsumexp"][:, k], logsumexp)
        close(got["prompt.0.entropy"][:, k], entropy)
        np.testing.assert_allclose(got["prompt.0.varentropy"][:, k], varentropy, rtol=1e-5, atol=1e-8)
        close(got["prompt.0.next_logprob"][:-1, k], np.take_along_axis(logprobs[:-1], following, 1)[:, 0])
        for name, wanted in (("top", np.take_along_axis(logprobs, ids, 1)), ("listed", logprobs[:, listed])):
            close(got[f"prompt.0.{name}_logprob"][:, k], wanted)
            close(probs[f"prompt.0.{name}_prob"][:, k], np.exp(wanted))


def test_float16_is_of_the_big_values(server):
    body = {"prompt": TEXT, "temperatures": [0.001, 1], "top_n": 5, "token_ids": [1, 2]}
    wide, narrow = ask(server, **body)[0], ask(server, **body, dtype="float16")[0]
    assert set(wide) == set(narrow)
    for name, values in wide.items():
        if "top_logprob" in name or "listed_logprob" in name:
            with np.errstate(over="ignore"):
                np.testing.assert_array_equal(narrow[name], values.astype(np.float16))
            assert narrow[name].dtype == np.float16
            fits = (np.abs(values) >= 2.0**-14) & (np.abs(values) < 65504)
            error = np.abs(narrow[name][fits].astype(np.float64) - values[fits])
            assert fits.any() and (error <= 2.0**-11 * np.abs(values[fits])).all()
        else:
            assert narrow[name].dtype == values.dtype
            np.testing.assert_array_equal(narrow[name], values)


def test_what_is_not_asked_is_left_out(server):
    tensors, _ = ask(server, prompt="The cat", stats=False, top_n=0)
    assert set(tensors) == {"prompt.0.tokens", "prompt.0.offsets", "prompt.0.positions"}
    tensors, metadata = ask(server, prompt=["The cat", "x"], positions=[], top_n=2)
    assert tensors["prompt.0.positions"].shape == (0,) and tensors["prompt.1.top_logprob"].shape == (0, 1, 2)
    assert tensors["prompt.0.tokens"].tolist() == [504, 2644] and metadata["usage"] == {"prompt_tokens": 3, "positions": 0}


def test_offsets(server):
    """-1 for a BOS, and none at all where prompts are ids."""
    tensors, _ = ask(server, prompt=["aé b", "x"], add_bos=True, top_n=0, stats=False)
    assert tensors["prompt.0.offsets"].dtype == np.int32 and tensors["prompt.1.offsets"].tolist() == [-1, 0]
    wanted = server.distribution(prompt="aé b", add_bos=True, top_n=0)["results"][0]["tokens"]
    assert tensors["prompt.0.offsets"].tolist() == [-1] + [token["offset"] for token in wanted[1:]]
    assert wanted[0]["offset"] is None and wanted[-1]["offset"] == 3
    tensors, _ = ask(server, prompt=[504, 2644], top_n=0, stats=False)
    assert set(tensors) == {"prompt.0.tokens", "prompt.0.positions"}


def test_order_of_the_file(server, tmp_path):
    """The full tensor of a prompt comes before its others; the file is one that safe_open takes too."""
    reply = server.post("/distribution", {"prompt": ["a b", "c"], "top_n": "full", "format": "safetensors"})
    size = int.from_bytes(reply.body[:8], "little")
    head = json.loads(reply.body[8 : 8 + size])
    del head["__metadata__"]
    order = sorted(head, key=lambda name: head[name]["data_offsets"])
    assert order[0] == "prompt.0.logprob" and order[8 + 1] == "prompt.1.logprob" and list(head) == order
    (tmp_path / "reply.safetensors").write_bytes(reply.body)
    with safetensors.safe_open(tmp_path / "reply.safetensors", "numpy") as file:
        assert set(file.keys()) == set(order) and json.loads(file.metadata()["temperatures"]) == [1]
        np.testing.assert_array_equal(file.get_tensor("prompt.1.tokens"), load(reply.body)["prompt.1.tokens"])


def test_accept(server):
    body = {"prompt": "a", "top_n": 1}
    reply = server.post("/distribution", body, {"Accept": f"application/json;q=0.5, {MEDIA_TYPE}"})
    assert load(reply.body)["prompt.0.top_id"].shape == (1, 1)
    assert server.post("/distribution", {**body, "format": "json"}, {"Accept": MEDIA_TYPE}).json()["results"]


def test_the_same_bytes_again(server):
    body = {"prompt": [TEXT, TEXT * 3], "temperatures": T, "format": "safetensors", "top_n": "full", "positions": [2, 3]}
    first, second = server.post("/distribution", body).body, server.post("/distribution", body).body
    assert first == second


# ------------------------------------------------------------------------------------------ one tiny model from here on

LONG = "The quick brown fox jumps over the lazy dog. " * 5


@pytest.fixture(scope="module")
def one_token_steps(logitd, tiny):
    """A token a step."""
    with Server(logitd, tiny, "--batch-tokens", 1) as running:
        yield running


def open_reply(server, body, receive_bytes=None):
    """The status and headers of a reply that is not read yet, and its socket."""
    host, port = server.netloc.split(":")
    s = socket.socket()
    if receive_bytes:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    s.settimeout(600)
    s.connect((host, int(port)))
    s.sendall(request_bytes({"format": "safetensors", **body}))
    reply = http.client.HTTPResponse(s)
    reply.begin()
    return s, reply


def test_a_full_reply_comes_as_it_is_computed(one_token_steps):
    """The head and the first rows are there while most rows are not computed yet; and they are the rows."""
    n_tokens = len(one_token_steps.post("/tokenize", {"text": LONG}).json()["tokens"])
    before = one_token_steps.get("/health").json()["tokens"]
    n_prompts = 900  # half a minute of them; nobody waits for their end
    s, reply = open_reply(one_token_steps, {"prompt": [LONG] * n_prompts, "top_n": "full"})
    with s, reply:
        size = int.from_bytes(reply.read(8), "little")
        reply.read(size)
        rows = reply.read(4 * 4096)
        assert one_token_steps.get("/health").json()["tokens"] - before < n_prompts * n_tokens / 2
    body = {"prompt": LONG, "top_n": "full"}
    whole = one_token_steps.post("/distribution", {**body, "format": "safetensors"}).body
    assert whole[8 + int.from_bytes(whole[:8], "little") :].startswith(rows)
    s, reply = open_reply(one_token_steps, body)
    with s:
        assert reply.read() == whole and len(whole) == int(reply.headers["Content-Length"])


def test_a_slow_reader_gets_every_byte(one_token_steps):
    """Little is made ahead of a reader that takes a little at a time, and it gets the same bytes."""
    body = {"prompt": [LONG] * 4, "top_n": "full", "temperatures": [1.0, 0.5] * 8}
    wanted = one_token_steps.post("/distribution", {**body, "format": "safetensors"}).body
    before = one_token_steps.get("/health").json()["full_rows"]
    s, reply = open_reply(one_token_steps, body, receive_bytes=1 << 14)
    with s:
        assert int(reply.headers["Content-Length"]) == len(wanted) > 30_000_000
        data = reply.read(100_000)
        time.sleep(0.3)
        assert one_token_steps.get("/health").json()["full_rows"] - before <= 4 * 32
        while piece := reply.read(1 << 20):
            data += piece
            time.sleep(0.005)
    assert data == wanted


def test_a_client_that_leaves_midway_leaves_nothing_behind(one_token_steps):
    for read in (0, 10_000, 3_000_000):
        s, reply = open_reply(one_token_steps, {"prompt": [LONG] * 20, "top_n": "full", "temperatures": [1.0] * 8})
        with s, reply:  # both hold the socket open
            assert len(reply.read(read)) == read
        wait_until(lambda: one_token_steps.get("/health").json()["jobs"]["held"] == 0)
    assert one_token_steps.distribution(prompt="still there", top_n=1)


def test_a_reply_that_cannot_be_completed_is_cut_short(start_server, tiny):
    """Its announced length is how a reader knows."""
    server = start_server(tiny, "--batch-tokens", 1, "--drain-seconds", 1, "--max-stall-s", 3600)
    s, reply = open_reply(server, {"prompt": [LONG] * 100, "top_n": "full", "temperatures": [1.0] * 32}, 1 << 14)
    with s, reply:
        assert len(reply.read(100_000)) == 100_000
        server.process.terminate()
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            reply.read()
    assert server.process.wait(600) == 0


def test_many_prompts_at_once(one_token_steps):
    prompts = [[i % 1000, 5, 7][: 1 + i % 3] for i in range(300)]
    tensors, metadata = ask(one_token_steps, prompt=prompts, top_n=2)
    assert metadata["usage"] == {"prompt_tokens": 600, "positions": 600}
    results = one_token_steps.distribution(prompt=prompts, top_n=2)["results"]
    for i, result in enumerate(results):
        assert tensors[f"prompt.{i}.tokens"].tolist() == prompts[i]
        assert tensors[f"prompt.{i}.top_id"].tolist() == [[e["id"] for e in row["top"]] for row in result["positions"]]


def test_too_large_replies_are_refused_with_their_size(server):
    """Two prompts of the whole context at 32 temperatures: more than 64 GiB."""
    body = {"prompt": [[1] * 8192, [2] * 8192], "top_n": "full", "temperatures": [1] * 32}
    limit = server.get("/model").json()["limits"]["reply_bytes"]
    reply = server.post("/distribution", {**body, "format": "safetensors"})
    assert reply.status == 413
    message = reply.json()["error"]["message"]
    words = [int(word.strip(".,;")) for word in message.split() if word.strip(".,;").isdigit()]
    assert len(words) == 2 and words[1] == limit
    values = 2 * 8192 * 32 * 49152 * 4
    stats = 2 * 8192 * (4 + 4 + 4 * 32 * 4 + 4)  # tokens, positions, four statistics, rank
    assert values + stats < words[0] < values + stats + 4096  # … and the head
    reply = server.post("/distribution", {**body, "format": "json"})
    assert reply.status == 413 and "up to" in reply.json()["error"]["message"]


@pytest.mark.parametrize("reply_format", ["safetensors", "json", "ndjson"])
def test_the_refused_size_is_the_size(start_server, tiny, reply_format):
    """Sent with a limit of what was announced, refused with one byte less; exact for safetensors."""
    body = {"prompt": ["a b c", "d"], "temperatures": T, "top_n": 5, "token_ids": [1], "format": reply_format}
    refusing = start_server(tiny, "--max-reply-bytes", 1024).post("/distribution", body)
    assert refusing.status == 413
    size = int(refusing.json()["error"]["message"].split(" bytes;")[0].split()[-1])
    assert start_server(tiny, "--max-reply-bytes", size - 1).post("/distribution", body).status == 413
    reply = start_server(tiny, "--max-reply-bytes", size).post("/distribution", body)
    assert reply.status == 200 and len(reply.body) <= size
    assert reply_format != "safetensors" or len(reply.body) == size
