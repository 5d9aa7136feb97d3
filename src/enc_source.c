// enc_source.c: see enc_source.h.
#include "enc_source.h"
#include "json_write.h"

const char *enc_values_name(const enc_source *s) {
    return dist_values_names[s->request->request.values];
}

size_t enc_values_of_entry(const enc_source *s) {
    const logitd_request *r = &s->request->request;
    return r->values == LOGITD_LOGIT ? 1 : (size_t)r->n_temperatures;
}

size_t enc_top_n(const enc_source *s) {
    return (size_t)MIN(s->request->request.top_n, s->model->n_vocab);
}

void enc_put_model(const enc_source *s, buffer *out) {
    buffer_puts(out, "{\"name\":");
    json_cstring(out, s->model->name);
    buffer_puts(out, ",\"architecture\":");
    json_cstring(out, s->model->architecture);
    buffer_printf(out, ",\"n_vocab\":%d,\"sha256\":", s->model->n_vocab);
    json_cstring(out, s->model->sha256);
    buffer_puts(out, "}");
}

void enc_put_numerics(const enc_source *s, buffer *out) {
    buffer_puts(out, "{\"backend\":");
    json_cstring(out, s->model->backend);
    buffer_puts(out, ",\"precision\":");
    json_cstring(out, s->model->precision);
    buffer_puts(out, ",\"kernel\":");
    json_cstring(out, s->model->kernel);
    buffer_puts(out, ",\"logprob_bound\":");
    json_double(out, s->model->logprob_bound);
    buffer_puts(out, "}");
}

void enc_put_temperatures(const enc_source *s, buffer *out) {
    const logitd_request *r = &s->request->request;
    buffer_puts(out, "[");
    for (int i = 0; i < r->n_temperatures; i++) {
        if (i) buffer_puts(out, ",");
        json_double(out, r->temperatures[i]);
    }
    buffer_puts(out, "]");
}

void enc_put_usage(const enc_source *s, buffer *out) {
    buffer_printf(out, "{\"prompt_tokens\":%lld,\"positions\":%lld}", (long long)s->request->n_prompt_tokens,
                  (long long)s->request->n_positions);
}

enc_step enc_may_begin(const enc_source *s, bool whole, logitd_error *err) {
    logitd_state state = logitd_job_state(s->job);
    if (state == LOGITD_FAILED) {
        *err = *logitd_job_error(s->job);
        return ENC_FAILED;
    }
    bool begin = state == LOGITD_DONE || (!whole && logitd_job_rows_ready(s->job, 0) > 0);
    if (!begin) return ENC_WAIT;
    const logitd_request *r = &s->request->request;
    int i = 0;
    while (i < r->n_prompts && r->prompts[i].n_positions == 0) i++;
    const float *logits;
    return r->full && i < r->n_prompts ? s->full_row(s->arg, i, 0, &logits, err) : ENC_MORE;
}

enc_step enc_row_ready(const enc_source *s, int iprompt, int irow, logitd_error *err) {
    logitd_state state = logitd_job_state(s->job); // before rows_ready: a job that failed gets no more rows
    if (irow < logitd_job_rows_ready(s->job, iprompt)) return ENC_MORE;
    if (state != LOGITD_FAILED) return ENC_WAIT;
    *err = *logitd_job_error(s->job);
    return ENC_FAILED;
}
