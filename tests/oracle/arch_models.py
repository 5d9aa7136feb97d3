"""Small random models as GGUF files, one for each feature of an architecture that logitd claims to support.

    arch_models.py DIR [NAME…]      writes DIR/NAME.gguf for all (or the named) variants

numpy and gguf only, and the same bytes on every machine: a frozen generator (RandomState), uniform deviates, no libm.
Keys and tensor names are those that llama.cpp's converter writes. Sizes are odd on purpose (vocabularies that are no
multiple of a tile, feed-forward widths of 32 x an odd number, heads of 48 and 80), weights are quantised in a mix of
formats, and gains are such that attention is peaked enough for a wrong angle, window or scale to show.
"""

import dataclasses
import math
import pathlib
import sys
import zlib

import gguf
import numpy as np

TYPES = gguf.GGMLQuantizationType
MIX = ("Q8_0", "Q4_1", "F16", "Q5_0", "Q4_0", "BF16", "Q5_1", "F32")
# Formats that the gguf package reads but does not write, as random blocks: offset of the scale d, mean of the quants
# (dmin / d for mean 0; None: no dmin), standard deviation of the weights of a random block with d = 1.
BLOCKS = {"Q4_K": (0, 7.5, 260), "Q6_K": (208, None, 1365), "Q2_K": (80, 1.5, 13.9), "IQ4_XS": (0, None, 1240),
          "Q5_K": (0, 15.5, 527), "Q3_K": (108, None, 43.5), "IQ4_NL": (0, None, 67.3)}


@dataclasses.dataclass
class Variant:
    """One model. `keys` are written as `<arch>.<key>`; floats as f32, ints as u32, text as a string."""

    arch: str
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_layer: int = 3
    n_vocab: int = 1009
    n_bytes: int = 256  # that are tokens, printable ones first
    n_letters: int = 26  # whose pairs are merges
    tied: bool = True
    attn_bias: bool = False
    types: tuple = MIX
    n_tokens: int = 48  # of the prompt that the tests use
    n_ctx: int = 256
    keys: dict = dataclasses.field(default_factory=dict)
    llama3_scaling: tuple = None  # factor, low_freq_factor, high_freq_factor, original context


LLAMA = {"arch": "llama", "n_embd": 288, "n_head": 6, "n_head_kv": 2, "head_dim": 48, "n_ff": 416}
GEMMA3 = {"arch": "gemma3", "n_embd": 160, "n_head": 4, "n_head_kv": 2, "head_dim": 64, "n_ff": 352, "n_layer": 8,
          "n_tokens": 72}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}

