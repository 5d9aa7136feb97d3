/*
 * cpu_kernels_pairs.h: near-exact products of f32 activations with quantised weights by vpmaddwd, for levels without
 * VNNI. Included by cpu_kernels_simd.h.
 *
 * A chain of CPU_CHAIN activations of a row is written as v * scale with whole numbers v of 16 bits. One vpmaddwd gives
 * two products of v with quants for each 32-bit lane, so it does twice the work of a multiply-add in f32, and a block's
 * sum is exact in int32 (2^28 at most). One conversion and one multiply-add with the block's weight scale finish it;
 * offsets of formats that have them are multiplied with the block's sum of v.
 *
 * The two numbers of a lane are k-steps of four apart as the packed bytes give them with least work: of the four
 * weights of a packed word, 0 and 2 make one pair, 1 and 3 the other. Integer sums have no order, so that the
 * single-row product, whose lanes are columns, has the same bits.
 */

/// Largest v: 127 * 256, as where it is cut into two signed bytes.
#define PAIRS_LARGEST 32512.0f

/// The prepared activations of one tile of bm rows. For whole tiles, totals are f32 and words [n_in / 2][bm]; a single
/// row has int32 totals and [n_in / 2] words.
typedef struct pair_acts {
    float *scale;    // [n_chains][bm]
    void *totals[2]; // by blocks of 32, of 16: [n_blocks][bm] sums of v
    int32_t *words;  // of two v
} pair_acts;

static inline pair_acts view_acts(void *memory, int n_in, int bm) {
    const int n_chains = (n_in + CPU_CHAIN - 1) / CPU_CHAIN, n_blocks = n_in / PACK_BLOCK;
    pair_acts acts = {.scale = memory};
    acts.totals[0] = acts.scale + n_chains * bm;
    acts.totals[1] = acts.scale + (n_chains + n_blocks) * bm;
    acts.words = (int32_t *)memory + (n_chains + 3 * n_blocks) * bm;
    return acts;
}

static inline size_t pair_acts_bytes(int n_in, int bm) {
    return (size_t)(uintptr_t)view_acts(NULL, n_in, bm).words + (size_t)n_in * sizeof(int16_t) * (size_t)bm;
}

/// 1 / scale from the chain's largest magnitude; *scale: NaN when any x was not finite (then poison is NaN, else 0).
/// Below 1e-30 everything counts as zero, which keeps the quotient finite.
static inline vf chain_scale(vf largest, vf poison, vf *scale) {
    const vi some = largest >= vf_set(1e-30f);
    const vf top = vf_set(PAIRS_LARGEST), zero = vf_set(0.0f);
    *scale = vf_select(some, largest / top, zero) + poison;
    return vf_select(some, top / largest, zero);
}

static inline vf vf_abs(vf x) {
    return (vf)((vi)x & vi_set(0x7fffffff));
}

static inline vi make_pair(vi low, vi high) {
    return (low & vi_set(0xffff)) | high << 16;
}

// ----------------------------------------------------------------------------------------------------- whole tiles

/// One chain of one half of a tile. x: [n][BM]; k: its first row of the whole tile.
static void pairs_prepare_chain(const float *x, int n, int k, int half, pair_acts acts) {
    const vf zero = vf_set(0.0f);
    vf largest = zero, poison = zero, scale;
    for (int i = 0; i < n; i++) {
        const vf xi = vf_load(x + i * BM);
        largest = vf_max(largest, vf_abs(xi));
        poison = vf_fma(xi, zero, poison);
    }
    const vf inverse = chain_scale(largest, poison, &scale);
    vf_store(acts.scale + k / CPU_CHAIN * BM + half, scale);
    vi sum = {0}, sum16 = {0}; // of this block of 32 so far, and up to its last 16
    for (int i = 0; i < n; i += 4) {
        vi v[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) v[j] = vi_round(vf_load(x + (i + j) * BM) * inverse);
        vi *words = (vi *)(void *)(acts.words + (ptrdiff_t)(k + i) / 2 * BM + half);
        words[0] = make_pair(v[0], v[2]);
        words[BM / CPU_LANES] = make_pair(v[1], v[3]);
        sum += (v[0] + v[1]) + (v[2] + v[3]);
        if ((i + 4) % 16 != 0) continue;
        vf_store((float *)acts.totals[1] + (ptrdiff_t)(k + i) / 16 * BM + half,
                 __builtin_convertvector(sum - sum16, vf));
        if ((i + 4) % 32 == 0) {
            vf_store((float *)acts.totals[0] + (ptrdiff_t)(k + i) / 32 * BM + half, __builtin_convertvector(sum, vf));
            sum = vi_set(0);
        }
        sum16 = sum;
    }
}

static size_t pairs_acts_bytes(int n_in) {
    return pair_acts_bytes(n_in, BM);
}

