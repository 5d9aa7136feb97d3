// The device's global memory: allocations, their bytes, and a shadow byte for every byte.
//
// Device addresses are not host addresses (a host that follows one crashes, as it should) and are never given out
// twice: what is freed stays known as freed. Every allocation ends in a red zone. Both the memory and its shadow are
// reserved once, and only pages that are touched take room.
//
// Kernels of one launch run on several threads and touch bytes and shadow without locks; alloc and free happen between
// launches, under the driver's lock.
#pragma once

#include <map>

#include "fault.h"
#include "types.h"

namespace emu {

constexpr u64 GLOBAL_BASE = 0x7000000000; // the first device address
constexpr u64 GLOBAL_SPAN = 1ULL << 40;   // reserved addresses, in bytes
constexpr u64 ALLOCATION_ALIGN = 512;     // CUDA promises 256
constexpr u64 RED_ZONE_BYTES = 512;

// Shadow bits of a byte.
constexpr u8 SHADOW_ALLOCATED = 1;
constexpr u8 SHADOW_INITIALISED = 2;
constexpr u8 SHADOW_READ_ONLY = 4; // for kernels: constant memory

class GlobalMemory {
  public:
    GlobalMemory();
    ~GlobalMemory();
    GlobalMemory(const GlobalMemory &) = delete;
    GlobalMemory &operator=(const GlobalMemory &) = delete;

    // An address, or 0 when more than capacity_bytes would be in use. Its bytes count as uninitialised.
    u64 alloc(u64 bytes);
    bool free(u64 address); // false: not the start of a live allocation
    void reset();           // frees everything

    // Checks for the host's copies: the range lies in one live allocation.
    bool holds(u64 address, u64 bytes) const;
    bool range_of(u64 address, u64 *start, u64 *bytes) const; // the live allocation that holds the address
    // Index of the first byte of a live range that was never written, or `bytes`.
    u64 first_uninitialised(u64 address, u64 bytes) const;

    void mark_initialised(u64 address, u64 bytes);
    void mark_read_only(u64 address, u64 bytes);

    u8 *bytes_at(u64 address) { return bytes_ + (address - GLOBAL_BASE); }

    // What is wrong with an access, as a Fault of `lane`. Called when a fast check failed.
    [[noreturn]] void explain(u32 lane, u64 address, u32 bytes, bool is_write) const;

    u8 *bytes() { return bytes_; }   // of GLOBAL_BASE
    u8 *shadow() { return shadow_; } // likewise
    u64 used_bytes() const { return used_bytes_; }
    u64 capacity_bytes = 0;

  private:
    struct Allocation {
        u64 bytes;
        bool live;
    };
    const std::pair<const u64, Allocation> *find(u64 address) const; // the last one that starts at or before address

    u8 *bytes_ = nullptr, *shadow_ = nullptr;
    u64 next_ = GLOBAL_BASE, used_bytes_ = 0;
    std::map<u64, Allocation> allocations_; // by address; freed ones stay
};

} // namespace emu