VARIANTS = {
    "llama_tied": Variant(**LLAMA),
    "llama_untied": Variant(**LLAMA, tied=False, n_vocab=1031, keys={"rope.freq_base": 100000.0}),
    "llama_head80": Variant(**LLAMA | {"head_dim": 80}, tied=False),
    "llama_mha": Variant("llama", 128, 2, 2, 64, 96, n_layer=2, n_vocab=1024, types=("F32",)),
    "llama_bias": Variant(**LLAMA, attn_bias=True),
    "llama_kquants": Variant("llama", 256, 4, 1, 64, 768, tied=False, types=tuple(BLOCKS)),
    "llama_linear": Variant(**LLAMA, keys={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "llama_yarn": Variant(**LLAMA, n_tokens=96, keys=YARN),
    "llama_yarn_factor": Variant(**LLAMA, n_tokens=96, keys=YARN | {"rope.scaling.attn_factor": 0.75}),
    "llama_yarn_betas": Variant(**LLAMA, n_tokens=96, keys=YARN | {"rope.scaling.yarn_beta_fast": 2.0,
                                                                  "rope.scaling.yarn_beta_slow": 0.5}),
    "llama_llama3": Variant(**LLAMA, n_tokens=96, llama3_scaling=(8.0, 1.0, 4.0, 64)),
    "gemma3": Variant(**GEMMA3, keys={"rope.freq_base": 1000000.0, "attention.sliding_window": 16}),
    "gemma3_softcap": Variant(**GEMMA3, keys={"rope.freq_base": 1000000.0, "attention.sliding_window": 15,
                                              "final_logit_softcapping": 5.0}),
    "gemma3_linear": Variant(**GEMMA3, keys={"rope.freq_base": 1000000.0, "attention.sliding_window": 16,
                                             "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
    "gemma3_bases": Variant(**GEMMA3, keys={"rope.freq_base": 500000.0, "attention.sliding_window": 16,
                                            "rope.freq_base_swa": 3000.0}),
    "qwen2": Variant("qwen2", 224, 7, 1, 32, 352, attn_bias=True, keys={"rope.freq_base": 1000000.0}),
    "qwen2_untied": Variant("qwen2", 224, 7, 1, 32, 352, attn_bias=True, tied=False),
    "qwen3": Variant("qwen3", 160, 4, 2, 64, 416, keys={"rope.freq_base": 1000000.0}),
    "gpt2": Variant("gpt2", 192, 4, 4, 48, 480),
    "gpt2_untied": Variant("gpt2", 192, 4, 4, 48, 480, tied=False),
}


# ----------------------------------------------------------------------------------------------------- weights


class Weights:
    """Random tensors in turn, each in the next format of the mix."""

    def __init__(self, name, types):
        self.random = np.random.RandomState(zlib.crc32(name.encode()))
        self.types, self.n = types, 0

    def deviates(self, *shape):
        """Mean 0, variance 1, nearly normal: sums of three uniform ones, exact in any IEEE arithmetic."""
        return (self.random.random_sample((3, *shape)).sum(0) - 1.5) * 2

    def vector(self, n, mean, spread):
        return (mean + spread * self.deviates(n)).astype(np.float32), TYPES.F32

    def matrix(self, n_out, n_in, gain=1.0):
        """[n_out, n_in] with entries of about gain / sqrt(n_in)."""
        kind = TYPES[self.types[self.n % len(self.types)]]
        self.n += 1
        spread = gain / math.sqrt(n_in)
        if kind.name in BLOCKS:
            return self.blocks(n_out, n_in, kind, spread), kind
        values = (spread * self.deviates(n_out, n_in)).astype(np.float32)
        return gguf.quants.quantize(values, kind), kind

    def blocks(self, n_out, n_in, kind, spread):
        """Random bytes, with the blocks' scales set so that the entries have about this spread."""
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        block = self.random.randint(0, 256, (n_out * n_in // weights, size)).astype(np.uint8)
        at, middle, deviation = BLOCKS[kind.name]
        d = spread / deviation
        block[:, at : at + 2] = np.float16([d]).view(np.uint8)
        if middle is not None:
            block[:, at + 2 : at + 4] = np.float16([d * middle]).view(np.uint8)
        return block.reshape(n_out, -1)


def tensors(name, v):
    """Yields (GGUF name, (data, type)) in the converter's order."""
    w = Weights(name, v.types)
    gpt2, gemma = v.arch == "gpt2", v.arch == "gemma3"
    n_q, n_kv = v.n_head * v.head_dim, v.n_head_kv * v.head_dim

    def norm(at, n=v.n_embd):
        yield f"{at}.weight", w.vector(n, 1.0, 0.2)
        if gpt2:
            yield f"{at}.bias", w.vector(n, 0.0, 0.2)

    def linear(at, n_out, n_in, gain=1.0, bias=gpt2):
        yield f"{at}.weight", w.matrix(n_out, n_in, gain)
        if bias:
            yield f"{at}.bias", w.vector(n_out, 0.0, 0.3)

    # Gemma's embeddings are scaled up on their way in, and would drown the layers.
    yield "token_embd.weight", w.matrix(v.n_vocab, v.n_embd, 1.5 if gemma else 3.0)
    if gpt2:
        yield "position_embd.weight", (w.deviates(v.n_ctx, v.n_embd).astype(np.float32) * np.float32(0.2), TYPES.F32)
    if v.llama3_scaling:
        yield "rope_freqs.weight", (llama3_factors(v), TYPES.F32)
    for i in range(v.n_layer):
        at = f"blk.{i}"
        yield from norm(f"{at}.attn_norm")
        if gpt2:
            yield from linear(f"{at}.attn_qkv", n_q + 2 * n_kv, v.n_embd, 1.3)
        else:
            yield from linear(f"{at}.attn_q", n_q, v.n_embd, 1.3, v.attn_bias)
            yield from linear(f"{at}.attn_k", n_kv, v.n_embd, 1.3, v.attn_bias)
            yield from linear(f"{at}.attn_v", n_kv, v.n_embd, 1.0, v.attn_bias)
        if gemma or v.arch == "qwen3":
            yield from norm(f"{at}.attn_q_norm", v.head_dim)
            yield from norm(f"{at}.attn_k_norm", v.head_dim)
        yield from linear(f"{at}.attn_output", v.n_embd, n_q, bias=gpt2 or v.attn_bias and v.arch == "llama")
        if gemma:
            yield from norm(f"{at}.post_attention_norm")
        yield from norm(f"{at}.ffn_norm")
        if not gpt2:
            yield from linear(f"{at}.ffn_gate", v.n_ff, v.n_embd)
        yield from linear(f"{at}.ffn_up", v.n_ff, v.n_embd)
        yield from linear(f"{at}.ffn_down", v.n_embd, v.n_ff)
        if gemma:
            yield from norm(f"{at}.post_ffw_norm")
    yield from norm("output_norm")
    if not v.tied:
        yield "output.weight", w.matrix(v.n_vocab, v.n_embd, 3.0)


def llama3_factors(v):
    """rope_freqs as the converter computes them from Llama 3's rope_scaling: each frequency is divided by its own."""
    factor, low, high, n_ctx_original = v.llama3_scaling
    factors = []
    for i in range(0, v.head_dim, 2):
        wavelength = 2 * math.pi * v.keys.get("rope.freq_base", 10000.0) ** (i / v.head_dim)
        if wavelength < n_ctx_original / high:
            factors.append(1.0)
        elif wavelength > n_ctx_original / low:
            factors.append(factor)
        else:
            smooth = (n_ctx_original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)


# -------------------------------------------------------------------------------------------------- vocabulary


def vocabulary(n_vocab, n_bytes, n_letters):
    """Byte-level BPE as GPT-2's: bytes, all pairs of some lower-case letters as merges, one control token, unused ones.
    Returns (tokens, types, merges)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    tokens = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    tokens = tokens[:n_bytes]
    letters = "abcdefghijklmnopqrstuvwxyz"[:n_letters]
    merges = [f"{a} {b}" for a in letters for b in letters]
    tokens += [m.replace(" ", "") for m in merges] + ["<|endoftext|>"]
    types = [gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL]
    n_unused = n_vocab - len(tokens)
    tokens += [f"[PAD{i}]" for i in range(n_unused)]
    return tokens, types + [gguf.TokenType.UNUSED] * n_unused, merges


def prompt(name):
    """The ids that the tests feed to a variant."""
    v = VARIANTS[name]
    return np.random.RandomState(zlib.crc32(name.encode()) ^ 1).randint(0, v.n_vocab, v.n_tokens).tolist()


# -------------------------------------------------------------------------------------------------------- files


def metadata(v):
    """Keys without their `<arch>.` prefix, before the variant's own."""
    keys = {"context_length": v.n_ctx, "embedding_length": v.n_embd, "block_count": v.n_layer,
            "feed_forward_length": v.n_ff, "attention.head_count": v.n_head}
    if v.arch == "gpt2":
        return keys | {"attention.layer_norm_epsilon": 1e-5}
    keys |= {"attention.head_count_kv": v.n_head_kv, "attention.layer_norm_rms_epsilon": 1e-6,
             "rope.freq_base": 10000.0}
    if v.head_dim * v.n_head != v.n_embd:
        keys |= {"attention.key_length": v.head_dim, "attention.value_length": v.head_dim}
    if v.arch == "llama":
        keys |= {"vocab_size": v.n_vocab, "rope.dimension_count": v.head_dim}
    return keys | v.keys


def write(name, path, **changes):
    """Writes variant `name`, with `changes` to its fields, to `path`."""
    v = dataclasses.replace(VARIANTS[name], **changes)
    out = gguf.GGUFWriter(path, v.arch)
    out.add_string("general.name", name)
    for key, value in metadata(v).items():
        add = {int: out.add_uint32, float: out.add_float32, str: out.add_string}[type(value)]
        add(f"{v.arch}.{key}", value)
    tokens, types, merges = vocabulary(v.n_vocab, v.n_bytes, v.n_letters)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types(types)
    out.add_token_merges(merges)
    end = tokens.index("<|endoftext|>")
    out.add_bos_token_id(end)
    out.add_eos_token_id(end)
    out.add_add_bos_token(False)
    for tensor, (data, kind) in tensors(name, v):
        out.add_tensor(tensor, data, raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or VARIANTS:
        print(write(name, folder / f"{name}.gguf"))


if __name__ == "__main__":
    main()
