/*
 * cpu_kernels_limbs.h: products of f32 activations with quantised weights as exact integer sums, on AVX-512 VNNI.
 * Included by cpu_kernels_simd.h (CPU_LANES is 16).
 *
 * A chain of CPU_CHAIN activations of a row is written as v * scale with whole numbers v of 24 bits (16 in the fast
 * product), and v as signed digits to the base 256, the limbs: v = top * 2^16 + mid * 2^8 + low, or top * 2^8 + low.
 * Weights are quants u of at most 8 bits, unsigned as vpdpbusd wants one side to be. A block's sum of u * v is then one
 * vpdpbusd sum for each limb, without rounding, put together in one int32 as
 *
 *   (sum u*top << 8) + sum u*mid + (sum u*low >> 8, rounded)         (fast: (sum u*top << 8) + sum u*low)
 *
 * which leaves 2^28 at most: one conversion and one multiply-add with the block's weight scale finish it. Stored
 * quants of signed formats are q + 128 (in the top bits of a byte), so 128 * the sum of the limbs is taken off at the
 * start of a sum. Offsets of formats that have them are multiplied with the block's sum of v.
 *
 * Three passes of int8 at four times the rate of f32 beat one pass of f32 multiply-adds in speed, and in accuracy:
 * the only roundings are v itself (2^-24 of the chain's largest), the low limbs' and the f32 sums over blocks.
 *
 * The accumulators of LIMB_COLS columns x 32 rows x 2 take 16 registers. Integer sums have no order, so that the
 * single-row product, whose lanes are columns, has the same bits.
 */
#include <immintrin.h>

#define LIMB_COLS   4
#define EXACT_LIMBS 3
#define FAST_LIMBS  2

/// The prepared activations of one tile of bm rows. `limbs` of a tile: [n_in / 4][n_limbs][bm] words of four digits,
/// top limb first, then low, then mid; of a single row: [n_limbs][n_in] bytes.
typedef struct limb_acts {
    float *scale;     // [n_chains][bm]
    int32_t *sums[2]; // by blocks of 32, of 16: [n_blocks][3][bm]: where the sums with top and low start for q + 128
                      // weights, and the sum of v as f32 bits in units of the finished int32
    int8_t *limbs;
} limb_acts;

static inline limb_acts view_acts(void *memory, int n_in, int bm) {
    const int n_chains = (n_in + CPU_CHAIN - 1) / CPU_CHAIN, n_blocks = n_in / PACK_BLOCK;
    limb_acts acts = {.scale = memory};
    acts.sums[0] = (int32_t *)memory + n_chains * bm;
    acts.sums[1] = acts.sums[0] + n_blocks * 3 * bm;
    // Limbs of a tile are read as aligned vectors; a single row's bytes need no alignment.
    acts.limbs = (int8_t *)(acts.sums[1] + 2 * n_blocks * 3 * bm);
    return acts;
}

static inline size_t limb_acts_bytes(int n_in, int bm, int n_limbs) {
    const limb_acts acts = view_acts(NULL, n_in, bm);
    return (size_t)(uintptr_t)acts.limbs + (size_t)n_in * (size_t)n_limbs * (size_t)bm;
}

/// Where a block's sums start: [top, low] for weights stored as q + 128, given the sums of the block's limbs.
static inline __m512i start_top(__m512i top) {
    return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(top, 7));
}
static inline __m512i start_low(int n_limbs, __m512i low, __m512i mid) {
    if (n_limbs == FAST_LIMBS) return start_top(low);
    // mid has no start of its own: its 128 * sum goes through the shift by 8 unharmed. 128 rounds that shift.
    return _mm512_add_epi32(_mm512_set1_epi32(128), start_top(_mm512_add_epi32(low, _mm512_slli_epi32(mid, 8))));
}
/// The sum of v in units of the finished int32.
static inline __m512 total_of(int n_limbs, __m512i top, __m512i low, __m512i mid) {
    if (n_limbs == FAST_LIMBS) return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(top, 8), low));
    const __m512i v = _mm512_add_epi32(_mm512_slli_epi32(top, 16), _mm512_add_epi32(_mm512_slli_epi32(mid, 8), low));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(v), _mm512_set1_ps(0x1p-8f));
}

