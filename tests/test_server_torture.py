"""What a network can do to the server on purpose: clients killed at every stage, ten thousand half-open connections,
requests that are malformed or too large as HTTP, and 200 mixed requests at once that must be what they are alone.
"""

import concurrent.futures
import gzip
import http.client
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
from serving import PATIENCE_S, Server, read_reply, request_bytes, wait_until
from test_server_coding import unzstd

LONG = "The quick brown fox jumps over the lazy dog. " * 5
N_HALF_OPEN = 10_000
N_SOURCES = 10  # loopback addresses, each a client of its own


@pytest.fixture(scope="module")
def server(logitd, tiny):
    with Server(logitd, tiny) as running:
        yield running


def n_files(server):
    return len(list((pathlib.Path("/proc") / str(server.process.pid) / "fd").iterdir()))


# ------------------------------------------------------------------------------------------- clients that are killed

CLIENT = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(sys.stdin.buffer.read(int(sys.argv[3])))
n_left = int(sys.argv[4])
while n_left > 0:
    n_left -= len(s.recv(n_left)) or n_left
print("there", flush=True)
sys.stdin.read()
"""
ENDLESS = request_bytes({"prompt": [LONG] * 300, "top_n": "full", "format": "ndjson"})


@pytest.mark.parametrize("sent, n_read", [
    (b"", 0),
    (b"POST /distri", 0),
    (ENDLESS[:120], 0),
    (ENDLESS[:-1], 0),
    (ENDLESS, 0),
    (ENDLESS, 1),
    (ENDLESS, 100_000),
    (request_bytes({"prompt": LONG, "top_n": 3}) * 20, 5000),
], ids=["connected", "request line", "headers", "body", "computing", "reply begins", "reply", "pipelined"])  # fmt: skip
def test_a_client_is_killed(server, sent, n_read):
    before = n_files(server)
    host, port = server.netloc.split(":")
    client = subprocess.Popen([sys.executable, "-c", CLIENT, host, port, str(len(sent)), str(n_read)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)  # fmt: skip
    client.stdin.write(sent)
    client.stdin.flush()
    assert client.stdout.readline() == b"there\n"
    client.send_signal(signal.SIGKILL)
    client.wait()
    wait_until(lambda: server.get("/health").json()["jobs"]["held"] == 0 and n_files(server) <= before)
    assert server.distribution(prompt="others go on", top_n=1)


# --------------------------------------------------------------------------------------------- half-open connections


def is_sanitized(logitd):
    return b"__asan_init" in logitd.read_bytes() or b"__tsan_init" in logitd.read_bytes()


def test_ten_thousand_half_open_connections(start_server, tiny, logitd):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = N_HALF_OPEN // 5 if is_sanitized(logitd) else N_HALF_OPEN
    needed = n + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"a process may open {hard} files here, and this needs {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))  # the server inherits it
    try:
        server = start_server(tiny, "--max-connections", n + 50, "--max-connections-per-client", n // N_SOURCES,
                              "--max-header-s", 3600, "--max-stall-s", 3600)  # fmt: skip
        before = n_files(server)
        held = [server.connect(f"127.0.1.{1 + i % N_SOURCES}") for i in range(n)]
        for s in held:
            s.sendall(b"GET /health HTTP/1.1\r\nX-Half: ")
        wait_until(lambda: n_files(server) >= before + n, every_s=0.3)
        asked = time.monotonic()
        assert server.distribution(prompt="a right request", top_n=1)["usage"]["prompt_tokens"] > 0
        assert time.monotonic() - asked < 60  # some milliseconds of work
        for s in held:
            s.close()
        wait_until(lambda: n_files(server) <= before)
        assert server.distribution(prompt="and after", top_n=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ------------------------------------------------------------------------------------------------------ as HTTP: wrong

SMALL = request_bytes(b'{"prompt":"a","top_n":0}')
HEAD, BODY = SMALL.split(b"\r\n\r\n")
CHUNKED = HEAD.split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
OK, BAD = {200}, {400}


@pytest.mark.parametrize("sent, statuses", [
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 300_000 + b"\r\n\r\n", {431, 413}),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 50_000 + b"\r\n", {431, 413}),
    (b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", {414, 431}),
    (b"GET /health HTTP/1.1\r\nHost: local\0host\r\n\r\n", {400, 403}),
    (b"\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", OK | BAD),
    (b"GET /health HTTP/1.1\r\n\r\n", BAD),
    (b"GET /health HTTP/1.0\r\n\r\n", OK),
    (b"GET /health HTTP/7.3\r\nHost: localhost\r\n\r\n", {400, 505}),
    (b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", {400, 404, 200}),
    (b"GET /health\r\n\r\n", BAD | {505}),
    (b"BREW /health HTTP/1.1\r\nHost: localhost\r\n\r\n", {405}),
    (HEAD.replace(b": 24", b": 24x") + b"\r\n\r\n" + BODY, BAD),
    (HEAD.replace(b": 24", b": -24") + b"\r\n\r\n" + BODY, BAD),
    (HEAD.replace(b": 24", b": 99999999999999999999999") + b"\r\n\r\n" + BODY, {400, 413}),
    (HEAD.replace(b": 24", b": 99999999999") + b"\r\nExpect: 100-continue\r\n\r\n", {413}),
    (CHUNKED + b"18\r\n" + BODY + b"\r\n0\r\n\r\n", OK),
    (CHUNKED + b"18;a=b\r\n" + BODY + b"\r\n0\r\nTrailer: x\r\n\r\n", OK),
    (CHUNKED + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n", BAD),
    (CHUNKED + b"fffffffffffffffff\r\n" + BODY, {400, 413}),
    (CHUNKED + b"18\r\n" + BODY + b"XX0\r\n\r\n", BAD),
    (HEAD + b"\r\nExpect: 200-ok\r\n\r\n" + BODY, OK | {417}),
], ids=lambda v: repr(v[:40]) if isinstance(v, bytes) else "-".join(map(str, sorted(v))))  # fmt: skip
def test_malformed(server, sent, statuses):
    with server.connect() as s:
        s.settimeout(PATIENCE_S)
        try:
            s.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered before the end
        try:
            reply = http.client.HTTPResponse(s, method="POST")
            reply.begin()
            status = reply.status
        except (http.client.RemoteDisconnected, ConnectionResetError):
            status = 400  # closed without a word: what cannot be read as a request
    assert status in statuses
    assert server.get("/health").status == 200


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"identity", b"chunked, chunked"])
@pytest.mark.parametrize("head", [HEAD.split(b"Content-Length")[0], b"GET /health HTTP/1.1\r\nHost: localhost\r\n"], ids=["post", "get"])
def test_an_unknown_transfer_encoding_is_refused_at_once(server, head, coding):
    """Nobody knows where its body ends: the server would wait for the connection's end."""
    with server.connect() as s:
        s.settimeout(PATIENCE_S)
        s.sendall(head + b"Transfer-Encoding: " + coding + b"\r\n\r\n18\r\n" + BODY)
        reply = read_reply(s)
        assert reply.status == 400 and reply.headers["Connection"] == "close"
        assert reply.json()["error"]["message"] == f"the Transfer-Encoding is {coding.decode()}; chunked alone is taken"


