"""The Python client against a live server: the arrays are the bits of the JSON reply, streamed and whole, and AsyncClient's
are Client's.
"""

import asyncio

import httpx
import logitd
import numpy as np
import pytest
from logitd._replies import VOCABS, FullReader, LineReader
from logitd._requests import positions_of
from serving import wait_until

TEXT = "The cat — «naïve» 𓀀 sat.\nint x = 3;\n"
T = [0.5, 1.0, 2.0]


@pytest.fixture(scope="module")
def client(server):
    with logitd.Client(server.url) as client:
        yield client


def float32(values):
    """JSON's numbers are the shortest decimals of float32s; null is NaN here."""
    return np.array(values, dtype=np.float64).astype(np.float32)


def assert_same(got, wanted):
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


def check_against_json(dist, result, values):
    """Every array of a distribution against the JSON result for the same request."""
    rows, n_t = result["positions"], len(dist.temperatures)
    assert_same(dist.positions, np.array([row["position"] for row in rows], np.int32))
    assert [t._asdict() for t in dist.tokens] == [{**t, "bytes": bytes(t["bytes"])} for t in result["tokens"]]
    for name in ("logsumexp", "entropy", "varentropy"):
        assert_same(getattr(dist, name), float32([row[name] for row in rows]))
    nexts = [row["next"] or {"id": -1, "rank": -1, "logprob": [np.nan] * n_t} for row in rows]
    assert_same(dist.next_id, np.array([e["id"] for e in nexts], np.int32))
    assert_same(dist.next_rank, np.array([e["rank"] for e in nexts], np.int32))
    assert_same(dist.next_logprob, float32([e["logprob"] for e in nexts]))
    assert_same(dist.surprisal, -float32([e["logprob"] for e in nexts]))
    assert_same(dist.top_id, np.array([[e["id"] for e in row["top"]] for row in rows], np.int32))
    for key, name in (("top", "top"), ("token_ids", "listed")):
        wanted = float32([np.array([e[values] for e in row[key]]).T for row in rows])
        assert_same(getattr(dist, f"{name}_{values}"), wanted)
    summary = [s._asdict() for s in dist.summary]
    assert summary == [pytest.approx(s, rel=1e-12, nan_ok=True) for s in result["summary"]]
    assert [s["cross_entropy"] for s in summary] == [s["cross_entropy"] for s in result["summary"]]


@pytest.mark.parametrize("values", ["logprob", "prob", "logit"])
def test_a_batch_is_the_json_reply(server, client, values):
    fields = {"temperatures": T, "values": values, "top_n": 7, "token_ids": [0, 7, 7]}
    reply = server.distribution(prompt=[TEXT, "x y"], **fields)
    dists = client.distribution([TEXT, "x y"], **fields)
    assert len(dists) == 2
    for dist, result in zip(dists, reply["results"], strict=True):
        check_against_json(dist, result, values)
        assert (dist.model, dist.numerics) == (reply["model"], reply["numerics"])
        assert dist.temperatures.tolist() == T and dist.listed_id.tolist() == [0, 7, 7]


@pytest.mark.parametrize("values", ["logprob", "prob", "logit"])
def test_full_rows_are_the_json_reply(server, client, values):
    fields = {"temperatures": T, "values": values, "top_n": "full", "positions": [3, 0]}
    wanted = float32([row["full"] for row in server.distribution(prompt=TEXT, **fields)["results"][0]["positions"]])
    dist = client.distribution(TEXT, **fields, progress=True)
    got = getattr(dist, values)
    assert_same(got, wanted[:, 0] if values == "logit" else wanted)
    assert [c.id for c in dist.top(3, n=5)] == np.argsort(-wanted[0, -1 if values == "logit" else 1], kind="stable")[:5].tolist()
    for position in (0, 3):
        asked = client.distribution(TEXT, positions=[position], temperatures=T, top_n=5)
        ours, its = dist.top(position, temperature=0.5, n=5), asked.top(position, temperature=0.5, n=5)
        assert [c.id for c in ours] == [c.id for c in its]
        assert [c.logprob for c in ours] == pytest.approx([c.logprob for c in its], abs=1e-4)
    with pytest.raises(AttributeError, match="top_n from 1 to 1024"):
        dist.top_id  # noqa: B018