/// Largest v: its top digit stays below 128 after the lower ones are rounded off.
static inline float largest_v(int n_limbs) {
    return n_limbs == FAST_LIMBS ? 127.0f * 0x1p8f : 127.0f * 0x1p16f;
}
/// Digits of v + this, exclusive-or this, are the signed limbs in bytes 0 (lowest), 1 and 2.
static inline __m512i digit_bias(int n_limbs) {
    return _mm512_set1_epi32(n_limbs == FAST_LIMBS ? 0x8080 : 0x808080);
}

/// 1 / scale from the chain's largest magnitude; *scale: NaN when any x was not finite (then poison is NaN, else 0).
/// Below 1e-30 everything counts as zero, which keeps the quotient finite.
static inline __m512 chain_scale(int n_limbs, __m512 largest, __m512 poison, __m512 *scale) {
    const __m512 top = _mm512_set1_ps(largest_v(n_limbs));
    const __mmask16 some = _mm512_cmp_ps_mask(largest, _mm512_set1_ps(1e-30f), _CMP_GE_OQ);
    *scale = _mm512_add_ps(_mm512_maskz_div_ps(some, largest, top), poison);
    return _mm512_maskz_div_ps(some, top, largest);
}

// -------------------------------------------------------------------------------------------- tiles of 32 rows

/// Words of digit `digit` of four consecutive k: byte j of a lane comes from v[j].
static inline __m512i gather_digits(const __m512i v[4], int digit) {
    __m512i words = _mm512_setzero_si512();
    const __m512i lane = _mm512_set1_epi32(0x01010101 * digit);
    const __m512i base = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
        words = _mm512_mask_shuffle_epi8(words, 0x1111111111111111ull << j, v[j], _mm512_add_epi8(base, lane));
    return words;
}

/// One chain of one half (16 rows) of a tile. x: [n][BM]; k: its first row of the whole tile.
static inline __attribute__((always_inline)) void prepare_chain(int n_limbs, const float *x, int n, int k, int half,
                                                                limb_acts acts) {
    const int digits[3] = {n_limbs - 1, 0, 1}; // in the order of the layout: top, low, mid
    __m512 largest = _mm512_setzero_ps(), poison = _mm512_setzero_ps(), scale;
    for (int i = 0; i < n; i++) {
        const __m512 xi = _mm512_load_ps(x + i * BM);
        largest = _mm512_max_ps(largest, _mm512_abs_ps(xi));
        poison = _mm512_fmadd_ps(xi, _mm512_setzero_ps(), poison);
    }
    const __m512 inverse = chain_scale(n_limbs, largest, poison, &scale);
    _mm512_store_ps(acts.scale + k / CPU_CHAIN * BM + half, scale);
    const __m512i bias = digit_bias(n_limbs), ones = _mm512_set1_epi8(1);
    const __m512i zero = _mm512_setzero_si512();
    __m512i sums[2][3] = {{zero, zero, zero}, {zero, zero, zero}}; // of the limbs of this block of 32, of 16
    for (int i = 0; i < n; i += 4) {
        __m512i v[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            v[j] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(x + (i + j) * BM), inverse));
            v[j] = _mm512_xor_si512(_mm512_add_epi32(v[j], bias), bias);
        }
        for (int l = 0; l < n_limbs; l++) {
            const __m512i words = gather_digits(v, digits[l]);
            _mm512_store_si512(acts.limbs + ((ptrdiff_t)((k + i) / 4 * n_limbs + l) * BM + half) * 4, words);
            sums[0][l] = _mm512_dpbusd_epi32(sums[0][l], ones, words);
            sums[1][l] = _mm512_dpbusd_epi32(sums[1][l], ones, words);
        }
        for (int level = 0; level < 2; level++) {
            const int weights = level ? 16 : 32;
            if ((i + 4) % weights != 0) continue;
            __m512i *s = sums[level];
            int32_t *out = acts.sums[level] + (ptrdiff_t)((k + i) / weights) * 3 * BM + half;
            _mm512_store_si512(out, start_top(s[0]));
            _mm512_store_si512(out + BM, start_low(n_limbs, s[1], s[2]));
            _mm512_store_ps(out + 2 * BM, total_of(n_limbs, s[0], s[1], s[2]));
            s[0] = s[1] = s[2] = zero;
        }
    }
}

