/*
 * bench.c: logitd-bench, the service's work timed without the network, beside the machine's own peaks.
 *
 *   logitd-bench --model M.gguf [--tokens 512] [--repeat 5] [--threads N] [--cpu LEVEL] [--json]
 *
 * Cases are whole requests to the engine: all positions with statistics and top 20, at one and at eight temperatures,
 * for several prompt lengths; and the last position alone, where the final projection hardly counts. Best and median of
 * several runs, the share of the measured f32 multiply-add peak counting 2 FLOPs for each weight and position.
 */
#include "logitd/logitd.h"
#include "peaks.h"
#include "util.h"
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench_options {
    logitd_options engine;
    int n_tokens, n_repeat;
    bool json;
} bench_options;

typedef struct bench_case {
    const char *name;
    int n_tokens, n_temperatures, top_n;
    bool last_only;
} bench_case;

typedef struct bench_result {
    double best_ms, median_ms;
} bench_result;

enum { MAX_REPEAT = 101 };

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/// One request, start to end. Returns ms, or a negative number with *err filled.
static double run_once(logitd_engine *engine, const logitd_request *request, logitd_error *err) {
    logitd_job *job;
    const int64_t start = clock_us();
    if (logitd_job_create(engine, request, &job, err)) return -1.0;
    if (logitd_submit(engine, job, err)) {
        logitd_job_free(job);
        return -1.0;
    }
    while (logitd_job_state(job) == LOGITD_RUNNING) logitd_step(engine);
    const bool failed = logitd_job_state(job) == LOGITD_FAILED;
    if (failed) *err = *logitd_job_error(job);
    logitd_job_free(job);
    return failed ? -1.0 : (double)(clock_us() - start) / 1000.0;
}

static bool run_case(logitd_engine *engine, const bench_case *c, int n_repeat, bench_result *out, logitd_error *err) {
    static const double temperatures[] = {1.0, 0.5, 2.0, 0.7, 0.1, 0.3, 1.5, 0.9};
    double ms[MAX_REPEAT];
    int32_t *tokens = mem_alloc((size_t)c->n_tokens, sizeof *tokens);
    int32_t *positions = mem_alloc((size_t)c->n_tokens, sizeof *positions);
    ASSERT(tokens && positions && n_repeat <= MAX_REPEAT);
    for (int i = 0; i < c->n_tokens; i++) {
        tokens[i] = (int32_t)(((int64_t)i * 7919 + 1000) % logitd_model(engine)->n_vocab);
        positions[i] = c->last_only ? c->n_tokens - 1 : i;
    }
    const logitd_prompt prompt = {tokens, c->n_tokens, positions, c->last_only ? 1 : c->n_tokens};
    const logitd_request request = {.prompts = &prompt,
                                    .n_prompts = 1,
                                    .temperatures = temperatures,
                                    .n_temperatures = c->n_temperatures,
                                    .top_n = c->top_n};
    bool ok = run_once(engine, &request, err) >= 0.0; // warm: pages of the weights, scratch
    for (int i = 0; ok && i < n_repeat; i++) ok = (ms[i] = run_once(engine, &request, err)) >= 0.0;
    mem_free(tokens);
    mem_free(positions);
    if (!ok) return false;
    qsort(ms, (size_t)n_repeat, sizeof *ms, compare_doubles);
    *out = (bench_result){.best_ms = ms[0], .median_ms = ms[n_repeat / 2]};
    return true;
}

/// FLOPs of a case: 2 for each weight of a block and each position, and for the output matrix where it is asked.
static double count_flops(const logitd_model_info *m, const bench_case *c) {
    const double q = (double)m->n_head * m->head_dim, kv = (double)m->n_head_kv * m->head_dim, n = c->n_tokens;
    const double block = (double)m->n_embd * (2 * q + 2 * kv + 3.0 * m->n_ff),
                 attention = q * n; // causal: half of 2 q n
    return 2.0 * n * (block + attention) * m->n_layer + 2.0 * (c->last_only ? 1.0 : n) * (double)m->n_embd * m->n_vocab;
}

