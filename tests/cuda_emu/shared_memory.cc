#include "shared_memory.h"

#include <algorithm>

#include "machine.h"

namespace emu {

namespace {

std::string thread_text(const Block &block, u32 thread) {
    u32 at[3];
    block.thread_index(thread, at);
    return "thread (" + std::to_string(at[0]) + ", " + std::to_string(at[1]) + ", " + std::to_string(at[2]) + ")";
}

std::string who_text(const Block &block, u32 tag) {
    if (!(tag & TAG_SEVERAL)) return thread_text(block, tag & 0x3ff);
    u32 warp = tag & 63;
    return warp == TAG_MANY_WARPS ? "threads of several warps" : "several threads of warp " + std::to_string(warp);
}

u32 tag_time(u32 tag) {
    return tag >> TAG_TIME_SHIFT;
}

u32 tag_of(const Warp &warp, const SharedMemory &shared, u32 lane) {
    return shared.time() << TAG_TIME_SHIFT | (warp.index * LANES + lane);
}

} // namespace

void SharedMemory::start(const Kernel &kernel, u32 dynamic_bytes) {
    for (const Extent &zone : zones_) std::fill_n(written_.begin() + zone.start, zone.bytes, 0U);
    zones_.clear();
    size_ = kernel.shared_bytes + dynamic_bytes;
    if (bytes_.size() < size_) {
        bytes_.resize(size_);
        written_.resize(size_);
        read_.resize(size_);
    }
    if (time_ > TIME_MAX / 2) {
        std::fill(written_.begin(), written_.end(), 0U);
        std::fill(read_.begin(), read_.end(), 0U);
        time_ = 0;
    }
    time_++;
    start_tag_ = time_ << TAG_TIME_SHIFT;
    std::fill(bytes_.begin(), bytes_.end(), (u8)0xcd); // so that nothing is right by chance
    u32 end = 0;
    for (const Extent &variable : kernel.shared) {
        zones_.push_back({end, variable.start - end});
        end = variable.start + variable.bytes;
    }
    if (!kernel.shared.empty()) zones_.push_back({end, kernel.shared_bytes - end});
    // What a cp.async left pending in an earlier block is void too.
    for (u32 i = 0; i < size_; i++)
        if (written_[i] >= TAG_PENDING) written_[i] = 0;
    for (const Extent &zone : zones_) std::fill_n(written_.begin() + zone.start, zone.bytes, TAG_RED_ZONE);
}

u32 SharedMemory::restart_time() {
    time_ = 2;
    for (u32 &tag : written_)
        if (tag < TAG_PENDING) tag = tag < start_tag_ ? 0 : (1U << TAG_TIME_SHIFT) | (tag & TAG_WHO);
    std::fill(read_.begin(), read_.end(), 0U);
    start_tag_ = 1U << TAG_TIME_SHIFT;
    return time_;
}

bool SharedMemory::is_ordered(const Warp &warp, u32 tag) {
    if (tag < warp.floor_tag) return true;
    u32 by = tag & 63;
    if (!(tag & TAG_SEVERAL)) by = (tag & 0x3ff) / LANES;
    if (by == TAG_MANY_WARPS) // ordered at least for some of them
        return tag_time(tag) < *std::max_element(warp.known, warp.known + warp.block->n_warps);
    return tag_time(tag) < warp.known[by];
}

void SharedMemory::race(const Warp &warp, u32 lane, u32 byte, const char *now, const char *before, u32 tag) {
    throw Fault(FaultKind::RACE, lane,
                std::string(now) + " byte " + std::to_string(byte) + " of shared memory, which " +
                    who_text(*warp.block, tag) + " " + before + " with no barrier in between");
}

void SharedMemory::examine_address(u32 lane, u32 offset, u32 byte, bool is_write) const {
    std::string what =
        std::string(is_write ? "writes" : "reads") + " byte " + std::to_string(offset) + " of shared memory";
    if (written_[byte] == TAG_PENDING)
        throw Fault(FaultKind::ASYNC_READ, lane, what + ", which a cp.async that was not waited for will write");
    if (written_[byte] == TAG_RED_ZONE)
        throw Fault(FaultKind::OUT_OF_BOUNDS, lane, what + ", which lies between the kernel's shared variables");
}

void SharedMemory::examine_read(const Warp &warp, u32 lane, u32 offset, u32 bytes, bool atomic) const {
    u32 me = warp.index * LANES + lane;
    for (u32 byte = offset; byte < offset + bytes; byte++) {
        u32 tag = written_[byte];
        examine_address(lane, byte, byte, false);
        if (tag < start_tag_)
            throw Fault(FaultKind::UNINITIALISED, lane,
                        "reads byte " + std::to_string(byte) + " of shared memory, which was never written");
        bool mine = !(tag & TAG_SEVERAL) && (tag & 0x3ff) == me;
        if (!mine && !(atomic && (tag & TAG_ATOMIC)) && !is_ordered(warp, tag))
            race(warp, lane, byte, "reads", "wrote", tag);
    }
}

void SharedMemory::examine_write(const Warp &warp, u32 lane, u32 offset, u32 bytes, bool atomic) const {
    u32 me = warp.index * LANES + lane;
    for (u32 byte = offset; byte < offset + bytes; byte++) {
        examine_address(lane, byte, byte, true);
        for (u32 tag : {written_[byte], read_[byte]}) {
            bool mine = !(tag & TAG_SEVERAL) && (tag & 0x3ff) == me;
            if (tag < start_tag_ || mine || (atomic && (tag & TAG_ATOMIC)) || is_ordered(warp, tag)) continue;
            race(warp, lane, byte, "writes", tag == written_[byte] ? "wrote" : "read", tag);
        }
    }
}

template <u32 N> void SharedMemory::note_read(Warp &warp, u32 lane, u32 offset) {
    u32 now = tag_of(warp, *this, lane), who = now & TAG_WHO, floor = warp.floor_tag, start = start_tag_;
    u32 several = (now & ~TAG_WHO) | TAG_SEVERAL, my_warp = warp.index;
    const u32 *written = written_.data() + offset;
    u32 *read = read_.data() + offset;
    u32 bad = 0;
    for (u32 i = 0; i < N; i++) {
        u32 tag = written[i];
        bad |= (u32)(tag < start) | ((u32)(tag >= floor) & (u32)((tag & TAG_WHO) != who));
    }
    if (bad) examine_read(warp, lane, offset, N, false);
    for (u32 i = 0; i < N; i++) {
        u32 tag = read[i];
        u32 by = (tag & TAG_SEVERAL) ? tag & 63 : (tag & 0x3ff) / LANES;
        u32 merged = several | (by == my_warp ? my_warp : TAG_MANY_WARPS);
        read[i] = (tag < floor || (tag & TAG_WHO) == who) ? now : merged;
    }
}

template <u32 N> void SharedMemory::note_write(Warp &warp, u32 lane, u32 offset) {
    u32 now = tag_of(warp, *this, lane), who = now & TAG_WHO, floor = warp.floor_tag;
    u32 *written = written_.data() + offset;
    const u32 *read = read_.data() + offset;
    u32 bad = 0;
    for (u32 i = 0; i < N; i++) {
        bad |= (u32)(written[i] >= floor) & (u32)((written[i] & TAG_WHO) != who);
        bad |= (u32)(read[i] >= floor) & (u32)((read[i] & TAG_WHO) != who);
    }
    if (bad) examine_write(warp, lane, offset, N, false);
    for (u32 i = 0; i < N; i++) written[i] = now;
}

// The two loops of note_read and note_write over a row of lanes, whose number is what is added to `now`.
template <u32 N> void SharedMemory::note_read_row(Warp &warp, u32 lane, u32 n, u32 offset) {
    u32 now = tag_of(warp, *this, lane), floor = warp.floor_tag, start = start_tag_, my_warp = warp.index;
    u32 several = (now & ~TAG_WHO) | TAG_SEVERAL;
    const u32 *written = written_.data() + offset;
    u32 *read = read_.data() + offset, bad = 0;
    for (u32 i = 0; i < n * N; i++) {
        u32 tag = written[i], who = (now + i / N) & TAG_WHO;
        bad |= (u32)(tag < start) | ((u32)(tag >= floor) & (u32)((tag & TAG_WHO) != who));
    }
    if (bad) {
        for (u32 i = 0; i < n; i++) note_read<N>(warp, lane + i, offset + i * N);
        return;
    }
    for (u32 i = 0; i < n * N; i++) {
        u32 tag = read[i], mine = now + i / N;
        u32 by = (tag & TAG_SEVERAL) ? tag & 63 : (tag & 0x3ff) / LANES;
        u32 merged = several | (by == my_warp ? my_warp : TAG_MANY_WARPS);
        read[i] = (tag < floor || (tag & TAG_WHO) == (mine & TAG_WHO)) ? mine : merged;
    }
}

template <u32 N> void SharedMemory::note_write_row(Warp &warp, u32 lane, u32 n, u32 offset) {
    u32 now = tag_of(warp, *this, lane), floor = warp.floor_tag, bad = 0;
    u32 *written = written_.data() + offset;
    const u32 *read = read_.data() + offset;
    for (u32 i = 0; i < n * N; i++) {
        u32 who = (now + i / N) & TAG_WHO;
        bad |= (u32)(written[i] >= floor) & (u32)((written[i] & TAG_WHO) != who);
        bad |= (u32)(read[i] >= floor) & (u32)((read[i] & TAG_WHO) != who);
    }
    if (bad) {
        for (u32 i = 0; i < n; i++) note_write<N>(warp, lane + i, offset + i * N);
        return;
    }
    for (u32 i = 0; i < n * N; i++) written[i] = now + i / N;
}

#define X(n)                                                                                                           \
    template void SharedMemory::note_read_row<n>(Warp &, u32, u32, u32);                                               \
    template void SharedMemory::note_write_row<n>(Warp &, u32, u32, u32);                                              \
    template void SharedMemory::note_read<n>(Warp &, u32, u32);                                                        \
    template void SharedMemory::note_write<n>(Warp &, u32, u32)
X(1);
X(2);
X(4);
X(8);
X(16);
#undef X

void SharedMemory::note_atomic(Warp &warp, u32 lane, u32 offset, u32 bytes) {
    examine_read(warp, lane, offset, bytes, true);
    examine_write(warp, lane, offset, bytes, true);
    u32 tag = tag_of(warp, *this, lane) | TAG_ATOMIC;
    for (u32 i = offset; i < offset + bytes; i++) written_[i] = read_[i] = tag;
}

void SharedMemory::note_async_issue(Warp &warp, u32 lane, u32 offset, u32 bytes) {
    examine_write(warp, lane, offset, bytes, false);
    std::fill_n(written_.begin() + offset, bytes, TAG_PENDING);
}

void SharedMemory::note_async_done(Warp &warp, u32 lane, u32 offset, u32 bytes) {
    std::fill_n(written_.begin() + offset, bytes, tag_of(warp, *this, lane));
}

void SharedMemory::out_of_bounds(u32 lane, u64 offset, u32 bytes, bool is_write) const {
    std::string what = std::string(is_write ? "writes " : "reads ") + std::to_string(bytes) + " bytes at byte " +
                       std::to_string(offset) + " of shared memory";
    if (offset % bytes != 0)
        throw Fault(FaultKind::MISALIGNED, lane, what + ", which is no multiple of " + std::to_string(bytes));
    throw Fault(FaultKind::OUT_OF_BOUNDS, lane, what + ", which has " + std::to_string(size_));
}

} // namespace emu
