// metrics.c: see metrics.h. Names and units follow Prometheus' conventions: base units, _total for counters.
#include "metrics.h"
#include <stdatomic.h>
#include <string.h>

/// Upper ends of the histograms' buckets, in seconds; +Inf follows.
static const double bounds_s[] = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300};
#define N_BOUNDS ARRAY_LEN(bounds_s)

static const int codes[] = {200, 204, 304, 400, 401, 403, 404, 405, 413, 415, 429, 500, 503, 0}; // 0: cut
#define N_CODES ARRAY_LEN(codes)

typedef struct histogram {
    atomic_ullong n_in[N_BOUNDS + 1]; // of each bucket alone
    atomic_ullong sum_us;
} histogram;

typedef struct route_counts {
    atomic_ullong n_of[N_CODES];
    histogram seconds;
} route_counts;

struct metrics {
    const http_route *routes;
    size_t n_routes;
    route_counts *counts; // [n_routes + 1] the last: paths that are no route
    atomic_ullong n_cut, reply_bytes;
    histogram spans[N_SPANS];
};

metrics *metrics_create(const http_route *routes, size_t n_routes) {
    metrics *m = mem_alloc(1, sizeof *m);
    if (!m) return NULL;
    m->routes = routes;
    m->n_routes = n_routes;
    m->counts = mem_alloc(n_routes + 1, sizeof *m->counts);
    if (m->counts) return m;
    mem_free(m);
    return NULL;
}

void metrics_free(metrics *m) {
    if (!m) return;
    mem_free(m->counts);
    mem_free(m);
}

