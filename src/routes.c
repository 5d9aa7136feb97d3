/*
 * routes.c: see routes.h. The small handlers.
 */
#include "routes.h"
#include "api_error.h"
#include "http_server.h"
#include "json_read.h"
#include "json_write.h"
#include "limits.h"
#include "openapi.h"
#include <string.h>

// ------------------------------------------------------------------------------------------------- GET /health

static bool leaving(const service *s) {
    return atomic_load(&s->leaving) || sched_draining(s->sched);
}

static http_step handle_health(http_exchange *x) {
    const service *s = x->context;
    const char *why = "";
    const char *status = "ok";
    if (!logitd_healthy(s->engine, &why)) {
        status = "failed";
    } else if (leaving(s)) {
        status = "draining";
        why = "the server is shutting down: send it no new requests";
    }
    const bool alive = strcmp(status, "failed") != 0, ready = strcmp(status, "ok") == 0;
    const char *probe = http_query(x, "probe");
    if (probe && strcmp(probe, "alive") != 0 && strcmp(probe, "ready") != 0)
        return http_fail(x, 400, "probe", "probe is %.20s; it must be alive or ready", probe);
    const bool ok = probe && strcmp(probe, "alive") == 0 ? alive : ready;
    sched_stats n = sched_read_stats(s->sched);
    x->status = ok ? 200 : 503;
    buffer_printf(&x->reply, "{\"status\":\"%s\",\"alive\":%s,\"ready\":%s,", status, alive ? "true" : "false",
                  ready ? "true" : "false");
    if (!ok) {
        api_error_write(&x->reply, x->status, "", why);
        buffer_puts(&x->reply, ",");
    }
    buffer_printf(
        &x->reply,
        "\"uptime_s\":%lld,\"jobs\":{\"queued\":%d,\"running\":%d,\"held\":%d,\"accepted\":%llu,\"done\":%llu,"
        "\"failed\":%llu,\"canceled\":%llu},\"steps\":%llu,\"tokens\":%llu,\"full_rows\":%llu}\n",
        (long long)((clock_us() - s->start_us) / 1000000), n.n_queued, n.n_running, n.n_held,
        (unsigned long long)n.n_accepted, (unsigned long long)n.n_done, (unsigned long long)n.n_failed,
        (unsigned long long)n.n_canceled, (unsigned long long)n.n_steps, (unsigned long long)n.n_tokens,
        (unsigned long long)n.n_full_rows);
    return HTTP_DONE;
}

// -------------------------------------------------------------------------------------------------- GET /model

static void put_member(buffer *out, const char *name, const char *text) {
    buffer_printf(out, ",\"%s\":", name);
    json_cstring(out, text);
}

static void put_id(buffer *out, const char *name, int id) {
    if (id >= 0) {
        buffer_printf(out, ",\"%s\":%d", name, id);
    } else {
        buffer_printf(out, ",\"%s\":null", name);
    }
}

static void put_limits(buffer *out, const logitd_model_info *m) {
    buffer_printf(out,
                  ",\"limits\":{\"prompt_tokens\":%d,\"temperatures\":%d,\"temperature_min\":%g,"
                  "\"temperature_max\":%g,\"top_n\":%d,\"token_ids\":%d",
                  m->n_ctx, LIMIT_TEMPERATURES, LIMIT_TEMPERATURE_MIN, LIMIT_TEMPERATURE_MAX,
                  MIN(LIMIT_TOP_N, m->n_vocab), LIMIT_LISTED_IDS);
    for (int i = 0; i < n_limit_rows; i++)
        buffer_printf(out, ",\"%s\":%lld", limit_rows[i].name, (long long)*limit_rows[i].value);
    buffer_puts(out, "}");
}

static void put_memory(buffer *out, const memory_plan *plan) {
    buffer_printf(out,
                  ",\"memory\":{\"model_bytes\":%llu,\"engine_bytes\":%llu,\"requests_bytes\":%llu,"
                  "\"connections_bytes\":%llu,\"worst_bytes\":%llu,\"machine_bytes\":%llu}",
                  (unsigned long long)plan->model_bytes, (unsigned long long)plan->engine_bytes,
                  (unsigned long long)plan->requests_bytes, (unsigned long long)plan->connections_bytes,
                  (unsigned long long)plan->worst_bytes, (unsigned long long)plan->machine_bytes);
}

