// Runs a block: starts its warps, gives them turns in random order, splits and joins their paths, and holds its
// barriers.

#include "specials.h"

#include <algorithm>

namespace emu {

namespace {

constexpr u32 POISON = 0xdeadbeef; // what a register holds before it is written

u32 popcount(u32 mask) {
    return (u32)__builtin_popcount(mask);
}
u32 first_lane(u32 mask) {
    return (u32)__builtin_ctz(mask);
}

std::string lanes_text(u32 mask) {
    char text[16];
    snprintf(text, sizeof text, "0x%08x", mask);
    return text;
}

// ---- starting

void start_warp(Block &block, u32 index) {
    const Kernel &kernel = *block.kernel;
    Warp &warp = block.warps[index];
    u32 n_lanes = std::min(LANES, block.n_threads - index * LANES);
    size_t words = (size_t)kernel.n_slots * LANES, all = words + kernel.n_predicates;
    warp.block = &block;
    warp.index = index;
    warp.file[0] = block.register_file.data() + index * ((all + 15) / 16 * 16);
    warp.file[1] = const_cast<u32 *>(kernel.constants.data()); // handlers write only to operands that are registers
    warp.predicates = warp.file[0] + words;
    std::fill_n(warp.file[0], all, POISON);
    warp.first_lanes = warp.alive = warp.active = n_lanes == LANES ? ALL_LANES : (1U << n_lanes) - 1;
    warp.pc = 0;
    warp.reconverge = NOWHERE;
    warp.stack.clear();
    warp.copies.clear();
    warp.state = WarpState::READY;
    warp.steps = 0;
    std::fill_n(warp.known, WARPS_MAX, block.shared.time());
    std::fill_n(warp.groups_committed, LANES, 0U);
    warp.floor_tag = block.shared.time() << TAG_TIME_SHIFT;
    for (const SpecialSlot &special : kernel.specials)
        for (u32 lane = 0; lane < LANES; lane++)
            warp.slot(special.slot)[lane] = special.of->value(block, index * LANES + lane);
}

void start_block(Block &block, const Launch &launch, const u32 index[3]) {
    const Kernel &kernel = *launch.kernel;
    block.launch = &launch;
    block.kernel = &kernel;
    std::copy_n(index, 3, block.index);
    block.n_threads = launch.block[0] * launch.block[1] * launch.block[2];
    block.n_warps = (block.n_threads + LANES - 1) / LANES;
    block.n_done = 0;
    block.global_bytes = launch.memory->bytes();
    block.global_shadow = launch.memory->shadow();
    u64 position = index[0] + (u64)launch.grid[0] * (index[1] + (u64)launch.grid[1] * index[2]);
    block.random.seed((u32)(launch.seed * 0x9e3779b97f4a7c15 >> 32) ^ (u32)(position * 0x85ebca6b));
    block.shared.start(kernel, launch.dynamic_shared_bytes);
    block.shared.tick();
    std::fill_n(block.barriers, BARRIERS_MAX, Barrier{});
    size_t local_bytes = (size_t)kernel.local_bytes * block.n_warps * LANES;
    block.local.assign(local_bytes, 0xcd);
    block.local_shadow.assign(local_bytes, 0);
    block.executed.resize(kernel.code.size());
    size_t words = ((size_t)kernel.n_slots * LANES + kernel.n_predicates + 15) / 16 * 16;
    block.register_file.reserve(words * block.n_warps + 16);
    block.register_file.resize(words * block.n_warps + 16);
    block.warps.resize(block.n_warps);
    for (u32 i = 0; i < block.n_warps; i++) start_warp(block, i);
}

// ---- running

// Mostly long turns, so that a warp's registers stay in the cache; some of a few instructions.
i32 random_turn(Block &block) {
    u32 r = (u32)block.random();
    return r % 8 == 0 ? (i32)(1 + (r >> 8) % 32) : (i32)(1 + (r >> 8) % 4096);
}

// Returns how many instructions it ran, at most `turn`.
u32 run_turn(Warp &warp, i32 turn) {
    Block &block = *warp.block;
    const Insn *code = block.kernel->code.data(), *insn = code;
    u64 *executed = block.executed.data();
    u64 lanes = 0;
    u32 n = 0;
    try {
        for (warp.budget = turn; warp.budget > 0; warp.budget--) {
            insn = code + warp.pc;
            executed[warp.pc]++;
            warp.pc++;
            n++;
            u32 mask = warp.active;
            if (insn->guard != NO_GUARD) {
                u32 guard = warp.predicates[insn->guard];
                mask &= insn->guard_negated ? ~guard : guard;
                if (!mask) continue;
            }
            lanes += popcount(mask);
            insn->run(warp, *insn, mask);
        }
    } catch (const Fault &fault) {
        block.fault_at = fault.at == ~0U ? (u32)(insn - code) : fault.at;
        throw;
    }
    block.traffic.thread_instructions += lanes;
    return n;
}

// Which warps wait where, for a message.
std::string waiting_text(const Block &block) {
    std::string text;
    for (const Warp &warp : block.warps)
        if (warp.state == WarpState::AT_BARRIER)
            text += (text.empty() ? "" : ", ") + std::string("warp ") + std::to_string(warp.index) + " at barrier " +
                    std::to_string(warp.barrier_id) + " in PTX line " +
                    std::to_string(block.kernel->locs[warp.pc - 1].ptx_line);
    return text;
}

// A warp that may run, at random; null when all are done.
Warp *choose_warp(Block &block, u32 *faulted_warp) {
    Warp *ready[WARPS_MAX];
    u32 n = 0;
    for (Warp &warp : block.warps)
        if (warp.state == WarpState::READY) ready[n++] = &warp;
    if (n) return ready[n == 1 ? 0 : (u32)block.random() % n];
    if (block.n_done == block.n_warps) return nullptr;
    for (const Warp &warp : block.warps)
        if (warp.state == WarpState::AT_BARRIER) *faulted_warp = warp.index;
    const Warp &waits = block.warps[*faulted_warp];
    block.fault_at = waits.pc - 1;
    throw Fault(FaultKind::DEADLOCK, first_lane(waits.active), "nobody can go on: " + waiting_text(block));
}

} // namespace

void Block::thread_index(u32 thread, u32 out[3]) const {
    out[0] = thread % launch->block[0];
    out[1] = thread / launch->block[0] % launch->block[1];
    out[2] = thread / (launch->block[0] * launch->block[1]);
}

void block_run(Block &block, const Launch &launch, const u32 index[3], u32 *faulted_warp) {
    *faulted_warp = 0;
    start_block(block, launch, index);
    while (Warp *warp = choose_warp(block, faulted_warp)) {
        *faulted_warp = warp->index;
        u32 n = run_turn(*warp, random_turn(block));
        warp->steps += n;
        block.traffic.warp_instructions += n;
        if (warp->steps <= launch.steps_max || warp->state == WarpState::DONE) continue;
        block.fault_at = warp->pc - 1;
        throw Fault(FaultKind::STEP_LIMIT, first_lane(warp->active | 1U << 31),
                    "this warp has run more than " + std::to_string(launch.steps_max) + " instructions");
    }
}

// ---- paths

void warp_split(Warp &warp, u32 mask, u32 target, u32 next, u32 reconverge) {
    u32 rest = warp.active & ~mask;
    if (!rest || target == next) {
        warp.pc = target;
        return;
    }
    // The path that goes on where all meet; when the current one ends there too, an outer split has put it there.
    if (reconverge != warp.reconverge) warp.stack.push_back({reconverge, warp.reconverge, warp.active});
    Path paths[2] = {{target, reconverge, mask}, {next, reconverge, rest}};
    if (warp.block->random() & 1U << 8) std::swap(paths[0], paths[1]);
    for (const Path &path : paths)
        if (path.pc != reconverge) warp.stack.push_back(path);
    warp_pop(warp);
}

void warp_pop(Warp &warp) {
    while (!warp.stack.empty()) {
        Path path = warp.stack.back();
        warp.stack.pop_back();
        warp.active = path.mask & warp.alive;
        if (!warp.active) continue;
        warp.pc = path.pc;
        warp.reconverge = path.reconverge;
        return;
    }
    Block &block = *warp.block;
    warp.active = 0;
    warp.state = WarpState::DONE;
    warp.budget = 0;
    block.n_done++;
    for (const Warp &other : block.warps) {
        if (other.state != WarpState::AT_BARRIER || block.barriers[other.barrier_id].n_expected) continue;
        Fault fault(FaultKind::BARRIER, first_lane(warp.first_lanes), "ends while others wait: " + waiting_text(block));
        fault.at = other.pc - 1;
        throw fault;
    }
}

void warp_exit(Warp &warp, u32 mask) {
    warp.alive &= ~mask;
    warp.active &= ~mask;
    if (!warp.active) warp_pop(warp);
}

// ---- barriers

static void set_floor(Warp &warp) {
    u32 floor = *std::min_element(warp.known, warp.known + warp.block->n_warps);
    warp.floor_tag = floor << TAG_TIME_SHIFT;
}

static u32 next_time(Block &block) {
    if (!block.shared.is_late()) return block.shared.tick();
    u32 time = block.shared.restart_time();
    for (Warp &warp : block.warps) {
        std::fill_n(warp.known, WARPS_MAX, time);
        set_floor(warp);
    }
    return time;
}

void warp_sync_lanes(Warp &warp) {
    warp.known[warp.index] = next_time(*warp.block);
    set_floor(warp);
}

// Everything that the participants did is now known to those that waited.
static void release(Block &block, Barrier &barrier) {
    u32 time = next_time(block), known[WARPS_MAX] = {};
    for (u32 i = 0; i < block.n_warps; i++) {
        if (!(barrier.participants >> i & 1)) continue;
        for (u32 j = 0; j < block.n_warps; j++) known[j] = std::max(known[j], block.warps[i].known[j]);
    }
    for (u32 i = 0; i < block.n_warps; i++)
        if (barrier.participants >> i & 1) known[i] = barrier.waiting >> i & 1 ? time : barrier.left_at[i];
    for (u32 i = 0; i < block.n_warps; i++) {
        Warp &warp = block.warps[i];
        if (!(barrier.waiting >> i & 1)) continue;
        std::copy_n(known, WARPS_MAX, warp.known);
        set_floor(warp);
        warp.state = WarpState::READY;
        if (warp.barrier_result == NO_OPERAND) continue;
        if (barrier.reduce == 0)
            std::fill_n(warp.slot(warp.barrier_result), LANES, barrier.count);
        else
            warp.predicates[warp.barrier_result] = (barrier.reduce == 1 ? barrier.all : barrier.any) ? ALL_LANES : 0;
        warp.barrier_result = NO_OPERAND;
    }
    barrier = Barrier{};
}

void warp_barrier(Warp &warp, u32 id, u32 n_warps, bool waits) {
    Block &block = *warp.block;
    Barrier &barrier = block.barriers[id];
    if (warp.active != warp.first_lanes)
        throw Fault(FaultKind::BARRIER, first_lane(warp.active),
                    "lanes " + lanes_text(warp.active) + " come to barrier " + std::to_string(id) + " without lanes " +
                        lanes_text(warp.first_lanes & ~warp.active) + " of their warp, which " +
                        ((warp.first_lanes & ~warp.alive) ? "have exited" : "took another path"));
    if (n_warps == 0 && block.n_done)
        throw Fault(FaultKind::BARRIER, first_lane(warp.active),
                    "comes to barrier " + std::to_string(id) + ", which " + std::to_string(block.n_done) +
                        " warps of the block have ended without");
    if (barrier.n_arrived && barrier.n_expected != n_warps)
        throw Fault(FaultKind::BARRIER, first_lane(warp.active),
                    "names another number of threads for barrier " + std::to_string(id) +
                        " than the warps that are there already");
    if (barrier.participants >> warp.index & 1)
        throw Fault(FaultKind::BARRIER, first_lane(warp.active), "arrives twice at barrier " + std::to_string(id));
    barrier.n_expected = n_warps;
    barrier.n_arrived++;
    barrier.participants |= 1U << warp.index;
    if (waits) {
        barrier.waiting |= 1U << warp.index;
        warp.barrier_id = id;
        warp.state = WarpState::AT_BARRIER;
        warp.budget = 0;
    } else { // what it does from now on is not ordered by this barrier
        barrier.left_at[warp.index] = next_time(block);
    }
    if (barrier.n_arrived == (n_warps ? n_warps : block.n_warps)) release(block, barrier);
}

} // namespace emu
