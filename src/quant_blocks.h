/*
 * quant_blocks.h: the block formats of GGUF tensors, byte by byte, and one dequantiser for each.
 *
 * A block holds block_weights consecutive weights of a row (the quants) and what they are multiplied by (the scales).
 * Arithmetic: float32, each product and sum rounded (so compile with -ffp-contract=off), in the order of the `gguf`
 * Python package (gguf/quants.py), so a weight is the same bits on every path. The functions are branch-free and use
 * what the including file is compiled for (AVX2, F16C): this header is included again by files compiled for wider
 * instruction sets. Only static inline functions and constant tables live here.
 *
 * Each block format is spelled once, as split_<format>: it hands sixteen quants at a time, with their scale and offset,
 * to a sink. The dequantisers are these with a sink that multiplies; cpu_pack.c has one that keeps the quants.
 *
 * In the layouts, "d" is the scale, "m" the minimum (an offset), "q" a quant. Little-endian hosts only.
 */
#ifndef QUANT_BLOCKS_H
#define QUANT_BLOCKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSSE3__
#    include <immintrin.h>
#elif defined __ARM_NEON && defined __aarch64__
#    include <arm_neon.h>
#endif

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "blocks are read as they lie in the file");

#define QK   32  // weights of a small block
#define QK_K 256 // weights of a "K" block: 8 groups of 32 or 16 groups of 16, each with its own scale

/// A split format, inlined with its sink.
#define SPLIT  static inline __attribute__((always_inline)) void
#define PACKED __attribute__((packed)) // no padding, and no alignment asked of the file
/// Before a loop over the groups of a block: their shifts become constants (measured: up to twice as fast).
#define UNROLL _Pragma("GCC unroll 16")

// ----------------------------------------------------------------------------------------------------- layouts

typedef struct PACKED block_q4_0 { // offset, bytes
    uint16_t d;                    //   0  2  f16
    uint8_t qs[QK / 2];            //   2 16  weight j: low nibble of qs[j]; weight j + 16: high nibble
} block_q4_0;

typedef struct PACKED block_q4_1 {
    uint16_t d;         //   0  2  f16
    uint16_t m;         //   2  2  f16
    uint8_t qs[QK / 2]; //   4 16  as Q4_0
} block_q4_1;

typedef struct PACKED block_q5_0 {
    uint16_t d;         //   0  2  f16
    uint32_t qh;        //   2  4  bit j: fifth bit of weight j
    uint8_t qs[QK / 2]; //   6 16  as Q4_0
} block_q5_0;

typedef struct PACKED block_q5_1 {
    uint16_t d;         //   0  2  f16
    uint16_t m;         //   2  2  f16
    uint32_t qh;        //   4  4  as Q5_0
    uint8_t qs[QK / 2]; //   8 16  as Q4_0
} block_q5_1;

typedef struct PACKED block_q8_0 {
    uint16_t d;    //   0  2  f16
    int8_t qs[QK]; //   2 32
} block_q8_0;

typedef struct PACKED block_q2_K {
    uint8_t scales[QK_K / 16]; //   0 16  of 16 weights each: low nibble scale, high nibble minimum
    uint8_t qs[QK_K / 4];      //  16 64  weight 128 h + 32 s + l: bits 2s, 2s + 1 of qs[32 h + l]
    uint16_t d;                //  80  2  f16, times the scales
    uint16_t dmin;             //  82  2  f16, times the minima
} block_q2_K;

typedef struct PACKED block_q3_K {
    uint8_t hmask[QK_K / 8]; //   0 32  weight 32 b + l: bit b of hmask[l]; 0 takes 4 away
    uint8_t qs[QK_K / 4];    //  32 64  as Q2_K
    uint8_t scales[12];      //  96 12  16 x 6 bits: low nibbles of [0..7] are scales 0-7, high ones 8-15;
                             //         the top 2 bits of scale 4 k + i are bits 2k, 2k + 1 of [8 + i]
    uint16_t d;              // 108  2  f16
} block_q3_K;

typedef struct PACKED block_q4_K {
    uint16_t d;           //   0   2  f16, times the scales
    uint16_t dmin;        //   2   2  f16, times the minima
    uint8_t scales[12];   //   4  12  8 x (6-bit scale, 6-bit minimum), see k4_scale and k4_min
    uint8_t qs[QK_K / 2]; //  16 128  weight 64 c + l: low nibble of qs[32 c + l]; 64 c + 32 + l: high nibble
} block_q4_K;