def test_logits_are_log_probabilities_by_statistics_too(client):
    """Of top logits, whose vocabulary is not at hand, logsumexp makes log-probabilities."""
    logits = client.distribution(TEXT, temperatures=T, values="logit", top_n=4)
    logprobs = client.distribution(TEXT, temperatures=T, top_n=4)
    for t in T:
        got = [c.logprob for c in logits.top(5, temperature=t)]
        assert got == pytest.approx([c.logprob for c in logprobs.top(5, temperature=t)], abs=2e-4)
    assert logprobs.top(5)[0].prob == pytest.approx(float(np.exp(logprobs.top_logprob[5, 1, 0])))


def test_ids_special_and_bos(client):
    ids = [504, 2644, 314]
    dist = client.distribution(np.array(ids), top_n=0)
    assert dist.token_id.tolist() == ids and [t.offset for t in dist.tokens] == [None] * 3
    special = client.distribution("<|im_start|>user\nHi", special=True, add_bos=True, top_n=1)
    plain = client.distribution("<|im_start|>user\nHi", top_n=1)
    assert len(special.token_id) < len(plain.token_id) and special.tokens[0].offset is None
    assert [t.id for t in special.tokens[1:]] == [t.id for t in client.tokenize("<|im_start|>user\nHi", special=True)]


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda ids: np.array(ids, np.int32)])
def test_one_prompt_or_many(client, kind):
    """However ids are held; a list of one prompt is many."""
    ids = [504, 2644, 314]
    assert client.distribution(kind(ids), top_n=0).token_id.tolist() == ids
    assert [d.token_id.tolist() for d in client.distribution([kind(ids)], top_n=0)] == [ids]
    assert [d.token_id.tolist() for d in client.distribution(kind([ids, ids]), top_n=0)] == [ids, ids]
    assert len(client.distribution(["The cat"], top_n=0)) == 1


def test_arguments_of_numpy_and_one_temperature(client):
    ids = np.array([504, 3575, 282], np.int64)
    plain = client.distribution(ids.tolist(), positions=[0, 2], temperatures=[0.5], top_n=3, token_ids=[7042])
    options = {"positions": np.array([0, 2]), "top_n": np.int64(3), "token_ids": np.array([7042])}
    for given in ({"temperature": 0.5}, {"temperatures": np.array([0.5])}, {"temperature": np.float32(0.5)}):
        found = client.distribution(ids, **options, **given)
        assert found.arrays.keys() == plain.arrays.keys()
        for name, array in plain.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)
    assert [one.token_id.tolist() for one in client.distribution([ids, ids[:2]])] == [ids.tolist(), ids[:2].tolist()]
    assert client.detokenize(ids) == "The capital of"


def test_control_tokens_are_no_bytes_in_the_summary(server, client):
    prompt = "Hi <|im_end|> there"
    wanted = server.distribution(prompt=prompt, special=True)["results"][0]["summary"][0]["bits_per_byte"]
    assert client.distribution(prompt, special=True).summary[0].bits_per_byte == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    "positions",
    ["all", "last", [2, -1, 2], slice(1, None, 3), {"start": -4}, {"start": 5, "stop": 0, "step": -2}, range(3), []],
)
def test_positions_resolve_as_the_server_does(client, positions):
    dist = client.distribution(TEXT, positions=positions, top_n=0)
    assert dist.positions.tolist() == positions_of(positions, len(dist.token_id))
    assert dist.next_id.tolist() == [(*dist.token_id.tolist(), -1)[p + 1] for p in dist.positions]
    if positions == []:
        assert np.isnan(dist.summary[0].cross_entropy) and dist.summary[0].n == 0