static void pairs_prepare(const float *x, int n_in, void *memory) {
    const pair_acts acts = view_acts(memory, n_in, BM);
    for (int k = 0; k < n_in; k += CPU_CHAIN)
        for (int half = 0; half < BM; half += CPU_LANES)
            pairs_prepare_chain(x + (ptrdiff_t)k * BM + half, MIN(CPU_CHAIN, n_in - k), k, half, acts);
}

/// An unpacked group: f32 scales and offsets [n_in / scale_weights][PACK_COLS], and words of two quants.
typedef struct pair_panel {
    float *scales, *offsets;
    int32_t *words; // [n_in / 2][PACK_COLS]
} pair_panel;

static inline pair_panel view_panel(const cpu_matrix *w, const void *memory) {
    const ptrdiff_t n_scales = (ptrdiff_t)w->n_in / w->format->scale_weights * PACK_COLS;
    pair_panel p = {.scales = (float *)memory};
    p.offsets = p.scales + n_scales;
    p.words = (int32_t *)(p.offsets + n_scales);
    return p;
}

static size_t pairs_panel_bytes(const cpu_matrix *w) {
    const size_t scales = (size_t)(w->n_in / w->format->scale_weights) * PACK_COLS * sizeof(float);
    return 2 * scales + (size_t)w->n_in * PACK_COLS * sizeof(int16_t);
}

static inline __attribute__((always_inline)) void unpack_pairs(const uint8_t *block, int bits, bool is_signed,
                                                               int32_t *out) {
    const vh bias = vh_set(is_signed ? 128 : 0);
    for (int s = 0; s < PACK_STEPS; s++)
#pragma GCC unroll 6
        for (int c = 0; c < PACK_COLS; c += CPU_LANES) {
            const vi q = load_quants(block, bits, s, c);
            *(vh *)(void *)(out + 2 * s * PACK_COLS + c) = (pair_even(q) - bias) >> (8 - bits);
            *(vh *)(void *)(out + (2 * s + 1) * PACK_COLS + c) = (pair_odd(q) - bias) >> (8 - bits);
        }
}

static void pairs_unpack(const cpu_matrix *w, int group, void *memory) {
    const pair_panel panel = view_panel(w, memory);
    const pack_format *f = w->format;
    for (int b = 0; b < w->n_in / PACK_BLOCK; b++) {
        const uint8_t *block = pack_block(w, group, b);
        prefetch(block + UNPACK_AHEAD, w->block_bytes);
        unpack_scales(f, block, b, panel.scales, panel.offsets);
        int32_t *words = panel.words + (ptrdiff_t)b * (PACK_BLOCK / 2) * PACK_COLS;
        switch (f->bits) {
        case 4:
            unpack_pairs(block, 4, f->is_signed, words);
            break;
        case 5:
            unpack_pairs(block, 5, f->is_signed, words);
            break;
        case 6:
            unpack_pairs(block, 6, f->is_signed, words);
            break;
        default:
            unpack_pairs(block, 8, f->is_signed, words);
        }
    }
}

/// A chain's f32 sums of n_cols columns join `out`. Blocks of 2 * n_words weights share a scale.
static inline __attribute__((always_inline)) void pairs_chain(int n_cols, int n_words, bool has_offset,
                                                              const pair_panel *panel, const pair_acts *acts, int k,
                                                              int n, int c0, float *out) {
    _Alignas(64) float acc[CPU_BLOCK_N][BM];
#pragma GCC unroll 16
    for (int c = 0; c < n_cols; c++) {
        vf_store(acc[c], vf_set(0.0f));
        vf_store(acc[c] + CPU_LANES, vf_set(0.0f));
    }
    const float *all_totals = acts->totals[2 * n_words == PACK_BLOCK ? 0 : 1];
    for (int i = k; i < k + n; i += 2 * n_words) {
        const int run = i / (2 * n_words);
        const int32_t *a = acts->words + (ptrdiff_t)i / 2 * BM, *q = panel->words + (ptrdiff_t)i / 2 * PACK_COLS + c0;
        vi sum0[CPU_BLOCK_N], sum1[CPU_BLOCK_N];
#pragma GCC unroll 16
        for (int c = 0; c < n_cols; c++) sum0[c] = sum1[c] = vi_set(0);
#pragma GCC unroll 2
        for (int s = 0; s < n_words; s++) {
            const vi a0 = *(const vi *)(const void *)(a + s * BM);
            const vi a1 = *(const vi *)(const void *)(a + s * BM + CPU_LANES);
#pragma GCC unroll 16
            for (int c = 0; c < n_cols; c++) {
                const vi qc = vi_set(q[s * PACK_COLS + c]);
                sum0[c] += vi_multiply_pairs(a0, qc);
                sum1[c] += vi_multiply_pairs(a1, qc);
            }
        }
        const float *scales = panel->scales + (ptrdiff_t)run * PACK_COLS + c0;
        const float *offsets = panel->offsets + (ptrdiff_t)run * PACK_COLS + c0;
        const float *totals = all_totals + (ptrdiff_t)run * BM;
#pragma GCC unroll 16
        for (int c = 0; c < n_cols; c++) {
            const vf scale = vf_set(scales[c]);
            vf x0 = vf_fma(__builtin_convertvector(sum0[c], vf), scale, vf_load(acc[c]));
            vf x1 = vf_fma(__builtin_convertvector(sum1[c], vf), scale, vf_load(acc[c] + CPU_LANES));
            if (has_offset) {
                const vf offset = vf_set(offsets[c]);
                x0 = vf_fma(vf_load(totals), offset, x0);
                x1 = vf_fma(vf_load(totals + CPU_LANES), offset, x1);
            }
            vf_store(acc[c], x0);
            vf_store(acc[c] + CPU_LANES, x1);
        }
    }
    for (int h = 0; h < BM; h += CPU_LANES) {
        const vf scale = vf_load(acts->scale + k / CPU_CHAIN * BM + h);
#pragma GCC unroll 16
        for (int c = 0; c < n_cols; c++) {
            float *o = out + c * BM + h;
            vf_store(o, vf_fma(vf_load(acc[c] + h), scale, k == 0 ? vf_set(0.0f) : vf_load(o)));
        }
    }
}

