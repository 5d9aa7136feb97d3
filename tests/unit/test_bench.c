/*
 * test_bench.c: the arithmetic of the benches: what is kept of times, rates and limits, the JSON document, the counts
 * of operations and bytes, and that a profile passes operations on unchanged.
 */
#include "profile.h"
#include "report.h"
#include "session.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_near(double got, double want) {
    if (!(fabs(got - want) <= 1e-12 * fabs(want))) fail_msg("got %.17g, want %.17g", got, want);
}

// ---------------------------------------------------------------------------------------------------------- timing

static void test_timing_of(void **state) {
    (void)state;
    const timing odd = timing_of((double[]){5.0, 1.0, 3.0}, 3);
    assert_int_equal(odd.n_runs, 3);
    assert_near(odd.best_ms, 1.0);
    assert_near(odd.median_ms, 3.0);
    assert_near(odd.spread, 2.0);
    const timing even = timing_of((double[]){4.0, 2.0, 8.0, 3.0}, 4);
    assert_near(even.best_ms, 2.0);
    assert_near(even.median_ms, 3.5);
    assert_near(even.spread, 0.75);
    const timing one = timing_of((double[]){7.0}, 1);
    assert_near(one.median_ms, 7.0);
    assert_true(one.spread == 0.0);
}

typedef struct counter {
    int n_calls, fail_at;
} counter;

static bool count_call(void *context) {
    counter *c = context;
    return ++c->n_calls != c->fail_at;
}

static void test_timing_repeat(void **state) {
    (void)state;
    timing t;
    counter c = {0};
    assert_true(timing_repeat(&(timing_plan){.max_runs = 9, .budget_ms = 0.0}, count_call, &c, &t));
    assert_int_equal(t.n_runs, TIMING_MIN_RUNS); // no time: the least
    assert_int_equal(c.n_calls, 1 + TIMING_MIN_RUNS);
    c = (counter){0};
    assert_true(timing_repeat(&(timing_plan){.max_runs = 9, .budget_ms = 1e9}, count_call, &c, &t));
    assert_int_equal(t.n_runs, 9); // all the time: the most
    for (int fail_at = 1; fail_at <= 4; fail_at++) {
        c = (counter){.fail_at = fail_at};
        assert_false(timing_repeat(&(timing_plan){.max_runs = 9, .budget_ms = 0.0}, count_call, &c, &t));
        assert_int_equal(c.n_calls, fail_at);
    }
}

// --------------------------------------------------------------------------------------------------- rates and JSON

/// 200 positions in 4 ms best: 6e9 operations, 1e8 bytes.
static bench_case example(double gops_limit, double gbps_limit) {
    return (bench_case){.section = "requests",
                        .name = "an \"example\"",
                        .threads = 2,
                        .positions = 200,
                        .temperatures = 1,
                        .ops = 6e9,
                        .bytes = 1e8,
                        .limit = {.gops = gops_limit, .gbps = gbps_limit},
                        .time = {.n_runs = 5, .best_ms = 4.0, .median_ms = 5.0, .spread = 0.25}};
}

static void test_rates(void **state) {
    (void)state;
    bench_case c = example(2000.0, 50.0); // 3 ms of arithmetic, 2 ms of reading
    const bench_rates compute = report_rates(&c);
    assert_near(compute.positions_per_s, 50000.0);
    assert_near(compute.gops, 1500.0);
    assert_near(compute.gbps, 25.0);
    assert_near(compute.limit_ms, 3.0);
    assert_near(compute.share_of_limit, 0.75);
    assert_near(compute.limit_positions_per_s, 200.0 / 3e-3);
    assert_false(compute.memory_bound);
    c = example(6000.0, 50.0); // 1 ms and 2 ms
    const bench_rates memory = report_rates(&c);
    assert_near(memory.limit_ms, 2.0);
    assert_near(memory.share_of_limit, 0.5);
    assert_true(memory.memory_bound);
    c = example(0.0, 0.0); // a limit itself
    const bench_rates none = report_rates(&c);
    assert_true(none.limit_ms == 0.0 && none.share_of_limit == 0.0 && none.limit_positions_per_s == 0.0);
}

static double number(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item)) fail_msg("there is no number \"%s\"", key);
    return item->valuedouble;
}

static const char *string(const cJSON *object, const char *key) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    if (!text) fail_msg("there is no string \"%s\"", key);
    return text;
}

