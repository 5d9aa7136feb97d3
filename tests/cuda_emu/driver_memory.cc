// Memory: allocations of the device and of the host, copies, fills.

#include <cstdlib>

#include "driver.h"

using namespace emu;

namespace {

// A host range that stays where it is until the copy is done; others are copied aside, as real drivers do.
using Bytes = std::vector<u8>;

Result copy_in(Driver &driver, u64 to, const void *from, size_t bytes) {
    if (!driver.memory->holds(to, bytes)) return (Result)700;
    memcpy(driver.memory->bytes_at(to), from, bytes);
    driver.memory->mark_initialised(to, bytes);
    return SUCCESS;
}

Result copy_out(Driver &driver, void *to, u64 from, size_t bytes) {
    if (!driver.memory->holds(from, bytes)) return (Result)700;
    memcpy(to, driver.memory->bytes_at(from), bytes);
    return SUCCESS;
}

Result copy_across(Driver &driver, u64 to, u64 from, size_t bytes) {
    if (!driver.memory->holds(from, bytes) || !driver.memory->holds(to, bytes)) return (Result)700;
    memmove(driver.memory->bytes_at(to), driver.memory->bytes_at(from), bytes);
    u8 *shadow = driver.memory->shadow();
    memmove(shadow + (to - GLOBAL_BASE), shadow + (from - GLOBAL_BASE), bytes); // what was not initialised stays so
    return SUCCESS;
}

template <class T> Result fill(Driver &driver, u64 to, T value, size_t n) {
    if (!driver.memory->holds(to, n * sizeof(T))) return (Result)700;
    auto *at = (T *)driver.memory->bytes_at(to);
    for (size_t i = 0; i < n; i++) at[i] = value;
    driver.memory->mark_initialised(to, n * sizeof(T));
    return SUCCESS;
}

// Queues work on a stream and, unless it may stay there, waits for it.
int submit(Driver &driver, Stream *stream, bool wait, std::function<Result()> run) {
    if (!stream) return INVALID_HANDLE;
    if (wait && stream->capture) return STREAM_CAPTURE_UNSUPPORTED;
    driver.enqueue(*stream, std::move(run));
    return wait ? driver.drain([&] { return driver.is_idle(*stream); }) : SUCCESS;
}

int submit_in(Driver &driver, Stream *stream, bool wait, u64 to, const void *from, size_t bytes) {
    if (!driver.memory->holds(to, bytes)) return bytes ? INVALID_VALUE : SUCCESS;
    if (driver.is_pinned((u64)from, bytes) || wait || (stream && stream->capture))
        return submit(driver, stream, wait, [&driver, to, from, bytes] { return copy_in(driver, to, from, bytes); });
    auto aside = std::make_shared<Bytes>((const u8 *)from, (const u8 *)from + bytes);
    return submit(driver, stream, false,
                  [&driver, to, aside] { return copy_in(driver, to, aside->data(), aside->size()); });
}

int submit_out(Driver &driver, Stream *stream, bool wait, void *to, u64 from, size_t bytes) {
    if (!driver.memory->holds(from, bytes)) return bytes ? INVALID_VALUE : SUCCESS;
    bool must_wait = wait || (!driver.is_pinned((u64)to, bytes) &&
                              !(stream && stream->capture)); // pageable memory makes the host wait
    return submit(driver, stream, must_wait, [&driver, to, from, bytes] { return copy_out(driver, to, from, bytes); });
}

int submit_across(Driver &driver, Stream *stream, u64 to, u64 from, size_t bytes) {
    if (!bytes) return SUCCESS;
    if (!driver.memory->holds(from, bytes) || !driver.memory->holds(to, bytes)) return INVALID_VALUE;
    return submit(driver, stream, false, [&driver, to, from, bytes] { return copy_across(driver, to, from, bytes); });
}

template <class T> int submit_fill(Driver &driver, Stream *stream, u64 to, T value, size_t n) {
    if (!n) return SUCCESS;
    if (to % sizeof(T) || !driver.memory->holds(to, n * sizeof(T))) return INVALID_VALUE;
    return submit(driver, stream, false, [&driver, to, value, n] { return fill(driver, to, value, n); });
}

} // namespace

// ---- the device's

EMU_API int cuMemAlloc_v2(u64 *address, size_t bytes) {
    EMU_ENTER();
    if (!bytes) return INVALID_VALUE;
    *address = driver.memory->alloc(bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

EMU_API int cuMemFree_v2(u64 address) {
    EMU_ENTER();
    if (!address) return SUCCESS;
    if (Result error = driver.drain_all()) return error; // freeing waits for the device
    return driver.memory->free(address) ? SUCCESS : INVALID_VALUE;
}

// Freed once the stream comes to it.
EMU_API int cuMemAllocAsync(u64 *address, size_t bytes, void *stream) {
    EMU_ENTER();
    return driver.stream(stream) ? cuMemAlloc_v2(address, bytes) : INVALID_HANDLE;
}

EMU_API int cuMemFreeAsync(u64 address, void *stream) {
    EMU_ENTER();
    return submit(driver, driver.stream(stream), false,
                  [&driver, address] { return driver.memory->free(address) ? SUCCESS : INVALID_VALUE; });
}

EMU_API int cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
    EMU_ENTER();
    *total_bytes = driver.memory->capacity_bytes;
    *free_bytes = *total_bytes - driver.memory->used_bytes();
    return SUCCESS;
}

EMU_API int cuMemGetAddressRange_v2(u64 *base, size_t *bytes, u64 address) {
    EMU_ENTER();
    u64 start = 0, size = 0;
    if (!driver.memory->range_of(address, &start, &size)) return NOT_FOUND;
    if (base) *base = start;
    if (bytes) *bytes = size;
    return SUCCESS;
}

// ---- the host's

EMU_API int cuMemHostAlloc(void **out, size_t bytes, unsigned) {
    EMU_ENTER();
    if (!bytes) return INVALID_VALUE;
    *out = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!*out) return OUT_OF_MEMORY;
    driver.pinned[(u64)*out] = bytes;
    return SUCCESS;
}