typedef struct PACKED block_q5_K {
    uint16_t d;           //   0   2  f16
    uint16_t dmin;        //   2   2  f16
    uint8_t scales[12];   //   4  12  as Q4_K
    uint8_t qh[QK_K / 8]; //  16  32  weight 32 b + l: bit b of qh[l] is the fifth bit
    uint8_t qs[QK_K / 2]; //  48 128  as Q4_K
} block_q5_K;

typedef struct PACKED block_q6_K {
    uint8_t ql[QK_K / 2]; //   0 128  weight 128 h + 32 k + l: low (k < 2) or high nibble of ql[64 h + 32 (k % 2) + l]
    uint8_t qh[QK_K / 4]; // 128  64  its top 2 bits: bits 2k, 2k + 1 of qh[32 h + l]
    int8_t scales[QK_K / 16]; // 192  16  of 16 weights each
    uint16_t d;               // 208   2  f16
} block_q6_K;

typedef struct PACKED block_iq4_nl {
    uint16_t d;         //   0  2  f16
    uint8_t qs[QK / 2]; //   2 16  as Q4_0, but the nibble is an index of iq4_values
} block_iq4_nl;

typedef struct PACKED block_iq4_xs {
    uint16_t d;                  //   0   2  f16
    uint16_t scales_h;           //   2   2  bits 2g, 2g + 1: top bits of the scale of group g (32 weights)
    uint8_t scales_l[QK_K / 64]; //   4   4  nibble g: its low bits
    uint8_t qs[QK_K / 2];        //   8 128  a group's 16 bytes as IQ4_NL
} block_iq4_xs;

_Static_assert(sizeof(block_q4_0) == 18 && sizeof(block_q4_1) == 20, "Q4 layout");
_Static_assert(sizeof(block_q5_0) == 22 && sizeof(block_q5_1) == 24, "Q5 layout");
_Static_assert(sizeof(block_q8_0) == 34, "Q8 layout");
_Static_assert(sizeof(block_q2_K) == 84 && sizeof(block_q3_K) == 110, "Q2_K, Q3_K layout");
_Static_assert(sizeof(block_q4_K) == 144 && sizeof(block_q5_K) == 176, "Q4_K, Q5_K layout");
_Static_assert(sizeof(block_q6_K) == 210, "Q6_K layout");
_Static_assert(sizeof(block_iq4_nl) == 18 && sizeof(block_iq4_xs) == 136, "IQ4 layout");

// ------------------------------------------------------------------------------------------------ plain numbers

/// Exact for every half: a normal one has its exponent moved, a denormal one is read off a number whose exponent is
/// known. Infinities stay infinite and NaNs NaN. The choice is a mask, so that a loop over it vectorises.
static inline float half_to_float(uint16_t half) {
#ifdef __F16C__
    return _cvtsh_ss(half);
#else
    uint32_t magnitude = half & 0x7FFF, is_denormal = 0u - (uint32_t)(magnitude < 0x400);
    uint32_t normal_bits = (magnitude << 13) + (224u << 23); // exponent + 224: a half's 31 (infinity) becomes 255
    uint32_t denormal_bits = magnitude | 126u << 23;         // 0.5 + magnitude x 2^-24
    float normal, denormal, value;
    memcpy(&normal, &normal_bits, sizeof normal);
    memcpy(&denormal, &denormal_bits, sizeof denormal);
    normal *= 0x1p-112f;
    denormal -= 0.5f;
    memcpy(&normal_bits, &normal, sizeof normal);
    memcpy(&denormal_bits, &denormal, sizeof denormal);
    uint32_t bits = (denormal_bits & is_denormal) | (normal_bits & ~is_denormal) | (uint32_t)(half & 0x8000) << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

static inline void dequantize_f32(const void *restrict src, float *restrict dst, size_t n) {
    memcpy(dst, src, n * sizeof *dst);
}

static inline void dequantize_f16(const void *restrict src, float *restrict dst, size_t n) {
    const uint8_t *halves = src;
    size_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(halves + 2 * i))));
    }
#endif
    for (; i < n; i++) {
        uint16_t half;
        memcpy(&half, halves + 2 * i, sizeof half);
        dst[i] = half_to_float(half);
    }
}

