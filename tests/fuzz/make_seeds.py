"""The seeds of the harnesses: inputs that are right, or wrong in the ways that protocols are.

    make_seeds.py DIR       writes DIR/<harness>/<name> for every harness, and DIR/<harness>.dict where words help

Needs numpy and gguf (small models, by tests/oracle/arch_models.py). The same files on every run.
"""

import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "oracle"))

import arch_models  # noqa: E402  (after the path)
import gguf  # noqa: E402

BODIES = [
    b'{"prompt":"abc"}',
    b'{"prompt":["ab","c"],"add_bos":true,"special":false,"positions":[-1,0,0],"temperatures":[2,0.001,1000]}',
    b'{"prompt":[1,2,259],"top_n":"full","values":"logit","format":"safetensors","dtype":"float16"}',
    b'{"prompt":[[1,2],[3]],"top_n":0,"values":"prob","token_ids":[0,259,0],"stats":false,"format":"ndjson"}',
    b'{"prompt":"na\xc3\xafve \\u732b \\ud83d\\ude00 \\n","positions":{"start":-1,"stop":null,"step":-2},"temperature":0.5}',
    b'{"prompt":"a","positions":"last","top_n":1024}',
    b'{"prompt":"a","positions":[],"top_n":3e0}',
    b'{"prompt":"a","promt":1}',
    b'{"prompt":"a","top_n":1e400}',
    b'{"prompt":"a\\u0000b"}',
    b'{"prompt":' + b"[" * 40,
]

TEXTS = [
    b"aba ab 11111 <s> <tool> [T] ",
    "naïve 猫 ▁▁a ▁ 😀\u200d e\u0301".encode(),
    b"\n\n  \t if (x == 1) {\r\n    return 'don''t';\n}",
    b"\xff\xc0\x80\xed\xa0\x80",
    b"a" * 300,
]

HEADERS = [
    b"application/json, application/x-ndjson;q=0.5, */*;q=0.1",
    b'application/vnd.safetensors; v="a,b;q=0"; q=1.000 , text/*',
    b"gzip;q=1.0, zstd;q=0.5, identity; q=0, *;q=0",
    b"req-0123.ABC_xyz",
    b"q=;;,,\t\"",
]

POST = b"POST /distribution HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
REQUESTS = [
    b"GET /health?probe=alive HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /model HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, zstd\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n",
    b"GET /vocab?format=safetensors HTTP/1.1\r\nHost: [::1]:80\r\nX-Request-Id: abc\r\n\r\n",
    b"HEAD /vocab HTTP/1.1\r\nHost: localhost\r\nAccept: */*;q=0\r\n\r\n",
    b"OPTIONS /health HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n",
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 12\r\n\r\n"
    b'{"text":"a"}',
    b"POST /detokenize HTTP/1.1\r\nContent-Type: application/json\r\nHost: 1.2.3.4\r\nExpect: 100-continue\r\n"
    b'Content-Length: 13\r\n\r\n{"ids":[1,2]}',
    POST + b"Transfer-Encoding: chunked\r\n\r\n" + b'8;x=y\r\n{"prompt\r\n5\r\n":"a"\r\n1\r\n}\r\n0\r\nT: x\r\n\r\n',
    POST + b"Content-Length: 5000\r\n\r\n" + b"[" * 5000,
    POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    POST + b"Content-Length: -1\r\nContent-Length: 3\r\n\r\nabc",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 GET / HTTP/9.9\n\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
] + [POST + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in BODIES]

WORDS = {
    "request": ["prompt", "add_bos", "special", "positions", "temperatures", "temperature", "top_n", "values", "token_ids", "stats",
                "format", "dtype", "start", "stop", "step", "all", "last", "full", "logprob", "prob", "logit", "json", "ndjson",
                "safetensors", "float16", "float32", "true", "false", "null", "\\\\u0000", "\\\\ud800", "1e308", "-0"],
    "http": ["GET ", "POST ", "HEAD ", "OPTIONS ", " HTTP/1.1\\x0d\\x0a", " HTTP/1.0\\x0d\\x0a", "/distribution", "/tokenize", "/detokenize",
             "/vocab", "/model", "/metrics", "/health", "/openapi.json", "Host: localhost\\x0d\\x0a", "Content-Length: ",
             "Content-Type: application/json\\x0d\\x0a", "Transfer-Encoding: chunked\\x0d\\x0a", "Expect: 100-continue\\x0d\\x0a",
             "Connection: close\\x0d\\x0a", "Connection: keep-alive\\x0d\\x0a", "Accept-Encoding: gzip\\x0d\\x0a", "Accept-Encoding: zstd\\x0d\\x0a",
             "Upgrade: h2c\\x0d\\x0a", "\\x0d\\x0a\\x0d\\x0a", "0\\x0d\\x0a\\x0d\\x0a", "{\\\"prompt\\\":\\\"a\\\"}", "%00", "?probe=ready"],
    "headers": ["application/json", "application/x-ndjson", "application/vnd.safetensors", "application/*", "*/*", "gzip", "x-gzip", "zstd",
                "identity", "q=0", "q=0.5", ";", ",", "charset=utf-8"],
    "tokenizer": ["<s>", "<tool>", "[T]", "\\xe2\\x96\\x81", " a", "ab", "11", "\\xf0\\x9f\\x98\\x80", "\\xe7\\x8c\\xab", "<|im_start|>", "<start_of_turn>",
                  "\\x0d\\x0a", "'ll"],
}  # fmt: skip

