"""What the Python client does when a server is busy, wrong, closed or gone: retries, and exceptions with its sentence."""

import asyncio
import contextlib
import http.server
import json
import threading
import time
from datetime import datetime, timedelta, timezone

import logitd
import pytest
from logitd._requests import Retry, parse_retry_after

BUSY = {"error": {"message": "512 requests are in flight; try again", "type": "busy", "param": None, "code": "unavailable"}}
NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=timezone.utc)


@contextlib.contextmanager
def stub(*replies):
    """A server that gives these (status, headers, body) in turn, the last again and again; yields its URL and the times."""
    times = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = replies[min(len(times), len(replies) - 1)]
            times.append(time.monotonic())
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", times
        finally:
            running.shutdown()
            thread.join()


def ask(twin, url, **options):
    """model() by one client or the other."""
    if twin == "sync":
        with logitd.Client(url, **options) as client:
            return client.model()

    async def ask_async():
        async with logitd.AsyncClient(url, **options) as client:
            return await client.model()

    return asyncio.run(ask_async())


both = pytest.mark.parametrize("twin", ["sync", "async"])


@both
def test_a_busy_server_is_asked_again_when_it_says(twin):
    with stub((503, {"Retry-After": "0.2"}, BUSY), (429, {"Retry-After": "0.3"}, BUSY), (200, {}, {"name": "m"})) as (url, times):
        assert ask(twin, url) == {"name": "m"}
    assert len(times) == 3
    assert times[1] - times[0] >= 0.2 and times[2] - times[1] >= 0.3


@both
def test_waiting_doubles_where_the_server_names_no_time(twin):
    with stub((503, {}, BUSY), (503, {}, BUSY), (200, {}, {})) as (url, times):
        ask(twin, url, retries=Retry(first_s=0.1))
    assert times[1] - times[0] >= 0.1 and times[2] - times[1] >= 0.2


@both
def test_it_gives_up_with_the_servers_sentence(twin):
    with stub((429, {"Retry-After": "0", "X-Request-Id": "r-7"}, BUSY)) as (url, times):
        with pytest.raises(logitd.Busy, match="512 requests are in flight; try again") as caught:
            ask(twin, url, retries=3)
        assert len(times) == 4
    error = caught.value
    assert (error.status, error.code, error.request_id, error.retry_after_s) == (429, "unavailable", "r-7", 0.0)


def test_it_does_not_begin_a_wait_beyond_the_total():
    with stub((503, {"Retry-After": "3600"}, BUSY)) as (url, times):
        start = time.monotonic()
        with pytest.raises(logitd.Busy):
            ask("sync", url)
        assert len(times) == 1 and time.monotonic() - start < 600


def test_the_waiting_is_bounded_in_all():
    retry = Retry(attempts=100, total_s=10, first_s=1)
    waited, n_sent = 0.0, 1
    while (wait := retry.wait_s(503, n_sent, waited, None)) is not None:
        waited, n_sent = waited + wait, n_sent + 1
    assert waited == 1 + 2 + 4
    assert retry.wait_s(500, 1, 0, None) is None and retry.wait_s(400, 1, 0, 1.0) is None
    assert retry.wait_s(429, 1, 9.5, 0.5) == 0.5 and retry.wait_s(429, 1, 9.5, 0.6) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("", None), ("2", 2.0), ("-1", 0.0), ("soon", None),
     ("Wed, 25 Nov 2026 12:00:30 GMT", 30.0), ("Wed, 25 Nov 2026 11:00:00 GMT", 0.0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert parse_retry_after(header, NOW) == seconds
    assert parse_retry_after("Wed, 25 Nov 2026 12:00:30 GMT", NOW + timedelta(seconds=10)) == 20.0


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "BadRequest"), (404, "BadRequest"), (401, "Unauthorized"), (403, "Unauthorized"), (413, "TooLarge"),
     (429, "Busy"), (503, "Busy"), (500, "ServerFailed"), (502, "ServerFailed")],
)  # fmt: skip
def test_every_status_has_its_exception(status, kind):
    with stub((status, {}, BUSY)) as (url, _), pytest.raises(logitd.ApiError) as caught:
        ask("sync", url, retries=0)
    assert type(caught.value).__name__ == kind and isinstance(caught.value, logitd.LogitdError)


def test_an_error_that_is_not_logitds_is_shown():
    with stub((502, {}, b"<html>Bad gateway</html>")) as (url, _):
        with pytest.raises(logitd.ServerFailed, match="HTTP status 502, not from logitd itself: <html>Bad gateway"):
            ask("sync", url)
        with pytest.raises(logitd.ServerFailed), logitd.Client(url) as client:
            client.health()


