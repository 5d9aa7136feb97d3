// Where an address leads, and whether an access there is allowed: shared by loads, stores, atomics and cp.async.
#pragma once

#include "lanes.h"

namespace emu {

enum class Where : u8 { GLOBAL, SHARED, LOCAL, PARAM, GENERIC };

template <u32 N> inline bool all_set(const u8 *shadow, u8 keep, u8 want) {
    if constexpr (N > 8) {
        return all_set<8>(shadow, keep, want) && all_set<N - 8>(shadow + 8, keep, want);
    } else {
        Bits<N> word;
        memcpy(&word, shadow, N);
        constexpr Bits<N> ONES = (Bits<N>)0x0101010101010101;
        return (Bits<N>)(word & (Bits<N>)(ONES * keep)) == (Bits<N>)(ONES * want);
    }
}

constexpr u8 READ_KEEP = SHADOW_ALLOCATED | SHADOW_INITIALISED, READ_WANT = READ_KEEP;
constexpr u8 WRITE_KEEP = SHADOW_ALLOCATED | SHADOW_READ_ONLY, WRITE_WANT = SHADOW_ALLOCATED;

// Host memory that the device may use, or a Fault.
u8 *access_outside(Warp &warp, u32 lane, u64 address, u32 bytes, bool is_write);
u8 *access_local(Warp &warp, u32 lane, u64 offset, u32 bytes, bool is_write);
const u8 *access_param(Warp &warp, u32 lane, u64 offset, u32 bytes);

template <u32 N> inline u8 *access_global(Warp &warp, u32 lane, u64 address, bool is_write) {
    Block &block = *warp.block;
    u64 offset = address - GLOBAL_BASE;
    if (offset > GLOBAL_SPAN - N || offset % N != 0) return access_outside(warp, lane, address, N, is_write);
    u8 *shadow = block.global_shadow + offset;
    if (is_write) {
        if (!all_set<N>(shadow, WRITE_KEEP, WRITE_WANT)) return access_outside(warp, lane, address, N, true);
        for (u32 i = 0; i < N; i++) shadow[i] = SHADOW_ALLOCATED | SHADOW_INITIALISED;
    } else if (!all_set<N>(shadow, READ_KEEP, READ_WANT)) {
        return access_outside(warp, lane, address, N, false);
    }
    return block.global_bytes + offset;
}

template <u32 N> inline u8 *access_shared(Warp &warp, u32 lane, u64 offset, bool is_write) {
    SharedMemory &shared = warp.block->shared;
    if (offset > shared.size() || N > shared.size() - offset || offset % N != 0)
        shared.out_of_bounds(lane, offset, N, is_write);
    if (is_write)
        shared.note_write<N>(warp, lane, (u32)offset);
    else
        shared.note_read<N>(warp, lane, (u32)offset);
    return shared.at((u32)offset);
}

template <Where W, u32 N> inline u8 *access_at(Warp &warp, u32 lane, u64 address, bool is_write) {
    if constexpr (W == Where::GLOBAL) return access_global<N>(warp, lane, address, is_write);
    if constexpr (W == Where::SHARED) return access_shared<N>(warp, lane, address, is_write);
    if constexpr (W == Where::LOCAL) return access_local(warp, lane, address, N, is_write);
    if constexpr (W == Where::PARAM)
        return const_cast<u8 *>(access_param(warp, lane, address, N)); // stores are not decoded
    if constexpr (W == Where::GENERIC) {
        if (address - SHARED_WINDOW < WINDOW_BYTES)
            return access_shared<N>(warp, lane, address - SHARED_WINDOW, is_write);
        if (address - LOCAL_WINDOW < WINDOW_BYTES) return access_local(warp, lane, address - LOCAL_WINDOW, N, is_write);
        if (address - PARAM_WINDOW < WINDOW_BYTES && !is_write)
            return const_cast<u8 *>(access_param(warp, lane, address - PARAM_WINDOW, N));
        return access_global<N>(warp, lane, address, is_write);
    }
}

// The lanes' addresses: op[slot] + Insn::offset.
void lane_addresses(Warp &warp, const Insn &insn, u16 op, u64 out[LANES]);

// Counts of memory transactions, when the launch wants them.
void count_global(Warp &warp, u32 mask, const u64 addresses[LANES], u32 bytes, bool is_write);
void count_shared(Warp &warp, u32 mask, const u64 offsets[LANES], u32 bytes);

template <Where W>
inline void count_access(Warp &warp, u32 mask, const u64 addresses[LANES], u32 bytes, bool is_write) {
    if (!warp.block->launch->count_traffic) return;
    if constexpr (W == Where::GLOBAL) count_global(warp, mask, addresses, bytes, is_write);
    if constexpr (W == Where::SHARED) count_shared(warp, mask, addresses, bytes);
    if constexpr (W == Where::GENERIC) // one request is of one space in all that compilers make
        addresses[lowest_lane(mask)] - SHARED_WINDOW < WINDOW_BYTES
            ? count_shared(warp, mask, addresses, bytes)
            : count_global(warp, mask, addresses, bytes, is_write);
}

} // namespace emu
