"""The emulated GPU's instructions of a whole warp: fragments of mma and ldmatrix, shuffles, votes, reductions, atomics.

The layouts are computed here element by element from the tables of the PTX ISA ("Matrix Fragments for mma.m16n8k…"), with
g = lane // 4 and t = lane % 4.
"""

import numpy as np
import pytest

from emu import Cuda

LANES = np.arange(32)
HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


@pytest.fixture(scope="module")
def cuda(request):
    return Cuda(request.config.getoption("--build"))


def run(cuda, body, sources, n_results, n_warps=1, dtype=np.uint32):
    """A kernel of which lane i has sources[j][i] in %a{j} and gives %d{k}; returns [n_results][32 · n_warps]."""
    n = 32 * n_warps
    params = ", ".join([".param .u64 out", *(f".param .u64 in{j}" for j in range(len(sources)))])
    lines = [HEAD, f".visible .entry k({params}) {{", f".reg .b32 %a<{len(sources) + 1}>, %d<{n_results + 1}>, %r<8>;", ".reg .b64 %x<4>;", ".reg .pred %p<4>;"]
    lines += [".shared .align 128 .b8 tile[512];", "mov.u32 %r0, %tid.x;", "mul.wide.u32 %x0, %r0, 4;"]
    for j in range(len(sources)):
        lines += [f"ld.param.u64 %x1, [in{j}];", "add.u64 %x1, %x1, %x0;", f"ld.global.u32 %a{j}, [%x1];"]
    lines += [body, "ld.param.u64 %x1, [out];", "add.u64 %x1, %x1, %x0;"]
    lines += [f"st.global.u32 [%x1+{4 * n * k}], %d{k};" for k in range(n_results)]
    function = cuda.function(cuda.load("\n".join([*lines, "ret;", "}"])), "k")
    out = cuda.alloc(4 * n * n_results)
    cuda.launch(function, (1,), (n,), [out, *(cuda.put(np.ascontiguousarray(s).view(np.uint32)) for s in sources)])
    return cuda.get(out, dtype, n * n_results).reshape(n_results, n)


# ---------------------------------------------------------------------------------------------------------------- mma


def bf16(array):
    bits = np.asarray(array, np.float32).view(np.uint32)
    return (bits >> 16).astype(np.uint16)


FLOATS = {  # element type → from integers that it holds exactly, to its bits
    "bf16": bf16,
    "f16": lambda a: np.asarray(a, np.float16).view(np.uint16),
    "tf32": lambda a: np.asarray(a, np.float32).view(np.uint32),
}
BYTES = {"s8": np.int8, "u8": np.uint8}


def element(lane, register, i, per_register, k_of_block):
    """(row of A or column of B, k) of a register's element i."""
    return lane // 4, k_of_block * 4 * per_register + lane % 4 * per_register + i


