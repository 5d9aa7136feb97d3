"""Compressed replies: the same bytes after decoding, in every format, whole and streamed; flat for a slow reader; not
for those who did not ask; the first line of ndjson while the last is still being computed.
"""

import gzip
import http.client
import json
import zlib

import pytest
import zstandard
from serving import Server

LONG = "The quick brown fox jumps over the lazy dog. " * 5


def unzstd(data):
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=False).read()


DECODE = {"gzip": gzip.decompress, "zstd": unzstd}


@pytest.fixture(scope="module")
def server(logitd, tiny):
    with Server(logitd, tiny, "--batch-tokens", 1) as running:
        yield running


def comparable(reply_format, body):
    """A reply without what differs between two runs."""
    if reply_format == "safetensors":
        return body
    lines = [json.loads(line) for line in body.splitlines()]
    return [{k: v for k, v in line.items() if k not in ("id", "created", "timing_ms")} for line in lines]


@pytest.mark.parametrize("coding", DECODE)
@pytest.mark.parametrize("reply_format", ["json", "ndjson", "safetensors"])
@pytest.mark.parametrize("top_n", [3, "full"])
def test_the_same_bytes(server, coding, reply_format, top_n):
    body = {"prompt": [LONG, "x"], "top_n": top_n, "format": reply_format, "temperatures": [0.5, 1]}
    plain = server.post("/distribution", body)
    coded = server.post("/distribution", body, {"Accept-Encoding": coding})
    assert plain.status == coded.status == 200
    assert "Content-Encoding" not in plain.headers and "Accept-Encoding" in plain.headers["Vary"]
    assert coded.headers["Content-Encoding"] == coding and "Accept-Encoding" in coded.headers["Vary"]
    assert coded.headers["Content-Type"] == plain.headers["Content-Type"]
    assert coded.headers["Transfer-Encoding"] == "chunked" and "Content-Length" not in coded.headers
    assert len(coded.body) < len(plain.body)
    assert comparable(reply_format, DECODE[coding](coded.body)) == comparable(reply_format, plain.body)


@pytest.mark.parametrize("accepted, coding", [
    ("gzip, deflate", "gzip"), ("gzip, deflate, br, zstd", "zstd"), ("zstd;q=0.1, gzip;q=0.2", "gzip"),
    ("br", None), ("gzip;q=0", None), ("identity, gzip;q=0.5", None), ("identity", None),
])  # fmt: skip
def test_negotiation(server, accepted, coding):
    reply = server.get("/model", {"Accept-Encoding": accepted})
    assert reply.headers["Content-Encoding"] == coding
    model = json.loads(DECODE[coding](reply.body) if coding else reply.body)
    assert model == server.get("/model").json()


def test_errors_and_short_replies_stay_as_they_are(server):
    reply = server.post("/distribution", {"prompt": 5}, {"Accept-Encoding": "gzip"})
    assert reply.status == 400 and "Content-Encoding" not in reply.headers and reply.json()["error"]
    reply = server.post("/tokenize", {"text": "a"}, {"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in reply.headers and len(reply.json()["tokens"]) == 1


def test_head(server):
    reply = server.request("HEAD", "/model", None, {"Accept-Encoding": "gzip"})
    assert reply.status == 200 and reply.body == b"" and reply.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("coding", DECODE)
def test_the_first_line_comes_early(server, coding):
    """What has been computed can be read although the stream has not ended."""
    connection = http.client.HTTPConnection(server.netloc, timeout=600)
    n_prompts = 900  # half a minute of them; nobody waits for their end
    body = json.dumps({"prompt": [LONG] * n_prompts, "top_n": 1, "format": "ndjson"})
    before = server.get("/health").json()["tokens"]
    connection.request("POST", "/distribution", body, {"Content-Type": "application/json", "Accept-Encoding": coding})
    reply = connection.getresponse()
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS) if coding == "gzip" else zstandard.ZstdDecompressor().decompressobj()
    text = b""
    while b'"position":0' not in text:
        piece = reply.read1(1 << 16)
        assert piece
        text += decoder.decompress(piece)
    n_tokens = len(server.post("/tokenize", {"text": LONG}).json()["tokens"])
    assert server.get("/health").json()["tokens"] - before < n_prompts * n_tokens / 2
    reply.close()
    connection.close()
