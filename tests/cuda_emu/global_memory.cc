#include "global_memory.h"

#include <algorithm>
#include <sys/mman.h>

namespace emu {

namespace {

std::string hex(u64 value) {
    char text[24];
    snprintf(text, sizeof text, "0x%llx", (unsigned long long)value);
    return text;
}

u8 *reserve(u64 bytes) {
    void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("cannot reserve addresses for the device's memory");
    return (u8 *)at;
}

} // namespace

GlobalMemory::GlobalMemory() : bytes_(reserve(GLOBAL_SPAN)), shadow_(reserve(GLOBAL_SPAN)) {}

GlobalMemory::~GlobalMemory() {
    munmap(bytes_, GLOBAL_SPAN);
    munmap(shadow_, GLOBAL_SPAN);
}

u64 GlobalMemory::alloc(u64 bytes) {
    u64 room = (bytes + RED_ZONE_BYTES + ALLOCATION_ALIGN - 1) / ALLOCATION_ALIGN * ALLOCATION_ALIGN;
    if (bytes > capacity_bytes - used_bytes_ || room > GLOBAL_BASE + GLOBAL_SPAN - next_) return 0;
    u64 address = next_;
    next_ += room;
    used_bytes_ += bytes;
    allocations_[address] = {bytes, true};
    memset(shadow_ + (address - GLOBAL_BASE), SHADOW_ALLOCATED, bytes);
    return address;
}

bool GlobalMemory::free(u64 address) {
    auto found = allocations_.find(address);
    if (found == allocations_.end() || !found->second.live) return false;
    u64 bytes = found->second.bytes;
    found->second.live = false;
    used_bytes_ -= bytes;
    // Pages are given back: whole ones lie only within this allocation's own room.
    u64 start = address - GLOBAL_BASE, page = 4096, first = (start + page - 1) / page * page;
    memset(shadow_ + start, 0, bytes);
    if (start + bytes > first) {
        madvise(bytes_ + first, (start + bytes - first) / page * page, MADV_DONTNEED);
        madvise(shadow_ + first, (start + bytes - first) / page * page, MADV_DONTNEED);
    }
    return true;
}

void GlobalMemory::reset() {
    for (auto &[address, allocation] : allocations_)
        if (allocation.live) free(address);
}

const std::pair<const u64, GlobalMemory::Allocation> *GlobalMemory::find(u64 address) const {
    auto after = allocations_.upper_bound(address);
    return after == allocations_.begin() ? nullptr : &*std::prev(after);
}

bool GlobalMemory::range_of(u64 address, u64 *start, u64 *bytes) const {
    auto found = find(address);
    if (!found || !found->second.live || address - found->first >= std::max<u64>(found->second.bytes, 1)) return false;
    *start = found->first;
    *bytes = found->second.bytes;
    return true;
}

bool GlobalMemory::holds(u64 address, u64 bytes) const {
    u64 start = 0, size = 0;
    return range_of(address, &start, &size) && bytes <= size - (address - start);
}

u64 GlobalMemory::first_uninitialised(u64 address, u64 bytes) const {
    const u8 *shadow = shadow_ + (address - GLOBAL_BASE);
    for (u64 i = 0; i < bytes; i++)
        if (!(shadow[i] & SHADOW_INITIALISED)) return i;
    return bytes;
}

void GlobalMemory::mark_initialised(u64 address, u64 bytes) {
    u8 *shadow = shadow_ + (address - GLOBAL_BASE);
    for (u64 i = 0; i < bytes; i++) shadow[i] |= SHADOW_INITIALISED;
}

void GlobalMemory::mark_read_only(u64 address, u64 bytes) {
    u8 *shadow = shadow_ + (address - GLOBAL_BASE);
    for (u64 i = 0; i < bytes; i++) shadow[i] |= SHADOW_READ_ONLY;
}

void GlobalMemory::explain(u32 lane, u64 address, u32 bytes, bool is_write) const {
    std::string what =
        std::string(is_write ? "writes " : "reads ") + std::to_string(bytes) + " bytes at " + hex(address);
    if (address % bytes != 0)
        throw Fault(FaultKind::MISALIGNED, lane, what + ", which is no multiple of " + std::to_string(bytes));
    auto found = find(address);
    if (!found || address >= GLOBAL_BASE + GLOBAL_SPAN)
        throw Fault(FaultKind::OUT_OF_BOUNDS, lane, what + ", where nothing was ever allocated");
    u64 at = address - found->first, size = found->second.bytes;
    std::string where = "an allocation of " + std::to_string(size) + " bytes at " + hex(found->first);
    if (at + bytes > size)
        throw Fault(FaultKind::OUT_OF_BOUNDS, lane,
                    what + ", " + std::to_string(at + bytes - size) + " bytes past the end of " + where);
    if (!found->second.live) throw Fault(FaultKind::USE_AFTER_FREE, lane, what + ", in " + where + " that was freed");
    if (is_write) throw Fault(FaultKind::READ_ONLY, lane, what + ", in constant memory");
    u64 byte = first_uninitialised(address, bytes);
    throw Fault(FaultKind::UNINITIALISED, lane,
                what + ": byte " + std::to_string(at + byte) + " of " + where + " was never written");
}

} // namespace emu
