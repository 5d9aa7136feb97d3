// report.c: see report.h.
#include "report.h"
#include "util.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>
#include <time.h>

struct report {
    FILE *table;
    cJSON *root, *cases, *notes, *counts;
};

bench_rates report_rates(const bench_case *c) {
    const double best = c->time.best_ms;
    const double ops_ms = c->limit.gops > 0 ? c->ops / c->limit.gops / 1e6 : 0.0;
    const double bytes_ms = c->limit.gbps > 0 ? c->bytes / c->limit.gbps / 1e6 : 0.0;
    const double limit_ms = MAX(ops_ms, bytes_ms);
    return (bench_rates){.positions_per_s = c->positions / best * 1e3,
                         .gops = c->ops / best / 1e6,
                         .gbps = c->bytes / best / 1e6,
                         .limit_ms = limit_ms,
                         .limit_positions_per_s = limit_ms > 0 ? c->positions / limit_ms * 1e3 : 0.0,
                         .share_of_limit = limit_ms / best,
                         .memory_bound = bytes_ms > ops_ms};
}

// --------------------------------------------------------------------------------------------------- the document

/// "AMD EPYC 9004", from the first line of /proc/cpuinfo that names the processor.
static void cpu_name(char *out, size_t n) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, n, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(out, n, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f) fclose(f);
}

report *report_create(FILE *table) {
    report *r = mem_alloc(1, sizeof *r);
    if (!r) return NULL;
    *r = (report){.table = table, .root = cJSON_CreateObject()};
    char date[32], cpu[128];
    const time_t now = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    cpu_name(cpu, sizeof cpu);
    cJSON_AddNumberToObject(r->root, "schema", 1);
    cJSON_AddStringToObject(r->root, "date", date);
    cJSON *machine = cJSON_AddObjectToObject(r->root, "machine");
    cJSON_AddStringToObject(machine, "cpu", cpu);
    cJSON_AddNumberToObject(machine, "processors", util_cpu_count());
    cJSON_AddStringToObject(r->root, "logitd", LOGITD_VERSION);
    if (table) fprintf(table, "%s, %d processors\n", cpu, util_cpu_count());
    return r;
}

void report_free(report *r) {
    if (!r) return;
    cJSON_Delete(r->root);
    cJSON_Delete(r->cases);
    cJSON_Delete(r->notes);
    cJSON_Delete(r->counts);
    mem_free(r);
}

void report_about(report *r, const logitd_model_info *m) {
    cJSON_AddNumberToObject(r->root, "threads", m->n_threads);
    cJSON *model = cJSON_AddObjectToObject(r->root, "model");
    cJSON_AddStringToObject(model, "name", m->name);
    cJSON_AddStringToObject(model, "architecture", m->architecture);
    cJSON_AddStringToObject(model, "sha256", m->sha256);
    cJSON_AddNumberToObject(model, "n_vocab", m->n_vocab);
    cJSON_AddNumberToObject(model, "n_embd", m->n_embd);
    cJSON_AddNumberToObject(model, "n_params", (double)m->n_params);
    cJSON_AddStringToObject(model, "backend", m->backend);
    cJSON_AddStringToObject(model, "precision", m->precision);
    cJSON_AddStringToObject(model, "kernel", m->kernel);
    if (r->table)
        fprintf(r->table, "%s (%s), %d tokens of vocabulary; %s %s %s, %d threads\n", m->name, m->architecture,
                m->n_vocab, m->backend, m->kernel, m->precision, m->n_threads);
}

static void add_if(cJSON *object, const char *key, double value) {
    if (value > 0) cJSON_AddNumberToObject(object, key, value);
}

static cJSON *case_json(const bench_case *c, const bench_rates *r) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "section", c->section);
    cJSON_AddStringToObject(o, "name", c->name);
    add_if(o, "threads", c->threads);
    add_if(o, "positions", c->positions);
    add_if(o, "temperatures", c->temperatures);
    add_if(o, "vocabulary", c->vocabulary);
    add_if(o, "top_n", c->top_n);
    cJSON_AddNumberToObject(o, "n_runs", c->time.n_runs);
    cJSON_AddNumberToObject(o, "best_ms", c->time.best_ms);
    cJSON_AddNumberToObject(o, "median_ms", c->time.median_ms);
    cJSON_AddNumberToObject(o, "spread", c->time.spread);
    add_if(o, "positions_per_s", r->positions_per_s);
    add_if(o, "gops", r->gops);
    add_if(o, "gbps", r->gbps);
    add_if(o, "limit_gops", c->limit.gops);
    add_if(o, "limit_gbps", c->limit.gbps);
    add_if(o, "limit_positions_per_s", r->limit_positions_per_s);
    add_if(o, "share_of_limit", r->share_of_limit);
    if (r->limit_ms > 0) cJSON_AddStringToObject(o, "bound", r->memory_bound ? "memory" : "compute");
    add_if(o, "share_of_time", c->share_of_time);
    return o;
}