static void add(atomic_ullong *counter, unsigned long long n) {
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static unsigned long long get(const atomic_ullong *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void observe(histogram *h, double seconds) {
    size_t i = 0;
    while (i < N_BOUNDS && seconds > bounds_s[i]) i++;
    add(&h->n_in[i], 1);
    add(&h->sum_us, (unsigned long long)(seconds * 1e6));
}

void metrics_count_request(metrics *m, const http_exchange *x, bool cut) {
    size_t route = 0, code = 0;
    while (route < m->n_routes && strcmp(m->routes[route].path, x->path) != 0) route++;
    while (codes[code] != 0 && codes[code] != x->status) code++;
    add(&m->counts[route].n_of[code], 1);
    observe(&m->counts[route].seconds, (double)(clock_us() - x->start_us) / 1e6);
    add(&m->reply_bytes, x->n_reply_bytes);
    add(&m->n_cut, cut);
}

void metrics_count_seconds(metrics *m, metrics_span span, double seconds) {
    observe(&m->spans[span], seconds);
}

// ------------------------------------------------------------------------------------------------------- the page

static void put_head(buffer *out, const char *name, const char *type, const char *help) {
    buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_one(buffer *out, const char *name, const char *type, const char *help, double value) {
    put_head(out, name, type, help);
    buffer_printf(out, "%s %.17g\n", name, value);
}

/// `labels`: `name="value"` or "".
static void put_histogram(buffer *out, const char *name, const char *labels, const histogram *h) {
    unsigned long long n = 0;
    const char *comma = *labels ? "," : "";
    for (size_t i = 0; i <= N_BOUNDS; i++) {
        n += get(&h->n_in[i]);
        if (i < N_BOUNDS) {
            buffer_printf(out, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, labels, comma, bounds_s[i], n);
        } else {
            buffer_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, labels, comma, n);
        }
    }
    const char *open = *labels ? "{" : "", *close = *labels ? "}" : "";
    buffer_printf(out, "%s_sum%s%s%s %.6f\n%s_count%s%s%s %llu\n", name, open, labels, close,
                  (double)get(&h->sum_us) / 1e6, name, open, labels, close, n);
}

static void put_requests(const metrics *m, buffer *out) {
    put_head(out, "logitd_requests_total", "counter", "Requests by route and status; code 0: cut before a reply.");
    for (size_t r = 0; r <= m->n_routes; r++) {
        for (size_t c = 0; c < N_CODES; c++) {
            unsigned long long n = get(&m->counts[r].n_of[c]);
            if (n == 0 && (codes[c] != 200 || r == m->n_routes)) continue;
            buffer_printf(out, "logitd_requests_total{route=\"%s\",code=\"%d\"} %llu\n",
                          r < m->n_routes ? m->routes[r].path : "other", codes[c], n);
        }
    }
    put_head(out, "logitd_request_seconds", "histogram", "From a request's headers to its reply's last byte.");
    for (size_t r = 0; r < m->n_routes; r++) {
        char label[80];
        snprintf(label, sizeof label, "route=\"%s\"", m->routes[r].path);
        put_histogram(out, "logitd_request_seconds", label, &m->counts[r].seconds);
    }
    put_one(out, "logitd_replies_cut_total", "counter", "Replies that did not get through whole.",
            (double)get(&m->n_cut));
    put_one(out, "logitd_reply_bytes_total", "counter", "Bytes of replies, without headers.",
            (double)get(&m->reply_bytes));
}

static void put_spans(const metrics *m, buffer *out) {
    static const char *const names[N_SPANS][2] = {
        [SPAN_QUEUE] = {"logitd_queue_seconds", "From submission to the start of the work, of a distribution."},
        [SPAN_COMPUTE] = {"logitd_compute_seconds", "Wall time of the batches that a distribution took part in."},
        [SPAN_ENCODE] = {"logitd_encode_seconds", "Time spent writing the reply of a distribution."},
    };
    for (int i = 0; i < N_SPANS; i++) {
        put_head(out, names[i][0], "histogram", names[i][1]);
        put_histogram(out, names[i][0], "", &m->spans[i]);
    }
}

static void put_sched(const sched_stats *s, buffer *out) {
    put_head(out, "logitd_jobs", "gauge",
             "Distributions in flight by state; held: accepted and not yet answered whole.");
    buffer_printf(
        out, "logitd_jobs{state=\"queued\"} %d\nlogitd_jobs{state=\"running\"} %d\nlogitd_jobs{state=\"held\"} %d\n",
        s->n_queued, s->n_running, s->n_held);
    put_head(out, "logitd_jobs_total", "counter", "Distributions by how they ended, and those refused.");
    const struct {
        const char *result;
        uint64_t n;
    } ends[] = {{"done", s->n_done}, {"failed", s->n_failed}, {"canceled", s->n_canceled}, {"refused", s->n_refused}};
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        buffer_printf(out, "logitd_jobs_total{result=\"%s\"} %llu\n", ends[i].result, (unsigned long long)ends[i].n);
    put_one(out, "logitd_tokens_total", "counter", "Tokens run through the model.", (double)s->n_tokens);
    put_one(out, "logitd_full_rows_total", "counter", "Full rows made for replies.", (double)s->n_full_rows);
    put_head(out, "logitd_batch_tokens", "histogram", "Tokens of a batch.");
    unsigned long long n = 0;
    for (int i = 0; i < SCHED_BATCH_SIZES; i++) {
        n += s->n_steps_of_size[i];
        buffer_printf(out, "logitd_batch_tokens_bucket{le=\"%d\"} %llu\n", 1 << i, n);
    }
    buffer_printf(out,
                  "logitd_batch_tokens_bucket{le=\"+Inf\"} %llu\nlogitd_batch_tokens_sum %llu\n"
                  "logitd_batch_tokens_count %llu\n",
                  (unsigned long long)s->n_steps, (unsigned long long)s->n_tokens, (unsigned long long)s->n_steps);
}

/// A label's value: quotes, backslashes and line breaks are escaped.
static void put_label(buffer *out, const char *name, const char *value) {
    buffer text = {0};
    utf8_append_lossy(&text, value, strlen(value));
    buffer_printf(out, "%s=\"", name);
    for (const char *c = text.data; c && *c; c++) {
        if (*c == '\n') {
            buffer_puts(out, "\\n");
        } else {
            if (*c == '"' || *c == '\\') buffer_puts(out, "\\");
            buffer_append(out, c, 1);
        }
    }
    buffer_puts(out, "\",");
    out->failed |= text.failed;
    buffer_free(&text);
}

void metrics_write(const metrics *m, const metrics_now *now, buffer *out) {
    put_requests(m, out);
    put_spans(m, out);
    put_sched(&now->sched, out);
    put_one(out, "logitd_requests_in_flight", "gauge", "Requests being read or answered.", now->n_exchanges);
    put_one(out, "logitd_ready", "gauge", "1: takes requests.", now->ready);
    put_one(out, "logitd_allocated_bytes", "gauge", "Memory of engine and requests.", (double)mem_held());
    put_one(out, "logitd_resident_bytes", "gauge", "Memory in RAM, the mapped model included.",
            (double)util_resident_bytes());
    put_head(out, "logitd_model_info", "gauge", "What is served; always 1.");
    buffer_puts(out, "logitd_model_info{");
    put_label(out, "name", now->model->name);
    put_label(out, "architecture", now->model->architecture);
    put_label(out, "sha256", now->model->sha256);
    put_label(out, "backend", now->model->backend);
    put_label(out, "precision", now->model->precision);
    put_label(out, "kernel", now->model->kernel);
    put_label(out, "version", logitd_version());
    buffer_puts(out, "} 1\n");
}