/// A bf16 is the upper half of a float.
static inline void dequantize_bf16(const void *restrict src, float *restrict dst, size_t n) {
    const uint8_t *halves = src;
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, halves + 2 * i, sizeof half);
        uint32_t bits = (uint32_t)half << 16;
        memcpy(dst + i, &bits, sizeof bits);
    }
}

// --------------------------------------------------------------------------------------------- sixteen at a time

/// Sixteen quants. The vector extension of GCC and clang: + - & | << >> work on every element, on any machine. The
/// formats below unpack in it because neither compiler vectorises the nibble loops well (measured: 4 to 10 times
/// slower).
typedef uint8_t quants16 __attribute__((vector_size(16)));
typedef int8_t signed16 __attribute__((vector_size(16)));

static inline quants16 load16(const void *bytes) {
    quants16 q;
    memcpy(&q, bytes, sizeof q);
    return q;
}

/// Where a split format goes, sixteen quants at a time: weight at + j is scale * q[j] + offset.
typedef void quants_sink(void *out, size_t at, signed16 q, float scale, float offset);

/// The offset of formats that have none: adding -0 changes nothing, not even the sign of a zero.
#define NO_OFFSET (-0.0f)

/// The sink of the dequantisers. out: float *
static inline void scale_add16(void *out, size_t at, signed16 q, float scale, float offset) {
    float *dst = (float *)out + at;
#ifdef __AVX2__
    const __m128i low = (__m128i)q, high = _mm_unpackhi_epi64(low, low);
    const __m256 s = _mm256_set1_ps(scale), o = _mm256_set1_ps(offset);
    _mm256_storeu_ps(dst, _mm256_add_ps(_mm256_mul_ps(s, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low))), o));
    _mm256_storeu_ps(dst + 8, _mm256_add_ps(_mm256_mul_ps(s, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high))), o));
#else
    int8_t quants[16];
    memcpy(quants, &q, sizeof quants);
    for (int j = 0; j < 16; j++) dst[j] = scale * (float)quants[j] + offset;
#endif
}