static inline __attribute__((always_inline)) void pairs_columns(int n_words, bool has_offset, const cpu_matrix *w,
                                                                const void *panel_memory, const void *acts_memory,
                                                                int first, int n_cols, float *out) {
    const pair_panel panel = view_panel(w, panel_memory);
    const pair_acts acts = view_acts((void *)(uintptr_t)acts_memory, w->n_in, BM);
    for (int k = 0; k < w->n_in; k += CPU_CHAIN) {
        const int n = MIN(CPU_CHAIN, w->n_in - k);
        int c = 0;
        for (; c + CPU_BLOCK_N <= n_cols; c += CPU_BLOCK_N)
            pairs_chain(CPU_BLOCK_N, n_words, has_offset, &panel, &acts, k, n, first + c, out + c * BM);
        for (; c < n_cols; c++) pairs_chain(1, n_words, has_offset, &panel, &acts, k, n, first + c, out + c * BM);
    }
}

static void pairs_multiply(const cpu_matrix *w, int group, const void *panel, const void *acts, int first, int n_cols,
                           float *out) {
    (void)group;
    const int n_words = w->format->scale_weights / 2;
    if (n_words == 16 && w->format->has_offset)
        pairs_columns(16, true, w, panel, acts, first, n_cols, out);
    else if (n_words == 16)
        pairs_columns(16, false, w, panel, acts, first, n_cols, out);
    else if (w->format->has_offset)
        pairs_columns(8, true, w, panel, acts, first, n_cols, out);
    else
        pairs_columns(8, false, w, panel, acts, first, n_cols, out);
}

static const cpu_product product_pairs = {.acts_bytes = pairs_acts_bytes,
                                          .prepare = pairs_prepare,
                                          .panel_bytes = pairs_panel_bytes,
                                          .unpack = pairs_unpack,
                                          .multiply = pairs_multiply};

// --------------------------------------------------------------------------------------------------- single rows

static size_t single_pairs_acts_bytes(int n_in) {
    return pair_acts_bytes(n_in, 1);
}

static void single_pairs_prepare(const float *x, int n_in, void *memory) {
    const pair_acts acts = view_acts(memory, n_in, 1);
    int16_t *words = (int16_t *)(void *)acts.words;
    for (int k = 0; k < n_in; k += CPU_CHAIN) {
        const int n = MIN(CPU_CHAIN, n_in - k);
        vf largest = vf_set(0.0f), poison = vf_set(0.0f), scale;
        for (int i = k; i < k + n; i += CPU_LANES) {
            const vf xi = vf_load(x + i);
            largest = vf_max(largest, vf_abs(xi));
            poison = vf_fma(xi, vf_set(0.0f), poison);
        }
        for (int l = 1; l < CPU_LANES; l++) {
            largest[0] = largest[0] < largest[l] ? largest[l] : largest[0];
            poison[0] += poison[l];
        }
        const vf inverse = chain_scale(vf_set(largest[0]), vf_set(poison[0]), &scale);
        acts.scale[k / CPU_CHAIN] = scale[0];
        _Alignas(64) int32_t v[CPU_CHAIN];
        for (int i = 0; i < n; i += CPU_LANES) *(vi *)(void *)(v + i) = vi_round(vf_load(x + k + i) * inverse);
        for (int i = 0; i < n; i += 4) {
            const int16_t four[4] = {(int16_t)v[i], (int16_t)v[i + 2], (int16_t)v[i + 1], (int16_t)v[i + 3]};
            memcpy(words + k + i, four, sizeof four);
        }
        for (int i = 0; i < n; i += 16) {
            int32_t sum = 0, *by32 = (int32_t *)acts.totals[0] + (k + i) / 32;
            for (int j = i; j < i + 16; j++) sum += v[j];
            ((int32_t *)acts.totals[1])[(k + i) / 16] = sum;
            *by32 = i % 32 == 0 ? sum : *by32 + sum;
        }
    }
}

