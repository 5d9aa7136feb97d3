/*
 * bench.c: logitd-bench: options, and the sections in turn. Prints a table while it measures; --json also writes the
 * whole as one document (report.h). Bad options end with 2 and one sentence, a failure with 1.
 */
#include "bench.h"
#include "cuda_static.h"
#include "limits.h"
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const bench_section sections[] = {
    {"peaks", "what the machine can do, measured", section_peaks},
    {"matmul", "matrix products alone, by CPU level and weight format", section_matmul},
    {"projection", "final projection with statistics, target rank and top 20", section_projection},
    {"profile", "one forward pass, by operation and weight", section_profile},
    {"requests", "whole requests to the engine, top 20 and statistics of all positions", section_requests},
    {"decode", "one new token a sequence over a KV cache, with statistics and top 20", section_decode},
    {"threads", "one request, with fewer threads", section_threads},
    {"cuda", "the GPU's kernels, one by one, for layers and projections of model shapes", section_cuda},
};

static const char usage[] =
    "usage: logitd-bench --model M.gguf [OPTIONS]\n       logitd-bench --cuda-static\n\n"
    "  --only A,B        sections: peaks, matmul, projection, profile, requests, decode, threads, cuda (default all)\n"
    "  --cuda-static     what is known of the GPU's kernels without one: registers, occupancy, bounds, predictions\n"
    "  --json FILE       also write everything as JSON; - is stdout, without the table\n"
    "  --tokens N        positions of a typical request (default 512)\n"
    "  --repeat N        most runs of a case, 3 to 101 (default 25)\n"
    "  --seconds S       time for the runs of a case (default 2); three are always done\n"
    "  --threads N       worker threads (default: the processors of this process)\n"
    "  --cpu LEVEL       auto, reference, portable, avx2, avx512, avx512vnni or neon (default auto)\n"
    "  --precision P     exact, fast or bf16 (default exact)\n\n"
    "A multiply and an add are two operations. \"of limit\": the time at the measured f32 multiply-add peak (c) or at "
    "the\n"
    "measured read bandwidth (m), whichever is longer, as a share of the best time. Spread: median over best.\n";

typedef struct command {
    bench bench;
    const char *only, *json;
} command;

backend_options bench_backend_options(const bench *b) {
    return (backend_options){
        .precision = b->engine.precision, .cpu_level = b->engine.cpu_level, .n_threads = b->engine.n_threads};
}

// ---------------------------------------------------------------------------------------------------------- options

static bool read_number(const char *option, const char *text, double min, double max, double *out) {
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    if (!errno && end != text && !*end && value >= min && value <= max) {
        *out = value;
        return true;
    }
    fprintf(stderr, "logitd-bench: --%s is \"%s\"; it must be a number from %g to %g\n", option, text, min, max);
    return false;
}

static bool read_int(const char *option, const char *text, int min, int max, int *out) {
    double value;
    if (!read_number(option, text, min, max, &value)) return false;
    *out = (int)value;
    if (*out == value) return true;
    fprintf(stderr, "logitd-bench: --%s is \"%s\"; it must be an integer\n", option, text);
    return false;
}

/// Is `name` one of the comma-separated words? NULL: every name is.
static bool listed(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, name, n) == 0 && (p[n] == ',' || !p[n])) return true;
    }
    return !list;
}

/// Every word of --only must be a section.
static bool check_only(const char *only) {
    size_t n_words = only != NULL, n_found = 0;
    for (const char *p = only; p && (p = strchr(p, ',')); p++) n_words++;
    for (size_t i = 0; only && i < ARRAY_LEN(sections); i++) n_found += listed(only, sections[i].name);
    if (n_words == n_found) return true;
    fprintf(stderr, "logitd-bench: --only is \"%s\"; it must be some of", only);
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) fprintf(stderr, "%s %s", i ? "," : "", sections[i].name);
    fputc('\n', stderr);
    return false;
}

/// The section of the GPU's kernels has shapes of its own, and no limits of the processor.
static bool needs_model(const char *only) {
    return !only || strcmp(only, "cuda") != 0;
}

/// -1: go on; else the exit status.
static int read_options(int argc, char **argv, command *c) {
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"only", required_argument, NULL, 'o'},
                                            {"json", required_argument, NULL, 'j'},
                                            {"tokens", required_argument, NULL, 'n'},
                                            {"repeat", required_argument, NULL, 'r'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"cpu", required_argument, NULL, 'c'},
                                            {"precision", required_argument, NULL, 'p'},
                                            {"cuda-static", no_argument, NULL, 'C'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    bench *b = &c->bench;
    double seconds = 2.0;
    bool ok = true;
    for (int o; ok && (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == '?') return 2; // getopt said what is wrong
        if (o == 'm') b->engine.model_path = optarg;
        if (o == 'o') c->only = optarg;
        if (o == 'j') c->json = optarg;
        if (o == 'n') ok = read_int("tokens", optarg, 1, LIMIT_CTX_TOKENS, &b->n_tokens);
        if (o == 'r') ok = read_int("repeat", optarg, TIMING_MIN_RUNS, TIMING_MAX_RUNS, &b->plan.max_runs);
        if (o == 's') ok = read_number("seconds", optarg, 0.0, 3600.0, &seconds);
        if (o == 't') ok = read_int("threads", optarg, 1, LIMIT_THREADS, &b->engine.n_threads);
        if (o == 'c') b->engine.cpu_level = optarg;
        if (o == 'p') b->engine.precision = optarg;
        if (o == 'C') return cuda_static_print(stdout) ? 0 : 1;
        if (o == 'h') {
            fputs(usage, stdout);
            return 0;
        }
    }
    b->plan.budget_ms = seconds * 1e3;
    if (!ok || !check_only(c->only)) return 2;
    if ((b->engine.model_path || !needs_model(c->only)) && optind == argc) return -1;
    fprintf(stderr, "logitd-bench: %s; see logitd-bench --help\n",
            b->engine.model_path || !needs_model(c->only) ? "only options are expected" : "--model M.gguf is missing");
    return 2;
}

