// Arithmetic of f16, bf16 and their pairs: add, sub, mul, fma, min, max, neg, abs, rounded once.

#include <cmath>

#include "decode.h"
#include "half.h"

namespace emu {

namespace {

// The float next to a double towards zero, with its last bit set if it is not exact (rounding to odd): rounding that to
// fewer bits gives what rounding the double would.
float to_odd(double value) {
    float nearest = (float)value;
    if ((double)nearest == value || value != value) return nearest;
    u32 bits = bits_as<u32>(nearest);
    if (std::fabs((double)nearest) > std::fabs(value)) bits--;
    return bits_as<float>(bits | 1);
}

// a·b + c, the sum rounded to odd: the product of two 16-bit numbers is exact.
float fused(float a, float b, float c) {
    double product = (double)a * b, sum = product + c;
    if (!std::isfinite(sum)) return (float)sum;
    double back = sum - product, error = (product - (sum - back)) + (c - back); // Knuth's two-sum
    if (error != 0 && !(bits_as<u64>(sum) & 1)) {
        bool away = (error > 0) == (sum > 0); // sum == 0 has no error
        sum = bits_as<double>(bits_as<u64>(sum) + (away ? 1 : -1ULL));
    }
    return to_odd(sum);
}

template <class H> H rounded(float value);
template <> f16 rounded(float value) {
    return round_f16(value);
}
template <> bf16 rounded(float value) {
    return round_bf16(value);
}

template <class H> H smaller(H a, H b) {
    float x = to_float(a), y = to_float(b);
    if (x != x) return y != y ? H{HALF_NAN} : b;
    if (y != y) return a;
    return x < y || (x == y && (a.bits & 0x8000)) ? a : b;
}

template <class H> H larger(H a, H b) {
    float x = to_float(a), y = to_float(b);
    if (x != x) return y != y ? H{HALF_NAN} : b;
    if (y != y) return a;
    return x > y || (x == y && (b.bits & 0x8000)) ? a : b;
}

struct Add {
    template <class H> H operator()(H a, H b) const { return rounded<H>(fused(to_float(a), 1, to_float(b))); }
};
struct Sub {
    template <class H> H operator()(H a, H b) const { return rounded<H>(fused(to_float(b), -1, to_float(a))); }
};
struct Mul {
    template <class H> H operator()(H a, H b) const { return rounded<H>(fused(to_float(a), to_float(b), -0.0F)); }
};
struct Fma {
    template <class H> H operator()(H a, H b, H c) const {
        return rounded<H>(fused(to_float(a), to_float(b), to_float(c)));
    }
};
struct FmaRelu {
    template <class H> H operator()(H a, H b, H c) const {
        H result = Fma{}(a, b, c);
        return to_float(result) == to_float(result) && (result.bits & 0x8000) ? H{0} : result;
    }
};
struct Min {
    template <class H> H operator()(H a, H b) const { return smaller(a, b); }
};
struct Max {
    template <class H> H operator()(H a, H b) const { return larger(a, b); }
};
struct MinNan {
    template <class H> H operator()(H a, H b) const {
        return to_float(a) != to_float(a) || to_float(b) != to_float(b) ? H{HALF_NAN} : smaller(a, b);
    }
};
struct MaxNan {
    template <class H> H operator()(H a, H b) const {
        return to_float(a) != to_float(a) || to_float(b) != to_float(b) ? H{HALF_NAN} : larger(a, b);
    }
};
struct Neg {
    template <class H> H operator()(H a) const { return {(u16)(a.bits ^ 0x8000)}; }
};
struct Abs {
    template <class H> H operator()(H a) const { return {(u16)(a.bits & 0x7fff)}; }
};

// F on both halves of a word.
template <class F, class H> struct Pairwise {
    template <class... T> u32 operator()(T... from) const {
        u16 low = F{}(H{(u16)from}...).bits, high = F{}(H{(u16)(from >> 16)}...).bits;
        return (u32)high << 16 | low;
    }
};

template <class F, class H, class... S> void use_half(Decoding &d, bool is_pair, u32 n) {
    d.same_type(is_pair ? Type::B32 : Type::B16, n);
    if constexpr (sizeof...(S) == 1)
        d.insn.run = is_pair ? lanewise<Pairwise<F, H>, u32, u32> : lanewise<F, H, H>;
    else if constexpr (sizeof...(S) == 2)
        d.insn.run = is_pair ? lanewise<Pairwise<F, H>, u32, u32, u32> : lanewise<F, H, H, H>;
    else
        d.insn.run = is_pair ? lanewise<Pairwise<F, H>, u32, u32, u32, u32> : lanewise<F, H, H, H, H>;
}

template <class F, class... S> void use_type(Decoding &d) {
    Type type = d.type();
    bool is_pair = type == Type::F16X2 || type == Type::BF16X2;
    if (type == Type::F16 || type == Type::F16X2)
        use_half<F, f16, S...>(d, is_pair, sizeof...(S));
    else
        use_half<F, bf16, S...>(d, is_pair, sizeof...(S));
}

} // namespace

// For the opcodes of ops_float.cc, of a 16-bit type. Flushing and saturation are not supported.
bool decode_half(Decoding &d) {
    const std::string &opcode = d.statement.opcode;
    if (opcode.find("f16") == std::string::npos) return false;
    std::string name = opcode.substr(0, opcode.find('.'));
    bool has_rounding = d.accept("rn");
    bool relu = name == "fma" && d.accept("relu"), nan = (name == "min" || name == "max") && d.accept("NaN");
    if (name == "fma" && !has_rounding) d.fail("it needs .rn");
    if (name == "add") use_type<Add, int, int>(d);
    if (name == "sub") use_type<Sub, int, int>(d);
    if (name == "mul") use_type<Mul, int, int>(d);
    if (name == "fma") relu ? use_type<FmaRelu, int, int, int>(d) : use_type<Fma, int, int, int>(d);
    if (name == "min") nan ? use_type<MinNan, int, int>(d) : use_type<Min, int, int>(d);
    if (name == "max") nan ? use_type<MaxNan, int, int>(d) : use_type<Max, int, int>(d);
    if (name == "neg") use_type<Neg, int>(d);
    if (name == "abs") use_type<Abs, int>(d);
    return true;
}

} // namespace emu
