// Comparisons and choices: setp, set, selp, slct, testp.

#include <cmath>

#include "decode.h"
#include "half.h"

namespace emu {

namespace {

template <class T> constexpr bool IS_HALF = std::is_same_v<T, f16> || std::is_same_v<T, bf16>;

template <class T> auto comparable(T value) {
    if constexpr (IS_HALF<T>)
        return to_float(value);
    else
        return value;
}

#define EMU_COMPARISONS(X)                                                                                             \
    X(eq, a == b)                                                                                                      \
    X(ne, a<b || a> b)                                                                                                 \
    X(lt, a < b)                                                                                                       \
    X(le, a <= b)                                                                                                      \
    X(gt, a > b)                                                                                                       \
    X(ge, a >= b)                                                                                                      \
    X(lo, a < b)                                                                                                       \
    X(ls, a <= b)                                                                                                      \
    X(hi, a > b)                                                                                                       \
    X(hs, a >= b)                                                                                                      \
    X(equ, !(a < b || a > b))                                                                                          \
    X(neu, !(a == b))                                                                                                  \
    X(ltu, !(a >= b))                                                                                                  \
    X(leu, !(a > b))                                                                                                   \
    X(gtu, !(a <= b))                                                                                                  \
    X(geu, !(a < b))                                                                                                   \
    X(num, a == a && b == b)                                                                                           \
    X(nan, a != a || b != b)

template <class T> T flushed(T value) {
    if constexpr (std::is_same_v<T, float>) return std::fabs(value) < 0x1p-126F ? std::copysign(0.0F, value) : value;
    return value;
}

// A bit for each lane of whether F(a, b) holds.
template <class F, class T, bool FLUSH> u32 compare_lanes(Warp &warp, u16 left, u16 right) {
    const auto *a = lanes_of<T>(warp, left), *b = lanes_of<T>(warp, right);
    u32 bits[LANES], result = 0;
    for (u32 i = 0; i < LANES; i++) {
        auto x = comparable(from_lane<T>(a[i])), y = comparable(from_lane<T>(b[i]));
        if (FLUSH) x = flushed(x), y = flushed(y);
        bits[i] = (u32)F{}(x, y) << i;
    }
    for (u32 i = 0; i < LANES; i++) result |= bits[i];
    return result;
}

// setp: op[0] and op[3] the results (p|q), op[1], op[2] compared, op[4] a predicate to join with.
// aux: bits 0-1 how to join (none, and, or, xor), bit 2 negates op[4].
template <class F, class T, bool FLUSH> void run_setp(Warp &warp, const Insn &insn, u32 mask) {
    u32 holds = compare_lanes<F, T, FLUSH>(warp, insn.op[1], insn.op[2]), fails = ~holds;
    if (insn.aux & 3) {
        u32 with = warp.predicates[insn.op[4]] ^ (insn.aux & 4 ? ALL_LANES : 0);
        u32 how = insn.aux & 3;
        holds = how == 1 ? holds & with : how == 2 ? holds | with : holds ^ with;
        fails = how == 1 ? fails & with : how == 2 ? fails | with : fails ^ with;
    }
    set_predicate(warp, insn.op[0], mask, holds);
    set_predicate(warp, insn.op[3], mask, fails);
}

// set: op[0] is all ones (or 1.0) or zero. aux bit 0: 1.0.
template <class F, class T, bool FLUSH> void run_set(Warp &warp, const Insn &insn, u32 mask) {
    u32 holds = compare_lanes<F, T, FLUSH>(warp, insn.op[1], insn.op[2]), yes = insn.aux & 1 ? 0x3f800000 : ~0U;
    u32 *to = warp.slot(insn.op[0]);
    for (u32 i = 0; i < LANES; i++)
        if (mask >> i & 1) to[i] = holds >> i & 1 ? yes : 0;
}

template <bool SET, class T, bool FLUSH> bool use_comparison(Insn &insn, const std::string &name) {
#define X(word, holds)                                                                                                 \
    if (name == #word) {                                                                                               \
        using F = decltype([](auto a, auto b) { return holds; });                                                      \
        insn.run = SET ? run_set<F, T, FLUSH> : run_setp<F, T, FLUSH>;                                                 \
        return true;                                                                                                   \
    }
    EMU_COMPARISONS(X)
#undef X
    return false;
}

template <bool SET> bool use_comparison_of(Decoding &d, Type type, const std::string &name, bool flush) {
    switch (type) {
    case Type::B16:
    case Type::U16:
        return use_comparison<SET, u16, false>(d.insn, name);
    case Type::S16:
        return use_comparison<SET, i16, false>(d.insn, name);
    case Type::B32:
    case Type::U32:
        return use_comparison<SET, u32, false>(d.insn, name);
    case Type::S32:
        return use_comparison<SET, i32, false>(d.insn, name);
    case Type::B64:
    case Type::U64:
        return use_comparison<SET, u64, false>(d.insn, name);
    case Type::S64:
        return use_comparison<SET, i64, false>(d.insn, name);
    case Type::F16:
        return use_comparison<SET, f16, false>(d.insn, name);
    case Type::BF16:
        return use_comparison<SET, bf16, false>(d.insn, name);
    case Type::F32:
        return flush ? use_comparison<SET, float, true>(d.insn, name) : use_comparison<SET, float, false>(d.insn, name);
    case Type::F64:
        return use_comparison<SET, double, false>(d.insn, name);
    default:
        d.fail_type(type);
    }
}

void decode_setp(Decoding &d) {
    std::string comparison = d.word();
    u8 join = d.accept("and") ? 1 : d.accept("or") ? 2 : d.accept("xor") ? 3 : 0;
    bool flush = d.accept("ftz");
    Type type = d.type();
    // p|q was parsed as two operands.
    u32 n_results = (u32)d.n_operands() - (join ? 3 : 2);
    if (n_results < 1 || n_results > 2) d.fail("it has " + std::to_string(d.n_operands()) + " operands");
    d.predicate_result(0, d.operand(0));
    d.insn.op[3] = NO_OPERAND;
    if (n_results == 2) d.predicate_result(3, d.operand(1));
    d.source(1, d.operand(n_results), type);
    d.source(2, d.operand(n_results + 1), type);
    if (join && d.predicate_source(4, d.operand(n_results + 2))) join |= 4;
    if (!use_comparison_of<false>(d, type, comparison, flush)) d.fail("\"." + comparison + "\" is not supported");
    d.insn.aux = join;
}

void decode_set(Decoding &d) {
    std::string comparison = d.word();
    bool flush = d.accept("ftz");
    Type to = d.type(), type = d.type();
    d.expect_operands(3, 3);
    if (to != Type::U32 && to != Type::S32 && to != Type::F32) d.fail_type(to);
    d.result(0, d.operand(0), to);
    d.source(1, d.operand(1), type);
    d.source(2, d.operand(2), type);
    if (!use_comparison_of<true>(d, type, comparison, flush)) d.fail("\"." + comparison + "\" is not supported");
    d.insn.aux = to == Type::F32;
}

// ---- choices

template <class T> void run_selp(Warp &warp, const Insn &insn, u32 mask) {
    auto *to = lanes_of<T>(warp, insn.op[0]);
    const auto *a = lanes_of<T>(warp, insn.op[1]), *b = lanes_of<T>(warp, insn.op[2]);
    u32 choose = warp.predicates[insn.op[3]] ^ (insn.aux ? ALL_LANES : 0);
#pragma GCC ivdep
    for (u32 i = 0; i < LANES; i++) {
        Stored<T> chosen = choose >> i & 1 ? a[i] : b[i];
        to[i] = mask >> i & 1 ? chosen : to[i];
    }
}

void decode_selp(Decoding &d) {
    Type type = d.type();
    d.expect_operands(4, 4);
    d.result(0, d.operand(0), type);
    d.source(1, d.operand(1), type);
    d.source(2, d.operand(2), type);
    d.insn.aux = d.predicate_source(3, d.operand(3));
    d.insn.run = type_bits(type) == 64 ? run_selp<u64> : run_selp<u32>;
}

// slct: a if c >= 0, else b; a NaN chooses b.
void decode_slct(Decoding &d) {
    bool flush = d.accept("ftz");
    Type type = d.type(), by = d.type();
    d.expect_operands(4, 4);
    d.result(0, d.operand(0), type);
    d.source(1, d.operand(1), type);
    d.source(2, d.operand(2), type);
    d.source(3, d.operand(3), by);
    auto set = [&]<class T>(T) {
        if (by == Type::S32)
            use<T, T, T, i32>(d.insn, [](T a, T b, i32 c) { return c >= 0 ? a : b; });
        else if (flush)
            use<T, T, T, float>(d.insn, [](T a, T b, float c) { return flushed(c) >= 0 ? a : b; });
        else
            use<T, T, T, float>(d.insn, [](T a, T b, float c) { return c >= 0 ? a : b; });
    };
    type_bits(type) == 64 ? set(u64{}) : set(u32{});
}

// testp: what kind of number a is.
template <class T, int CLASS_A, int CLASS_B, int CLASS_C> void run_testp(Warp &warp, const Insn &insn, u32 mask) {
    const auto *a = lanes_of<T>(warp, insn.op[1]);
    u32 holds = 0;
    for (u32 i = 0; i < LANES; i++) {
        int is = std::fpclassify(from_lane<T>(a[i]));
        holds |= (u32)(is == CLASS_A || is == CLASS_B || is == CLASS_C) << i;
    }
    set_predicate(warp, insn.op[0], mask, holds);
}

template <class T> Handler testp_handler(const std::string &kind) {
    if (kind == "finite") return run_testp<T, FP_NORMAL, FP_SUBNORMAL, FP_ZERO>;
    if (kind == "infinite") return run_testp<T, FP_INFINITE, FP_INFINITE, FP_INFINITE>;
    if (kind == "number") return nullptr;
    if (kind == "notanumber") return run_testp<T, FP_NAN, FP_NAN, FP_NAN>;
    if (kind == "normal") return run_testp<T, FP_NORMAL, FP_NORMAL, FP_NORMAL>;
    if (kind == "subnormal") return run_testp<T, FP_SUBNORMAL, FP_SUBNORMAL, FP_SUBNORMAL>;
    return nullptr;
}

void decode_testp(Decoding &d) {
    std::string kind = d.word();
    Type type = d.type();
    d.expect_operands(2, 2);
    d.predicate_result(0, d.operand(0));
    d.source(1, d.operand(1), type);
    d.insn.run = type == Type::F32 ? testp_handler<float>(kind) : testp_handler<double>(kind);
}

} // namespace

const std::vector<OpcodeRow> COMPARE_OPCODES = {
    {"setp", decode_setp}, {"set", decode_set}, {"selp", decode_selp}, {"slct", decode_slct}, {"testp", decode_testp},
};

} // namespace emu
