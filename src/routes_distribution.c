/*
 * routes_distribution.c: POST /distribution. Reads the request, hands the job to the scheduler, sleeps until the
 * encoder can begin, and replies: streamed with its exact Content-Length when the format allows it, whole when the
 * reply is short and everything is there, else in chunks.
 *
 * State of an exchange: a dist_reply, made by the first call of the handler and freed by finish, which also releases
 * the job, whatever state it is in.
 */
#include "limits.h"
#include "routes.h"
#include <stdatomic.h>
#include <time.h>

typedef struct dist_reply {
    service *service;
    dist_request request;
    sched_job *job;
    enc_source source;
    enc_reply encoder;
    char id[48];
    size_t gather_bytes; // of the reply that are gathered before it is sent: it may turn out to be the whole
    int64_t encode_us;   // spent in the encoder
} dist_reply;

static void finish(http_exchange *x) {
    dist_reply *r = x->state;
    if (r->job) {
        metrics *m = r->service->metrics;
        metrics_count_seconds(m, SPAN_QUEUE, sched_job_queue_ms(r->service->sched, r->job) / 1000);
        metrics_count_seconds(m, SPAN_COMPUTE, logitd_job_compute_ms(sched_job_results(r->job)) / 1000);
        metrics_count_seconds(m, SPAN_ENCODE, (double)r->encode_us / 1e6);
        sched_release(r->service->sched, r->job);
    }
    dist_request_free(&r->request);
    mem_free(r);
}

static void client_left(http_exchange *x) {
    dist_reply *r = x->state;
    sched_cancel(r->service->sched, r->job);
}

static void wake(void *arg) {
    http_wake(arg);
}

static enc_step full_row(void *arg, int iprompt, int irow, const float **logits, logitd_error *err) {
    dist_reply *r = arg;
    if (sched_full_row(r->service->sched, r->job, iprompt, irow, logits, err)) return ENC_FAILED;
    return *logits ? ENC_MORE : ENC_WAIT;
}

/// Refuses a reply that would be too large, before any work for it.
static logitd_status check_size(dist_reply *r, uint64_t *exact_bytes, logitd_error *err) {
    bool exact;
    uint64_t n = enc_reply_bytes(&r->source, &exact);
    if (n == 0) return error_set(err, LOGITD_ENOMEM, "no memory for this request; try again later");
    *exact_bytes = exact ? n : 0;
    const bool large = r->request.request.full && n > LIMIT_WHOLE_BYTES; // full rows are about as long as they may be
    r->gather_bytes = exact || large ? 1 : LIMIT_WHOLE_BYTES;
    if (n <= (uint64_t)limits.reply_bytes) return LOGITD_OK;
    return error_set(
        err, LOGITD_ETOOLARGE,
        "the reply would have %s%llu bytes; at most %llu are sent, so ask for fewer positions, temperatures "
        "or entries at once",
        exact ? "" : "up to ", (unsigned long long)n, (unsigned long long)limits.reply_bytes);
}

/// Parses, checks and submits. On an error the exchange holds what there is to free.
static logitd_status begin(http_exchange *x, dist_reply *r, logitd_error *err) {
    static atomic_ullong n_ids;
    const char *why;
    const logitd_engine *engine = r->service->engine;
    logitd_job *job;
    logitd_status status =
        dist_request_parse(engine, x->body.data, x->body.len, http_header_list(x, "Accept"), &r->request, err);
    buffer_free(&x->body);
    if (status) return status;
    if (!logitd_healthy(engine, &why)) return error_set(err, LOGITD_EBUSY, "the engine is out of service: %s", why);
    snprintf(r->id, sizeof r->id, "dist-%s-%llu", r->service->id_prefix, atomic_fetch_add(&n_ids, 1) + 1);
    r->source = (enc_source){.model = logitd_model(engine),
                             .tokenizer = logitd_tokenizer(engine),
                             .tokens = r->service->tokens,
                             .request = &r->request,
                             .id = r->id,
                             .created = time(NULL),
                             .full_row = full_row,
                             .arg = r};
    status = check_size(r, &x->reply_bytes, err);
    if (!status) status = logitd_job_create(engine, &r->request.request, &job, err);
    if (!status) status = sched_submit(r->service->sched, job, x->client, wake, x, &r->job, err);
    if (status) return status;
    r->source.job = sched_job_results(r->job);
    r->encoder = enc_reply_start(&r->source);
    x->n_tokens = r->request.n_prompt_tokens;
    x->client_left = client_left;
    return LOGITD_OK;
}

static enc_step encode(dist_reply *r, buffer *out) {
    r->source.queue_ms = sched_job_queue_ms(r->service->sched, r->job);
    const int64_t start_us = clock_us();
    const enc_step step = enc_reply_next(&r->encoder, out);
    r->encode_us += clock_us() - start_us;
    return step;
}

static http_step pull(http_exchange *x, buffer *out) {
    dist_reply *r = x->state;
    enc_step step = encode(r, out);
    if (step == ENC_FAILED) log_line(LOG_WARN, "a reply was cut: %s", enc_reply_error(&r->encoder)->message);
    return step == ENC_MORE ? HTTP_MORE : step == ENC_WAIT ? HTTP_WAIT : step == ENC_END ? HTTP_DONE : HTTP_ABORT;
}

http_step handle_distribution(http_exchange *x) {
    dist_reply *r = x->state;
    logitd_error err = {0};
    if (!r) {
        r = mem_alloc(1, sizeof *r);
        if (!r) return http_fail(x, 503, "", "no memory for this request; try again later");
        r->service = x->context;
        x->state = r;
        x->finish = finish;
        if (begin(x, r, &err)) return http_fail_with(x, &err);
    }
    enc_step step = ENC_MORE;
    while (step == ENC_MORE && x->reply.len < r->gather_bytes) step = encode(r, &x->reply);
    if (step == ENC_FAILED) return http_fail_with(x, enc_reply_error(&r->encoder)); // nothing is sent yet
    if (step == ENC_WAIT && x->reply.len == 0) return HTTP_WAIT;
    x->status = 200;
    x->content_type = reply_formats[r->request.format].media_type;
    if (step != ENC_END) x->pull = pull;
    return HTTP_DONE;
}