// ------------------------------------------------------------------------------------------------------------- work

/// What the file says of the model, and what the engine makes of it and of the options.
static logitd_status read_model(bench *b, logitd_error *err) {
    gguf_file *file = NULL;
    logitd_engine *engine;
    logitd_status status = gguf_open(b->engine.model_path, &file, err);
    if (!status) status = model_read_hparams(file, &b->arch, &b->hp, err);
    if (!status) b->weight_bytes = session_weight_bytes(file);
    gguf_close(file);
    if (!status) status = logitd_open(&b->engine, &engine, err);
    if (status) return status;
    const logitd_model_info *m = logitd_model(engine);
    b->engine.n_threads = m->n_threads;
    b->n_tokens = MIN(b->n_tokens, m->n_ctx / 2); // decode goes on from half of it
    report_about(b->report, m);
    logitd_close(engine);
    return LOGITD_OK;
}

/// Arithmetic is at its best of the run so far: others who use the machine only take from it. Reading drifts by itself.
static void renew_limit(bench *b) {
    b->limit.gops = MAX(b->limit.gops, peak_gops(b->engine.cpu_level, b->engine.n_threads));
    b->limit.gbps = peak_read_gbps(b->engine.n_threads);
}

static logitd_status write_json(const report *r, const char *path, logitd_error *err) {
    const bool to_stdout = strcmp(path, "-") == 0;
    char *text = report_json(r);
    if (!text) return error_set(err, LOGITD_ENOMEM, "there is no memory for the JSON document");
    FILE *f = to_stdout ? stdout : fopen(path, "w");
    bool ok = f && fputs(text, f) >= 0 && fputc('\n', f) != EOF && fflush(f) == 0;
    if (f && !to_stdout) ok = fclose(f) == 0 && ok;
    free(text);
    return ok ? LOGITD_OK : error_set(err, LOGITD_EIO, "%s cannot be written: %s", path, strerror(errno));
}

/// Before the work, which takes minutes: whether its figures can be written. Changes nothing in a file that is there.
static logitd_status check_json(const command *c, logitd_error *err) {
    if (!c->json || strcmp(c->json, "-") == 0) return LOGITD_OK;
    const char *path = c->bench.engine.model_path;
    if (path && util_same_file(c->json, path))
        return error_set(err, LOGITD_EINVAL, "--json is %s, which is the model; name another file", c->json);
    FILE *f = fopen(c->json, "a");
    if (f) fclose(f);
    return f ? LOGITD_OK : error_set(err, LOGITD_EIO, "%s cannot be written: %s", c->json, strerror(errno));
}

static logitd_status run(command *c, logitd_error *err) {
    bench *b = &c->bench;
    logitd_status status = check_json(c, err);
    if (!status && needs_model(c->only)) status = read_model(b, err);
    for (size_t i = 0; i < ARRAY_LEN(sections) && !status; i++) {
        if (!listed(c->only, sections[i].name)) continue;
        const bool on_cpu = sections[i].run != section_cuda;
        if (on_cpu) renew_limit(b);
        report_section(b->report, sections[i].name, sections[i].sentence, on_cpu ? b->limit : (peak_limit){0});
        status = sections[i].run(b, err);
    }
    if (!status && c->json) status = write_json(b->report, c->json, err);
    return status;
}

int main(int argc, char **argv) {
    command c = {.bench = {.engine = {.backend = "cpu"}, .n_tokens = 512, .plan = {.max_runs = 25}}};
    logitd_error err = {0};
    const int wrong = read_options(argc, argv, &c);
    if (wrong >= 0) return wrong;
    c.bench.report = report_create(c.json && strcmp(c.json, "-") == 0 ? NULL : stdout);
    ASSERT(c.bench.report);
    logitd_status status = run(&c, &err);
    if (!status && (fflush(stdout) != 0 || ferror(stdout)))
        status = error_set(&err, LOGITD_EIO, "cannot write stdout: %s", strerror(errno));
    if (status) fprintf(stderr, "logitd-bench: %s\n", err.message);
    report_free(c.bench.report);
    return status ? 1 : 0;
}
