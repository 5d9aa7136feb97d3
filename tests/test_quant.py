"""Dequantisation is bit for bit that of the `gguf` package: random blocks of every format, and both real files.

The same blocks go through quant.c as built for any machine and as built for AVX2 (tests/CMakeLists.txt).
"""

import pathlib
import subprocess
import tempfile

import gguf
import numpy as np
import pytest

# Where the float16 scales of a block stand: byte offsets.
SCALE_OFFSETS = {
    "F32": [],
    "F16": [0],
    "BF16": [],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
}


def has_avx2():
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    words = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return "avx2" in words and "f16c" in words


@pytest.fixture(scope="module")
def programs(logitd):
    """The builds of tests/tools/dequant.c that this machine can run."""
    return [logitd.parent / "tests" / name for name in ["dequant"] + ["dequant_avx2"] * has_avx2()]


def run(*command, blocks=b""):
    """The weights as bits. They pass through a file, since a pipe takes minutes for an embedding matrix."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as weights:
        given.write(blocks)
        given.seek(0)
        done = subprocess.run(command, stdin=given, stdout=weights, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 0, done.stderr.decode()
        weights.seek(0)
        return np.fromfile(weights, dtype=np.uint32)


def assert_same_bits(got, want, what):
    want = want.ravel().view(np.uint32)
    assert got.shape == want.shape, what
    wrong = np.flatnonzero(got != want)
    assert wrong.size == 0, (
        f"{what}: {wrong.size} of {want.size} weights differ, the first at {wrong[0]}: "
        f"{got[wrong[0]]:#010x}, not {want[wrong[0]]:#010x}"
    )


def finite_halves(rng, n):
    """Bits of n halves, no infinity or NaN: any exponent and sign, one in four denormal or zero."""
    halves = rng.integers(0, 0x7C00, n, dtype=np.uint16)
    small = rng.random(n) < 0.25
    halves[small] &= 0x03FF
    halves[rng.random(n) < 0.02] = 0
    return halves | (rng.integers(0, 2, n, dtype=np.uint16) << np.uint16(15))


def random_blocks(name, n, rng):
    qtype = gguf.GGMLQuantizationType[name]
    n_bytes = gguf.GGML_QUANT_SIZES[qtype][1]
    blocks = rng.integers(0, 256, (n, n_bytes), dtype=np.uint8)
    for offset in SCALE_OFFSETS[name]:
        blocks[:, offset : offset + 2] = finite_halves(rng, n).view(np.uint8).reshape(n, 2)
    return blocks


@pytest.mark.parametrize("name", SCALE_OFFSETS)
def test_random_blocks(programs, name):
    blocks = random_blocks(name, 20011, np.random.default_rng(len(name) + 1))  # a count that no vector divides
    want = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
    for program in programs:
        assert_same_bits(run(program, name, blocks=blocks.tobytes()), want, name)


def test_every_half(programs):
    """All 65,536 halves but NaNs, whose payload nobody promises."""
    halves = np.arange(65536, dtype=np.uint16)
    halves = halves[~np.isnan(halves.view(np.float16))]
    want = halves.view(np.float16).astype(np.float32)
    for program in programs:
        assert_same_bits(run(program, "F16", blocks=halves.tobytes()), want, "F16")


@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_every_tensor_of_the_models(programs, model_path, model):
    path = model_path(model)
    reader = gguf.GGUFReader(path)
    assert len(reader.tensors) > 200
    for tensor in reader.tensors:
        want = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for program in programs:
            assert_same_bits(run(program, path, tensor.name), want, f"{program.name} {tensor.name}")


def test_helper_reports_what_is_wrong(programs):
    done = subprocess.run([programs[0], "Q9_9"], input=b"", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, b"dequant: no such type\n")
