/*
 * cpu_kernels_simd.h: the kernels of cpu_kernels.h for one vector width, included once by each cpu_ops_<level>.c with
 *
 *   CPU_LEVEL   name of the level: the table becomes cpu_kernels_<level>
 *   CPU_LANES   floats of a vector register
 *   CPU_BLOCK_N weight columns of the gemm's register tile: 2 * CPU_BLOCK_N accumulators must fit the registers
 *
 * A tile is two vectors wide (block_m = 2 * CPU_LANES), so that one broadcast weight feeds two multiply-adds.
 */
#include "cpu/cpu_kernels.h"
#include "cpu/cpu_vec.h"
#include "quant_blocks.h"
#include <assert.h>

#define BM (2 * CPU_LANES)
// k-steps of one chain of f32 additions: the chains' sums are added after, which keeps rounding errors small, and a
// chain of the activation tile (CHAIN * BM * 4 bytes) stays in L1 while all columns of a panel use it.
#define CHAIN 128

static_assert(BM <= CPU_MAX_BLOCK_M, "lane masks have 32 bits");

// -------------------------------------------------------------------------------------------------------- gemm

/// One register tile: n_cols (a constant after inlining) columns over n_k steps; first: overwrite out, else add to it.
static inline __attribute__((always_inline)) void gemm_tile(const float *a, int n_k, const float *w, ptrdiff_t stride_n,
                                                            ptrdiff_t stride_k, int n_cols, bool first, float *out) {
    vf acc0[CPU_BLOCK_N], acc1[CPU_BLOCK_N];
#pragma GCC unroll 16
    for (int c = 0; c < n_cols; c++) acc0[c] = acc1[c] = vf_set(0.0f);
    for (int k = 0; k < n_k; k++) {
        const vf a0 = vf_load(a + (ptrdiff_t)k * BM), a1 = vf_load(a + (ptrdiff_t)k * BM + CPU_LANES);
#pragma GCC unroll 16
        for (int c = 0; c < n_cols; c++) {
            const vf wc = vf_set(w[c * stride_n + k * stride_k]);
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

/// All columns of one chain. unit_k: stride_k is 1, else stride_n is 1; a constant after inlining.
static inline __attribute__((always_inline)) void gemm_chain(const float *a, int n_k, const float *w, ptrdiff_t stride,
                                                             bool unit_k, int n_cols, bool first, float *out) {
    const ptrdiff_t stride_n = unit_k ? stride : 1, stride_k = unit_k ? 1 : stride;
    int c = 0;
    for (; c + CPU_BLOCK_N <= n_cols; c += CPU_BLOCK_N)
        gemm_tile(a, n_k, w + c * stride_n, stride_n, stride_k, CPU_BLOCK_N, first, out + c * BM);
    for (; c + 2 <= n_cols; c += 2) // the tail of a matrix whose height is no multiple of the tile
        gemm_tile(a, n_k, w + c * stride_n, stride_n, stride_k, 2, first, out + c * BM);
    if (c < n_cols) gemm_tile(a, n_k, w + c * stride_n, stride_n, stride_k, 1, first, out + c * BM);
}

static void gemm(const float *a, int n_k, const float *w, ptrdiff_t stride_n, ptrdiff_t stride_k, int n_cols,
                 float *out) {
    for (int k = 0; k < n_k; k += CHAIN) {
        const int n = MIN(CHAIN, n_k - k);
        if (stride_k == 1)
            gemm_chain(a + (ptrdiff_t)k * BM, n, w + k, stride_n, true, n_cols, k == 0, out);
        else
            gemm_chain(a + (ptrdiff_t)k * BM, n, w + k * stride_k, stride_k, false, n_cols, k == 0, out);
    }
}

// ------------------------------------------------------------------------------------------ norms and activations

static void norm(const float *x, const float *w, const float *bias, float eps, int n, float *out) {
    for (int v = 0; v < BM; v += CPU_LANES) {
        vd mean = {0}, sum_squares = {0};
        for (int i = 0; bias && i < n; i++) mean += __builtin_convertvector(vf_load(x + i * BM + v), vd);
        mean /= (double)n;
        for (int i = 0; i < n; i++) {
            const vd d = __builtin_convertvector(vf_load(x + i * BM + v), vd) - mean;
            sum_squares += d * d;
        }
        vd scale;
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

static void softmax_step(float *scores, int n_keys, int key_first, const int32_t *lo, const int32_t *hi,
                         const attention_params *params, float *max, float *sum, float *correction) {
    const vf minus_inf = vf_set(-INFINITY);
    for (int v = 0; v < BM; v += CPU_LANES) {
        vi first, last;
        memcpy(&first, lo + v, sizeof first);
        memcpy(&last, hi + v, sizeof last);
        const vf old_max = vf_load(max + v);
        vf new_max = old_max;
        for (int j = 0; j < n_keys; j++) {
            vf s = vf_load(scores + j * BM + v) * params->scale;
            if (params->softcap > 0.0f) s = vf_tanh(s / params->softcap) * params->softcap;
            const vi key = vi_set(key_first + j);
            s = vf_select((key >= first) & (key <= last), s, minus_inf);
            vf_store(scores + j * BM + v, s);
            new_max = vf_max(new_max, s);
        }
        const vf base = vf_select(new_max == minus_inf, vf_set(0.0f), new_max); // no key yet: every exp is 0
        const vf factor = vf_exp(old_max - base);
        vf total = vf_set(0.0f);
        for (int j = 0; j < n_keys; j++) {
            const vf e = vf_exp(vf_load(scores + j * BM + v) - base);
            vf_store(scores + j * BM + v, e);
            total += e;
        }
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

static void stats(const float *logits, int n_cols, cpu_stats *s) {
    _Alignas(64) float new_max[BM];
    bool larger = false;
    for (int v = 0; v < BM; v += CPU_LANES) {
        const vf old = vf_load(s->max + v);
        vf m = old;
        for (int c = 0; c < n_cols; c++) m = vf_max(m, vf_load(logits + c * BM + v));
        vf_store(new_max + v, m);
        larger |= vi_mask(m > old) != 0;
    }
    if (larger) rebase(s, new_max);
    for (int t = 0; t < s->n_temperatures; t++) {
        for (int v = 0; v < BM; v += CPU_LANES) {
            const vf max = vf_load(new_max + v), m = vf_select(max == vf_set(-INFINITY), vf_set(0.0f), max);
            const vf inv_t = vf_load(s->inv_t + t * BM + v), floor = vf_set(-88.0f);
            vf p0 = vf_set(0.0f), p1 = p0, p2 = p0;
            for (int c = 0; c < n_cols; c++) {
                vf x = (vf_load(logits + c * BM + v) - m) * inv_t;
                x = vf_select(x < floor, floor, x); // its exp is 0: keeps 0 * x finite
                const vf e = vf_exp(x), xe = x * e;
                p0 += e;
                p1 += xe;
                p2 = vf_fma(x, xe, p2);
            }
            double *sums = s->sums + (ptrdiff_t)t * 3 * BM + v;
            *(vd *)sums += __builtin_convertvector(p0, vd);
            *(vd *)(sums + BM) += __builtin_convertvector(p1, vd);
            *(vd *)(sums + 2 * BM) += __builtin_convertvector(p2, vd);
        }
    }
}

static void count_above(const float *logits, int n_cols, const float *target, int32_t *count) {
    for (int v = 0; v < BM; v += CPU_LANES) {
        const vf t = vf_load(target + v);
        vi n = {0};
        for (int c = 0; c < n_cols; c++) n -= vf_load(logits + c * BM + v) > t;
        for (int l = 0; l < CPU_LANES; l++) count[v + l] += n[l];
    }
}

static void find_above(const float *logits, int n_cols, const float *threshold, uint32_t *hits) {
    const vf t0 = vf_load(threshold), t1 = vf_load(threshold + CPU_LANES);
    const vf inf = vf_set(INFINITY);
    const vi open0 = ~(t0 <= inf), open1 = ~(t1 <= inf); // NaN
    for (int c = 0; c < n_cols; c++) {
        const uint32_t low = vi_mask((vf_load(logits + c * BM) > t0) | open0);
        const uint32_t high = vi_mask((vf_load(logits + c * BM + CPU_LANES) > t1) | open1);
        hits[c] = low | high << CPU_LANES;
    }
}

// ------------------------------------------------------------------------------------------------------- table

static void dequantize(const quant_type *type, const void *src, float *dst, size_t n) {
    // The same functions, compiled for this instruction set.
    static const quant_type types[] = {QUANT_TABLE};
    types[type - quant_types].dequantize(src, dst, n);
}

#define CPU_TABLE_(level) cpu_kernels_##level
#define CPU_TABLE(level)  CPU_TABLE_(level)
#define CPU_TEXT_(level)  #level
#define CPU_TEXT(level)   CPU_TEXT_(level)

const cpu_kernels CPU_TABLE(CPU_LEVEL) = {
    .name = CPU_TEXT(CPU_LEVEL),
    .block_m = BM,
    .block_n = CPU_BLOCK_N,
    .supported = supported,
    .dequantize = dequantize,
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
