"""Token ids are llama.cpp's: both real vocabularies on 1.2 MB of mixed text and 20,000 short strings, and a small
vocabulary under every pre-split pattern. Tokens give the text back, with their offsets. The ids are in
fixtures/tokenizer_*.json (oracle/make_tokenizer_fixtures.py); the texts are made anew from their seed.
"""

import json
import pathlib
import subprocess

import pytest
import tok_corpus
from mixed_text import LOOKALIKES, mixed_text, short_texts

FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures"
MODELS = ["smollm2", "gemma3"]


def fixture(name):
    return json.loads((FIXTURES / f"tokenizer_{name}.json").read_text())


@pytest.fixture(scope="module")
def program(logitd):
    return logitd.parent / "tests" / "tokenize"


@pytest.fixture(scope="module")
def tokenize(program, tmp_path_factory):
    """tokenize(model, texts, *flags): what tests/tools/tokenize.c prints, a line each."""
    file = tmp_path_factory.mktemp("texts") / "texts"

    def run(model, texts, *flags):
        file.write_bytes(b"".join(text.encode() + b"\0" for text in texts))
        done = subprocess.run([program, model, *flags, file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


@pytest.fixture(scope="module")
def encode(tokenize):
    def run(model, texts, *flags):
        lines = tokenize(model, texts, *flags)
        assert len(lines) == len(texts)
        return [[int(word) for word in line.split()] for line in lines]

    return run


@pytest.fixture(scope="module")
def corpus():
    chunks, shorts = tok_corpus.corpus()
    return chunks, shorts, tok_corpus.texts_digest(chunks + shorts)


def differing(got, want):
    return [i for i, (g, w) in enumerate(zip(got, want, strict=True)) if g != w]


@pytest.mark.parametrize("special", ["plain", "special"])
@pytest.mark.parametrize("name", MODELS)
def test_ids_are_llama_cpps(name, special, encode, model_path, corpus):
    chunks, shorts, texts_digest = corpus
    stored = fixture(name)
    assert texts_digest == stored["texts"], "the generator makes another text than when the fixture was made"
    want, flags = stored[special], ["-s"] * (special == "special")
    examples = list(want["examples"])
    ids = encode(model_path(name), chunks + shorts + examples, *flags)
    n_chunks, n_shorts = len(chunks), len(shorts)
    assert dict(zip(examples, ids[n_chunks + n_shorts :], strict=True)) == want["examples"]
    got = [tok_corpus.digest(i) for i in ids[:n_chunks]]
    assert differing(got, want["chunks"]) == [], "chunks whose ids differ"
    got = tok_corpus.digests(ids[n_chunks : n_chunks + n_shorts])
    assert differing(got, want["shorts"]) == [], f"groups of {tok_corpus.GROUP} short texts whose ids differ"


@pytest.mark.parametrize("name", MODELS)
def test_bos_comes_first(name, encode, model_path):
    assert encode(model_path(name), ["x"], "-b") == [fixture(name)["bos"]]


@pytest.mark.parametrize("name", MODELS)
def test_tokens_give_the_text_back(name, tokenize, model_path, corpus):
    """But for ▁, which SentencePiece reads as a space, and for bytes that SmolLM2 has no token for."""
    lost = dict.fromkeys([0x2581, *([] if name == "gemma3" else [0x04, 0x06, 0x13, 0x14, 0x16, 0x1D])])
    lost |= {} if name == "gemma3" else dict.fromkeys(range(0x40000, 0xC0000))
    texts = [text.translate(lost) for text in corpus[0] + corpus[1]]
    assert tokenize(model_path(name), texts, "-c") == []
    assert tokenize(model_path(name), texts, "-c", "-s", "-b") == []


@pytest.fixture(scope="module")
def small():
    stored = fixture("small")
    examples = list(fixture("smollm2")["plain"]["examples"])
    texts = short_texts(3, 6000) + LOOKALIKES + examples + [f"x{a}<tag>{b}" for a in examples for b in ["", " y"]]
    assert tok_corpus.texts_digest(texts) == stored["texts"]
    return stored, texts


@pytest.mark.parametrize("pre", [k for k in fixture("small")["ids"] if not k.startswith("spm")])
def test_every_pattern_splits_as_llama_cpp(pre, small, encode, tmp_path):
    stored, texts = small
    tok_corpus.write_bpe(tmp_path / "vocab.gguf", pre, stored["bpe"])
    got = tok_corpus.digests(encode(tmp_path / "vocab.gguf", texts))
    assert differing(got, stored["ids"][pre]) == [], "groups of texts whose ids differ"


@pytest.mark.parametrize("prefix", [False, True])
def test_sentencepiece_merges_as_llama_cpp(prefix, small, encode, tmp_path):
    stored, texts = small
    tok_corpus.write_spm(tmp_path / "vocab.gguf", prefix, stored["spm"])
    got = tok_corpus.digests(encode(tmp_path / "vocab.gguf", texts, *["-s"] * prefix))
    assert differing(got, stored["ids"][f"spm {prefix}"]) == [], "groups of texts whose ids differ"


@pytest.mark.parametrize("name", MODELS)
def test_speed(name, program, tokenize, model_path):
    """5 MB/s on one thread is promised. A fifth of it must show in CPU time, which depends little on what else the
    machine does; sanitized builds are not timed."""
    lines = tokenize(model_path(name), [mixed_text(9, 400_000)], "-t", "8")
    mb_per_s = float(lines[1].split(",")[-1].split()[0])
    sanitized = any(name in program.read_bytes() for name in [b"__asan_init", b"__tsan_init"])
    assert sanitized or mb_per_s > 1, lines
