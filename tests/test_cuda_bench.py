"""What the benches say of the GPU's kernels without a GPU: the static table, and counts on the emulated device."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))

import cuda_mix  # noqa: E402  (after the path)

ARCHITECTURES = [80, 90, 89, 100, 86, 120]  # the table's columns
# Of a multiprocessor: threads, blocks, bytes of shared memory ("Compute Capabilities" of the CUDA guide).
LIMITS = {80: (2048, 32, 164), 86: (1536, 16, 100), 89: (1536, 24, 100), 90: (2048, 32, 228), 100: (2048, 32, 228),
          120: (1536, 24, 100)}


@pytest.fixture(scope="module")
def build(logitd):
    if not (logitd.parent / "cuda" / "kernels_sm_80.cubin").exists():
        pytest.skip("this build has no CUDA kernels: it was made without nvcc")
    return logitd.parent


@pytest.fixture(scope="module")
def table(build):
    done = subprocess.run([build / "logitd-bench", "--cuda-static"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def kernels():
    return re.findall(r"^KERNEL\((\w+),", (ROOT / "cuda" / "kernels.def").read_text(), re.MULTILINE)


def assembler_said(build, architecture):
    """Registers and static shared bytes of each kernel, read from what ptxas said."""
    text = (build / "cuda" / f"kernels_sm_{architecture}.cubin.txt").read_text()
    found = {}
    for name, said in re.findall(r"entry function '(\w+)'.*?Used ([^\n]*)", text, re.DOTALL):
        shared = re.search(r"(\d+) bytes smem", said)
        found[name] = (int(said.split()[0]), int(shared.group(1)) if shared else 0)
    return found


def warps_that_fit(architecture, threads, registers, shared):
    """By the rules of the CUDA occupancy calculator: registers are given to a warp by 256, shared memory by 128 bytes
    with 1 KiB for the system."""
    most_threads, most_blocks, shared_kb = LIMITS[architecture]
    warps = threads // 32
    warps_by_registers = 65536 // (-(-registers * 32 // 256) * 256) // 4 * 4  # each of four schedulers has its own
    by_shared = shared_kb * 1024 // (-(-(shared + 1024) // 128) * 128)
    return min(most_threads // threads, most_blocks, warps_by_registers // warps, by_shared) * warps


def test_resources_and_occupancy(build, table, kernels):
    rows = {line.split()[0]: line.split()[1:] for line in table.split("\n\n")[1].splitlines()[1:]}
    assert list(rows) == kernels
    for column, architecture in enumerate(ARCHITECTURES):
        said = assembler_said(build, architecture)
        for name in kernels:
            threads, dynamic, *cells = rows[name]
            registers, shared, share, _ = cells[4 * column : 4 * column + 4]
            assert (int(registers), int(shared)) == said[name], (name, architecture)
            warps = warps_that_fit(architecture, int(threads), int(registers), int(dynamic) + int(shared))
            assert int(share[:-1]) == 100 * warps * 32 // LIMITS[architecture][0], (name, architecture)


def launches(table, heading):
    """Rows of a shape's table, by kernel and size."""
    part = next(part for part in table.split("\n\n") if part.startswith("                ") and heading in table.split(part)[0].splitlines()[-2])
    found = {}
    for line in part.splitlines()[1:-2]:
        name, size, n, mb, gflop, rest = re.match(r"  (\w+) +(.*?) {2,}(\d+) +([\d.]+) +([\d.]+) (.*)", line).groups()
        found[name, size] = (int(n), float(mb), float(gflop), rest)
    return found


def test_work_and_bound_of_a_product(table):
    """512 rows of SmolLM2's up and gate: 4-bit weights with scales of 8 bytes for 32, activations in three limbs."""
    n, mb, gflop, rest = launches(table, "SmolLM2 135M, exact, one layer of 30 and the projection, 512 tokens")[
        "matmul_n32_m64", "512 x 576 x 1536"]
    bytes_ = 512 * 576 * (3 + 8 / 32) + 1536 * 576 * (0.5 + 8 / 32) + 512 * 1536 * 4
    assert (n, mb, gflop) == (2, pytest.approx(bytes_ / 1e6, abs=1e-3), pytest.approx(2 * 512 * 576 * 1536 / 1e9, abs=1e-4))
    assert rest.split()[:2] == [f"{3 * gflop / 624 * 1e3:.2f}", "t"]  # three passes at the A100's 624 int8 Tops
    assert re.search(r" {2,}\d+\.\d\d m +\d+% \w+", rest)  # the RTX 4090 is bound by memory there


def test_launches_of_a_layer(table):
    """16 of the layer; embedding, angles, first norm, rows chosen, last norm, limbs, pairs, statistics, merge."""
    for shape in ("SmolLM2 135M", "Llama 3 8B"):
        for precision in ("exact", "bf16"):
            rows = launches(table, f"{shape}, {precision}, one layer")
            assert sum(row[0] for row in rows.values()) == 16 + 9


SAID = """ptxas info    : Compiling entry function 'good' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function 'other' for 'sm_80'
    {} bytes stack frame, {} bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, 400 bytes cmem[0]"""


