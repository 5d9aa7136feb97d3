/*
 * cpu_kernels_simd.h: the kernels of cpu_kernels.h for one vector width, included once by each cpu_ops_<level>.c with
 *
 *   CPU_LEVEL   name of the level: the table becomes cpu_kernels_<level>
 *   CPU_LANES   floats of a vector register
 *   CPU_BLOCK_N weight columns of the gemm's register tile: 2 * CPU_BLOCK_N accumulators must fit the registers
 *   CPU_SINGLE_ROWS  batches up to this many rows go one row at a time (measured: where both take the same time)
 *   CPU_LIMBS   defined: the level has the products of cpu_kernels_limbs.h
 *   CPU_PAIRS   defined: it has those of cpu_kernels_pairs.h
 *
 * A tile is two vectors wide (block_m = 2 * CPU_LANES), so that one broadcast weight feeds two multiply-adds. Tiles of
 * one row are in cpu_kernels_single.h.
 */
#include "cpu/cpu_kernels.h"
#include "cpu/cpu_vec.h"
#include "quant_blocks.h"
#include <assert.h>

#define BM (2 * CPU_LANES)

static_assert(BM <= CPU_MAX_BLOCK_M, "lane masks have 32 bits");

// -------------------------------------------------------------------------------------------------------- gemm

/// One register tile: n_cols (a constant after inlining) columns over n_k steps; first: overwrite out, else add to it.
static inline __attribute__((always_inline)) void gemm_tile(const float *a, int n_k, const float *w, ptrdiff_t stride,
                                                            int n_cols, bool first, float *out) {
    vf acc0[CPU_BLOCK_N], acc1[CPU_BLOCK_N];
#pragma GCC unroll 16
    for (int c = 0; c < n_cols; c++) acc0[c] = acc1[c] = vf_set(0.0f);
    for (int k = 0; k < n_k; k++) {
        const vf a0 = vf_load(a + (ptrdiff_t)k * BM), a1 = vf_load(a + (ptrdiff_t)k * BM + CPU_LANES);
#pragma GCC unroll 16
        for (int c = 0; c < n_cols; c++) {
            const vf wc = vf_set(w[k * stride + c]);
            acc0[c] = vf_fma(a0, wc, acc0[c]);
            acc1[c] = vf_fma(a1, wc, acc1[c]);
        }
    }
#pragma GCC unroll 16
    for (int c = 0; c < n_cols; c++) {
        float *o = out + c * BM;
        if (!first) {
            acc0[c] += vf_load(o);
            acc1[c] += vf_load(o + CPU_LANES);
        }
        vf_store(o, acc0[c]);
        vf_store(o + CPU_LANES, acc1[c]);
    }
}

static void gemm(const float *a, int n_k, const float *w, ptrdiff_t stride, int n_cols, float *out) {
    for (int k = 0; k < n_k; k += CPU_CHAIN) {
        const int n = MIN(CPU_CHAIN, n_k - k);
        const float *ak = a + (ptrdiff_t)k * BM, *wk = w + k * stride;
        int c = 0;
        for (; c + CPU_BLOCK_N <= n_cols; c += CPU_BLOCK_N)
            gemm_tile(ak, n, wk + c, stride, CPU_BLOCK_N, k == 0, out + c * BM);
        // What is left of a height that is no multiple of the tile.
        for (; c + 4 <= n_cols; c += 4) gemm_tile(ak, n, wk + c, stride, 4, k == 0, out + c * BM);
        for (; c + 2 <= n_cols; c += 2) gemm_tile(ak, n, wk + c, stride, 2, k == 0, out + c * BM);
        if (c < n_cols) gemm_tile(ak, n, wk + c, stride, 1, k == 0, out + c * BM);
    }
}

// ------------------------------------------------------------------------------------------- products in f32

