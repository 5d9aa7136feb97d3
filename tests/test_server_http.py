"""HTTP itself, over raw sockets: keep-alive, pipelining, slow and chunked bodies, 100-continue, HEAD, streaming, clients
that leave, many at once, and the end by SIGTERM.
"""

import concurrent.futures
import http.client
import json
import pathlib
import random
import signal
import socket
import struct
import subprocess
import time

import pytest
from serving import PATIENCE_S, Server, read_reply, request_bytes, wait_until

LONG = "The quick brown fox jumps over the lazy dog. " * 5  # 100 to 200 tokens
ONE_TOKEN_STEPS = ("--batch-tokens", 1)  # a prompt is many steps: time for something to happen in between
ENDLESS = [LONG] * 900  # half a minute of them; nobody waits for their end


@pytest.fixture(scope="module")
def server(logitd, tiny):
    with Server(logitd, tiny, *ONE_TOKEN_STEPS) as running:
        yield running


def stable(body):
    return json.dumps({k: v for k, v in json.loads(body).items() if k not in ("id", "created", "timing_ms")})


def health(server):
    return server.get("/health").json()


def test_pipelining(server):
    prompts = [f"Number {i} is" for i in range(8)]
    with server.connect() as s:
        s.sendall(b"".join(request_bytes({"prompt": p, "top_n": 3}) for p in prompts))
        with s.makefile("rb") as stream:
            replies = [read_from(stream) for _ in prompts]
    for prompt, (status, body) in zip(prompts, replies):
        assert status == 200
        assert stable(body) == stable(server.post("/distribution", {"prompt": prompt, "top_n": 3}).body)


def read_from(stream):
    """One reply with a Content-Length from a buffered stream that holds further ones."""
    status = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline()) != b"\r\n":
        name, value = line.split(b":", 1)
        if name.lower() == b"content-length":
            length = int(value)
    return status, stream.read(length)


def test_one_byte_at_a_time(server):
    body = {"prompt": "slowly", "top_n": 2}
    with server.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request_bytes(body):
            s.sendall(bytes([byte]))
        reply = read_reply(s)
    assert reply.status == 200 and stable(reply.body) == stable(server.post("/distribution", body).body)


def test_chunked_body(server):
    body = json.dumps({"prompt": "chunks", "top_n": 2}).encode()
    connection = http.client.HTTPConnection(server.netloc, timeout=600)
    parts = iter([body[i : i + 7] for i in range(0, len(body), 7)])
    connection.request("POST", "/distribution", parts, {"Content-Type": "application/json"}, encode_chunked=True)
    reply = connection.getresponse()
    assert reply.status == 200 and stable(reply.read()) == stable(server.post("/distribution", json.loads(body)).body)
    connection.close()


def test_expect_100_continue(server):
    whole = request_bytes({"prompt": "a", "top_n": 0}, extra="Expect: 100-continue\r\n")
    head, body = whole.split(b"\r\n\r\n", 1)
    with server.connect() as s:
        s.sendall(head + b"\r\n\r\n")
        assert s.recv(100).startswith(b"HTTP/1.1 100 ")
        s.sendall(body)
        assert read_reply(s).status == 200
    with server.connect() as s:  # refused before the body is sent
        s.sendall(head.replace(b"application/json", b"text/plain") + b"\r\n\r\n")
        assert read_reply(s).status == 415


def test_head(server):
    get, head = server.get("/model"), server.request("HEAD", "/model")
    assert head.status == 200 and head.body == b""
    assert head.headers["Content-Length"] == str(len(get.body))
    assert server.request("HEAD", "/nowhere").status == 404
    assert server.request("HEAD", "/distribution").status == 405


def test_http_1_0_and_close(server):
    body = b'{"prompt":"a","top_n":"full","positions":"last"}'
    with server.connect() as s:
        s.sendall(b"POST /distribution HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        reply = read_reply(s)
        assert reply.status == 200 and len(reply.json()["results"][0]["positions"][0]["full"][0]) == 1024


def test_first_line_comes_early(server):
    """The first position is there while most are still to be computed."""
    before = health(server)["tokens"]
    with server.connect() as s:
        s.sendall(request_bytes({"prompt": ENDLESS, "top_n": 1, "format": "ndjson"}))
        data = b""
        while b'"position"' not in data:
            piece = s.recv(1 << 16)
            assert piece
            data += piece
        assert health(server)["tokens"] - before < n_tokens(server, LONG) * len(ENDLESS) / 2
    wait_until(lambda: health(server)["jobs"]["held"] == 0)


def test_slow_reader_holds_nobody_up(server):
    """A full reply of more than 150 MB whose reader sleeps: little of it is made, and others are served."""
    with server.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        before = health(server)["full_rows"]
        s.sendall(request_bytes({"prompt": [LONG] * 4, "top_n": "full", "temperatures": [1] * 32}))
        assert s.recv(1000).startswith(b"HTTP/1.1 200")
        assert server.distribution(prompt="others go on", top_n=1)
        time.sleep(0.5)
        assert health(server)["full_rows"] - before <= 96
    wait_until(lambda: health(server)["jobs"]["held"] == 0)


def n_tokens(server, text):
    return len(server.post("/tokenize", {"text": text}).json()["tokens"])


def test_a_client_that_leaves_stops_costing_work(server):
    for how in ("close", "reset"):
        before = health(server)
        with server.connect() as s:
            s.sendall(request_bytes({"prompt": ENDLESS, "top_n": 1}))
            wait_until(lambda: health(server)["tokens"] > before["tokens"])
            if how == "reset":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: health(server)["jobs"]["held"] == 0)
        after = health(server)
        assert after["jobs"]["canceled"] == before["jobs"]["canceled"] + 1
        assert after["tokens"] - before["tokens"] < n_tokens(server, LONG) * len(ENDLESS) / 2


