"""The truth for logitd's numbers: a GGUF model evaluated by `transformers` wholly in float64.

    model = Oracle("model.gguf"); hidden = model.hidden(ids); logits = model.logits(hidden[a:b])

Owns the way from a GGUF file to a transformers model: its config from the metadata, its weights from the `gguf`
package's dequantisation (float32, then double). Promises that no float32 or half tensor takes part in a result:
float64_only() turns every float32 that transformers asks for (norms, softmax, rotary angles) into float64 and raises
when any operation still yields a narrower float. Does not tokenize, and does not read architectures beyond ARCHS.
"""

import math
import sys

import gguf
import numpy as np
import torch
import transformers
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

NARROW = {torch.float32, torch.float16, torch.bfloat16}
torch.set_num_threads(2)


# ------------------------------------------------------------------------------------------------- only float64


class _WidenRequests(TorchFunctionMode):
    """Every call that names a narrower float type (.float(), .to(torch.float32), dtype=torch.float) gets float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        func = torch.Tensor.double if func in (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16) else func
        args = tuple(_widen(a) for a in args)
        kwargs = {k: _widen(v) for k, v in (kwargs or {}).items()}
        return func(*args, **kwargs)


def _widen(argument):
    return torch.float64 if isinstance(argument, torch.dtype) and argument in NARROW else argument


class NarrowFloatError(Exception):
    """An operation yields a float narrower than float64. (No TypeError: Python's operators would swallow it.)"""


class _RefuseNarrow(TorchDispatchMode):
    """Below all of that: raises when an operation yields a float narrower than float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype in NARROW:
                raise NarrowFloatError(f"{func} yields {tensor.dtype}; the oracle must be float64 throughout")
        return result


class float64_only:
    """Context: double by default, narrower requests widened, narrower results refused, no gradients."""

    def __enter__(self):
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        self._modes = [torch.no_grad(), _RefuseNarrow(), _WidenRequests()]
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *error):
        for mode in reversed(self._modes):
            mode.__exit__(*error)
        torch.set_default_dtype(self._default)


# ---------------------------------------------------------------------------------------------- reading a GGUF


class Gguf:
    """Metadata with the architecture's prefix taken off, and tensors as float64."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.meta = {key: field.contents() for key, field in reader.fields.items() if "tokenizer" not in key}
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.arch = self.meta["general.architecture"]
        self.used = set()

    def get(self, key, default=None):
        """The value of `<arch>.key`."""
        return self.meta.get(f"{self.arch}.{key}", default)

    def weight(self, name):
        """[n_out, n_in] or [n], float64."""
        self.used.add(name)
        tensor = self.tensors[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert values.dtype == np.float32, f"{name}: dequantised to {values.dtype}"
        return torch.from_numpy(values.astype(np.float64))


# ------------------------------------------------------------------------------------ GGUF names to transformers'

BLOCK = {  # llama, qwen2, qwen3: GGUF name -> transformers name, within a layer
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight", "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.weight": "self_attn.k_proj.weight", "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.weight": "self_attn.v_proj.weight", "attn_v.bias": "self_attn.v_proj.bias",
    "attn_q_norm.weight": "self_attn.q_norm.weight", "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_output.weight": "self_attn.o_proj.weight", "attn_output.bias": "self_attn.o_proj.bias",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight", "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
BLOCK_GEMMA3 = BLOCK | {
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
}
BLOCK_GPT2 = {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias") for ours, theirs in (
    ("attn_norm", "ln_1"), ("attn_qkv", "attn.c_attn"), ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"), ("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj"))}
TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
       "output.weight": "lm_head.weight"}
TOP_GPT2 = {"token_embd.weight": "transformer.wte.weight", "position_embd.weight": "transformer.wpe.weight",
            "output_norm.weight": "transformer.ln_f.weight", "output_norm.bias": "transformer.ln_f.bias",
            "output.weight": "lm_head.weight"}

# GGUF architecture -> (config class, model class, names at the top, prefix of a layer, names in a layer)
ARCHS = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, TOP, "model.layers", BLOCK),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, TOP, "model.layers", BLOCK),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, TOP, "model.layers", BLOCK),
    "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM, TOP, "model.layers", BLOCK_GEMMA3),
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel, TOP_GPT2, "transformer.h", BLOCK_GPT2),
}


def head_dim(file):
    return file.get("attention.key_length") or file.get("embedding_length") // file.get("attention.head_count")


def rope_parameters(file):
    """transformers' rope_parameters from `rope.*`. The frequencies of llama3 scaling are a tensor (Oracle sets them)."""
    parameters = {"rope_theta": float(file.get("rope.freq_base", 10000.0)), "rope_type": "default"}
    kind = file.get("rope.scaling.type", "none")
    if kind == "none":
        return parameters
    assert kind in ("linear", "yarn"), f"rope.scaling.type {kind}"
    parameters |= {"rope_type": kind, "factor": float(file.get("rope.scaling.factor"))}
    if kind == "yarn":
        parameters["original_max_position_embeddings"] = file.get("rope.scaling.original_context_length")
        # llama.cpp: the paper's magnitude, times a factor of the file's own.
        magnitude = 1.0 + 0.1 * math.log(parameters["factor"])
        parameters["attention_factor"] = magnitude * file.get("rope.scaling.attn_factor", 1.0)
        parameters["beta_fast"] = file.get("rope.scaling.yarn_beta_fast", 32.0)
        parameters["beta_slow"] = file.get("rope.scaling.yarn_beta_slow", 1.0)
    return parameters


