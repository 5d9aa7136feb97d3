"""Deliberately broken kernels: the emulated GPU must name each mistake, its kernel and its line."""

import os
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

from emu import Cuda, CudaError

SOURCE = pathlib.Path(__file__).parent / "cuda_emu" / "broken.cu"
KERNEL = re.compile(r'extern "C" __global__ void (\w+)')


def expectations():
    """kernel → pairs of a finding and its line in the source, from the comments in broken.cu."""
    found, kernel = {}, None
    for number, line in enumerate(SOURCE.read_text().splitlines(), 1):
        if match := KERNEL.search(line):
            kernel = match[1]
        if "// finds: " in line:
            kinds = line.split("// finds: ")[1].strip().split(", ")
            found.setdefault(kernel, set()).update((kind, number) for kind in kinds)
    return found


EXPECTED = expectations()


def find_nvcc():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "logitd"
    candidates = [shutil.which("nvcc"), *map(str, cache.glob("**/bin/nvcc"))]
    return next((c for c in candidates if c), None)


@pytest.fixture(scope="module")
def ptx(tmp_path_factory):
    nvcc = find_nvcc()
    if not nvcc:
        pytest.skip("nvcc is not installed")
    out = tmp_path_factory.mktemp("ptx") / "broken.ptx"
    subprocess.run([nvcc, "-ptx", "-arch=compute_80", "-lineinfo", "-o", out, SOURCE], check=True)
    return out.read_text()


@pytest.fixture
def cuda(request):
    gpu = Cuda(request.config.getoption("--build"))
    gpu.reset()
    gpu.set("STEPS", 100_000)
    yield gpu
    gpu.set("SEED", 1)
    gpu.set("STEPS", 2**32)
    gpu.reset()


def test_every_kernel_is_expected_to_fail():
    assert set(EXPECTED) == set(KERNEL.findall(SOURCE.read_text()))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", EXPECTED)
def test_broken_kernel_is_named(cuda, ptx, name, seed):
    cuda.set("SEED", seed)
    data, out = cuda.put(np.arange(128, dtype=np.float32)), cuda.alloc(512)
    function = cuda.function(cuda.load(ptx), name)
    with pytest.raises(CudaError) as error:
        cuda.launch(function, (2,), (64,), [data, out])
    finding = error.value.finding
    named = re.match(rf"(.*): kernel {name}, PTX line \d+ \(.*broken\.cu:(\d+)\), block", finding)
    assert named and (named[1], int(named[2])) in EXPECTED[name], finding
    assert re.search(r"block \([01], 0, 0\), thread \(\d+, 0, 0\): ", finding), finding
    # The error is sticky: nothing works until the context is reset.
    with pytest.raises(CudaError) as again:
        cuda.alloc(4)
    assert again.value.result == error.value.result


HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


def entry(body, params=".param .u64 p"):
    return HEAD + f".visible .entry k({params})\n{{\n.reg .b32 %r<8>;\n.reg .b64 %x<8>;\n.reg .pred %p<4>;\n{body}\nret;\n}}\n"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("wgmma.fence.sync.aligned;", 'PTX line 9: the instruction "wgmma.fence.sync.aligned" is not supported'),
        ("add.sat.u32 %r0, %r1, %r2;", 'PTX line 9: "add.sat.u32": this type is not supported'),
        ("add.u32.wrong %r0, %r1, %r2;", 'PTX line 9: "add.u32.wrong": ".wrong" is not supported here'),
        ("add.u32 %r0, %x1, %r2;", 'PTX line 9: "add.u32": a source\'s register has the wrong width'),
        ("mov.u32 %r0, %pm0;", 'PTX line 9: the special register "%pm0" is not supported'),
        ("bra nowhere;", 'PTX line 9: there is no label "nowhere"'),
        ("mov.u64 %x0, nothing;", 'PTX line 9: "nothing" is not defined'),
        ("mov.u32 %r0, 0x;", 'PTX line 9: "0x" is not a number'),
    ],
)
def test_what_cannot_run_fails_at_load(cuda, body, sentence):
    with pytest.raises(CudaError) as error:
        cuda.load(entry(body))
    assert error.value.result == 218
    assert sentence in error.value.finding


def test_local_memory(cuda):
    """A thread sees what it wrote, and not what it did not."""
    body = ".local .align 4 .b8 frame[8];\nmov.u64 %x0, frame;\nst.local.u32 [%x0], 7;\nld.local.u32 %r0, [%x0];\nld.param.u64 %x1, [p];\nst.global.u32 [%x1], %r0;\n"
    out = cuda.alloc(4)
    cuda.launch(cuda.function(cuda.load(entry(body)), "k"), (1,), (1,), [out])
    assert cuda.get(out, np.uint32, 1)[0] == 7
    with pytest.raises(CudaError) as error:
        cuda.launch(cuda.function(cuda.load(entry(body + "ld.local.u32 %r1, [%x0+4];")), "k"), (1,), (1,), [out])
    assert error.value.finding.startswith("uninitialised read: kernel k, PTX line 15, ")


def test_use_after_free(cuda):
    function = cuda.function(cuda.load(entry("ld.param.u64 %x0, [p];\nld.global.u32 %r0, [%x0+4];")), "k")
    address = cuda.put(np.zeros(4, np.float32))
    cuda.launch(function, (1,), (1,), [address])
    cuda.free(address)
    with pytest.raises(CudaError) as error:
        cuda.launch(function, (1,), (1,), [address])
    assert error.value.result == 700
    assert error.value.finding.startswith("use after free: kernel k, PTX line 10, block (0, 0, 0), thread (0, 0, 0): reads 4 bytes")


def test_constants_cannot_be_written(cuda):
    text = entry("cvta.const.u64 %x0, table;\nst.global.u32 [%x0], 1;").replace(".visible", ".const .align 4 .u32 table[2] = {1, 2};\n.visible")
    with pytest.raises(CudaError) as error:
        cuda.launch(cuda.function(cuda.load(text.replace("cvta.const.u64 %x0, table;", "mov.u64 %x0, table;")), "k"), (1,), (1,), [cuda.alloc(4)])
    assert error.value.finding.startswith("write to read-only memory: kernel k")


def test_images_that_are_not_ptx(cuda):
    for image, result in (("\x7fELF\x02\x01", 209), ("P\xed\x55\xba", 209)):
        with pytest.raises(CudaError) as error:
            cuda.load(image)
        assert error.value.result == result
