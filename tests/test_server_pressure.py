"""A server under pressure: late, stalled and too many clients, requests that wait too long, and what is left of them."""

import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import socket

import pytest
from serving import PATIENCE_S, read_reply, request_bytes, wait_until

LONG = "The quick brown fox jumps over the lazy dog. " * 5  # 100 to 200 tokens
ONE_TOKEN_STEPS = ("--batch-tokens", 1)  # some thousand a second: 900 prompts of LONG take half a minute
IDLERS = ("--max-header-s", 3600, "--max-stall-s", 3600)  # connections that say nothing may stay


def ask(server, body, source=None):
    with server.connect(source) as s:
        s.sendall(request_bytes(body))
        return read_reply(s)


def connect_and_ask(server, source=None):
    """A connection that the server counts from now on: several threads accept, so those that were merely opened may be
    counted in another order."""
    s = server.connect(source)
    s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert read_reply(s).status == 200
    return s


def jobs(server):
    """Asked again where a machine that holds this client up makes it too late for a server with limits of a second."""
    while True:
        try:
            return server.get("/health").json()["jobs"]
        except (OSError, http.client.HTTPException):
            assert server.process.poll() is None, server.log()


def is_cut(connection, send=b""):
    """Whether the server ended the connection; `send` goes on talking to it."""
    connection.settimeout(0.1)
    try:
        if send:
            connection.sendall(send)
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def what_is_left(connection):
    """What comes until the connection ends."""
    received = bytearray()
    try:
        while piece := connection.recv(1 << 20):
            received += piece
    except ConnectionResetError:
        pass
    return bytes(received)


def is_served(server):
    """Whether a new connection is; one far above its client's limit is closed without a word."""
    try:
        return server.get("/health").status == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.parametrize("flag, start", [
    ("--max-header-s", b""),
    ("--max-header-s", b"POST /distribution HTTP/1.1\r\nX-"),
    ("--max-body-s", b"POST /distribution HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"),
])  # fmt: skip
def test_slow_loris(start_server, tiny, flag, start):
    """A client that sends a byte now and then is cut all the same."""
    server = start_server(tiny, flag, 1)
    with server.connect() as s:
        s.sendall(start)
        wait_until(lambda: is_cut(s, send=b"a" if start else b""))
    wait_until(lambda: is_served(server))


@pytest.mark.parametrize("sip", [0, 1])
@pytest.mark.parametrize("format", ["ndjson", "json"])
def test_a_stalled_reader_is_cut_off(start_server, tiny, sip, format):
    server = start_server(tiny, "--max-stall-s", 1)
    with server.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        s.sendall(request_bytes({"prompt": [LONG] * 4, "top_n": "full", "temperatures": [1] * 32, "format": format}))
        assert s.recv(1) == b"H"

        def released():
            assert not sip or s.recv(sip)
            return jobs(server)["held"] == 0

        wait_until(released)
        assert not what_is_left(s).endswith(b"0\r\n\r\n")  # the end of chunks: it never came
    assert jobs(server)["accepted"] == 1
    wait_until(lambda: is_served(server))


def test_a_stalled_reader_of_a_whole_reply_is_cut_off(start_server, tiny):
    server = start_server(tiny, "--max-stall-s", 1)
    with server.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        s.sendall(request_bytes({"prompt": [LONG] * 4, "top_n": 400}))  # some 12 MB: sent whole
        assert s.recv(1) == b"H"
        wait_until(lambda: jobs(server)["held"] == 0)
        head, body = what_is_left(s).split(b"\r\n\r\n", 1)
        assert len(body) < int(re.search(rb"Content-Length: (\d+)", head)[1])
    assert jobs(server)["accepted"] == 1


def test_too_many_connections_of_one_client(start_server, tiny):
    server = start_server(tiny, "--max-connections-per-client", 3, *IDLERS)
    open_ones = [connect_and_ask(server) for _ in range(3)]
    with server.connect() as s:
        s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        reply = read_reply(s)
        assert reply.status == 429 and reply.headers["Retry-After"] and reply.headers["Connection"] == "close"
        assert "3 of one client" in reply.json()["error"]["message"] and reply.json()["error"]["code"] == "too_many_requests"
    assert ask(server, {"prompt": "a", "top_n": 1}, source="127.0.0.2").status == 200  # another client goes on
    open_ones += [server.connect() for _ in range(97)]
    wait_until(lambda: sum(is_cut(s) for s in open_ones) >= 100 - 3 - 8)  # half-open ones do not pile up
    assert ask(server, {"prompt": "a", "top_n": 1}, source="127.0.0.2").status == 200
    open_ones[0].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    open_ones[0].settimeout(PATIENCE_S)
    assert read_reply(open_ones[0]).status == 200  # the first three stand
    for s in open_ones:
        s.close()
    wait_until(lambda: is_served(server))


def test_too_many_connections_in_all(start_server, tiny):
    server = start_server(tiny, "--max-connections", 4, *IDLERS)
    open_ones = [connect_and_ask(server, f"127.0.0.{i}") for i in range(2, 6)]
    reply = ask(server, {"prompt": "a"}, source="127.0.0.9")
    assert reply.status == 503 and reply.headers["Retry-After"] and "at most 4" in reply.json()["error"]["message"]
    open_ones.pop().close()
    wait_until(lambda: ask(server, {"prompt": "a", "top_n": 0}, source="127.0.0.9").status == 200)
    for s in open_ones:
        s.close()


