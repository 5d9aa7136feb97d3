"""Bad requests to a real server: status, `param` and words of the sentence, as a table; then what no table can hold."""

import gzip
import http.client
import json

import pytest

JSON = {"Content-Type": "application/json"}


def error_of(reply, status):
    assert reply.status == status, (reply.status, reply.body[:300])
    assert reply.headers["Content-Type"] == "application/json"
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"] and error["code"]
    return error


# Further fields beside "prompt": "The cat" (2 tokens), or a body; the param of the error, words of its message.
FIELDS = [
    ({"prompt": None}, "prompt", "null"),
    ({"prompt": ""}, "prompt", "no tokens"),
    ({"prompt": []}, "prompt", "0 items"),
    ({"prompt": ["a", ""]}, "prompt[1]", "no tokens"),
    ({"prompt": ["a", 5]}, "prompt[1]", "is 5"),
    ({"prompt": [5, "a"]}, "prompt[1]", "token id"),
    ({"prompt": [5, 49152]}, "prompt[1]", "49151"),
    ({"prompt": [[5], [6, -1]]}, "prompt[1][1]", "is -1"),
    ({"prompt": [[5], []]}, "prompt[1]", "no tokens"),
    ({"prompt": [True]}, "prompt[0]", "true"),
    ({"prompt": [[[5]]]}, "prompt[0][0]", "array"),
    ({"prompt": [1] * 8193}, "prompt", "8193 tokens"),
    ({"prompt": ["a", "word " * 9000]}, "prompt[1]", "8192"),
    ({"prompt": [5], "add_bos": True}, "add_bos", "leave it out"),
    ({"prompt": [[5]], "special": True}, "special", "leave it out"),
    ({"add_bos": "yes"}, "add_bos", "true or false"),
    ({"special": 1}, "special", "true or false"),
    ({"positions": [2]}, "positions[0]", "-2 to 1"),
    ({"positions": [0, -3]}, "positions[1]", "-2 to 1"),
    ({"positions": [0, 0.5]}, "positions[1]", "0.5"),
    ({"positions": "none"}, "positions", "last"),
    ({"positions": 3}, "positions", "is 3"),
    ({"positions": None}, "positions", "null"),
    ({"positions": {"step": 0}}, "positions.step", "0"),
    ({"positions": {"from": 0}}, "positions.from", '"positions.from" is unknown; the fields are start, stop, step'),
    ({"positions": {"start": "0"}}, "positions.start", "integer"),
    ({"temperatures": []}, "temperatures", "1 to 32"),
    ({"temperatures": [1] * 33}, "temperatures", "33"),
    ({"temperatures": [1, 0.0001]}, "temperatures[1]", "0.001"),
    ({"temperatures": [1001]}, "temperatures[0]", "1000"),
    ({"temperatures": ["1"]}, "temperatures[0]", "string"),
    ({"temperatures": 1}, "temperatures", "array"),
    ({"temperature": [1]}, "temperature", "array"),
    ({"temperature": 0}, "temperature", "is 0"),
    ({"temperature": True}, "temperature", "true"),
    ({"temperature": 1, "temperatures": [1]}, "temperature", "both"),
    ({"top_n": 1025}, "top_n", "1024"),
    ({"top_n": -1}, "top_n", "is -1"),
    ({"top_n": 1.5}, "top_n", "is 1.5"),
    ({"top_n": "5"}, "top_n", "full"),
    ({"top_n": True}, "top_n", "true"),
    ({"top_n": None}, "top_n", "null"),
    ({"values": "odds"}, "values", "logit"),
    ({"values": None}, "values", "null"),
    ({"token_ids": [49152]}, "token_ids[0]", "49151"),
    ({"token_ids": [0] * 1025}, "token_ids", "1025"),
    ({"token_ids": "all"}, "token_ids", "array"),
    ({"stats": 1}, "stats", "true or false"),
    ({"format": "xml"}, "format", "ndjson"),
    ({"format": None}, "format", 'is null; it must be "json", "ndjson" or "safetensors"'),
    ({"dtype": "int8"}, "dtype", "float16"),
    ({"promt": "x"}, "promt", "did you mean prompt"),
    ({"seed": 1}, "seed", "unknown"),
]


