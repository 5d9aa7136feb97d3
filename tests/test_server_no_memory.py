"""Every allocation on the way of a request made to fail in turn, ours and the libraries' (tools/failing_malloc.c): the
reply is right, or a 503 that says so, or cut where it had begun; the server answers the next request; nothing is kept.
"""

import http.client
import json
import mmap
import os
import pathlib
import struct
import time
import zlib

import pytest
from serving import PATIENCE_S, Server

FIELDS = ("countdown", "for_good", "n_live", "n_failed", "in_library")
MOST_ALLOCATIONS = 2000  # of one request

TEXT = "The quick brown fox jumps. "
FULL = {"prompt": TEXT, "top_n": "full", "temperatures": [0.5, 1]}
REQUESTS = {
    "json": ("POST", "/distribution", {"prompt": TEXT, "top_n": 3}, {}),
    "whole json": ("POST", "/distribution", {"prompt": [TEXT, "a"], "top_n": 5, "token_ids": [1, 2]}, {"Connection": "close"}),
    "streamed json": ("POST", "/distribution", FULL, {}),
    "ndjson": ("POST", "/distribution", {"prompt": TEXT, "format": "ndjson"}, {}),
    "safetensors": ("POST", "/distribution", FULL | {"format": "safetensors", "dtype": "float16"}, {}),
    "gzip": ("POST", "/distribution", FULL, {"Accept-Encoding": "gzip"}),
    "zstd": ("POST", "/distribution", FULL, {"Accept-Encoding": "zstd"}),
    "ids": ("POST", "/distribution", {"prompt": [[1, 2], [3]], "positions": [0, -1]}, {}),
    "tokenize": ("POST", "/tokenize", {"text": TEXT}, {}),
    "detokenize": ("POST", "/detokenize", {"ids": [1, 2, 3]}, {}),
    "vocab": ("GET", "/vocab", None, {}),
    "vocab as arrays": ("GET", "/vocab?format=safetensors", None, {}),
    "model": ("GET", "/model", None, {}),
    "metrics": ("GET", "/metrics", None, {}),
    "health": ("GET", "/health", None, {}),
    "an error": ("POST", "/distribution", {"promt": 1}, {}),
}  # fmt: skip


class Control:
    """The struct of failing_malloc.c."""

    def __init__(self, path):
        path.write_bytes(bytes(8 * len(FIELDS)))
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)

    def __getattr__(self, name):
        return struct.unpack_from("q", self.map, 8 * FIELDS.index(name))[0]

    def put(self, name, value):
        struct.pack_into("q", self.map, 8 * FIELDS.index(name), value)


@pytest.fixture(scope="module")
def failing(request, tmp_path_factory, tiny):
    """A server and the control of its allocator."""
    binary = pathlib.Path(request.config.getoption("--build")).resolve() / "tests" / "logitd_no_memory"
    folder = tmp_path_factory.mktemp("no_memory")
    control = Control(folder / "control")
    os.environ["LOGITD_TEST_ALLOC"] = str(folder / "control")
    try:
        server = Server(binary, tiny, "--threads", 1)
    finally:
        del os.environ["LOGITD_TEST_ALLOC"]
    with server:
        yield server, control


def ask(server, method, path, body, headers):
    """(status, headers, body, whole); status None: the connection was closed without a reply."""
    connection = http.client.HTTPConnection(server.netloc, timeout=PATIENCE_S)
    body = None if body is None else json.dumps(body)
    try:
        connection.request(method, path, body, dict(headers) | ({"Content-Type": "application/json"} if body else {}))
        reply = connection.getresponse()
        try:
            return reply.status, reply.headers, reply.read(), True
        except (http.client.IncompleteRead, ConnectionResetError) as cut:
            return reply.status, reply.headers, getattr(cut, "partial", b""), False
    except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
        return None, {}, b"", False
    finally:
        connection.close()


def is_at_rest(server, control, n_most=None):
    """Allocations alive once the server has nothing to do: equal at two looks, or `n_most` at the most."""
    end = time.monotonic() + PATIENCE_S
    last = None
    while True:
        assert server.process.poll() is None, server.log()
        now = control.n_live
        if now == last if n_most is None else now <= n_most:
            return now
        assert time.monotonic() < end, f"{now} allocations are alive, and were {n_most}"
        last = now
        time.sleep(0.05 if n_most is None else 0.002)
        if n_most is not None and control.n_live > n_most:
            server.get("/health")  # the library frees a connection that it cut at the next event of that thread


def content(headers, body):
    """What a right reply says, its changing parts aside; the bytes of a codec are checked by the client of gzip."""
    if headers.get("Content-Encoding") == "gzip":
        body = zlib.decompressobj(31).decompress(body)
    if headers.get("Content-Encoding") == "zstd":
        assert body[:4] == b"\x28\xb5\x2f\xfd"
        return "zstd"
    if headers["Content-Type"].startswith("text/plain"):
        return sorted({line.split()[2] for line in body.decode().splitlines() if line.startswith("# TYPE")})
    if headers["Content-Type"] == "application/vnd.safetensors":
        return body
    if headers["Content-Type"] == "application/x-ndjson":
        lines = [json.loads(line) for line in body.splitlines()]
        return [line for line in lines[1:-1] if "timing_ms" not in line]
    parsed = json.loads(body)
    return {k: v for k, v in parsed.items() if k not in ("id", "created", "timing_ms", "uptime_s", "jobs", "steps", "tokens", "full_rows")
            or k == "tokens" and isinstance(v, list)}  # fmt: skip


def check(reply, wanted, in_library):
    """Whether the reply is untouched; a wrong one fails."""
    status, headers, body, whole = reply
    if status is None:
        assert in_library, "closed without a word, though the library had what it needed"
        return False
    if status == 503:
        error = json.loads(body)["error"]
        assert whole and headers["Retry-After"] and error["type"] == "busy" and "memory" in error["message"], body
        return False
    assert status == wanted[0], (status, body[:300])
    if not whole:
        return False
    if headers.get("Content-Type") == "application/x-ndjson" and "error" in json.loads(body.splitlines()[-1]):
        return False
    if headers.get("Content-Encoding") == wanted[1].get("Content-Encoding"):
        assert content(headers, body) == content(wanted[1], wanted[2])
    else:
        assert headers.get("Content-Encoding") is None and headers["Content-Type"] == wanted[1]["Content-Type"]
        content(headers, body)
    return True


@pytest.mark.parametrize("name, for_good", [(name, 0) for name in REQUESTS] + [(name, 1) for name in ("json", "ndjson", "zstd", "vocab")])
def test_allocation_fails(failing, name, for_good):
    """for_good: that one and all after it, until the reply is there."""
    server, control = failing
    wanted = None
    for _ in range(3):  # what is made once and kept
        wanted = ask(server, *REQUESTS[name])
        assert wanted[0] == (400 if name == "an error" else 200), wanted
    n_before = is_at_rest(server, control)
    k = 0
    while True:
        k += 1
        assert k < MOST_ALLOCATIONS
        n_failed = control.n_failed
        control.put("for_good", for_good)
        control.put("countdown", k)
        reply = ask(server, *REQUESTS[name])
        control.put("countdown", 0)
        is_at_rest(server, control, n_before)
        if control.n_failed == n_failed:
            break
        check(reply, wanted, control.in_library)
        assert check(ask(server, *REQUESTS[name]), wanted, False), f"the request after failure {k}"
        is_at_rest(server, control, n_before)
    assert k > 3 and check(reply, wanted, False)
