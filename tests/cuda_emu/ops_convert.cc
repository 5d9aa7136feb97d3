// cvt: between integers, between floats, and across.
//
// Float to integer saturates and takes NaN as 0 (for 64-bit results too). Compiled with -frounding-math.

#include <cfenv>
#include <cmath>
#include <limits>

#include "decode.h"
#include "half.h"

namespace emu {

namespace {

template <class F> bool for_type(Type type, F f) {
    switch (type) {
    case Type::U8:
        f(u8{});
        return true;
    case Type::S8:
        f(i8{});
        return true;
    case Type::U16:
        f(u16{});
        return true;
    case Type::S16:
        f(i16{});
        return true;
    case Type::U32:
        f(u32{});
        return true;
    case Type::S32:
        f(i32{});
        return true;
    case Type::U64:
        f(u64{});
        return true;
    case Type::S64:
        f(i64{});
        return true;
    case Type::F16:
        f(f16{});
        return true;
    case Type::BF16:
        f(bf16{});
        return true;
    case Type::F32:
        f(float{});
        return true;
    case Type::F64:
        f(double{});
        return true;
    default:
        return false;
    }
}

template <class T> constexpr bool IS_HALF = std::is_same_v<T, f16> || std::is_same_v<T, bf16>;
template <class T> constexpr bool IS_FLOAT = IS_HALF<T> || std::is_floating_point_v<T>;

enum class Rounding : u8 { NONE, RN, RZ, RM, RP, RNI, RZI, RMI, RPI };

struct Cvt {
    Rounding rounding = Rounding::NONE;
    bool flush = false, saturate = false, relu = false;
};

// A register may be wider than the type: the upper bits of a result are its sign (signed) or zero.
template <class S> S read_source(u64 bits) {
    return bits_as<S>((Bits<sizeof(S)>)bits);
}
template <class D> u64 write_result(D value) {
    if constexpr (std::is_integral_v<D> && std::is_signed_v<D>) return (u64)(i64)value;
    return bits_as<Bits<sizeof(D)>>(value);
}

int host_mode(Rounding rounding) {
    switch (rounding) {
    case Rounding::RZ:
    case Rounding::RZI:
        return FE_TOWARDZERO;
    case Rounding::RM:
    case Rounding::RMI:
        return FE_DOWNWARD;
    case Rounding::RP:
    case Rounding::RPI:
        return FE_UPWARD;
    default:
        return FE_TONEAREST;
    }
}

template <class T> double widened(T value) {
    if constexpr (IS_HALF<T>)
        return (double)to_float(value);
    else
        return (double)value;
}

template <class D> D integer_from(double value) { // a whole number, or not finite
    if (value != value) return 0;
    if (value <= (double)std::numeric_limits<D>::min()) return std::numeric_limits<D>::min();
    if (value >= (double)std::numeric_limits<D>::max()) return std::numeric_limits<D>::max();
    return (D)value;
}

template <class D> D half_from(float value, Rounding rounding) {
    bool zero = rounding == Rounding::RZ;
    if constexpr (std::is_same_v<D, f16>)
        return zero ? truncate_f16(value) : round_f16(value);
    else
        return zero ? truncate_bf16(value) : round_bf16(value);
}

// The host's rounding mode is set by the caller.
template <class D, class S> D converted(S from, const Cvt &how) {
    if constexpr (std::is_integral_v<D> && std::is_integral_v<S>) {
        if (!how.saturate) return (D)from;
        __int128 wide = from, low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
        return (D)(wide < low ? low : wide > high ? high : wide);
    } else if constexpr (std::is_integral_v<D>) {
        double value = widened(from);
        if (how.flush && std::is_same_v<S, float> && std::fabs(value) < 0x1p-126) value = 0;
        return integer_from<D>(std::nearbyint(value));
    } else {
        D result;
        if constexpr (std::is_same_v<D, float> && std::is_integral_v<S>) {
            result = (float)from;
        } else if constexpr (std::is_same_v<D, double>) {
            result = widened(from);
        } else if constexpr (std::is_same_v<D, float>) {
            result = (float)widened(from);
            if (result != result) result = bits_as<float>(0x7fffffffU);
        } else if constexpr (std::is_same_v<S, double> || std::is_integral_v<S>) {
            // Twice rounding is once rounding only through an odd float.
            double value = widened(from);
            float odd = (float)value;
            if ((double)odd != value && value == value) {
                u32 bits = bits_as<u32>(odd);
                if (std::fabs((double)odd) > std::fabs(value)) bits--;
                odd = bits_as<float>(bits | 1);
            }
            result = half_from<D>(odd, how.rounding);
        } else {
            result = half_from<D>((float)widened(from), how.rounding);
        }
        if constexpr (IS_FLOAT<S> && std::is_floating_point_v<D>)
            if (how.rounding >= Rounding::RNI) result = std::nearbyint(result);
        if constexpr (std::is_same_v<D, float>)
            if (how.flush && std::fabs(result) < 0x1p-126F) result = std::copysign(0.0F, result);
        if constexpr (std::is_floating_point_v<D>) {
            if (how.saturate) result = result > 0 ? (result < 1 ? result : (D)1) : (D)0;
        } else {
            float value = to_float(result);
            if (how.saturate) result = value > 0 ? (value < 1 ? result : half_from<D>(1, Rounding::RN)) : D{0};
            if (how.relu && value == value && (result.bits & 0x8000)) result = D{0};
        }
        return result;
    }
}

Cvt unpack(i64 packed) {
    Cvt how;
    how.rounding = (Rounding)(packed & 0xff);
    how.flush = packed >> 8 & 1;
    how.saturate = packed >> 9 & 1;
    how.relu = packed >> 10 & 1;
    return how;
}

i64 pack(const Cvt &how) {
    return (i64)how.rounding | (i64)how.flush << 8 | (i64)how.saturate << 9 | (i64)how.relu << 10;
}

u64 read_lane(Warp &warp, u16 op, bool wide, u32 lane) {
    return wide ? warp.slot64(op)[lane] : warp.slot(op)[lane];
}

void write_lane(Warp &warp, u16 op, u32 bits, u32 lane, u64 value) {
    if (bits == 64)
        warp.slot64(op)[lane] = value;
    else
        warp.slot(op)[lane] = bits == 16 ? (u16)value : (u32)value;
}

// Insn::offset: a packed Cvt; target: the result register's bits; aux: the source's register has 64.
template <class D, class S> void run_cvt(Warp &warp, const Insn &insn, u32 mask) {
    Cvt how = unpack(insn.offset);
    int mode = host_mode(how.rounding);
    if (mode != FE_TONEAREST) fesetround(mode);
    for (u32 rest = mask; rest; rest &= rest - 1) {
        u32 i = lowest_lane(rest);
        write_lane(warp, insn.op[0], insn.target, i,
                   write_result<D>(converted<D, S>(read_source<S>(read_lane(warp, insn.op[1], insn.aux, i)), how)));
    }
    if (mode != FE_TONEAREST) fesetround(FE_TONEAREST);
}

// Two floats into a pair, the first in the upper half.
template <class H> void run_cvt_pair(Warp &warp, const Insn &insn, u32 mask) {
    Cvt how = unpack(insn.offset);
    u32 *to = warp.slot(insn.op[0]);
    const u32 *high = warp.slot(insn.op[1]), *low = warp.slot(insn.op[2]);
    for (u32 rest = mask; rest; rest &= rest - 1) {
        u32 i = lowest_lane(rest);
        u32 upper = converted<H, float>(bits_as<float>(high[i]), how).bits;
        to[i] = upper << 16 | converted<H, float>(bits_as<float>(low[i]), how).bits;
    }
}

// The commonest conversions, in a form that the compiler makes vectors of.
bool use_fast(Decoding &d, Type to, Type from, const Cvt &how, u32 to_bits, u32 from_bits) {
    bool plain = !how.flush && !how.saturate && !how.relu;
    if (!plain || to_bits != type_bits(to) || from_bits != type_bits(from)) return false;
    auto is = [&](Type t, Type f) { return to == t && from == f; };
    if ((is(Type::U64, Type::U32) || is(Type::S64, Type::U32)))
        return use<u64, u32>(d.insn, [](u32 a) { return (u64)a; }), true;
    if ((is(Type::S64, Type::S32) || is(Type::U64, Type::S32)))
        return use<i64, i32>(d.insn, [](i32 a) { return (i64)a; }), true;
    if (type_bits(to) == 32 && type_bits(from) == 64 && to != Type::F32 && from != Type::F64)
        return use<u32, u64>(d.insn, [](u64 a) { return (u32)a; }), true;
    if (how.rounding != Rounding::NONE && how.rounding != Rounding::RN) return false;
    if (is(Type::F32, Type::S32)) return use<float, i32>(d.insn, [](i32 a) { return (float)a; }), true;
    if (is(Type::F32, Type::U32)) return use<float, u32>(d.insn, [](u32 a) { return (float)a; }), true;
    if (is(Type::F64, Type::F32)) return use<double, float>(d.insn, [](float a) { return (double)a; }), true;
    if (is(Type::BF16, Type::F32)) return use<bf16, float>(d.insn, [](float a) { return round_bf16(a); }), true;
    if (is(Type::F32, Type::F16))
        return use<float, f16>(
                   d.insn,
                   [](f16 a) { return (a.bits & 0x7fff) > 0x7c00 ? bits_as<float>(0x7fffffffU) : to_float(a); }),
               true;
    return false;
}

Rounding rounding(Decoding &d) {
    static const std::pair<const char *, Rounding> names[] = {
        {"rn", Rounding::RN},   {"rz", Rounding::RZ},   {"rm", Rounding::RM},   {"rp", Rounding::RP},
        {"rni", Rounding::RNI}, {"rzi", Rounding::RZI}, {"rmi", Rounding::RMI}, {"rpi", Rounding::RPI}};
    for (auto [name, value] : names)
        if (d.accept(name)) return value;
    return Rounding::NONE;
}

bool is_float(Type type) {
    return type == Type::F16 || type == Type::BF16 || type == Type::F32 || type == Type::F64;
}

// What rounding PTX wants to see: one where bits can be lost, none where they cannot.
void check_rounding(Decoding &d, Type to, Type from, Rounding rounding) {
    bool integral = rounding >= Rounding::RNI, has = rounding != Rounding::NONE;
    if (!is_float(to) && !is_float(from)) {
        if (has) d.fail("integers are not rounded");
    } else if (!is_float(to)) {
        if (!integral) d.fail("float to integer needs .rni, .rzi, .rmi or .rpi");
    } else if (!is_float(from) || type_bits(to) < type_bits(from)) {
        if (!has || integral) d.fail("it needs .rn, .rz, .rm or .rp");
    } else if (to == from ? has && !integral : has) {
        d.fail("nothing is rounded here");
    }
    if ((to == Type::F16 || to == Type::BF16) && (rounding == Rounding::RM || rounding == Rounding::RP))
        d.fail("this rounding is not supported");
}

// cvt.rna.tf32.f32: 10 bits of fraction are kept, ties away from zero.
void decode_tf32(Decoding &d, Type from) {
    if (from != Type::F32) d.fail_type(from);
    d.result(0, d.operand(0), Type::B32);
    d.source(1, d.operand(1), Type::F32);
    use<u32, u32>(d.insn, [](u32 a) {
        return (a & 0x7fffffff) > 0x7f800000    ? 0x7fffffffU
               : (a & 0x7f800000) == 0x7f800000 ? a
                                                : (a + 0x1000) & ~0x1fffU;
    });
}

void decode_cvt(Decoding &d) {
    Cvt how;
    bool is_rna = d.accept("rna"); // to tf32 only
    how.rounding = rounding(d);
    how.relu = d.accept("relu");
    how.flush = d.accept("ftz");
    how.saturate = d.accept("sat");
    Type to = d.type(), from = d.type();
    d.insn.offset = pack(how);
    if (to == Type::F16X2 || to == Type::BF16X2) {
        d.expect_operands(3, 3);
        if (from != Type::F32 || (how.rounding != Rounding::RN && how.rounding != Rounding::RZ)) d.fail_type(from);
        d.result(0, d.operand(0), to);
        d.source(1, d.operand(1), Type::F32);
        d.source(2, d.operand(2), Type::F32);
        d.insn.run = to == Type::F16X2 ? run_cvt_pair<f16> : run_cvt_pair<bf16>;
        return;
    }
    d.expect_operands(2, 2);
    if ((to == Type::TF32) != is_rna) d.fail(".rna and .tf32 go together");
    if (is_rna) return decode_tf32(d, from);
    check_rounding(d, to, from, how.rounding);
    u32 to_bits = d.wide_result(0, d.operand(0), to), from_bits = d.wide_source(1, d.operand(1), from);
    if (use_fast(d, to, from, how, to_bits, from_bits)) return;
    d.insn.target = to_bits;
    d.insn.aux = from_bits == 64;
    for_type(to, [&]<class D>(D) { for_type(from, [&]<class S>(S) { d.insn.run = run_cvt<D, S>; }); });
}

} // namespace

const std::vector<OpcodeRow> CONVERT_OPCODES = {{"cvt", decode_cvt}};

} // namespace emu
