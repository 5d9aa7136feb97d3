/*
 * section_requests.c: whole requests to the engine, as the server hands them over, without the network: positions,
 * temperatures and entries, long prompts, the last position alone; and the same request over threads.
 */
#include "bench.h"
#include "limits.h"

typedef struct engine_run {
    logitd_engine *engine;
    logitd_request request;
    logitd_error *err;
} engine_run;

/// One request, start to end.
static bool run_request(void *context) {
    const engine_run *r = context;
    logitd_job *job;
    if (logitd_job_create(r->engine, &r->request, &job, r->err)) return false;
    if (logitd_submit(r->engine, job, 0, r->err)) {
        logitd_job_free(job);
        return false;
    }
    while (logitd_job_state(job) == LOGITD_RUNNING) logitd_step(r->engine);
    const bool failed = logitd_job_state(job) == LOGITD_FAILED;
    if (failed) *r->err = *logitd_job_error(job);
    logitd_job_free(job);
    return !failed;
}

typedef struct request_case {
    int n_tokens, n_temperatures, top_n;
    bool last_only;
} request_case;

static logitd_status time_request(bench *b, logitd_engine *engine, const char *section, const char *name,
                                  request_case r, logitd_error *err) {
    double temperatures[LIMIT_TEMPERATURES];
    const logitd_model_info *m = logitd_model(engine);
    const int n_positions = r.last_only ? 1 : r.n_tokens;
    int32_t *tokens = mem_alloc((size_t)r.n_tokens, sizeof *tokens);
    int32_t *positions = mem_alloc((size_t)r.n_tokens, sizeof *positions);
    for (int i = 0; tokens && positions && i < r.n_tokens; i++) {
        tokens[i] = session_token(m->n_vocab, i);
        positions[i] = r.last_only ? r.n_tokens - 1 : i;
    }
    for (int t = 0; t < LIMIT_TEMPERATURES; t++) temperatures[t] = t == 0 ? 1.0 : 0.1 + 0.1 * t;
    const logitd_prompt prompt = {tokens, r.n_tokens, positions, n_positions};
    engine_run run = {.engine = engine,
                      .request = {.prompts = &prompt,
                                  .n_prompts = 1,
                                  .temperatures = temperatures,
                                  .n_temperatures = r.n_temperatures,
                                  .top_n = r.top_n},
                      .err = err};
    // A prompt whose last position alone is asked is run whole: its tokens are the work.
    bench_case c = {.section = section,
                    .threads = m->n_threads,
                    .positions = r.n_tokens,
                    .temperatures = r.n_temperatures,
                    .vocabulary = m->n_vocab,
                    .top_n = r.top_n,
                    .ops = session_ops(b->arch, &b->hp, r.n_tokens, n_positions),
                    .bytes = b->weight_bytes,
                    .limit = b->limit};
    snprintf(c.name, sizeof c.name, "%s", name);
    const bool ran = tokens && positions && timing_repeat(&b->plan, run_request, &run, &c.time);
    if (!tokens || !positions) error_set(err, LOGITD_ENOMEM, "there is no memory for %d tokens", r.n_tokens);
    mem_free(tokens);
    mem_free(positions);
    if (!ran) return err->status;
    report_case(b->report, &c);
    return LOGITD_OK;
}

static logitd_status time_length(bench *b, logitd_engine *engine, int n, logitd_error *err) {
    char name[72];
    snprintf(name, sizeof name, "%d position%s", n, n == 1 ? "" : "s");
    return time_request(b, engine, "requests", name, (request_case){n, 1, 20, false}, err);
}

/// Prompt lengths up to eight typical requests; then temperatures, entries, and one position of a prompt.
logitd_status section_requests(bench *b, logitd_error *err) {
    static const int shorter[] = {1, 8, 32, 128, 256};
    char name[72];
    logitd_engine *engine;
    logitd_status status = logitd_open(&b->engine, &engine, err);
    if (status) return status;
    const int n = b->n_tokens, n_ctx = logitd_model(engine)->n_ctx;
    for (size_t i = 0; i < ARRAY_LEN(shorter) && shorter[i] < n && !status; i++)
        status = time_length(b, engine, shorter[i], err);
    for (int times = 1; times <= 8 && times * n <= n_ctx && !status; times *= 2)
        status = time_length(b, engine, times * n, err);
    for (int T = 2; T <= LIMIT_TEMPERATURES && !status; T *= 2) {
        snprintf(name, sizeof name, "%d positions, %d temperatures", n, T);
        status = time_request(b, engine, "requests", name, (request_case){n, T, 20, false}, err);
    }
    snprintf(name, sizeof name, "%d positions, top %d", n, LIMIT_TOP_N);
    if (!status) status = time_request(b, engine, "requests", name, (request_case){n, 1, LIMIT_TOP_N, false}, err);
    snprintf(name, sizeof name, "%d tokens, last position alone", n);
    if (!status) status = time_request(b, engine, "requests", name, (request_case){n, 1, 20, true}, err);
    logitd_close(engine);
    return status;
}

logitd_status section_threads(bench *b, logitd_error *err) {
    logitd_status status = LOGITD_OK;
    const logitd_options asked = b->engine;
    const peak_limit limit = b->limit;
    for (int n = 1; n <= asked.n_threads && !status; n = n < asked.n_threads ? MIN(2 * n, asked.n_threads) : n + 1) {
        char name[72];
        logitd_engine *engine;
        b->engine.n_threads = n;
        status = logitd_open(&b->engine, &engine, err);
        if (status) break;
        b->limit = (peak_limit){.gops = peak_gops(b->engine.cpu_level, n), .gbps = peak_read_gbps(n)};
        snprintf(name, sizeof name, "%d positions, %d thread%s", b->n_tokens, n, n == 1 ? "" : "s");
        status = time_request(b, engine, "threads", name, (request_case){b->n_tokens, 1, 20, false}, err);
        logitd_close(engine);
    }
    b->engine = asked;
    b->limit = limit;
    return status;
}