/// Half-precision or f32 numbers of a block's scales, widened.
static inline vf load_scales(const uint8_t *at, bool wide, int c) {
    if (wide) return vf_load_anywhere((const float *)(const void *)at + c);
#if defined(__AVX512F__) && CPU_LANES == 16
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(at + 2 * c)));
#elif defined(__F16C__) && CPU_LANES == 8
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(at + 2 * c)));
#else
    vf x;
    uint16_t halves[CPU_LANES];
    memcpy(halves, at + 2 * c, sizeof halves);
    for (int i = 0; i < CPU_LANES; i++) x[i] = half_to_float(halves[i]);
    return x;
#endif
}

/// Scales of block b of a group, and offsets where there are any, widened to their places among those of all blocks.
static inline void unpack_scales(const pack_format *f, const uint8_t *block, int b, float *scales, float *offsets) {
    const uint8_t *from = block + pack_scales_at(f);
    const int n = pack_scales_per_block(f) * PACK_COLS;
    for (int i = 0; i < n; i += CPU_LANES) {
        vf_store(scales + (ptrdiff_t)b * n + i, load_scales(from, f->wide, i));
        if (f->has_offset)
            vf_store(offsets + (ptrdiff_t)b * n + i, load_scales(from + pack_scales_bytes(f), f->wide, i));
    }
}

/// Packed weights come from memory, and a page's end stops the hardware's own prefetching.
static inline void prefetch(const uint8_t *from, size_t n_bytes) {
    for (const uint8_t *line = from; line < from + n_bytes; line += 64) __builtin_prefetch(line);
}

#define UNPACK_AHEAD 2048 // bytes

/// Stored quants of k-step `step` of a packed block, columns c …: one byte each, in its top `bits` bits.
static inline __attribute__((always_inline)) vi load_quants(const uint8_t *block, int bits, int step, int c) {
    const uint8_t *words = block + (ptrdiff_t)sizeof(int32_t) * (step / (bits == 8 ? 1 : 2) * PACK_COLS + c);
    const vi x = vi_load_anywhere(words);
    if (bits == 8) return x;
    const int up = step % 2 ? 0 : 4; // the nibble's place in its byte: high or low
    if (bits == 4) return (x << up) & vi_set((int32_t)0xf0f0f0f0);
    const uint8_t *plane = block + PACK_NIBBLE_BYTES + (ptrdiff_t)sizeof(int32_t) * c;
    const int down = bits - 4; // makes room for the high bits
    vi low = x >> down, high;
    if (up > 0) low = x << (up - down);
    if (bits == 5) {
        high = vi_load_anywhere(plane) << (7 - step) & vi_set((int32_t)0x80808080);
        return (low & vi_set(0x78787878)) | high;
    }
    high = vi_load_anywhere(plane + step / 4 * PACK_PLANE_BYTES) << (6 - step % 4 * 2);
    return (low & vi_set(0x3c3c3c3c)) | (high & vi_set((int32_t)0xc0c0c0c0));
}

/// What makes weights of a vector of columns' stored quants.
static inline __attribute__((always_inline)) void load_affine(const pack_format *f, int bits, bool has_offset,
                                                              const uint8_t *block, int at, vf *scale, vf *offset) {
    const uint8_t *scales = block + pack_scales_at(f), *offsets = scales + pack_scales_bytes(f);
    *scale = load_scales(scales, f->wide, at) * vf_set(1.0f / (float)(1 << (8 - bits)));
    *offset = *scale * vf_set(-128.0f);
    if (has_offset) *offset = load_scales(offsets, f->wide, at);
}

/// Weights from byte j of what load_quants gave: the dequantiser's scale * quant (+ offset), to the bit. With an
/// offset that product is exact, having at most 5 + 17 bits, so both round once; without one, 128 * scale is exact, so
/// what is rounded once is scale * (stored - 128).
static inline __attribute__((always_inline)) vf dequantize_byte(vi q, int j, bool has_offset, vf scale, vf offset) {
    const vf stored = __builtin_convertvector(vi_byte(q, j), vf);
    if (VF_FMA_FUSED || has_offset) return vf_fma(stored, scale, offset);
    return (stored - 128.0f) * scale;
}