static inline __attribute__((always_inline)) void limbs_prepare(int n_limbs, const float *x, int n_in, void *memory) {
    const limb_acts acts = view_acts(memory, n_in, BM);
    for (int k = 0; k < n_in; k += CPU_CHAIN)
        for (int half = 0; half < BM; half += CPU_LANES)
            prepare_chain(n_limbs, x + (ptrdiff_t)k * BM + half, MIN(CPU_CHAIN, n_in - k), k, half, acts);
}

/// An unpacked group: f32 scales and offsets [n_in / scale_weights][PACK_COLS], and unless the packed quants are bytes
/// already, the quants [n_in / 4][PACK_COLS] words.
typedef struct limb_panel {
    float *scales, *offsets;
    uint8_t *quants;
    ptrdiff_t block_bytes; // from one block's quants to the next
} limb_panel;

static inline limb_panel view_panel(const cpu_matrix *w, int group, const void *memory) {
    const ptrdiff_t n_scales = (ptrdiff_t)w->n_in / w->format->scale_weights * PACK_COLS;
    limb_panel p = {.scales = (float *)memory};
    p.offsets = p.scales + n_scales;
    if (w->format->bits == 8) {
        p.quants = (uint8_t *)pack_block(w, group, 0);
        p.block_bytes = (ptrdiff_t)w->block_bytes;
    } else {
        p.quants = (uint8_t *)(p.offsets + n_scales);
        p.block_bytes = PACK_COLS * PACK_BLOCK;
    }
    return p;
}

static size_t limbs_panel_bytes(const cpu_matrix *w) {
    const size_t scales = (size_t)(w->n_in / w->format->scale_weights) * PACK_COLS * sizeof(float);
    return 2 * scales + (size_t)w->n_in * PACK_COLS;
}

static inline __attribute__((always_inline)) void unpack_quants(const uint8_t *block, int bits, uint8_t *out) {
    for (int s = 0; s < PACK_STEPS; s++)
#pragma GCC unroll 3
        for (int c = 0; c < PACK_COLS; c += CPU_LANES)
            *(vi *)(void *)(out + (ptrdiff_t)sizeof(int32_t) * (s * PACK_COLS + c)) = load_quants(block, bits, s, c);
}

static void limbs_unpack(const cpu_matrix *w, int group, void *memory) {
    const limb_panel panel = view_panel(w, group, memory);
    const pack_format *f = w->format;
    for (int b = 0; b < w->n_in / PACK_BLOCK; b++) {
        const uint8_t *block = pack_block(w, group, b);
        unpack_scales(f, block, b, panel.scales, panel.offsets);
        uint8_t *quants = panel.quants + b * panel.block_bytes;
        if (f->bits == 4) unpack_quants(block, 4, quants);
        if (f->bits == 5) unpack_quants(block, 5, quants);
        if (f->bits == 6) unpack_quants(block, 6, quants);
    }
}

static inline __m512i broadcast_word(const void *at) {
    int32_t word;
    memcpy(&word, at, sizeof word);
    return _mm512_set1_epi32(word);
}