@pytest.mark.parametrize("fields, param, words", FIELDS, ids=lambda v: v if isinstance(v, str) else json.dumps(v)[:40])
def test_fields(server, fields, param, words):
    error = error_of(server.post("/distribution", {"prompt": "The cat", **fields}), 400)
    assert error["param"] == param
    assert words in error["message"]


# Bodies as they are: what JSON is not.
TEXTS = [
    (b"", None, "empty"),
    (b"{}", "prompt", "missing"),
    (b"[]", None, "an array"),
    (b"{", None, "not valid JSON"),
    (b'{"prompt":"a"} x', None, "byte 15"),
    (b'{"prompt":"a","prompt":"b"}', "prompt", "twice"),
    (b'{"prompt":"a","positions":{"stop":1,"stop":2}}', "positions.stop", "twice"),
    (b'{"prompt":[["a"],[1,{"k":1,"k":2}]]}', "prompt[1][1].k", "twice"),
    (b'{"prompt":[[[{"k":{"l":1,"l":2}}]]]}', "prompt[0][0][0].k.l", "twice"),
    (b'{"prompt":"a\\u0000b"}', None, "holds a NUL, which a text here cannot have; leave it out, or send token ids"),
    (b'{"prompt":"a\x00b"}', None, "holds a NUL at byte 12, which a text here cannot have; leave it out, or send token ids"),
    (b'{"prompt":"a\nb"}', None, "control character"),
    (b'{"prompt":"\xff"}', None, "UTF-8 at byte 11"),
    (b'{"prompt":"\xc0\x80"}', None, "UTF-8 at byte 11"),
    (b'{"prompt":"\xed\xa0\x80"}', None, "UTF-8"),
    (b'{"prompt":"\\ud800"}', None, "surrogate"),
    (b'{"prompt":"\\q"}', None, "escape"),
    (b'{"prompt":"a","top_n":1e400}', "top_n", "float64"),
    (b'{"prompt":"a","top_n":' + b"9" * 100 + b"}", None, "100 characters"),
    (b'{"prompt":"a","temperature":NaN}', None, "not valid JSON"),
    (b'{"prompt":"a","temperature":-Infinity}', None, "number"),
    (b'{"prompt":[' + b"1," * 2100000 + b"1]}", None, "values"),
    (b'{"prompt":' + b"[" * 100000, None, "deeper than 32"),
    (b'{"prompt":' + b'{"a":' * 40 + b"1" + b"}" * 41, None, "deeper than 32"),
]


@pytest.mark.parametrize("body, param, words", TEXTS, ids=lambda v: repr(v)[:40])
def test_bodies(server, body, param, words):
    reply = server.post("/distribution", body, JSON)
    error = error_of(reply, 413 if words == "values" else 400)
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize("path, body, param", [
    ("/tokenize", {}, "text"),
    ("/tokenize", {"text": 1}, "text"),
    ("/tokenize", {"text": "a", "special": None}, "special"),
    ("/tokenize", {"text": "a", "x": 1}, "x"),
    ("/detokenize", {}, "ids"),
    ("/detokenize", {"ids": 3}, "ids"),
    ("/detokenize", {"ids": [1, 49152]}, "ids[1]"),
    ("/detokenize", {"ids": ["a"]}, "ids[0]"),
])  # fmt: skip
def test_other_routes(server, path, body, param):
    assert error_of(server.post(path, body), 400)["param"] == param


@pytest.mark.parametrize("accept, content_type", [
    (None, "application/json"),
    ("*/*", "application/json"),
    ("application/x-ndjson", "application/x-ndjson"),
    ("application/json;q=0.2, application/x-ndjson;q=0.7", "application/x-ndjson"),
    ("application/x-ndjson;q=0, text/plain", "application/json"),  # the default for a client that names none
    ("text/html", "application/json"),
    ("application/vnd.safetensors", "application/vnd.safetensors"),
])  # fmt: skip
def test_accept(server, accept, content_type):
    headers = {"Accept": accept} if accept else {}
    reply = server.post("/distribution", {"prompt": "a", "top_n": 0}, headers)
    assert reply.status == 200 and reply.headers["Content-Type"] == content_type