/// Weights of one packed block, [PACK_BLOCK][PACK_COLS] f32, as the format's dequantiser gives them.
static inline __attribute__((always_inline)) void unpack_block(const pack_format *f, int bits, const uint8_t *block,
                                                               float *panel) {
    const int per_block = pack_scales_per_block(f), steps = PACK_STEPS / per_block;
    for (int c = 0; c < PACK_COLS; c += CPU_LANES)
        for (int i = 0; i < per_block; i++) {
            vf scale, offset;
            load_affine(f, bits, f->has_offset, block, i * PACK_COLS + c, &scale, &offset);
            for (int s = i * steps; s < (i + 1) * steps; s++) {
                const vi q = load_quants(block, bits, s, c);
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++)
                    vf_store(panel + (4 * s + j) * PACK_COLS + c, dequantize_byte(q, j, f->has_offset, scale, offset));
            }
        }
}

/// Weights first … first + n - 1 of every row of a group: [n][PACK_COLS]. Whole blocks, when there are blocks.
static void unpack_range(const cpu_matrix *w, int group, int first, int n, float *panel) {
    static const quant_type types[] = {QUANT_TABLE}; // the dequantisers, compiled for this instruction set
    const pack_format *f = w->format;
    if (f->bits == 0) {
        const size_t size = (size_t)w->type->block_bytes;
        const uint8_t *numbers = w->data + (size_t)group * w->group_bytes + (size_t)first * PACK_COLS * size;
        types[w->type - quant_types].dequantize(numbers, panel, (size_t)n * PACK_COLS);
        return;
    }
    for (int k = 0; k < n; k += PACK_BLOCK, panel += PACK_BLOCK * PACK_COLS) {
        const uint8_t *block = pack_block(w, group, (first + k) / PACK_BLOCK);
        prefetch(block + UNPACK_AHEAD, w->block_bytes);
        switch (f->bits) {
        case 4:
            unpack_block(f, 4, block, panel);
            break;
        case 5:
            unpack_block(f, 5, block, panel);
            break;
        case 6:
            unpack_block(f, 6, block, panel);
            break;
        default:
            unpack_block(f, 8, block, panel);
        }
    }
}

static size_t panel_bytes(const cpu_matrix *w) {
    return (size_t)w->n_in * PACK_COLS * sizeof(float);
}

static void unpack(const cpu_matrix *w, int group, void *panel) {
    unpack_range(w, group, 0, w->n_in, panel);
}

static void multiply(const cpu_matrix *w, int group, const void *panel, const void *acts, int first, int n_cols,
                     float *out) {
    (void)group;
    gemm(acts, w->n_in, (const float *)panel + first, PACK_COLS, n_cols, out);
}

static const cpu_product product_f32 = {.panel_bytes = panel_bytes, .unpack = unpack, .multiply = multiply};

// ------------------------------------------------------------------------------------------ norms and activations

// Sums over features have NORM_CHAINS interleaved accumulators, added pairwise; the single-row norm has the same.
#define NORM_CHAINS 4

