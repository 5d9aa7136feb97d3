// cp.async: copies from global to shared memory that are there only after a wait.
//
// The bytes arrive at the wait, not earlier, and until then count as pending: reading or writing them is a fault. What
// the source holds is taken at the wait too, so that overwriting it early shows.

#include "access.h"
#include "decode.h"

namespace emu {

namespace {

// op[0]: to (shared), op[1]: from (global), op[2]: src-size or NO_OPERAND; N: cp-size.
// Insn::offset belongs to the first address, Insn::target to the second; aux: bits 0 and 1: the addresses have 64 bits.
template <u32 N> void run_copy(Warp &warp, const Insn &insn, u32 mask) {
    u64 to[LANES], from[LANES];
    lane_addresses(warp, insn, insn.op[0], to);
    Insn second;
    second.offset = (i32)insn.target;
    second.aux = insn.aux >> 1 & 1;
    lane_addresses(warp, second, insn.op[1], from);
    count_access<Where::SHARED>(warp, mask, to, N, true);
    count_access<Where::GLOBAL>(warp, mask, from, N, false);
    warp.block->traffic.async_bytes += (u64)N * (u32)__builtin_popcount(mask);
    SharedMemory &shared = warp.block->shared;
    for (u32 rest = mask; rest; rest &= rest - 1) {
        u32 i = lowest_lane(rest), bytes = insn.op[2] == NO_OPERAND ? N : warp.slot(insn.op[2])[i];
        if (bytes > N)
            throw Fault(FaultKind::TRAP, i,
                        "copies " + std::to_string(bytes) + " bytes by a cp.async of " + std::to_string(N));
        if (to[i] > shared.size() || N > shared.size() - to[i] || to[i] % N) shared.out_of_bounds(i, to[i], N, true);
        shared.note_async_issue(warp, i, (u32)to[i], N);
        AsyncCopy copy = {i, warp.groups_committed[i], (u32)to[i], N, 0, bytes};
        if (from[i] % N) warp.block->launch->memory->explain(i, from[i], N, false);
        if (bytes == N)
            copy.from = (u64)access_global<N>(warp, i, from[i], false);
        else if (bytes > 0)
            for (u32 b = bytes; b-- > 0;) copy.from = (u64)access_global<1>(warp, i, from[i] + b, false);
        warp.copies.push_back(copy);
    }
}

// The copies of the lane's groups before `before` are done.
void finish_copies(Warp &warp, u32 mask, const u32 before[LANES]) {
    SharedMemory &shared = warp.block->shared;
    size_t kept = 0;
    for (const AsyncCopy &copy : warp.copies) {
        if (!(mask >> copy.lane & 1) || copy.group >= before[copy.lane]) {
            warp.copies[kept++] = copy;
            continue;
        }
        u8 *to = shared.at(copy.to);
        if (copy.from_bytes) memcpy(to, (const u8 *)copy.from, copy.from_bytes);
        memset(to + copy.from_bytes, 0, copy.bytes - copy.from_bytes);
        shared.note_async_done(warp, copy.lane, copy.to, copy.bytes);
    }
    warp.copies.resize(kept);
}

void run_commit(Warp &warp, const Insn &, u32 mask) {
    for (u32 i = 0; i < LANES; i++) warp.groups_committed[i] += mask >> i & 1;
}

// Insn::offset: how many of the latest groups may be unfinished.
void run_wait_group(Warp &warp, const Insn &insn, u32 mask) {
    u32 before[LANES];
    for (u32 i = 0; i < LANES; i++) {
        u32 n = warp.groups_committed[i];
        before[i] = (i64)n > insn.offset ? n - (u32)insn.offset : 0;
    }
    finish_copies(warp, mask, before);
}

void run_wait_all(Warp &warp, const Insn &insn, u32 mask) {
    run_commit(warp, insn, mask);
    finish_copies(warp, mask, warp.groups_committed);
}

void decode_copy(Decoding &d) {
    bool is_cg = d.accept("cg");
    if (!is_cg && !d.accept("ca")) d.fail("it needs .ca or .cg");
    if (!(d.accept("shared") || d.accept("shared::cta")) || !d.accept("global"))
        d.fail("only .shared.global is supported");
    d.skip_any({"L2::64B", "L2::128B", "L2::256B"});
    d.expect_operands(3, 4);
    u64 bytes = d.integer_literal(d.operand(2));
    if (is_cg && bytes != 16) d.fail(".cg copies 16 bytes");
    d.insn.run = bytes == 4 ? run_copy<4> : bytes == 8 ? run_copy<8> : bytes == 16 ? run_copy<16> : nullptr;
    if (!d.insn.run) d.fail("it copies 4, 8 or 16 bytes");
    d.address(1, d.operand(1));
    d.insn.target = (u32)d.insn.offset;
    d.insn.aux = (u8)((d.insn.aux & 1) << 1);
    d.address(0, d.operand(0));
    d.insn.op[2] = NO_OPERAND;
    if (d.n_operands() == 4) d.source(2, d.operand(3), Type::U32);
}

void decode_commit(Decoding &d) {
    d.expect_operands(0, 0);
    d.insn.run = run_commit;
}

void decode_wait_group(Decoding &d) {
    d.expect_operands(1, 1);
    d.insn.offset = (i64)d.integer_literal(d.operand(0));
    d.insn.run = run_wait_group;
}

void decode_wait_all(Decoding &d) {
    d.expect_operands(0, 0);
    d.insn.run = run_wait_all;
}

} // namespace

const std::vector<OpcodeRow> ASYNC_OPCODES = {
    {"cp.async", decode_copy},
    {"cp.async.commit_group", decode_commit},
    {"cp.async.wait_group", decode_wait_group},
    {"cp.async.wait_all", decode_wait_all},
};

} // namespace emu
