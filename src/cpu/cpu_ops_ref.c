/*
 * cpu_ops_ref.c: the reference kernels: one row a tile, plain loops, sums and functions in double and rounded to f32
 * once at the end of each operation. Slow and easy to check by eye; the truth for every other level and for the GPU.
 */
#include "cpu/cpu_kernels.h"
#include <math.h>

static _Bool supported(void) {
    return 1;
}

static void gemm(const float *a, int n_k, const float *w, ptrdiff_t stride, int n_cols, float *out) {
    for (int c = 0; c < n_cols; c++) {
        double sum = 0.0;
        for (int k = 0; k < n_k; k++) sum += (double)a[k] * (double)w[k * stride + c];
        out[c] = (float)sum;
    }
}

static size_t panel_bytes(const cpu_matrix *w) {
    return (size_t)w->n_in * PACK_COLS * sizeof(float);
}

/// The rows of the file, [PACK_COLS][n_in].
static void unpack(const cpu_matrix *w, int group, void *panel) {
    cpu_matrix_rows(w, group * PACK_COLS, MIN(PACK_COLS, w->n_out - group * PACK_COLS), panel);
}

static void multiply(const cpu_matrix *w, int group, const void *panel, const void *acts, int first, int n_cols,
                     float *out) {
    (void)group;
    const float *x = acts;
    for (int c = 0; c < n_cols; c++) {
        const float *row = (const float *)panel + (ptrdiff_t)(first + c) * w->n_in;
        double sum = 0.0;
        for (int k = 0; k < w->n_in; k++) sum += (double)x[k] * (double)row[k];
        out[c] = (float)sum;
    }
}

static const cpu_product product = {.panel_bytes = panel_bytes, .unpack = unpack, .multiply = multiply};

static void norm(const float *x, const float *w, const float *bias, float eps, int n, float *out) {
    double mean = 0.0, variance = 0.0;
    for (int i = 0; bias && i < n; i++) mean += (double)x[i] / n;
    for (int i = 0; i < n; i++) variance += ((double)x[i] - mean) * ((double)x[i] - mean) / n;
    const double scale = 1.0 / sqrt(variance + (double)eps);
    for (int i = 0; i < n; i++)
        out[i] = (float)(((double)x[i] - mean) * scale * (double)w[i] + (bias ? (double)bias[i] : 0.0));
}

static void rope(const float *table, int n_rot, bool neox, float *head) {
    const int half = n_rot / 2;
    for (int i = 0; i < half; i++) {
        float *p0 = head + (neox ? i : 2 * i), *p1 = p0 + (neox ? half : 1);
        const double c = (double)table[2 * i], s = (double)table[2 * i + 1], x0 = (double)*p0, x1 = (double)*p1;
        *p0 = (float)(x0 * c - x1 * s);
        *p1 = (float)(x0 * s + x1 * c);
    }
}

static void glu(activation act, int n, float *gate, const float *up) {
    const double sqrt_2_over_pi = 0.79788456080286535588;
    for (int i = 0; i < n; i++) {
        const double x = (double)gate[i];
        const double y =
            act == ACT_SILU ? x / (1.0 + exp(-x)) : 0.5 * x * (1.0 + tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x)));
        gate[i] = (float)(up ? y * (double)up[i] : y);
    }
}

static void add(int n, float *x, const float *y) {
    for (int i = 0; i < n; i++) x[i] += y[i];
}

static void softcap(int n, float *x, float cap) {
    for (int i = 0; i < n; i++) x[i] = (float)((double)cap * tanh((double)x[i] / (double)cap));
}

static void softmax_step(float *scores, int n_keys, int key_first, const int32_t *lo, const int32_t *hi,
                         const attention_params *params, float *max, float *sum, float *correction) {
    float new_max = *max;
    for (int j = 0; j < n_keys; j++) {
        double s = (double)scores[j] * (double)params->scale;
        if (params->softcap > 0.0f) s = (double)params->softcap * tanh(s / (double)params->softcap);
        const bool seen = key_first + j >= *lo && key_first + j <= *hi;
        scores[j] = seen ? (float)s : -INFINITY;
        new_max = MAX(new_max, scores[j]);
    }
    const double base = new_max == -INFINITY ? 0.0 : (double)new_max;
    double total = 0.0;
    for (int j = 0; j < n_keys; j++) {
        scores[j] = (float)exp((double)scores[j] - base);
        total += (double)scores[j];
    }
    *correction = (float)exp((double)*max - base);
    *sum = (float)((double)*sum * (double)*correction + total);
    *max = new_max;
}

static void scale_add(int n, float *acc, const float *factor, const float *x) {
    for (int i = 0; i < n; i++) acc[i] = (float)((double)acc[i] * (double)*factor + (double)x[i]);
}

static void stats(const float *logits, int n_cols, int n_lanes, cpu_stats *s) {
    (void)n_lanes;
    float new_max = *s->max;
    for (int c = 0; c < n_cols; c++) new_max = MAX(new_max, logits[c]);
    const double base = new_max == -INFINITY ? 0.0 : (double)new_max;
    for (int t = 0; t < s->n_temperatures; t++) {
        double *sums = s->sums + 3 * (ptrdiff_t)t;
        const double inv_t = (double)s->inv_t[t];
        if (sums[0] > 0.0 && new_max > *s->max) {
            const double d = ((double)*s->max - (double)new_max) * inv_t, e = exp(d);
            sums[2] = e * (sums[2] + d * (2.0 * sums[1] + d * sums[0]));
            sums[1] = e * (sums[1] + d * sums[0]);
            sums[0] *= e;
        }
        for (int c = 0; c < n_cols; c++) {
            const double x = ((double)logits[c] - base) * inv_t, e = exp(x);
            sums[0] += e;
            if (e == 0.0) continue; // x may be -inf
            sums[1] += x * e;
            sums[2] += x * x * e;
        }
    }
    *s->max = new_max;
}

static void count_above(const float *logits, int n_cols, int n_lanes, const float *target, int32_t *count) {
    (void)n_lanes;
    for (int c = 0; c < n_cols; c++) *count += logits[c] > *target;
}

static void find_above(const float *logits, int n_cols, int n_lanes, const float *threshold, uint32_t *hits) {
    (void)n_lanes;
    for (int c = 0; c < n_cols; c++) hits[c] = !(logits[c] <= *threshold);
}

const cpu_kernels cpu_kernels_reference = {
    .name = "reference",
    .block_m = 1,
    .supported = supported,
    .product = &product,
    .gemm = gemm,
    .norm = norm,
    .rope = rope,
    .glu = glu,
    .add = add,
    .add_scalar = add, // one lane: a bias of n is a vector of n
    .softcap = softcap,
    .softmax_step = softmax_step,
    .scale_add = scale_add,
    .stats = stats,
    .count_above = count_above,
    .find_above = find_above,
};
