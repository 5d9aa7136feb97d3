"""The emulated GPU's instructions, one case each, against numbers computed here: exact rationals where rounding matters.

A case is a PTX line over registers %a0, %a1, … and %d, the types of all, and a function of Python or numpy. All cases are
kernels of one module; each runs on every combination of special values and on random bits. What is stated in `ulp` is the
tolerance for .approx; everything else must be the same bits (any NaN where the reference has one, 0x7fffffff for f32).
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from emu import Cuda

N = 1024  # values a case: a multiple of 32

TYPES = {  # PTX register type, bytes in memory, numpy type
    "u16": ("b16", 2, np.uint16), "s16": ("b16", 2, np.int16), "u32": ("b32", 4, np.uint32), "s32": ("b32", 4, np.int32),
    "u64": ("b64", 8, np.uint64), "s64": ("b64", 8, np.int64), "f32": ("f32", 4, np.float32), "f64": ("f64", 8, np.float64),
    "f16": ("b16", 2, np.float16), "bf16": ("b16", 2, np.uint16), "pred": ("pred", 4, np.uint32),
}

# ---------------------------------------------------------------------------------------------------- exact rounding


def exact(value):
    return Fraction(float(value))


def fraction_round(value, mode, digits, least_exponent):
    """value to `digits` significant bits, units no smaller than 2**least_exponent."""
    if value == 0:
        return value
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    while Fraction(2) ** exponent > abs(value):
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= abs(value):
        exponent += 1
    unit = Fraction(2) ** max(exponent - digits + 1, least_exponent)
    scaled = value / unit
    low = math.floor(scaled)
    if mode == "rn":
        low = round(scaled)  # Python rounds Fractions to even
    elif mode == "rp" or (mode == "rz" and value < 0):
        low = math.ceil(scaled)
    elif mode == "ra":  # ties away from zero
        low = math.floor(abs(scaled) + Fraction(1, 2)) * (1 if scaled > 0 else -1)
    return low * unit


FORMATS = {"f32": (24, -149, 2.0**128), "f64": (53, -1074, None), "f16": (11, -24, 65536.0), "bf16": (8, -133, 2.0**128)}


def round_exact(value, mode, name, zero_sign=1.0):
    """A Fraction as a float of the format, infinite where it overflows."""
    digits, least, limit = FORMATS[name]
    rounded = fraction_round(value, mode, digits, least)
    if rounded == 0:
        return math.copysign(0.0, zero_sign if value == 0 else 1 if value > 0 else -1)
    bound = Fraction(limit) if limit else Fraction(2) ** 1024
    if abs(rounded) >= bound:
        away = mode == "rn" or (mode == "rp" and value > 0) or (mode == "rm" and value < 0)
        largest = bound - bound / 2**digits
        return (math.inf if away else float(largest)) * (1 if value > 0 else -1)
    return float(rounded)


def arithmetic(operation, name, mode):
    """operation on Fractions, rounded once; on infinities and NaN what IEEE 754 says, by numpy."""

    def reference(*args):
        values = [float(a) for a in args]
        with np.errstate(all="ignore"):
            ieee = float(operation(*[np.float64(v) for v in values]))
        if not all(map(math.isfinite, values)) or math.isnan(ieee):
            if operation is FMA and math.isinf(values[2]) and all(map(math.isfinite, values[:2])):
                return values[2]  # the product may not overflow on the way
            return ieee
        try:
            value = operation(*[Fraction(v) for v in values])
        except ZeroDivisionError:
            return ieee
        if value == 0:  # the sign of an exact zero
            if ieee == 0 and mode != "rm":
                return ieee
            products = [math.copysign(1, v) for v in values]
            same = operation is not None and ieee == 0 and math.copysign(1, ieee) < 0
            return -0.0 if same or (mode == "rm" and cancels(operation, products, values)) else 0.0
        return round_exact(value, mode, name)

    return reference


def cancels(operation, _signs, values):
    """x − x is −0 when rounding down, but 0 + 0 and 0 · x keep their own sign."""
    if operation in (MUL, DIV):
        return math.copysign(1, values[0]) * math.copysign(1, values[1]) < 0
    terms = [values[0], values[1]] if operation is ADD else [values[0], -values[1]] if operation is SUB else [values[0] * values[1], values[2]]
    signs = {math.copysign(1, t) for t in terms}
    if operation is FMA:
        signs = {math.copysign(1, values[0]) * math.copysign(1, values[1]), math.copysign(1, values[2])}
    return len(signs) == 2 or signs == {-1.0}


def ADD(a, b):
    return a + b


def SUB(a, b):
    return a - b


def MUL(a, b):
    return a * b


def FMA(a, b, c):
    return a * b + c


def DIV(a, b):
    return a / b


def from_bf16(bits):
    return (np.asarray(bits, np.uint32) << 16).view(np.float32)


def to_bf16(value):
    """The bits of a float that is a bf16 exactly, or NaN."""
    bits = int(np.float32(value).view(np.uint32))
    return 0x7FFF if math.isnan(value) else bits >> 16


# --------------------------------------------------------------------------------------------------------- the cases


def wrap(bits, signed=False):
    def cut(value):
        value &= (1 << bits) - 1
        return value - (1 << bits) if signed and value >> (bits - 1) else value

    return cut


CASES = []  # name, PTX lines, result type, source types, reference, options


def case(line, result, sources, reference, **options):
    name = "k" + str(len(CASES))
    CASES.append((name, line, result, sources.split(), reference, options))


def clamp(value, low, high):
    return max(low, min(high, value))


# integers
for t, bits, signed in (("u16", 16, False), ("s16", 16, True), ("u32", 32, False), ("s32", 32, True), ("u64", 64, False), ("s64", 64, True)):
    w = wrap(bits, signed)
    two, three = f"{t} {t}", f"{t} {t} {t}"
    case(f"add.{t} %d, %a0, %a1;", t, two, lambda a, b, w=w: w(a + b))
    case(f"sub.{t} %d, %a0, %a1;", t, two, lambda a, b, w=w: w(a - b))
    case(f"mul.lo.{t} %d, %a0, %a1;", t, two, lambda a, b, w=w: w(a * b))
    case(f"mul.hi.{t} %d, %a0, %a1;", t, two, lambda a, b, w=w, n=bits: w(a * b >> n))
    case(f"mad.lo.{t} %d, %a0, %a1, %a2;", t, three, lambda a, b, c, w=w: w(a * b + c))
    case(f"mad.hi.{t} %d, %a0, %a1, %a2;", t, three, lambda a, b, c, w=w, n=bits: w((a * b >> n) + c))
    case(f"min.{t} %d, %a0, %a1;", t, two, min)
    case(f"max.{t} %d, %a0, %a1;", t, two, max)
    case(f"div.{t} %d, %a0, %a1;", t, two, lambda a, b, w=w: w(-1) if b == 0 else w(abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)))
    case(f"rem.{t} %d, %a0, %a1;", t, two, lambda a, b, w=w: a if b == 0 else w(abs(a) % abs(b) * (1 if a >= 0 else -1)))
    case(f"sad.{t} %d, %a0, %a1, %a2;", t, three, lambda a, b, c, w=w: w(c + abs(a - b)))
    shift = "shr." + t
    case(f"{shift} %d, %a0, %a1;", t, f"{t} u32", lambda a, b, w=w: w(a >> min(b, 100)))
    if signed:
        case(f"neg.{t} %d, %a0;", t, t, lambda a, w=w: w(-a))
        case(f"abs.{t} %d, %a0;", t, t, lambda a, w=w: w(abs(a)))
    if bits < 64:
        wide = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}[t]
        ww = wrap(2 * bits, signed)
        case(f"mul.wide.{t} %d, %a0, %a1;", wide, two, lambda a, b, w=ww: w(a * b))
        case(f"mad.wide.{t} %d, %a0, %a1, %a2;", wide, f"{t} {t} {wide}", lambda a, b, c, w=ww: w(a * b + c))
for bits in (16, 32, 64):
    u, w = f"u{bits}", wrap(bits)
    case(f"and.b{bits} %d, %a0, %a1;", u, f"{u} {u}", lambda a, b: a & b)
    case(f"or.b{bits} %d, %a0, %a1;", u, f"{u} {u}", lambda a, b: a | b)
    case(f"xor.b{bits} %d, %a0, %a1;", u, f"{u} {u}", lambda a, b: a ^ b)
    case(f"not.b{bits} %d, %a0;", u, u, lambda a, w=w: w(~a))
    case(f"cnot.b{bits} %d, %a0;", u, u, lambda a: int(a == 0))
    case(f"shl.b{bits} %d, %a0, %a1;", u, f"{u} u32", lambda a, b, w=w: w(a << min(b, 100)))
    case(f"mov.b{bits} %d, %a0;", u, u, lambda a: a)
for bits in (32, 64):
    u, s = f"u{bits}", f"s{bits}"
    case(f"popc.b{bits} %d, %a0;", "u32", u, lambda a: bin(a).count("1"))
    case(f"clz.b{bits} %d, %a0;", "u32", u, lambda a, n=bits: n - a.bit_length())
    case(f"brev.b{bits} %d, %a0;", u, u, lambda a, n=bits: int(f"{a:0{n}b}"[::-1], 2))
    case(f"bfind.{u} %d, %a0;", "u32", u, lambda a: (a.bit_length() - 1) & 0xFFFFFFFF)
    case(f"bfind.{s} %d, %a0;", "u32", s, lambda a: ((a if a >= 0 else ~a).bit_length() - 1) & 0xFFFFFFFF)
    case(f"bfind.shiftamt.{u} %d, %a0;", "u32", u, lambda a, n=bits: n - a.bit_length() if a else 0xFFFFFFFF)

    def extract(a, position, length, signed, n):
        position, length = position & 0xFF, length & 0xFF
        bit = [a >> i & 1 for i in range(n)]
        sign = bit[min(position + length - 1, n - 1)] if signed and length else 0
        out = sum((bit[position + i] if i < length and position + i < n else sign) << i for i in range(n))
        return wrap(n, signed)(out)

    case(f"bfe.{u} %d, %a0, %a1, %a2;", u, f"{u} u32 u32", lambda a, p, c, n=bits: extract(a, p, c, False, n))
    case(f"bfe.{s} %d, %a0, %a1, %a2;", s, f"{s} u32 u32", lambda a, p, c, n=bits: extract(a, p, c, True, n))

    def insert(a, b, position, length, n):
        position, length = position & 0xFF, length & 0xFF
        for i in range(length):
            if position + i < n:
                b = b & ~(1 << (position + i)) | (a >> i & 1) << (position + i)
        return b

    case(f"bfi.b{bits} %d, %a0, %a1, %a2, %a3;", u, f"{u} {u} u32 u32", lambda a, b, p, c, n=bits: insert(a, b, p, c, n))
    # carries: a double-width sum, difference and product, their upper words
    w = wrap(bits)
    case(f"add.cc.{u} %t0, %a0, %a1; addc.{u} %d, %a2, %a3;", u, f"{u} {u} {u} {u}", lambda a, b, c, e, w=w, n=bits: w((a + b >> n) + c + e), temps=u)
    case(f"sub.cc.{u} %t0, %a0, %a1; subc.{u} %d, %a2, %a3;", u, f"{u} {u} {u} {u}", lambda a, b, c, e, w=w: w(c - e - int(a < b)), temps=u)
    case(f"mad.lo.cc.{u} %t0, %a0, %a1, %a2; madc.hi.{u} %d, %a0, %a1, 0;", u, f"{u} {u} {u}", lambda a, b, c, n=bits: (a * b + c) >> n, temps=u)
    case(f"add.cc.{u} %t0, %a0, %a1; addc.cc.{u} %t0, %a2, %a3; addc.{u} %d, 0, 0;", u, f"{u} {u} {u} {u}",
         lambda a, b, c, e, n=bits: ((a + b >> n) + c + e) >> n, temps=u)
case("add.sat.s32 %d, %a0, %a1;", "s32", "s32 s32", lambda a, b: clamp(a + b, -(2**31), 2**31 - 1))
case("sub.sat.s32 %d, %a0, %a1;", "s32", "s32 s32", lambda a, b: clamp(a - b, -(2**31), 2**31 - 1))
case("mul24.lo.u32 %d, %a0, %a1;", "u32", "u32 u32", lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF) & 0xFFFFFFFF)
case("mul24.hi.s32 %d, %a0, %a1;", "s32", "s32 s32", lambda a, b: wrap(32, True)(wrap(24, True)(a) * wrap(24, True)(b) >> 16))
case("mad24.lo.s32 %d, %a0, %a1, %a2;", "s32", "s32 s32 s32", lambda a, b, c: wrap(32, True)(wrap(24, True)(a) * wrap(24, True)(b) + c))
case("lop3.b32 %d, %a0, %a1, %a2, 0xCA;", "u32", "u32 u32 u32", lambda a, b, c: a & b | ~a & 0xFFFFFFFF & c)
case("lop3.b32 %d, %a0, %a1, %a2, 0x96;", "u32", "u32 u32 u32", lambda a, b, c: a ^ b ^ c)
for side, how in itertools.product("lr", ("wrap", "clamp")):

    def funnel(a, b, n, side=side, how=how):
        n = n % 32 if how == "wrap" else min(n, 32)
        both = b << 32 | a
        return (both << n >> 32 if side == "l" else both >> n) & 0xFFFFFFFF

    case(f"shf.{side}.{how}.b32 %d, %a0, %a1, %a2;", "u32", "u32 u32 u32", funnel)


def permute(a, b, selector):
    data = [(b << 32 | a) >> 8 * i & 0xFF for i in range(8)]
    picks = [selector >> 4 * i & 0xF for i in range(4)]
    return sum((data[p & 7] if p < 8 else 255 * (data[p & 7] >> 7)) << 8 * i for i, p in enumerate(picks))


case("prmt.b32 %d, %a0, %a1, %a2;", "u32", "u32 u32 u32", permute)


def parts(value, bits, signed):
    return [wrap(bits, signed)(value >> i) for i in range(0, 32, bits)]


for x, y in itertools.product("us", "us"):
    s = "s" in (x, y)
    case(f"dp4a.{x}32.{y}32 %d, %a0, %a1, %a2;", "u32", "u32 u32 u32",
         lambda a, b, c, x=x, y=y: wrap(32)(c + sum(p * q for p, q in zip(parts(a, 8, x == "s"), parts(b, 8, y == "s")))))
    for half in ("lo", "hi"):
        case(f"dp2a.{half}.{x}32.{y}32 %d, %a0, %a1, %a2;", "u32", "u32 u32 u32",
             lambda a, b, c, x=x, y=y, h=half: wrap(32)(c + sum(p * q for p, q in zip(parts(a, 16, x == "s"), parts(b, 8, y == "s")[2 * (h == "hi"):]))))

# comparisons and choices
ORDER = {"eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b}
for name, holds in ORDER.items():
    for t in ("u16", "s16", "u32", "s32", "u64", "s64"):
        case(f"setp.{name}.{t} %d, %a0, %a1;", "pred", f"{t} {t}", lambda a, b, f=holds: int(f(a, b)))
    for t in ("f32", "f64", "f16"):
        case(f"setp.{name}.{t} %d, %a0, %a1;", "pred", f"{t} {t}", lambda a, b, f=holds: int(f(a, b) and a == a and b == b))
        case(f"setp.{name}u.{t} %d, %a0, %a1;", "pred", f"{t} {t}", lambda a, b, f=holds: int(f(a, b) or a != a or b != b))
for name, other in (("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")):
    case(f"setp.{name}.u32 %d, %a0, %a1;", "pred", "u32 u32", lambda a, b, f=ORDER[other]: int(f(a, b)))
case("setp.num.f32 %d, %a0, %a1;", "pred", "f32 f32", lambda a, b: int(a == a and b == b))
case("setp.nan.f32 %d, %a0, %a1;", "pred", "f32 f32", lambda a, b: int(a != a or b != b))
case("setp.lt.ftz.f32 %d, %a0, %a1;", "pred", "f32 f32", lambda a, b: int(flush(a) < flush(b)))
for join, f in (("and", lambda p, q: p and q), ("or", lambda p, q: p or q), ("xor", lambda p, q: p != q)):
    case(f"setp.gt.s32 %p0, %a2, 0; setp.lt.{join}.s32 %d, %a0, %a1, %p0;", "pred", "s32 s32 s32", lambda a, b, c, f=f: int(f(a < b, c > 0)))
    case(f"setp.gt.s32 %p0, %a2, 0; setp.lt.{join}.s32 %p1|%d, %a0, %a1, !%p0;", "pred", "s32 s32 s32", lambda a, b, c, f=f: int(f(not a < b, not c > 0)))
    case(f"setp.gt.s32 %p0, %a0, 0; setp.gt.s32 %p1, %a1, 0; {join}.pred %d, %p0, %p1;", "pred", "s32 s32", lambda a, b, f=f: int(f(a > 0, b > 0)))
case("setp.gt.s32 %p0, %a0, 0; not.pred %d, %p0;", "pred", "s32", lambda a: int(not a > 0))
case("setp.gt.s32 %p0, %a0, 0; mov.pred %d, %p0;", "pred", "s32", lambda a: int(a > 0))
case("setp.gt.s32 %p0, %a0, 0; selp.b32 %d, %a0, %a1, %p0;", "s32", "s32 s32", lambda a, b: a if a > 0 else b)
case("setp.gt.s64 %p0, %a0, 0; selp.b64 %d, %a0, %a1, %p0;", "s64", "s64 s64", lambda a, b: a if a > 0 else b)
case("set.lt.u32.s32 %d, %a0, %a1;", "u32", "s32 s32", lambda a, b: 0xFFFFFFFF if a < b else 0)
case("set.lt.f32.f32 %d, %a0, %a1;", "f32", "f32 f32", lambda a, b: 1.0 if a < b else 0.0)
case("slct.s32.s32 %d, %a0, %a1, %a2;", "s32", "s32 s32 s32", lambda a, b, c: a if c >= 0 else b)
case("slct.s32.f32 %d, %a0, %a1, %a2;", "s32", "s32 s32 f32", lambda a, b, c: a if c >= 0 else b)
case("testp.finite.f32 %d, %a0;", "pred", "f32", lambda a: int(math.isfinite(a)))
case("testp.infinite.f32 %d, %a0;", "pred", "f32", lambda a: int(math.isinf(a)))
case("testp.notanumber.f64 %d, %a0;", "pred", "f64", lambda a: int(math.isnan(a)))
case("testp.subnormal.f32 %d, %a0;", "pred", "f32", lambda a: int(0 < abs(a) < 2.0**-126))


# floats
def flush(value):
    return math.copysign(0.0, value) if abs(value) < 2.0**-126 else value


def saturate(value):
    return 0.0 if math.isnan(value) or value <= 0 else min(value, 1.0)


for t, mode in itertools.product(("f32", "f64"), ("rn", "rz", "rm", "rp")):
    case(f"add.{mode}.{t} %d, %a0, %a1;", t, f"{t} {t}", arithmetic(ADD, t, mode))
    case(f"sub.{mode}.{t} %d, %a0, %a1;", t, f"{t} {t}", arithmetic(SUB, t, mode))
    case(f"mul.{mode}.{t} %d, %a0, %a1;", t, f"{t} {t}", arithmetic(MUL, t, mode))
    case(f"fma.{mode}.{t} %d, %a0, %a1, %a2;", t, f"{t} {t} {t}", arithmetic(FMA, t, mode))
    case(f"div.{mode}.{t} %d, %a0, %a1;", t, f"{t} {t}", arithmetic(DIV, t, mode))


def fused_ftz(a, b, c):
    return flush(arithmetic(FMA, "f32", "rn")(flush(a), flush(b), flush(c)))


case("fma.rn.ftz.f32 %d, %a0, %a1, %a2;", "f32", "f32 f32 f32", fused_ftz)
case("mul.ftz.f32 %d, %a0, %a1;", "f32", "f32 f32", lambda a, b: flush(arithmetic(MUL, "f32", "rn")(flush(a), flush(b))))
case("add.sat.f32 %d, %a0, %a1;", "f32", "f32 f32", lambda a, b: saturate(arithmetic(ADD, "f32", "rn")(a, b)))
for t in ("f32", "f64"):
    case(f"neg.{t} %d, %a0;", t, t, lambda a: -a)
    case(f"abs.{t} %d, %a0;", t, t, abs)
    case(f"copysign.{t} %d, %a0, %a1;", t, f"{t} {t}", lambda a, b: math.copysign(b, a) if not math.isnan(b) else b)


def extreme(pick, propagate):
    def reference(a, b):
        a, b = float(a), float(b)
        if math.isnan(a) or math.isnan(b):
            return math.nan if propagate or (math.isnan(a) and math.isnan(b)) else b if math.isnan(a) else a
        return pick(a, b, key=lambda v: (v, math.copysign(1, v)))

    return reference


for name, pick in (("min", min), ("max", max)):
    for t in ("f32", "f64", "f16"):
        case(f"{name}.{t} %d, %a0, %a1;", t, f"{t} {t}", extreme(pick, False))
    case(f"{name}.NaN.f32 %d, %a0, %a1;", "f32", "f32 f32", extreme(pick, True))


def root(a):
    return math.nan if a < 0 or math.isnan(a) else math.sqrt(a) if a != 0 else a


case("sqrt.rn.f32 %d, %a0;", "f32", "f32", lambda a: float(np.sqrt(np.float32(a))) if a >= 0 else math.nan if a < 0 or a != a else a)
case("sqrt.rn.f64 %d, %a0;", "f64", "f64", root)
case("rcp.rn.f32 %d, %a0;", "f32", "f32", lambda a: arithmetic(DIV, "f32", "rn")(1.0, a))
case("rcp.rz.f32 %d, %a0;", "f32", "f32", lambda a: arithmetic(DIV, "f32", "rz")(1.0, a))
case("rcp.rn.f64 %d, %a0;", "f64", "f64", lambda a: arithmetic(DIV, "f64", "rn")(1.0, a))

# approximate: the hardware's bounds are of the order of 1 to 2 ulp
case("rcp.approx.f32 %d, %a0;", "f32", "f32", lambda a: arithmetic(DIV, "f32", "rn")(1.0, a), ulp=1)
case("div.full.f32 %d, %a0, %a1;", "f32", "f32 f32", arithmetic(DIV, "f32", "rn"), ulp=2)
case("sqrt.approx.f32 %d, %a0;", "f32", "f32", lambda a: root(float(a)), ulp=1)
case("rsqrt.approx.f32 %d, %a0;", "f32", "f32", lambda a: math.nan if a < 0 else math.copysign(math.inf, a) if a == 0 else 1 / math.sqrt(float(a)), ulp=1)
case("ex2.approx.f32 %d, %a0;", "f32", "f32", lambda a: 0.0 if a < -1100 else math.inf if a > 128 else 2.0 ** float(a), ulp=1)
case("ex2.approx.ftz.f32 %d, %a0;", "f32", "f32", lambda a: 0.0 if a < -1100 else math.inf if a > 128 else flush(2.0 ** flush(float(a))), ulp=1)
case("lg2.approx.f32 %d, %a0;", "f32", "f32", lambda a: math.nan if a < 0 else -math.inf if a == 0 else math.log2(a), ulp=1)
case("sin.approx.f32 %d, %a0;", "f32", "f32", lambda a: math.nan if math.isinf(a) else math.sin(a), ulp=1)
case("cos.approx.f32 %d, %a0;", "f32", "f32", lambda a: math.nan if math.isinf(a) else math.cos(a), ulp=1)
case("tanh.approx.f32 %d, %a0;", "f32", "f32", lambda a: math.tanh(a), ulp=2)


def upper_word(value):
    if math.isnan(value):
        return value
    bits = np.float64(value).view(np.uint64) & np.uint64(0xFFFFFFFF00000000)
    cut = float(bits.view(np.float64))
    return math.copysign(0.0, cut) if abs(cut) < 2.0**-1022 else cut


case("rcp.approx.ftz.f64 %d, %a0;", "f64", "f64", lambda a: upper_word(arithmetic(DIV, "f64", "rn")(1.0, upper_word(a))))


# 16-bit floats
def half(operation, name):
    round_once = arithmetic(operation, name, "rn")
    if name == "f16":
        return round_once
    return lambda *args: to_bf16(round_once(*[float(from_bf16(a)) for a in args]))


for name, operation, n in (("add", ADD, 2), ("sub", SUB, 2), ("mul", MUL, 2), ("fma.rn", FMA, 3)):
    operands = ", ".join(f"%a{i}" for i in range(n))
    case(f"{name}.f16 %d, {operands};", "f16", " ".join(["f16"] * n), half(operation, "f16"))
    case(f"{name}.bf16 %d, {operands};", "bf16", " ".join(["bf16"] * n), half(operation, "bf16"))


def pairwise(reference, to_value, to_bits):
    def both(*words):
        high = reference(*[to_value(w >> 16) for w in words])
        low = reference(*[to_value(w & 0xFFFF) for w in words])
        return to_bits(high) << 16 | to_bits(low)

    return both


def f16_value(bits):
    return float(np.uint16(bits).view(np.float16))


def f16_bits(value):
    return 0x7FFF if math.isnan(value) else int(np.float16(value).view(np.uint16))


case("fma.rn.f16x2 %d, %a0, %a1, %a2;", "u32", "u32 u32 u32", pairwise(arithmetic(FMA, "f16", "rn"), f16_value, f16_bits))
case("fma.rn.bf16x2 %d, %a0, %a1, %a2;", "u32", "u32 u32 u32", pairwise(arithmetic(FMA, "bf16", "rn"), lambda b: float(from_bf16(b)), to_bf16))
case("max.bf16x2 %d, %a0, %a1;", "u32", "u32 u32", pairwise(extreme(max, False), lambda b: float(from_bf16(b)), to_bf16))
case("neg.bf16x2 %d, %a0;", "u32", "u32", lambda a: a ^ 0x80008000)
case("abs.bf16x2 %d, %a0;", "u32", "u32", lambda a: a & 0x7FFF7FFF)

# conversions
INTEGERS = {"u8": (8, False), "s8": (8, True), "u16": (16, False), "s16": (16, True), "u32": (32, False), "s32": (32, True), "u64": (64, False), "s64": (64, True)}
for (to, (n, s)), (of, (m, q)) in itertools.product(INTEGERS.items(), INTEGERS.items()):
    if to == of or 8 in (n, m) and 16 in (n, m):
        continue
    # registers have at least 32 bits here, of which the source type takes the lowest
    from_type, to_type = ("u64" if m == 64 else "u32"), ("s64" if n == 64 else "s32") if s else ("u64" if n == 64 else "u32")
    bound = (-(2 ** (n - 1)), 2 ** (n - 1) - 1) if s else (0, 2**n - 1)
    if 16 not in (n, m):
        case(f"cvt.{to}.{of} %d, %a0;", to_type, from_type, lambda a, w=wrap(n, s), r=wrap(m, q): w(r(a)))
    if m >= 32 and n >= 32:
        case(f"cvt.sat.{to}.{of} %d, %a0;", to_type, from_type, lambda a, b=bound, r=wrap(m, q): clamp(r(a), *b))
for mode, f in (("rni", round), ("rzi", math.trunc), ("rmi", math.floor), ("rpi", math.ceil)):
    for of, to in itertools.product(("f32", "f64"), ("u32", "s32", "u64", "s64")):
        n, s = INTEGERS[to]
        bound = (-(2 ** (n - 1)), 2 ** (n - 1) - 1) if s else (0, 2**n - 1)
        case(f"cvt.{mode}.{to}.{of} %d, %a0;", to, of,
             lambda a, f=f, b=bound: 0 if math.isnan(a) else b[a > 0] if math.isinf(a) else clamp(f(float(a)), *b))
    case(f"cvt.{mode}.f32.f32 %d, %a0;", "f32", "f32", lambda a, f=f: a if not math.isfinite(a) else math.copysign(float(f(float(a))), a))
for mode in ("rn", "rz", "rm", "rp"):
    for of in ("u32", "s32", "u64", "s64"):
        case(f"cvt.{mode}.f32.{of} %d, %a0;", "f32", of, lambda a, m=mode: round_exact(Fraction(a), m, "f32"))
        case(f"cvt.{mode}.f64.{of} %d, %a0;", "f64", of, lambda a, m=mode: round_exact(Fraction(a), m, "f64"))
    case(f"cvt.{mode}.f32.f64 %d, %a0;", "f32", "f64", lambda a, m=mode: float(a) if not math.isfinite(a) or a == 0 else round_exact(exact(a), m, "f32"))
case("cvt.f64.f32 %d, %a0;", "f64", "f32", float)
case("cvt.f32.f16 %d, %a0;", "f32", "f16", float)
case("cvt.f32.bf16 %d, %a0;", "f32", "bf16", lambda a: float(from_bf16(a)))
case("cvt.sat.f32.f32 %d, %a0;", "f32", "f32", saturate)


def narrow(name, mode):
    def reference(a):
        value = float(a) if not math.isfinite(a) or a == 0 else round_exact(exact(a), mode, name)
        return to_bf16(value) if name == "bf16" else value

    return reference


for mode in ("rn", "rz"):
    case(f"cvt.{mode}.f16.f32 %d, %a0;", "f16", "f32", narrow("f16", mode))
    case(f"cvt.{mode}.bf16.f32 %d, %a0;", "bf16", "f32", narrow("bf16", mode))
    case(f"cvt.{mode}.bf16x2.f32 %d, %a0, %a1;", "u32", "f32 f32", lambda a, b, m=mode: narrow("bf16", m)(a) << 16 | narrow("bf16", m)(b))
case("cvt.rn.f16x2.f32 %d, %a0, %a1;", "u32", "f32 f32", lambda a, b: f16_bits(narrow("f16", "rn")(a)) << 16 | f16_bits(narrow("f16", "rn")(b)))
case("cvt.rn.f16.f64 %d, %a0;", "f16", "f64", narrow("f16", "rn"))
case("cvt.rn.f16.u32 %d, %a0;", "f16", "u32", lambda a: round_exact(Fraction(a), "rn", "f16"))
case("cvt.rna.tf32.f32 %d, %a0;", "u32", "f32",
     lambda a: 0x7FFFFFFF if math.isnan(a) else int(np.float32(a).view(np.uint32)) if not math.isfinite(a) or a == 0
     else int(np.float32(tf32(a)).view(np.uint32)))


def tf32(a):
    rounded = fraction_round(exact(a), "ra", 11, -136)
    return math.copysign(math.inf, a) if abs(rounded) >= 2**128 else math.copysign(float(rounded), a)


# packing
case("mov.b64 %d, {%a0, %a1};", "u64", "u32 u32", lambda a, b: b << 32 | a)
case("mov.b64 {%t0, %d}, %a0;", "u32", "u64", lambda a: a >> 32, temps="u32")
case("mov.b32 %d, {%a0, %a1};", "u32", "u16 u16", lambda a, b: b << 16 | a)
case("mov.b32 {%d, %t0}, %a0;", "u16", "u32", lambda a: a & 0xFFFF, temps="u16")

# ------------------------------------------------------------------------------------------------------------ running

PTX_HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


def kernel_text(name, line, result, sources, temps=None, **_):
    lines = [f".visible .entry {name}(.param .u64 out, " + ", ".join(f".param .u64 in{i}" for i in range(len(sources))) + ") {"]
    lines += [f".reg .{TYPES[t][0]} %a{i};" for i, t in enumerate(sources)]
    lines += [f".reg .{TYPES[result][0]} %d;", ".reg .pred %p<4>;", ".reg .b64 %x<4>;", ".reg .b32 %i<8>;"]
    if temps:
        lines.append(f".reg .{TYPES[temps][0]} %t0;")
    lines += ["mov.u32 %i0, %ctaid.x;", "mov.u32 %i1, %ntid.x;", "mov.u32 %i2, %tid.x;", "mad.lo.u32 %i3, %i0, %i1, %i2;"]
    for i, t in enumerate(sources):
        lines += [f"ld.param.u64 %x0, [in{i}];", f"mad.wide.u32 %x1, %i3, {TYPES[t][1]}, %x0;", f"ld.global.b{8 * TYPES[t][1]} %a{i}, [%x1];"]
    lines += line.split("\n")
    lines += ["ld.param.u64 %x0, [out];", f"mad.wide.u32 %x1, %i3, {TYPES[result][1]}, %x0;"]
    if result == "pred":
        lines += ["selp.u32 %i4, 1, 0, %d;", "st.global.u32 [%x1], %i4;"]
    else:
        lines.append(f"st.global.b{8 * TYPES[result][1]} [%x1], %d;")
    return "\n".join([*lines, "ret;", "}"])


SPECIAL_FLOATS = [0.0, -0.0, 1.0, -1.0, 1.5, -2.5, 0.5, math.inf, -math.inf, math.nan, 3.0, 1e-3]
SPECIALS = {
    "f32": [*SPECIAL_FLOATS, 2.0**-149, -(2.0**-149), 2.0**-127, 2.0**-126, float(np.float32(3.4028235e38)), 1 + 2.0**-23, 16777217.0, 2147483648.0],
    "f64": [*SPECIAL_FLOATS, 5e-324, -5e-324, 2.0**-1022, 1.7976931348623157e308, 1 + 2.0**-52, 2.0**63, -(2.0**31) - 0.5, 65520.0],
    "f16": [*SPECIAL_FLOATS, 2.0**-24, 2.0**-14, 65504.0, -65504.0, 1 + 2.0**-10],
    "bf16": [0, 0x8000, 0x3F80, 0xBF80, 0x7F80, 0xFF80, 0x7FC0, 1, 0x8001, 0x80, 0x7F7F, 0x3F81],
}


def inputs(sources, seed):
    """N values a source: the specials of all in every combination first, then random bits, near and far."""
    random = np.random.default_rng(seed)
    columns = []
    for t in sources:
        dtype = TYPES[t][2]
        if t in SPECIALS:
            special = np.array(SPECIALS[t]).astype(dtype)
        else:
            info = np.iinfo(dtype)
            special = np.array([0, 1, 2, 7, 31, 32, 33, info.max, info.max - 1, info.min, info.max // 2 + 1, 1 << 7], dtype)
        columns.append(special)
    grid = list(itertools.product(*[range(len(c)) for c in columns]))
    random.shuffle(grid)
    made = []
    for i, t in enumerate(sources):
        dtype = TYPES[t][2]
        bits = np.frombuffer(random.bytes(N * np.dtype(dtype).itemsize), dtype).copy()
        if t in ("f32", "f64", "f16"):  # half of them of moderate size
            bits[::2] = random.standard_normal(N // 2).astype(dtype) * 8
        elif t != "bf16":
            bits[::4] = random.integers(0, 70, N // 4).astype(dtype)
        n = min(len(grid), N // 2)
        bits[:n] = columns[i][[g[i] for g in grid[:n]]]
        made.append(bits)
    return made


@pytest.fixture(scope="module")
def cuda(request):
    return Cuda(request.config.getoption("--build"))


@pytest.fixture(scope="module")
def module(cuda):
    return cuda.load(PTX_HEAD + "\n".join(kernel_text(name, line, result, sources, **options) for name, line, result, sources, _, options in CASES))


def expected(reference, result, arrays):
    dtype = TYPES[result][2]
    to_python = [[a.item() for a in array] for array in arrays]
    with np.errstate(all="ignore"):
        return np.array([reference(*row) for row in zip(*to_python)], object if dtype in (np.uint64, np.int64) else None).astype(dtype)


def same_values(result, got, want, ulp):
    """Where the two agree: the same bits, or NaN for NaN, or as near as .approx needs to be."""
    width = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[got.dtype.itemsize]
    agree = got.view(width) == want.view(width)
    if result in ("f32", "f64", "f16"):
        agree |= np.isnan(got) & np.isnan(want)
        if ulp:
            with np.errstate(all="ignore"):
                agree |= np.abs(got.astype(np.float64) - want.astype(np.float64)) <= ulp * np.spacing(np.abs(want)).astype(np.float64)
    return agree


@pytest.mark.parametrize("index", range(len(CASES)), ids=[c[1].split("\n")[0].rstrip(";").replace(" ", "_") for c in CASES])
def test_instruction(cuda, module, index):
    name, line, result, sources, reference, options = CASES[index]
    arrays = inputs(sources, index)
    addresses = [cuda.put(a) for a in arrays]
    out = cuda.alloc(N * TYPES[result][1])
    cuda.launch(cuda.function(module, name), (N // 64,), (64,), [out, *addresses])
    got, want = cuda.get(out, TYPES[result][2], N), expected(reference, result, arrays)
    agree = same_values(result, got, want, options.get("ulp", 0))
    worst = int(np.argmin(agree))
    assert agree.all(), f"{line} of {[a[worst] for a in arrays]} is {got[worst]!r}, not {want[worst]!r} ({(~agree).sum()} of {N} differ)"
    if result == "f32" and not line.startswith(("neg", "abs", "copysign")):
        assert set(got[np.isnan(got)].view(np.uint32).tolist()) <= {0x7FFFFFFF}, "a NaN is not the canonical one"
    for address in (out, *addresses):
        cuda.free(address)