/// Bit j of `bits` as 16 or 0 in element j: the fifth bit of sixteen quants.
static inline quants16 fifth_bits16(uint32_t bits) {
    const uint8_t a = (uint8_t)bits, b = (uint8_t)(bits >> 8);
    const quants16 spread = {a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b};
    const quants16 mask = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    return (quants16)((spread & mask) != 0) & 16;
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// What the indices 0 … 15 of the IQ4 formats stand for.
static inline signed16 iq4_lookup16(quants16 indices) {
#ifdef __SSSE3__
    return (signed16)_mm_shuffle_epi8((__m128i)load16(iq4_values), (__m128i)indices);
#elif defined __ARM_NEON && defined __aarch64__
    return (signed16)vqtbl1q_s8(vld1q_s8(iq4_values), (uint8x16_t)indices);
#else
    signed16 values = {0};
    for (int j = 0; j < 16; j++) values[j] = iq4_values[indices[j]];
    return values;
#endif
}

// ------------------------------------------------------------------------------------------ blocks of 32 weights

SPLIT split_q4_0(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_q4_0 *block = src;
    for (size_t at = 0; at < n; block++, at += QK) {
        float d = half_to_float(block->d);
        quants16 qs = load16(block->qs);
        sink(out, at, (signed16)(qs & 15) - 8, d, NO_OFFSET);
        sink(out, at + 16, (signed16)(qs >> 4) - 8, d, NO_OFFSET);
    }
}

SPLIT split_q4_1(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_q4_1 *block = src;
    for (size_t at = 0; at < n; block++, at += QK) {
        float d = half_to_float(block->d), m = half_to_float(block->m);
        quants16 qs = load16(block->qs);
        sink(out, at, (signed16)(qs & 15), d, m);
        sink(out, at + 16, (signed16)(qs >> 4), d, m);
    }
}

SPLIT split_q5_0(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_q5_0 *block = src;
    for (size_t at = 0; at < n; block++, at += QK) {
        float d = half_to_float(block->d);
        quants16 qs = load16(block->qs);
        sink(out, at, (signed16)((qs & 15) | fifth_bits16(block->qh)) - 16, d, NO_OFFSET);
        sink(out, at + 16, (signed16)(qs >> 4 | fifth_bits16(block->qh >> 16)) - 16, d, NO_OFFSET);
    }
}

SPLIT split_q5_1(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_q5_1 *block = src;
    for (size_t at = 0; at < n; block++, at += QK) {
        float d = half_to_float(block->d), m = half_to_float(block->m);
        quants16 qs = load16(block->qs);
        sink(out, at, (signed16)((qs & 15) | fifth_bits16(block->qh)), d, m);
        sink(out, at + 16, (signed16)(qs >> 4 | fifth_bits16(block->qh >> 16)), d, m);
    }
}

SPLIT split_q8_0(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_q8_0 *block = src;
    for (size_t at = 0; at < n; block++, at += QK) {
        float d = half_to_float(block->d);
        sink(out, at, (signed16)load16(block->qs), d, NO_OFFSET);
        sink(out, at + 16, (signed16)load16(block->qs + 16), d, NO_OFFSET);
    }
}

SPLIT split_iq4_nl(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_iq4_nl *block = src;
    for (size_t at = 0; at < n; block++, at += QK) {
        float d = half_to_float(block->d);
        quants16 qs = load16(block->qs);
        sink(out, at, iq4_lookup16(qs & 15), d, NO_OFFSET);
        sink(out, at + 16, iq4_lookup16(qs >> 4), d, NO_OFFSET);
    }
}

// ----------------------------------------------------------------------------------------- blocks of 256 weights

SPLIT split_q2_K(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_q2_K *block = src;
    for (size_t at = 0; at < n; block++, at += QK_K) {
        float d = half_to_float(block->d), dmin = half_to_float(block->dmin);
        UNROLL
        for (size_t group = 0; group < QK_K / 16; group++) {
            float scale = d * (float)(block->scales[group] & 15);
            float minimum = dmin * (float)(block->scales[group] >> 4);
            quants16 qs = load16(block->qs + group / 8 * 32 + group % 2 * 16);
            sink(out, at + group * 16, (signed16)(qs >> group / 2 % 4 * 2 & 3), scale, -minimum);
        }
    }
}

SPLIT split_q3_K(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_q3_K *block = src;
    for (size_t at = 0; at < n; block++, at += QK_K) {
        float d = half_to_float(block->d);
        UNROLL
        for (size_t group = 0; group < QK_K / 16; group++) {
            int low = block->scales[group % 8] >> group / 8 * 4 & 15;
            int high = block->scales[8 + group % 4] >> group / 4 * 2 & 3;
            quants16 qs = load16(block->qs + group / 8 * 32 + group % 2 * 16) >> group / 2 % 4 * 2 & 3;
            quants16 not_taken = (load16(block->hmask + group % 2 * 16) >> group / 2 & 1) << 2;
            sink(out, at + group * 16, (signed16)(qs | not_taken) - 4, d * (float)((low | high << 4) - 32), NO_OFFSET);
        }
    }
}

/// The 6-bit scale and minimum of group 0 … 7 in the 12 bytes of Q4_K and Q5_K: the first four groups in the low bits
/// of bytes 0-3 and 4-7; the last four in the nibbles of bytes 8-11, with their top two bits in those of bytes 0-7.
static inline int k4_scale(const uint8_t scales[12], size_t group) {
    return group < 4 ? scales[group] & 63 : (scales[group + 4] & 15) | scales[group - 4] >> 6 << 4;
}

static inline int k4_min(const uint8_t scales[12], size_t group) {
    return group < 4 ? scales[group + 4] & 63 : scales[group + 4] >> 4 | scales[group] >> 6 << 4;
}

SPLIT split_q4_K(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_q4_K *block = src;
    for (size_t at = 0; at < n; block++, at += QK_K) {
        float d = half_to_float(block->d), dmin = half_to_float(block->dmin);
        UNROLL
        for (size_t group = 0; group < QK_K / 32; group++) {
            float scale = d * (float)k4_scale(block->scales, group);
            float minimum = dmin * (float)k4_min(block->scales, group);
            for (size_t part = 0; part < 32; part += 16) {
                quants16 qs = load16(block->qs + group / 2 * 32 + part) >> group % 2 * 4 & 15;
                sink(out, at + group * 32 + part, (signed16)qs, scale, -minimum);
            }
        }
    }
}

SPLIT split_q5_K(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_q5_K *block = src;
    for (size_t at = 0; at < n; block++, at += QK_K) {
        float d = half_to_float(block->d), dmin = half_to_float(block->dmin);
        UNROLL
        for (size_t group = 0; group < QK_K / 32; group++) {
            float scale = d * (float)k4_scale(block->scales, group);
            float minimum = dmin * (float)k4_min(block->scales, group);
            for (size_t part = 0; part < 32; part += 16) {
                quants16 low = load16(block->qs + group / 2 * 32 + part) >> group % 2 * 4 & 15;
                quants16 high = load16(block->qh + part) >> group & 1;
                sink(out, at + group * 32 + part, (signed16)(low | high << 4), scale, -minimum);
            }
        }
    }
}

SPLIT split_q6_K(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_q6_K *block = src;
    for (size_t at = 0; at < n; block++, at += QK_K) {
        float d = half_to_float(block->d);
        UNROLL
        for (size_t group = 0; group < QK_K / 16; group++) {
            quants16 low = load16(block->ql + group / 8 * 64 + group % 4 * 16) >> group / 4 % 2 * 4 & 15;
            quants16 high = load16(block->qh + group / 8 * 32 + group % 2 * 16) >> group / 2 % 4 * 2 & 3;
            sink(out, at + group * 16, (signed16)(low | high << 4) - 32, d * (float)block->scales[group], NO_OFFSET);
        }
    }
}

SPLIT split_iq4_xs(const void *restrict src, size_t n, quants_sink *sink, void *out) {
    const block_iq4_xs *block = src;
    for (size_t at = 0; at < n; block++, at += QK_K) {
        float d = half_to_float(block->d);
        UNROLL
        for (size_t group = 0; group < QK_K / 32; group++) {
            int low = block->scales_l[group / 2] >> group % 2 * 4 & 15;
            int high = block->scales_h >> group * 2 & 3;
            float scale = d * (float)((low | high << 4) - 32);
            quants16 qs = load16(block->qs + group * 16);
            sink(out, at + group * 32, iq4_lookup16(qs & 15), scale, NO_OFFSET);
            sink(out, at + group * 32 + 16, iq4_lookup16(qs >> 4), scale, NO_OFFSET);
        }
    }
}

/// dst[n] = the weights: the split formats with the sink that multiplies.
#define DEQUANTIZE(format)                                                                                             \
    static inline void dequantize_##format(const void *restrict src, float *restrict dst, size_t n) {                  \
        split_##format(src, n, scale_add16, dst);                                                                      \
    }