# As little as makes a model, its vocabulary no multiple of a tile: what costs the fuzzer time is the size, most of all
# the tokens. One has all bytes for tokens.
TINY = {"n_embd": 32, "n_head": 2, "n_head_kv": 1, "head_dim": 16, "n_ff": 32, "n_layer": 1, "n_ctx": 32, "n_vocab": 83, "n_bytes": 72,
        "n_letters": 3, "types": ("Q4_0",)}  # fmt: skip
MODELS = {
    "llama_yarn": TINY | {"n_vocab": 267, "n_bytes": 256},
    "llama_llama3": TINY | {"tied": False, "types": ("Q8_0", "Q5_1", "BF16")},
    "gemma3_softcap": TINY | {"types": ("Q5_0", "Q4_1", "F16")},
    "qwen2": TINY,
    "qwen3": TINY,
    "gpt2": TINY | {"n_head_kv": 2},
}


def write_vocabulary(path, model):
    """A file of a tokenizer and of values of all types, without tensors."""
    out = gguf.GGUFWriter(path, "llama")
    tokens = [f"<0x{i:02X}>" for i in range(256)] + ["\u2581", "a", "b", "ab", "\u2581a", "<s>", "[T]"]
    types = [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * 5 + [gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED]
    out.add_tokenizer_model(model)
    out.add_token_list(tokens)
    out.add_token_types(types)
    out.add_token_scores([-float(i) for i in range(len(tokens))])
    out.add_token_merges(["a b"])
    out.add_bos_token_id(261)
    for name, value in {"uint8": 1, "int8": -1, "uint16": 2, "int16": -2, "int32": -3, "uint64": 1 << 40, "int64": -1, "float64": 0.5,
                        "bool": True}.items():  # fmt: skip
        getattr(out, f"add_{name}")(f"x.{name}", value)
    out.add_array("x.floats", [0.5, 1.5])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def write_models(folder):
    for name, changes in MODELS.items():
        arch_models.write(name, folder / name, **changes)
    for model in ("llama", "gpt2"):
        write_vocabulary(folder / f"vocabulary_{model}", model)
    (folder / "nothing").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))


def main():
    root = pathlib.Path(sys.argv[1])
    floats = [0.1, 1.1754944e-38, 1e-45, 16777216.0, 3.4028235e38, float("inf"), float("nan"), -0.0, 9.999999e9, 33554450.0]
    seeds = {
        "request": [bytes([i % 4]) + body for i, body in enumerate(BODIES)],
        "tokenizer": [bytes([i]) + text for text in TEXTS for i in range(16)],
        "headers": HEADERS,
        "http": [b"\0" + request for request in REQUESTS] + [b"\xff" + REQUESTS[7]],
        "json": [b"\0" + struct.pack("<10f", *floats), b"\1" + struct.pack("<10d", *floats), b"\2a\"\\\x1f\x7f\xc3\xa9\xf0\x9f\xff\0"],
        "safetensors": [bytes((7 * i + k * (i + 3)) % 256 for k in range(64)) for i in range(24)],
        "gguf": [],
    }
    for harness, inputs in seeds.items():
        folder = root / harness
        folder.mkdir(parents=True, exist_ok=True)
        for i, data in enumerate(inputs):
            (folder / f"seed-{i:02}").write_bytes(data)
    write_models(root / "gguf")
    words = dict(WORDS, gguf=[key.decode() for key in sorted({field.name.encode() for field in fields(root / "gguf")})])
    for harness, list_of in words.items():
        (root / f"{harness}.dict").write_text("".join(f'"{word}"\n' for word in list_of))


def fields(folder):
    """Every key of the models."""
    for path in sorted(folder.iterdir()):
        if path.name != "nothing":
            yield from (field for field in gguf.GGUFReader(path).fields.values() if "." in field.name)


if __name__ == "__main__":
    main()