static void test_json(void **state) {
    (void)state;
    const logitd_model_info info = {.name = "tiny",
                                    .architecture = "llama",
                                    .sha256 = "ab",
                                    .n_vocab = 1009,
                                    .n_embd = 64,
                                    .n_params = 5000000000,
                                    .backend = "cpu",
                                    .precision = "exact",
                                    .kernel = "portable",
                                    .n_threads = 2};
    report *r = report_create(NULL);
    report_about(r, &info);
    const bench_case c = example(2000.0, 50.0);
    report_case(r, &c);
    char *text = report_json(r);
    cJSON *root = cJSON_Parse(text);
    assert_non_null(root);
    assert_near(number(root, "schema"), 1.0);
    assert_near(number(root, "threads"), 2.0);
    assert_near(number(cJSON_GetObjectItem(root, "model"), "n_params"), 5e9);
    assert_string_equal(string(cJSON_GetObjectItem(root, "model"), "kernel"), "portable");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(root, "cases")), 1);
    const cJSON *o = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "cases"), 0);
    assert_string_equal(string(o, "section"), "requests");
    assert_string_equal(string(o, "name"), "an \"example\"");
    assert_string_equal(string(o, "bound"), "compute");
    assert_near(number(o, "n_runs"), 5.0);
    assert_near(number(o, "best_ms"), 4.0);
    assert_near(number(o, "median_ms"), 5.0);
    assert_near(number(o, "spread"), 0.25);
    assert_near(number(o, "positions_per_s"), 50000.0);
    assert_near(number(o, "share_of_limit"), 0.75);
    assert_near(number(o, "limit_gops"), 2000.0);
    assert_near(number(o, "limit_gbps"), 50.0);
    assert_false(cJSON_HasObjectItem(o, "vocabulary")); // does not apply
    assert_false(cJSON_HasObjectItem(o, "share_of_time"));
    cJSON_Delete(root);
    free(text);
    report_free(r);
}

static void test_table(void **state) {
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    report *r = report_create(f);
    const bench_case c = example(6000.0, 50.0);
    report_section(r, "requests", "whole requests", (peak_limit){.gops = 6000.0, .gbps = 50.0});
    report_case(r, &c);
    fclose(f);
    const char *row = strstr(text, "an \"example\"");
    assert_non_null(
        strstr(text, "requests: whole requests\nlimits: 6000 Gop/s of f32 multiply-adds, 50.0 GB/s read\n"));
    assert_non_null(row);
    double best, median, spread, rate, gops, gbps, limit;
    assert_int_equal(
        sscanf(row + 12, "%lf %lf %lf%% %lf %lf %lf %lf%% m", &best, &median, &spread, &rate, &gops, &gbps, &limit), 7);
    assert_near(best, 4.0);
    assert_near(median, 5.0);
    assert_near(spread, 25.0);
    assert_near(rate, 50000.0);
    assert_near(gops, 1500.0);
    assert_near(gbps, 25.0);
    assert_near(limit, 50.0);
    report_free(r);
    free(text);
}

// ---------------------------------------------------------------------------------------------------------- counting

static void test_attention_ops(void **state) {
    (void)state;
    const int32_t positions[] = {0, 1, 2, 3};
    const token_batch batch = {.n_tokens = 4, .positions = positions};
    attention_params params = {.n_head = 3, .n_head_kv = 1, .head_dim = 8};
    assert_near(profile_attention_ops(&params, &batch), 4.0 * (1 + 2 + 3 + 4) * 3 * 8);
    params.n_swa = 2;
    assert_near(profile_attention_ops(&params, &batch), 4.0 * (1 + 2 + 2 + 2) * 3 * 8);
}

static void test_session_ops(void **state) {
    (void)state;
    model_hparams hp = {
        .n_vocab = 100, .n_embd = 4, .n_layer = 2, .n_head = 2, .n_head_kv = 1, .head_dim = 3, .n_ff = 5};
    model_arch arch = {.name = "a"};
    // weights of a block: q and output 2 * 6 * 4, k and v 2 * 3 * 4, gate, up and down 3 * 4 * 5
    const double layer = 2.0 * 3 * (48 + 24 + 60) + 4.0 * (1 + 2 + 3) * 6;
    assert_near(session_ops(&arch, &hp, 3, 1), 2 * layer + 2.0 * 4 * 100);
    arch.plain_ffn = true;
    assert_near(session_ops(&arch, &hp, 3, 3), 2 * (layer - 2.0 * 3 * 20) + 3 * 2.0 * 4 * 100);
    arch = (model_arch){.name = "a", .swa_period = 2}; // the first of two layers sees two positions
    hp.n_swa = 2;
    assert_near(session_ops(&arch, &hp, 3, 0), 2 * layer - 4.0 * 1 * 6);
    hp.n_swa = 7; // a window that is never full
    assert_near(session_ops(&arch, &hp, 3, 0), 2 * layer);
}