/// sum = over features of x - mean, or of its square. By pointer: a vd is wider than a register.
static inline __attribute__((always_inline)) void norm_sum(const float *x, const vd *mean, bool squares, int n,
                                                           vd *sum) {
    vd sums[NORM_CHAINS] = {{0}};
    for (int first = 0; first < n; first += NORM_CHAINS) {
#pragma GCC unroll 4
        for (int j = 0; j < NORM_CHAINS; j++) {
            if (first + j >= n) break;
            const vd d = __builtin_convertvector(vf_load(x + (first + j) * BM), vd) - *mean;
            if (squares)
                sums[j] += d * d;
            else
                sums[j] += d;
        }
    }
    *sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static void norm(const float *x, const float *w, const float *bias, float eps, int n, float *out) {
    for (int v = 0; v < BM; v += CPU_LANES) {
        vd mean = {0}, sum_squares, scale;
        if (bias) {
            norm_sum(x + v, &mean, false, n, &sum_squares);
            mean = sum_squares / (double)n;
        }
        norm_sum(x + v, &mean, true, n, &sum_squares);
        for (int l = 0; l < CPU_LANES; l++) scale[l] = 1.0 / sqrt(sum_squares[l] / n + (double)eps);
        for (int i = 0; i < n; i++) {
            vd y = (__builtin_convertvector(vf_load(x + i * BM + v), vd) - mean) * scale * (double)w[i];
            if (bias) y += (double)bias[i];
            vf_store(out + i * BM + v, __builtin_convertvector(y, vf));
        }
    }
}

static void rope(const float *table, int n_rot, bool neox, float *head) {
    const int half = n_rot / 2, step = neox ? half : 1;
    for (int i = 0; i < half; i++) {
        float *p0 = head + (neox ? i : 2 * i) * BM, *p1 = p0 + step * BM;
        for (int v = 0; v < BM; v += CPU_LANES) {
            const vf c = vf_load(table + (2 * i) * BM + v), s = vf_load(table + (2 * i + 1) * BM + v);
            const vf x0 = vf_load(p0 + v), x1 = vf_load(p1 + v);
            vf_store(p0 + v, x0 * c - x1 * s);
            vf_store(p1 + v, x0 * s + x1 * c);
        }
    }
}

/// silu(x) = x sigmoid(x); gelu(x) ~ x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)) (the tanh form, Hendrycks & Gimpel).
static inline vf activate(activation act, vf x) {
    vf z = x;
    if (act == ACT_GELU_TANH) z = (x * x * 0.044715f + 1.0f) * x * 1.5957691216f;
    return x / (1.0f + vf_exp(-z));
}

static void glu(activation act, int n, float *gate, const float *up) {
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n * BM; i += CPU_LANES) {
        vf y = activate(act, vf_load(gate + i));
        if (up) y *= vf_load(up + i);
        vf_store(gate + i, y);
    }
}

static void add(int n, float *x, const float *y) {
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n * BM; i += CPU_LANES) vf_store(x + i, vf_load(x + i) + vf_load(y + i));
}

static void add_scalar(int n, float *x, const float *bias) {
    for (int i = 0; i < n; i++)
        for (int v = 0; v < BM; v += CPU_LANES) vf_store(x + i * BM + v, vf_load(x + i * BM + v) + bias[i]);
}

static void softcap(int n, float *x, float cap) {
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n * BM; i += CPU_LANES) vf_store(x + i, vf_tanh(vf_load(x + i) / cap) * cap);
}

// --------------------------------------------------------------------------------------------------- attention

#define SOFTMAX_CHAINS 4 // interleaved sums over keys, as in the single-row step

/// A score in units of a power of 2.
static inline vf scaled_score(vf score, const attention_params *params) {
    if (params->softcap <= 0.0f) return score * (params->scale * LOG2_E);
    return vf_tanh(score * params->scale / params->softcap) * (params->softcap * LOG2_E);
}

/// Weights of n (a constant) vectors of scores under a maximum; 0 for those masked out.
static inline __attribute__((always_inline)) void exp2_below(int n, const vf *score, vf max, vf *weight) {
    vf x[EXP2_AT_ONCE];
    for (int j = 0; j < n; j++) x[j] = vf_max(score[j] - max, vf_set(EXP2_FLOOR));
    vf_exp2_floored(n, x, weight);
}

/// Makes weights of the scores of n (a constant) keys, and adds each to a total of its own.
static inline __attribute__((always_inline)) void softmax_weights(int n, float *scores, vf max, vf *totals) {
    vf weight[SOFTMAX_CHAINS];
    for (int j = 0; j < n; j++) weight[j] = vf_load(scores + j * BM);
    exp2_below(n, weight, max, weight);
    for (int j = 0; j < n; j++) {
        vf_store(scores + j * BM, weight[j]);
        totals[j] += weight[j];
    }
}