def test_a_list_of_formats_may_have_several_lines(server):
    connection = http.client.HTTPConnection(server.netloc, timeout=600)
    body = json.dumps({"prompt": "The cat sat on the mat." * 20}).encode()
    connection.putrequest("POST", "/distribution", skip_accept_encoding=True)
    for name, value in [*JSON.items(), ("Content-Length", len(body)), ("Accept", "text/html"), ("Accept", "application/x-ndjson"),
                        ("Accept-Encoding", "br"), ("Accept-Encoding", "gzip;q=0.5")]:  # fmt: skip
        connection.putheader(name, value)
    connection.endheaders(body)
    reply = connection.getresponse()
    assert (reply.getheader("Content-Type"), reply.getheader("Content-Encoding")) == ("application/x-ndjson", "gzip")
    assert json.loads(gzip.decompress(reply.read()).splitlines()[0])["object"] == "distribution"
    connection.close()


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp",
                                          "application/json; charset=latin-1", "application/json; charset=utf-8859"])  # fmt: skip
def test_content_type(server, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    assert "application/json" in error_of(server.post("/distribution", b'{"prompt":"a"}', headers), 415)["message"]


def test_content_encoding(server):
    """A compressed body was said to be no JSON."""
    body = b'{"prompt":"a","top_n":0}'
    error = error_of(server.post("/distribution", gzip.compress(body), {**JSON, "Content-Encoding": "gzip"}), 415)
    assert error["message"] == "the Content-Encoding is gzip; send the body as it is, without one"
    assert server.post("/distribution", body, {**JSON, "Content-Encoding": "identity"}).status == 200


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON", "application/json; charset=UTF-8",
                                          'application/json;charset="utf-8" ; a=b'])  # fmt: skip
def test_content_types_taken(server, content_type):
    body = b'{"prompt":"a","top_n":0}'
    assert server.post("/distribution", body, {"Content-Type": content_type}).status == 200


@pytest.mark.parametrize("method, path, status, allow", [
    ("GET", "/nowhere", 404, None),
    ("POST", "/distribution/", 404, None),
    ("OPTIONS", "/distribution", 405, "POST"),
    ("HEAD", "/tokenize", 405, "POST"),
    ("GET", "/distribution", 405, "POST"),
    ("DELETE", "/distribution", 405, "POST"),
    ("POST", "/health", 405, "GET, HEAD"),
    ("PATCH", "/model", 405, "GET, HEAD"),
])  # fmt: skip
def test_paths_and_methods(server, method, path, status, allow):
    reply = server.request(method, path, b"{}" if method != "GET" else None, JSON)
    assert reply.status == status and reply.headers["Allow"] == allow
    if method != "HEAD":
        sentence = error_of(reply, status)["message"]
        assert sentence.endswith(f"it takes {allow}" if allow else "/openapi.json lists what there is")


def test_home_page(server):
    reply = server.get("/")
    assert reply.status == 200 and reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"<title>logitd</title>" in reply.body and b"/distribution" in reply.body


def test_a_text_far_over_the_context_is_not_even_encoded(server):
    """10 MB in one word took seconds to encode before it was refused."""
    n_ctx = server.get("/model").json()["n_ctx"]
    error = error_of(server.post("/distribution", {"prompt": ["a", "x" * 10_000_000]}), 400)
    assert error["param"] == "prompt[1]" and str(n_ctx) in error["message"] and "10000000 bytes" in error["message"]


def test_too_large(server):
    limit = server.get("/model").json()["limits"]["body_bytes"]
    error = error_of(server.post("/distribution", b" " * (limit + 1), JSON), 413)
    assert str(limit) in error["message"] and str(limit + 1) in error["message"]

    def chunks():
        for _ in range(limit // (1 << 20) + 1):
            yield b" " * (1 << 20)

    connection = http.client.HTTPConnection(server.netloc, timeout=600)
    connection.request("POST", "/distribution", chunks(), JSON, encode_chunked=True)
    reply = connection.getresponse()
    assert reply.status == 413 and str(limit) in json.loads(reply.read())["error"]["message"]
    connection.close()
    assert server.get("/health").status == 200


def test_errors_leave_the_connection_usable(server):
    connection = http.client.HTTPConnection(server.netloc, timeout=600)
    for body in (b"{", b'{"prompt":"a","top_n":0}', b"{}", b'{"prompt":"a","top_n":0}'):
        connection.request("POST", "/distribution", body, JSON)
        reply = connection.getresponse()
        reply.read()
        assert reply.status == (200 if b"top_n" in body else 400)
    connection.close()
