/*
 * test_backend_ops.c: every operation of every backend against the scalar reference (the CPU level of that name), on
 * random shapes that are no multiple of any tile; and the promise that a row's bits depend on nothing but the row.
 *
 *     test_backend_ops          every CPU level that this machine can run
 *     test_backend_ops cuda [TEST]     the GPU, or the look-alike of its driver that LD_LIBRARY_PATH puts first
 */
#include "backend.h"
#include "cpu/cpu_kernels.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// ------------------------------------------------------------------------------------------------------ random data

static uint64_t rng_state = 1;

static uint32_t rng(void) { // xorshift64*
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return (uint32_t)((rng_state * 2685821657736338717ull) >> 32);
}

static int rng_int(int lo, int hi) {
    return lo + (int)(rng() % (uint32_t)(hi - lo + 1));
}
static float rng_float(void) {
    return (float)rng() / 2147483648.0f - 1.0f;
}

static float *random_floats(int n, float scale) {
    float *x = malloc((size_t)n * sizeof *x);
    for (int i = 0; i < n; i++) x[i] = rng_float() * scale;
    return x;
}

/// An F32 tensor over data that outlives it.
static gguf_tensor matrix(const float *data, int n_out, int n_in) {
    return (gguf_tensor){.name = {"w", 1},
                         .type = quant_find(0),
                         .n_dims = 2,
                         .dims = {n_in, n_out, 1, 1},
                         .data = data,
                         .n_bytes = (uint64_t)n_out * (uint64_t)n_in * 4};
}

static gguf_tensor vector(const float *data, int n) {
    return (gguf_tensor){.name = {"v", 1},
                         .type = quant_find(0),
                         .n_dims = 1,
                         .dims = {n, 1, 1, 1},
                         .data = data,
                         .n_bytes = (uint64_t)n * 4};
}

static backend_weight *weight(backend *b, gguf_tensor t) {
    return b->ops->weight_create(b, &t, 0, (int)(t.n_dims == 1 ? t.dims[0] : t.dims[1]), true, NULL);
}

// --------------------------------------------------------------------------------------------------------- harness

/// What is tested: names of CPU levels, or "cuda".
static const char *tested[16];
static int n_tested;

/// What a backend may offer. Not every one has each, and the reference is exact alone.
static const char *const precisions[] = {"exact", "fast", "bf16"};

/// One GPU of each precision for all cases: opening one compiles its kernels.
static backend *gpus[ARRAY_LEN(precisions)];

/// NULL: it does not have this precision. Ended with end_backend.
static backend *make_precision(const char *name, int n_threads, const char *precision) {
    backend *b = NULL;
    logitd_error err = {0};
    const bool cuda = strcmp(name, "cuda") == 0;
    size_t p = 0;
    while (strcmp(precisions[p], precision) != 0) p++;
    if (cuda && gpus[p]) return gpus[p];
    const backend_options o = {.cpu_level = cuda ? NULL : name, .n_threads = n_threads, .precision = precision};
    const logitd_status status = cuda ? cuda_backend_create(&o, &b, &err) : cpu_backend_create(&o, &b, &err);
    if (status && strcmp(precision, "exact") == 0) fail_msg("%s: %s", name, err.message);
    if (cuda) gpus[p] = b;
    return b;
}

static void end_backend(backend *b) {
    for (size_t p = 0; p < ARRAY_LEN(gpus); p++)
        if (b == gpus[p]) return;
    b->ops->destroy(b);
}

static backend *make_backend(const char *name, int n_threads) {
    return make_precision(name, n_threads, "exact");
}

/// What `bf16` makes of floats: the nearest bf16, ties to even.
static float *rounded(const float *x, int n) {
    float *out = malloc((size_t)n * sizeof *out);
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
        memcpy(&out[i], &bits, sizeof bits);
    }
    return out;
}

static backend_buffer *upload(backend *b, const float *x, int n_rows, int n) {
    backend_buffer *buf = b->ops->buffer_create(b, n_rows, n);
    b->ops->buffer_write(b, buf, x, n_rows);
    return buf;
}

static float *download(backend *b, backend_buffer *buf, int n_rows, int n) {
    int32_t *rows = malloc((size_t)n_rows * sizeof *rows);
    float *out = malloc((size_t)n_rows * (size_t)n * sizeof *out);
    for (int i = 0; i < n_rows; i++) rows[i] = i;
    b->ops->buffer_read(b, buf, rows, n_rows, out);
    free(rows);
    return out;
}