DEQUANTIZE(q4_0)
DEQUANTIZE(q4_1)
DEQUANTIZE(q5_0)
DEQUANTIZE(q5_1)
DEQUANTIZE(q8_0)
DEQUANTIZE(iq4_nl)
DEQUANTIZE(q2_K)
DEQUANTIZE(q3_K)
DEQUANTIZE(q4_K)
DEQUANTIZE(q5_K)
DEQUANTIZE(q6_K)
DEQUANTIZE(iq4_xs)

/// The rows of quant_type (quant.h), for every file that compiles the functions above for its instruction set.
// clang-format off
#define QUANT_TABLE                                                \
    {0, "F32", 1, 4, dequantize_f32},                              \
    {1, "F16", 1, 2, dequantize_f16},                              \
    {30, "BF16", 1, 2, dequantize_bf16},                           \
    {2, "Q4_0", QK, sizeof(block_q4_0), dequantize_q4_0},          \
    {3, "Q4_1", QK, sizeof(block_q4_1), dequantize_q4_1},          \
    {6, "Q5_0", QK, sizeof(block_q5_0), dequantize_q5_0},          \
    {7, "Q5_1", QK, sizeof(block_q5_1), dequantize_q5_1},          \
    {8, "Q8_0", QK, sizeof(block_q8_0), dequantize_q8_0},          \
    {10, "Q2_K", QK_K, sizeof(block_q2_K), dequantize_q2_K},       \
    {11, "Q3_K", QK_K, sizeof(block_q3_K), dequantize_q3_K},       \
    {12, "Q4_K", QK_K, sizeof(block_q4_K), dequantize_q4_K},       \
    {13, "Q5_K", QK_K, sizeof(block_q5_K), dequantize_q5_K},       \
    {14, "Q6_K", QK_K, sizeof(block_q6_K), dequantize_q6_K},       \
    {20, "IQ4_NL", QK, sizeof(block_iq4_nl), dequantize_iq4_nl},   \
    {23, "IQ4_XS", QK_K, sizeof(block_iq4_xs), dequantize_iq4_xs},
// clang-format on

#undef PACKED
#undef SPLIT
#undef UNROLL

#endif
