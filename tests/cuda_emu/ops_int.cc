// Integer arithmetic, logic, comparison and selection; predicates.

#include "decode.h"

namespace emu {

namespace {

// Calls f with a value of the C type of an integer type.
template <class F> bool for_integer(Type type, F f) {
    switch (type) {
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
    default:
        return false;
    }
}

// The same for .b16, .b32 and .b64 too, as unsigned numbers.
template <class F> bool for_bits(Type type, F f) {
    switch (type) {
    case Type::B16:
        f(u16{});
        return true;
    case Type::B32:
        f(u32{});
        return true;
    case Type::B64:
        f(u64{});
        return true;
    default:
        return for_integer(type, f);
    }
}

template <class T> using Unsigned = std::make_unsigned_t<T>;
template <class T>
using Twice =
    std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, i32, u32>,
                       std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, i64, u64>,
                                          std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

// Wraps without the undefined overflow of signed types; 16-bit operands must not be promoted to int either.
template <class T> T wrap_add(T a, T b) {
    return (T)((u64)a + (u64)b);
}
template <class T> T wrap_sub(T a, T b) {
    return (T)((u64)a - (u64)b);
}
template <class T> T wrap_mul(T a, T b) {
    return (T)((u64)a * (u64)b);
}
template <class T> T mul_high(T a, T b) {
    return (T)((Twice<T>)a * (Twice<T>)b >> (8 * sizeof(T)));
}

// ---- add, sub, mul, mad, with carries

// add.cc and the like: a lane's carry flag is a bit of a predicate that no program names.
template <bool SUBTRACT, bool CARRY_IN, bool CARRY_OUT, class T>
void run_carry(Warp &warp, const Insn &insn, u32 mask) {
    auto *to = lanes_of<T>(warp, insn.op[0]);
    auto *a = lanes_of<T>(warp, insn.op[1]), *b = lanes_of<T>(warp, insn.op[2]);
    u32 &flag = warp.predicates[insn.op[4]];
    u32 carry_out = 0;
    for (u32 i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        u32 carry = CARRY_IN ? flag >> i & 1 : 0;
        unsigned __int128 wide =
            SUBTRACT ? (unsigned __int128)a[i] - b[i] - carry : (unsigned __int128)a[i] + b[i] + carry;
        to[i] = (Stored<T>)wide;
        carry_out |= (u32)(wide >> (8 * sizeof(T)) & 1) << i;
    }
    if (CARRY_OUT) flag = (flag & ~mask) | carry_out;
}

template <bool HIGH, bool CARRY_IN, bool CARRY_OUT, class T>
void run_mad_carry(Warp &warp, const Insn &insn, u32 mask) {
    auto *to = lanes_of<T>(warp, insn.op[0]), *a = lanes_of<T>(warp, insn.op[1]), *b = lanes_of<T>(warp, insn.op[2]),
         *c = lanes_of<T>(warp, insn.op[3]);
    u32 &flag = warp.predicates[insn.op[4]];
    u32 carry_out = 0;
    for (u32 i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        T x = (T)a[i], y = (T)b[i];
        unsigned __int128 product = (Unsigned<T>)(HIGH ? mul_high<T>(x, y) : wrap_mul<T>(x, y));
        unsigned __int128 wide = product + (Unsigned<T>)c[i] + (CARRY_IN ? flag >> i & 1 : 0);
        to[i] = (Stored<T>)wide;
        carry_out |= (u32)(wide >> (8 * sizeof(T)) & 1) << i;
    }
    if (CARRY_OUT) flag = (flag & ~mask) | carry_out;
}

void use_carry_flag(Decoding &d) {
    Kernel &kernel = d.builder.kernel;
    if (d.builder.carry_flag == NO_OPERAND) d.builder.carry_flag = (u16)kernel.n_predicates++;
    d.insn.op[4] = d.builder.carry_flag;
}

template <bool SUBTRACT, bool CARRY_IN> void decode_carry(Decoding &d, bool carry_out) {
    Type type = d.type();
    d.same_type(type, 2);
    use_carry_flag(d);
    bool is_64 = type_bits(type) == 64;
    d.insn.run = carry_out
                     ? (is_64 ? run_carry<SUBTRACT, CARRY_IN, true, u64> : run_carry<SUBTRACT, CARRY_IN, true, u32>)
                     : (is_64 ? run_carry<SUBTRACT, CARRY_IN, false, u64> : run_carry<SUBTRACT, CARRY_IN, false, u32>);
    if (type_bits(type) < 32) d.fail_type(type);
}

void decode_addc(Decoding &d) {
    decode_carry<false, true>(d, d.accept("cc"));
}
void decode_subc(Decoding &d) {
    decode_carry<true, true>(d, d.accept("cc"));
}
void decode_add_cc(Decoding &d) {
    decode_carry<false, false>(d, true);
}
void decode_sub_cc(Decoding &d) {
    decode_carry<true, false>(d, true);
}

template <bool SUBTRACT> void decode_add_sub(Decoding &d) {
    bool saturate = d.accept("sat");
    Type type = d.type();
    d.same_type(type, 2);
    if (saturate) {
        if (type != Type::S32) d.fail_type(type);
        use<i32, i32, i32>(d.insn, [](i32 a, i32 b) {
            i64 wide = SUBTRACT ? (i64)a - b : (i64)a + b;
            return (i32)(wide > INT32_MAX ? INT32_MAX : wide < INT32_MIN ? INT32_MIN : wide);
        });
        return;
    }
    for_integer(type, [&]<class T>(T) {
        use<T, T, T>(d.insn, [](T a, T b) { return SUBTRACT ? wrap_sub(a, b) : wrap_add(a, b); });
    });
}

template <class T> void use_mad_carry(Decoding &d, bool high, bool in, bool out) {
    use_carry_flag(d);
    Handler handlers[2][2][2] = {{{nullptr, run_mad_carry<false, false, true, T>},
                                  {run_mad_carry<false, true, false, T>, run_mad_carry<false, true, true, T>}},
                                 {{nullptr, run_mad_carry<true, false, true, T>},
                                  {run_mad_carry<true, true, false, T>, run_mad_carry<true, true, true, T>}}};
    d.insn.run = handlers[high][in][out];
}

template <bool ADD> void decode_mul_mad_as(Decoding &d, bool carry_in) {
    std::string part = d.word();
    bool carry_out = d.accept("cc"), saturate = d.accept("sat");
    Type type = d.type();
    if (saturate) d.fail("\".sat\" is not supported here");
    if (part == "wide") {
        Type wide = type == Type::U32   ? Type::U64
                    : type == Type::S32 ? Type::S64
                    : type == Type::U16 ? Type::U32
                                        : Type::S32;
        d.result(0, d.operand(0), wide);
        d.source(1, d.operand(1), type);
        d.source(2, d.operand(2), type);
        if (ADD) d.source(3, d.operand(3), wide);
        for_integer(type, [&]<class T>(T) {
            if constexpr (sizeof(T) <= 4) {
                using W = Twice<T>;
                if constexpr (ADD)
                    use<W, T, T, W>(d.insn, [](T a, T b, W c) { return wrap_add<W>((W)((W)a * (W)b), c); });
                else
                    use<W, T, T>(d.insn, [](T a, T b) { return (W)((W)a * (W)b); });
            }
        });
        return;
    }
    if (part != "lo" && part != "hi") d.fail("\"." + part + "\" is not supported here");
    d.same_type(type, ADD ? 3 : 2);
    bool high = part == "hi";
    for_integer(type, [&]<class T>(T) {
        if constexpr (ADD) {
            if constexpr (sizeof(T) >= 4)
                if (carry_in || carry_out) return use_mad_carry<T>(d, high, carry_in, carry_out);
            if (high)
                use<T, T, T, T>(d.insn, [](T a, T b, T c) { return wrap_add(mul_high(a, b), c); });
            else
                use<T, T, T, T>(d.insn, [](T a, T b, T c) { return wrap_add(wrap_mul(a, b), c); });
        } else if (high) {
            use<T, T, T>(d.insn, [](T a, T b) { return mul_high(a, b); });
        } else {
            use<T, T, T>(d.insn, [](T a, T b) { return wrap_mul(a, b); });
        }
    });
}

void decode_madc(Decoding &d) {
    decode_mul_mad_as<true>(d, true);
}

// 24-bit products: of the low 24 bits, sign-extended for .s32; the low or the middle 32 bits of the 48.
template <bool ADD> void decode_mul24(Decoding &d) {
    bool high = !d.accept("lo") && d.accept("hi");
    Type type = d.type();
    d.same_type(type, ADD ? 3 : 2);
    if (type != Type::U32 && type != Type::S32) d.fail_type(type);
    bool is_signed = type == Type::S32;
    auto set = [&](auto cut, auto part) {
        using Cut = decltype(cut);
        using Part = decltype(part);
        if constexpr (ADD)
            use<u32, u32, u32, u32>(d.insn, [](u32 a, u32 b, u32 c) { return (u32)(Part{}(Cut{}(a)*Cut{}(b))) + c; });
        else
            use<u32, u32, u32>(d.insn, [](u32 a, u32 b) { return (u32)(Part{}(Cut{}(a)*Cut{}(b))); });
    };
    auto cut_signed = [](u32 a) { return (i64)((i32)(a << 8) >> 8); };
    auto cut_unsigned = [](u32 a) { return (i64)(a & 0xffffff); };
    auto low = [](i64 p) { return p; };
    auto middle = [](i64 p) { return p >> 16; };
    if (is_signed)
        high ? set(cut_signed, middle) : set(cut_signed, low);
    else
        high ? set(cut_unsigned, middle) : set(cut_unsigned, low);
}

// ---- div, rem, min, max, abs, neg, sad

// Division by zero gives all ones, and the remainder the dividend, as the hardware does (PTX leaves both open).
template <class T> T quotient(T a, T b) {
    if (b == 0) return (T) ~(T)0;
    if (std::is_signed_v<T> && b == (T)-1) return wrap_sub<T>(0, a);
    return (T)(a / b);
}
template <class T> T remainder(T a, T b) {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == (T)-1) return 0;
    return (T)(a % b);
}

void decode_div(Decoding &d) {
    Type type = d.type();
    d.same_type(type, 2);
    for_integer(type, [&]<class T>(T) { use_each<T, T, T>(d.insn, [](T a, T b) { return quotient(a, b); }); });
}

void decode_rem(Decoding &d) {
    Type type = d.type();
    d.same_type(type, 2);
    for_integer(type, [&]<class T>(T) { use_each<T, T, T>(d.insn, [](T a, T b) { return remainder(a, b); }); });
}

void decode_min(Decoding &d) {
    Type type = d.type();
    d.same_type(type, 2);
    for_integer(type, [&]<class T>(T) { use<T, T, T>(d.insn, [](T a, T b) { return a < b ? a : b; }); });
}

void decode_max(Decoding &d) {
    Type type = d.type();
    d.same_type(type, 2);
    for_integer(type, [&]<class T>(T) { use<T, T, T>(d.insn, [](T a, T b) { return a > b ? a : b; }); });
}

void decode_abs(Decoding &d) {
    Type type = d.type();
    d.same_type(type, 1);
    for_integer(type, [&]<class T>(T) { use<T, T>(d.insn, [](T a) { return a < 0 ? wrap_sub<T>(0, a) : a; }); });
}

void decode_neg(Decoding &d) {
    Type type = d.type();
    d.same_type(type, 1);
    for_integer(type, [&]<class T>(T) { use<T, T>(d.insn, [](T a) { return wrap_sub<T>(0, a); }); });
}

void decode_sad(Decoding &d) {
    Type type = d.type();
    d.same_type(type, 3);
    for_integer(type, [&]<class T>(T) {
        use<T, T, T, T>(d.insn, [](T a, T b, T c) { return wrap_add(c, a < b ? wrap_sub(b, a) : wrap_sub(a, b)); });
    });
}

// ---- dp4a, dp2a: a's bytes (or 16-bit halves) times b's bytes, summed onto c

template <class A, class B> u32 dot4(u32 a, u32 b, u32 c) {
    for (u32 i = 0; i < 32; i += 8) c += (u32)((i32)(A)(a >> i) * (i32)(B)(b >> i));
    return c;
}

template <class A, class B, u32 SHIFT> u32 dot2(u32 a, u32 b, u32 c) {
    for (u32 i = 0; i < 2; i++) c += (u32)((i32)(A)(a >> (16 * i)) * (i32)(B)(b >> (8 * i + SHIFT)));
    return c;
}

void decode_dp4a(Decoding &d) {
    Type a = d.type(), b = d.type();
    d.same_type(Type::B32, 3);
    auto set = [&](auto x, auto y) {
        use<u32, u32, u32, u32>(d.insn, [](u32 p, u32 q, u32 c) { return dot4<decltype(x), decltype(y)>(p, q, c); });
    };
    if (a == Type::S32)
        b == Type::S32 ? set(i8{}, i8{}) : set(i8{}, u8{});
    else
        b == Type::S32 ? set(u8{}, i8{}) : set(u8{}, u8{});
}

void decode_dp2a(Decoding &d) {
    bool high = d.accept("hi");
    if (!high && !d.accept("lo")) d.fail("it needs .lo or .hi");
    Type a = d.type(), b = d.type();
    d.same_type(Type::B32, 3);
    auto set = [&](auto x, auto y) {
        using X = decltype(x);
        using Y = decltype(y);
        if (high)
            use<u32, u32, u32, u32>(d.insn, [](u32 p, u32 q, u32 c) { return dot2<X, Y, 16>(p, q, c); });
        else
            use<u32, u32, u32, u32>(d.insn, [](u32 p, u32 q, u32 c) { return dot2<X, Y, 0>(p, q, c); });
    };
    if (a == Type::S32)
        b == Type::S32 ? set(i16{}, i8{}) : set(i16{}, u8{});
    else
        b == Type::S32 ? set(u16{}, i8{}) : set(u16{}, u8{});
}

} // namespace