def test_of_tokens_is_what_was_believed_before_each(client):
    dist = client.distribution(TEXT, temperatures=T, positions=slice(1, None))
    n = len(dist.token_id)
    surprisal = dist.of_tokens("surprisal", temperature=2.0)
    assert surprisal.shape == (n,) and np.isnan(surprisal[:2]).all()
    np.testing.assert_array_equal(surprisal[2:], -dist.next_logprob[:-1, 2].astype(np.float64))
    np.testing.assert_array_equal(dist.of_tokens("rank")[2:], dist.next_rank[:-1])
    np.testing.assert_array_equal(dist.of_tokens("entropy")[2:], dist.entropy[:-1, 1].astype(np.float64))
    np.testing.assert_allclose(dist.of_tokens("top1")[2:], np.exp(dist.top_logprob[:-1, 1, 0].astype(np.float64)))
    with pytest.raises(logitd.LogitdError, match="by is 'x'"):
        dist.of_tokens("x")
    with pytest.raises(logitd.LogitdError, match="position 0 was not asked"):
        dist.row(0)
    with pytest.raises(logitd.LogitdError, match=r"temperature 0.7 was not asked for, but \[0.5, 1.0, 2.0\]"):
        dist.of_tokens(temperature=0.7)


def test_log_softmax_and_kl(client):
    """From logits to what the server says, in float64."""
    dist = client.distribution(TEXT, positions=[4, 5], temperatures=[0.5, 1.0], top_n="full", values="logit")
    for t, temperature in enumerate((0.5, 1.0)):
        logprob = logitd.log_softmax(dist.logit, temperature)
        np.testing.assert_allclose(-(np.exp(logprob) * logprob).sum(-1), dist.entropy[:, t], atol=2e-3)
    p, q = logitd.log_softmax([0.0, -np.inf]), logitd.log_softmax([0.0, 0.0])
    assert logitd.kl_divergence(p, q) == pytest.approx(np.log(2)) and logitd.kl_divergence(q, q) == 0
    assert logitd.kl_divergence(q, p) == np.inf


def test_stream_is_the_whole_reply(client):
    fields = {"temperatures": T, "top_n": 3, "token_ids": [5]}
    dists = client.distribution([TEXT, "x y"], **fields)
    for i, position in enumerate(stream := list(client.stream([TEXT, "x y"], **fields, progress=True))):
        row = i if position.index == 0 else i - len(dists[0])
        dist = dists[position.index]
        assert position.position == row and position.token_id == dist.token_id[row]
        for name in ("logsumexp", "entropy", "varentropy", "next_logprob", "next_id", "next_rank", "top_id"):
            assert_same(np.asarray(getattr(position, name), getattr(dist, name).dtype), getattr(dist, name)[row])
        assert_same(position.top_value, dist.top_logprob[row])
        assert_same(position.listed_value, dist.listed_logprob[row])
        assert position.top_text == dist.vocab.texts(dist.top_id[row])
    assert len(stream) == len(dists[0]) + len(dists[1])
    bare = next(client.stream("x y", stats=False, values="logit", top_n=2))
    assert bare.entropy is None and bare.top_value.shape == (2,)


def test_leaving_a_stream_ends_the_request(server, client):
    for _ in client.stream("word " * 200, top_n=1):
        break
    wait_until(lambda: server.get("/health").json()["jobs"]["held"] == 0)


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_iter_full_is_the_full_reply_in_blocks(client, rows):
    options = {"temperatures": [0.5, 2.0], "dtype": "float16", "positions": slice(None, None, 2)}
    wanted = client.distribution([TEXT, "x y z"], top_n="full", **options)
    got = list(client.iter_full([TEXT, "x y z"], rows=rows, **options))
    assert max(len(block.positions) for block in got) <= rows
    for i, dist in enumerate(wanted):
        blocks = [block for block in got if block.index == i]
        assert_same(np.concatenate([block.positions for block in blocks]), dist.positions)
        assert_same(np.concatenate([block.values for block in blocks]), dist.logprob)