EMU_API int cuMemAllocHost_v2(void **out, size_t bytes) {
    return cuMemHostAlloc(out, bytes, 0);
}

EMU_API int cuMemFreeHost(void *address) {
    EMU_ENTER();
    if (driver.registered.count((u64)address) || !driver.pinned.count((u64)address)) return INVALID_VALUE;
    if (Result error = driver.drain_all()) return error;
    driver.pinned.erase((u64)address);
    free(address);
    return SUCCESS;
}

EMU_API int cuMemHostRegister_v2(void *address, size_t bytes, unsigned) {
    EMU_ENTER();
    if (!address || !bytes) return INVALID_VALUE;
    if (driver.is_pinned((u64)address, 1)) return HOST_MEMORY_ALREADY_REGISTERED;
    driver.pinned[(u64)address] = bytes;
    driver.registered.insert((u64)address);
    return SUCCESS;
}

EMU_API int cuMemHostUnregister(void *address) {
    EMU_ENTER();
    if (!driver.registered.count((u64)address)) return INVALID_VALUE;
    if (Result error = driver.drain_all()) return error;
    driver.registered.erase((u64)address);
    driver.pinned.erase((u64)address);
    return SUCCESS;
}

EMU_API int cuMemHostGetDevicePointer_v2(u64 *device, void *host, unsigned) {
    EMU_ENTER();
    if (!driver.is_pinned((u64)host, 1)) return INVALID_VALUE;
    *device = (u64)host;
    return SUCCESS;
}

// ---- copies and fills

EMU_API int cuMemcpyHtoD_v2(u64 to, const void *from, size_t bytes) {
    EMU_ENTER();
    return submit_in(driver, &driver.default_stream, true, to, from, bytes);
}

EMU_API int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t bytes, void *stream) {
    EMU_ENTER();
    return submit_in(driver, driver.stream(stream), false, to, from, bytes);
}

EMU_API int cuMemcpyDtoH_v2(void *to, u64 from, size_t bytes) {
    EMU_ENTER();
    return submit_out(driver, &driver.default_stream, true, to, from, bytes);
}

EMU_API int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t bytes, void *stream) {
    EMU_ENTER();
    return submit_out(driver, driver.stream(stream), false, to, from, bytes);
}

EMU_API int cuMemcpyDtoD_v2(u64 to, u64 from, size_t bytes) {
    EMU_ENTER();
    return submit_across(driver, &driver.default_stream, to, from, bytes);
}

EMU_API int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void *stream) {
    EMU_ENTER();
    return submit_across(driver, driver.stream(stream), to, from, bytes);
}

#define EMU_MEMSET(name, type)                                                                                         \
    EMU_API int cuMemset##name##_v2(u64 to, type value, size_t n) {                                                    \
        EMU_ENTER();                                                                                                   \
        return submit_fill(driver, &driver.default_stream, to, value, n);                                              \
    }                                                                                                                  \
    EMU_API int cuMemset##name##Async(u64 to, type value, size_t n, void *stream) {                                    \
        EMU_ENTER();                                                                                                   \
        return submit_fill(driver, driver.stream(stream), to, value, n);                                               \
    }

EMU_MEMSET(D8, u8)
EMU_MEMSET(D16, u16)
EMU_MEMSET(D32, u32)

// Unified copies: each side is the device's or the host's by its address.
EMU_API int cuMemcpyAsync(u64 to, u64 from, size_t bytes, void *stream) {
    EMU_ENTER();
    bool to_device = to - GLOBAL_BASE < GLOBAL_SPAN, from_device = from - GLOBAL_BASE < GLOBAL_SPAN;
    if (to_device && from_device) return submit_across(driver, driver.stream(stream), to, from, bytes);
    if (to_device) return submit_in(driver, driver.stream(stream), false, to, (const void *)from, bytes);
    if (from_device) return submit_out(driver, driver.stream(stream), false, (void *)to, from, bytes);
    return INVALID_VALUE;
}

EMU_API int cuMemcpy(u64 to, u64 from, size_t bytes) {
    EMU_ENTER();
    int result = cuMemcpyAsync(to, from, bytes, nullptr);
    return result ? result : (int)driver.drain([&] { return driver.is_idle(driver.default_stream); });
}