/// Finished int32 sums of one block (`steps` k-steps): sums[c][half].
static inline __attribute__((always_inline)) void limbs_block(int n_limbs, int n_cols, int steps, const int8_t *limbs,
                                                              const uint8_t *quants, const int32_t *starts,
                                                              bool is_signed, __m512i sums[][2]) {
    __m512i top[LIMB_COLS][2], low[LIMB_COLS][2];
    const int step_bytes = n_limbs * BM * 4;
#pragma GCC unroll 4
    for (int c = 0; c < n_cols; c++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            top[c][h] = is_signed ? _mm512_load_si512(starts + h * 16) : _mm512_setzero_si512();
            low[c][h] = is_signed ? _mm512_load_si512(starts + BM + h * 16)
                                  : _mm512_set1_epi32(n_limbs == FAST_LIMBS ? 0 : 128);
        }
#pragma GCC unroll 8
    for (int s = 0; s < steps; s++) {
        const int8_t *a = limbs + s * step_bytes;
        const __m512i t0 = _mm512_load_si512(a), t1 = _mm512_load_si512(a + 64);
        const __m512i l0 = _mm512_load_si512(a + 128), l1 = _mm512_load_si512(a + 192);
#pragma GCC unroll 4
        for (int c = 0; c < n_cols; c++) {
            const __m512i u = broadcast_word(quants + (s * PACK_COLS + c) * 4);
            top[c][0] = _mm512_dpbusd_epi32(top[c][0], u, t0);
            top[c][1] = _mm512_dpbusd_epi32(top[c][1], u, t1);
            low[c][0] = _mm512_dpbusd_epi32(low[c][0], u, l0);
            low[c][1] = _mm512_dpbusd_epi32(low[c][1], u, l1);
        }
        __asm__ volatile("" ::: "memory"); // gcc would hoist later loads and spill the accumulators
    }
#pragma GCC unroll 4
    for (int c = 0; c < n_cols; c++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            if (n_limbs != FAST_LIMBS) low[c][h] = _mm512_srai_epi32(low[c][h], 8);
            sums[c][h] = _mm512_add_epi32(_mm512_slli_epi32(top[c][h], 8), low[c][h]);
        }
    if (n_limbs == FAST_LIMBS) return;
#pragma GCC unroll 8
    for (int s = 0; s < steps; s++) {
        const int8_t *a = limbs + s * step_bytes + 256;
        const __m512i m0 = _mm512_load_si512(a), m1 = _mm512_load_si512(a + 64);
#pragma GCC unroll 4
        for (int c = 0; c < n_cols; c++) {
            const __m512i u = broadcast_word(quants + (s * PACK_COLS + c) * 4);
            sums[c][0] = _mm512_dpbusd_epi32(sums[c][0], u, m0);
            sums[c][1] = _mm512_dpbusd_epi32(sums[c][1], u, m1);
        }
        __asm__ volatile("" ::: "memory");
    }
}

/// A chain's f32 sums of n_cols columns join `out`.
static inline __attribute__((always_inline)) void limbs_chain(int n_limbs, int n_cols, int steps, const cpu_matrix *w,
                                                              const limb_panel *panel, const limb_acts *acts, int k,
                                                              int n, int c0, float *out) {
    _Alignas(64) float acc[LIMB_COLS][2][16];
#pragma GCC unroll 4
    for (int c = 0; c < n_cols; c++) {
        _mm512_store_ps(acc[c][0], _mm512_setzero_ps());
        _mm512_store_ps(acc[c][1], _mm512_setzero_ps());
    }
    const int scale_weights = steps * 4;
    const int32_t *starts = acts->sums[steps == PACK_STEPS ? 0 : 1];
    const __m512 unit = _mm512_set1_ps((float)(1 << (8 - w->format->bits)));
    for (int i = 0; i < n; i += scale_weights) {
        const int run = (k + i) / scale_weights;
        const uint8_t *quants = panel->quants + (k + i) / PACK_BLOCK * panel->block_bytes +
                                (ptrdiff_t)(i % PACK_BLOCK) * PACK_COLS + c0 * 4;
        const int32_t *start = starts + (ptrdiff_t)run * 3 * BM;
        __m512i sums[LIMB_COLS][2];
        limbs_block(n_limbs, n_cols, steps, acts->limbs + (ptrdiff_t)(k + i) / 4 * n_limbs * BM * 4, quants, start,
                    w->format->is_signed, sums);
        const float *scales = panel->scales + (ptrdiff_t)run * PACK_COLS + c0;
        const float *offsets = panel->offsets + (ptrdiff_t)run * PACK_COLS + c0;
#pragma GCC unroll 4
        for (int c = 0; c < n_cols; c++) {
            const __m512 scale = _mm512_set1_ps(scales[c]);
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                const __m512 x = _mm512_cvtepi32_ps(sums[c][h]);
                _mm512_store_ps(acc[c][h], _mm512_fmadd_ps(x, scale, _mm512_load_ps(acc[c][h])));
            }
        }
        if (!w->format->has_offset) continue;
        const __m512 totals[2] = {_mm512_mul_ps(_mm512_load_ps(start + 2 * BM), unit),
                                  _mm512_mul_ps(_mm512_load_ps(start + 2 * BM + 16), unit)};
#pragma GCC unroll 4
        for (int c = 0; c < n_cols; c++)
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++)
                _mm512_store_ps(acc[c][h],
                                _mm512_fmadd_ps(totals[h], _mm512_set1_ps(offsets[c]), _mm512_load_ps(acc[c][h])));
    }
    const float weight_unit = (n_limbs == FAST_LIMBS ? 1.0f : 0x1p8f) / (float)(1 << (8 - w->format->bits));
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        const __m512 scale =
            _mm512_mul_ps(_mm512_load_ps(acts->scale + k / CPU_CHAIN * BM + h * 16), _mm512_set1_ps(weight_unit));
