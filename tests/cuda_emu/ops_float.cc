// Arithmetic of f32 and f64. Compiled with -frounding-math: directed rounding is the host's own.
//
// f32 results that are NaN are 0x7fffffff, as the hardware's are. The .approx functions are computed by the host's math
// library and rounded to f32: within 1 ulp of the truth, where the hardware's are within 2 or so. Opcodes that exist
// for integers and 16-bit floats too are sent on from here by their type.

#include <cfenv>
#include <cmath>

#include "decode.h"

namespace emu {

void decode_integer_add(Decoding &d);
void decode_integer_sub(Decoding &d);
void decode_integer_mul(Decoding &d);
void decode_integer_mad(Decoding &d);
void decode_integer_div(Decoding &d);
void decode_integer_min(Decoding &d);
void decode_integer_max(Decoding &d);
void decode_integer_abs(Decoding &d);
void decode_integer_neg(Decoding &d);
bool decode_half(Decoding &d); // false: not of a 16-bit type, and nothing was taken

namespace {

template <class T> inline T canonical(T value) {
    return value;
}
template <> inline float canonical(float value) {
    return value == value ? value : bits_as<float>(0x7fffffffU);
}

template <bool FLUSH, class T> inline T flush(T value) {
    if constexpr (FLUSH && std::is_same_v<T, float>)
        return std::fabs(value) < 0x1p-126F ? bits_as<float>(bits_as<u32>(value) & 0x80000000) : value;
    return value;
}

template <bool SATURATE, class T> inline T saturate(T value) {
    if constexpr (SATURATE) return value > 0 ? (value < 1 ? value : (T)1) : (T)0; // NaN: 0
    return value;
}

// F with its results made as the modifiers say.
template <class F, bool FLUSH, bool SATURATE> struct Finished {
    template <class... T> auto operator()(T... from) const {
        return saturate<SATURATE>(flush<FLUSH>(canonical(F{}(flush<FLUSH>(from)...))));
    }
};

// The same under a rounding mode of the host.
template <class F, int MODE, class T, class... S> void run_rounded(Warp &warp, const Insn &insn, u32 mask) {
    fesetround(MODE);
    each_lane<F, T, S...>(warp, insn, mask);
    fesetround(FE_TONEAREST);
}

struct Modifiers {
    int rounding = FE_TONEAREST;
    bool has_rounding = false, approx = false, full = false, flush = false, saturate = false;
};

Modifiers modifiers(Decoding &d) {
    Modifiers m;
    static const std::pair<const char *, int> modes[] = {
        {"rn", FE_TONEAREST}, {"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
    for (auto [name, mode] : modes)
        if (d.accept(name)) m.rounding = mode, m.has_rounding = true;
    m.approx = d.accept("approx");
    m.full = d.accept("full");
    m.flush = d.accept("ftz");
    m.saturate = d.accept("sat");
    return m;
}

template <class F, class T, class... S> void use_mode(Decoding &d, const Modifiers &m) {
    switch (m.rounding) {
    case FE_TONEAREST:
        d.insn.run = lanewise<F, T, S...>;
        break;
    case FE_TOWARDZERO:
        d.insn.run = run_rounded<F, FE_TOWARDZERO, T, S...>;
        break;
    case FE_DOWNWARD:
        d.insn.run = run_rounded<F, FE_DOWNWARD, T, S...>;
        break;
    default:
        d.insn.run = run_rounded<F, FE_UPWARD, T, S...>;
        break;
    }
}

template <class F, class T, class... S> void use_modifiers(Decoding &d, const Modifiers &m) {
    if (m.flush)
        m.saturate ? use_mode<Finished<F, true, true>, T, S...>(d, m)
                   : use_mode<Finished<F, true, false>, T, S...>(d, m);
    else
        m.saturate ? use_mode<Finished<F, false, true>, T, S...>(d, m)
                   : use_mode<Finished<F, false, false>, T, S...>(d, m);
}

// Reads the type and operands, and sets F for it.
template <u32 N, class F> void finish(Decoding &d, const Modifiers &m, F) {
    Type type = d.type();
    if (type != Type::F32 && type != Type::F64) d.fail_type(type);
    if (type == Type::F64 && (m.flush || m.saturate) && !m.approx) d.fail(".ftz and .sat are only for .f32");
    d.same_type(type, N);
    auto set = [&]<class T>(T) {
        if constexpr (N == 1) use_modifiers<F, T, T>(d, m);
        if constexpr (N == 2) use_modifiers<F, T, T, T>(d, m);
        if constexpr (N == 3) use_modifiers<F, T, T, T, T>(d, m);
    };
    type == Type::F32 ? set(0.0F) : set(0.0);
}

bool is_float(const Decoding &d) {
    const std::string &opcode = d.statement.opcode;
    return opcode.find(".f32") != std::string::npos || opcode.find(".f64") != std::string::npos;
}

#define EMU_ARITHMETIC(name, n, expression, integer)                                                                   \
    void decode_##name(Decoding &d) {                                                                                  \
        if (decode_half(d)) return;                                                                                    \
        if (!is_float(d)) return integer(d);                                                                           \
        Modifiers m = modifiers(d);                                                                                    \
        finish<n>(d, m, expression);                                                                                   \
    }

void no_integer(Decoding &d) {
    d.fail("it is not supported for integers");
}

EMU_ARITHMETIC(
    add, 2, [](auto a, auto b) { return a + b; }, decode_integer_add)
EMU_ARITHMETIC(
    sub, 2, [](auto a, auto b) { return a - b; }, decode_integer_sub)
EMU_ARITHMETIC(
    mul, 2, [](auto a, auto b) { return a * b; }, decode_integer_mul)
EMU_ARITHMETIC(
    mad, 3, [](auto a, auto b, auto c) { return std::fma(a, b, c); }, decode_integer_mad)
EMU_ARITHMETIC(
    fma, 3, [](auto a, auto b, auto c) { return std::fma(a, b, c); }, no_integer)

// ---- min, max, neg, abs, copysign

// A NaN loses against a number, and -0 is less than +0.
template <class T> T smaller(T a, T b) {
    T least = a < b ? a : b < a ? b : std::signbit(a) ? a : b;
    return a != a ? b : b != b ? a : least;
}
template <class T> T larger(T a, T b) {
    T most = a > b ? a : b > a ? b : std::signbit(a) ? b : a;
    return a != a ? b : b != b ? a : most;
}

template <class FIRST, class PROPAGATING>
void decode_extreme(Decoding &d, void (*integer)(Decoding &), FIRST first, PROPAGATING nan) {
    if (decode_half(d)) return;
    if (!is_float(d)) return integer(d);
    Modifiers m = modifiers(d);
    d.accept("NaN") ? finish<2>(d, m, nan) : finish<2>(d, m, first);
}

void decode_min(Decoding &d) {
    decode_extreme(
        d, decode_integer_min, [](auto a, auto b) { return smaller(a, b); },
        [](auto a, auto b) { return a != a || b != b ? a + b : smaller(a, b); });
}

void decode_max(Decoding &d) {
    decode_extreme(
        d, decode_integer_max, [](auto a, auto b) { return larger(a, b); },
        [](auto a, auto b) { return a != a || b != b ? a + b : larger(a, b); });
}

EMU_ARITHMETIC(
    neg, 1, [](auto a) { return -a; }, decode_integer_neg)
EMU_ARITHMETIC(
    abs, 1, [](auto a) { return std::fabs(a); }, decode_integer_abs)

// The sign of the first operand on the second.
void decode_copysign(Decoding &d) {
    finish<2>(d, modifiers(d), [](auto a, auto b) { return std::copysign(b, a); });
}

// ---- division and roots

// div.approx loses a divisor above 2^126: its reciprocal, a subnormal, is taken as zero.
void decode_div(Decoding &d) {
    if (!is_float(d)) return decode_integer_div(d);
    Modifiers m = modifiers(d);
    if (!m.has_rounding && !m.approx && !m.full) d.fail("it needs a rounding mode, .approx or .full");
    if (m.approx)
        finish<2>(d, m, [](auto a, auto b) {
            return std::fabs(b) > 0x1p126F && std::isfinite(b) ? a * std::copysign((decltype(a))0, b) : a / b;
        });
    else
        finish<2>(d, m, [](auto a, auto b) { return a / b; });
}

// rcp.approx.ftz.f64 and rsqrt.approx.ftz.f64 know only the upper word of an f64: the lower one is read and written as
// 0.
template <class F> struct UpperWord {
    double operator()(double a) const {
        double upper = bits_as<double>(bits_as<u64>(a) & 0xffffffff00000000);
        if (std::fabs(upper) < 0x1p-1022) upper = std::copysign(0.0, upper);
        double result = F{}(upper);
        if (std::fabs(result) < 0x1p-1022) result = std::copysign(0.0, result);
        return bits_as<double>(bits_as<u64>(result) & 0xffffffff00000000);
    }
};

template <class F> void decode_root(Decoding &d, F f, bool exact_exists) {
    Modifiers m = modifiers(d);
    if (!m.approx && !(m.has_rounding && exact_exists)) d.fail("it needs .approx or a rounding mode");
    if (m.approx && d.statement.opcode.find(".f64") != std::string::npos) {
        if (!m.flush) d.fail("it needs .ftz");
        d.same_type(d.type(), 1);
        d.insn.run = lanewise<UpperWord<F>, double, double>;
        return;
    }
    finish<1>(d, m, f);
}

void decode_rcp(Decoding &d) {
    decode_root(
        d, [](auto a) { return 1 / a; }, true);
}
void decode_sqrt(Decoding &d) {
    decode_root(
        d, [](auto a) { return std::sqrt(a); }, true);
}
void decode_rsqrt(Decoding &d) {
    decode_root(
        d, [](auto a) { return (decltype(a))(1 / std::sqrt((double)a)); }, false);
}

// ---- approximate functions, of f32 only

template <class F> void decode_approx(Decoding &d, F) {
    Modifiers m = modifiers(d);
    if (!m.approx) d.fail("it needs .approx");
    if (d.type() != Type::F32) d.fail("only .f32 is supported");
    d.same_type(Type::F32, 1);
    // A lane that is off may hold anything; the host's functions take any bits.
    if (m.flush)
        d.insn.run = each_lane<Finished<F, true, false>, float, float>;
    else
        d.insn.run = each_lane<Finished<F, false, false>, float, float>;
}

void decode_ex2(Decoding &d) {
    decode_approx(d, [](float a) { return std::exp2(a); });
}
void decode_lg2(Decoding &d) {
    decode_approx(d, [](float a) { return std::log2(a); });
}
void decode_sin(Decoding &d) {
    decode_approx(d, [](float a) { return std::sin(a); });
}
void decode_cos(Decoding &d) {
    decode_approx(d, [](float a) { return std::cos(a); });
}
void decode_tanh(Decoding &d) {
    decode_approx(d, [](float a) { return std::tanh(a); });
}

} // namespace

const std::vector<OpcodeRow> FLOAT_OPCODES = {
    {"add", decode_add},   {"sub", decode_sub},     {"mul", decode_mul},   {"mad", decode_mad},
    {"fma", decode_fma},   {"min", decode_min},     {"max", decode_max},   {"neg", decode_neg},
    {"abs", decode_abs},   {"div", decode_div},     {"rcp", decode_rcp},   {"copysign", decode_copysign},
    {"sqrt", decode_sqrt}, {"rsqrt", decode_rsqrt}, {"ex2", decode_ex2},   {"lg2", decode_lg2},
    {"sin", decode_sin},   {"cos", decode_cos},     {"tanh", decode_tanh},
};

} // namespace emu
