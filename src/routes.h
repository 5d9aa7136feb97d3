/*
 * routes.h: what the service answers at which path: the table of routes and the handlers' shared state.
 */
#ifndef ROUTES_H
#define ROUTES_H

#include "enc_reply.h"
#include "gate.h"
#include "http_exchange.h"
#include "memory_plan.h"
#include "metrics.h"
#include "sched.h"
#include <stdatomic.h>

typedef struct service {
    const logitd_engine *engine;
    sched *sched;
    token_json *tokens;
    int64_t start_us;
    metrics *metrics;
    gate *gate; // made and freed by the owner of the service
    memory_plan memory;
    atomic_bool leaving; // set at SIGTERM: /health is not ready, though requests may still be taken
    char id_prefix[24];  // of reply ids: random once, so that ids of two servers differ
} service;

/// Makes what the handlers share; engine and sched outlive it. ENOMEM.
logitd_status service_init(service *s, const logitd_engine *engine, sched *scheduler, logitd_error *err);
void service_end(service *s);

/// The table; its handlers expect a service as their context.
extern const http_route routes[];
extern const size_t n_routes;

/// Lets requests in, or fills in why not: http_options.admit.
bool service_admit(http_exchange *x, const http_route *route);
/// Counts a request: http_options.observe.
void service_observe(const http_exchange *x, bool cut);

/// POST /distribution (routes_distribution.c).
http_step handle_distribution(http_exchange *x);
/// GET /vocab (routes_vocab.c).
http_step handle_vocab(http_exchange *x);
/// GET / and GET /docs (routes_page.c).
http_step handle_explorer(http_exchange *x);
http_step handle_docs(http_exchange *x);

#endif