def test_readers_take_any_pieces(server):
    """A reply that comes byte by byte, and one that ends too early."""
    for format_, reader, n in (("ndjson", LineReader, 3), ("safetensors", lambda: FullReader("all", 2), 2)):
        fields = {"prompt": "a b c", "top_n": 1 if format_ == "ndjson" else "full", "format": format_, "positions": "all"}
        data = server.post("/distribution", fields).body
        whole, bytewise = reader(), reader()
        pieces = [data[i : i + 1] for i in range(3000)] + [data[3000:]]
        assert len(whole.feed(data)) == sum(len(bytewise.feed(piece)) for piece in pieces) == n
        whole.finish()
        bytewise.finish()
        assert whole.n_positions == whole.n_read == 3
        cut = reader()
        cut.feed(data[:-5])
        with pytest.raises(logitd.ConnectionFailed, match="cut short"):
            cut.finish()


def test_other_routes(server, client):
    assert [t.id for t in client.tokenize("The cat")] == [504, 2644] and client.detokenize([504, 2644]) == "The cat"
    assert client.model() == server.get("/model").json()
    assert client.health()["status"] == "ok" and "# TYPE" in client.metrics()
    vocab = client.vocab()
    assert vocab.text(504) == "The" and vocab.id(" Paris") == 7042 and len(vocab) == vocab.n_vocab == 49152
    assert vocab.control >= {t.id for t in client.tokenize("<|im_start|>", special=True)} and 504 not in vocab.control
    with pytest.raises(KeyError):
        vocab.id("no such piece at all")


def test_the_vocabulary_is_fetched_once_a_model(server, client):
    VOCABS.clear()
    server.wait_at_rest()
    fetched = lambda: sum(  # noqa: E731
        float(line.split()[-1]) for line in client.metrics().splitlines() if "/vocab" in line and "requests_total" in line)
    before = fetched()
    with logitd.Client(server.url) as other:
        dists = [client.distribution("a"), other.distribution("b"), client.distribution("c")]
        assert other.vocab() is client.vocab() is dists[0].vocab is dists[1].vocab
    assert fetched() - before == 1


def test_async_twin_gives_equal_arrays(server, client):
    options = {"temperatures": T, "token_ids": [3]}

    async def ask():
        async with logitd.AsyncClient(server.url) as twin:
            both = await asyncio.gather(twin.distribution(TEXT, **options), twin.distribution([TEXT, "x"], top_n="full"))
            positions = [position async for position in twin.stream("x y z", progress=True)]
            blocks = [block async for block in twin.iter_full("x y z", rows=2)]
            ids = [t.id for t in await twin.tokenize("The cat")]
            rest = (await twin.model(), (await twin.health())["status"], await twin.vocab(), await twin.detokenize(ids))
            assert "# TYPE" in await twin.metrics()
            with pytest.raises(logitd.BadRequest, match="top_n is -1"):
                await twin.distribution("x", top_n=-1)
            return *both, positions, blocks, rest

    one, many, positions, blocks, rest = asyncio.run(ask())
    for got, wanted in [
        (one, client.distribution(TEXT, **options)),
        *zip(many, client.distribution([TEXT, "x"], top_n="full"), strict=True),
    ]:
        assert set(got.arrays) == set(wanted.arrays)
        for name, array in wanted.arrays.items():
            assert_same(got.arrays[name], array)
    for got, wanted in zip(positions, client.stream("x y z"), strict=True):
        assert_same(got.top_value, wanted.top_value)
    for got, wanted in zip(blocks, client.iter_full("x y z", rows=2), strict=True):
        assert_same(got.values, wanted.values)
    assert rest == (client.model(), "ok", client.vocab(), "The cat")


def test_no_compression_and_no_proxy_on_this_machine(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with logitd.Client(server.url) as client:
        assert client._http.headers["Accept-Encoding"] == "identity"
        assert client.health()["status"] == "ok"
    with logitd.Client("http://models.example:8080") as far:
        assert "gzip" in far._http.headers["Accept-Encoding"]
    assert httpx.URL(server.url).host == "127.0.0.1"
