"""Writes tests/fixtures/arch_logits.npz: float64 logits of every variant in arch_models.py, by the oracle.

    make_arch_fixtures.py [NAME…]      with names: checks these and writes nothing

A variant goes in only when all that know it agree on it: transformers (oracle.py) and, for llama and gemma3, the numpy
forward pass within 1e-9; llama.cpp, which computes in float32, within 1e-2 on the same variant with float32 weights.
And only when its features show: without any one of its keys the logits differ by far more than the tests allow.
"""

import pathlib
import sys
import tempfile
import zlib

import arch_models
import forward64
import llama_cpp
import numpy as np
from oracle import Oracle

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "arch_logits.npz"
N_POSITIONS, N_IDS = 24, 96  # kept of each variant
F32 = 0  # GGML_TYPE_F32, for llama.cpp's KV cache


def sampled(v, name):
    """(positions, ids) that the fixture keeps: the first and last positions and ids, and a seeded sample."""
    random = np.random.RandomState(zlib.crc32(name.encode()) ^ 2)
    positions = {0, 1, v.n_tokens - 1, *random.permutation(v.n_tokens)[: N_POSITIONS - 3]}
    ids = {0, v.n_vocab - 1, v.n_vocab - 2, *random.permutation(v.n_vocab)[: N_IDS - 3]}
    return np.sort([*positions]).astype(np.int32), np.sort([*ids]).astype(np.int32)


def oracle_logits(path, ids):
    model = Oracle(path)
    return model.logits(model.hidden(ids))


def llama_cpp_error(name, folder, ids):
    """Worst difference between llama.cpp and the oracle on the variant with float32 weights. (It takes YaRN's betas from
    the file for other architectures only, so it is told them.)"""
    keys = arch_models.VARIANTS[name].keys
    path = arch_models.write(name, folder / "f32.gguf", types=("F32",))
    model = llama_cpp.Llama(str(path), n_ctx=256, n_batch=256, n_threads=2, logits_all=True, verbose=False,
                            type_k=F32, type_v=F32, flash_attn=False,
                            yarn_beta_fast=keys.get("rope.scaling.yarn_beta_fast", 32.0),
                            yarn_beta_slow=keys.get("rope.scaling.yarn_beta_slow", 1.0))
    model.eval(ids)
    return np.abs(np.array(model.scores[: len(ids)], dtype=float) - oracle_logits(path, ids)).max()


def feature_effect(name, folder, ids, logits):
    """The least that leaving out one of the variant's own keys changes the logits by (their worst change)."""
    v = arch_models.VARIANTS[name]
    needed = {"attention.sliding_window", "rope.scaling.factor", "rope.scaling.original_context_length"}
    others = [{"keys": {k: x for k, x in v.keys.items() if k != key}} for key in v.keys if key not in needed]
    others += [{"llama3_scaling": None}] if v.llama3_scaling else []
    others += [{"keys": v.keys | {"attention.sliding_window": v.n_ctx}}] if v.arch == "gemma3" else []
    effects = [np.inf]
    for changes in others:
        path = arch_models.write(name, folder / "plain.gguf", **changes)
        effects.append(np.abs(oracle_logits(path, ids) - logits).max())
    return min(effects)


def main():
    arrays = {}
    for name in sys.argv[1:] or arch_models.VARIANTS:
        v, ids = arch_models.VARIANTS[name], arch_models.prompt(name)
        with tempfile.TemporaryDirectory() as folder:
            path = arch_models.write(name, pathlib.Path(folder) / "model.gguf")
            logits = oracle_logits(path, ids)
            knows = v.arch in ("llama", "gemma3") and v.keys.get("rope.scaling.type") != "yarn"
            errors = {"numpy": np.abs(forward64.forward(path, ids) - logits).max() if knows else 0.0,
                      "llama.cpp": llama_cpp_error(name, pathlib.Path(folder), ids),
                      "feature": feature_effect(name, pathlib.Path(folder), ids, logits)}
        print(name, f"std {logits.std():.2f}", *(f"{k} {e:.1e}" for k, e in errors.items()), flush=True)
        assert errors["numpy"] <= 1e-9 and errors["llama.cpp"] <= 1e-2 and errors["feature"] >= 0.1, name
        positions, columns = sampled(v, name)
        top = logits.max(-1, keepdims=True)
        arrays |= {f"{name}.positions": positions, f"{name}.ids": columns,
                   f"{name}.logits": logits[np.ix_(positions, columns)],
                   f"{name}.logsumexp": (top + np.log(np.exp(logits - top).sum(-1, keepdims=True)))[positions, 0]}
    if len(sys.argv) == 1:
        np.savez_compressed(OUT, **arrays)
        print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
