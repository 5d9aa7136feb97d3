"""The emulated driver: work that waits in streams, events, graphs, limits, faults on demand, counts."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest

from emu import Cuda, CudaError

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
ADD_ONE = (
    HEAD
    + """.visible .entry add_one(.param .u64 p)
{
.reg .b32 %r<4>; .reg .b64 %x<4>;
mov.u32 %r0, %tid.x;
ld.param.u64 %x0, [p];
mad.wide.u32 %x1, %r0, 4, %x0;
ld.global.u32 %r1, [%x1];
add.u32 %r1, %r1, 1;
st.global.u32 [%x1], %r1;
ret;
}
"""
)


@pytest.fixture
def cuda(request):
    gpu = Cuda(request.config.getoption("--build"))
    gpu.reset()
    yield gpu
    gpu.set("FAIL_LAUNCH", 0)
    gpu.set("SEED", 1)
    gpu.reset()
    gpu.set("MEMORY_MB", 8192)


def stream(cuda):
    made = ctypes.c_void_p()
    cuda.call("cuStreamCreate", ctypes.byref(made), 1)
    return made


def event(cuda):
    made = ctypes.c_void_p()
    cuda.call("cuEventCreate", ctypes.byref(made), 0)
    return made


def pinned(cuda, n):
    at = ctypes.c_void_p()
    cuda.call("cuMemHostAlloc", ctypes.byref(at), ctypes.c_size_t(4 * n), 0)
    return at, np.ctypeslib.as_array(ctypes.cast(at, ctypes.POINTER(ctypes.c_uint32)), (n,))


def launch_on(cuda, on, function, address):
    params = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(address), ctypes.c_void_p))
    cuda.call("cuLaunchKernel", function, 1, 1, 1, 32, 1, 1, 0, on, params, None)


def test_results_are_there_only_after_the_wait(cuda):
    function = cuda.function(cuda.load(ADD_ONE), "add_one")
    on, (at, host) = stream(cuda), pinned(cuda, 32)
    address = cuda.put(np.arange(32, dtype=np.uint32))
    host[:] = 99
    launch_on(cuda, on, function, address)
    cuda.call("cuMemcpyDtoHAsync_v2", at, address, ctypes.c_size_t(128), on)
    assert host.tolist() == [99] * 32
    assert cuda.lib.cuStreamQuery(on) == 600
    cuda.call("cuStreamSynchronize", on)
    assert host.tolist() == list(range(1, 33))
    assert cuda.lib.cuStreamQuery(on) == 0


@pytest.mark.parametrize("ordered", [True, False])
def test_events_order_streams_and_nothing_else_does(cuda, ordered):
    """A copy on one stream and the kernel that makes its data on another, under 20 seeds."""
    function = cuda.function(cuda.load(ADD_ONE), "add_one")
    seen = set()
    for seed in range(20):
        cuda.set("SEED", seed)
        first, second, done = stream(cuda), stream(cuda), event(cuda)
        address, (at, host) = cuda.put(np.zeros(32, np.uint32)), pinned(cuda, 32)
        launch_on(cuda, first, function, address)
        cuda.call("cuEventRecord", done, first)
        if ordered:
            cuda.call("cuStreamWaitEvent", second, done, 0)
        cuda.call("cuMemcpyDtoHAsync_v2", at, address, ctypes.c_size_t(128), second)
        cuda.call("cuCtxSynchronize")
        seen.add(int(host[0]))
    assert seen == ({1} if ordered else {0, 1})


def test_graph(cuda):
    function = cuda.function(cuda.load(ADD_ONE), "add_one")
    on, address = stream(cuda), cuda.put(np.zeros(32, np.uint32))
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    cuda.call("cuStreamBeginCapture_v2", on, 0)
    for _ in range(3):
        launch_on(cuda, on, function, address)
    cuda.call("cuStreamEndCapture", on, ctypes.byref(graph))
    cuda.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    assert cuda.get(address, np.uint32, 32).tolist() == [0] * 32
    for _ in range(2):
        cuda.call("cuGraphLaunch", executable, on)
    cuda.call("cuStreamSynchronize", on)
    assert cuda.get(address, np.uint32, 32).tolist() == [6] * 32


def test_injected_fault_is_sticky(cuda):
    function = cuda.function(cuda.load(ADD_ONE), "add_one")
    address = cuda.put(np.zeros(32, np.uint32))
    cuda.set("FAIL_LAUNCH", 2)
    cuda.launch(function, (1,), (32,), [address])
    with pytest.raises(CudaError) as error:
        cuda.launch(function, (1,), (32,), [address])
    assert error.value.result == 719
    assert error.value.finding.startswith("injected fault: kernel add_one")
    with pytest.raises(CudaError):
        cuda.get(address, np.uint32, 32)
    cuda.reset()
    assert cuda.get(cuda.put(np.arange(4, dtype=np.uint32)), np.uint32, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("grid", "block", "shared", "result"),
    [((0, 1, 1), (32, 1, 1), 0, 1), ((1, 70000, 1), (32, 1, 1), 0, 1), ((1, 1, 1), (1025, 1, 1), 0, 1), ((1, 1, 1), (32, 1, 1), 48 * 1024 + 1, 1)],
)
def test_launches_outside_the_limits(cuda, grid, block, shared, result):
    function = cuda.function(cuda.load(ADD_ONE), "add_one")
    with pytest.raises(CudaError) as error:
        cuda.launch(function, grid, block, [cuda.alloc(128)], shared)
    assert error.value.result == result


def test_shared_memory_beyond_48_kib_must_be_asked_for(cuda):
    function = cuda.function(cuda.load(ADD_ONE), "add_one")
    address = cuda.put(np.zeros(32, np.uint32))
    cuda.call("cuFuncSetAttribute", function, 8, 100 * 1024)
    cuda.launch(function, (1,), (32,), [address], 100 * 1024)
    assert cuda.lib.cuFuncSetAttribute(function, 8, 164 * 1024) == 1


def test_memory_is_limited_and_comes_back(cuda):
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    cuda.set("MEMORY_MB", 64)
    cuda.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    assert (free.value, total.value) == (64 << 20, 64 << 20)
    address = cuda.alloc(64 << 20)
    with pytest.raises(CudaError) as error:
        cuda.alloc(1)
    assert error.value.result == 2
    cuda.free(address)
    cuda.alloc(1)
    assert cuda.lib.cuMemFree_v2(address) == 1


def test_entry_points_by_name(cuda):
    found = ctypes.c_void_p()
    assert cuda.lib.cuGetProcAddress_v2(b"cuMemAlloc", ctypes.byref(found), 12000, ctypes.c_ulonglong(0), None) == 0
    assert found.value == ctypes.cast(cuda.lib.cuMemAlloc_v2, ctypes.c_void_p).value
    assert cuda.lib.cuGetProcAddress_v2(b"cuNothing", ctypes.byref(found), 12000, ctypes.c_ulonglong(0), None) == 500


STRIDES = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
from emu import Cuda
gpu = Cuda(sys.argv[2])
text = sys.argv[3]
function = gpu.function(gpu.load(text), "strides")
gpu.launch(function, (1,), (32,), [gpu.put(np.zeros(1024, np.uint32))])
gpu.reset()
"""