static http_step handle_model(http_exchange *x) {
    const service *s = x->context;
    const logitd_model_info *m = logitd_model(s->engine);
    buffer *out = &x->reply;
    buffer_puts(out, "{\"name\":");
    json_cstring(out, m->name);
    put_member(out, "architecture", m->architecture);
    put_member(out, "sha256", m->sha256);
    put_member(out, "license", m->license);
    put_member(out, "path", m->path);
    buffer_printf(out, ",\"file_bytes\":%llu,\"n_params\":%llu,\"n_vocab\":%d,\"n_ctx\":%d,\"n_ctx_train\":%d",
                  (unsigned long long)m->file_bytes, (unsigned long long)m->n_params, m->n_vocab, m->n_ctx,
                  m->n_ctx_train);
    buffer_printf(out, ",\"n_embd\":%d,\"n_layer\":%d,\"n_head\":%d,\"n_head_kv\":%d,\"head_dim\":%d,\"n_ff\":%d",
                  m->n_embd, m->n_layer, m->n_head, m->n_head_kv, m->head_dim, m->n_ff);
    put_member(out, "tokenizer", m->tokenizer);
    put_id(out, "bos_id", m->bos_id);
    put_id(out, "eos_id", m->eos_id);
    buffer_printf(out, ",\"add_bos\":%s", m->add_bos ? "true" : "false");
    put_member(out, "chat_template", m->chat_template);
    put_member(out, "backend", m->backend);
    put_member(out, "precision", m->precision);
    put_member(out, "kernel", m->kernel);
    buffer_puts(out, ",\"logprob_bound\":");
    json_double(out, m->logprob_bound);
    buffer_printf(out, ",\"n_threads\":%d,\"batch_tokens\":%d,\"kv_tokens\":%d", m->n_threads, m->batch_tokens,
                  m->kv_tokens);
    put_limits(out, m);
    put_memory(out, &s->memory);
    buffer_puts(out, ",\"formats\":[");
    for (int i = 0; i < N_FORMATS; i++) buffer_printf(out, "%s\"%s\"", i ? "," : "", reply_formats[i].name);
    buffer_puts(out, "],\"precisions\":[");
    json_cstring(out, m->precision); // of the running engine, which serves no other
    buffer_puts(out, "],\"backends\":[");
    json_cstring(out, m->backend);
    buffer_puts(out, "]");
    put_member(out, "version", logitd_version());
    buffer_puts(out, "}\n");
    x->status = 200;
    return HTTP_DONE;
}

// ---------------------------------------------------------------------------------- POST /tokenize, /detokenize

/// Body → tree, with its members checked against names[n]. NULL: *err says why.
static json_node *read_body(const http_exchange *x, const char *const *names, size_t n, logitd_error *err) {
    json_node *root = json_parse(x->body.data, x->body.len, err);
    if (!root || !json_check_members(root, "", names, n, err)) return root;
    json_free(root);
    return NULL;
}

static logitd_status missing(const char *name, const char *what, logitd_error *err) {
    return error_set_param(err, LOGITD_EINVAL, name, "%s is missing; send %s", name, what);
}

static logitd_status tokenize(const service *s, const json_node *root, token_vec *out, logitd_error *err) {
    const tokenizer *t = logitd_tokenizer(s->engine);
    const json_node *text = json_member(root, "text"), *bos = json_member(root, "add_bos"),
                    *spec = json_member(root, "special");
    bool add_bos = tokenizer_add_bos(t), special = false;
    const char *bytes;
    if (!text) return missing("text", "a string", err);
    logitd_status status = json_read_string(text, "text", &bytes, err);
    if (!status && bos) status = json_read_bool(bos, "add_bos", &add_bos, err);
    if (!status && spec) status = json_read_bool(spec, "special", &special, err);
    if (!status && bos && add_bos && tokenizer_bos_id(t) < 0) {
        status = error_set_param(err, LOGITD_EINVAL, "add_bos", "add_bos is true, but this model has no BOS token");
    }
    if (!status && strlen(bytes) > (size_t)limits.text_bytes) {
        status = error_set_param(err, LOGITD_ETOOLARGE, "text", "text has %zu bytes; at most %lld are taken",
                                 strlen(bytes), (long long)limits.text_bytes);
    }
    return status ? status : tokenizer_encode(t, bytes, strlen(bytes), add_bos, special, out, err);
}

static http_step handle_tokenize(http_exchange *x) {
    static const char *const names[] = {"text", "add_bos", "special"};
    const service *s = x->context;
    logitd_error err = {0};
    json_node *root = read_body(x, names, ARRAY_LEN(names), &err);
    if (!root) return http_fail_with(x, &err);
    token_vec v = {0};
    logitd_status status = tokenize(s, root, &v, &err);
    json_free(root);
    x->status = 200;
    buffer_puts(&x->reply, "{\"tokens\":[");
    for (size_t i = 0; !status && i < v.n; i++) {
        if (i) buffer_puts(&x->reply, ",");
        token_json_put_bytes(s->tokens, logitd_tokenizer(s->engine), v.ids[i], &x->reply);
        buffer_puts(&x->reply, "}");
    }
    buffer_puts(&x->reply, "]}\n");
    x->n_tokens = (int64_t)v.n;
    token_vec_free(&v);
    return status ? http_fail_with(x, &err) : HTTP_DONE;
}

