/*
 * ops_rows.c: of test_backend_ops: the operations that know rows alone: products, norms, activations, and those that
 * only move rows.
 */
#include "ops_harness.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct shape {
    int n_rows, n_in, n_out, n_groups;
    const float *x, *w, *bias;
} shape;

static float *run_matmul(backend *b, const void *arg, int *n) {
    const shape *s = arg;
    backend_weight *w = weight(b, matrix(s->w, s->n_out, s->n_in));
    backend_weight *bias = s->bias ? weight(b, vector(s->bias, s->n_out)) : NULL;
    backend_buffer *x = upload(b, s->x, s->n_rows, s->n_in), *out = b->ops->buffer_create(b, s->n_rows, s->n_out);
    b->ops->matmul(b, x, w, bias, s->n_rows, out);
    float *result = download(b, out, s->n_rows, s->n_out);
    *n = s->n_rows * s->n_out;
    b->ops->buffer_destroy(b, x);
    b->ops->buffer_destroy(b, out);
    b->ops->weight_destroy(b, w);
    b->ops->weight_destroy(b, bias);
    return result;
}

void test_matmul(void **state) {
    (void)state;
    for (int i = 0; i < 40; i++) {
        shape s = {.n_rows = rng_int(1, 70), .n_in = rng_int(1, 300), .n_out = rng_int(1, 210)};
        float *x = random_floats(s.n_rows * s.n_in, 1.0f), *w = random_floats(s.n_out * s.n_in, 1.0f);
        float *bias = random_floats(s.n_out, 1.0f);
        s.x = x, s.w = w, s.bias = i % 2 ? bias : NULL;
        compare_levels("matmul", run_matmul, &s, 2e-6 * sqrt(s.n_in), 1e-6);
        free(x), free(w), free(bias);
    }
}

static float *run_norm(backend *b, const void *arg, int *n) {
    const shape *s = arg;
    backend_weight *w = weight(b, vector(s->w, s->n_in));
    backend_weight *bias = s->bias ? weight(b, vector(s->bias, s->n_in)) : NULL;
    backend_buffer *x = upload(b, s->x, s->n_rows, s->n_groups * s->n_in);
    b->ops->norm(b, x, w, bias, 1e-5f, s->n_rows, s->n_groups, x); // in place
    float *result = download(b, x, s->n_rows, s->n_groups * s->n_in);
    *n = s->n_rows * s->n_groups * s->n_in;
    b->ops->buffer_destroy(b, x);
    b->ops->weight_destroy(b, w);
    b->ops->weight_destroy(b, bias);
    return result;
}

void test_norm(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        shape s = {
            .n_rows = rng_int(1, 40), .n_in = i < 16 ? rng_int(2, 99) : rng_int(300, 700), .n_groups = rng_int(1, 4)};
        float *x = random_floats(s.n_rows * s.n_in * s.n_groups, i % 3 ? 3.0f : 1e4f), *w = random_floats(s.n_in, 2.0f);
        float *bias = random_floats(s.n_in, 1.0f);
        s.x = x, s.w = w, s.bias = i % 2 ? bias : NULL;
        compare_levels(i % 2 ? "layer norm" : "rms norm", run_norm, &s, 1e-7, 3e-7);
        free(x), free(w), free(bias);
    }
}

typedef struct residual_shape {
    int n_rows, n;
    const float *x, *y, *y_norm, *w, *bias; // y_norm, w, bias may be NULL
} residual_shape;

/// x, then out where there is a norm. in_parts: by norm and an addition here.
static float *end_half_block(backend *b, const residual_shape *s, bool in_parts) {
    const backend_ops *op = b->ops;
    const int n_all = s->n_rows * s->n;
    backend_weight *y_norm = weight_or_null(b, s->y_norm, s->n), *w = weight_or_null(b, s->w, s->n);
    backend_weight *bias = weight_or_null(b, s->bias, s->n);
    backend_buffer *x = upload(b, s->x, s->n_rows, s->n), *y = upload(b, s->y, s->n_rows, s->n);
    backend_buffer *out = op->buffer_create(b, s->n_rows, s->n);
    if (in_parts) {
        if (y_norm) op->norm(b, y, y_norm, NULL, 1e-5f, s->n_rows, 1, y);
        float *sum = download(b, y, s->n_rows, s->n);
        for (int i = 0; i < n_all; i++) sum[i] += s->x[i];
        op->buffer_write(b, x, sum, s->n_rows);
        if (w) op->norm(b, x, w, bias, 1e-5f, s->n_rows, 1, out);
        free(sum);
    } else {
        op->add_norm(b, x, y, y_norm, w, bias, 1e-5f, s->n_rows, w ? out : NULL);
    }
    float *result = malloc(sizeof *result * 2 * (size_t)n_all), *part = download(b, x, s->n_rows, s->n);
    memcpy(result, part, (size_t)n_all * sizeof *part);
    free(part);
    if (w) {
        part = download(b, out, s->n_rows, s->n);
        memcpy(result + n_all, part, (size_t)n_all * sizeof *part);
        free(part);
    }
    op->buffer_destroy(b, x);
    op->buffer_destroy(b, y);
    op->buffer_destroy(b, out);
    op->weight_destroy(b, y_norm);
    op->weight_destroy(b, w);
    op->weight_destroy(b, bias);
    return result;
}

