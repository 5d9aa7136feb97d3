/*
 * section_model.c: the forward pass by operation, and decode: one new token a sequence, again and again, over a KV
 * cache. Both go through the layer loop itself, without the engine.
 */
#include "bench.h"

// --------------------------------------------------------------------------------------------------------- profile

enum { MAX_OPERATIONS = 64 };

/// One pass with statistics and top 20 of all its positions. Its wall time, or a negative number with *err filled.
static double pass_ms(session *s, int n, logitd_error *err) {
    const double start = timing_now_ms();
    const token_batch batch = session_batch(s, 1, n, 0, n);
    session_forward(s, &batch);
    if (session_project(s, session_hidden(s, n), n, 1, 20, err)) return -1.0;
    return timing_now_ms() - start;
}

static void report_operation(bench *b, int n, const profile_row *row, double *ms, int n_passes, double whole_ms) {
    bench_case c = {.section = "profile",
                    .threads = b->engine.n_threads,
                    .positions = n,
                    .ops = row->ops,
                    .bytes = row->bytes,
                    .limit = b->limit,
                    .time = timing_of(ms, n_passes)};
    c.share_of_time = c.time.best_ms / whole_ms;
    snprintf(c.name, sizeof c.name, "%d token%s: %s x %d", n, n == 1 ? "" : "s", row->name, row->n_calls);
    report_case(b->report, &c);
}

/// Times of each operation of one pass, over several passes; the counts are those of one pass.
static logitd_status profile_length(bench *b, session *s, int n, logitd_error *err) {
    double ms[MAX_OPERATIONS][TIMING_MAX_RUNS], whole[TIMING_MAX_RUNS], between[TIMING_MAX_RUNS], spent = 0.0;
    const profile_row *rows;
    int n_passes = 0, n_rows = 0;
    if (pass_ms(s, n, err) < 0) return err->status;
    while (n_passes < TIMING_MIN_RUNS || (n_passes < b->plan.max_runs && spent < b->plan.budget_ms)) {
        profile_clear(s->profile);
        whole[n_passes] = pass_ms(s, n, err);
        if (whole[n_passes] < 0) return err->status;
        n_rows = profile_rows(s->profile, &rows);
        ASSERT(n_rows <= MAX_OPERATIONS);
        between[n_passes] = whole[n_passes];
        for (int i = 0; i < n_rows; i++) {
            ms[i][n_passes] = rows[i].ms;
            between[n_passes] -= rows[i].ms;
        }
        spent += whole[n_passes++];
    }
    bench_case all = {.section = "profile",
                      .threads = b->engine.n_threads,
                      .positions = n,
                      .ops = session_ops(b->arch, &b->hp, n, n),
                      .bytes = b->weight_bytes,
                      .limit = b->limit,
                      .time = timing_of(whole, n_passes),
                      .share_of_time = 1.0};
    snprintf(all.name, sizeof all.name, "%d token%s: the whole pass", n, n == 1 ? "" : "s");
    report_case(b->report, &all);
    for (int i = 0; i < n_rows; i++)
        if (rows[i].n_calls > 0) report_operation(b, n, &rows[i], ms[i], n_passes, all.time.best_ms);
    report_operation(b, n, &(profile_row){.name = "between operations", .n_calls = 1}, between, n_passes,
                     all.time.best_ms);
    return LOGITD_OK;
}

logitd_status section_profile(bench *b, logitd_error *err) {
    session s;
    const int n = b->n_tokens;
    const session_options options = {.model_path = b->engine.model_path,
                                     .backend = bench_backend_options(b),
                                     .profiled = true,
                                     .max_tokens = n,
                                     .n_kv_rows = n,
                                     .max_rows = n};
    logitd_status status = session_open(&options, &s, err);
    if (status) return status;
    status = profile_length(b, &s, n, err);
    if (!status && n > 1) status = profile_length(b, &s, 1, err);
    session_close(&s);
    return status;
}

// ---------------------------------------------------------------------------------------------------------- decode

enum { DECODE_CONTEXT = 128, DECODE_STEPS = 64 };

/// Rows of the cache for one sequence: whole blocks, as the engine gives.
static int kv_rows(int n_tokens) {
    return (n_tokens + BACKEND_KV_BLOCK - 1) / BACKEND_KV_BLOCK * BACKEND_KV_BLOCK;
}

/// Fills the cache of each sequence, one after the other.
static void prefill(session *s, int n_sequences, int n, int n_kv) {
    for (int i = 0; i < n_sequences; i++) {
        token_batch batch = session_batch(s, 1, n, 0, n_kv);
        s->slices[0].kv_first = i * n_kv;
        session_forward(s, &batch);
    }
}

/// Each step adds one token to every sequence: its time is one sample.
static logitd_status decode(bench *b, session *s, int n_sequences, int n_context, int n_steps, logitd_error *err) {
    double ms[DECODE_STEPS];
    const int n_kv = kv_rows(n_context + n_steps);
    prefill(s, n_sequences, n_context, n_kv);
    for (int step = -1; step < n_steps - 1; step++) { // the first is not counted
        const double start = timing_now_ms();
        const token_batch batch = session_batch(s, n_sequences, 1, n_context + step + 1, n_kv);
        session_forward(s, &batch);
        const logitd_status status = session_project(s, session_hidden(s, n_sequences), n_sequences, 1, 20, err);
        if (status) return status;
        if (step >= 0) ms[step] = timing_now_ms() - start;
    }
    const double read_gbps = peak_read_gbps(b->engine.n_threads); // it drifts: measured beside
    bench_case c = {.section = "decode",
                    .threads = b->engine.n_threads,
                    .positions = n_sequences,
                    .temperatures = 1,
                    .top_n = 20,
                    .ops = n_sequences * session_ops(b->arch, &b->hp, 1, 1),
                    .bytes = b->weight_bytes + n_sequences * session_kv_bytes(s, n_context + n_steps / 2),
                    .limit = {.gops = b->limit.gops, .gbps = read_gbps},
                    .time = timing_of(ms, n_steps - 1)};
    snprintf(c.name, sizeof c.name, "%d sequence%s, after %d tokens", n_sequences, n_sequences == 1 ? "" : "s",
             n_context);
    report_case(b->report, &c);
    return LOGITD_OK;
}

logitd_status section_decode(bench *b, logitd_error *err) {
    enum { MAX_SEQUENCES = 8 };
    session s;
    const int n_context = MIN(DECODE_CONTEXT, b->n_tokens), n_steps = MIN(DECODE_STEPS, b->n_tokens);
    const session_options options = {.model_path = b->engine.model_path,
                                     .backend = bench_backend_options(b),
                                     .max_tokens = MAX(n_context, MAX_SEQUENCES),
                                     .n_kv_rows = MAX_SEQUENCES * kv_rows(n_context + n_steps),
                                     .max_rows = MAX_SEQUENCES};
    logitd_status status = session_open(&options, &s, err);
    if (status) return status;
    for (int n = 1; n <= MAX_SEQUENCES && !status; n *= 2) status = decode(b, &s, n, n_context, n_steps, err);
    session_close(&s);
    return status;
}
