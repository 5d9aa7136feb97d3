"""The largest replies on a vocabulary of 262,144 tokens lift the server's memory by at most 64 MiB, whatever the number of
temperatures or the reader's pace; and what they hold is what a smaller question gets.
"""

import http.client
import json
import re
import time

import numpy as np
import pytest
from safetensors.numpy import load
from serving import Server

N_VOCAB = 262144
MAY_GROW_MIB = 64
IDS = [(i * 7919 + 1000) % N_VOCAB for i in range(512)]


def memory_mib(server):
    """What the process holds now apart from mapped files, the most that it ever held, and what it has of those files."""
    status = open(f"/proc/{server.process.pid}/status", encoding="ascii").read()
    return [int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024 for name in ("RssAnon", "VmHWM", "RssFile")]


def grown_mib(server, before):
    """The more of: what it holds now, and the most that it held, beyond `before`. Pages of the model that have come back
    do not count: a machine short of memory takes them and gives them."""
    (held, most, mapped), (held_now, most_now, mapped_now) = before, memory_mib(server)
    return max(held_now - held, most_now - most - max(mapped_now - mapped, 0))


@pytest.fixture(scope="module")
def gemma(logitd, model_path):
    """With everything touched that serves every request: the weights, the batch's buffers."""
    with Server(logitd, model_path("gemma3")) as running:
        assert running.distribution(prompt=IDS, top_n=1)["usage"]["positions"] == 512
        assert running.distribution(prompt=IDS, top_n=1, positions={"stop": 128})["usage"]["positions"] == 128
        yield running


def read_reply(server, body, pause_s=0.0):
    """Reads a reply piece by piece; its size and its first bytes."""
    connection = http.client.HTTPConnection(server.netloc, timeout=900)
    connection.request("POST", "/distribution", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    assert reply.status == 200
    n, first = 0, bytearray()
    buffer = bytearray(1 << 20)
    while k := reply.readinto(buffer):
        if len(first) < 4 << 20:
            first += buffer[:k]
        n += k
        time.sleep(pause_s)
    announced = reply.headers["Content-Length"]
    connection.close()
    assert announced is None or int(announced) == n
    return n, first


@pytest.mark.parametrize("fields, least_mib", [
    ({"format": "safetensors"}, 512),
    ({"format": "safetensors", "dtype": "float16", "positions": {"stop": 128}}, 64),
    ({"format": "safetensors", "temperatures": [1 + i / 8 for i in range(32)], "positions": {"stop": 16}}, 512),
    ({"format": "ndjson", "positions": {"stop": 64}}, 128),
    ({"format": "json", "positions": {"stop": 64}}, 128),
], ids=["float32", "float16", "temperatures", "ndjson", "json"])  # fmt: skip
def test_full_replies_need_little_memory(gemma, fields, least_mib):
    before = memory_mib(gemma)
    n, first = read_reply(gemma, {"prompt": IDS, "top_n": "full", **fields})
    assert n >= least_mib << 20
    assert grown_mib(gemma, before) <= MAY_GROW_MIB
    if fields["format"] == "safetensors" and "dtype" not in fields and "temperatures" not in fields:
        row = load(gemma.post("/distribution", {"prompt": IDS, "top_n": "full", "format": "safetensors", "positions": [0]}).body)
        head = 8 + int.from_bytes(first[:8], "little")
        np.testing.assert_array_equal(np.frombuffer(first[head : head + 4 * N_VOCAB], "<f4"), row["prompt.0.logprob"][0, 0])


def test_a_slow_reader_costs_no_more(gemma):
    before = memory_mib(gemma)
    read_reply(gemma, {"prompt": IDS[:96], "top_n": "full", "format": "safetensors"}, pause_s=0.01)
    assert grown_mib(gemma, before) <= MAY_GROW_MIB


def test_no_memory_for_full_rows_is_said_at_once(start_server, model_path):
    """32 rows of logits take 32 MiB here: without them the reply is an error, not a head with nothing behind it."""
    server = start_server(model_path("gemma3"), "--max-memory-bytes", 16 << 20)
    for reply_format in ("json", "ndjson", "safetensors"):
        reply = server.post("/distribution", {"prompt": [5, 6], "top_n": "full", "format": reply_format})
        assert reply.status == 503 and reply.headers["Retry-After"]
        assert "no memory for full rows" in reply.json()["error"]["message"]
    assert server.distribution(prompt=[5, 6], top_n=3)["results"]
