/*
 * ops_project.c: of test_backend_ops: the final projection with its statistics, held against plain sums in double over
 * the level's own logits: temperatures, ranks, entries, ties, infinities, and what is not a number.
 */
#include "ops_harness.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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
    if (logits) *logits = malloc((size_t)n * (size_t)p->n_vocab * sizeof(float));
    const bool apart = b->ops->project_logits != NULL; // else the same call gives them
    for (int i = 0; i < n && logits && !apart; i++) rows[i].logits = *logits + (ptrdiff_t)i * p->n_vocab;
    assert_int_equal(b->ops->project_stats(b, hidden, w, bias, p->softcap, n, rows, NULL), LOGITD_OK);
    for (int i = 0; i < n; i++) results[i].row = rows[i];
    if (logits && apart)
        assert_int_equal(b->ops->project_logits(b, hidden, w, bias, p->softcap, n, *logits, NULL), LOGITD_OK);
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

void test_project_stats(void **state) {
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
void test_project_many(void **state) {
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
void test_project_ties(void **state) {
    (void)state;
    float *memory[2];
    projection p = random_projection(3, 5, 1700, 1.0f, memory);
    for (int v = 0; v < p.n_vocab; v++)
        for (int k = 0; k < p.n_in; k++) memory[1][v * p.n_in + k] = (float)(v % 2 * (k + 1)) * 0.25f;
    p.top_n[0] = 30;
    check_projection(&p, 10.0);
    free(memory[0]), free(memory[1]);
}

/// The sums of both rows say that a logit is not a number.
static void check_nan(const projection *p, int n_threads) {
    for (int i = 0; i < 2 * n_tested; i++) {
        backend *b = make_precision(tested[i / 2], n_threads, i % 2 ? "bf16" : "exact");
        if (!b) continue;
        projected *rows = run_project(b, p, 0, p->n_rows, NULL);
        assert_true(isnan(rows[0].sum_e[0]) && isnan(rows[1].sum_e[0]));
        free(rows);
        end_backend(b);
    }
}

/// Logits of 1e30 and of -1e30 leave finite sums; one that is not a number is never lost.
void test_project_extremes(void **state) {
    (void)state;
    float *memory[2];
    projection p = random_projection(2, 4, 500, 1e30f, memory);
    check_projection(&p, 1e30);
    memory[1][100 * p.n_in] = NAN;
    check_nan(&p, 1);
    free(memory[0]), free(memory[1]);
}

/// A token that cannot be (a bias of -inf) has probability 0 and ranks last; where it stands makes no difference.
void test_project_minus_infinity(void **state) {
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
void test_project_nan_part(void **state) {
    (void)state;
    for (int first = 0; first < 3072; first += 1536) {
        float *memory[2];
        projection p = random_projection(2, 4, 3072, 1.0f, memory);
        for (int v = first; v < first + 1536; v++) memory[1][v * p.n_in] = NAN;
        check_nan(&p, 2);
        free(memory[0]), free(memory[1]);
    }
}

/// The output matrix of a format for each way that quants are packed; few rows and many; soft caps and biases.
void test_project_quantised(void **state) {
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
