// Logic, shifts, bit fields, byte permutes; logic of predicates.

#include "decode.h"

namespace emu {

namespace {

// Calls f with an unsigned value as wide as the type.
template <class F> void for_width(Decoding &d, Type type, F f) {
    switch (type_bits(type)) {
    case 16:
        f(u16{});
        return;
    case 32:
        f(u32{});
        return;
    case 64:
        f(u64{});
        return;
    default:
        d.fail_type(type);
    }
}

// ---- and, or, xor, not, cnot, lop3

// aux: bit 0 negates op[1], bit 1 op[2]. F: of two masks of lanes.
template <class F> void run_predicate_logic(Warp &warp, const Insn &insn, u32 mask) {
    u32 a = warp.predicates[insn.op[1]] ^ (insn.aux & 1 ? ALL_LANES : 0);
    u32 b = warp.predicates[insn.op[2]] ^ (insn.aux & 2 ? ALL_LANES : 0);
    set_predicate(warp, insn.op[0], mask, F{}(a, b));
}

template <class F> void decode_logic(Decoding &d, F) {
    Type type = d.type();
    if (type == Type::PRED) {
        d.expect_operands(3, 3);
        d.predicate_result(0, d.operand(0));
        d.insn.aux = (u8)(d.predicate_source(1, d.operand(1)) | d.predicate_source(2, d.operand(2)) << 1);
        d.insn.run = run_predicate_logic<F>;
        return;
    }
    d.same_type(type, 2);
    for_width(d, type, [&]<class T>(T) { use<T, T, T>(d.insn, [](T a, T b) { return (T)F{}(a, b); }); });
}

void decode_and(Decoding &d) {
    decode_logic(d, [](auto a, auto b) { return a & b; });
}
void decode_or(Decoding &d) {
    decode_logic(d, [](auto a, auto b) { return a | b; });
}
void decode_xor(Decoding &d) {
    decode_logic(d, [](auto a, auto b) { return a ^ b; });
}

void decode_not(Decoding &d) {
    Type type = d.type();
    if (type == Type::PRED) {
        d.expect_operands(2, 2);
        d.predicate_result(0, d.operand(0));
        d.insn.aux = (u8)d.predicate_source(1, d.operand(1));
        d.insn.op[2] = d.insn.op[1];
        d.insn.run = run_predicate_logic<decltype([](u32 a, u32) { return ~a; })>;
        return;
    }
    d.same_type(type, 1);
    for_width(d, type, [&]<class T>(T) { use<T, T>(d.insn, [](T a) { return (T)~a; }); });
}

void decode_cnot(Decoding &d) {
    Type type = d.type();
    d.same_type(type, 1);
    for_width(d, type, [&]<class T>(T) { use<T, T>(d.insn, [](T a) { return (T)(a == 0); }); });
}

// Insn::offset: the truth table; its bit 4a + 2b + c is the result's.
void run_lop3(Warp &warp, const Insn &insn, u32 mask) {
    const u32 *a = warp.slot(insn.op[1]), *b = warp.slot(insn.op[2]), *c = warp.slot(insn.op[3]);
    u32 result[LANES] = {};
    for (u32 row = 0; row < 8; row++) {
        if (!(insn.offset >> row & 1)) continue;
        u32 na = row & 4 ? 0 : ALL_LANES, nb = row & 2 ? 0 : ALL_LANES, nc = row & 1 ? 0 : ALL_LANES;
        for (u32 i = 0; i < LANES; i++) result[i] |= (a[i] ^ na) & (b[i] ^ nb) & (c[i] ^ nc);
    }
    u32 *to = warp.slot(insn.op[0]);
    for (u32 i = 0; i < LANES; i++) to[i] = mask >> i & 1 ? result[i] : to[i];
}

void decode_lop3(Decoding &d) {
    Type type = d.type();
    d.expect_operands(5, 5);
    if (type != Type::B32) d.fail_type(type);
    d.result(0, d.operand(0), type);
    for (u32 i = 1; i <= 3; i++) d.source(i, d.operand(i), type);
    d.insn.offset = (i64)(d.integer_literal(d.operand(4)) & 0xff);
    d.insn.run = run_lop3;
}

// ---- shifts: amounts are clamped to the width, not taken modulo

void decode_shl(Decoding &d) {
    Type type = d.type();
    d.expect_operands(3, 3);
    d.result(0, d.operand(0), type);
    d.source(1, d.operand(1), type);
    d.source(2, d.operand(2), Type::U32);
    for_width(d, type, [&]<class T>(T) {
        use<T, T, u32>(d.insn,
                       [](T a, u32 n) { return n >= 8 * sizeof(T) ? (T)0 : (T)(a << (n & (8 * sizeof(T) - 1))); });
    });
}

void decode_shr(Decoding &d) {
    Type type = d.type();
    d.expect_operands(3, 3);
    d.result(0, d.operand(0), type);
    d.source(1, d.operand(1), type);
    d.source(2, d.operand(2), Type::U32);
    bool is_signed = type == Type::S16 || type == Type::S32 || type == Type::S64;
    for_width(d, type, [&]<class T>(T) {
        using S = std::make_signed_t<T>;
        constexpr u32 LAST = 8 * sizeof(T) - 1;
        if (is_signed)
            use<S, S, u32>(d.insn, [](S a, u32 n) { return (S)(a >> (n > LAST ? LAST : n)); });
        else
            use<T, T, u32>(d.insn, [](T a, u32 n) { return n > LAST ? (T)0 : (T)(a >> (n & LAST)); });
    });
}

// shf: the upper (.l) or lower (.r) 32 bits of {b, a} shifted.
void decode_shf(Decoding &d) {
    bool left = d.accept("l");
    if (!left && !d.accept("r")) d.fail("it needs .l or .r");
    bool wrap = d.accept("wrap");
    if (!wrap && !d.accept("clamp")) d.fail("it needs .wrap or .clamp");
    if (d.type() != Type::B32) d.fail("only .b32 is supported");
    d.same_type(Type::B32, 3);
    if (left && wrap)
        use<u32, u32, u32, u32>(d.insn,
                                [](u32 a, u32 b, u32 n) { return (u32)(((u64)b << 32 | a) << (n & 31) >> 32); });
    else if (left)
        use<u32, u32, u32, u32>(
            d.insn, [](u32 a, u32 b, u32 n) { return (u32)(((u64)b << 32 | a) << (n > 32 ? 32 : n) >> 32); });
    else if (wrap)
        use<u32, u32, u32, u32>(d.insn, [](u32 a, u32 b, u32 n) { return (u32)(((u64)b << 32 | a) >> (n & 31)); });
    else
        use<u32, u32, u32, u32>(d.insn,
                                [](u32 a, u32 b, u32 n) { return (u32)(((u64)b << 32 | a) >> (n > 32 ? 32 : n)); });
}

// ---- fields and counts

// Bits beyond the source's width are its sign bit (signed) or zero; position and length count modulo 256.
template <class T> T extract(T a, u32 position, u32 length) {
    constexpr u32 WIDTH = 8 * sizeof(T);
    using U = std::make_unsigned_t<T>;
    position &= 0xff;
    length &= 0xff;
    if (length == 0) return 0;
    U sign =
        std::is_signed_v<T> && (u64)(U)a >> (position + length - 1 < WIDTH - 1 ? position + length - 1 : WIDTH - 1) & 1
            ? (U) ~(U)0
            : 0;
    U field = position >= WIDTH ? (U)0 : (U)((U)a >> position);
    if (length >= WIDTH) length = WIDTH;
    if (position + length > WIDTH) length = position >= WIDTH ? 0 : WIDTH - position;
    U keep = length >= WIDTH ? (U) ~(U)0 : (U)(((U)1 << length) - 1);
    return (T)((field & keep) | (sign & ~keep));
}

template <class T> T insert(T a, T b, u32 position, u32 length) {
    constexpr u32 WIDTH = 8 * sizeof(T);
    position &= 0xff;
    length &= 0xff;
    if (position >= WIDTH || length == 0) return b;
    T field = length >= WIDTH ? (T) ~(T)0 : (T)(((T)1 << length) - 1);
    field = (T)(field << position);
    return (T)((b & ~field) | ((T)(a << position) & field));
}

void decode_bfe(Decoding &d) {
    Type type = d.type();
    d.expect_operands(4, 4);
    d.result(0, d.operand(0), type);
    d.source(1, d.operand(1), type);
    d.source(2, d.operand(2), Type::U32);
    d.source(3, d.operand(3), Type::U32);
    bool is_signed = type == Type::S32 || type == Type::S64;
    for_width(d, type, [&]<class T>(T) {
        using S = std::make_signed_t<T>;
        if (is_signed)
            use<S, S, u32, u32>(d.insn, [](S a, u32 p, u32 n) { return extract<S>(a, p, n); });
        else
            use<T, T, u32, u32>(d.insn, [](T a, u32 p, u32 n) { return extract<T>(a, p, n); });
    });
}

void decode_bfi(Decoding &d) {
    Type type = d.type();
    d.expect_operands(5, 5);
    d.result(0, d.operand(0), type);
    d.source(1, d.operand(1), type);
    d.source(2, d.operand(2), type);
    d.source(3, d.operand(3), Type::U32);
    d.source(4, d.operand(4), Type::U32);
    for_width(d, type, [&]<class T>(T) {
        use<T, T, T, u32, u32>(d.insn, [](T a, T b, u32 p, u32 n) { return insert<T>(a, b, p, n); });
    });
}

template <class T> T reversed(T a) {
    T result = 0;
    for (u32 i = 0; i < 8 * sizeof(T); i++) result = (T)(result | (T)((a >> i & 1) << (8 * sizeof(T) - 1 - i)));
    return result;
}

void decode_brev(Decoding &d) {
    Type type = d.type();
    d.same_type(type, 1);
    for_width(d, type, [&]<class T>(T) { use_each<T, T>(d.insn, [](T a) { return reversed(a); }); });
}

void decode_popc(Decoding &d) {
    Type type = d.type();
    d.expect_operands(2, 2);
    d.result(0, d.operand(0), Type::U32);
    d.source(1, d.operand(1), type);
    for_width(d, type, [&]<class T>(T) { use<u32, T>(d.insn, [](T a) { return (u32)__builtin_popcountll(a); }); });
}

void decode_clz(Decoding &d) {
    Type type = d.type();
    d.expect_operands(2, 2);
    d.result(0, d.operand(0), Type::U32);
    d.source(1, d.operand(1), type);
    for_width(d, type, [&]<class T>(T) {
        use<u32, T>(d.insn, [](T a) {
            return a == 0 ? (u32)(8 * sizeof(T)) : (u32)__builtin_clzll(a) - (u32)(64 - 8 * sizeof(T));
        });
    });
}

// The highest bit that differs from the sign (0 for unsigned), or all ones; .shiftamt: the shift that brings it to the
// top.
template <class T, bool SHIFT> u32 find_bit(T a) {
    u64 bits = a < 0 ? (u64)(std::make_unsigned_t<T>)~a : (u64)(std::make_unsigned_t<T>)a;
    if (bits == 0) return ~0U;
    u32 at = 63 - (u32)__builtin_clzll(bits);
    return SHIFT ? (u32)(8 * sizeof(T)) - 1 - at : at;
}

void decode_bfind(Decoding &d) {
    bool shift = d.accept("shiftamt");
    Type type = d.type();
    d.expect_operands(2, 2);
    d.result(0, d.operand(0), Type::U32);
    d.source(1, d.operand(1), type);
    auto set = [&]<class T>(T) {
        if (shift)
            use<u32, T>(d.insn, [](T a) { return find_bit<T, true>(a); });
        else
            use<u32, T>(d.insn, [](T a) { return find_bit<T, false>(a); });
    };
    switch (type) {
    case Type::U32:
        return set(u32{});
    case Type::S32:
        return set(i32{});
    case Type::U64:
        return set(u64{});
    case Type::S64:
        return set(i64{});
    default:
        d.fail_type(type);
    }
}

// ---- prmt: each nibble of the selector picks a byte of {b, a}; its top bit repeats the byte's sign instead

u32 permute(u32 a, u32 b, u32 selector) {
    u64 bytes = (u64)b << 32 | a;
    u32 result = 0;
    for (u32 i = 0; i < 4; i++) {
        u32 pick = selector >> (4 * i) & 0xf;
        u32 byte = (u32)(bytes >> (8 * (pick & 7))) & 0xff;
        if (pick & 8) byte = byte & 0x80 ? 0xff : 0;
        result |= byte << (8 * i);
    }
    return result;
}

void decode_prmt(Decoding &d) {
    if (d.type() != Type::B32) d.fail("only .b32 is supported");
    if (!d.done()) d.fail("its modes are not supported");
    d.same_type(Type::B32, 3);
    use<u32, u32, u32, u32>(d.insn, [](u32 a, u32 b, u32 c) { return permute(a, b, c); });
}

} // namespace

const std::vector<OpcodeRow> BITS_OPCODES = {
    {"and", decode_and},   {"or", decode_or},     {"xor", decode_xor},     {"not", decode_not},
    {"cnot", decode_cnot}, {"lop3", decode_lop3}, {"shl", decode_shl},     {"shr", decode_shr},
    {"shf", decode_shf},   {"bfe", decode_bfe},   {"bfi", decode_bfi},     {"brev", decode_brev},
    {"popc", decode_popc}, {"clz", decode_clz},   {"bfind", decode_bfind}, {"prmt", decode_prmt},
};

} // namespace emu
