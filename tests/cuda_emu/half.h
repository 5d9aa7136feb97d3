// The 16-bit floating-point types: exact to float, and rounded from float.
#pragma once

#include <cmath>

#include "types.h"

namespace emu {

struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};

constexpr u16 HALF_NAN = 0x7fff; // what a NaN result is, for both

inline float to_float(bf16 value) {
    return bits_as<float>((u32)value.bits << 16);
}

inline float to_float(f16 value) {
    u32 sign = (u32)(value.bits & 0x8000) << 16, exponent = value.bits >> 10 & 0x1f, fraction = value.bits & 0x3ff;
    float subnormal = (float)fraction * 0x1p-24F;
    u32 normal = exponent == 31 ? 0x7f800000 | fraction << 13 : (exponent + 112) << 23 | fraction << 13;
    return bits_as<float>(sign | (exponent == 0 ? bits_as<u32>(subnormal) : normal));
}

// Round to nearest, ties to even.
inline bf16 round_bf16(float value) {
    u32 bits = bits_as<u32>(value);
    u32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return {(u16)((bits & 0x7fffffff) > 0x7f800000 ? HALF_NAN : rounded)};
}

inline f16 round_f16(float value) {
    u32 bits = bits_as<u32>(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    // Adding this power of two leaves a subnormal's units in the low bits, rounded as the addition rounds.
    u32 subnormal = bits_as<u32>(bits_as<float>(magnitude) + 0.5F) - bits_as<u32>(0.5F);
    u32 normal = (magnitude - (112U << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    u32 result = magnitude > 0x7f800000    ? HALF_NAN
                 : magnitude >= 0x47800000 ? 0x7c00
                 : magnitude < 0x38800000  ? subnormal
                                           : normal;
    return {(u16)(magnitude > 0x7f800000 ? HALF_NAN : sign | result)};
}

// Towards zero: finite stays finite.
inline bf16 truncate_bf16(float value) {
    u32 bits = bits_as<u32>(value);
    return {(u16)((bits & 0x7fffffff) > 0x7f800000 ? HALF_NAN : bits >> 16)};
}

inline f16 truncate_f16(float value) {
    f16 nearest = round_f16(value);
    bool too_large = std::fabs(to_float(nearest)) > std::fabs(value);
    return {(u16)(too_large ? nearest.bits - 1 : nearest.bits)};
}

} // namespace emu