/// Appends the bytes of the tokens in `ids`.
static logitd_status detokenize(const service *s, const json_node *ids, buffer *out, logitd_error *err) {
    const tokenizer *t = logitd_tokenizer(s->engine);
    if (!ids) return missing("ids", "an array of token ids", err);
    if (!json_is_array(ids)) {
        char found[JSON_DESCRIBE_BYTES];
        return error_set_param(err, LOGITD_EINVAL, "ids", "ids is %s; it must be an array of token ids",
                               json_describe(ids, found));
    }
    int i = 0;
    for (const json_node *item = json_first(ids); item; item = json_next(item), i++) {
        char path[32];
        snprintf(path, sizeof path, "ids[%d]", i);
        int64_t id;
        logitd_status status = json_read_int(item, path, 0, tokenizer_n_vocab(t) - 1, &id, err);
        if (status) return status;
        token_bytes bytes = tokenizer_bytes(t, (int32_t)id);
        buffer_append(out, bytes.data, bytes.len);
        if (out->len > (size_t)limits.body_bytes) {
            return error_set_param(err, LOGITD_ETOOLARGE, path,
                                   "the text up to %s has %zu bytes; at most %lld are given", path, out->len,
                                   (long long)limits.body_bytes);
        }
    }
    return LOGITD_OK;
}

static http_step handle_detokenize(http_exchange *x) {
    static const char *const names[] = {"ids"};
    logitd_error err = {0};
    json_node *root = read_body(x, names, ARRAY_LEN(names), &err);
    if (!root) return http_fail_with(x, &err);
    buffer bytes = {0};
    logitd_status status = detokenize(x->context, json_member(root, "ids"), &bytes, &err);
    json_free(root);
    x->status = 200;
    buffer_puts(&x->reply, "{\"text\":");
    json_string(&x->reply, bytes.data, bytes.len);
    buffer_puts(&x->reply, ",\"bytes\":");
    json_bytes(&x->reply, (const uint8_t *)bytes.data, bytes.len);
    buffer_puts(&x->reply, "}\n");
    x->reply.failed |= bytes.failed;
    buffer_free(&bytes);
    return status ? http_fail_with(x, &err) : HTTP_DONE;
}

// -------------------------------------------------------------------------------------------------------- table

static http_step handle_metrics(http_exchange *x) {
    const service *s = x->context;
    const char *why;
    const metrics_now now = {.sched = sched_read_stats(s->sched),
                             .model = logitd_model(s->engine),
                             .ready = logitd_healthy(s->engine, &why) && !leaving(s),
                             .n_exchanges = http_server_n_exchanges(http_server_of(x))};
    x->status = 200;
    x->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_write(s->metrics, &now, &x->reply);
    return HTTP_DONE;
}

static http_step handle_openapi(http_exchange *x) {
    x->status = 200;
    buffer_append(&x->reply, openapi_json, (size_t)(openapi_json_end - openapi_json));
    return HTTP_DONE;
}

const http_route routes[] = {
    {"POST", "/distribution", handle_distribution, false},
    {"POST", "/tokenize", handle_tokenize, false},
    {"POST", "/detokenize", handle_detokenize, false},
    {"GET", "/model", handle_model, false},
    {"GET", "/health", handle_health, true},
    {"GET", "/", handle_explorer, true},
    {"GET", "/docs", handle_docs, true},
    {"GET", "/vocab", handle_vocab, false},
    {"GET", "/metrics", handle_metrics, false},
    {"GET", "/openapi.json", handle_openapi, true},
};
const size_t n_routes = ARRAY_LEN(routes);

bool service_admit(http_exchange *x, const http_route *route) {
    const service *s = x->context;
    return gate_admit(s->gate, x, route && route->open);
}

void service_observe(const http_exchange *x, bool cut) {
    const service *s = x->context;
    metrics_count_request(s->metrics, x, cut);
}

logitd_status service_init(service *s, const logitd_engine *engine, sched *scheduler, logitd_error *err) {
    *s = (service){.engine = engine, .sched = scheduler, .start_us = clock_us()};
    s->tokens = token_json_create(logitd_tokenizer(engine));
    s->metrics = metrics_create(routes, n_routes);
    if (!s->tokens || !s->metrics) return error_set(err, LOGITD_ENOMEM, "no memory for the texts of the vocabulary");
    snprintf(s->id_prefix, sizeof s->id_prefix, "%016llx", (unsigned long long)util_random());
    return LOGITD_OK;
}

void service_end(service *s) {
    token_json_free(s->tokens);
    metrics_free(s->metrics);
    *s = (service){0};
}