#define SINGLE_VECTORS (PACK_COLS / CPU_LANES)

/// One packed block's part of the chain's sums of all PACK_COLS columns.
static inline __attribute__((always_inline)) void single_pairs_block(int bits, const pack_format *f,
                                                                     const uint8_t *block, size_t block_bytes,
                                                                     const pair_acts *acts, int k,
                                                                     vf acc[SINGLE_VECTORS]) {
    const uint8_t *scales = block + pack_scales_at(f), *offsets = scales + pack_scales_bytes(f);
    const int per_block = pack_scales_per_block(f), steps = PACK_STEPS / per_block;
    const int32_t *a = acts->words + k / 2;
    prefetch(block + SINGLE_AHEAD, block_bytes);
    for (int i = 0; i < per_block; i++) {
        const int32_t total = ((const int32_t *)acts->totals[per_block - 1])[k / PACK_BLOCK * per_block + i];
        vi sums[SINGLE_VECTORS];
#pragma GCC unroll 6
        for (int v = 0; v < SINGLE_VECTORS; v++) sums[v] = vi_set(f->is_signed ? -128 * total : 0);
#pragma GCC unroll 8
        for (int s = i * steps; s < (i + 1) * steps; s++) {
            const vi even = vi_set(a[2 * s]), odd = vi_set(a[2 * s + 1]);
#pragma GCC unroll 6
            for (int v = 0; v < SINGLE_VECTORS; v++) {
                const vi u = load_quants(block, bits, s, v * CPU_LANES);
                sums[v] += vi_multiply_pairs((vi)pair_even(u), even) + vi_multiply_pairs((vi)pair_odd(u), odd);
            }
        }
        const vf total_here = vf_set((float)total * (float)(1 << (8 - bits)));
#pragma GCC unroll 6
        for (int v = 0; v < SINGLE_VECTORS; v++) {
            const int c = i * PACK_COLS + v * CPU_LANES;
            acc[v] = vf_fma(__builtin_convertvector(sums[v], vf), load_scales(scales, f->wide, c), acc[v]);
            if (f->has_offset) acc[v] = vf_fma(total_here, load_scales(offsets, f->wide, c), acc[v]);
        }
    }
}

static inline __attribute__((always_inline)) void single_pairs_columns(int bits, const cpu_matrix *w, int group,
                                                                       const void *acts_memory, int first, int n_cols,
                                                                       float *out) {
    const pair_acts acts = view_acts((void *)(uintptr_t)acts_memory, w->n_in, 1);
    _Alignas(64) float result[PACK_COLS] = {0};
    for (int k = 0; k < w->n_in; k += CPU_CHAIN) {
        vf acc[SINGLE_VECTORS];
        for (int v = 0; v < SINGLE_VECTORS; v++) acc[v] = vf_set(0.0f);
        for (int i = k; i < MIN(k + CPU_CHAIN, w->n_in); i += PACK_BLOCK)
            single_pairs_block(bits, w->format, pack_block(w, group, i / PACK_BLOCK), w->block_bytes, &acts, i, acc);
        const vf scale = vf_set(acts.scale[k / CPU_CHAIN] / (float)(1 << (8 - bits)));
        for (int v = 0; v < SINGLE_VECTORS; v++) {
            float *at = result + v * CPU_LANES;
            vf_store(at, vf_fma(acc[v], scale, vf_load(at)));
        }
    }
    memcpy(out, result + first, (size_t)n_cols * sizeof *out);
}

static void single_pairs_multiply(const cpu_matrix *w, int group, const void *panel, const void *acts, int first,
                                  int n_cols, float *out) {
    (void)panel;
    switch (w->format->bits) {
    case 4:
        single_pairs_columns(4, w, group, acts, first, n_cols, out);
        return;
    case 5:
        single_pairs_columns(5, w, group, acts, first, n_cols, out);
        return;
    case 6:
        single_pairs_columns(6, w, group, acts, first, n_cols, out);
        return;
    default:
        single_pairs_columns(8, w, group, acts, first, n_cols, out);
    }
}

static const cpu_product single_product_pairs = {
    .acts_bytes = single_pairs_acts_bytes, .prepare = single_pairs_prepare, .multiply = single_pairs_multiply};