static void print_row(const bench_options *o, const logitd_model_info *m, const bench_case *c, bench_result r,
                      double peak, bool first) {
    const double gflops = count_flops(m, c) / r.best_ms / 1e6;
    if (o->json)
        printf(
            "%s\n    {\"name\": \"%s\", \"tokens\": %d, \"temperatures\": %d, \"best_ms\": %.3f, \"median_ms\": %.3f, "
            "\"tokens_per_s\": %.1f, \"gflops\": %.1f, \"share_of_peak\": %.4f}",
            first ? "" : ",", c->name, c->n_tokens, c->n_temperatures, r.best_ms, r.median_ms,
            c->n_tokens / r.best_ms * 1e3, gflops, gflops / peak);
    else
        printf("%-34s %6d %4d %11.1f %11.1f %11.0f %9.1f %7.0f%%\n", c->name, c->n_tokens, c->n_temperatures, r.best_ms,
               r.median_ms, c->n_tokens / r.best_ms * 1e3, gflops, 100.0 * gflops / peak);
}

static int run(const bench_options *o) {
    logitd_engine *engine;
    logitd_error err = {0};
    if (logitd_open(&o->engine, &engine, &err)) {
        fprintf(stderr, "logitd-bench: %s\n", err.message);
        return 1;
    }
    const logitd_model_info *m = logitd_model(engine);
    const double fma = peak_fma_gflops(m->n_threads), read = peak_read_gbps(m->n_threads);
    const int n = MIN(o->n_tokens, m->n_ctx);
    const bench_case cases[] = {
        {"all positions, top 20", n, 1, 20, false},
        {"all positions, top 20, 8 T", n, 8, 20, false},
        {"all positions, top 1024", n, 1, 1024, false},
        {"last position only", n, 1, 20, true},
        {"all positions, short prompt", MIN(32, n), 1, 20, false},
        {"one token", 1, 1, 20, false},
    };
    if (o->json)
        printf(
            "{\"model\": \"%s\", \"kernel\": \"%s\", \"threads\": %d, \"peak_fma_gflops\": %.1f, \"peak_read_gbps\": "
            "%.1f,\n  \"cases\": [",
            m->name, m->kernel, m->n_threads, fma, read);
    else
        printf(
            "%s (%s), %s, %d threads; measured peaks: %.0f GFLOP/s of f32 multiply-adds, %.1f GB/s read\n\n%-34s %6s "
            "%4s %11s %11s %11s %9s %8s\n",
            m->name, m->architecture, m->kernel, m->n_threads, fma, read, "request", "tokens", "T", "best ms",
            "median ms", "tokens/s", "GFLOP/s", "of peak");
    int status = 0;
    for (size_t i = 0; i < ARRAY_LEN(cases) && status == 0; i++) {
        bench_result r;
        if (run_case(engine, &cases[i], o->n_repeat, &r, &err)) {
            print_row(o, m, &cases[i], r, fma, i == 0);
            fflush(stdout);
        } else {
            fprintf(stderr, "logitd-bench: %s\n", err.message);
            status = 1;
        }
    }
    if (o->json) printf("\n  ]}\n");
    logitd_close(engine);
    return status;
}

static int usage(int status) {
    fprintf(status ? stderr : stdout, "usage: logitd-bench --model M.gguf [--tokens 512] [--repeat 5] [--threads N] "
                                      "[--cpu LEVEL] [--json]\n");
    return status;
}

int main(int argc, char **argv) {
    bench_options o = {.n_tokens = 512, .n_repeat = 5};
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},  {"tokens", required_argument, NULL, 'n'},
        {"repeat", required_argument, NULL, 'r'}, {"threads", required_argument, NULL, 't'},
        {"cpu", required_argument, NULL, 'c'},    {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'm':
            o.engine.model_path = optarg;
            break;
        case 'n':
            o.n_tokens = atoi(optarg);
            break;
        case 'r':
            o.n_repeat = atoi(optarg);
            break;
        case 't':
            o.engine.n_threads = atoi(optarg);
            break;
        case 'c':
            o.engine.cpu_level = optarg;
            break;
        case 'j':
            o.json = true;
            break;
        case 'h':
            return usage(0);
        default:
            return usage(2);
        }
    }
    if (!o.engine.model_path || optind != argc || o.n_tokens < 1 || o.n_repeat < 1 || o.n_repeat > MAX_REPEAT)
        return usage(2);
    return run(&o);
}
