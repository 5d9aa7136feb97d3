// Short names of the fixed-width types, and reading one type's bits as another's.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace emu {

using i8 = int8_t;
using i16 = int16_t;
using i32 = int32_t;
using i64 = int64_t;
using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;

constexpr u32 LANES = 32;      // threads of a warp
constexpr u32 ALL_LANES = ~0U; // the mask of a whole warp

template <class To, class From> inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// PTX that cannot be loaded: what is wrong, and in which line of the PTX text (1 is the first; 0: no line).
struct LoadError : std::runtime_error {
    LoadError(u32 at_line, const std::string &message) : std::runtime_error(message), line(at_line) {}
    u32 line;
};

} // namespace emu
