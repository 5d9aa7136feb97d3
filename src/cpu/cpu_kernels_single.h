/*
 * cpu_kernels_single.h: the kernels for tiles of one row, where the lanes are features, weight columns or keys.
 * Included by cpu_kernels_simd.h after the kernels for whole tiles, whose arithmetic these repeat, element by element
 * and in the same order. Arrays are padded to a whole vector, and what stands in the padding is never used.
 */

// Columns of one pass of single_gemm: their accumulators must fit the registers and hide a multiply-add's latency.
#define SINGLE_COLS PACK_COLS

/// Columns 0 … n_cols - 1 of one chain, n_vectors (a constant after inlining) registers wide.
static inline __attribute__((always_inline)) void single_tile(const float *a, int n_k, const float *w, ptrdiff_t stride,
                                                              int n_vectors, bool first, float *out) {
    vf acc[SINGLE_COLS / CPU_LANES];
#pragma GCC unroll 16
    for (int v = 0; v < n_vectors; v++) acc[v] = vf_set(0.0f);
    for (int k = 0; k < n_k; k++) {
        const vf ak = vf_set(a[k]);
#pragma GCC unroll 16
        for (int v = 0; v < n_vectors; v++)
            acc[v] = vf_fma(ak, vf_load_anywhere(w + k * stride + v * CPU_LANES), acc[v]);
    }
#pragma GCC unroll 16
    for (int v = 0; v < n_vectors; v++) {
        if (!first) acc[v] += vf_load_anywhere(out + v * CPU_LANES);
        vf_store_anywhere(out + v * CPU_LANES, acc[v]);
    }
}

/// The last n_cols < CPU_LANES columns: nothing beyond them is read or written.
static void single_tail(const float *a, int n_k, const float *w, ptrdiff_t stride, int n_cols, bool first, float *out) {
    vf acc = vf_set(0.0f), wk = vf_set(0.0f), old = vf_set(0.0f);
    for (int k = 0; k < n_k; k++) {
        memcpy(&wk, w + k * stride, (size_t)n_cols * sizeof *w);
        acc = vf_fma(vf_set(a[k]), wk, acc);
    }
    memcpy(&old, out, (size_t)n_cols * sizeof *out);
    if (!first) acc += old;
    memcpy(out, &acc, (size_t)n_cols * sizeof *out);
}

static void single_chain(const float *a, int n_k, const float *w, ptrdiff_t stride, int n_cols, bool first,
                         float *out) {
    int c = 0;
    for (; c + SINGLE_COLS <= n_cols; c += SINGLE_COLS)
        single_tile(a, n_k, w + c, stride, SINGLE_COLS / CPU_LANES, first, out + c);
    for (; c + CPU_LANES <= n_cols; c += CPU_LANES) single_tile(a, n_k, w + c, stride, 1, first, out + c);
    if (c < n_cols) single_tail(a, n_k, w + c, stride, n_cols - c, first, out + c);
}

static void single_gemm(const float *a, int n_k, const float *w, ptrdiff_t stride, int n_cols, float *out) {
    for (int k = 0; k < n_k; k += CPU_CHAIN)
        single_chain(a + k, MIN(CPU_CHAIN, n_k - k), w + k * stride, stride, n_cols, k == 0, out);
}

// Vectors of columns that go through a chain of blocks together: enough to hide a multiply-add's latency, few enough
// for their sums, scales, offsets and quants to stay in registers.
#define SINGLE_STREAM 3
#define SINGLE_AHEAD  4096 // bytes

/// One packed block's part of a chain's sums, SINGLE_STREAM vectors of columns from c on. Weights are unpacked in
/// registers, with unpack_block's arithmetic. Formats are either signed or have offsets.
static inline __attribute__((always_inline)) void single_block(const pack_format *f, int bits, bool has_offset,
                                                               const uint8_t *block, const float *a, int c,
                                                               vf acc[SINGLE_STREAM]) {
    const int per_block = pack_scales_per_block(f), steps = PACK_STEPS / per_block;
    for (int i = 0; i < per_block; i++) {
        vf scale[SINGLE_STREAM], offset[SINGLE_STREAM];
#pragma GCC unroll 3
        for (int v = 0; v < SINGLE_STREAM; v++)
            load_affine(f, bits, has_offset, block, i * PACK_COLS + c + v * CPU_LANES, &scale[v], &offset[v]);
        for (int s = i * steps; s < (i + 1) * steps; s++) {
            vi q[SINGLE_STREAM];
#pragma GCC unroll 3
            for (int v = 0; v < SINGLE_STREAM; v++) q[v] = load_quants(block, bits, s, c + v * CPU_LANES);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const vf ak = vf_set(a[4 * s + j]);
#pragma GCC unroll 3
                for (int v = 0; v < SINGLE_STREAM; v++) {
                    const vf weight = dequantize_byte(q[v], j, has_offset, scale[v], offset[v]);
                    acc[v] = vf_fma(ak, weight, acc[v]);
                }
            }
        }
    }
}