def pack_a(a, per_register):
    """[16][K] → registers of 32 lanes: a0, a1 are rows g and g + 8; then the next columns."""
    bits = 32 // per_register
    registers = np.zeros((2 * a.shape[1] // (4 * per_register), 32), np.uint32)
    for r, lane, i in np.ndindex(*registers.shape, per_register):
        row, k = element(lane, r, i, per_register, r // 2)
        registers[r, lane] |= np.uint32(int(a[row + 8 * (r % 2), k]) << (bits * i))
    return registers


def pack_b(b, per_register):
    """[K][8] → registers."""
    bits = 32 // per_register
    registers = np.zeros((b.shape[0] // (4 * per_register), 32), np.uint32)
    for r, lane, i in np.ndindex(*registers.shape, per_register):
        column, k = element(lane, r, i, per_register, r)
        registers[r, lane] |= np.uint32(int(b[k, column]) << (bits * i))
    return registers


def pack_c(c):
    return np.array([[c[lane // 4 + 8 * (j // 2), lane % 4 * 2 + j % 2] for lane in LANES] for j in range(4)])


def mma(cuda, shape, types, a, b, c):
    sources = [*a, *b, *c]
    names = [f"%a{i}" for i in range(len(sources))]
    groups = [", ".join(names[: len(a)]), ", ".join(names[len(a) : len(a) + len(b)]), ", ".join(names[len(a) + len(b) :])]
    body = f"mma.sync.aligned.{shape}.row.col.{types} {{%d0, %d1, %d2, %d3}}, {{{groups[0]}}}, {{{groups[1]}}}, {{{groups[2]}}};"
    return run(cuda, body, sources, 4)


@pytest.mark.parametrize(("shape", "kind"), [("m16n8k16", "bf16"), ("m16n8k8", "bf16"), ("m16n8k16", "f16"), ("m16n8k8", "f16"), ("m16n8k8", "tf32"), ("m16n8k4", "tf32")])
def test_mma_floats(cuda, shape, kind):
    k, per_register = int(shape[6:]), 1 if kind == "tf32" else 2
    random = np.random.default_rng(k)
    # Small whole numbers: every sum is exact, so the layout must be too.
    a, b, c = random.integers(-9, 10, (16, k)), random.integers(-9, 10, (k, 8)), random.integers(-99, 100, (16, 8))
    to_bits = FLOATS[kind]
    got = mma(cuda, shape, f"f32.{kind}.{kind}.f32", pack_a(to_bits(a), per_register), pack_b(to_bits(b), per_register), pack_c(c.astype(np.float32)))
    want = pack_c((a @ b + c).astype(np.float32))
    assert (got.view(np.float32) == want).all()


def test_mma_rounding_is_within_its_bound(cuda):
    """K · 2⁻²³ · (|c| + Σ|ab|), as ops_matrix.cc states it."""
    random = np.random.default_rng(5)
    a, b = (from_bits(bf16(random.standard_normal(shape))) for shape in ((16, 16), (16, 8)))
    c = random.standard_normal((16, 8)).astype(np.float32)
    got = mma(cuda, "m16n8k16", "f32.bf16.bf16.f32", pack_a(bf16(a), 2), pack_b(bf16(b), 2), pack_c(c)).view(np.float32)
    a, b, c = (m.astype(np.float64) for m in (a, b, c))
    assert (np.abs(got - pack_c(a @ b + c)) <= pack_c(16 * 2.0**-23 * (np.abs(c) + np.abs(a) @ np.abs(b)))).all()


def from_bits(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("shape", ["m16n8k32", "m16n8k16"])
@pytest.mark.parametrize(("left", "right"), [("s8", "s8"), ("s8", "u8"), ("u8", "s8"), ("u8", "u8")])
def test_mma_bytes(cuda, shape, left, right):
    k = int(shape[6:])
    random = np.random.default_rng(k)

    def draw(kind, size):
        info = np.iinfo(BYTES[kind])
        return random.integers(info.min, info.max + 1, size).astype(BYTES[kind])

    a, b = draw(left, (16, k)), draw(right, (k, 8))
    a[0], b[:, 0] = np.iinfo(a.dtype).min, np.iinfo(b.dtype).max
    c = random.integers(-(2**31), 2**31, (16, 8))
    sums = a.astype(np.int64) @ b.astype(np.int64) + c
    packed = pack_a(a.view(np.uint8), 4), pack_b(b.view(np.uint8), 4), pack_c(c.astype(np.int32))
    assert (mma(cuda, shape, f"s32.{left}.{right}.s32", *packed).view(np.int32) == pack_c(sums.astype(np.int32))).all()
    saturated = mma(cuda, shape, f"satfinite.s32.{left}.{right}.s32", *packed)
    assert (saturated.view(np.int32) == pack_c(np.clip(sums, -(2**31), 2**31 - 1))).all()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_ldmatrix(cuda, n, transposed):
    """Lane 8j + r gives the address of row r of matrix j; lane l gets elements 2t, 2t + 1 of row g, or of column g."""
    data = np.random.default_rng(n).integers(0, 2**16, (4, 8, 8)).astype(np.uint16)
    order = np.random.default_rng(n + 9).permutation(32)  # of the rows in shared memory
    rows = data.reshape(32, 8)[np.argsort(order)].reshape(-1).view(np.uint32).reshape(32, 4)
    body = "mov.u32 %r1, tile;\nmad.lo.u32 %r2, %r0, 16, %r1;\nst.shared.v4.u32 [%r2], {%a0, %a1, %a2, %a3};\nbar.sync 0;\nmad.lo.u32 %r3, %a4, 16, %r1;\n"
    results = ", ".join(f"%d{j}" for j in range(n))
    body += f"ldmatrix.sync.aligned.m8n8.x{n}{'.trans' if transposed else ''}.shared.b16 {{{results}}}, [%r3];"
    got = run(cuda, body, [*rows.T, order.astype(np.uint32)], n)
    for j, lane in np.ndindex(n, 32):
        g, t = lane // 4, lane % 4
        low, high = (data[j, 2 * t, g], data[j, 2 * t + 1, g]) if transposed else (data[j, g, 2 * t], data[j, g, 2 * t + 1])
        assert got[j, lane] == int(high) << 16 | int(low), f"matrix {j}, lane {lane}"


# ------------------------------------------------------------------------------------------- shuffles, votes, reductions


@pytest.mark.parametrize("width", [32, 16, 8])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffle(cuda, mode, width):
    """As CUDA C defines __shfl_*_sync with a width: lanes outside the segment keep their own value."""
    value = np.random.default_rng(1).integers(0, 2**32, 32).astype(np.uint32)
    by = np.array([1, 2, 3, 5] * 8, np.uint32)
    c = (32 - width) << 8 | (0 if mode == "up" else 31)
    body = f"shfl.sync.{mode}.b32 %d0|%p0, %a0, %a1, {c}, -1;\nselp.u32 %d1, 1, 0, %p0;"
    got = run(cuda, body, [value, by], 2)
    for lane in LANES:
        base, n = lane // width * width, int(by[lane])
        source = {"up": lane - n, "down": lane + n, "bfly": lane ^ n, "idx": base + n % width}[mode]
        inside = base <= source < base + width
        if mode == "bfly":
            inside = source < base + width
        assert got[1, lane] == inside, lane
        assert got[0, lane] == value[source if inside else lane], lane


def test_votes_and_matches(cuda):
    value = np.array([3, 7, 3, 9] * 8, np.uint32)
    body = """setp.eq.u32 %p0, %a0, 3;
        vote.sync.ballot.b32 %d0, %p0, -1;
        vote.sync.any.pred %p1, %p0, -1; selp.u32 %d1, 1, 0, %p1;
        vote.sync.all.pred %p1, %p0, -1; selp.u32 %d2, 1, 0, %p1;
        vote.sync.uni.pred %p1, !%p0, -1; selp.u32 %d3, 1, 0, %p1;
        match.any.sync.b32 %d4, %a0, -1;
        match.all.sync.b32 %d5|%p2, %a0, -1; selp.u32 %d6, 1, 0, %p2;"""
    got = run(cuda, body, [value], 7)
    ballot = sum(1 << i for i in range(32) if value[i] == 3)
    same = [sum(1 << i for i in range(32) if value[i] == v) for v in value]
    want = [[ballot] * 32, [1] * 32, [0] * 32, [0] * 32, same, [0] * 32, [0] * 32]
    assert got.tolist() == want


@pytest.mark.parametrize(
    ("operation", "reduce"),
    [("add.u32", lambda v: int(v.sum()) % 2**32), ("min.u32", np.min), ("max.u32", np.max), ("min.s32", lambda v: int(v.view(np.int32).min()) % 2**32),
     ("max.s32", lambda v: int(v.view(np.int32).max()) % 2**32), ("and.b32", np.bitwise_and.reduce), ("or.b32", np.bitwise_or.reduce), ("xor.b32", np.bitwise_xor.reduce)],
)
def test_reductions(cuda, operation, reduce):
    """Over halves of the warp, each with its own mask."""
    value = np.random.default_rng(2).integers(0, 2**32, 32).astype(np.uint32)
    masks = np.array([0xFFFF] * 16 + [0xFFFF0000] * 16, np.uint32)
    got = run(cuda, f"redux.sync.{operation} %d0, %a0, %a1;", [value, masks], 1)
    assert got[0].tolist() == [int(reduce(value[:16]))] * 16 + [int(reduce(value[16:]))] * 16


def test_barrier_reductions(cuda):
    """bar.red over three warps."""
    value = np.arange(96, dtype=np.uint32)
    body = "setp.lt.u32 %p0, %a0, 70;\nbar.red.popc.u32 %d0, 0, %p0;\nbar.red.and.pred %p1, 0, %p0;\nselp.u32 %d1, 1, 0, %p1;\nbar.red.or.pred %p1, 0, !%p0;\nselp.u32 %d2, 1, 0, %p1;"
    assert run(cuda, body, [value], 3, n_warps=3).tolist() == [[70] * 96, [0] * 96, [1] * 96]


# ------------------------------------------------------------------------------------------------------------ atomics


ATOMICS = {
    "add.u32": lambda a, b: (a + b) % 2**32, "min.u32": min, "max.u32": max, "and.b32": lambda a, b: a & b, "or.b32": lambda a, b: a | b,
    "xor.b32": lambda a, b: a ^ b, "exch.b32": lambda _, b: b, "inc.u32": lambda a, b: 0 if a >= b else a + 1, "dec.u32": lambda a, b: b if a == 0 or a > b else a - 1,
}


@pytest.mark.parametrize("space", ["shared", "global"])
@pytest.mark.parametrize("operation", ATOMICS)
def test_atomics(cuda, operation, space):
    """One lane after another on one word, lowest first: what each found there, and what is there at the end."""
    value = np.random.default_rng(3).integers(0, 50, 32).astype(np.uint32)
    start = np.full(32, 21, np.uint32)
    if space == "shared":
        body = "mov.u32 %r1, tile;\nsetp.eq.u32 %p0, %r0, 0;\n@%p0 st.shared.u32 [%r1], %a1;\nbar.sync 0;\n"
        body += f"atom.shared.{operation} %d0, [%r1], %a0;\nbar.sync 0;\nld.shared.u32 %d1, [%r1];"
    else:
        body = f"ld.param.u64 %x2, [in1];\natom.global.{operation} %d0, [%x2], %a0;\nbar.sync 0;\nld.global.u32 %d1, [%x2];"
    got, now, found = run(cuda, body, [value, start], 2), 21, []
    for v in value.tolist():
        found.append(now)
        now = ATOMICS[operation](now, v)
    assert got.tolist() == [found, [now] * 32]


def test_compare_and_swap_and_float_add(cuda):
    body = """ld.param.u64 %x2, [in0]; atom.global.cas.b32 %d0, [%x2], 5, 9;
        ld.param.u64 %x3, [in1]; atom.global.add.f32 %d1, [%x3], 0f3F000000; bar.sync 0; ld.global.u32 %d2, [%x3];"""
    got = run(cuda, body, [np.full(32, 5, np.uint32), np.full(32, 1, np.float32)], 3)
    assert got[0].tolist() == [5] + [9] * 31
    assert got[1].view(np.float32).tolist() == [1 + i / 2 for i in range(32)]
    assert got[2].view(np.float32).tolist() == [17.0] * 32


# --------------------------------------------------------------------------------------- divergence, cp.async, traffic


def test_paths_meet_again(cuda):
    """Loops of different lengths, an early exit from them and a branch inside: all lanes are back for the ballot."""
    body = """mov.u32 %d0, 0; mov.u32 %r1, 0;
        $loop: setp.ge.u32 %p0, %r1, %a0; @%p0 bra $done;
        and.b32 %r2, %r1, 1; setp.eq.u32 %p1, %r2, 0; @%p1 bra $even;
        add.u32 %d0, %d0, 100; bra $next;
        $even: add.u32 %d0, %d0, 1;
        $next: add.u32 %r1, %r1, 1; setp.gt.u32 %p2, %d0, 900; @!%p2 bra $loop;
        $done: setp.ne.u32 %p3, %a0, 999; vote.sync.ballot.b32 %d1, %p3, -1;"""
    got = run(cuda, body, [LANES.astype(np.uint32)], 2)

    def walk(n):
        total = i = 0
        while i < n:
            total += 1 if i % 2 == 0 else 100
            i += 1
            if total > 900:
                break
        return total

    assert got[0].tolist() == [walk(n) for n in range(32)]
    assert got[1].tolist() == [0xFFFFFFFF] * 32


def test_async_copies(cuda):
    """16 bytes, and 8 of 16 with the rest zeroed."""
    value = np.arange(128, dtype=np.uint32)
    body = """ld.param.u64 %x2, [in0]; mul.wide.u32 %x3, %r0, 16; add.u64 %x2, %x2, %x3;
        mov.u32 %r1, tile; mad.lo.u32 %r1, %r0, 16, %r1; and.b32 %r2, %r0, 1; mul.lo.u32 %r2, %r2, 8; add.u32 %r2, %r2, 8;
        cp.async.cg.shared.global [%r1], [%x2], 16, %r2; cp.async.commit_group; cp.async.wait_group 0;
        ld.shared.v4.u32 {%d0, %d1, %d2, %d3}, [%r1];"""
    got = run(cuda, body, [value], 4)
    want = value.reshape(32, 4).T.copy()
    want[2:, ::2] = 0
    assert (got == want).all()