static void softmax_step(float *scores, int n_keys, int key_first, const int32_t *lo, const int32_t *hi,
                         const attention_params *params, float *max, float *sum, float *correction) {
    const vf minus_inf = vf_set(-INFINITY), zero = vf_set(0.0f);
    for (int v = 0; v < BM; v += CPU_LANES) {
        vi first, last;
        memcpy(&first, lo + v, sizeof first);
        memcpy(&last, hi + v, sizeof last);
        const vf old_max = vf_load(max + v);
        vf new_max = old_max;
        for (int j = 0; j < n_keys; j++) {
            const vi key = vi_set(key_first + j);
            const vf s = vf_select((key >= first) & (key <= last), scaled_score(vf_load(scores + j * BM + v), params),
                                   minus_inf);
            vf_store(scores + j * BM + v, s);
            new_max = vf_max(new_max, s);
        }
        const vf base = vf_select(new_max == minus_inf, zero, new_max); // no key yet: every weight is 0
        vf factor;
        exp2_below(1, &old_max, base, &factor);
        vf totals[SOFTMAX_CHAINS] = {zero, zero, zero, zero};
        int j = 0;
        for (; j + SOFTMAX_CHAINS <= n_keys; j += SOFTMAX_CHAINS)
            softmax_weights(SOFTMAX_CHAINS, scores + (ptrdiff_t)j * BM + v, base, totals);
        for (int chain = 0; j < n_keys; j++, chain++)
            softmax_weights(1, scores + (ptrdiff_t)j * BM + v, base, totals + chain);
        const vf total = (totals[0] + totals[1]) + (totals[2] + totals[3]);
        vf_store(max + v, new_max);
        vf_store(sum + v, vf_fma(vf_load(sum + v), factor, total));
        vf_store(correction + v, factor);
    }
}

static void scale_add(int n, float *acc, const float *factor, const float *x) {
    for (int v = 0; v < BM; v += CPU_LANES) {
        const vf f = vf_load(factor + v);
        for (int i = 0; i < n; i++)
            vf_store(acc + i * BM + v, vf_fma(vf_load(acc + i * BM + v), f, vf_load(x + i * BM + v)));
    }
}

// -------------------------------------------------------------------------------------------------- statistics

/// Moves a lane's sums from the old maximum to a new one: with d = (old - new) / T,
/// sum e' = e^d S0, sum x'e' = e^d (S1 + d S0), sum x'^2 e' = e^d (S2 + 2 d S1 + d^2 S0).
static void rebase(cpu_stats *s, const float *new_max) {
    for (int t = 0; t < s->n_temperatures; t++) {
        double *s0 = s->sums + (ptrdiff_t)t * 3 * BM, *s1 = s0 + BM, *s2 = s1 + BM;
        for (int l = 0; l < BM; l++) {
            if (!(new_max[l] > s->max[l]) || s0[l] == 0.0) continue;
            const double d = ((double)s->max[l] - (double)new_max[l]) * (double)s->inv_t[t * BM + l], e = exp(d);
            s2[l] = e * (s2[l] + d * (2.0 * s1[l] + d * s0[l]));
            s1[l] = e * (s1[l] + d * s0[l]);
            s0[l] *= e;
        }
    }
    memcpy(s->max, new_max, BM * sizeof(float));
}

/// Adds n (a constant) columns' e, x e and x^2 e to `sums`, with x = (logit - max) / T in powers of 2 and e = 2^x.
static inline __attribute__((always_inline)) void add_columns(int n, const float *logits, vf max, vf per_t, vf *sums) {
    vf x[EXP2_AT_ONCE], e[EXP2_AT_ONCE], xe[EXP2_AT_ONCE];
    for (int j = 0; j < n; j++) x[j] = vf_max((vf_load(logits + j * BM) - max) * per_t, vf_set(EXP2_FLOOR));
    vf_exp2_floored(n, x, e);
    for (int j = 0; j < n; j++) xe[j] = x[j] * e[j];
    vf sum_xxe = x[0] * xe[0];
    for (int j = 1; j < n; j++) sum_xxe = vf_fma(x[j], xe[j], sum_xxe);
    for (int j = n / 2; j > 0; j /= 2) // pairwise
        for (int i = 0; i < j; i++) {
            e[i] += e[i + j];
            xe[i] += xe[i + j];
        }
    sums[0] += e[0];
    sums[1] += xe[0];
    sums[2] += sum_xxe;
}

