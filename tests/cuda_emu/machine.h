// The state of a running block: its warps and what they share.
//
// A warp has one current path (pc, active lanes, the place where it meets the others) and a stack of paths that wait.
// A branch whose lanes disagree splits the current path; the paths meet again at the branch's immediate post-dominator.
// A block belongs to one host thread, which runs its warps in turn, each for a random number of instructions.
#pragma once

#include <random>
#include <vector>

#include "global_memory.h"
#include "program.h"
#include "shared_memory.h"

namespace emu {

constexpr u32 WARPS_MAX = 32;
constexpr u32 BARRIERS_MAX = 16;

// Generic addresses of what is not global memory: 4 GiB windows.
constexpr u64 SHARED_WINDOW = 0x2000000000000;
constexpr u64 LOCAL_WINDOW = 0x3000000000000;
constexpr u64 PARAM_WINDOW = 0x4000000000000;
constexpr u64 WINDOW_BYTES = 1ULL << 32;

struct Path {
    u32 pc, reconverge, mask;
};

struct AsyncCopy {
    u32 lane, group; // the lane's group number, from 0
    u32 to, bytes;   // in shared memory; cp-size
    u64 from;        // host address of the source's bytes
    u32 from_bytes;  // src-size: the rest is filled with zeros
};

enum class WarpState : u8 { READY, AT_BARRIER, DONE };

struct Block;

struct Warp {
    u32 *file[2] = {}; // registers, constants; see program.h
    u32 *predicates = nullptr;
    u32 active = 0; // lanes of the current path
    u32 pc = 0, reconverge = NOWHERE;
    i32 budget = 0;      // instructions until the next warp's turn
    u32 alive = 0;       // lanes that have not exited
    u32 first_lanes = 0; // lanes that the block has: all but in its last warp
    u32 index = 0;       // in the block
    u32 floor_tag = 0;   // accesses with smaller tags are ordered before this warp's next one
    Block *block = nullptr;
    std::vector<Path> stack;
    WarpState state = WarpState::READY;

    u32 barrier_id = 0;              // AT_BARRIER
    u16 barrier_result = NO_OPERAND; // bar.red: where the result goes
    u32 known[WARPS_MAX] = {};       // by warp: accesses before this time are ordered
    std::vector<AsyncCopy> copies;   // cp.async not waited for
    u32 groups_committed[LANES] = {};
    u64 steps = 0;

    u32 *slot(u16 op) { return file[op >> 15] + (size_t)(op & 0x7fff) * LANES; }
    u64 *slot64(u16 op) { return (u64 *)slot(op); } // slots are 64-byte aligned
};

// Counts of one launch on one host thread; counts.def says what they mean.
struct Traffic {
    u64 thread_instructions = 0, warp_instructions = 0;
    u64 global_loads = 0, global_load_sectors = 0, global_stores = 0, global_store_sectors = 0;
    u64 global_sectors_ideal = 0, async_bytes = 0;
    u64 shared_requests = 0, shared_wavefronts = 0, shared_wavefronts_ideal = 0;
};

struct Launch {
    const Kernel *kernel = nullptr;
    u32 grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
    u32 dynamic_shared_bytes = 0;
    std::vector<u8> params;
    u64 seed = 0, steps_max = 0;
    bool count_traffic = false;
    GlobalMemory *memory = nullptr;
    // Host memory that the device may use: pinned allocations, by start.
    const std::map<u64, u64> *pinned = nullptr;
};

struct Barrier {
    u32 n_arrived = 0, n_expected = 0; // warps; 0 expected: the block's
    u32 participants = 0, waiting = 0; // masks of warps
    bool all = true, any = false;      // bar.red
    u32 count = 0;
    u8 reduce = 0;
    u32 left_at[WARPS_MAX] = {}; // bar.arrive: the time when the warp went on
};

struct Block {
    const Launch *launch = nullptr;
    const Kernel *kernel = nullptr;
    u32 index[3] = {};
    u32 n_threads = 0, n_warps = 0;
    std::vector<Warp> warps;
    SharedMemory shared;
    std::vector<u8> local, local_shadow; // [thread][local_bytes]
    Barrier barriers[BARRIERS_MAX];
    u32 n_done = 0;
    u32 fault_at = 0; // index in Kernel::code of what threw a Fault
    u8 *global_bytes = nullptr, *global_shadow = nullptr;
    std::minstd_rand random;
    Traffic traffic;
    std::vector<u64> executed; // beside Kernel::code: of this host thread
    std::vector<u32> register_file;

    // What a thread's %tid is, from its number in the block.
    void thread_index(u32 thread, u32 out[3]) const;
};

// A branch whose lanes disagree: `mask` goes to `target`, the other active lanes to `next`.
void warp_split(Warp &warp, u32 mask, u32 target, u32 next, u32 reconverge);
// The current path has come to its end or to where it meets others: goes on with the next one that has living lanes.
void warp_pop(Warp &warp);
void warp_exit(Warp &warp, u32 mask);
// n_warps: 0 for all of the block. waits: bar.sync and bar.red; else bar.arrive.
void warp_barrier(Warp &warp, u32 id, u32 n_warps, bool waits);
void warp_sync_lanes(Warp &warp); // bar.warp.sync: lanes see each other's accesses

// Runs one block to its end. Throws Fault, with *faulted_warp and Block::fault_at set.
void block_run(Block &block, const Launch &launch, const u32 index[3], u32 *faulted_warp);

} // namespace emu
