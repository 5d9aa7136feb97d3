// atom and red, on global, shared and generic addresses. Lanes go one after another.

#include <cmath>

#include "access.h"
#include "decode.h"

namespace emu {

namespace {

// new = F(old, operand, second operand)
template <class F, class T> T update(u8 *at, T b, T c, bool is_shared) {
    using U = Bits<sizeof(T)>;
    U *word = (U *)at;
    if (is_shared) { // the block's own host thread is the only one there
        T old = bits_as<T>(*word);
        *word = bits_as<U>((T)F{}(old, b, c));
        return old;
    }
    U old = __atomic_load_n(word, __ATOMIC_SEQ_CST);
    while (!__atomic_compare_exchange_n(word, &old, bits_as<U>((T)F{}(bits_as<T>(old), b, c)), false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
    }
    return bits_as<T>(old);
}

// Global memory that an atomic operation touches is read and written.
template <class T> u8 *atomic_address(Warp &warp, Where where, u32 lane, u64 address, bool *is_shared) {
    *is_shared = where == Where::SHARED || (where == Where::GENERIC && address - SHARED_WINDOW < WINDOW_BYTES);
    if (!*is_shared) {
        access_global<sizeof(T)>(warp, lane, address, false);
        return access_global<sizeof(T)>(warp, lane, address, true);
    }
    u64 offset = where == Where::GENERIC ? address - SHARED_WINDOW : address;
    SharedMemory &shared = warp.block->shared;
    if (offset > shared.size() || sizeof(T) > shared.size() - offset || offset % sizeof(T))
        shared.out_of_bounds(lane, offset, sizeof(T), true);
    shared.note_atomic(warp, lane, (u32)offset, sizeof(T));
    return shared.at((u32)offset);
}

// op[0]: the address, op[1]: the result or NO_OPERAND, op[2], op[3]: operands. target: the Where.
template <class F, class T> void run_atomic(Warp &warp, const Insn &insn, u32 mask) {
    u64 at[LANES];
    lane_addresses(warp, insn, insn.op[0], at);
    const auto *b = lanes_of<T>(warp, insn.op[2]), *c = lanes_of<T>(warp, insn.op[3]);
    for (u32 rest = mask; rest; rest &= rest - 1) {
        u32 i = lowest_lane(rest);
        bool is_shared = false;
        u8 *word = atomic_address<T>(warp, (Where)insn.target, i, at[i], &is_shared);
        T old = update<F, T>(word, from_lane<T>(b[i]), from_lane<T>(c[i]), is_shared);
        if (insn.op[1] != NO_OPERAND) lanes_of<T>(warp, insn.op[1])[i] = to_lane<T>(old);
    }
}

struct AtomAdd {
    template <class T> T operator()(T a, T b, T) const {
        if constexpr (std::is_floating_point_v<T>)
            return a + b;
        else
            return (T)((u64)a + (u64)b);
    }
};
struct AtomMin {
    template <class T> T operator()(T a, T b, T) const { return b < a ? b : a; }
};
struct AtomMax {
    template <class T> T operator()(T a, T b, T) const { return b > a ? b : a; }
};
struct AtomAnd {
    template <class T> T operator()(T a, T b, T) const { return (T)(a & b); }
};
struct AtomOr {
    template <class T> T operator()(T a, T b, T) const { return (T)(a | b); }
};
struct AtomXor {
    template <class T> T operator()(T a, T b, T) const { return (T)(a ^ b); }
};
struct AtomExch {
    template <class T> T operator()(T, T b, T) const { return b; }
};
struct AtomCas {
    template <class T> T operator()(T a, T b, T c) const { return a == b ? c : a; }
};
struct AtomInc {
    template <class T> T operator()(T a, T b, T) const { return a >= b ? (T)0 : (T)(a + 1); }
};
struct AtomDec {
    template <class T> T operator()(T a, T b, T) const { return a == 0 || a > b ? b : (T)(a - 1); }
};

template <class F> Handler bits_handler(Type type) {
    return type == Type::B32 ? run_atomic<F, u32> : type == Type::B64 ? run_atomic<F, u64> : nullptr;
}

template <class F> Handler number_handler(Type type) {
    switch (type) {
    case Type::U32:
        return run_atomic<F, u32>;
    case Type::S32:
        return run_atomic<F, i32>;
    case Type::U64:
        return run_atomic<F, u64>;
    case Type::S64:
        return run_atomic<F, i64>;
    default:
        return nullptr;
    }
}

Handler handler_for(const std::string &operation, Type type) {
    if (operation == "add" && type == Type::F32) return run_atomic<AtomAdd, float>;
    if (operation == "add" && type == Type::F64) return run_atomic<AtomAdd, double>;
    if (operation == "add") return number_handler<AtomAdd>(type);
    if (operation == "min") return number_handler<AtomMin>(type);
    if (operation == "max") return number_handler<AtomMax>(type);
    if (operation == "and") return bits_handler<AtomAnd>(type);
    if (operation == "or") return bits_handler<AtomOr>(type);
    if (operation == "xor") return bits_handler<AtomXor>(type);
    if (operation == "exch") return bits_handler<AtomExch>(type);
    if (operation == "cas") return bits_handler<AtomCas>(type);
    if (operation == "inc" && type == Type::U32) return run_atomic<AtomInc, u32>;
    if (operation == "dec" && type == Type::U32) return run_atomic<AtomDec, u32>;
    return nullptr;
}

template <bool RESULT> void decode_atomic(Decoding &d) {
    static const std::initializer_list<const char *> scopes = {"sc",  "relaxed", "acquire", "release", "acq_rel",
                                                               "cta", "gpu",     "sys",     "cluster"};
    d.skip_any(scopes);
    Where where = d.accept("global")                              ? Where::GLOBAL
                  : d.accept("shared") || d.accept("shared::cta") ? Where::SHARED
                                                                  : Where::GENERIC;
    d.skip_any(scopes);
    std::string operation = d.word();
    Type type = d.type();
    u32 n_values = operation == "cas" ? 2 : 1, first = RESULT ? 1 : 0;
    d.expect_operands(first + 1 + n_values, first + 1 + n_values);
    d.insn.run = handler_for(operation, type);
    d.insn.op[1] = NO_OPERAND;
    if (RESULT && d.operand(0).kind != OperandKind::SINK) d.result(1, d.operand(0), type);
    d.address(0, d.operand(first));
    d.source(2, d.operand(first + 1), type);
    d.source(3, d.operand(first + n_values), type);
    d.insn.target = (u32)where;
}

} // namespace

const std::vector<OpcodeRow> ATOMIC_OPCODES = {{"atom", decode_atomic<true>}, {"red", decode_atomic<false>}};

} // namespace emu