def test_a_client_with_one_request_passes_one_with_many(start_server, tiny):
    """Twenty requests of one client, each smaller than the one that another client sends after them. A quarter of each
    step goes by age, so some of the twenty end before it; were it for size alone, all would."""
    server = start_server(tiny, "--batch-tokens", 64, "--threads", 1)
    crowd = [server.connect() for _ in range(20)]
    for s in crowd:
        s.sendall(request_bytes({"prompt": [LONG] * 200, "positions": "last", "top_n": 0}))
    wait_until(lambda: jobs(server)["accepted"] == 20)
    assert ask(server, {"prompt": [LONG] * 240, "positions": "last", "top_n": 0}, source="127.0.0.2").status == 200
    assert jobs(server)["done"] <= 1 + 10
    for s in crowd:
        s.close()


def test_too_many_jobs(start_server, tiny):
    server = start_server(tiny, *ONE_TOKEN_STEPS, "--max-jobs", 3, "--max-jobs-per-client", 2)
    endless = request_bytes({"prompt": [LONG] * 1000, "top_n": 0})
    with server.connect() as first, server.connect() as second, server.connect("127.0.0.2") as third:
        first.sendall(endless)
        second.sendall(endless)
        wait_until(lambda: jobs(server)["held"] == 2)
        reply = ask(server, {"prompt": "a"})
        assert reply.status == 429 and reply.headers["Retry-After"] and "2 requests in flight" in reply.json()["error"]["message"]
        third.sendall(endless)
        wait_until(lambda: jobs(server)["held"] == 3)
        reply = ask(server, {"prompt": "a"}, source="127.0.0.3")
        assert reply.status == 503 and reply.headers["Retry-After"] and "3 requests" in reply.json()["error"]["message"]
    wait_until(lambda: jobs(server)["held"] == 0)
    assert ask(server, {"prompt": "a", "top_n": 0}).status == 200


def test_deadline(start_server, tiny):
    server = start_server(tiny, *ONE_TOKEN_STEPS, "--max-deadline-s", 1)
    reply = ask(server, {"prompt": [LONG] * 900, "top_n": 0})
    assert reply.status == 503 and reply.headers["Retry-After"] and "not computed within 1 s" in reply.json()["error"]["message"]
    with server.connect() as s:  # a reply that has begun tells it in its last line
        s.sendall(request_bytes({"prompt": [LONG] * 900, "top_n": 0, "format": "ndjson"}))
        reply = http.client.HTTPResponse(s)
        reply.begin()
        last = json.loads(reply.read().splitlines()[-1])
        assert reply.status == 200 and "not computed within 1 s" in last["error"]["message"]
    wait_until(lambda: jobs(server)["held"] == 0)  # freed after the last byte
    assert jobs(server)["failed"] == 2


def test_time_in_queue(start_server, tiny):
    """A cache that holds one long prompt: who comes later and has more to do waits for its turn, but not for ever."""
    server = start_server(tiny, *ONE_TOKEN_STEPS, "--ctx", 256, "--kv-tokens", 256, "--max-queue-s", 1)
    with server.connect() as s:
        s.sendall(request_bytes({"prompt": [[5] * 256] * 1000, "top_n": 0}))
        wait_until(lambda: jobs(server)["running"] == 1)
        reply = ask(server, {"prompt": [[6] * 256] * 1024, "top_n": 0})
        assert reply.status == 503 and reply.headers["Retry-After"] and "waited more than 1 s" in reply.json()["error"]["message"]
        wait_until(lambda: jobs(server)["held"] == 1)


@pytest.mark.parametrize("n_bytes", [5, 60, 150, None])
def test_clients_that_send_and_leave_at_once(start_server, tiny, n_bytes):
    """The end of a connection that comes together with its last bytes, before or after a job was made of them."""
    server = start_server(tiny)
    before = footprint(server)[0]
    for _ in range(50):
        with server.connect() as s:
            s.sendall(request_bytes({"prompt": LONG, "top_n": 1, "format": "ndjson"})[:n_bytes])
    wait_until(lambda: jobs(server)["held"] == 0 and footprint(server)[0] == before)


def footprint(server):
    """File descriptors, threads and resident KiB of the process."""
    proc = pathlib.Path("/proc") / str(server.process.pid)
    resident = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
    return len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir())), resident


def churn(server, n):
    """n mixed requests by 8 clients: good, bad, refused, streamed, and left in the middle."""

    def one(i):
        kind = i % 6
        if kind == 5:
            with server.connect() as s:
                s.sendall(request_bytes({"prompt": [LONG] * 3, "top_n": 5, "format": "ndjson"})[: 150 if i % 4 else None])
            return
        body = [{"prompt": "a", "top_n": 2}, {"prompt": ""}, {"promt": 1}, {"prompt": [5], "top_n": "full"}, {"prompt": "b", "format": "ndjson"}][kind]
        reply = server.post("/distribution", body)
        assert reply.status == (400 if kind in (1, 2) else 200), reply.body

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(n)))
    wait_until(lambda: jobs(server)["held"] == 0)


@pytest.mark.parametrize("n", [2000, pytest.param(100_000, marks=pytest.mark.long)])
def test_nothing_is_left_behind(start_server, tiny, n):
    """A leak grows every time; what requests that happened to meet took at once, and the allocator kept, does not."""
    server = start_server(tiny)
    churn(server, 2000)
    with open(f"/proc/{server.process.pid}/maps", encoding="utf-8") as maps:
        sanitized = re.search(r"lib[at]san", maps.read())  # which keeps freed memory for a while
    grown_kib = []
    while len(grown_kib) < 3 and (not grown_kib or grown_kib[-1] > 4096):
        before = footprint(server)
        churn(server, n)
        wait_until(lambda: footprint(server)[0] <= before[0])
        after = footprint(server)
        assert after[1] == before[1]
        grown_kib.append(0 if sanitized else after[2] - before[2])
    assert grown_kib[-1] <= 4096, grown_kib