static void test_peak_work(void **state) {
    (void)state;
    for (int i = 0; i < n_peaks; i++) { // each loop that this processor has runs
        double one, two;
        if (peaks[i].reads || !peaks[i].supported()) continue;
        assert_true(peak_measure(&peaks[i], 1, &one).n_runs > 1);
        assert_true(peak_measure(&peaks[i], 2, &two).n_runs > 1);
        assert_near(two, 2 * one);
    }
    assert_true(peaks[n_peaks - 1].reads);
}

// --------------------------------------------------------------------------------------------------------- profile

enum { ROWS = 3, IN = 5, OUT = 7 };

static backend_weight *make_weight(backend *b, const char *name, const float *data) {
    const gguf_tensor t = {.name = {name, strlen(name)},
                           .type = quant_find(0),
                           .n_dims = 2,
                           .dims = {IN, OUT, 1, 1},
                           .data = data,
                           .n_bytes = IN * OUT * 4};
    return b->ops->weight_create(b, &t, 0, OUT, true, NULL);
}

/// out[ROWS][OUT] of a product on a reference backend, profiled or not.
static void multiply(backend *b, const float *x, backend_weight *w, float *out) {
    backend_buffer *in = b->ops->buffer_create(b, ROWS, IN), *result = b->ops->buffer_create(b, ROWS, OUT);
    const int32_t rows[ROWS] = {0, 1, 2};
    b->ops->buffer_write(b, in, x, ROWS);
    b->ops->matmul(b, in, w, NULL, ROWS, result);
    b->ops->buffer_read(b, result, rows, ROWS, out);
    b->ops->buffer_destroy(b, in);
    b->ops->buffer_destroy(b, result);
}

static void test_profile(void **state) {
    (void)state;
    float x[ROWS * IN], data[OUT * IN], plain[ROWS * OUT], profiled[ROWS * OUT];
    for (int i = 0; i < ROWS * IN; i++) x[i] = (float)(i % 4) - 1.5f;
    for (int i = 0; i < OUT * IN; i++) data[i] = (float)(i % 7) * 0.25f;
    backend *b = NULL;
    const backend_options options = {.cpu_level = "reference", .n_threads = 1};
    assert_int_equal(cpu_backend_create(&options, &b, NULL), LOGITD_OK);
    const backend_ops *own = b->ops;
    backend_weight *w = make_weight(b, "w", data);
    multiply(b, x, w, plain);
    b->ops->weight_destroy(b, w);

    profile *p = profile_attach(b);
    backend_weight *layers[] = {make_weight(b, "blk.0.ffn_up.weight", data),
                                make_weight(b, "blk.12.ffn_up.weight", data), make_weight(b, "output.weight", data)};
    for (int i = 0; i < 3; i++) {
        multiply(b, x, layers[i], profiled);
        assert_memory_equal(profiled, plain, sizeof plain);
    }
    const profile_row *rows;
    assert_int_equal(profile_rows(p, &rows), 2);
    assert_string_equal(rows[0].name, "matmul ffn_up"); // of all layers
    assert_int_equal(rows[0].n_calls, 2);
    assert_near(rows[0].ops, 2 * 2.0 * ROWS * IN * OUT);
    assert_near(rows[0].bytes, 2 * 4.0 * (OUT * IN + ROWS * IN + ROWS * OUT));
    assert_true(rows[0].ms > 0.0);
    assert_string_equal(rows[1].name, "matmul output");
    assert_int_equal(rows[1].n_calls, 1);
    profile_clear(p);
    assert_int_equal(profile_rows(p, &rows), 2);
    assert_true(rows[0].n_calls == 0 && rows[0].ms == 0.0 && rows[0].ops == 0.0 && rows[0].bytes == 0.0);
    profile_detach(p);
    assert_ptr_equal(b->ops, own);
    for (int i = 0; i < 3; i++) b->ops->weight_destroy(b, layers[i]);
    b->ops->destroy(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timing_of),   cmocka_unit_test(test_timing_repeat), cmocka_unit_test(test_rates),
        cmocka_unit_test(test_json),        cmocka_unit_test(test_table),         cmocka_unit_test(test_attention_ops),
        cmocka_unit_test(test_session_ops), cmocka_unit_test(test_peak_work),     cmocka_unit_test(test_profile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
