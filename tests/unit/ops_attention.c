/*
 * ops_attention.c: of test_backend_ops: RoPE, the KV cache and attention, also against their definitions in double,
 * since the reference shares its steps with what is tested.
 */
#include "ops_harness.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

void test_attention(void **state) {
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
void test_rope_table(void **state) {
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
