// The uncommon ways of access.h, and the counts of memory transactions.

#include "access.h"

#include <algorithm>

namespace emu {

u8 *access_outside(Warp &warp, u32 lane, u64 address, u32 bytes, bool is_write) {
    const Launch &launch = *warp.block->launch;
    auto after = launch.pinned->upper_bound(address);
    if (after != launch.pinned->begin() && address % bytes == 0) {
        auto [start, size] = *std::prev(after);
        if (address - start < size && bytes <= size - (address - start)) return (u8 *)address;
    }
    for (u64 window : {SHARED_WINDOW, LOCAL_WINDOW, PARAM_WINDOW})
        if (address - window < WINDOW_BYTES)
            throw Fault(FaultKind::ADDRESS_SPACE, lane,
                        "uses a generic address of another state space as a global one");
    launch.memory->explain(lane, address, bytes, is_write);
}

u8 *access_local(Warp &warp, u32 lane, u64 offset, u32 bytes, bool is_write) {
    Block &block = *warp.block;
    u32 size = block.kernel->local_bytes;
    auto what = [&] {
        return (is_write ? "writes " : "reads ") + std::to_string(bytes) + " bytes at byte " + std::to_string(offset) +
               " of its local memory";
    };
    if (offset & (bytes - 1)) // a power of two
        throw Fault(FaultKind::MISALIGNED, lane, what() + ", which is no multiple of " + std::to_string(bytes));
    if (offset > size || bytes > size - offset)
        throw Fault(FaultKind::OUT_OF_BOUNDS, lane, what() + ", which has " + std::to_string(size));
    size_t at = (size_t)(warp.index * LANES + lane) * size + offset;
    for (u32 i = 0; i < bytes; i++) {
        if (is_write) block.local_shadow[at + i] = 1;
        if (!block.local_shadow[at + i]) throw Fault(FaultKind::UNINITIALISED, lane, what() + ", where it never wrote");
    }
    return block.local.data() + at;
}

const u8 *access_param(Warp &warp, u32 lane, u64 offset, u32 bytes) {
    const std::vector<u8> &params = warp.block->launch->params;
    auto what = [&] {
        return "reads " + std::to_string(bytes) + " bytes at byte " + std::to_string(offset) + " of the parameters";
    };
    if (offset & (bytes - 1)) // a power of two
        throw Fault(FaultKind::MISALIGNED, lane, what() + ", which is no multiple of " + std::to_string(bytes));
    if (offset > params.size() || bytes > params.size() - offset)
        throw Fault(FaultKind::OUT_OF_BOUNDS, lane, what() + ", which have " + std::to_string(params.size()));
    return params.data() + offset;
}

void lane_addresses(Warp &warp, const Insn &insn, u16 op, u64 out[LANES]) {
    u64 offset = (u64)insn.offset;
    if (insn.aux & 1) { // ADDRESS_64
        const u64 *base = warp.slot64(op);
        for (u32 i = 0; i < LANES; i++) out[i] = base[i] + offset;
    } else {
        const u32 *base = warp.slot(op);
        for (u32 i = 0; i < LANES; i++) out[i] = (u32)(base[i] + (u32)offset);
    }
}

void count_global(Warp &warp, u32 mask, const u64 addresses[LANES], u32 bytes, bool is_write) {
    u64 sectors[LANES];
    u32 n = 0;
    for (u32 rest = mask; rest; rest &= rest - 1) sectors[n++] = addresses[lowest_lane(rest)] / 32;
    u64 ideal = (n * bytes + 31) / 32;
    std::sort(sectors, sectors + n);
    Traffic &traffic = warp.block->traffic;
    u64 distinct = (u64)(std::unique(sectors, sectors + n) - sectors);
    (is_write ? traffic.global_stores : traffic.global_loads)++;
    (is_write ? traffic.global_store_sectors : traffic.global_load_sectors) += distinct;
    traffic.global_sectors_ideal += std::min(distinct, ideal); // a broadcast needs fewer
}

// 32 banks of 4 bytes. Lanes are served together in groups that move 128 bytes: all, halves or quarters of the warp. In
// a group each bank gives one word at a time.
void count_shared(Warp &warp, u32 mask, const u64 offsets[LANES], u32 bytes) {
    Traffic &traffic = warp.block->traffic;
    u32 group = bytes <= 4 ? 32 : 128 / bytes;
    traffic.shared_requests++;
    for (u32 first = 0; first < LANES; first += group) {
        u64 words[LANES * 4];
        u32 n = 0, at_bank[32] = {};
        for (u32 i = first; i < first + group; i++) {
            if (!(mask >> i & 1)) continue;
            for (u32 w = 0; w < std::max(1U, bytes / 4); w++) words[n++] = offsets[i] / 4 + w;
        }
        if (!n) continue;
        std::sort(words, words + n);
        n = (u32)(std::unique(words, words + n) - words);
        for (u32 i = 0; i < n; i++) at_bank[words[i] % 32]++;
        traffic.shared_wavefronts += *std::max_element(at_bank, at_bank + 32);
        traffic.shared_wavefronts_ideal++;
    }
}

} // namespace emu
