"""A second opinion on the oracle: llama and gemma3 forward passes from scratch, in numpy float64.

Written from the architectures' definitions and GGUF's own layout (llama's rotated pairs lie side by side, Gemma's norm
weights have their one added), not from transformers' code, so that a change or a mistake there shows.

    forward64.py MODEL.gguf [N_TOKENS]      compares with oracle.py on random ids; fails above 1e-9 of a logit
"""

import sys

import gguf
import numpy as np


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rope(x, base, factor, freq_factors, interleaved):
    """x: [n_tokens, n_head, head_dim]; rotates pair i of token t by t * base^(-2i/head_dim) / factor / freq_factors[i]."""
    n, _, dim = x.shape
    frequency = base ** (-np.arange(0, dim, 2) / dim) / factor / freq_factors
    angle = (np.arange(n)[:, None] * frequency)[:, None, :]
    even, odd = (np.s_[..., 0::2], np.s_[..., 1::2]) if interleaved else (np.s_[..., : dim // 2], np.s_[..., dim // 2 :])
    out = np.empty_like(x)
    out[even] = x[even] * np.cos(angle) - x[odd] * np.sin(angle)
    out[odd] = x[odd] * np.cos(angle) + x[even] * np.sin(angle)
    return out


def attention(q, k, v, window):
    """Causal, grouped-query; a token sees itself and the window - 1 before it. [n, heads, head_dim] each."""
    n, n_head, dim = q.shape
    share = n_head // k.shape[1]
    distance = np.arange(n)[:, None] - np.arange(n)
    seen = (distance >= 0) & (distance < window)
    out = np.empty_like(q)
    for h in range(n_head):
        score = np.where(seen, q[:, h] @ k[:, h // share].T / np.sqrt(dim), -np.inf)
        weight = np.exp(score - score.max(-1, keepdims=True))
        out[:, h] = weight / weight.sum(-1, keepdims=True) @ v[:, h // share]
    return out.reshape(n, -1)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def forward(path, ids):
    """Logits [n_tokens, n_vocab] float64."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: t for t in reader.tensors}
    meta = {key: field.contents() for key, field in reader.fields.items() if "tokenizer" not in key}
    arch = meta["general.architecture"]
    gemma = arch == "gemma3"

    def get(key, default=None):
        return meta.get(f"{arch}.{key}", default)

    def bias(name, i):
        return weight(name, i) if f"blk.{i}.{name}" in tensors else 0.0

    def weight(name, i=None):
        tensor = tensors[name if i is None else f"blk.{i}.{name}"]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)

    n, n_embd, n_head = len(ids), get("embedding_length"), get("attention.head_count")
    head_dim = get("attention.key_length", n_embd // n_head)
    eps = get("attention.layer_norm_rms_epsilon")
    freq_factors = weight("rope_freqs.weight") if "rope_freqs.weight" in tensors else 1.0
    assert get("rope.scaling.type", "none") in ("none", "linear"), "only plain and linear rotary embeddings here"

    embedding = weight("token_embd.weight")
    x = embedding[list(ids)] * (np.sqrt(n_embd) if gemma else 1.0)
    for i in range(get("block_count")):
        local = gemma and (i + 1) % 6 != 0
        base, factor = (get("rope.freq_base_swa", 10000.0), 1.0) if local else (get("rope.freq_base", 10000.0), get("rope.scaling.factor", 1.0))
        y = rms_norm(x, weight("attn_norm.weight", i), eps)
        q, k, v = (np.reshape(y @ weight(f"attn_{m}.weight", i).T + bias(f"attn_{m}.bias", i), (n, -1, head_dim))
                   for m in "qkv")
        if gemma:
            q = rms_norm(q, weight("attn_q_norm.weight", i), eps)
            k = rms_norm(k, weight("attn_k_norm.weight", i), eps)
        q, k = (rope(m, base, factor, freq_factors, interleaved=not gemma) for m in (q, k))
        y = attention(q, k, v, get("attention.sliding_window") if local else n)
        y = y @ weight("attn_output.weight", i).T + bias("attn_output.bias", i)
        x = x + (rms_norm(y, weight("post_attention_norm.weight", i), eps) if gemma else y)
        y = rms_norm(x, weight("ffn_norm.weight", i), eps)
        gate, up = y @ weight("ffn_gate.weight", i).T, y @ weight("ffn_up.weight", i).T
        y = ((gelu_tanh if gemma else silu)(gate) * up) @ weight("ffn_down.weight", i).T
        x = x + (rms_norm(y, weight("post_ffw_norm.weight", i), eps) if gemma else y)
    x = rms_norm(x, weight("output_norm.weight"), eps)
    logits = x @ (weight("output.weight") if "output.weight" in tensors else embedding).T
    cap = get("final_logit_softcapping")
    return cap * np.tanh(logits / cap) if cap else logits


def main():
    from oracle import Oracle  # torch, only here

    path, n = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 40
    model = Oracle(path)
    ids = np.random.RandomState(1).randint(0, model.n_vocab, n)
    error = np.abs(forward(path, ids) - model.logits(model.hidden(ids)))
    print(f"{path}: {n} tokens, worst logit difference {error.max():.2e}")
    sys.exit(error.max() > 1e-9)


if __name__ == "__main__":
    main()
