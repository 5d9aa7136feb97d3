/*
 * ops_quantised.c: of test_backend_ops: products with every block format: packed weights are exact, products are near
 * the reference at each precision, and a row's bits are its own in any company.
 */
#include "cpu/cpu_kernels.h"
#include "ops_harness.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/// A weight has one exact value, whichever instruction set unpacks it from the packed layout (of zeros, either).
void test_unpack(void **state) {
    (void)state;
    enum { N_OUT = 2 * PACK_COLS + 5, N_IN = 768 };
    for (int t = 0; t < n_quant_types; t++) {
        gguf_tensor tensor = random_blocks(&quant_types[t], N_OUT, N_IN);
        cpu_matrix w = cpu_matrix_make(tensor.type, tensor.data, N_OUT, N_IN);
        w.data = mem_alloc(cpu_pack_bytes(&w), 1);
        float *want = malloc(sizeof(float) * N_OUT * N_IN), *scratch = malloc(sizeof(float) * N_IN);
        float *panel = mem_alloc(PACK_COLS * N_IN, sizeof *panel);
        cpu_matrix_rows(&w, 0, N_OUT, want);
        for (int g = 0; g < cpu_matrix_groups(&w); g++) cpu_pack_group(&w, g, scratch);
        for (int i = 0; i < n_cpu_levels; i++) {
            if (!cpu_levels[i]->supported() || !cpu_levels[i]->packs) continue;
            for (int g = 0; g < cpu_matrix_groups(&w); g++) {
                cpu_levels[i]->product->unpack(&w, g, panel);
                for (int c = 0; c < MIN(PACK_COLS, N_OUT - g * PACK_COLS); c++)
                    for (int k = 0; k < N_IN; k++) {
                        const float *exact = &want[(g * PACK_COLS + c) * N_IN + k], *got = &panel[k * PACK_COLS + c];
                        if (*exact != *got)
                            fail_msg("%s, %s: weight %d of row %d is %.9g, not %.9g", cpu_levels[i]->name,
                                     quant_types[t].name, k, g * PACK_COLS + c, (double)*got, (double)*exact);
                    }
            }
        }
        mem_free(w.data);
        mem_free(panel);
        free(want), free(scratch), free((void *)(uintptr_t)tensor.data);
    }
}

static float *quantised_matmul(backend *b, const gguf_tensor *t, const float *x, int n_rows) {
    const int n_in = (int)t->dims[0], n_out = (int)t->dims[1];
    backend_weight *w = weight(b, *t);
    backend_buffer *in = upload(b, x, n_rows, n_in), *out = b->ops->buffer_create(b, n_rows, n_out);
    b->ops->matmul(b, in, w, NULL, n_rows, out);
    float *result = download(b, out, n_rows, n_out);
    b->ops->buffer_destroy(b, in);
    b->ops->buffer_destroy(b, out);
    b->ops->weight_destroy(b, w);
    return result;
}

/// The reference's product of what bf16 makes of the operands: quants are exact, floats are rounded.
static float *rounded_matmul(backend *reference, const gguf_tensor *t, const float *x, int n_rows) {
    const int n_in = (int)t->dims[0], n_out = (int)t->dims[1];
    float *w = malloc(sizeof *w * (size_t)(n_out * n_in)), *x16 = rounded(x, n_rows * n_in);
    t->type->dequantize(t->data, w, (size_t)(n_out * n_in));
    float *w16 = rounded(w, n_out * n_in);
    const gguf_tensor plain = matrix(t->type->block_weights == 1 ? w16 : w, n_out, n_in);
    float *result = quantised_matmul(reference, &plain, x16, n_rows);
    free(w), free(w16), free(x16);
    return result;
}

/// Products with every format on every level and precision: near the reference, and a row alone, by twos and in tiles
/// the same bits. Activations have outliers, zeros and a chain of zeros.
void test_quantised_matmul(void **state) {
    (void)state;
    enum { N_ROWS = 70, N_OUT = 75, N_IN = 512 };
    float *x = random_floats(N_ROWS * N_IN, 1.0f);
    for (int i = 0; i < N_ROWS * N_IN; i += 97) x[i] = i % 2 ? 0.0f : x[i] * 300.0f;
    memset(x + 3 * N_IN + 128, 0, 128 * sizeof *x);
    backend *reference = make_backend("reference", 1);
    for (int t = 0; t < n_quant_types; t++) {
        gguf_tensor tensor = random_blocks(&quant_types[t], N_OUT, N_IN);
        float *exact = quantised_matmul(reference, &tensor, x, N_ROWS);
        float *of_bf16 = rounded_matmul(reference, &tensor, x, N_ROWS);
        double largest = 0.0;
        for (int i = 0; i < N_ROWS * N_OUT; i++) largest = fmax(largest, fabs((double)exact[i]));
        for (int i = 0; i < N_PRECISIONS * n_tested; i++) {
            const char *precision = precisions[i % N_PRECISIONS], *level = tested[i / N_PRECISIONS];
            const bool fast = strcmp(precision, "fast") == 0, bf16 = strcmp(precision, "bf16") == 0;
            backend *b = make_precision(level, 2, precision);
            if (!b) continue;
            char label[128];
            snprintf(label, sizeof label, "%s, %s, %s", quant_types[t].name, level, precision);
            assert_string_equal(b->precision, precision);
            float *got = quantised_matmul(b, &tensor, x, N_ROWS);
            assert_close(label, got, bf16 ? of_bf16 : exact, N_ROWS * N_OUT,
                         (fast   ? 3e-4
                          : bf16 ? 4e-6
                                 : 1e-6) *
                             largest,
                         0.0);
            for (int r = 0, n; r < N_ROWS; r += n) {
                n = MIN(r < 8 ? 1 : 2 * (r / 8),
                        N_ROWS - r); // 1, 2, 4, … rows: single ones, a part of a tile, two tiles
                float *some = quantised_matmul(b, &tensor, x + r * N_IN, n);
                if (memcmp(some, got + r * N_OUT, (size_t)(n * N_OUT) * sizeof *got) != 0)
                    fail_msg("%s: rows %d to %d have other bits among %d than alone", label, r, r + n - 1, N_ROWS);
                free(some);
            }
            free(got);
            end_backend(b);
        }
        free(exact), free(of_bf16), free((void *)(uintptr_t)tensor.data);
    }
    free(x);
    end_backend(reference);
}