def make_config(file):
    """The transformers config that the metadata describes."""
    arch, n_head = file.arch, file.get("attention.head_count")
    config_class = ARCHS[arch][0]
    n_vocab = int(file.tensors["token_embd.weight"].shape[1])
    tied = "output.weight" not in file.tensors
    common = {"vocab_size": n_vocab, "tie_word_embeddings": tied, "attn_implementation": "eager", "pad_token_id": None,
              "bos_token_id": None, "eos_token_id": None}
    if arch == "gpt2":
        return config_class(
            n_positions=file.get("context_length"), n_embd=file.get("embedding_length"), n_layer=file.get("block_count"),
            n_head=n_head, n_inner=file.get("feed_forward_length"), activation_function="gelu_new",
            layer_norm_epsilon=file.get("attention.layer_norm_epsilon"), **common)
    assert file.get("rope.dimension_count", head_dim(file)) == head_dim(file), "partial rotary embedding"
    common |= {
        "hidden_size": file.get("embedding_length"), "num_hidden_layers": file.get("block_count"),
        "intermediate_size": file.get("feed_forward_length"), "num_attention_heads": n_head,
        "num_key_value_heads": file.get("attention.head_count_kv", n_head), "head_dim": head_dim(file),
        "max_position_embeddings": file.get("context_length"),
        "rms_norm_eps": file.get("attention.layer_norm_rms_epsilon"), "rope_parameters": rope_parameters(file)}
    if arch == "llama":
        common["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if arch == "gemma3":
        local = {"rope_type": "default", "rope_theta": float(file.get("rope.freq_base_swa", 10000.0))}
        scalar = head_dim(file) if file.get("block_count") != 62 else file.get("embedding_length") // n_head  # 27B
        common |= {"sliding_window": file.get("attention.sliding_window"), "query_pre_attn_scalar": scalar,
                   "final_logit_softcapping": file.get("final_logit_softcapping"),
                   "rope_parameters": {"full_attention": common["rope_parameters"], "sliding_attention": local}}
    return config_class(**common)


def hf_weight(file, name, ours):
    """One tensor as transformers wants it."""
    weight = file.weight(name)
    if file.arch == "llama" and ours.startswith(("attn_q.", "attn_k.")):
        # GGUF holds the rotated pairs (i, i + head_dim/2) side by side.
        return weight.reshape(-1, head_dim(file) // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    if file.arch == "gemma3" and name.endswith("norm.weight"):
        return weight - 1.0  # transformers adds the one back; exact but for the last bit of a double
    if file.arch == "gpt2" and weight.ndim == 2 and ours in BLOCK_GPT2:
        return weight.T.contiguous()  # Conv1D
    return weight


class Oracle:
    """A model in float64. Logits come in two steps, so that they need not all exist at once."""

    def __init__(self, path):
        file = self.file = Gguf(path)
        assert file.arch in ARCHS, f"{path}: architecture {file.arch}; the oracle knows {', '.join(ARCHS)}"
        _, model_class, top, layers, block = ARCHS[file.arch]
        with float64_only():
            self.model = model_class(make_config(file)).eval()
            state = {theirs: hf_weight(file, ours, ours) for ours, theirs in top.items() if ours in file.tensors}
            for i in range(file.get("block_count")):
                state |= {f"{layers}.{i}.{theirs}": hf_weight(file, f"blk.{i}.{ours}", ours)
                          for ours, theirs in block.items() if f"blk.{i}.{ours}" in file.tensors}
            missing, unexpected = self.model.load_state_dict(state, strict=False, assign=True)
            self.model.tie_weights()
            if "rope_freqs.weight" in file.tensors:
                self.model.model.rotary_emb.inv_freq /= file.weight("rope_freqs.weight")
        assert not unexpected, f"{path}: transformers has no {unexpected}"
        assert set(missing) <= {"lm_head.weight"} and ("output.weight" in file.tensors or missing), f"unset: {missing}"
        assert file.used == set(file.tensors), f"{path}: unused tensors {set(file.tensors) - file.used}"
        self.n_vocab = self.model.config.vocab_size

    def hidden(self, ids):
        """Final hidden states, after the last norm: [n_tokens, n_embd] float64."""
        with float64_only():
            base = self.model.get_decoder() if hasattr(self.model, "get_decoder") else self.model.transformer
            return base(torch.tensor([list(map(int, ids))]), use_cache=False).last_hidden_state[0]

    def logits(self, hidden):
        """[n, n_embd] -> [n, n_vocab] float64 numpy array."""
        with float64_only():
            logits = self.model.lm_head(hidden)
            if cap := getattr(self.model.config, "final_logit_softcapping", None):
                logits = cap * torch.tanh(logits / cap)
            return logits.numpy()

    def chunks(self, ids, n_bytes=256 << 20):
        """Yields (start, logits [n, n_vocab]) over all positions, a few at a time."""
        hidden = self.hidden(ids)
        step = max(1, n_bytes // (8 * self.n_vocab))
        for start in range(0, len(ids), step):
            yield start, self.logits(hidden[start : start + step])


def main():
    """oracle.py MODEL.gguf ID…: the five most likely next tokens after these ids."""
    model, ids = Oracle(sys.argv[1]), [int(a) for a in sys.argv[2:]]
    row = model.logits(model.hidden(ids)[-1:])[0]
    log_total = row.max() + math.log(np.exp(row - row.max()).sum())
    for token in np.argsort(-row, kind="stable")[:5]:
        print(token, row[token], row[token] - log_total)


if __name__ == "__main__":
    main()
