// Branches, exits, barriers and fences.

#include "decode.h"

namespace emu {

namespace {

void run_branch(Warp &warp, const Insn &insn, u32 mask) {
    warp_split(warp, mask, insn.target, warp.pc, insn.reconverge);
}

// op[0]: the index; each lane takes its own way, and the ways are split off one by one.
void run_branch_table(Warp &warp, const Insn &insn, u32 mask) {
    const std::vector<u32> &table = warp.block->kernel->branch_tables[insn.target];
    const u32 *index = warp.slot(insn.op[0]);
    u32 next = warp.pc;
    std::vector<Path> paths;
    for (u32 rest = mask; rest;) {
        u32 lane = lowest_lane(rest), same = 0;
        if (index[lane] >= table.size())
            throw Fault(FaultKind::TRAP, lane,
                        "branches by index " + std::to_string(index[lane]) + " of a table of " +
                            std::to_string(table.size()));
        for (u32 i = 0; i < LANES; i++) same |= (u32)(rest >> i & 1 && table[index[i]] == table[index[lane]]) << i;
        paths.push_back({table[index[lane]], insn.reconverge, same});
        rest &= ~same;
    }
    if (warp.active & ~mask) paths.push_back({next, insn.reconverge, warp.active & ~mask});
    while (paths.size() > 1) {
        Path last = paths.back();
        paths.pop_back();
        // Splitting moves the current path on; what is not split off yet comes back to this instruction.
        if (insn.reconverge != warp.reconverge) {
            warp.stack.push_back({insn.reconverge, warp.reconverge, warp.active});
            warp.reconverge = insn.reconverge;
        }
        if (last.pc != insn.reconverge) warp.stack.push_back(last);
        warp.active &= ~last.mask;
    }
    if (paths[0].pc == warp.reconverge)
        warp_pop(warp);
    else
        warp.pc = paths[0].pc;
}

void run_exit(Warp &warp, const Insn &, u32 mask) {
    warp_exit(warp, mask);
}

[[noreturn]] void run_trap(Warp &, const Insn &, u32 mask) {
    throw Fault(FaultKind::TRAP, lowest_lane(mask), "executes trap");
}

[[noreturn]] void run_assert(Warp &, const Insn &, u32 mask) {
    throw Fault(FaultKind::ASSERTION, lowest_lane(mask), "an assert() of the kernel does not hold");
}

void run_nothing(Warp &, const Insn &, u32) {}

void decode_branch(Decoding &d) {
    d.accept("uni");
    d.expect_operands(1, 1);
    d.insn.target = d.operand(0).index;
    d.insn.run = run_branch;
}

void decode_branch_table(Decoding &d) {
    d.accept("uni");
    d.expect_operands(2, 2);
    d.source(0, d.operand(0), Type::U32);
    d.insn.target = d.operand(1).index;
    d.insn.run = run_branch_table;
}

void decode_exit(Decoding &d) {
    d.accept("uni");
    d.insn.run = run_exit;
}

void decode_trap(Decoding &d) {
    d.insn.run = run_trap;
}

// What is left of a call after inlining: only to functions that are not defined.
void decode_call(Decoding &d) {
    const std::string &name = d.operand(1).name;
    if (name != "__assertfail") d.fail("there is no function \"" + name + "\", and recursion is not supported");
    d.accept("uni");
    d.insn.run = run_assert;
}

// ---- barriers

// aux: bit 0 waits, bits 1-2 reduction (popc, and, or), bit 3 negates op[3]; op[0] result, op[1] barrier, op[2] threads
// or NO_OPERAND, op[3] predicate.
constexpr u8 BARRIER_WAITS = 1, BARRIER_NEGATED = 8;

u32 uniform(Warp &warp, u16 op, u32 mask, const char *what) {
    const u32 *value = warp.slot(op);
    for (u32 rest = mask; rest; rest &= rest - 1)
        if (value[lowest_lane(rest)] != value[lowest_lane(mask)])
            throw Fault(FaultKind::BARRIER, lowest_lane(rest),
                        std::string("names another ") + what + " than other lanes of its warp");
    return value[lowest_lane(mask)];
}

void run_barrier(Warp &warp, const Insn &insn, u32 mask) {
    u32 id = uniform(warp, insn.op[1], mask, "barrier"), n_warps = 0;
    if (id >= BARRIERS_MAX)
        throw Fault(FaultKind::BARRIER, lowest_lane(mask),
                    "names barrier " + std::to_string(id) + ", and there are 16");
    if (insn.op[2] != NO_OPERAND) {
        u32 n_threads = uniform(warp, insn.op[2], mask, "number of threads");
        if (n_threads == 0 || n_threads % LANES || n_threads / LANES > warp.block->n_warps)
            throw Fault(FaultKind::BARRIER, lowest_lane(mask),
                        "names " + std::to_string(n_threads) +
                            " threads: it must be a multiple of 32, and not more than the block has");
        n_warps = n_threads / LANES;
    }
    if (mask != warp.active) // a guard that some lanes fail
        throw Fault(FaultKind::BARRIER, lowest_lane(mask),
                    "comes to barrier " + std::to_string(id) + " without other lanes of its warp");
    Barrier &barrier = warp.block->barriers[id];
    u8 reduce = insn.aux >> 1 & 3;
    warp.barrier_result = insn.op[0];
    if (insn.op[3] != NO_OPERAND) {
        u32 value = (insn.aux & BARRIER_NEGATED ? ~warp.predicates[insn.op[3]] : warp.predicates[insn.op[3]]) & mask;
        barrier.count += (u32)__builtin_popcount(value);
        barrier.all &= value == mask;
        barrier.any |= value != 0;
        barrier.reduce = reduce;
    }
    warp_barrier(warp, id, n_warps, insn.aux & BARRIER_WAITS);
}

void decode_barrier(Decoding &d) {
    d.accept("cta");
    for (u16 &op : d.insn.op) op = NO_OPERAND;
    u32 first = 0;
    if (d.accept("sync")) {
        d.insn.aux = BARRIER_WAITS;
    } else if (d.accept("red")) {
        d.insn.aux = BARRIER_WAITS;
        d.accept("aligned");
        std::string reduce = d.word();
        d.insn.aux |= (u8)((reduce == "popc" ? 0 : reduce == "and" ? 1 : 2) << 1);
        if (reduce == "popc")
            d.result(0, d.operand(0), d.type());
        else if (d.type() == Type::PRED)
            d.predicate_result(0, d.operand(0));
        first = 1;
        if (d.predicate_source(3, d.operand(d.n_operands() - 1))) d.insn.aux |= BARRIER_NEGATED;
    } else if (!d.accept("arrive")) {
        d.fail("it is not supported");
    }
    d.accept("aligned");
    size_t n = d.n_operands() - first - (first ? 1 : 0);
    d.source(1, d.operand(first), Type::U32);
    if (n == 2) d.source(2, d.operand(first + 1), Type::U32);
    if (n > 2) d.fail("it has too many operands");
    d.insn.run = run_barrier;
}

// bar.warp.sync mask
void run_warp_sync(Warp &warp, const Insn &insn, u32 mask) {
    const u32 *members = warp.slot(insn.op[0]);
    for (u32 rest = mask; rest; rest &= rest - 1) {
        u32 lane = lowest_lane(rest), missing = members[lane] & warp.alive & ~mask;
        if (!(members[lane] >> lane & 1))
            throw Fault(FaultKind::CONVERGENCE, lane, "synchronises a warp with a mask that it is not in itself");
        if (missing)
            throw Fault(FaultKind::CONVERGENCE, lane,
                        "synchronises with lane " + std::to_string(lowest_lane(missing)) + ", which took another path");
    }
    warp_sync_lanes(warp);
}

void decode_warp_sync(Decoding &d) {
    d.expect_operands(1, 1);
    d.source(0, d.operand(0), Type::U32);
    d.insn.run = run_warp_sync;
}

// Every access goes to memory in program order here, so a fence has nothing to add.
void decode_fence(Decoding &d) {
    d.skip_any({"sc", "acq_rel", "acquire", "release", "cta", "gl", "gpu", "sys", "cluster"});
    d.insn.run = run_nothing;
}

void decode_nanosleep(Decoding &d) {
    d.type();
    d.insn.run = run_nothing;
}

} // namespace

const std::vector<OpcodeRow> FLOW_OPCODES = {
    {"bra", decode_branch},
    {"brx.idx", decode_branch_table},
    {"ret", decode_exit},
    {"exit", decode_exit},
    {"trap", decode_trap},
    {"call", decode_call},
    {"bar", decode_barrier},
    {"barrier", decode_barrier},
    {"bar.warp.sync", decode_warp_sync},
    {"membar", decode_fence},
    {"fence", decode_fence},
    {"nanosleep", decode_nanosleep},
};

} // namespace emu
