// fake_reply.c: see fake_reply.h.
#include "fake_reply.h"
#include <string.h>

static enc_step full_row(void *arg, int iprompt, int irow, const float **logits, logitd_error *err) {
    fake_reply *r = arg;
    *logits = r->row;
    return logitd_project_rows(r->engine, r->job, iprompt, irow, 1, &(float *){r->row}, err) ? ENC_FAILED : ENC_MORE;
}

void fake_reply_begin(fake_reply *r, const char *body) {
    logitd_error err = {0};
    *r = (fake_reply){.engine = fake_open(), .tokens = token_json_create(NULL)};
    const logitd_status status = dist_request_parse(r->engine, body, strlen(body), NULL, &r->request, &err);
    if (status) fprintf(stderr, "%s\n", err.message);
    ASSERT(!status);
    r->source = (enc_source){.model = logitd_model(r->engine),
                             .tokens = r->tokens,
                             .request = &r->request,
                             .id = "id-1",
                             .created = 1790000000,
                             .queue_ms = 0.25,
                             .full_row = full_row,
                             .arg = r};
}

void fake_reply_submit(fake_reply *r) {
    logitd_error err = {0};
    ASSERT(!logitd_job_create(r->engine, &r->request.request, &r->job, &err));
    ASSERT(!logitd_submit(r->engine, r->job, 0, &err));
    r->source.job = r->job;
}

void fake_reply_end(fake_reply *r) {
    logitd_withdraw(r->engine, r->job, NULL);
    logitd_job_free(r->job);
    dist_request_free(&r->request);
    token_json_free(r->tokens);
    fake = (fake_engine){0};
}