static void assert_close(const char *what, const float *got, const float *want, int n, double absolute,
                         double relative) {
    double worst = -1.0;
    int at = 0;
    for (int i = 0; i < n; i++) {
        if (got[i] == want[i]) continue; // infinities too
        const double error = fabs((double)got[i] - (double)want[i]) / (absolute + relative * fabs((double)want[i]));
        if (!(error <= worst)) worst = error, at = i;
    }
    if (!(worst <= 1.0))
        fail_msg("%s: element %d is %.9g, the reference has %.9g (%.2f x the bound)", what, at, (double)got[at],
                 (double)want[at], worst);
}

typedef float *(*operation)(backend *b, const void *shape, int *n_out);

/// Runs an operation on the reference and on every level that this processor has, and compares.
static void compare_precision(const char *precision, const char *what, operation run, const void *shape,
                              double absolute, double relative) {
    int n = 0;
    backend *reference = make_backend("reference", 1);
    float *want = run(reference, shape, &n);
    for (int i = 0; i < n_tested; i++) {
        if (strcmp(tested[i], "reference") == 0) continue;
        for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
            char label[128];
            snprintf(label, sizeof label, "%s, %s, %s, %d threads", what, tested[i], precision, n_threads);
            backend *b = make_precision(tested[i], n_threads, precision);
            if (!b) continue;
            float *got = run(b, shape, &n);
            assert_close(label, got, want, n, absolute, relative);
            free(got);
            end_backend(b);
        }
    }
    free(want);
    end_backend(reference);
}

static void compare_levels(const char *what, operation run, const void *shape, double absolute, double relative) {
    compare_precision("exact", what, run, shape, absolute, relative);
}

// -------------------------------------------------------------------------------------------------------- operations

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

