"""A cut of a GGUF file: its first layers and tokens, so that a test on real weights takes seconds.

    cut_model.py MODEL.gguf CUT.gguf N_LAYERS N_VOCAB [KEY=INT…]      KEY: of the architecture, e.g. attention.sliding_window

The weights are the file's own, byte by byte. Texts need tokens that may be cut off: ask with ids. The file is read here,
since gguf.GGUFReader takes 20 s for the strings of a large vocabulary; the gguf package writes.
"""

import re
import struct
import sys

import gguf
import numpy as np

KINDS = gguf.GGUFValueType
NUMBERS = {KINDS.UINT8: "B", KINDS.INT8: "b", KINDS.UINT16: "H", KINDS.INT16: "h", KINDS.UINT32: "I", KINDS.INT32: "i",
           KINDS.FLOAT32: "f", KINDS.BOOL: "?", KINDS.UINT64: "Q", KINDS.INT64: "q", KINDS.FLOAT64: "d"}
TOKENS = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")


class File:
    """keys: {name: (kind, kind of its elements or None, value)}; tensors: [(name, type, its bytes in rows)]."""

    def __init__(self, path):
        self.bytes, self.at = np.memmap(path, np.uint8, "r"), 0
        magic, _, n_tensors, n_keys = self.numbers("4sIQQ")
        assert magic == b"GGUF", path
        self.keys = {}
        for _ in range(n_keys):
            name, kind, of = self.text(), KINDS(self.number("I")), None
            if kind == KINDS.ARRAY:
                of = KINDS(self.number("I"))
                value = [self.value(of) for _ in range(self.number("Q"))]
            else:
                value = self.value(kind)
            self.keys[name] = kind, of, value
        infos = [(self.text(), self.numbers(f"{self.number('I')}Q"), *self.numbers("IQ")) for _ in range(n_tensors)]
        alignment = self.keys.get("general.alignment", (None, None, 32))[2]
        start = -(-self.at // alignment) * alignment
        self.tensors = []
        for name, dims, kind, offset in infos:
            kind = gguf.GGMLQuantizationType(kind)
            n_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            shape = *reversed(dims[1:]), dims[0] // n_block * block_bytes
            first = start + offset
            self.tensors.append((name, kind, self.bytes[first : first + int(np.prod(shape))].reshape(shape)))

    def numbers(self, layout):
        found = struct.unpack_from("<" + layout, self.bytes, self.at)
        self.at += struct.calcsize("<" + layout)
        return found

    def number(self, layout):
        return self.numbers(layout)[0]

    def text(self):
        n = self.number("Q")
        self.at += n
        return bytes(self.bytes[self.at - n : self.at]).decode()

    def value(self, kind):
        return self.text() if kind == KINDS.STRING else self.number(NUMBERS[kind])


def cut(source, target, n_layers, n_vocab, **keys):
    """Writes `target` and returns its path; keys replace those of the architecture: **{"attention.sliding_window": 16}."""
    file = File(source)
    arch = file.keys["general.architecture"][2]
    changes = {f"{arch}.{key}": value for key, value in ({"block_count": n_layers} | keys).items()}
    unknown = changes.keys() - file.keys.keys()
    if unknown:
        raise ValueError(f"{source} has no {', '.join(sorted(unknown))}")
    writer = gguf.GGUFWriter(target, arch)
    for name, (kind, of, value) in file.keys.items():
        if name != "general.architecture":
            value = value[:n_vocab] if name in TOKENS else changes.get(name, value)
            writer.add_key_value(name, value, kind, sub_type=of)
    for name, kind, data in file.tensors:
        layer = re.match(r"blk\.(\d+)\.", name)
        if not layer or int(layer[1]) < n_layers:
            data = data[:n_vocab] if name in ("token_embd.weight", "output.weight") else data
            writer.add_tensor(name, np.ascontiguousarray(data), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


if __name__ == "__main__":
    model, path, layers, vocabulary, *changed = sys.argv[1:]
    cut(model, path, int(layers), int(vocabulary), **{k: int(v) for k, v in (c.split("=") for c in changed)})
