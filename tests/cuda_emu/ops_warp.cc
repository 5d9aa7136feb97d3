// What lanes of a warp do together: shfl, vote, match, redux.
//
// All take the mask of the lanes that take part. A lane of the mask that has not exited must be at the same
// instruction, and a lane that executes it must be in its mask.

#include "decode.h"

namespace emu {

namespace {

// Checks the masks of all lanes and returns the members that are there. In PTX all must name the same mask.
u32 members(Warp &warp, u16 op, u32 mask) {
    const u32 *named = warp.slot(op);
    u32 first = named[lowest_lane(mask)];
    for (u32 rest = mask; rest; rest &= rest - 1) {
        u32 lane = lowest_lane(rest), missing = named[lane] & warp.alive & ~mask;
        if (!(named[lane] >> lane & 1))
            throw Fault(FaultKind::CONVERGENCE, lane, "is not in the mask of lanes that it names itself");
        if (missing)
            throw Fault(FaultKind::CONVERGENCE, lane,
                        "names lane " + std::to_string(lowest_lane(missing)) + ", which took another path");
        if (named[lane] != first) // two groups side by side: each is served, but this is the slow way
            return 0;
    }
    return first & mask;
}

// Calls f(group) for each set of lanes that name the same mask.
template <class F> void for_groups(Warp &warp, u16 op, u32 mask, F f) {
    if (u32 all = members(warp, op, mask)) return f(all);
    const u32 *named = warp.slot(op);
    for (u32 rest = mask; rest;) {
        u32 group = 0;
        for (u32 i = 0; i < LANES; i++) group |= (u32)((rest >> i & 1) && named[i] == named[lowest_lane(rest)]) << i;
        f(group);
        rest &= ~group;
    }
}

// ---- shfl.sync: op[0] result, op[1] whether the source was in range (or NO_OPERAND), op[2] value, op[3] lane or
// distance, op[4] clamp and segment, op[5] mask

enum class Shuffle : u8 { UP, DOWN, BFLY, IDX };

template <Shuffle MODE> bool source_lane(u32 lane, u32 b, u32 c, u32 *source) {
    i32 segment = c >> 8 & 0x1f, clamp = c & 0x1f;
    i32 low = (i32)lane & segment, high = low | (clamp & ~segment), at = (i32)(b & 0x1f), j = 0;
    bool inside = false;
    switch (MODE) {
    case Shuffle::UP:
        j = (i32)lane - at;
        inside = j >= high;
        break;
    case Shuffle::DOWN:
        j = (i32)lane + at;
        inside = j <= high;
        break;
    case Shuffle::BFLY:
        j = (i32)lane ^ at;
        inside = j <= high;
        break;
    case Shuffle::IDX:
        j = low | (at & ~segment);
        inside = j <= high;
        break;
    }
    *source = inside ? (u32)j : lane;
    return inside;
}

template <Shuffle MODE> void run_shuffle(Warp &warp, const Insn &insn, u32 mask) {
    const u32 *value = warp.slot(insn.op[2]), *b = warp.slot(insn.op[3]), *c = warp.slot(insn.op[4]);
    u32 result[LANES], in_range = 0;
    for_groups(warp, insn.op[5], mask, [&](u32 group) {
        for (u32 rest = group; rest; rest &= rest - 1) {
            u32 lane = lowest_lane(rest), source = lane;
            in_range |= (u32)source_lane<MODE>(lane, b[lane], c[lane], &source) << lane;
            if (!(group >> source & 1))
                throw Fault(FaultKind::CONVERGENCE, lane,
                            "takes the value of lane " + std::to_string(source) +
                                ", which is not among the lanes that take part");
            result[lane] = value[source];
        }
    });
    u32 *to = warp.slot(insn.op[0]);
    for (u32 i = 0; i < LANES; i++)
        if (mask >> i & 1) to[i] = result[i];
    set_predicate(warp, insn.op[1], mask, in_range);
}

void decode_shuffle(Decoding &d) {
    std::string mode = d.word();
    if (d.type() != Type::B32) d.fail("only .b32 is supported");
    d.insn.run = mode == "up"     ? run_shuffle<Shuffle::UP>
                 : mode == "down" ? run_shuffle<Shuffle::DOWN>
                 : mode == "bfly" ? run_shuffle<Shuffle::BFLY>
                 : mode == "idx"  ? run_shuffle<Shuffle::IDX>
                                  : nullptr;
    d.expect_operands(5, 6);
    u32 extra = (u32)d.n_operands() - 5;
    d.result(0, d.operand(0), Type::B32);
    d.insn.op[1] = NO_OPERAND;
    if (extra) d.predicate_result(1, d.operand(1));
    for (u32 i = 0; i < 4; i++) d.source(2 + i, d.operand(1 + extra + i), Type::B32);
}

// ---- vote.sync: op[0] result, op[1] predicate, op[2] mask; aux: negated

enum class Vote : u8 { ALL, ANY, UNI, BALLOT };

template <Vote MODE> void run_vote(Warp &warp, const Insn &insn, u32 mask) {
    u32 votes = warp.predicates[insn.op[1]] ^ (insn.aux ? ALL_LANES : 0);
    for_groups(warp, insn.op[2], mask, [&](u32 group) {
        u32 yes = votes & group;
        if (MODE == Vote::BALLOT) {
            for (u32 i = 0; i < LANES; i++)
                if (group >> i & 1) warp.slot(insn.op[0])[i] = yes;
            return;
        }
        bool holds = MODE == Vote::ALL ? yes == group : MODE == Vote::ANY ? yes != 0 : yes == group || yes == 0;
        set_predicate(warp, insn.op[0], group, holds ? ALL_LANES : 0);
    });
}

void decode_vote(Decoding &d) {
    std::string mode = d.word();
    Type type = d.type();
    bool ballot = mode == "ballot";
    if (type != (ballot ? Type::B32 : Type::PRED)) d.fail_type(type);
    d.insn.run = ballot          ? run_vote<Vote::BALLOT>
                 : mode == "all" ? run_vote<Vote::ALL>
                 : mode == "any" ? run_vote<Vote::ANY>
                 : mode == "uni" ? run_vote<Vote::UNI>
                                 : nullptr;
    d.expect_operands(3, 3);
    ballot ? d.result(0, d.operand(0), type) : d.predicate_result(0, d.operand(0));
    d.source(2, d.operand(2), Type::B32);
    d.insn.aux = d.predicate_source(1, d.operand(1));
}

// ---- match.sync: lanes with the same value. op[0] result, op[1] predicate (match.all), op[2] value, op[3] mask

template <class T, bool ALL> void run_match(Warp &warp, const Insn &insn, u32 mask) {
    const auto *value = lanes_of<T>(warp, insn.op[2]);
    u32 result[LANES] = {};
    for_groups(warp, insn.op[3], mask, [&](u32 group) {
        for (u32 rest = group; rest; rest &= rest - 1) {
            u32 lane = lowest_lane(rest), same = 0;
            for (u32 i = 0; i < LANES; i++) same |= (u32)((group >> i & 1) && value[i] == value[lane]) << i;
            result[lane] = ALL ? (same == group ? group : 0) : same;
        }
        if (ALL) set_predicate(warp, insn.op[1], group, result[lowest_lane(group)] ? ALL_LANES : 0);
    });
    for (u32 i = 0; i < LANES; i++)
        if (mask >> i & 1) warp.slot(insn.op[0])[i] = result[i];
}

void decode_match(Decoding &d) {
    bool all = d.accept("all");
    if (!all && !d.accept("any")) d.fail("it needs .any or .all");
    d.accept("sync");
    Type type = d.type();
    bool has_predicate = d.n_operands() == 4, wide = type_bits(type) == 64;
    d.expect_operands(3, all ? 4 : 3);
    d.result(0, d.operand(0), Type::B32);
    d.insn.op[1] = NO_OPERAND;
    if (has_predicate) d.predicate_result(1, d.operand(1));
    d.source(2, d.operand(1 + has_predicate), type);
    d.source(3, d.operand(2 + has_predicate), Type::B32);
    d.insn.run = all ? (wide ? run_match<u64, true> : run_match<u32, true>)
                     : (wide ? run_match<u64, false> : run_match<u32, false>);
}

// ---- redux.sync: op[0] result, op[1] value, op[2] mask

template <class T, class F> void run_reduce(Warp &warp, const Insn &insn, u32 mask) {
    const u32 *value = warp.slot(insn.op[1]);
    u32 result[LANES] = {};
    for_groups(warp, insn.op[2], mask, [&](u32 group) {
        T sum = (T)value[lowest_lane(group)];
        for (u32 rest = group & (group - 1); rest; rest &= rest - 1) sum = F{}(sum, (T)value[lowest_lane(rest)]);
        for (u32 i = 0; i < LANES; i++)
            if (group >> i & 1) result[i] = (u32)sum;
    });
    for (u32 i = 0; i < LANES; i++)
        if (mask >> i & 1) warp.slot(insn.op[0])[i] = result[i];
}

void decode_reduce(Decoding &d) {
    std::string operation = d.word();
    Type type = d.type();
    d.same_type(type, 2);
    using Add = decltype([](u32 a, u32 b) { return a + b; });
    using And = decltype([](u32 a, u32 b) { return a & b; });
    using Or = decltype([](u32 a, u32 b) { return a | b; });
    using Xor = decltype([](u32 a, u32 b) { return a ^ b; });
    using Min = decltype([](auto a, auto b) { return a < b ? a : b; });
    using Max = decltype([](auto a, auto b) { return a > b ? a : b; });
    bool is_signed = type == Type::S32, is_bits = type == Type::B32;
    if (!is_signed && !is_bits && type != Type::U32) d.fail_type(type);
    if (is_bits)
        d.insn.run = operation == "and"   ? run_reduce<u32, And>
                     : operation == "or"  ? run_reduce<u32, Or>
                     : operation == "xor" ? run_reduce<u32, Xor>
                                          : nullptr;
    else if (operation == "add")
        d.insn.run = run_reduce<u32, Add>;
    else if (operation == "min")
        d.insn.run = is_signed ? run_reduce<i32, Min> : run_reduce<u32, Min>;
    else if (operation == "max")
        d.insn.run = is_signed ? run_reduce<i32, Max> : run_reduce<u32, Max>;
}

} // namespace

const std::vector<OpcodeRow> WARP_OPCODES = {
    {"shfl.sync", decode_shuffle},
    {"vote.sync", decode_vote},
    {"match", decode_match},
    {"redux.sync", decode_reduce},
};

} // namespace emu
