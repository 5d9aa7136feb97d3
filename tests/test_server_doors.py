"""Who may ask, and what is written about it: Host check, CORS, keys and their rotation, request ids, logs, /health."""

import http.client
import json
import re
import signal
import ssl
import subprocess

import pytest
from serving import Server, request_bytes, wait_until

ALICE, BOB, CAROL = "alice-0123456789abcdef", "bob-0123456789abcdef", "carol-0123456789abcdef"
ORIGIN = "https://lab.example"
LONG = "The quick brown fox jumps over the lazy dog. " * 5  # 160 tokens: of 900 such prompts, a token a step, nobody waits for the end


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# people\nalice {ALICE}\n\n  bob\t{BOB}  \r\n")
    return path


@pytest.fixture(scope="module")
def plain(logitd, tiny):
    with Server(logitd, tiny) as running:
        yield running


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


# ------------------------------------------------------------------------------------------------------------- Host


@pytest.mark.parametrize("host, status", [
    ("localhost", 200), ("LocalHost:8080", 200), ("127.0.0.1:99", 200), ("[::1]:8080", 200), ("[::1]", 200), ("10.0.0.7", 200),
    ("evil.example", 403), ("evil.example:8080", 403), ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403),
    ("", 403), ("[evil]", 403), ("x" * 5000, 403),
])  # fmt: skip
def test_host(plain, host, status):
    reply = plain.get("/health", {"Host": host})
    assert reply.status == status
    if status == 403:
        error = reply.json()["error"]
        assert "--allow-host" in error["message"] and error["type"] == "forbidden"


def test_allowed_hosts(start_server, tiny):
    server = start_server(tiny, "--allow-host", "lab.example", "--allow-host", "other.example")
    assert [server.get("/health", {"Host": h}).status for h in ("lab.example:80", "Other.Example", "third.example")] == [200, 200, 403]


def test_no_host_check_beyond_loopback(start_server, tiny):
    server = start_server(tiny, "--host", "0.0.0.0")
    assert server.get("/health", {"Host": "lab.example"}).status == 200


@pytest.mark.parametrize("version, lines, words", [
    ("1.0", [], None), ("1.0", ["localhost"], None), ("1.0", ["localhost", "localhost"], "there are 2 Host headers"),
    ("1.1", [], "there is no Host header; a request of HTTP/1.1 has one"),
    ("1.1", ["localhost", "localhost"], "there are 2 Host headers"), ("1.1", ["localhost", "evil.example"], "there are 2 Host headers"),
    ("1.1", ["local host"], "the Host header is local host; "), ("1.1", ["localhost:80:80"], "it must be a name or an address"),
    ("1.1", ["localhost:http"], "it must be"), ("1.1", ["http://localhost"], "it must be"), ("1.1", ["me@localhost"], "it must be"),
    ("1.1", ["localhost/"], "it must be"), ("1.1", ["[::1"], "it must be"), ("1.1", ["[::1]x"], "it must be"), ("1.1", ["caf\u00e9"], "it must be"),
    ("1.1", ["localhost:"], None), ("1.1", ["[::1]:"], None), ("1.1", ["127.0.0.1"], None),
])  # fmt: skip
def test_there_is_one_right_host(plain, version, lines, words):
    """RFC 9112, 3.2."""
    with plain.connect() as s:
        s.sendall("\r\n".join([f"GET /health HTTP/{version}", "Connection: close", *(f"Host: {line}" for line in lines), "", ""]).encode())
        head, body = s.makefile("rb").read().split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 400" if words else b"HTTP/1.1 200") and b"X-Request-Id" in head
    if words:
        error = json.loads(body)["error"]
        assert words in error["message"] and error["type"] == "invalid_request"


# ------------------------------------------------------------------------------------------------------------- CORS

PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


def test_cors_is_off(plain):
    reply = plain.get("/health", {"Origin": ORIGIN})
    assert reply.status == 200 and not [name for name in reply.headers if name.startswith("Access-Control")]
    assert plain.request("OPTIONS", "/distribution", headers={"Origin": ORIGIN, **PREFLIGHT}).status == 405


def test_cors_by_origin(start_server, tiny, keys_file):
    server = start_server(tiny, "--allow-origin", ORIGIN, "--api-keys", keys_file)
    reply = server.request("OPTIONS", "/distribution", headers={"Origin": ORIGIN, **PREFLIGHT})  # browsers send no key with it
    assert reply.status == 204 and reply.body == b""
    assert reply.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in reply.headers["Access-Control-Allow-Methods"] and "Authorization" in reply.headers["Access-Control-Allow-Headers"]
    reply = server.post("/distribution", {"prompt": "a", "top_n": 1}, {"Origin": ORIGIN, **bearer(ALICE)})
    assert reply.status == 200 and reply.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Origin" in ",".join(reply.headers.get_all("Vary"))
    denied = server.post("/distribution", {"prompt": "a"}, {"Origin": ORIGIN})
    assert denied.status == 401 and denied.headers["Access-Control-Allow-Origin"] == ORIGIN  # so that a page can read why
    other = server.get("/health", {"Origin": "https://evil.example"})
    assert other.status == 200 and other.headers["Access-Control-Allow-Origin"] is None


