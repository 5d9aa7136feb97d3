"""The limits of a server: each has a flag, is shown by GET /model, and answers what is over it with a sentence that names it."""

import concurrent.futures
import socket
import subprocess

import pytest
from serving import PATIENCE_S, Server

JSON = {"Content-Type": "application/json"}
MIB = 1 << 20


SMALL = {
    "body_bytes": 2000, "text_bytes": 50, "json_values": 60, "prompts": 3, "request_tokens": 40,
    "request_positions": 45, "result_bytes": 30_000, "memory_bytes": 64 * MIB, "connections": 40, "jobs": 9, "stall_s": 30,
}  # fmt: skip


def flags(values):
    return [word for name, value in values.items() for word in ("--max-" + name.replace("_", "-"), value)]


@pytest.fixture(scope="module")
def small(logitd, tiny):
    with Server(logitd, tiny, *flags(SMALL)) as running:
        yield running


def test_model_shows_every_limit(small, logitd):
    limits = small.get("/model").json()["limits"]
    assert {name: limits[name] for name in SMALL} == SMALL
    text = subprocess.run([logitd, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    in_help = [line.split()[0] for line in text.splitlines() if line.startswith("  --max-")]
    assert {flag[len("--max-") :].replace("-", "_") for flag in in_help} <= set(limits)


def test_model_shows_the_worst_case(small):
    memory = small.get("/model").json()["memory"]
    parts = ("model_bytes", "engine_bytes", "requests_bytes", "connections_bytes")
    assert memory["worst_bytes"] == sum(memory[part] for part in parts) <= memory["machine_bytes"]
    assert memory["requests_bytes"] == SMALL["memory_bytes"] and all(memory[part] > 0 for part in parts)


@pytest.mark.parametrize("path, body, status, words", [
    ("/distribution", {"prompt": "a" * 2000}, 413, "at most 2000"),
    ("/distribution", {"prompt": "a" * 120_000}, 413, "the body has 120014 bytes; at most 2000 are taken"),  # read, not cut off
    ("/distribution", {"prompt": [1] * 80}, 413, "60 values"),
    ("/distribution", {"prompt": [[1]] * 4}, 400, "1 to 3"),
    ("/distribution", {"prompt": [[1] * 20, [1] * 21]}, 413, "with prompt[1] the request has 41 tokens; at most 40"),
    ("/distribution", {"prompt": [1] * 41}, 413, "with prompt the request has 41 tokens; at most 40"),
    ("/distribution", {"prompt": [1] * 5, "positions": [0] * 46}, 413, "at most 45"),
    ("/distribution", {"prompt": [1] * 40, "top_n": 200}, 413, "at most 30000"),
    ("/tokenize", {"text": "a" * 51}, 413, "at most 50"),
])  # fmt: skip
def test_over_a_limit(small, path, body, status, words):
    reply = small.post(path, body)
    assert reply.status == status and words in reply.json()["error"]["message"], reply.body


def test_a_body_that_is_not_read_to_its_end_is_refused_at_once(small):
    """The server waited for it."""
    host, port = small.netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as s:
        s.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999999999\r\n\r\n{")
        reply = s.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 413 ") and b"the body has 9999999999 bytes; at most 2000 are taken" in reply


def test_at_the_limits(small):
    assert small.distribution(prompt=[[1] * 20, [1] * 20], top_n=10)["usage"]["positions"] == 40
    assert len(small.distribution(prompt=[1] * 2, positions=[0] * 45)["results"][0]["positions"]) == 45
    assert small.post("/tokenize", {"text": "a" * 50}).status == 200


@pytest.mark.parametrize("flag, value, words", [
    ("--max-prompts", "0", "from 1 to"),
    ("--max-body-bytes", "16M", "integer"),
    ("--max-jobs", "", "integer"),
    ("--max-nothing", "1", "no option"),
])  # fmt: skip
def test_wrong_flags(logitd, tiny, flag, value, words):
    done = subprocess.run([logitd, "serve", "--model", tiny, flag, value], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and flag in done.stderr and words in done.stderr


def test_a_worst_case_over_the_machine_is_refused_at_start(logitd, tiny):
    done = subprocess.run([logitd, "serve", "--model", tiny, "--port", "0", "--max-memory-bytes", str(1 << 40)],
                          capture_output=True, text=True, timeout=600, check=False)  # fmt: skip
    assert done.returncode == 1 and "--max-memory-bytes" in done.stderr and "1048576" in done.stderr


def test_memory_for_requests_runs_out(start_server, tiny):
    """Bodies that together do not fit: some get 503 with Retry-After, none breaks the server, all memory comes back."""
    server = start_server(tiny, "--max-memory-bytes", 20 * MIB)
    body = b'{"text":"a"' + b" " * (6 * MIB) + b"}"
    assert server.post("/tokenize", body, JSON).status == 200
    server.wait_at_rest()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: server.post("/tokenize", body, JSON), range(48)))
    assert {reply.status for reply in replies} <= {200, 503}
    for reply in replies:
        if reply.status == 503:
            assert reply.headers["Retry-After"] and "memory" in reply.json()["error"]["message"]
    assert server.post("/tokenize", b'{"text":"a"' + b" " * (14 * MIB) + b"}", JSON).status == 503  # alone, too
    server.wait_at_rest()
    assert server.post("/tokenize", body, JSON).status == 200
    assert server.distribution(prompt="still alive", top_n=1)