STRIDES_PTX = HEAD + """.visible .entry strides(.param .u64 p)
{
.reg .b32 %r<8>; .reg .b64 %x<8>; .reg .pred %p<2>;
.shared .align 128 .b8 tile[4096];
mov.u32 %r0, %tid.x;
ld.param.u64 %x0, [p];
mad.wide.u32 %x1, %r0, 4, %x0;
ld.global.u32 %r1, [%x1];
mad.wide.u32 %x2, %r0, 128, %x0;
ld.global.u32 %r2, [%x2];
mov.u32 %r3, tile;
mad.lo.u32 %r4, %r0, 4, %r3;
st.shared.u32 [%r4], %r1;
mad.lo.u32 %r5, %r0, 128, %r3;
bar.sync 0;
st.shared.u32 [%r5], %r2;
setp.gt.u32 %p0, %r0, 99;
@%p0 trap;
ret;
}
"""


def test_counts_of_transactions_and_lines(cuda, request, tmp_path):
    """Side by side: 4 sectors and no conflict. 128 bytes apart: 32 sectors, and all lanes at one bank."""
    out = tmp_path / "counters"
    env = {**os.environ, "LOGITD_EMU_COUNTERS": str(out), "LOGITD_EMU_TRAFFIC": "1"}
    tests = os.path.dirname(os.path.abspath(__file__))
    subprocess.run([sys.executable, "-c", STRIDES, tests, request.config.getoption("--build"), STRIDES_PTX], check=True, env=env)
    rows = [line.split("\t") for line in out.read_text().splitlines()]
    by_kind = {row[0]: row[1:] for row in rows if row[0] != "line"}
    assert by_kind["global"] == ["strides", "2", "36", "8"]
    assert by_kind["shared"] == ["strides", "2", "33", "2"]
    assert by_kind["kernel"][:2] == ["strides", "1"]
    lines = {int(row[2]): int(row[4]) for row in rows if row[0] == "line"}
    assert lines == {n: 1 for n in range(8, 23)}