def test_cors_for_all(start_server, tiny):
    server = start_server(tiny, "--allow-origin", "*")
    assert server.get("/health", {"Origin": "null"}).headers["Access-Control-Allow-Origin"] == "null"


# ------------------------------------------------------------------------------------------------------------- keys


def test_keys(start_server, tiny, keys_file):
    server = start_server(tiny, "--api-keys", keys_file)
    ask = lambda headers: server.post("/distribution", {"prompt": "a", "top_n": 1}, headers)  # noqa: E731
    assert ask(bearer(ALICE)).status == ask(bearer(BOB)).status == 200
    assert ask({"Authorization": f"bearer {ALICE}"}).status == 200
    for headers in ({}, bearer(CAROL), bearer(ALICE[:-1]), bearer(ALICE + "x"), bearer(""), {"Authorization": ALICE}, {"Authorization": f"Basic {ALICE}"}):
        reply = ask(headers)
        assert reply.status == 401 and reply.headers["WWW-Authenticate"] == "Bearer"
        error = reply.json()["error"]
        assert error["type"] == "authentication" and error["code"] == "bad_key" and "Bearer" in error["message"]
        assert ALICE[6:] not in error["message"]
    assert [server.get(path).status for path in ("/", "/docs", "/health", "/model", "/vocab", "/nowhere")] == [200, 200, 200, 401, 401, 401]
    assert server.get("/model", bearer(BOB)).status == 200


def test_keys_are_rotated_by_sighup(start_server, tiny, keys_file):
    server = start_server(tiny, "--api-keys", keys_file)
    works = lambda key: server.get("/model", bearer(key)).status == 200  # noqa: E731
    assert works(ALICE) and not works(CAROL)
    keys_file.write_text(f"carol {CAROL}\n")
    assert works(ALICE)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: works(CAROL))
    assert not works(ALICE) and not works(BOB)
    keys_file.write_text("dave short\n")  # a mistake changes nothing
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "stay as they were" in server.log())
    assert works(CAROL)


@pytest.mark.parametrize("text, words", [
    ("", "no key"), ("# nobody\n", "no key"), ("alice\n", "line 1"), ("# x\nalice " + ALICE + " more\n", "line 2"),
    ("alice short\n", "16 to 256"), ("a/b " + ALICE + "\n", "line 1"), ("alice " + "x" * 257, "line 1"), ("alice " + "x" * 9999, "line 1"),
    ("alice caf\u00e9-0123456789abcdef\n", "line 1"), (None, "cannot open"), ("folder", "cannot read the file of keys"),
    (f"alice {ALICE}\n" * 10001, "more than 10000 keys"),
])  # fmt: skip
def test_a_wrong_file_of_keys(logitd, tiny, tmp_path, text, words):
    path = tmp_path / "keys"
    if text == "folder":
        path.mkdir()
    elif text is not None:
        path.write_text(text)
    done = subprocess.run([logitd, "serve", "--model", tiny, "--port", "0", "--api-keys", path],
                          capture_output=True, text=True, timeout=600, check=False)  # fmt: skip
    assert done.returncode == 1 and words in done.stderr and ALICE not in done.stderr


def test_as_many_keys_as_are_held(start_server, tiny, tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"alice {ALICE}\n" * 10000 + "# the end\n\n")
    server = start_server(tiny, "--api-keys", path)
    assert server.get("/model", {"Authorization": f"Bearer {ALICE}"}).status == 200


def test_a_key_is_a_client(start_server, tiny, keys_file):
    """Limits of one client are by key, not by address, where there are keys."""
    server = start_server(tiny, "--api-keys", keys_file, "--batch-tokens", 1, "--max-jobs-per-client", 1)
    with server.connect() as s:
        s.sendall(request_bytes({"prompt": [LONG] * 900, "top_n": 0}, extra=f"Authorization: Bearer {ALICE}\r\n"))
        wait_until(lambda: server.get("/health").json()["jobs"]["held"] == 1)
        assert server.post("/distribution", {"prompt": "a"}, bearer(ALICE)).status == 429
        assert server.post("/distribution", {"prompt": "a", "top_n": 1}, bearer(BOB)).status == 200


# ------------------------------------------------------------------------------------------------ ids, logs, health


def test_request_ids(plain):
    assert plain.get("/health", {"X-Request-Id": "abc-1.2_Z"}).headers["X-Request-Id"] == "abc-1.2_Z"
    made = [plain.get("/health", {"X-Request-Id": bad}).headers["X-Request-Id"] for bad in ("", "a b", 'a"b', "x" * 65, "é")]
    made += [plain.get("/nowhere").headers["X-Request-Id"], plain.post("/distribution", {}).headers["X-Request-Id"]]
    assert len(set(made)) == len(made) and all(re.fullmatch(r"[0-9a-f]{16}-\d+", each) for each in made)