#pragma GCC unroll 4
        for (int c = 0; c < n_cols; c++) {
            const __m512 x = _mm512_load_ps(acc[c][h]);
            float *o = out + c * BM + h * 16;
            const __m512 before = k == 0 ? _mm512_setzero_ps() : _mm512_load_ps(o);
            _mm512_store_ps(o, _mm512_fmadd_ps(x, scale, before));
        }
    }
}

static inline __attribute__((always_inline)) void limbs_multiply(int n_limbs, int steps, const cpu_matrix *w, int group,
                                                                 const void *panel_memory, const void *acts_memory,
                                                                 int first, int n_cols, float *out) {
    const limb_panel panel = view_panel(w, group, panel_memory);
    const limb_acts acts = view_acts((void *)acts_memory, w->n_in, BM);
    for (int k = 0; k < w->n_in; k += CPU_CHAIN) {
        const int n = MIN(CPU_CHAIN, w->n_in - k);
        int c = 0;
        for (; c + LIMB_COLS <= n_cols; c += LIMB_COLS)
            limbs_chain(n_limbs, LIMB_COLS, steps, w, &panel, &acts, k, n, first + c, out + c * BM);
        for (; c < n_cols; c++) limbs_chain(n_limbs, 1, steps, w, &panel, &acts, k, n, first + c, out + c * BM);
    }
}

#define LIMBS_PRODUCT(name, n_limbs)                                                                                   \
    static size_t name##_acts_bytes(int n_in) {                                                                        \
        return limb_acts_bytes(n_in, BM, n_limbs);                                                                     \
    }                                                                                                                  \
    static void name##_prepare(const float *x, int n_in, void *acts) {                                                 \
        limbs_prepare(n_limbs, x, n_in, acts);                                                                         \
    }                                                                                                                  \
    static void name##_multiply(const cpu_matrix *w, int group, const void *panel, const void *acts, int first,        \
                                int n_cols, float *out) {                                                              \
        if (w->format->scale_weights == PACK_BLOCK)                                                                    \
            limbs_multiply(n_limbs, PACK_STEPS, w, group, panel, acts, first, n_cols, out);                            \
        else                                                                                                           \
            limbs_multiply(n_limbs, PACK_STEPS / 2, w, group, panel, acts, first, n_cols, out);                        \
    }                                                                                                                  \
    static const cpu_product name = {.acts_bytes = name##_acts_bytes,                                                  \
                                     .prepare = name##_prepare,                                                        \
                                     .panel_bytes = limbs_panel_bytes,                                                 \
                                     .unpack = limbs_unpack,                                                           \
                                     .multiply = name##_multiply}

LIMBS_PRODUCT(product_limbs, EXACT_LIMBS);
LIMBS_PRODUCT(product_fast, FAST_LIMBS);

// --------------------------------------------------------------------------------------------------- single rows

/// The limbs of a row: [n_limbs][n_in] bytes, and its sums.
static inline __attribute__((always_inline)) void single_limbs_prepare(int n_limbs, const float *x, int n_in,
                                                                       void *memory) {
    const limb_acts acts = view_acts(memory, n_in, 1);
    const __m512i bias = digit_bias(n_limbs);
    const int digits[3] = {n_limbs - 1, 0, 1};
    int32_t sums[2][3] = {{0}};
    for (int k = 0; k < n_in; k += CPU_CHAIN) {
        const int n = MIN(CPU_CHAIN, n_in - k);
        __m512 largest = _mm512_setzero_ps(), poison = _mm512_setzero_ps(), scale;
        for (int i = k; i < k + n; i += 16) {
            const __m512 xi = _mm512_load_ps(x + i);
            largest = _mm512_max_ps(largest, _mm512_abs_ps(xi));
            poison = _mm512_fmadd_ps(xi, _mm512_setzero_ps(), poison);
        }
        largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
        poison = _mm512_set1_ps(_mm512_reduce_add_ps(poison));
        const __m512 inverse = chain_scale(n_limbs, largest, poison, &scale);
        acts.scale[k / CPU_CHAIN] = _mm512_cvtss_f32(scale);
        for (int i = k; i < k + n; i += 16) {
            __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(x + i), inverse));
            v = _mm512_add_epi32(v, bias);
            for (int l = 0; l < n_limbs; l++) {
                const __m128i digit = _mm512_cvtepi32_epi8(_mm512_srli_epi32(v, (unsigned)(8 * digits[l])));
                const __m128i sad = _mm_sad_epu8(digit, _mm_setzero_si128()); // sums of 8 digits + 128
                sums[1][l] = (int32_t)(_mm_cvtsi128_si64(sad) + _mm_extract_epi64(sad, 1)) - 16 * 128;
                sums[0][l] = i % 32 == 0 ? sums[1][l] : sums[0][l] + sums[1][l];
                _mm_storeu_si128((__m128i *)(void *)(acts.limbs + (ptrdiff_t)l * n_in + i),
                                 _mm_xor_si128(digit, _mm_set1_epi8((char)0x80)));
            }
            for (int level = i % 32 == 16 ? 0 : 1; level < 2; level++) {
                int32_t *out = acts.sums[level] + i / (level ? 16 : 32) * 3;
                const __m512i top = _mm512_set1_epi32(sums[level][0]), low = _mm512_set1_epi32(sums[level][1]);
                const __m512i mid = _mm512_set1_epi32(sums[level][2]);
                const float total = _mm512_cvtss_f32(total_of(n_limbs, top, low, mid));
                out[0] = _mm512_cvtsi512_si32(start_top(top));
                out[1] = _mm512_cvtsi512_si32(start_low(n_limbs, low, mid));
                memcpy(out + 2, &total, sizeof total);
            }
        }
    }
}

