// float16.c: see float16.h. Every case is computed and one selected, so that the loop has no branches.
#include "float16.h"
#include <string.h>

/// `yes` if condition is 1, `no` if it is 0; gcc vectorises masks where it does not vectorise ?:.
static inline int32_t choose(int32_t condition, int32_t yes, int32_t no) {
    return (yes & -condition) | (no & ~-condition);
}

static inline uint16_t half_bits(float value) {
    int32_t bits; // signed: that is how vectors compare on every machine
    memcpy(&bits, &value, sizeof bits);
    const int32_t sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
    // The exponent's bias is 15 instead of 127; 13 bits of the fraction go, rounded by adding almost half, and the
    // other bit where the last one kept is odd.
    const int32_t normal = (size - (112 << 23) + 0xFFF + (size >> 13 & 1)) >> 13;
    // Below 2^-14 a half counts in steps of 2^-24: so does a float32 between 0.5 and 1, where the addition rounds.
    float shifted;
    memcpy(&shifted, &size, sizeof shifted);
    shifted += 0.5f;
    int32_t small;
    memcpy(&small, &shifted, sizeof small);
    small -= 126 << 23; // the bits of 0.5
    int32_t half = choose(size < 113 << 23, small, normal);
    half = choose(size >= 0x477FF000, 0x7C00, half); // 65520
    half = choose(size > 0x7F800000, 0x7E00, half);
    return (uint16_t)(sign | half);
}

void float16_from(const float *in, size_t n, uint16_t *out) {
    for (size_t i = 0; i < n; i++) out[i] = half_bits(in[i]);
}