/// Several products of the same rows at once give the bits of each alone: parts of other formats, sizes and products.
void test_matmul_parts(void **state) {
    (void)state;
    enum { N_PARTS = 4, MOST_ROWS = 40, N_IN = 256 };
    static const uint32_t types[N_PARTS] = {3 /* Q4_1 */, 8 /* Q8_0 */, 1 /* F16 */, 14 /* Q6_K */};
    static const int n_out[N_PARTS] = {200, 48, 51, 1}, n_rows[] = {1, 5, MOST_ROWS};
    float *x = random_floats(MOST_ROWS * N_IN, 1.0f), *bias_values = random_floats(200, 1.0f);
    gguf_tensor tensors[N_PARTS];
    for (int i = 0; i < N_PARTS; i++) tensors[i] = random_blocks(quant_find(types[i]), n_out[i], N_IN);
    for (int level = 0; level < 2 * n_tested; level++) {
        backend *b = make_precision(tested[level / 2], 1 + level % 3, level % 2 ? "fast" : "exact");
        if (!b || !b->ops->matmul_parts) {
            if (b) end_backend(b);
            continue;
        }
        backend_weight *bias = weight(b, vector(bias_values, n_out[0]));
        for (size_t n = 0; n < ARRAY_LEN(n_rows); n++) {
            backend_buffer *in = upload(b, x, n_rows[n], N_IN), *alone[N_PARTS];
            matmul_part parts[N_PARTS];
            for (int i = 0; i < N_PARTS; i++) {
                alone[i] = b->ops->buffer_create(b, n_rows[n], n_out[i]);
                parts[i] = (matmul_part){weight(b, tensors[i]), i == 0 ? bias : NULL,
                                         b->ops->buffer_create(b, n_rows[n], n_out[i])};
                b->ops->matmul(b, in, parts[i].w, parts[i].bias, n_rows[n], alone[i]);
            }
            b->ops->matmul_parts(b, in, parts, N_PARTS, n_rows[n]);
            for (int i = 0; i < N_PARTS; i++) {
                float *got = download(b, parts[i].out, n_rows[n], n_out[i]);
                float *want = download(b, alone[i], n_rows[n], n_out[i]);
                if (memcmp(got, want, (size_t)(n_rows[n] * n_out[i]) * sizeof *got) != 0)
                    fail_msg("%s, %d rows: part %d has other bits than alone", tested[level / 2], n_rows[n], i);
                free(got), free(want);
                b->ops->buffer_destroy(b, alone[i]);
                b->ops->buffer_destroy(b, parts[i].out);
                b->ops->weight_destroy(b, (backend_weight *)(uintptr_t)parts[i].w);
            }
            b->ops->buffer_destroy(b, in);
        }
        b->ops->weight_destroy(b, bias);
        end_backend(b);
    }
    for (int i = 0; i < N_PARTS; i++) free((void *)(uintptr_t)tensors[i].data);
    free(x), free(bias_values);
}

/// What is not a finite number in an activation must not become one.
void test_quantised_poison(void **state) {
    (void)state;
    enum { N_ROWS = 40, N_OUT = 50, N_IN = 256 };
    gguf_tensor tensor = random_blocks(quant_find(8), N_OUT, N_IN);
    for (int i = 0; i < 2 * n_tested; i++) {
        backend *b = make_precision(tested[i / 2], 1, i % 2 ? "bf16" : "exact");
        if (!b) continue;
        for (int n = 1; n <= N_ROWS; n += N_ROWS - 1) {
            float *x = random_floats(n * N_IN, 1.0f);
            x[(n - 1) * N_IN + 200] = i % 2 ? NAN : -INFINITY;
            float *got = quantised_matmul(b, &tensor, x, n);
            for (int c = 0; c < N_OUT; c++) {
                assert_true(!isfinite(got[(n - 1) * N_OUT + c]));
                assert_true(n == 1 || isfinite(got[c]));
            }
            free(x), free(got);
        }
        end_backend(b);
    }
    free((void *)(uintptr_t)tensor.data);
}