#define SINGLE_VECTORS (PACK_COLS / CPU_LANES)

/// One packed block's part of the chain's sums of all PACK_COLS columns.
static inline __attribute__((always_inline)) void single_limbs_block(int n_limbs, int bits, const pack_format *f,
                                                                     const uint8_t *block, size_t block_bytes,
                                                                     const limb_acts *acts, int n_in, int k,
                                                                     __m512 acc[SINGLE_VECTORS]) {
    const uint8_t *scales = block + pack_scales_at(f), *offsets = scales + pack_scales_bytes(f);
    const int per_block = pack_scales_per_block(f), steps = PACK_STEPS / per_block;
    const int8_t *a = acts->limbs + k;
    prefetch(block + SINGLE_AHEAD, block_bytes);
    for (int i = 0; i < per_block; i++) {
        const int32_t *start = acts->sums[per_block - 1] + (ptrdiff_t)(k / PACK_BLOCK * per_block + i) * 3;
        __m512i top[SINGLE_VECTORS], low[SINGLE_VECTORS], mid[SINGLE_VECTORS];
#pragma GCC unroll 3
        for (int v = 0; v < SINGLE_VECTORS; v++) {
            top[v] = _mm512_set1_epi32(f->is_signed ? start[0] : 0);
            low[v] = _mm512_set1_epi32(f->is_signed ? start[1] : n_limbs == FAST_LIMBS ? 0 : 128);
            mid[v] = _mm512_setzero_si512();
        }
#pragma GCC unroll 8
        for (int s = i * steps; s < (i + 1) * steps; s++) {
            const __m512i at = broadcast_word(a + s * 4), al = broadcast_word(a + n_in + s * 4);
            const __m512i am = n_limbs == FAST_LIMBS ? al : broadcast_word(a + 2 * n_in + s * 4);
#pragma GCC unroll 3
            for (int v = 0; v < SINGLE_VECTORS; v++) {
                const __m512i u = (__m512i)load_quants(block, bits, s, v * CPU_LANES);
                top[v] = _mm512_dpbusd_epi32(top[v], u, at);
                low[v] = _mm512_dpbusd_epi32(low[v], u, al);
                if (n_limbs != FAST_LIMBS) mid[v] = _mm512_dpbusd_epi32(mid[v], u, am);
            }
        }
        float total;
        memcpy(&total, start + 2, sizeof total);
        total *= (float)(1 << (8 - bits));
#pragma GCC unroll 3
        for (int v = 0; v < SINGLE_VECTORS; v++) {
            const int c = i * PACK_COLS + v * CPU_LANES;
            if (n_limbs != FAST_LIMBS) low[v] = _mm512_srai_epi32(low[v], 8);
            const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(top[v], 8), low[v]), mid[v]);
            const __m512 x = _mm512_cvtepi32_ps(sum), scale = (__m512)load_scales(scales, f->wide, c);
            acc[v] = _mm512_fmadd_ps(x, scale, acc[v]);
            if (f->has_offset)
                acc[v] = _mm512_fmadd_ps(_mm512_set1_ps(total), (__m512)load_scales(offsets, f->wide, c), acc[v]);
        }
    }
}

