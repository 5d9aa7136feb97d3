// A block's shared memory, with two tags for every byte: who wrote it last and who read it last, and when.
//
//   tag = time << 12 | who          time: 20 bits, who: 12 bits
//   who = thread (10 bits), or, when several threads of the block read the byte, SEVERAL | warp, or SEVERAL |
//   MANY_WARPS;
//         | ATOMIC when it was an atomic operation
//
// Time is counted for the block: it goes on by one at every barrier. A warp knows, for each warp, up to which time its
// accesses are ordered before its own (Warp::known: a vector clock, joined by barriers). An earlier access by another
// thread whose time is not known is a race if one of the two writes, and two atomic operations never race. Threads of
// one warp are ordered among themselves by bar.warp.sync, not by running in step.
//
// Written tags also say what was never written in this block (time before the block's start), what is between variables
// (RED_ZONE) and what an unfinished cp.async will write (PENDING).
//
// Not seen: a race with a reader that a later reader of the same byte has replaced, when the two were both of several
// warps and only some of these have met at a barrier since.
#pragma once

#include <vector>

#include "fault.h"
#include "program.h"

namespace emu {

constexpr u32 TAG_TIME_SHIFT = 12;
constexpr u32 TAG_WHO = 0xfff;
constexpr u32 TAG_ATOMIC = 1U << 11;
constexpr u32 TAG_SEVERAL = 1U << 10;
constexpr u32 TAG_MANY_WARPS = 32;
constexpr u32 TIME_MAX = 0xffffe; // the time of PENDING and RED_ZONE, which no access has
constexpr u32 TAG_PENDING = TIME_MAX << TAG_TIME_SHIFT;
constexpr u32 TAG_RED_ZONE = (TIME_MAX + 1) << TAG_TIME_SHIFT;

struct Block;

class SharedMemory {
  public:
    // For the next block: nothing is initialised. dynamic_bytes follow the kernel's static variables.
    void start(const Kernel &kernel, u32 dynamic_bytes);

    u32 tick() { return ++time_; } // a barrier; see ordered_limit
    u32 time() const { return time_; }
    bool is_late() const { return time_ >= TIME_MAX - 1; }
    // Forgets who did what but not what is initialised; all accesses so far count as ordered. For a block that has
    // passed a million barriers. Returns the new time.
    u32 restart_time();

    u8 *at(u32 offset) { return bytes_.data() + offset; }
    u32 size() const { return size_; }

    // Each checks and records an access of `bytes` (1 to 16) by a lane; offset + bytes <= size() was checked.
    template <u32 N> void note_read(Warp &warp, u32 lane, u32 offset);
    template <u32 N> void note_write(Warp &warp, u32 lane, u32 offset);
    // The same for lanes lane … lane + n - 1, each with the next N bytes from offset on: quick when there is nothing to
    // find, else lane by lane.
    template <u32 N> void note_read_row(Warp &warp, u32 lane, u32 n, u32 offset);
    template <u32 N> void note_write_row(Warp &warp, u32 lane, u32 n, u32 offset);
    void note_atomic(Warp &warp, u32 lane, u32 offset, u32 bytes);
    void note_async_issue(Warp &warp, u32 lane, u32 offset, u32 bytes);
    void note_async_done(Warp &warp, u32 lane, u32 offset, u32 bytes);

    [[noreturn]] void out_of_bounds(u32 lane, u64 offset, u32 bytes, bool is_write) const;

  private:
    // The slow path: a Fault, or nothing if the quick check was too coarse.
    void examine_read(const Warp &warp, u32 lane, u32 offset, u32 bytes, bool atomic) const;
    void examine_write(const Warp &warp, u32 lane, u32 offset, u32 bytes, bool atomic) const;
    void examine_address(u32 lane, u32 offset, u32 byte, bool is_write) const;
    static bool is_ordered(const Warp &warp, u32 tag);
    [[noreturn]] static void race(const Warp &warp, u32 lane, u32 byte, const char *now, const char *before, u32 tag);

    std::vector<u8> bytes_;
    std::vector<u32> written_, read_; // tags, one a byte
    std::vector<Extent> zones_;       // red zones, as they were tagged for the last block
    u32 size_ = 0;
    u32 time_ = 0, start_tag_ = 0;
};

} // namespace emu
