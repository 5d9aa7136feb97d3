"""What `--precision bf16` of the CUDA backend costs: its arithmetic in numpy, against float64, over whole texts.

    bf16_model.py MODEL.gguf FIXTURE.npz…       ids of the fixtures; prints errors in nats at T = 1

The kernels round activations to bf16 before every product with a matrix, and matrices of floats when they are loaded;
quants and their scales are exact, and sums are f32 (cuda/bf16.cuh). All else of the forward pass is f32 or f64 there, and
f64 here: that differs by 1e-6 and less, where one rounding to bf16 is 2e-3.

tests/test_cuda.py holds one layer and the projection against the kernels on the emulated device, which is too slow for whole
texts: at two positions of three or more, logits agree to 5e-5 where bf16 costs 0.03 and more. At the others an activation that
lies between two bf16, off by 1e-7, fell to the other side; one such is up to 0.02 in a logit, and a few layers later the
roundings of both are as different as any two, as those of two GPUs are whose tensor cores add in another order. What stays
the same is how large the errors are.
"""

import pathlib
import sys

import forward64
import gguf
import numpy as np
import stats

ROWS = 32  # whose logits exist at once: 67 MB of a vocabulary of 262,144
FLOATS = {gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16}


def to_bf16(x):
    """float32 values, each the nearest bf16, ties to even."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


class Bf16Model(forward64.Model):
    """The file of `exact`, with which it shares the unpacked weights."""

    def __init__(self, exact):
        self.__dict__.update(exact.__dict__)

    def matrix(self, name, i=None):
        kind, _ = self.tensors[f"{name}.weight" if i is None else f"blk.{i}.{name}.weight"]
        weight = super().matrix(name, i)
        return to_bf16(weight) if kind in FLOATS else weight

    def product(self, x, matrix):
        return (to_bf16(x) @ matrix.T).astype(np.float64)


def differences(exact, ids):
    """Of bf16 from float64, position by position: the largest difference of a log-probability over the whole vocabulary,
    that of the token that came (NaN at the last position), and the KL divergence from float64, each [n_tokens] in nats."""
    both = exact, Bf16Model(exact)
    hidden = [model.hidden(ids) for model in both]
    largest, of_next, divergence = [], [], []
    following = np.append(ids[1:], 0)
    for first in range(0, len(ids), ROWS):
        rows = slice(first, first + ROWS)
        want, got = (stats.logprobs(model.logits(h[rows]), 1.0) for model, h in zip(both, hidden, strict=True))
        error = got - want
        largest.append(np.abs(error).max(-1))
        of_next.append(np.abs(np.take_along_axis(error, following[rows, None], -1))[:, 0])
        divergence.append(-(np.exp(want) * error).sum(-1))
    of_next[-1][-1] = np.nan
    return tuple(map(np.concatenate, (largest, of_next, divergence)))


def main():
    model = forward64.Model(sys.argv[1])
    for path in map(pathlib.Path, sys.argv[2:]):
        print(f"{path.stem}, {len(np.load(path)['ids'])} positions")
        for name, values in zip(("any token", "next token", "KL"), differences(model, np.load(path)["ids"]), strict=True):
            values = values[~np.isnan(values)]
            half, most, nearly = np.quantile(values, (0.5, 0.95, 0.99))
            print(f"    {name:10} worst {values.max():.3g} at position {values.argmax()}, of 99 % {nearly:.3g}, of 95 % {most:.3g}, "
                  f"of 50 % {half:.3g}, mean {values.mean():.3g}", flush=True)


if __name__ == "__main__":
    main()
