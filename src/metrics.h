/*
 * metrics.h: what GET /metrics shows, in Prometheus' text format: counters and histograms that the handlers feed, and
 * the state of scheduler, memory and model as they are when asked. Owns the counters; all of them are atomic, and a
 * page of metrics is no snapshot of one instant. The format is a few lines of text, and Debian has no library for it.
 */
#ifndef METRICS_H
#define METRICS_H

#include "http_exchange.h"
#include "sched.h"

typedef struct metrics metrics;

/// `routes` are the label values of requests and outlive the metrics. NULL: no memory.
metrics *metrics_create(const http_route *routes, size_t n_routes);
void metrics_free(metrics *m);

/// A request has ended.
void metrics_count_request(metrics *m, const http_exchange *x, bool cut);

typedef enum metrics_span { SPAN_QUEUE = 0, SPAN_COMPUTE, SPAN_ENCODE, N_SPANS } metrics_span;
/// What a /distribution request took of one kind.
void metrics_count_seconds(metrics *m, metrics_span span, double seconds);

typedef struct metrics_now { // what is asked of others for each page
    sched_stats sched;
    const logitd_model_info *model;
    bool ready;
    int n_exchanges; // requests that are being read or answered
} metrics_now;
void metrics_write(const metrics *m, const metrics_now *now, buffer *out);

#endif