static inline __attribute__((always_inline)) void single_columns(int bits, bool has_offset, const cpu_matrix *w,
                                                                 int group, const float *a, float *sums) {
    for (int k = 0; k < w->n_in; k += CPU_CHAIN) {
        const int end = MIN(k + CPU_CHAIN, w->n_in);
        prefetch(pack_block(w, group, k / PACK_BLOCK) + SINGLE_AHEAD,
                 (size_t)((end - k) / PACK_BLOCK) * w->block_bytes); // the next chain
        for (int c = 0; c < PACK_COLS; c += SINGLE_STREAM * CPU_LANES) {
            vf acc[SINGLE_STREAM];
            for (int v = 0; v < SINGLE_STREAM; v++) acc[v] = vf_set(0.0f);
            for (int i = k; i < end; i += PACK_BLOCK)
                single_block(w->format, bits, has_offset, pack_block(w, group, i / PACK_BLOCK), a + i, c, acc);
            for (int v = 0; v < SINGLE_STREAM; v++) {
                float *at = sums + c + v * CPU_LANES;
                if (k > 0) acc[v] += vf_load(at);
                vf_store(at, acc[v]);
            }
        }
    }
}

/// Plain numbers, one chain's at a time through L1.
static void single_plain(const cpu_matrix *w, int group, const float *a, float *sums) {
    _Alignas(64) float weights[CPU_CHAIN * PACK_COLS];
    for (int k = 0; k < w->n_in; k += CPU_CHAIN) {
        const int n = MIN(CPU_CHAIN, w->n_in - k);
        unpack_range(w, group, k, n, weights);
        single_chain(a + k, n, weights, PACK_COLS, PACK_COLS, k == 0, sums);
    }
}

static void single_multiply(const cpu_matrix *w, int group, const void *panel, const void *acts, int first, int n_cols,
                            float *out) {
    (void)panel;
    _Alignas(64) float sums[PACK_COLS];
    switch (w->format->bits * 2 + w->format->has_offset) {
    case 4 * 2:
        single_columns(4, false, w, group, acts, sums);
        break;
    case 4 * 2 + 1:
        single_columns(4, true, w, group, acts, sums);
        break;
    case 5 * 2:
        single_columns(5, false, w, group, acts, sums);
        break;
    case 5 * 2 + 1:
        single_columns(5, true, w, group, acts, sums);
        break;
    case 6 * 2:
        single_columns(6, false, w, group, acts, sums);
        break;
    case 8 * 2:
        single_columns(8, false, w, group, acts, sums);
        break;
    default:
        ASSERT(w->format->bits == 0);
        single_plain(w, group, acts, sums);
    }
    memcpy(out, sums + first, (size_t)n_cols * sizeof *out);
}

static const cpu_product single_product_f32 = {.multiply = single_multiply};

static void single_norm(const float *x, const float *w, const float *bias, float eps, int n, float *out) {
    double mean = 0.0, sums[NORM_CHAINS] = {0};
    if (bias) {
        for (int i = 0; i < n; i++) sums[i % NORM_CHAINS] += (double)x[i];
        mean = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / (double)n;
        memset(sums, 0, sizeof sums);
    }
    int i = 0;
    for (; i + NORM_CHAINS <= n; i += NORM_CHAINS)
        for (int j = 0; j < NORM_CHAINS; j++) {
            const double d = (double)x[i + j] - mean;
            sums[j] += d * d;
        }
    for (; i < n; i++) {
        const double d = (double)x[i] - mean;
        sums[i % NORM_CHAINS] += d * d;
    }
    const double scale = 1.0 / sqrt(((sums[0] + sums[1]) + (sums[2] + sums[3])) / n + (double)eps);
    for (i = 0; i < n; i++) {
        double y = ((double)x[i] - mean) * scale * (double)w[i];
        if (bias) y += (double)bias[i];
        out[i] = (float)y;
    }
}