def test_concurrent_clients_get_what_they_get_alone(server):
    rng = random.Random(1)
    words = "alpha beta gamma delta 1 2 3 { } \n naïve 猫 ".split(" ")
    bodies = [{"prompt": " ".join(rng.choices(words, k=rng.randint(1, 30))), "temperatures": [0.5, 1], "top_n": 3} for _ in range(32)]
    for i, body in enumerate(bodies):
        if i % 8 == 0:
            body.update(top_n="full", positions=[-1], temperatures=[1])
    alone = [stable(server.post("/distribution", body).body) for body in bodies]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda body: stable(server.post("/distribution", body).body), bodies))
    assert together == alone


def test_sigterm_drains(start_server, tiny):
    """What was accepted is answered: a request that is computed, and one whose reader takes its time, which keeps the
    server there until this test has seen what it wants to."""
    server = start_server(tiny, *ONE_TOKEN_STEPS, "--drain-seconds", 3600, "--max-stall-s", 3600)
    with server.connect() as busy, server.connect() as late, server.connect() as streaming:
        streaming.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        streaming.sendall(request_bytes({"prompt": LONG, "top_n": "full", "temperatures": [1] * 16, "format": "ndjson"}))  # some 25 MB
        busy.sendall(request_bytes({"prompt": [LONG] * 5, "top_n": 1}))
        wait_until(lambda: health(server)["jobs"]["accepted"] == 2)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.get("/health").status == 503)
        assert health(server)["status"] == "draining" and health(server)["error"]["message"]
        late.sendall(request_bytes({"prompt": "too late"}))
        reply = read_reply(late)
        assert reply.status == 503 and reply.headers["Retry-After"] and "shutting down" in reply.json()["error"]["message"]
        reply = read_reply(busy)
        assert reply.status == 200 and len(reply.json()["results"]) == 5
        reply = read_reply(streaming)
        assert reply.status == 200 and "timing_ms" in reply.lines()[-1]
    assert server.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("delay_s", [0, 3600])
def test_a_second_sigterm_ends_it_at_once(start_server, tiny, delay_s):
    server = start_server(tiny, *ONE_TOKEN_STEPS, "--drain-seconds", 3600, "--drain-delay-seconds", delay_s)
    with server.connect() as s:
        s.sendall(request_bytes({"prompt": ENDLESS, "top_n": 1}))
        wait_until(lambda: health(server)["jobs"]["running"] == 1)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.get("/health").status == 503)
        server.process.send_signal(signal.SIGTERM)
        reply = read_reply(s)
        assert reply.status == 503 and "error" in reply.json()
    assert server.process.wait(PATIENCE_S) == 0


def test_draining_has_a_time_limit(start_server, tiny):
    server = start_server(tiny, *ONE_TOKEN_STEPS, "--drain-seconds", 1)
    with server.connect() as s:
        s.sendall(request_bytes({"prompt": ENDLESS, "top_n": 1}))
        wait_until(lambda: health(server)["jobs"]["running"] == 1)
        server.process.send_signal(signal.SIGTERM)
        assert read_reply(s).status == 503
    assert server.process.wait(PATIENCE_S) == 0


def test_idle_connections_do_not_hold_the_end_up(start_server, tiny):
    server = start_server(tiny, "--drain-seconds", 10 * PATIENCE_S, "--max-stall-s", 10 * PATIENCE_S, "--max-header-s", 10 * PATIENCE_S)
    n_files = lambda: len(list(pathlib.Path(f"/proc/{server.process.pid}/fd").iterdir()))  # noqa: E731
    before = n_files()
    with server.connect(), server.connect() as half:
        half.sendall(b"POST /distribution HTTP/1.1\r\nHost: localhost\r\n")
        wait_until(lambda: n_files() == before + 2)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0


def test_the_address_in_use_is_a_sentence(server, logitd, tiny):
    host, port = server.netloc.split(":")
    done = subprocess.run([logitd, "serve", "--model", tiny, "--host", host, "--port", port],
                          capture_output=True, text=True, timeout=600, check=False)  # fmt: skip
    assert done.returncode == 1
    assert f"port {port}" in done.stderr and "in use" in done.stderr