def test_logs_are_json_and_hold_no_secret(start_server, tiny, keys_file):
    server = start_server(tiny, "--api-keys", keys_file, "--log-format", "json", "--log-level", "debug")
    server.post("/distribution", {"prompt": "my secret text", "top_n": 1}, {"X-Request-Id": "one", **bearer(ALICE)})
    server.get('/mod%22el%5C%0A?token=hidden', {"X-Request-Id": "two", **bearer("wrong-key-0123456789")})
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.stderr]
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    requests = {line["request_id"]: line for line in lines if "request_id" in line}
    one, two = requests["one"], requests["two"]
    assert (one["method"], one["path"], one["status"], one["client"], one["cut"]) == ("POST", "/distribution", 200, "key:alice", False)
    assert one["tokens"] > 0 and one["ms"] > 0 and one["reply_bytes"] > 100
    assert two["status"] == 401 and two["client"] == "127.0.0.1" and two["path"] == "/mod?el??"
    text = "".join(server.stderr)
    for secret in (ALICE, BOB, "my secret text", "hidden", "wrong-key"):
        assert secret not in text


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_model_may_have_any_name(start_server, tiny, tmp_path, log_format):
    """The name's bytes went as they are to the log, whose JSON was none then, and into /metrics, which is UTF-8."""
    path, name = tmp_path / "named.gguf", b'\x1b[1m\xff"\n\\\x80'
    assert len(name) == len(b"llama_mha")
    path.write_bytes(tiny.read_bytes().replace(b"llama_mha", name, 1))
    server = start_server(path, "--log-format", log_format)
    assert server.get("/model").json()["name"] == name.decode(errors="replace")
    assert 'name="\x1b[1m\ufffd\\"\\n\\\\\ufffd",' in server.get("/metrics").body.decode()
    assert server.stop() == 0
    lines = [json.loads(line)["message"] for line in server.stderr] if log_format == "json" else server.stderr
    assert any(' [1m?" \\?: llama' in line for line in lines), lines


def test_where_it_listens_is_said_also_without_stdout(logitd, tiny, tmp_path):
    """The line was lost, and with --port 0 the port."""
    log = tmp_path / "log"
    with open("/dev/full", "w") as full, log.open("w") as stderr:
        process = subprocess.Popen([logitd, "serve", "--model", tiny, "--port", "0"], stdout=full, stderr=stderr)
    try:
        wait_until(lambda: re.search(r"warning: cannot write stdout; listening on http://127\.0\.0\.1:\d+\n", log.read_text()))
    finally:
        process.terminate()
        assert process.wait() == 0


def test_ready_and_alive(start_server, tiny):
    server = start_server(tiny, "--batch-tokens", 1)
    health = server.get("/health").json()
    assert health["alive"] is health["ready"] is True
    assert [server.get("/health?probe=" + p).status for p in ("alive", "ready", "other")] == [200, 200, 400]
    with server.connect() as s:
        s.sendall(request_bytes({"prompt": [LONG] * 900, "top_n": 0}))
        wait_until(lambda: server.get("/health").json()["jobs"]["held"] == 1)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.get("/health").status == 503)
        health = server.get("/health").json()
        assert (health["status"], health["alive"], health["ready"]) == ("draining", True, False)
        assert [server.get("/health?probe=" + p).status for p in ("alive", "ready")] == [200, 503]


# -------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)  # fmt: skip
    return folder


def test_tls(start_server, tiny, certificate):
    server = start_server(tiny, "--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem")
    assert server.url.startswith("https://")
    context = ssl.create_default_context(cafile=certificate / "cert.pem")
    connection = http.client.HTTPSConnection(server.netloc, context=context, timeout=600)
    for body, first in (({"prompt": "a", "top_n": 2}, b"{"), ({"prompt": "a b c", "top_n": "full", "format": "ndjson"}, b"{")):
        connection.request("POST", "/distribution", json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        assert reply.status == 200 and reply.read(1) == first and len(reply.read()) > 100
    connection.close()
    with server.connect() as s:  # plain HTTP
        s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" not in s.recv(100)


def test_wrong_tls_files(logitd, tiny, certificate):
    cert, key = certificate / "cert.pem", certificate / "key.pem"
    for args, code, words in (
        (["--tls-cert", cert], 2, "needed together"),
        (["--tls-cert", cert, "--tls-key", certificate / "none"], 1, "cannot open"),
        (["--tls-cert", key, "--tls-key", cert], 1, "--tls-cert"),
    ):
        done = subprocess.run([logitd, "serve", "--model", tiny, "--port", "0", *args], capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == code and words in done.stderr