static void single_rope(const float *table, int n_rot, bool neox, float *head) {
    const int half = n_rot / 2;
    for (int i = 0; i < half; i++) {
        float *p0 = head + (neox ? i : 2 * i), *p1 = p0 + (neox ? half : 1);
        const float c = table[2 * i], s = table[2 * i + 1], x0 = *p0, x1 = *p1;
        *p0 = x0 * c - x1 * s;
        *p1 = x0 * s + x1 * c;
    }
}

static void single_glu(activation act, int n, float *gate, const float *up) {
    for (int i = 0; i < n; i += CPU_LANES) {
        vf y = activate(act, vf_load(gate + i));
        if (up) y *= vf_load(up + i);
        vf_store(gate + i, y);
    }
}

static void single_add(int n, float *x, const float *y) {
    for (int i = 0; i < n; i += CPU_LANES) vf_store(x + i, vf_load(x + i) + vf_load(y + i));
}

static void single_add_scalar(int n, float *x, const float *bias) {
    for (int i = 0; i < n; i++) x[i] += bias[i];
}

static void single_softcap(int n, float *x, float cap) {
    for (int i = 0; i < n; i += CPU_LANES) vf_store(x + i, vf_tanh(vf_load(x + i) / cap) * cap);
}

static void single_softmax_step(float *scores, int n_keys, int key_first, const int32_t *lo, const int32_t *hi,
                                const attention_params *params, float *max, float *sum, float *correction) {
    vi lane;
    for (int l = 0; l < CPU_LANES; l++) lane[l] = l;
    vf largest = vf_set(*max);
    for (int j = 0; j < n_keys; j += CPU_LANES) { // the scores of the last vector's other keys are masked out
        const vi key = lane + (key_first + j);
        const vf s =
            vf_select((key >= *lo) & (key <= *hi), scaled_score(vf_load(scores + j), params), vf_set(-INFINITY));
        vf_store(scores + j, s);
        largest = vf_max(largest, s);
    }
    float new_max = *max;
    for (int l = 0; l < CPU_LANES; l++) new_max = new_max < largest[l] ? largest[l] : new_max;
    const vf base = vf_set(new_max == -INFINITY ? 0.0f : new_max), old_max = vf_set(*max);
    vf factor;
    exp2_below(1, &old_max, base, &factor);
    for (int j = 0; j < n_keys; j += CPU_LANES) exp2_below(1, (vf *)(scores + j), base, (vf *)(scores + j));
    float totals[SOFTMAX_CHAINS] = {0};
    for (int j = 0; j < n_keys; j++) totals[j % SOFTMAX_CHAINS] += scores[j];
    const vf total = vf_set((totals[0] + totals[1]) + (totals[2] + totals[3]));
    *max = new_max;
    *sum = vf_fma(vf_set(*sum), factor, total)[0];
    *correction = factor[0];
}

static void single_scale_add(int n, float *acc, const float *factor, const float *x) {
    const vf f = vf_set(*factor);
    for (int i = 0; i < n; i += CPU_LANES) vf_store(acc + i, vf_fma(vf_load(acc + i), f, vf_load(x + i)));
}

#ifdef CPU_LIMBS
static const cpu_product single_product_limbs, single_product_fast; // cpu_kernels_limbs.h
#endif
#ifdef CPU_PAIRS
static const cpu_product single_product_pairs; // cpu_kernels_pairs.h
#endif

static const cpu_kernels single = {
    .name = "single row",
    .block_m = 1,
    .packs = true,
    .supported = supported,
    .product = &single_product_f32,
#ifdef CPU_LIMBS
    .product_limbs = &single_product_limbs,
    .product_fast = &single_product_fast,
#endif
#ifdef CPU_PAIRS
    .product_fast = &single_product_pairs,
#endif
    .gemm = single_gemm,
    .norm = single_norm,
    .rope = single_rope,
    .glu = single_glu,
    .add = single_add,
    .add_scalar = single_add_scalar,
    .softcap = single_softcap,
    .softmax_step = single_softmax_step,
    .scale_add = single_scale_add,
};
