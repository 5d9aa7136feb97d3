#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizer_*.json: llama.cpp's ids for the texts of tok_corpus.py.

    make_tokenizer_fixtures.py [NAME…]     names: smollm2 gemma3 small; default all

smollm2, gemma3   the real vocabularies (found in the user's cache folder), with and without control tokens
small             one small BPE vocabulary under every pre-split pattern, and one SentencePiece-style vocabulary with and
                  without the space prefix; both trained here. Where a pattern's own regular expression is known, says how
                  many texts `tokenizers` splits otherwise (llama.cpp is what the fixture follows), and shows some
"""

import json
import os
import pathlib
import sys
import tempfile

import llama_cpp
import tok_corpus
from mixed_text import LOOKALIKES, mixed_text, short_texts
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "logitd"
REAL = {"smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3": "gemma-3-270m-q4_k_m.gguf"}

# One name for each list of patterns in src/tok_pre.c.
PRES = ["default", "gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "qwen35", "seed-coder", "bailingmoe", "tekken", "gpt-4o",
        "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon", "poro-chat", "viking"]  # fmt: skip
N_SMALL = 6000  # short texts under each of them

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
OWN_PATTERNS = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [LLAMA3],
    "qwen2": [LLAMA3.replace("{1,3}", "")],
}

EXAMPLES = [
    "Hello, world!", " a  b   c    d", "\t\tx\n\n\n  y\r\n\r\nz  ", "It's we'll CAN'T 'Tis rock'n'roll", "1 12 123 1234567",
    "٣٤٥ ६७ ４５ Ⅷ ½", "中文分词，很有趣。日本語のテキスト", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก", "👩‍👩‍👧‍👦👍🏽🏳️‍🌈",
    "e\u0301 \u0301 \u0301\u0302x", "\u00a0x\u2003y\u3000z\u180e", "naïve café", "<b>bold</b> <table>", "a▁b ▁▁c",
    "<|im_start|>user\nHi<|im_end|>", "<start_of_turn>user\nHi<end_of_turn>", "<0x0A>", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    " " * 70, "\n" * 70, "\t" * 40, "  \n \n   x", "\x04\x06\x1d ok", "\U00013430\U000323af\U0001e4f0", "", " ",
]  # fmt: skip


def oracle(path):
    return llama_cpp.Llama(str(path), vocab_only=True, verbose=False)


def encode(model, texts, special=False, add_bos=False):
    return [model.tokenize(t.encode(), add_bos=add_bos, special=special) for t in texts]


def save(name, fixture):
    path = FIXTURES / f"tokenizer_{name}.json"
    path.write_text(json.dumps(fixture, ensure_ascii=False, separators=(",", ":"), indent=None) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def make_real(name):
    model = oracle(CACHE / REAL[name])
    chunks, shorts = tok_corpus.corpus()
    fixture = {"texts": tok_corpus.texts_digest(chunks + shorts), "bos": [model.token_bos(), *encode(model, ["x"])[0]]}
    for key, special in [("plain", False), ("special", True)]:
        fixture[key] = {
            "chunks": [tok_corpus.digest(ids) for ids in encode(model, chunks, special)],
            "shorts": tok_corpus.digests(encode(model, shorts, special)),
            "examples": dict(zip(EXAMPLES, encode(model, EXAMPLES, special))),
        }
    save(name, fixture)


def train_bpe():
    """A vocabulary whose merges cross every boundary that a pattern may draw, so that a wrong split shows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1100, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False, max_token_length=8
    )
    texts = short_texts(1, 30_000) + mixed_text(1, 300_000).split("\n\n")
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = ["<|bos|>", "<|eos|>", "<tag>", "</tag>", "  "]
    types = [tok_corpus.CONTROL, tok_corpus.CONTROL] + [tok_corpus.USER_DEFINED] * 3
    words = sorted(model["vocab"], key=model["vocab"].get) + ["Ġentropy", "Ġhouse", "surprisal", "Ġwords"]  # no merges lead here
    merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
    return {"tokens": tokens + words, "types": types + [tok_corpus.NORMAL] * len(words), "merges": merges}


def train_spm():
    """Tokens are words' beginnings and pieces, scores partly equal; characters outside ASCII are mostly missing."""
    tokens = ["<unk>", "<s>", "</s>", "<tag>", *(f"<0x{b:02X}>" for b in range(256))]
    types = [tok_corpus.UNKNOWN, tok_corpus.CONTROL, tok_corpus.CONTROL, tok_corpus.USER_DEFINED] + [tok_corpus.BYTE] * 256
    scores = [0.0] * len(tokens)
    counts = {}
    for text in short_texts(2, 20_000) + mixed_text(2, 100_000).split("\n"):
        for word in ("▁" + text.replace(" ", " ▁")).split(" "):
            for i in range(len(word)):
                for n in range(1, min(8, len(word) - i) + 1):
                    counts[word[i : i + n]] = counts.get(word[i : i + n], 0) + 1
    best = sorted(counts, key=lambda p: (-counts[p] * len(p), p))[:900]
    for i, piece in enumerate(best):
        if piece not in tokens and "<0x" not in piece:  # llama.cpp would merge such pieces of text into a byte token
            tokens.append(piece)
            types.append(tok_corpus.NORMAL)
            scores.append(-float(i // 3))
    return {"tokens": tokens, "types": types, "scores": scores}


def own_split(vocab, patterns):
    """`tokenizers` with this vocabulary and the model's own regular expressions."""
    ids = {t: i for i, t in enumerate(vocab["tokens"])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[tuple(m.split(" ")) for m in vocab["merges"]]))
    stages = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*stages, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def compare_own(pre, vocab, texts, want):
    plain = [(t, w) for t, w in zip(texts, want) if not any(x in t for x in ["<tag>", "</tag>", "  "])]
    tokenizer = own_split(vocab, OWN_PATTERNS[pre])
    tokenizer.model.ignore_merges = pre == "llama-bpe"
    differ = [t for t, w in plain if tokenizer.encode(t, add_special_tokens=False).ids != w]
    print(f"  {pre}: tokenizers differs in {len(differ)} of {len(plain)}: {differ[:3]}")


def make_small():
    texts = short_texts(3, N_SMALL) + LOOKALIKES + EXAMPLES + [f"x{a}<tag>{b}" for a in EXAMPLES for b in ["", " y"]]
    bpe, spm = train_bpe(), train_spm()
    fixture = {"texts": tok_corpus.texts_digest(texts), "bpe": bpe, "spm": spm, "ids": {}}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "vocab.gguf"
        for pre in PRES:
            tok_corpus.write_bpe(path, pre, bpe)
            ids = encode(oracle(path), texts)
            fixture["ids"][pre] = tok_corpus.digests(ids)
            if pre in OWN_PATTERNS:
                compare_own(pre, bpe, texts, ids)
        for prefix in [False, True]:
            tok_corpus.write_spm(path, prefix, spm)
            fixture["ids"][f"spm {prefix}"] = tok_corpus.digests(encode(oracle(path), texts, special=prefix))
    save("small", fixture)


if __name__ == "__main__":
    for name in sys.argv[1:] or [*REAL, "small"]:
        make_small() if name == "small" else make_real(name)
