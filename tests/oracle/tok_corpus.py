"""What the tokenizer fixtures are about: the texts, how ids are put in a fixture, and the small vocabularies.

    corpus()                    (chunks, shorts): 1.2 MB of mixed text in pieces, and short strings
    digests(list of id lists)   one hash for each GROUP lists
    write_bpe, write_spm        a GGUF with nothing but a tokenizer
"""

import hashlib

import gguf
from mixed_text import mixed_text, short_texts

SEED, CORPUS_BYTES, CHUNK_CHARS, N_SHORT, GROUP = 7, 1_200_000, 4000, 20_000, 100

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def corpus():
    text = mixed_text(SEED, CORPUS_BYTES)
    return [text[i : i + CHUNK_CHARS] for i in range(0, len(text), CHUNK_CHARS)], short_texts(SEED, N_SHORT)


def texts_digest(texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def digest(ids):
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()[:12]


def digests(lists):
    """One hash for each group of lists: a failing test can name the group, and the fixture stays small."""
    return [digest([i for ids in lists[g : g + GROUP] for i in [*ids, -1]]) for g in range(0, len(lists), GROUP)]


def _writer(path, model, tokens, types):
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list([t.encode() for t in tokens])
    writer.add_token_types(types)
    return writer


def _write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def write_bpe(path, pre, vocab):
    """vocab: {"tokens", "types", "merges"}."""
    writer = _writer(path, "gpt2", vocab["tokens"], vocab["types"])
    writer.add_tokenizer_pre(pre)
    writer.add_token_merges(vocab["merges"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    _write(writer)


def write_spm(path, space_prefix, vocab):
    """vocab: {"tokens", "types", "scores"}."""
    writer = _writer(path, "llama", vocab["tokens"], vocab["types"])
    writer.add_token_scores(vocab["scores"])
    writer.add_add_space_prefix(space_prefix)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    _write(writer)