char *report_json(const report *r) {
    cJSON *whole = cJSON_Duplicate(r->root, true);
    cJSON_AddItemToObject(whole, "cases", r->cases ? cJSON_Duplicate(r->cases, true) : cJSON_CreateArray());
    if (r->notes) cJSON_AddItemToObject(whole, "notes", cJSON_Duplicate(r->notes, true));
    if (r->counts) cJSON_AddItemToObject(whole, "counts", cJSON_Duplicate(r->counts, true));
    char *text = cJSON_Print(whole);
    cJSON_Delete(whole);
    return text;
}

// ------------------------------------------------------------------------------------------------------ the table

void report_section(report *r, const char *section, const char *sentence, peak_limit limit) {
    if (!r->table) return;
    fprintf(r->table, "\n%s: %s\n", section, sentence);
    if (limit.gops > 0)
        fprintf(r->table, "limits: %.0f Gop/s of f32 multiply-adds, %.1f GB/s read\n", limit.gops, limit.gbps);
    fprintf(r->table, "\n  %-46s %10s %10s %7s %11s %8s %7s %9s %8s\n", "", "best ms", "median ms", "spread",
            "positions/s", "Gop/s", "GB/s", "of limit", "of time");
    fflush(r->table);
}

/// A number that does not apply leaves its column empty.
static void print_cell(FILE *f, int width, int decimals, double value, const char *unit) {
    if (value > 0 && isfinite(value)) {
        fprintf(f, " %*.*f%s", width - (int)strlen(unit), decimals, value, unit);
    } else {
        fprintf(f, " %*s", width, "");
    }
}

static void print_row(FILE *f, const bench_case *c, const bench_rates *r) {
    fprintf(f, "  %-46s", c->name);
    print_cell(f, 10, c->time.best_ms < 10 ? 3 : 1, c->time.best_ms, "");
    print_cell(f, 10, c->time.median_ms < 10 ? 3 : 1, c->time.median_ms, "");
    fprintf(f, " %6.1f%%", 100 * c->time.spread);
    print_cell(f, 11, r->positions_per_s < 100 ? 1 : 0, r->positions_per_s, "");
    print_cell(f, 8, r->gops < 100 ? 1 : 0, r->gops, "");
    print_cell(f, 7, 1, r->gbps, "");
    print_cell(f, 9, 0, 100 * r->share_of_limit, r->memory_bound ? "% m" : "% c");
    print_cell(f, 8, 1, 100 * c->share_of_time, "%");
    fputc('\n', f);
    fflush(f);
}

void report_case(report *r, const bench_case *c) {
    ASSERT(c->time.n_runs > 0 && c->time.best_ms > 0);
    const bench_rates rates = report_rates(c);
    if (!r->cases) r->cases = cJSON_CreateArray();
    cJSON_AddItemToArray(r->cases, case_json(c, &rates));
    if (r->table) print_row(r->table, c, &rates);
}

void report_note(report *r, const char *sentence) {
    if (!r->notes) r->notes = cJSON_CreateArray();
    cJSON_AddItemToArray(r->notes, cJSON_CreateString(sentence));
    if (r->table) fprintf(r->table, "  %s\n", sentence);
}

/// A count by its name.
static double count_named(const char *const *names, const double *counts, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0) return counts[i];
    return 0.0;
}

void report_counts(report *r, const char *section, const char *name, const char *kernel, double units,
                   const char *const *names, const double *counts, int n) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "section", section);
    cJSON_AddStringToObject(o, "name", name);
    cJSON_AddStringToObject(o, "kernel", kernel);
    cJSON_AddNumberToObject(o, "units", units);
    for (int i = 0; i < n; i++) cJSON_AddNumberToObject(o, names[i], counts[i]);
    if (!r->counts) r->counts = cJSON_CreateArray();
    cJSON_AddItemToArray(r->counts, o);
    if (!r->table) return;
#define OF(x) count_named(names, counts, n, x)
    fprintf(r->table, "  %-66s %12.0f instructions", name, OF("thread_instructions"));
    const double loads = OF("global_loads"), stores = OF("global_stores"), shared = OF("shared_requests");
    if (loads > 0) fprintf(r->table, ", %.1f sectors a load", OF("global_load_sectors") / loads);
    if (stores > 0) fprintf(r->table, ", %.1f a store", OF("global_store_sectors") / stores);
    if (shared > 0)
        fprintf(r->table, ", %.2f of %.2f wavefronts", OF("shared_wavefronts") / shared,
                OF("shared_wavefronts_ideal") / shared);
#undef OF
    fputc('\n', r->table);
    fflush(r->table);
}