def test_health_of_a_server_that_is_not_ready_is_no_error():
    state = {"status": "draining", "ready": False}
    with stub((503, {"Content-Type": "application/json"}, state)) as (url, times), logitd.Client(url) as client:
        assert client.health() == state and len(times) == 1


def test_a_bad_field_is_named(server):
    with logitd.Client(server.url) as client:
        with pytest.raises(logitd.BadRequest, match=r"positions\[1\] is 99; prompt 0 has 3 tokens") as caught:
            client.distribution(["one two three", "x"], positions=[0, 99])
        assert caught.value.param == "positions[1]" and caught.value.status == 400 and caught.value.request_id
        with pytest.raises(logitd.TooLarge, match="bytes"):
            client.distribution([[1] * 8192, [2] * 8192], top_n="full", temperatures=[1.0] * 32)
        with pytest.raises(logitd.BadRequest, match="top_n"):
            next(client.stream("x", top_n=-1))
        with pytest.raises(logitd.BadRequest, match="temperatures"):
            next(client.iter_full("x", temperatures=[0]))


@pytest.mark.parametrize(
    ("prompt", "options", "param", "words"),
    [
        ("a b", {"temperatures": 0.5}, "temperatures", "is 0.5; it must be an array"),
        ("a b", {"temperatures": ["x"]}, "temperatures[0]", 'is the string "x"'),
        ("a b", {"temperature": 0.5, "temperatures": [1]}, "temperature", "temperatures"),
        ("a b", {"positions": -1}, "positions", "is -1; it must be"),
        ("a b", {"token_ids": " Paris"}, "token_ids", 'is the string " Paris"'),
        ("a b", {"token_ids": 7042}, "token_ids", "is 7042; it must be an array"),
        (None, {}, "prompt", "is null; it must be"),
        ([1.5, 2], {}, "prompt[0]", "is 1.5; it must be a token id"),
        ([1, "a"], {}, "prompt[1]", 'is the string "a"'),
        (["a", 5], {}, "prompt[1]", "must all be strings"),
    ],
)
def test_slips_get_the_server_s_sentence(server, prompt, options, param, words):
    with logitd.Client(server.url) as client:
        for ask_for in (client.distribution, lambda *args, **options: next(client.stream(*args, **options))):
            with pytest.raises(logitd.BadRequest) as caught:
                ask_for(prompt, **options)
            assert caught.value.param == param and words in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [(b"bytes", {}, r"decode them"), (memoryview(b"bytes"), {}, r"decode them"), ("a\ud800", {}, "surrogates not allowed"), ("a", {"temperatures": [float("nan")]}, "not JSON compliant"),
     (object(), {}, "not JSON serializable")],
)  # fmt: skip
def test_what_is_no_json_is_not_sent(prompt, options, words):
    with logitd.Client("http://127.0.0.1:9") as client, pytest.raises(logitd.LogitdError, match=words):
        client.distribution(prompt, **options)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "localhost:8080", "ftp://127.0.0.1", "http://:80", "http://127.0.0.1:port", ""])
def test_a_url_that_is_none(url):
    for twin in (logitd.Client, logitd.AsyncClient):
        with pytest.raises(logitd.LogitdError, match=f"^'{url}' is not the URL of a server; it must look like http://127"):
            twin(url)


def test_keys(start_server, model_path, tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text("me 0123456789abcdef0123456789abcdef\n")
    running = start_server(model_path("smollm2"), "--api-keys", keys)
    with logitd.Client(running.url) as client, pytest.raises(logitd.Unauthorized):
        client.distribution("x")
    with logitd.Client(running.url, "0123456789abcdef0123456789abcdef") as client:
        assert len(client.distribution("x y")) == 2


@both
def test_nobody_there(twin):
    with stub((200, {}, {})) as (url, _):
        pass
    with pytest.raises(logitd.ConnectionFailed, match=f"no server answers at {url}.*is it running"):
        ask(twin, url)


def test_a_server_that_says_nothing():
    with stub((200, {"Content-Length": "100"}, b"half")) as (url, _):
        with pytest.raises(logitd.ConnectionFailed, match="longer timeout|broke"):
            ask("sync", url, timeout=0.3)


def test_a_stream_that_fails_midway():
    head = {"usage": {"positions": 2}, "values": "logprob", "temperatures": [1]}
    failed = json.dumps(head) + "\n" + json.dumps({"error": {**BUSY["error"], "message": "the backend failed"}}) + "\n"
    with stub((200, {}, failed.encode())) as (url, _), logitd.Client(url) as client:
        with pytest.raises(logitd.ServerFailed, match="the backend failed"):
            list(client.stream("x"))
    with stub((200, {}, json.dumps(head).encode() + b"\n")) as (url, _), logitd.Client(url) as client:
        with pytest.raises(logitd.ConnectionFailed, match="cut short"):
            list(client.stream("x"))