static void test_matmul(void **state) {
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

static void test_norm(void **state) {
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

static backend_weight *weight_or_null(backend *b, const float *x, int n) {
    return x ? weight(b, vector(x, n)) : NULL;
}

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

static void test_add_norm(void **state) {
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

static void test_glu(void **state) {
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

typedef struct attention_shape {
    attention_params params;
    rope_params rope; // n_rot 0: none
    batch_slice slices[3];
    int32_t positions[128];
    int n_slices, n_rows, n_kv_rows;
    const float *q, *k, *v, *past; // past: keys and values of the positions before the batch
} attention_shape;

/// Rope of queries and keys, the cache, then attention: past positions first, as an earlier batch.
static float *run_attention(backend *b, const void *arg, int *n) {
    const attention_shape *s = arg;
    const backend_ops *op = b->ops;
    const attention_params *p = &s->params;
    const int n_q = p->n_head * p->head_dim, n_k = p->n_head_kv * p->head_dim;
    const token_batch batch = {
        .n_tokens = s->n_rows, .positions = s->positions, .slices = s->slices, .n_slices = s->n_slices};
    backend_kv *kv = op->kv_create(b, s->n_kv_rows, p->n_head_kv, p->head_dim);
    for (int i = 0; i < s->n_slices; i++) {
        const batch_slice *slice = &s->slices[i];
        if (slice->first_pos == 0) continue;
        const batch_slice before = {.first_row = 0, .n = slice->first_pos, .first_pos = 0, .kv_first = slice->kv_first};
        const token_batch earlier = {.n_tokens = before.n, .slices = &before, .n_slices = 1};
        backend_buffer *past = upload(b, s->past, before.n, n_k);
        op->rope_kv_write(b, NULL, NULL, &earlier, NULL, past, past, kv);
        op->buffer_destroy(b, past);
    }
    backend_buffer *q = upload(b, s->q, s->n_rows, n_q), *k = upload(b, s->k, s->n_rows, n_k);
    backend_buffer *v = upload(b, s->v, s->n_rows, n_k), *out = op->buffer_create(b, s->n_rows, n_q);
    backend_buffer *table = s->rope.n_rot ? op->buffer_create(b, s->n_rows, s->rope.n_rot) : NULL;
    if (table) op->rope_table(b, &s->rope, &batch, table);
    op->rope_kv_write(b, table ? &s->rope : NULL, table, &batch, q, k, v, kv);
    op->attention(b, p, &batch, q, kv, out);
    float *result = download(b, out, s->n_rows, n_q);
    *n = s->n_rows * n_q;
    backend_buffer *all[] = {q, k, v, out, table};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) op->buffer_destroy(b, all[i]);
    op->kv_destroy(b, kv);
    return result;
}

/// Heads of rows turned by their positions' angles, in double: [n_rows][n_head][head_dim].
static double *turn_heads(const attention_shape *s, const float *x, int n_head) {
    const int dim = s->params.head_dim, half = s->rope.n_rot / 2;
    double *out = malloc(sizeof *out * (size_t)(s->n_rows * n_head * dim));
    for (int i = 0; i < s->n_rows * n_head; i++) {
        const int position = s->positions[i / n_head];
        const float *head = x + i * dim;
        double *turned = out + i * dim;
        for (int d = 0; d < dim; d++) turned[d] = (double)head[d];
        for (int d = 0; d < half; d++) {
            const int first = s->rope.neox ? d : 2 * d, second = s->rope.neox ? d + half : 2 * d + 1;
            const double angle = position * s->rope.inv_freq[d], x0 = turned[first], x1 = turned[second];
            turned[first] = s->rope.magnitude * (x0 * cos(angle) - x1 * sin(angle));
            turned[second] = s->rope.magnitude * (x0 * sin(angle) + x1 * cos(angle));
        }
    }
    return out;
}

/// One query over the keys and values of its sequence; exp needs no maximum at these sizes.
static void attend_plainly(const attention_shape *s, const batch_slice *slice, int row, int head, const double *q,
                           const double *k, float *out) {
    const attention_params *p = &s->params;
    const int dim = p->head_dim, n_k = p->n_head_kv * dim, at = head / (p->n_head / p->n_head_kv) * dim;
    const int position = s->positions[row], lo = p->n_swa > 0 ? MAX(0, position - p->n_swa + 1) : 0;
    double sum = 0.0, all[256] = {0};
    for (int j = lo; j <= position; j++) {
        const bool past = j < slice->first_pos;
        const int of = past ? j : slice->first_row + j - slice->first_pos;
        const float *v = (past ? s->past : s->v) + of * n_k + at;
        double score = 0.0;
        for (int d = 0; d < dim; d++) score += q[d] * (past ? (double)v[d] : k[of * n_k + at + d]);
        score *= (double)p->scale;
        if (p->softcap > 0.0f) score = (double)p->softcap * tanh(score / (double)p->softcap);
        sum += exp(score);
        for (int d = 0; d < dim; d++) all[d] += exp(score) * (double)v[d];
    }
    for (int d = 0; d < dim; d++) out[d] = (float)(all[d] / sum);
}

/// What run_attention gives, from the definitions, since the reference shares its steps with what is tested.
static float *plain_attention(const attention_shape *s) {
    const int n_head = s->params.n_head, dim = s->params.head_dim;
    double *q = turn_heads(s, s->q, n_head), *k = turn_heads(s, s->k, s->params.n_head_kv);
    float *out = malloc(sizeof *out * (size_t)(s->n_rows * n_head * dim));
    for (int i = 0; i < s->n_slices; i++)
        for (int r = 0; r < s->slices[i].n * n_head; r++) {
            const int head = s->slices[i].first_row * n_head + r;
            attend_plainly(s, &s->slices[i], head / n_head, head % n_head, q + head * dim, k, out + head * dim);
        }
    free(q), free(k);
    return out;
}

static void test_attention(void **state) {
    (void)state;
    for (int i = 0; i < 30; i++) {
        const int group = rng_int(1, 4), n_head_kv = rng_int(1, 3);
        const int head_dim = i < 24   ? 2 * rng_int(1, 40) + (i % 7 == 3)
                             : i < 27 ? 2 * rng_int(48, 64)
                                      : 2 * rng_int(65, 128);
        attention_shape s = {.params = {.n_head = group * n_head_kv,
                                        .n_head_kv = n_head_kv,
                                        .head_dim = head_dim,
                                        .scale = 1.0f / sqrtf((float)head_dim),
                                        .softcap = i % 3 == 0 ? 2.0f : 0.0f,
                                        .n_swa = i % 2 ? rng_int(1, 60) : 0},
                             .rope = {.n_rot = 2 * rng_int(1, head_dim / 2), .neox = i % 4 < 2, .magnitude = 1.25}};
        double inv_freq[128];
        for (int d = 0; d < s.rope.n_rot / 2; d++) inv_freq[d] = pow(100.0, -2.0 * d / s.rope.n_rot);
        s.rope.inv_freq = inv_freq;
        s.n_slices = rng_int(1, 3);
        for (int k = 0; k < s.n_slices; k++) {
            batch_slice *slice = &s.slices[k];
            *slice = (batch_slice){.first_row = s.n_rows,
                                   .n = rng_int(1, 40),
                                   .first_pos = rng_int(0, 1) * rng_int(1, 90),
                                   .kv_first = s.n_kv_rows};
            for (int r = 0; r < slice->n; r++) s.positions[s.n_rows++] = slice->first_pos + r;
            s.n_kv_rows += slice->first_pos + slice->n;
        }
        const int n_q = s.params.n_head * head_dim, n_k = n_head_kv * head_dim;
        float *q = random_floats(s.n_rows * n_q, 3.0f), *k = random_floats(s.n_rows * n_k, 3.0f);
        float *v = random_floats(s.n_rows * n_k, 1.0f), *past = random_floats(100 * n_k, 1.0f);
        s.q = q, s.k = k, s.v = v, s.past = past;
        if (i % 5 == 4) s.rope.n_rot = 0;
        compare_levels("attention", run_attention, &s, 2e-5, 1e-5);
        backend *reference = make_backend("reference", 1);
        int n;
        float *got = run_attention(reference, &s, &n), *want = plain_attention(&s);
        assert_close("attention, reference", got, want, n, 2e-6, 2e-6);
        end_backend(reference);
        free(q), free(k), free(v), free(past), free(got), free(want);
    }
}

/// Angles in double: of a far position, and an infinite one, which is no number. The CPU has them in another order.
static void test_rope_table(void **state) {
    (void)state;
    enum { N = 3, N_ROT = 6 };
    const int32_t positions[N] = {1, 4097, 1000003};
    const double inv_freq[N_ROT / 2] = {1.0, 0.37, INFINITY};
    const rope_params rope = {.n_rot = N_ROT, .inv_freq = inv_freq, .magnitude = 1.5};
    const token_batch batch = {.n_tokens = N, .positions = positions};
    for (int i = 0; i < n_tested; i++) {
        if (strcmp(tested[i], "cuda") != 0) continue;
        backend *b = make_backend(tested[i], 1);
        backend_buffer *buf = b->ops->buffer_create(b, N, N_ROT);
        b->ops->rope_table(b, &rope, &batch, buf);
        float *table = download(b, buf, N, N_ROT);
        for (int p = 0; p < N; p++)
            for (int k = 0; k < N_ROT / 2; k++) {
                const double angle = positions[p] * inv_freq[k];
                const float *turn = table + p * N_ROT + 2 * k;
                if (isinf(angle))
                    assert_true(isnan(turn[0]) && isnan(turn[1]));
                else
                    assert_true(fabs((double)turn[0] - 1.5 * cos(angle)) < 2e-7 &&
                                fabs((double)turn[1] - 1.5 * sin(angle)) < 2e-7);
            }
        free(table);
        b->ops->buffer_destroy(b, buf);
        end_backend(b);
    }
}

// --------------------------------------------------------------------------------------------------- project_stats

enum { MAX_T = 4, MAX_N = 40, MAX_K = 5 };

typedef struct projected {
    project_row row;
    double sum_e[MAX_T], sum_xe[MAX_T], sum_xxe[MAX_T];
    int32_t top_id[MAX_N];
    float top_logit[MAX_N], listed_logit[MAX_K];
} projected;

static const double temperatures[MAX_T] = {0.01, 0.5, 1.0, 7.0};

typedef struct projection {
    int n_rows, n_in, n_vocab;
    const float *hidden, *output, *bias;
    const gguf_tensor *blocks; // the output matrix when it is quantised
    float softcap;
    int top_n[128], n_temperatures[128], target[128];
    int32_t listed[MAX_K];
} projection;

/// Rows first … first+n-1 of a projection, alone in their batch.
static projected *run_project(backend *b, const projection *p, int first, int n, float **logits) {
    backend_weight *w = weight(b, p->blocks ? *p->blocks : matrix(p->output, p->n_vocab, p->n_in));
    backend_weight *bias = p->bias ? weight(b, vector(p->bias, p->n_vocab)) : NULL;
    backend_buffer *hidden = upload(b, p->hidden + first * p->n_in, n, p->n_in);
    projected *results = calloc((size_t)n, sizeof *results);
    project_row *rows = calloc((size_t)n, sizeof *rows);
    for (int i = 0; i < n; i++) {
        projected *r = &results[i];
        rows[i] = (project_row){.target_id = p->target[first + i],
                                .n_temperatures = p->n_temperatures[first + i],
                                .temperatures = temperatures,
                                .top_n = p->top_n[first + i],
                                .n_listed = MAX_K,
                                .listed_ids = p->listed,
                                .sum_e = r->sum_e,
                                .sum_xe = r->sum_xe,
                                .sum_xxe = r->sum_xxe,
                                .top_id = r->top_id,
                                .top_logit = r->top_logit,
                                .listed_logit = r->listed_logit};
    }
    assert_int_equal(b->ops->project_stats(b, hidden, w, bias, p->softcap, n, rows, NULL), LOGITD_OK);
    for (int i = 0; i < n; i++) results[i].row = rows[i];
    if (logits) {
        *logits = malloc((size_t)n * (size_t)p->n_vocab * sizeof(float));
        assert_int_equal(b->ops->project_logits(b, hidden, w, bias, p->softcap, n, *logits, NULL), LOGITD_OK);
    }
    free(rows);
    b->ops->buffer_destroy(b, hidden);
    b->ops->weight_destroy(b, w);
    b->ops->weight_destroy(b, bias);
    return results;
}

/// Everything that project_stats gives, from the level's own logits in plain double.
static void check_row(const projection *p, int r, const projected *got, const float *logits) {
    const int target = p->target[r];
    double max = -INFINITY;
    int rank = 0;
    for (int v = 0; v < p->n_vocab; v++) {
        max = fmax(max, (double)logits[v]);
        if (target >= 0 && logits[v] > logits[target]) rank++;
    }
    assert_true((double)got->row.max == max);
    if (target >= 0) {
        assert_true(got->row.target_logit == logits[target]);
        assert_int_equal(got->row.target_rank, rank);
    }
    for (int k = 0; k < MAX_K; k++) assert_true(got->listed_logit[k] == logits[p->listed[k]]);
    for (int i = 0; i < p->top_n[r]; i++) { // N best: in order, and nothing better left out
        assert_in_range(got->top_id[i], 0, p->n_vocab - 1);
        assert_true(got->top_logit[i] == logits[got->top_id[i]]);
        if (i > 0)
            assert_true(got->top_logit[i - 1] > got->top_logit[i] ||
                        (got->top_logit[i - 1] == got->top_logit[i] && got->top_id[i - 1] < got->top_id[i]));
    }
    if (p->top_n[r] > 0) {
        const float worst = got->top_logit[p->top_n[r] - 1];
        const int worst_id = got->top_id[p->top_n[r] - 1];
        int n_before = 0;
        for (int v = 0; v < p->n_vocab; v++) n_before += logits[v] > worst || (logits[v] == worst && v <= worst_id);
        assert_int_equal(n_before, p->top_n[r]);
    }
    for (int t = 0; t < p->n_temperatures[r]; t++) {
        double s0 = 0, s1 = 0, s2 = 0;
        for (int v = 0; v < p->n_vocab; v++) {
            const double x = ((double)logits[v] - max) / temperatures[t], e = exp(x);
            if (e == 0.0) continue; // x may be -inf
            s0 += e;
            s1 += x * e;
            s2 += x * x * e;
        }
        assert_true(fabs(got->sum_e[t] / s0 - 1.0) < 2e-6);
        assert_true(fabs(got->sum_xe[t] - s1) < 2e-6 * (fabs(s1) + s0));
        assert_true(fabs(got->sum_xxe[t] - s2) < 4e-6 * (fabs(s2) + s0));
    }
}

static void assert_same(const projection *p, int r, const projected *a, const projected *b) {
    const size_t T = (size_t)p->n_temperatures[r], N = (size_t)p->top_n[r];
    assert_memory_equal(&a->row.max, &b->row.max, sizeof(float));
    assert_int_equal(a->row.target_rank, b->row.target_rank);
    assert_memory_equal(a->sum_e, b->sum_e, T * sizeof(double));
    assert_memory_equal(a->sum_xe, b->sum_xe, T * sizeof(double));
    assert_memory_equal(a->sum_xxe, b->sum_xxe, T * sizeof(double));
    assert_memory_equal(a->listed_logit, b->listed_logit, sizeof a->listed_logit);
    if (N == 0) return;
    assert_memory_equal(a->top_id, b->top_id, N * sizeof(int32_t));
    assert_memory_equal(a->top_logit, b->top_logit, N * sizeof(float));
}

/// The reference's logits. For bf16 of inputs and float weights that are rounded as it rounds them, so that what is
/// left is the order of sums.
static float *reference_logits(const projection *p, const char *precision) {
    projection q = *p;
    float *hidden = rounded(p->hidden, p->n_rows * p->n_in), *output = NULL, *logits;
    if (!p->blocks) output = rounded(p->output, p->n_vocab * p->n_in);
    if (strcmp(precision, "bf16") == 0) q.hidden = hidden, q.output = output;
    backend *reference = make_backend("reference", 1);
    free(run_project(reference, &q, 0, p->n_rows, &logits));
    end_backend(reference);
    free(hidden), free(output);
    return logits;
}

/// `scale` is the size of the logits, for the bound on a sum of products.
static void check_precision(const projection *p, const char *level, const char *precision, double scale) {
    backend *b = make_precision(level, 1, precision), *b3 = make_precision(level, 3, precision);
    if (!b) return;
    float *logits, *want_logits = reference_logits(p, precision);
    projected *all = run_project(b, p, 0, p->n_rows, &logits), *threads = run_project(b3, p, 0, p->n_rows, NULL);
    char label[64];
    snprintf(label, sizeof label, "%s, %s", level, precision);
    assert_close(label, logits, want_logits, p->n_rows * p->n_vocab, 3e-6 * scale * sqrt(p->n_in), 1e-6);
    for (int r = 0; r < p->n_rows; r++) {
        check_row(p, r, &all[r], logits + (ptrdiff_t)r * p->n_vocab);
        assert_same(p, r, &all[r], &threads[r]);
        if (r % (1 + p->n_rows / 8) != 0) continue;
        projected *alone = run_project(b, p, r, 1, NULL); // the same bits alone as in company
        assert_same(p, r, &all[r], alone);
        free(alone);
    }
    free(all), free(threads), free(logits), free(want_logits);
    end_backend(b);
    end_backend(b3);
}

static void check_projection(const projection *p, double scale) {
    for (int i = 0; i < n_tested; i++) {
        check_precision(p, tested[i], "exact", scale);
        check_precision(p, tested[i], "bf16", scale);
    }
}

static projection random_projection(int n_rows, int n_in, int n_vocab, float scale, float **memory) {
    projection p = {.n_rows = n_rows, .n_in = n_in, .n_vocab = n_vocab};
    float *hidden = random_floats(n_rows * n_in, scale), *output = random_floats(n_vocab * n_in, 1.0f);
    for (int r = 0; r < n_rows; r++) {
        p.top_n[r] = rng_int(0, MIN(MAX_N, n_vocab));
        p.n_temperatures[r] = rng_int(1, MAX_T);
        p.target[r] = rng_int(-1, n_vocab - 1);
    }
    for (int k = 0; k < MAX_K; k++) p.listed[k] = rng_int(0, n_vocab - 1);
    p.hidden = memory[0] = hidden;
    p.output = memory[1] = output;
    p.bias = NULL;
    return p;
}

static void test_project_stats(void **state) {
    (void)state;
    const int vocabularies[] = {1, 2, 47, 1009, 1536, 1537, 4099};
    for (size_t i = 0; i < 2 * ARRAY_LEN(vocabularies); i++) {
        float *memory[2];
        const int n_vocab = vocabularies[i / 2];
        const float scale = i % 2 ? 2.0f : 0.1f;
        projection p = random_projection(rng_int(1, 37), rng_int(1, 70), n_vocab, scale, memory);
        float *bias = random_floats(n_vocab, 1.0f);
        p.bias = i % 3 == 0 ? bias : NULL;
        p.softcap = i % 4 == 3 ? 5.0f : 0.0f;
        check_projection(&p, 1.0 + (double)scale);
        free(memory[0]), free(memory[1]), free(bias);
    }
}

/// So many logits that a list of the best is cut before its part of the vocabulary ends (BLOCK_N and TOP_ROOM of
/// cuda/params.h, on the 108 processors that the emulated device says it has).
static void test_project_many(void **state) {
    (void)state;
    float *memory[2];
    projection p = random_projection(1, 3, 5 * 4 * 108 * 128 + 5, 1.0f, memory);
    p.top_n[0] = 3, p.target[0] = 77777, p.n_temperatures[0] = 1;
    for (int i = 0; i < n_tested; i++) {
        float *logits;
        backend *b = make_precision(tested[i], 2, "bf16"); // the quickest on the GPU
        if (!b) b = make_backend(tested[i], 2);
        projected *rows = run_project(b, &p, 0, 1, &logits);
        check_row(&p, 0, rows, logits);
        free(rows), free(logits);
        end_backend(b);
    }
    free(memory[0]), free(memory[1]);
}

/// Equal logits everywhere: ids decide, and no token is above the target.
static void test_project_ties(void **state) {
    (void)state;
    float *memory[2];
    projection p = random_projection(3, 5, 1700, 1.0f, memory);
    for (int v = 0; v < p.n_vocab; v++)
        for (int k = 0; k < p.n_in; k++) memory[1][v * p.n_in + k] = (float)(v % 2 * (k + 1)) * 0.25f;
    p.top_n[0] = 30;
    check_projection(&p, 10.0);
    free(memory[0]), free(memory[1]);
}

/// Logits of 1e30 and of -1e30 leave finite sums; one that is not a number is never lost.
static void test_project_extremes(void **state) {
    (void)state;
    float *memory[2];
    projection p = random_projection(2, 4, 500, 1e30f, memory);
    check_projection(&p, 1e30);
    memory[1][100 * p.n_in] = NAN;
    for (int i = 0; i < 2 * n_tested; i++) {
        backend *b = make_precision(tested[i / 2], 1, i % 2 ? "bf16" : "exact");
        if (!b) continue;
        projected *rows = run_project(b, &p, 0, p.n_rows, NULL);
        assert_true(isnan(rows[0].sum_e[0]) && isnan(rows[1].sum_e[0]));
        free(rows);
        end_backend(b);
    }
    free(memory[0]), free(memory[1]);
}

/// A token that cannot be (a bias of -inf) has probability 0 and ranks last; where it stands makes no difference.
static void test_project_minus_infinity(void **state) {
    (void)state;
    const struct {
        int n_vocab, first, end;
    } cases[] = {{300, 7, 8}, {3072, 0, 96}, {3072, 100, 200}, {3072, 0, 1536}, {3072, 1536, 3072}, {40, 1, 40}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        float *memory[2];
        projection p = random_projection(3, 6, cases[i].n_vocab, 1.0f, memory);
        float *bias = random_floats(p.n_vocab, 1.0f);
        for (int v = cases[i].first; v < cases[i].end; v++) bias[v] = -INFINITY;
        p.bias = bias;
        p.top_n[0] = MAX_N;
        p.target[0] = cases[i].first;
        check_projection(&p, 2.0);
        free(memory[0]), free(memory[1]), free(bias);
    }
}

/// Logits of a whole part of the vocabulary that are not numbers were lost once, and gave probabilities of 1.
static void test_project_nan_part(void **state) {
    (void)state;
    for (int first = 0; first < 3072; first += 1536) {
        float *memory[2];
        projection p = random_projection(2, 4, 3072, 1.0f, memory);
        for (int v = first; v < first + 1536; v++) memory[1][v * p.n_in] = NAN;
        for (int i = 0; i < 2 * n_tested; i++) {
            backend *b = make_precision(tested[i / 2], 2, i % 2 ? "bf16" : "exact");
            if (!b) continue;
            projected *rows = run_project(b, &p, 0, p.n_rows, NULL);
            assert_true(isnan(rows[0].sum_e[0]) && isnan(rows[1].sum_e[0]));
            free(rows);
            end_backend(b);
        }
        free(memory[0]), free(memory[1]);
    }
}

// ------------------------------------------------------------------------------------------------ quantised weights

/// Rows of blocks (or plain numbers) with random bits, but halves and floats below 2: their high bytes are the odd
/// ones.
static gguf_tensor random_blocks(const quant_type *type, int n_out, int n_in) {
    const size_t n_bytes = (size_t)(n_out * (n_in / type->block_weights)) * (size_t)type->block_bytes;
    uint8_t *blocks = malloc(n_bytes);
    for (size_t i = 0; i < n_bytes; i++) blocks[i] = (uint8_t)(rng() & (i % 2 ? 0xbf : 0xff));
    gguf_tensor t = matrix((const float *)(const void *)blocks, n_out, n_in);
    t.type = type;
    t.n_bytes = n_bytes;
    return t;
}

/// The output matrix of a format for each way that quants are packed; few rows and many; soft caps and biases.
static void test_project_quantised(void **state) {
    (void)state;
    static const uint32_t formats[] = {3, 8, 14, 30}; // Q4_1, Q8_0, Q6_K, BF16: nibbles, bytes, groups of 16, floats
    for (int i = 0; i < 4 * (int)ARRAY_LEN(formats); i++) {
        float *memory[2];
        projection p = random_projection(i % 2 ? 13 : 45, 256, rng_int(130, 400), 0.02f, memory);
        gguf_tensor blocks = random_blocks(quant_find(formats[i / 4]), p.n_vocab, p.n_in);
        float *bias = random_floats(p.n_vocab, 1.0f);
        p.blocks = &blocks;
        p.bias = i % 4 < 2 ? bias : NULL;
        p.softcap = i % 4 == 1 || i % 4 == 2 ? 30.0f : 0.0f;
        check_projection(&p, 60.0);
        free(memory[0]), free(memory[1]), free(bias), free((void *)(uintptr_t)blocks.data);
    }
}

/// A weight has one exact value, whichever instruction set unpacks it from the packed layout (of zeros, either).
static void test_unpack(void **state) {
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
static void test_quantised_matmul(void **state) {
    (void)state;
    enum { N_ROWS = 70, N_OUT = 75, N_IN = 512, N_PRECISIONS = ARRAY_LEN(precisions) };
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
static void test_matmul_parts(void **state) {
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
static void test_quantised_poison(void **state) {
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

static void test_unknown_level(void **state) {
    (void)state;
    backend *b = NULL;
    logitd_error err = {0};
    const backend_options o = {.cpu_level = "mmx"};
    assert_int_equal(cpu_backend_create(&o, &b, &err), LOGITD_EINVAL);
    assert_null(b);
    assert_non_null(strstr(err.message, "\"mmx\""));
    assert_non_null(strstr(err.message, "portable"));
    const backend_options bf16 = {.precision = "bf16"};
    assert_int_equal(cpu_backend_create(&bf16, &b, &err), LOGITD_EINVAL);
    assert_non_null(strstr(err.message, "exact"));
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
static void test_embed(void **state) {
    (void)state;
    for (int t = 0; t < n_quant_types; t++) {
        gguf_tensor tensor = random_blocks(&quant_types[t], 150, 768);
        const bool floats = quant_types[t].block_weights == 1;
        compare_precision("exact", quant_types[t].name, run_embed, &tensor, floats ? 8e-7 : 0.0, 0.0);
        compare_precision("bf16", quant_types[t].name, run_embed, &tensor, 1e-38, floats ? 0x1p-8 : 0.0);
        free((void *)(uintptr_t)tensor.data);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_add_norm),
        cmocka_unit_test(test_glu),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_rope_table),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_project_stats),
        cmocka_unit_test(test_project_many),
        cmocka_unit_test(test_project_ties),
        cmocka_unit_test(test_project_extremes),
        cmocka_unit_test(test_project_minus_infinity),
        cmocka_unit_test(test_project_nan_part),
        cmocka_unit_test(test_project_quantised),
        cmocka_unit_test(test_quantised_matmul),
        cmocka_unit_test(test_matmul_parts),
        cmocka_unit_test(test_quantised_poison),
    };
    const struct CMUnitTest cpu_tests[] = {
        cmocka_unit_test(test_unpack),
        cmocka_unit_test(test_unknown_level),
    };
    if (argc > 1) {
        tested[n_tested++] = argv[1];
        if (argc > 2) cmocka_set_test_filter(argv[2]); // a failed device stays failed for the tests after it
        const int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
        for (size_t p = 0; p < ARRAY_LEN(gpus); p++)
            if (gpus[p]) gpus[p]->ops->destroy(gpus[p]);
        return n_failed;
    }
    for (int i = 0; i < n_cpu_levels; i++)
        if (cpu_levels[i]->supported()) tested[n_tested++] = cpu_levels[i]->name;
    return cmocka_run_group_tests(tests, NULL, NULL) + cmocka_run_group_tests(cpu_tests, NULL, NULL);
}