// Shared with floats: ops_float.cc's tables send the integer types here.
void decode_integer_add(Decoding &d) {
    d.accept("cc") ? decode_add_cc(d) : decode_add_sub<false>(d);
}
void decode_integer_sub(Decoding &d) {
    d.accept("cc") ? decode_sub_cc(d) : decode_add_sub<true>(d);
}
void decode_integer_mul(Decoding &d) {
    decode_mul_mad_as<false>(d, false);
}
void decode_integer_mad(Decoding &d) {
    decode_mul_mad_as<true>(d, false);
}
void decode_integer_div(Decoding &d) {
    decode_div(d);
}
void decode_integer_min(Decoding &d) {
    decode_min(d);
}
void decode_integer_max(Decoding &d) {
    decode_max(d);
}
void decode_integer_abs(Decoding &d) {
    decode_abs(d);
}
void decode_integer_neg(Decoding &d) {
    decode_neg(d);
}

const std::vector<OpcodeRow> INTEGER_OPCODES = {
    {"addc", decode_addc},         {"subc", decode_subc}, {"madc", decode_madc}, {"mul24", decode_mul24<false>},
    {"mad24", decode_mul24<true>}, {"rem", decode_rem},   {"sad", decode_sad},   {"dp4a", decode_dp4a},
    {"dp2a", decode_dp2a},
};

} // namespace emu