@pytest.mark.parametrize("stack, spilled", [(0, 0), (16, 0), (0, 8), (16, 8)])
def test_a_spill_or_a_stack_frame_fails_the_build(stack, spilled, tmp_path):
    """cubin.cmake with an assembler that says so."""
    nvcc, cubin = tmp_path / "nvcc", tmp_path / "kernels.cubin"
    nvcc.write_text(f"#!/bin/sh\ntouch {cubin}\ncat >&2 <<'END'\n{SAID.format(stack, spilled)}\nEND\n")
    nvcc.chmod(0o755)
    command = ["cmake", f"-DNVCC={nvcc}", "-DARCHITECTURE=80", "-DPTX=kernels.ptx", f"-DCUBIN={cubin}", "-P", ROOT / "cuda/cubin.cmake"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == cubin.exists() == (stack == spilled == 0)
    assert re.findall(r"other: (.*)", done.stderr) == [
        *([f"{stack} bytes stack frame"] if stack else []), *([f"{spilled} bytes spill stores"] if spilled else [])]
    assert "good:" not in done.stderr
    assert (tmp_path / "kernels.cubin.def").read_text() == "RESOURCE(80, good, 40, 1024)\nRESOURCE(80, other, 255, 0)\n"


def test_a_finished_build_is_finished(build):
    """./dev asks `ninja -n` whether to say that it builds: with folders that are globbed anew it never has nothing to do."""
    rules = (build / "build.ninja").read_text()
    assert "kernels.ptx" in rules and "VerifyGlobs" not in rules


# ------------------------------------------------------------------------------------------------- emulated device


@pytest.fixture(scope="module")
def counted(build, tmp_path_factory):
    folder = build / "tests" / "cuda_emu"
    if not (folder / "libcuda.so.1").exists():
        pytest.skip("this build has no emulated driver")
    path = tmp_path_factory.mktemp("cuda") / "counts.json"
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    command = [build / "logitd-bench", "--only", "cuda", "--json", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=1200)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(path.read_text())
    assert "emulated: counts, no times" in document["notes"][0]
    return document["counts"]


def of(counted, kernel):
    return next(case for case in counted if case["kernel"] == kernel)


def test_every_kernel_is_counted(counted, kernels):
    assert {case["kernel"] for case in counted} == set(kernels)
    for case in counted:
        assert case["units"] > 0 and case["thread_instructions"] > 0, case["name"]


def test_counts_of_known_kernels(counted):
    """Two blocks of 256 threads, three rounds."""
    warps = 2 * 256 // 32
    f32, int8, bf16, read = (of(counted, f"peak_{name}") for name in ("f32", "int8", "bf16", "read"))
    assert (f32["launches"], f32["blocks"], f32["threads"]) == (1, 2, 512)
    assert f32["f32"] == warps * (3 * 16 + 16)  # multiply-adds, and their sum
    assert (int8["mma_integer"], int8["mma_float"]) == (warps * 3 * 8, 0)
    assert (bf16["mma_integer"], bf16["mma_float"]) == (0, warps * 3 * 8)
    assert read["global_loads"] == (1 << 16) / 512  # requests of 32 x 16 bytes, side by side
    assert read["global_load_sectors"] == 16 * read["global_loads"] == (1 << 16) / 32
    assert (read["global_stores"], read["global_store_sectors"], read["async_bytes"]) == (warps, 4 * warps, 0)


def test_counts_of_products(counted):
    """An mma of 16 x 8 x 32 for each product of limbs, two of half that for groups of 16; few bank conflicts."""
    for kernel, passes in (("matmul_n32_m64", 3), ("matmul_q32_m16", 3), ("matmul_f32_m64", 6), ("matmul_q16_m64", 6)):
        case = of(counted, kernel)
        assert case["mma_integer"] == case["units"] * case["launches"] * passes, kernel
        assert case["async_bytes"] > 0 and case["barriers"] > 0
    for kernel in ("matmul_bf16_q32_m64", "matmul_bf16_b16_m16"):
        case = of(counted, kernel)
        assert case["mma_float"] == case["units"] * case["launches"] * 2, kernel
    for case in counted:
        if case["kernel"].startswith("matmul_"):
            # The main loop has none; where sums become rows there are a few.
            assert case["shared_wavefronts"] <= 1.15 * case["shared_wavefronts_ideal"], case["name"]


def test_the_mixes_are_of_these_kernels(counted):
    """The static table predicts from bench/cuda_mix.def: it must be what the emulated device counts."""
    assert list(cuda_mix.differences(cuda_mix.mixes_of(counted), cuda_mix.read())) == []


def test_cards_quote_what_was_counted():
    """No card is out of date: if this fails, `python bench/cuda_mix.py` writes them from bench/cuda_mix.def."""
    for path, with_quotes in cuda_mix.cards(cuda_mix.read()):
        assert path.read_text() == with_quotes, path.name


def test_a_card_says(kernels):
    """A quote, from counts that are made up: half of a request's sectors and a fifth of its wavefronts are waste."""
    assert sorted(cuda_mix.read()) == sorted(kernels)
    counts = dict.fromkeys(cuda_mix.count_names(), 0.0) | {
        "warp_instructions": 123.4, "mma_integer": 3, "f32": 1.5, "f64": 0.25, "convert": 8, "warp": 2, "global_loads": 1,
        "global_load_sectors": 24, "global_stores": 1, "global_store_sectors": 8, "global_sectors_ideal": 16,
        "shared_requests": 4, "shared_wavefronts": 10, "shared_wavefronts_ideal": 8}
    unit, head, row = cuda_mix.quote(["matmul_n32_m64"], {"matmul_n32_m64": list(counts.values())})
    assert "counted for each 16 x 8 x 32 " in unit
    names, values = head.split()[1:], row.split()[1:]
    assert names == ["issued", "mma", "float", "int", "special", "memory", "rest", "sectors", "wavefronts"]
    assert values == ["matmul_n32_m64", "123", "3.00", "1.75", "0.00", "8.00", "0.00", "2.00", "16.0", "(8.00)", "2.50", "(2.00)"]