def test_transfer_encodings_in_two_lines_are_one_list(server):
    with server.connect() as s:
        s.sendall(CHUNKED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: gzip\r\n\r\n") + b"18\r\n" + BODY + b"\r\n0\r\n\r\n")
        reply = read_reply(s)
    assert reply.status == 400
    assert reply.json()["error"]["message"] == "the Transfer-Encoding is chunked,gzip; chunked alone is taken"


def test_a_length_and_chunks_smuggle_nothing(server):
    """Both a Content-Length and chunks: one request is read of it, or it is refused; never a second one."""
    hidden = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sent = HEAD.replace(b": 24", b": 4") + b"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n18\r\n" + BODY + b"\r\n0\r\n\r\n" + hidden
    with server.connect() as s:
        s.sendall(sent)
        received = b""
        try:
            while chunk := s.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
    assert len(re.findall(rb"HTTP/1\.1 \d\d\d ", received)) <= 1


# --------------------------------------------------------------------------------------------------------- all at once


def mixed(n):
    """n requests of every kind, right and wrong: (method, path, body, headers)."""
    rng = random.Random(7)
    words = "alpha beta 1 2 { } \n naïve 猫 ".split(" ")
    for i in range(n):
        text = " ".join(rng.choices(words, k=rng.randint(1, 40)))
        kind = i % 10
        body = {"prompt": text, "temperatures": [0.5, 1, 2][: 1 + i % 3], "top_n": i % 7, "values": ["logprob", "prob", "logit"][i % 3]}
        if kind == 1:
            body = {"prompt": [text, "b"], "format": "ndjson", "token_ids": [3, 1]}
        elif kind in (2, 3):
            body = {"prompt": text, "format": "safetensors", "dtype": "float16" if i % 4 else "float32", "top_n": "full" if kind == 2 else 9}
        elif kind == 4:
            body = {"prompt": [[i, 2, 3]], "positions": [-1, 0]}
        elif kind == 5:
            body = [{"prompt": ""}, {"promt": text}, {"prompt": text, "top_n": -i}][i % 3]
        headers = {"Accept-Encoding": rng.choice(["identity", "gzip", "zstd"])}
        if kind == 6:
            yield "POST", "/tokenize", {"text": text}, headers
        elif kind == 7:
            yield "POST", "/detokenize", {"ids": [rng.randrange(900) for _ in range(9)]}, headers
        elif kind == 8:
            yield "GET", rng.choice(["/vocab", "/vocab?format=safetensors", "/model", "/openapi.json", "/nowhere"]), None, headers
        else:
            yield "POST", "/distribution", body, headers


DECODE = {None: bytes, "gzip": gzip.decompress, "zstd": unzstd}
KINDS = ("application/json", "application/x-ndjson", "application/vnd.safetensors")


def same(reply):
    """Status, kind, coding and bytes (under a coding: what it decodes to), without what may differ between two replies."""
    kind, coding = reply.headers.get("Content-Type", ""), reply.headers.get("Content-Encoding")
    body = DECODE[coding](reply.body)
    if kind in ("application/json", "application/x-ndjson"):
        body = re.sub(rb'"(id":"dist-[^"]*"|created":\d+|timing_ms":\{[^}]*\})', b"", body)
    return reply.status, kind, coding, body


def test_200_mixed_requests_by_32_clients(server):
    requests = list(mixed(200))
    alone = [same(server.request(*r)) for r in requests]
    assert {status for status, *_ in alone} == {200, 400, 404}
    assert {(kind, coding) for _, kind, coding, _ in alone} >= {(kind, coding) for kind in KINDS for coding in DECODE}
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda r: same(server.request(*r)), requests))
    for request, one, many in zip(requests, alone, together):
        assert many == one, request