static inline __attribute__((always_inline)) void single_limbs_multiply(int n_limbs, int bits, const cpu_matrix *w,
                                                                        int group, const void *acts_memory, int first,
                                                                        int n_cols, float *out) {
    const limb_acts acts = view_acts((void *)acts_memory, w->n_in, 1);
    const float unit = (n_limbs == FAST_LIMBS ? 1.0f : 0x1p8f) / (float)(1 << (8 - bits));
    _Alignas(64) float result[PACK_COLS];
    const __m512 zero = _mm512_setzero_ps();
    __m512 all[SINGLE_VECTORS] = {zero, zero, zero};
    for (int k = 0; k < w->n_in; k += CPU_CHAIN) {
        __m512 acc[SINGLE_VECTORS] = {zero, zero, zero};
        for (int i = k; i < MIN(k + CPU_CHAIN, w->n_in); i += PACK_BLOCK)
            single_limbs_block(n_limbs, bits, w->format, pack_block(w, group, i / PACK_BLOCK), w->block_bytes, &acts,
                               w->n_in, i, acc);
        const __m512 scale = _mm512_set1_ps(acts.scale[k / CPU_CHAIN] * unit);
#pragma GCC unroll 3
        for (int v = 0; v < SINGLE_VECTORS; v++) all[v] = _mm512_fmadd_ps(acc[v], scale, all[v]);
    }
#pragma GCC unroll 3
    for (int v = 0; v < SINGLE_VECTORS; v++) _mm512_store_ps(result + v * CPU_LANES, all[v]);
    memcpy(out, result + first, (size_t)n_cols * sizeof *out);
}

#define SINGLE_LIMBS_PRODUCT(name, n_limbs)                                                                            \
    static size_t name##_acts_bytes(int n_in) {                                                                        \
        return limb_acts_bytes(n_in, 1, n_limbs);                                                                      \
    }                                                                                                                  \
    static void name##_prepare(const float *x, int n_in, void *acts) {                                                 \
        single_limbs_prepare(n_limbs, x, n_in, acts);                                                                  \
    }                                                                                                                  \
    static void name##_multiply(const cpu_matrix *w, int group, const void *panel, const void *acts, int first,        \
                                int n_cols, float *out) {                                                              \
        (void)panel;                                                                                                   \
        switch (w->format->bits) {                                                                                     \
        case 4:                                                                                                        \
            single_limbs_multiply(n_limbs, 4, w, group, acts, first, n_cols, out);                                     \
            return;                                                                                                    \
        case 5:                                                                                                        \
            single_limbs_multiply(n_limbs, 5, w, group, acts, first, n_cols, out);                                     \
            return;                                                                                                    \
        case 6:                                                                                                        \
            single_limbs_multiply(n_limbs, 6, w, group, acts, first, n_cols, out);                                     \
            return;                                                                                                    \
        default:                                                                                                       \
            single_limbs_multiply(n_limbs, 8, w, group, acts, first, n_cols, out);                                     \
        }                                                                                                              \
    }                                                                                                                  \
    static const cpu_product name = {                                                                                  \
        .acts_bytes = name##_acts_bytes, .prepare = name##_prepare, .multiply = name##_multiply}

SINGLE_LIMBS_PRODUCT(single_product_limbs, EXACT_LIMBS);
SINGLE_LIMBS_PRODUCT(single_product_fast, FAST_LIMBS);