static float *run_add_norm(backend *b, const void *arg, int *n) {
    const residual_shape *s = arg;
    *n = s->n_rows * s->n * (s->w ? 2 : 1);
    return end_half_block(b, s, false);
}

/// The bits of norm, addition and norm, and of the last row alone.
static void check_residual(backend *b, const char *name, const residual_shape *s) {
    const size_t n = (size_t)s->n, n_all = (size_t)s->n_rows * n, last = n_all - n, n_out = s->w ? 2 : 1;
    residual_shape row = *s;
    row.n_rows = 1, row.x += last, row.y += last;
    float *got = end_half_block(b, s, false), *parts = end_half_block(b, s, true);
    float *alone = end_half_block(b, &row, false);
    if (memcmp(got, parts, n_out * n_all * sizeof *got) != 0)
        fail_msg("%s: add_norm has other bits than its parts", name);
    for (size_t i = 0; i < n_out; i++)
        if (memcmp(alone + i * n, got + i * n_all + last, n * sizeof *got) != 0)
            fail_msg("%s: the last of %d rows has other bits alone", name, s->n_rows);
    free(got), free(parts), free(alone);
}

void test_add_norm(void **state) {
    (void)state;
    for (int i = 0; i < 24; i++) {
        residual_shape s = {.n_rows = rng_int(1, 40), .n = i < 20 ? rng_int(2, 99) : rng_int(300, 700)};
        float *x = random_floats(s.n_rows * s.n, 3.0f), *y = random_floats(s.n_rows * s.n, i % 5 ? 3.0f : 1e4f);
        float *weights = random_floats(3 * s.n, 2.0f);
        s.x = x, s.y = y;
        s.y_norm = i % 2 ? weights : NULL;
        s.w = i % 3 ? weights + s.n : NULL;
        s.bias = s.w && i % 4 < 2 ? weights + 2 * s.n : NULL;
        compare_levels("add and norm", run_add_norm, &s, 2e-6, 1e-6);
        for (int t = 0; t < n_tested; t++) {
            backend *b = make_backend(tested[t], 2);
            check_residual(b, tested[t], &s);
            end_backend(b);
        }
        free(x), free(y), free(weights);
    }
}

static float *run_glu(backend *b, const void *arg, int *n) {
    const shape *s = arg;
    backend_buffer *gate = upload(b, s->x, s->n_rows, s->n_in), *up = upload(b, s->w, s->n_rows, s->n_in);
    b->ops->glu(b, s->n_groups ? ACT_SILU : ACT_GELU_TANH, s->n_rows, gate, s->bias ? up : NULL);
    float *result = download(b, gate, s->n_rows, s->n_in);
    *n = s->n_rows * s->n_in;
    b->ops->buffer_destroy(b, gate);
    b->ops->buffer_destroy(b, up);
    return result;
}

void test_glu(void **state) {
    (void)state;
    for (int i = 0; i < 16; i++) {
        shape s = {.n_rows = rng_int(1, 40), .n_in = rng_int(1, 50), .n_groups = i % 2};
        float *x = random_floats(s.n_rows * s.n_in, i < 8 ? 4.0f : 200.0f),
              *up = random_floats(s.n_rows * s.n_in, 1.0f);
        s.x = x, s.w = up, s.bias = i % 4 < 2 ? up : NULL;
        compare_levels("activation", run_glu, &s, 5e-7, 1e-6);
        free(x), free(up);
    }
}

/// The operations that only move rows: embed of every format, gather, writing and reading.
static float *run_embed(backend *b, const void *arg, int *n) {
    const gguf_tensor *t = arg;
    const int n_in = (int)t->dims[0], n_out = (int)t->dims[1];
    enum { N_ROWS = 19 };
    int32_t ids[N_ROWS], reversed[N_ROWS];
    for (int r = 0; r < N_ROWS; r++) {
        ids[r] = (r * 37 + 5) % n_out;
        reversed[r] = N_ROWS - 1 - r;
    }
    backend_weight *w = weight(b, *t);
    backend_buffer *rows = b->ops->buffer_create(b, N_ROWS, n_in), *out = b->ops->buffer_create(b, N_ROWS, n_in);
    b->ops->embed(b, w, ids, N_ROWS, 1.5f, rows);
    b->ops->gather(b, rows, reversed, N_ROWS, out);
    float *result = malloc(sizeof(float) * (size_t)(N_ROWS * n_in));
    b->ops->buffer_read(b, out, reversed, N_ROWS, result);
    *n = N_ROWS * n_in;
    b->ops->buffer_destroy(b, rows);
    b->ops->buffer_destroy(b, out);
    b->ops->weight_destroy(b, w);
    return result;
}

/// Quantised weights are exact; a float packed for the GPU keeps 2^-23 of the largest of its 32 neighbours, or 2^-9 of
/// itself.
void test_embed(void **state) {
    (void)state;
    for (int t = 0; t < n_quant_types; t++) {
        gguf_tensor tensor = random_blocks(&quant_types[t], 150, 768);
        const bool floats = quant_types[t].block_weights == 1;
        compare_precision("exact", quant_types[t].name, run_embed, &tensor, floats ? 8e-7 : 0.0, 0.0);
        compare_precision("bf16", quant_types[t].name, run_embed, &tensor, 1e-38, floats ? 0x1p-8 : 0.0);
        free((void *)(uintptr_t)tensor.data);
    }
}
