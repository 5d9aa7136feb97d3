// mov, cvta and isspacep.

#include "decode.h"

namespace emu {

namespace {

// ---- mov

void run_mov_predicate(Warp &warp, const Insn &insn, u32 mask) {
    set_predicate(warp, insn.op[0], mask, warp.predicates[insn.op[1]] ^ (insn.aux ? ALL_LANES : 0));
}

// Insn::offset: not 0 for true
void run_set_predicate(Warp &warp, const Insn &insn, u32 mask) {
    set_predicate(warp, insn.op[0], mask, insn.offset ? ALL_LANES : 0);
}

// A count that goes on with every instruction of the warp. target: the result's bits.
void run_mov_clock(Warp &warp, const Insn &insn, u32 mask) {
    u64 now = warp.steps;
    for (u32 i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        if (insn.target == 64)
            warp.slot64(insn.op[0])[i] = now;
        else
            warp.slot(insn.op[0])[i] = (u32)now;
    }
}

// Insn::aux: bits of an element; target: their number; op[0] the whole, op[1…] the elements, the lowest first.
template <class WHOLE, bool PACK> void run_mov_vector(Warp &warp, const Insn &insn, u32 mask) {
    u32 bits = insn.aux;
    auto *whole = lanes_of<WHOLE>(warp, insn.op[0]);
    u64 keep = bits == 32 ? 0xffffffff : (1ULL << bits) - 1;
    Stored<WHOLE> made[LANES] = {};
    if (!PACK) memcpy(made, whole, sizeof made);
    for (u32 j = 0; j < insn.target; j++) {
        if (insn.op[1 + j] == NO_OPERAND) continue;
        u32 *element = warp.slot(insn.op[1 + j]);
        for (u32 i = 0; i < LANES; i++) {
            if (PACK)
                made[i] |= (Stored<WHOLE>)((u64)element[i] << (j * bits));
            else if (mask >> i & 1)
                element[i] = (u32)((u64)made[i] >> (j * bits) & keep);
        }
    }
    if (PACK)
        for (u32 i = 0; i < LANES; i++) whole[i] = mask >> i & 1 ? made[i] : whole[i];
}

void decode_mov_vector(Decoding &d, Type type, bool pack) {
    const Operand &whole = d.operand(pack ? 0 : 1), &parts = d.operand(pack ? 1 : 0);
    u32 n = (u32)parts.elements.size(), bits = n ? type_bits(type) / n : 0;
    Type part = bits == 32 ? Type::B32 : bits == 16 ? Type::B16 : Type::NONE;
    if (part == Type::NONE || n * bits != type_bits(type)) d.fail("the elements do not fill the whole");
    pack ? d.result(0, whole, type) : d.source(0, whole, type);
    for (u32 j = 0; j < n; j++) {
        if (parts.elements[j].kind == OperandKind::SINK && !pack)
            d.insn.op[1 + j] = NO_OPERAND;
        else
            pack ? d.source(1 + j, parts.elements[j], part) : d.result(1 + j, parts.elements[j], part);
    }
    d.insn.aux = (u8)bits;
    d.insn.target = n;
    bool wide = type_bits(type) == 64;
    d.insn.run = pack ? (wide ? run_mov_vector<u64, true> : run_mov_vector<u32, true>)
                      : (wide ? run_mov_vector<u64, false> : run_mov_vector<u32, false>);
}

void decode_mov_predicate(Decoding &d) {
    d.predicate_result(0, d.operand(0));
    if (d.operand(1).kind == OperandKind::IMM) {
        d.insn.offset = (i64)d.integer_literal(d.operand(1));
        d.insn.run = run_set_predicate;
        return;
    }
    d.insn.aux = d.predicate_source(1, d.operand(1));
    d.insn.run = run_mov_predicate;
}

// A mask that only the moment knows.
void run_active_mask(Warp &warp, const Insn &insn, u32 mask) {
    u32 *to = warp.slot(insn.op[0]);
    for (u32 i = 0; i < LANES; i++)
        if (mask >> i & 1) to[i] = mask;
}

void decode_activemask(Decoding &d) {
    Type type = d.type();
    d.same_type(type, 0);
    d.insn.run = run_active_mask;
}

void decode_mov(Decoding &d) {
    Type type = d.type();
    d.expect_operands(2, 2);
    const Operand &from = d.operand(1);
    if (type == Type::PRED) return decode_mov_predicate(d);
    if (d.operand(0).kind == OperandKind::VECTOR) return decode_mov_vector(d, type, false);
    if (from.kind == OperandKind::VECTOR) return decode_mov_vector(d, type, true);
    d.result(0, d.operand(0), type);
    if (from.kind == OperandKind::SPECIAL &&
        (from.name == "%clock" || from.name == "%clock64" || from.name == "%globaltimer")) {
        d.insn.target = type_bits(type);
        d.insn.run = run_mov_clock;
        return;
    }
    d.source(1, from, type);
    if (type_bits(type) == 64)
        use<u64, u64>(d.insn, [](u64 a) { return a; });
    else
        use<u32, u32>(d.insn, [](u32 a) { return a; });
}

// ---- generic addresses

struct Window {
    const char *name;
    u64 start;
};
constexpr Window WINDOWS[] = {
    {"shared", SHARED_WINDOW}, {"local", LOCAL_WINDOW}, {"param", PARAM_WINDOW}, {"global", 0}, {"const", 0}};

const Window &take_window(Decoding &d) {
    for (const Window &candidate : WINDOWS)
        if (d.accept(candidate.name)) return candidate;
    if (d.accept("shared::cta")) return WINDOWS[0];
    d.fail("it needs a state space");
}

// Insn::offset: what is added to the address.
void run_cvta(Warp &warp, const Insn &insn, u32 mask) {
    u64 *to = warp.slot64(insn.op[0]);
    const u64 *from = warp.slot64(insn.op[1]);
#pragma GCC ivdep
    for (u32 i = 0; i < LANES; i++) to[i] = mask >> i & 1 ? from[i] + (u64)insn.offset : to[i];
}

void decode_cvta(Decoding &d) {
    bool to_space = d.accept("to");
    u64 start = take_window(d).start;
    if (type_bits(d.type()) != 64) d.fail("only 64-bit addresses are supported");
    d.same_type(Type::U64, 1);
    d.insn.offset = to_space ? -(i64)start : (i64)start;
    d.insn.run = run_cvta;
}

// Insn::offset: the window's start; 0: global, which is what is in no window.
void run_isspacep(Warp &warp, const Insn &insn, u32 mask) {
    const u64 *from = warp.slot64(insn.op[1]);
    u64 start = (u64)insn.offset;
    u32 holds = 0;
    for (u32 i = 0; i < LANES; i++) {
        bool inside = start ? from[i] - start < WINDOW_BYTES : from[i] < SHARED_WINDOW;
        holds |= (u32)inside << i;
    }
    set_predicate(warp, insn.op[0], mask, holds);
}

void decode_isspacep(Decoding &d) {
    d.insn.offset = (i64)take_window(d).start;
    d.expect_operands(2, 2);
    d.predicate_result(0, d.operand(0));
    d.source(1, d.operand(1), Type::U64);
    d.insn.run = run_isspacep;
}

} // namespace

const std::vector<OpcodeRow> MOVE_OPCODES = {
    {"mov", decode_mov},
    {"cvta", decode_cvta},
    {"isspacep", decode_isspacep},
    {"activemask", decode_activemask},
};

} // namespace emu