static void stats(const float *logits, int n_cols, int n_lanes, cpu_stats *s) {
    _Alignas(64) float new_max[BM];
    bool larger = false;
    memcpy(new_max, s->max, sizeof new_max);
    for (int v = 0; v < n_lanes; v += CPU_LANES) {
        const vf old = vf_load(s->max + v);
        vf m = old;
        for (int c = 0; c < n_cols; c++) m = vf_max(m, vf_load(logits + c * BM + v));
        vf_store(new_max + v, m);
        larger |= vi_mask(m > old) != 0;
    }
    if (larger) rebase(s, new_max);
    for (int t = 0; t < s->n_temperatures; t++) {
        for (int v = 0; v < n_lanes; v += CPU_LANES) {
            const vf max = vf_load(new_max + v), m = vf_select(max == vf_set(-INFINITY), vf_set(0.0f), max);
            const vf per_t = vf_load(s->inv_t + t * BM + v) * LOG2_E;
            vf block[3] = {vf_set(0.0f), vf_set(0.0f), vf_set(0.0f)};
            int c = 0;
            for (; c + EXP2_AT_ONCE <= n_cols; c += EXP2_AT_ONCE)
                add_columns(EXP2_AT_ONCE, logits + (ptrdiff_t)c * BM + v, m, per_t, block);
            for (; c < n_cols; c++) add_columns(1, logits + (ptrdiff_t)c * BM + v, m, per_t, block);
            const double unit[3] = {1.0, LN_2, LN_2 * LN_2}; // x was in powers of 2
            double *sums = s->sums + (ptrdiff_t)t * 3 * BM + v;
            for (int i = 0; i < 3; i++)
                *(vd *)(sums + (ptrdiff_t)i * BM) += __builtin_convertvector(block[i], vd) * unit[i];
        }
    }
}

static void count_above(const float *logits, int n_cols, int n_lanes, const float *target, int32_t *count) {
    for (int v = 0; v < n_lanes; v += CPU_LANES) {
        const vf t = vf_load(target + v);
        vi n = {0};
        for (int c = 0; c < n_cols; c++) n -= vf_load(logits + c * BM + v) > t;
        for (int l = 0; l < CPU_LANES; l++) count[v + l] += n[l];
    }
}

static void find_above(const float *logits, int n_cols, int n_lanes, const float *threshold, uint32_t *hits) {
    const vf t0 = vf_load(threshold), t1 = vf_load(threshold + CPU_LANES);
    const uint32_t lanes = n_lanes < 32 ? (1u << n_lanes) - 1 : UINT32_MAX;
    for (int c = 0; c < n_cols; c++, logits += BM) {
        const uint32_t low = vi_mask(vf_load(logits) <= t0), high = vi_mask(vf_load(logits + CPU_LANES) <= t1);
        hits[c] = ~(low | high << CPU_LANES) & lanes;
    }
}

// ------------------------------------------------------------------------------------------------------- table

#include "cpu/cpu_kernels_single.h"
#ifdef CPU_LIMBS
#    include "cpu/cpu_kernels_limbs.h"
#endif
#ifdef CPU_PAIRS
#    include "cpu/cpu_kernels_pairs.h"
#endif

#define CPU_TABLE_(level) cpu_kernels_##level
#define CPU_TABLE(level)  CPU_TABLE_(level)
#define CPU_TEXT_(level)  #level
#define CPU_TEXT(level)   CPU_TEXT_(level)

const cpu_kernels CPU_TABLE(CPU_LEVEL) = {
    .name = CPU_TEXT(CPU_LEVEL),
    .block_m = BM,
    .supported = supported,
    .packs = true,
    .single = &single,
    .single_rows = CPU_SINGLE_ROWS,
    .product = &product_f32,
#ifdef CPU_LIMBS
    .product_limbs = &product_limbs,
    .product_fast = &product_fast,
#endif
#ifdef CPU_PAIRS
    .product_fast = &product_pairs,
#endif
    .gemm = gemm,
    .norm = norm,
    .rope = rope,
    .glu = glu,
    .add = add,
    .add_scalar = add_scalar,
    .softcap = softcap,
    .softmax_step = softmax_step,
    .scale_add = scale_add,
    .stats = stats,
    .count_above = count_above,
    .find_above = find_above,
};
