/*
 * quant_blocks.h: the block formats of GGUF tensors, byte by byte, and one scalar dequantiser for each.
 *
 * A block holds block_weights consecutive weights of a row (the quants) and what they are multiplied by (the scales).
 * Arithmetic: float32, each product and sum rounded (so compile with -ffp-contract=off), in the order of the `gguf`
 * Python package (gguf/quants.py); the weights are the same bits on every path. The loops are branch-free, with
 * constant trip counts, so that a compiler vectorises them: this header is included again by files compiled for wider
 * instruction sets. Only static inline functions and constant tables live here.
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

#define PACKED __attribute__((packed)) // no padding, and no alignment asked of the file

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
/// known. Infinities stay infinite and NaNs NaN.
static inline float half_to_float(uint16_t half) {
#ifdef __F16C__
    return _cvtsh_ss(half);
#else
    uint32_t magnitude = (uint32_t)(half & 0x7FFF);
    uint32_t normal_bits = (magnitude << 13) + (224u << 23); // exponent + 224: a half's 31 (infinity) becomes 255
    uint32_t denormal_bits = magnitude | (126u << 23);       // 0.5 + magnitude x 2^-24
    float normal, denormal;
    memcpy(&normal, &normal_bits, sizeof normal);
    memcpy(&denormal, &denormal_bits, sizeof denormal);
    float value = half & 0x7C00 ? normal * 0x1p-112f : denormal - 0.5f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits |= (uint32_t)(half & 0x8000) << 16;
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

// ------------------------------------------------------------------------------------------ blocks of 32 weights

static inline void dequantize_q4_0(const void *restrict src, float *restrict dst, size_t n) {
    const block_q4_0 *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK) {
        float d = half_to_float(block->d);
        for (int j = 0; j < QK / 2; j++) {
            dst[j] = d * (float)((block->qs[j] & 15) - 8);
            dst[j + QK / 2] = d * (float)((block->qs[j] >> 4) - 8);
        }
    }
}

static inline void dequantize_q4_1(const void *restrict src, float *restrict dst, size_t n) {
    const block_q4_1 *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK) {
        float d = half_to_float(block->d), m = half_to_float(block->m);
        for (int j = 0; j < QK / 2; j++) {
            dst[j] = d * (float)(block->qs[j] & 15) + m;
            dst[j + QK / 2] = d * (float)(block->qs[j] >> 4) + m;
        }
    }
}

static inline void dequantize_q5_0(const void *restrict src, float *restrict dst, size_t n) {
    const block_q5_0 *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK) {
        float d = half_to_float(block->d);
        uint32_t qh = block->qh;
        for (int j = 0; j < QK / 2; j++) {
            int low = (block->qs[j] & 15) | (int)(qh >> j & 1) << 4;
            int high = (block->qs[j] >> 4) | (int)(qh >> (j + QK / 2) & 1) << 4;
            dst[j] = d * (float)(low - 16);
            dst[j + QK / 2] = d * (float)(high - 16);
        }
    }
}

static inline void dequantize_q5_1(const void *restrict src, float *restrict dst, size_t n) {
    const block_q5_1 *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK) {
        float d = half_to_float(block->d), m = half_to_float(block->m);
        uint32_t qh = block->qh;
        for (int j = 0; j < QK / 2; j++) {
            int low = (block->qs[j] & 15) | (int)(qh >> j & 1) << 4;
            int high = (block->qs[j] >> 4) | (int)(qh >> (j + QK / 2) & 1) << 4;
            dst[j] = d * (float)low + m;
            dst[j + QK / 2] = d * (float)high + m;
        }
    }
}

static inline void dequantize_q8_0(const void *restrict src, float *restrict dst, size_t n) {
    const block_q8_0 *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK) {
        float d = half_to_float(block->d);
        for (int j = 0; j < QK; j++) dst[j] = d * (float)block->qs[j];
    }
}

// ----------------------------------------------------------------------------------------- blocks of 256 weights

static inline void dequantize_q2_K(const void *restrict src, float *restrict dst, size_t n) {
    const block_q2_K *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK_K) {
        float d = half_to_float(block->d), dmin = half_to_float(block->dmin);
        for (int group = 0; group < QK_K / 16; group++) {
            float scale = d * (float)(block->scales[group] & 15);
            float minimum = dmin * (float)(block->scales[group] >> 4);
            const uint8_t *qs = block->qs + group / 8 * 32 + group % 2 * 16;
            int shift = group / 2 % 4 * 2;
            for (int l = 0; l < 16; l++) dst[group * 16 + l] = scale * (float)(qs[l] >> shift & 3) - minimum;
        }
    }
}

static inline void dequantize_q3_K(const void *restrict src, float *restrict dst, size_t n) {
    const block_q3_K *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK_K) {
        float d = half_to_float(block->d);
        for (int group = 0; group < QK_K / 16; group++) {
            int low = block->scales[group % 8] >> group / 8 * 4 & 15;
            int high = block->scales[8 + group % 4] >> group / 4 * 2 & 3;
            float scale = d * (float)((low | high << 4) - 32);
            const uint8_t *qs = block->qs + group / 8 * 32 + group % 2 * 16;
            const uint8_t *hmask = block->hmask + group % 2 * 16;
            int shift = group / 2 % 4 * 2, bit = group / 2;
            for (int l = 0; l < 16; l++) {
                int q = (qs[l] >> shift & 3) + (hmask[l] >> bit & 1) * 4 - 4;
                dst[group * 16 + l] = scale * (float)q;
            }
        }
    }
}

/// The 6-bit scale and minimum of group 0 … 7 in the 12 bytes of Q4_K and Q5_K: the first four groups in the low bits
/// of bytes 0-3 and 4-7; the last four in the nibbles of bytes 8-11, with their top two bits in those of bytes 0-7.
static inline int k4_scale(const uint8_t scales[12], int group) {
    return group < 4 ? scales[group] & 63 : (scales[group + 4] & 15) | scales[group - 4] >> 6 << 4;
}

static inline int k4_min(const uint8_t scales[12], int group) {
    return group < 4 ? scales[group + 4] & 63 : scales[group + 4] >> 4 | scales[group] >> 6 << 4;
}

static inline void dequantize_q4_K(const void *restrict src, float *restrict dst, size_t n) {
    const block_q4_K *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK_K) {
        float d = half_to_float(block->d), dmin = half_to_float(block->dmin);
        for (int group = 0; group < QK_K / 32; group++) {
            float scale = d * (float)k4_scale(block->scales, group);
            float minimum = dmin * (float)k4_min(block->scales, group);
            const uint8_t *qs = block->qs + group / 2 * 32;
            int shift = group % 2 * 4;
            for (int l = 0; l < 32; l++) dst[group * 32 + l] = scale * (float)(qs[l] >> shift & 15) - minimum;
        }
    }
}

static inline void dequantize_q5_K(const void *restrict src, float *restrict dst, size_t n) {
    const block_q5_K *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK_K) {
        float d = half_to_float(block->d), dmin = half_to_float(block->dmin);
        for (int group = 0; group < QK_K / 32; group++) {
            float scale = d * (float)k4_scale(block->scales, group);
            float minimum = dmin * (float)k4_min(block->scales, group);
            const uint8_t *qs = block->qs + group / 2 * 32;
            int shift = group % 2 * 4;
            for (int l = 0; l < 32; l++) {
                int q = (qs[l] >> shift & 15) | (block->qh[l] >> group & 1) << 4;
                dst[group * 32 + l] = scale * (float)q - minimum;
            }
        }
    }
}

static inline void dequantize_q6_K(const void *restrict src, float *restrict dst, size_t n) {
    const block_q6_K *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK_K) {
        float d = half_to_float(block->d);
        for (int group = 0; group < QK_K / 16; group++) {
            float scale = d * (float)block->scales[group];
            const uint8_t *ql = block->ql + group / 8 * 64 + group % 4 * 16;
            const uint8_t *qh = block->qh + group / 8 * 32 + group % 2 * 16;
            int low_shift = group / 4 % 2 * 4, high_shift = group / 2 % 4 * 2;
            for (int l = 0; l < 16; l++) {
                int q = (ql[l] >> low_shift & 15) | (qh[l] >> high_shift & 3) << 4;
                dst[group * 16 + l] = scale * (float)(q - 32);
            }
        }
    }
}

// ------------------------------------------------------------------------------------- blocks that index a table

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// values[j] and values[j + 16] = what the low and the high nibble of qs[j] stand for. A byte shuffle looks sixteen up
/// at once, which compilers do not find by themselves.
static inline void iq4_lookup(const uint8_t qs[16], int8_t values[32]) {
#ifdef __SSSE3__
    const __m128i table = _mm_loadu_si128((const __m128i *)(const void *)iq4_values);
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)qs), low = _mm_set1_epi8(15);
    _mm_storeu_si128((__m128i *)(void *)values, _mm_shuffle_epi8(table, _mm_and_si128(bytes, low)));
    _mm_storeu_si128((__m128i *)(void *)(values + 16),
                     _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(bytes, 4), low)));
#elif defined __ARM_NEON && defined __aarch64__
    const int8x16_t table = vld1q_s8(iq4_values);
    const uint8x16_t bytes = vld1q_u8(qs);
    vst1q_s8(values, vqtbl1q_s8(table, vandq_u8(bytes, vdupq_n_u8(15))));
    vst1q_s8(values + 16, vqtbl1q_s8(table, vshrq_n_u8(bytes, 4)));
#else
    for (int j = 0; j < 16; j++) {
        values[j] = iq4_values[qs[j] & 15];
        values[j + 16] = iq4_values[qs[j] >> 4];
    }
#endif
}

static inline void dequantize_iq4_nl(const void *restrict src, float *restrict dst, size_t n) {
    const block_iq4_nl *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK) {
        float d = half_to_float(block->d);
        int8_t values[QK];
        iq4_lookup(block->qs, values);
        for (int j = 0; j < QK; j++) dst[j] = d * (float)values[j];
    }
}

static inline void dequantize_iq4_xs(const void *restrict src, float *restrict dst, size_t n) {
    const block_iq4_xs *block = src;
    for (const float *end = dst + n; dst < end; block++, dst += QK_K) {
        float d = half_to_float(block->d);
        for (int group = 0; group < QK_K / QK; group++) {
            int low = block->scales_l[group / 2] >> group % 2 * 4 & 15;
            int high = block->scales_h >> group * 2 & 3;
            float scale = d * (float)((low | high << 4) - 32);
            int8_t values[QK];
            iq4_lookup(block->qs + group * 16, values);
            for (int j = 0; j < QK; j++) dst[group * QK + j] = scale * (float)values[j];
        }
    }
}

#undef PACKED

#endif
