"""A cut of a GGUF file: its first layers and tokens, so that a test on real weights takes seconds.

    cut_model.py MODEL.gguf CUT.gguf N_LAYERS N_VOCAB [KEY=INT…]      KEY: of the architecture, e.g. attention.sliding_window

The weights are the file's own, byte by byte. Texts need tokens that may be cut off: ask with ids.
"""

import re
import sys

import gguf


def copy_fields(reader, writer, n_vocab, changes):
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = changes.get(field.name, field.contents())
        kind = field.types[0]
        if kind == gguf.GGUFValueType.ARRAY:
            if field.name in ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
                value = value[:n_vocab]
            writer.add_key_value(field.name, value, kind, sub_type=field.types[-1])
        else:
            writer.add_key_value(field.name, value, kind)


def copy_tensors(reader, writer, n_layers, n_vocab):
    for tensor in reader.tensors:
        layer = re.match(r"blk\.(\d+)\.", tensor.name)
        if layer and int(layer[1]) >= n_layers:
            continue
        per_token = tensor.name in ("token_embd.weight", "output.weight")
        data = tensor.data[:n_vocab] if per_token else tensor.data
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)


def cut(source, target, n_layers, n_vocab, **keys):
    """Writes `target` and returns its path; keys replace those of the architecture: **{"attention.sliding_window": 16}."""
    reader = gguf.GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    changes = {f"{arch}.{key}": value for key, value in ({"block_count": n_layers} | keys).items()}
    unknown = changes.keys() - reader.fields.keys()
    if unknown:
        raise ValueError(f"{source} has no {', '.join(sorted(unknown))}")
    writer = gguf.GGUFWriter(target, arch)
    copy_fields(reader, writer, n_vocab, changes)
    copy_tensors(reader, writer, n_layers, n_vocab)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


if __name__ == "__main__":
    model, path, layers, vocabulary, *changed = sys.argv[1:]
    cut(model, path, int(layers), int(vocabulary), **{k: int(v) for k, v in (c.split("=") for c in changed)})
