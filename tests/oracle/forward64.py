"""A second opinion on the oracle: llama and gemma3 forward passes from scratch, in numpy float64.

Written from the architectures' definitions and GGUF's own layout (llama's rotated pairs lie side by side, Gemma's norm
weights have their one added), not from transformers' code, so that a change or a mistake there shows.

    forward64.py MODEL.gguf [N_TOKENS]      compares with oracle.py on random ids; fails above 1e-9 of a logit
"""

import sys

import cut_model
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


class Model:
    """A llama or gemma3 file. Logits come in two steps, so that they need not all exist at once."""

    def __init__(self, path):
        file = cut_model.File(path)
        self.tensors = {name: (kind, data) for name, kind, data in file.tensors}
        self.meta = {key: value for key, (_, _, value) in file.keys.items()}
        self.arch = self.meta["general.architecture"]
        self.unpacked = {}

    def get(self, key, default=None):
        return self.meta.get(f"{self.arch}.{key}", default)

    def weight(self, name, i=None):
        """[n_out, n_in] or [n], float32: no format has more bits."""
        name = name if i is None else f"blk.{i}.{name}"
        if name not in self.unpacked:
            kind, data = self.tensors[name]
            self.unpacked[name] = gguf.quants.dequantize(data, kind)
        return self.unpacked[name]

    def matrix(self, name, i=None):
        """What rows are multiplied with, or looked up in; bf16_model.py has another."""
        return self.weight(f"{name}.weight", i)

    def product(self, x, matrix):
        return x @ matrix.astype(np.float64).T

    def times(self, x, name, i=None):
        """x [n, n_in] times a matrix, plus its bias if it has one."""
        y = self.product(x, self.matrix(name, i))
        return y + self.weight(f"{name}.bias", i) if f"blk.{i}.{name}.bias" in self.tensors else y

    def hidden(self, ids):
        """Final hidden states, after the last norm: [n_tokens, n_embd] float64."""
        get, gemma = self.get, self.arch == "gemma3"
        n, n_embd, n_head = len(ids), get("embedding_length"), get("attention.head_count")
        head_dim = get("attention.key_length", n_embd // n_head)
        eps = get("attention.layer_norm_rms_epsilon")
        freq_factors = self.weight("rope_freqs.weight") if "rope_freqs.weight" in self.tensors else 1.0
        assert get("rope.scaling.type", "none") in ("none", "linear"), "only plain and linear rotary embeddings here"

        def norm(x, name, i=None):
            return rms_norm(x, self.weight(f"{name}.weight", i), eps)

        x = self.matrix("token_embd")[list(ids)].astype(np.float64) * (np.sqrt(n_embd) if gemma else 1.0)
        for i in range(get("block_count")):
            local = gemma and (i + 1) % 6 != 0
            base, factor = (get("rope.freq_base_swa", 10000.0), 1.0) if local else (get("rope.freq_base", 10000.0), get("rope.scaling.factor", 1.0))
            y = norm(x, "attn_norm", i)
            q, k, v = (np.reshape(self.times(y, f"attn_{m}", i), (n, -1, head_dim)) for m in "qkv")
            if gemma:
                q, k = norm(q, "attn_q_norm", i), norm(k, "attn_k_norm", i)
            q, k = (rope(m, base, factor, freq_factors, interleaved=not gemma) for m in (q, k))
            y = self.times(attention(q, k, v, get("attention.sliding_window") if local else n), "attn_output", i)
            x = x + (norm(y, "post_attention_norm", i) if gemma else y)
            y = norm(x, "ffn_norm", i)
            gate, up = self.times(y, "ffn_gate", i), self.times(y, "ffn_up", i)
            y = self.times((gelu_tanh if gemma else silu)(gate) * up, "ffn_down", i)
            x = x + (norm(y, "post_ffw_norm", i) if gemma else y)
        return norm(x, "output_norm")

    def logits(self, hidden):
        """[n, n_embd] -> [n, n_vocab] float64."""
        logits = self.times(hidden, "output" if "output.weight" in self.tensors else "token_embd")
        cap = self.get("final_logit_softcapping")
        return cap * np.tanh(logits / cap) if cap else logits


def forward(path, ids):
    """Logits [n_tokens, n_vocab] float64."""
    model = Model(path)
    return model.logits(model.hidden(ids))


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
