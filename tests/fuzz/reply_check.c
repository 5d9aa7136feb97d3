// reply_check.c: see reply_check.h. Replies are read back with cJSON, whose strings may hold a NUL.
#include "reply_check.h"
#include "enc_reply.h"
#include "limits.h"
#include "unit/fake_engine.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>

typedef struct reply {
    logitd_engine *engine;
    logitd_job *job;
    float row[FAKE_VOCAB];
} reply;

static token_json *tokens;

void reply_check_init(void) {
    limits.request_positions = 40;
    limits.request_tokens = 400;
    limits.prompts = 8;
    limits.json_values = 4096;
    tokens = token_json_create(NULL);
    ASSERT(tokens);
}

// --------------------------------------------------------------------------------------------------- the request

static void check_prompt(const logitd_prompt *p, const uint32_t *offsets) {
    ASSERT(p->n_tokens >= 1 && p->n_positions >= 0);
    for (int i = 0; i < p->n_tokens; i++) ASSERT(p->tokens[i] >= 0 && p->tokens[i] < FAKE_VOCAB);
    for (int i = 0; i < p->n_positions; i++) ASSERT(p->positions[i] >= 0 && p->positions[i] < p->n_tokens);
    for (int i = 1; offsets && i < p->n_tokens; i++)
        ASSERT(offsets[i - 1] == UINT32_MAX || offsets[i] > offsets[i - 1]);
}

static void check_request(const dist_request *d) {
    const logitd_request *r = &d->request;
    int64_t n_tokens = 0, n_positions = 0;
    ASSERT(r->n_prompts >= 1 && r->n_prompts <= limits.prompts);
    for (int i = 0; i < r->n_prompts; i++) {
        check_prompt(&r->prompts[i], d->offsets[i]);
        n_tokens += r->prompts[i].n_tokens;
        n_positions += r->prompts[i].n_positions;
    }
    ASSERT(n_tokens == d->n_prompt_tokens && n_tokens <= limits.request_tokens);
    ASSERT(n_positions == d->n_positions && n_positions <= limits.request_positions);
    ASSERT(r->n_temperatures >= 1 && r->n_temperatures <= LIMIT_TEMPERATURES);
    for (int i = 0; i < r->n_temperatures; i++)
        ASSERT(r->temperatures[i] >= LIMIT_TEMPERATURE_MIN && r->temperatures[i] <= LIMIT_TEMPERATURE_MAX);
    ASSERT(r->top_n >= 0 && r->top_n <= LIMIT_TOP_N && (!r->full || r->top_n == 0));
    ASSERT(r->n_token_ids >= 0 && r->n_token_ids <= LIMIT_LISTED_IDS);
    for (int i = 0; i < r->n_token_ids; i++) ASSERT(r->token_ids[i] >= 0 && r->token_ids[i] < FAKE_VOCAB);
    ASSERT((unsigned)d->format < N_FORMATS && (unsigned)r->values <= LOGITD_LOGIT &&
           (unsigned)d->dtype <= DTYPE_FLOAT16);
}

// ----------------------------------------------------------------------------------------------------- the reply

static uint64_t tensor_bytes(const cJSON *tensor) {
    static const struct {
        const char *name;
        uint64_t bytes;
    } types[] = {{"F32", 4}, {"F16", 2}, {"I32", 4}};
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tensor, "dtype"));
    uint64_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (name && strcmp(name, types[i].name) == 0) n = types[i].bytes;
    ASSERT(n > 0);
    const cJSON *dim;
    cJSON_ArrayForEach(dim, cJSON_GetObjectItemCaseSensitive(tensor, "shape")) n *= (uint64_t)dim->valuedouble;
    return n;
}

/// Sizes fit shapes, names are new, and each tensor begins where the one before ended.
static void check_tensors(const cJSON *head, uint64_t n_data) {
    uint64_t end = 0;
    for (const cJSON *tensor = head->child; tensor; tensor = tensor->next) {
        for (const cJSON *other = head->child; other != tensor; other = other->next)
            ASSERT(strcmp(other->string, tensor->string) != 0);
        if (strcmp(tensor->string, "__metadata__") == 0) {
            const cJSON *text;
            cJSON_ArrayForEach(text, tensor) {
                cJSON *inner = cJSON_Parse(cJSON_GetStringValue(text));
                ASSERT(inner);
                cJSON_Delete(inner);
            }
            continue;
        }
        const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(tensor, "data_offsets");
        ASSERT(cJSON_GetArraySize(offsets) == 2);
        ASSERT((uint64_t)cJSON_GetArrayItem(offsets, 0)->valuedouble == end);
        end += tensor_bytes(tensor);
        ASSERT((uint64_t)cJSON_GetArrayItem(offsets, 1)->valuedouble == end);
    }
    ASSERT(end == n_data);
}

static void check_safetensors(const buffer *file) {
    uint64_t n_head = 0;
    ASSERT(file->len >= sizeof n_head);
    memcpy(&n_head, file->data, sizeof n_head);
    ASSERT(n_head % 8 == 0 && n_head <= file->len - sizeof n_head);
    cJSON *head = cJSON_ParseWithLength(file->data + sizeof n_head, n_head);
    ASSERT(cJSON_IsObject(head));
    check_tensors(head, file->len - sizeof n_head - n_head);
    cJSON_Delete(head);
}

static int check_json_line(const char *line, size_t n) {
    const char *end;
    ASSERT(utf8_first_invalid(line, n) == n);
    cJSON *root = cJSON_ParseWithLengthOpts(line, n, &end, false);
    ASSERT(cJSON_IsObject(root));
    while (end < line + n && (*end == ' ' || *end == '\n')) end++;
    ASSERT(end == line + n);
    int n_results = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(root, "results"));
    cJSON_Delete(root);
    return n_results;
}

static void check_ndjson(const dist_request *d, const buffer *text) {
    int64_t n_lines = 0;
    for (const char *line = text->data, *end; line < text->data + text->len; line = end + 1, n_lines++) {
        end = memchr(line, '\n', (size_t)(text->data + text->len - line));
        ASSERT(end);
        check_json_line(line, (size_t)(end - line));
    }
    ASSERT(n_lines >= 2 + d->request.n_prompts + d->n_positions); // head, tokens, positions, (summaries), timing
}

static enc_step full_row(void *arg, int iprompt, int irow, const float **logits, logitd_error *err) {
    reply *r = arg;
    *logits = r->row;
    return logitd_project_rows(r->engine, r->job, iprompt, irow, 1, &(float *){r->row}, err) ? ENC_FAILED : ENC_MORE;
}

static void pull_all(enc_source *source, buffer *out) {
    enc_reply encoder = enc_reply_start(source);
    for (;;) {
        enc_step step = enc_reply_next(&encoder, out);
        if (step == ENC_END) return;
        ASSERT(step != ENC_FAILED);
        if (step != ENC_WAIT) continue;
        const reply *r = source->arg;
        const int n_rows = logitd_step(r->engine); // a job without positions ends with none
        ASSERT(n_rows > 0 || logitd_job_state(r->job) == LOGITD_DONE);
    }
}

static void check_reply(const dist_request *d, logitd_engine *engine) {
    reply r = {.engine = engine};
    enc_source source = {.model = logitd_model(engine),
                         .tokens = tokens,
                         .request = d,
                         .id = "id",
                         .created = 1790000000,
                         .full_row = full_row,
                         .arg = &r};
    bool exact;
    logitd_error err = {0};
    const uint64_t announced = enc_reply_bytes(&source, &exact); // before there is a job
    ASSERT(exact == (d->format == FORMAT_SAFETENSORS));
    ASSERT(logitd_job_create(engine, &d->request, &r.job, &err) == LOGITD_OK);
    ASSERT(logitd_submit(engine, r.job, 1, &err) == LOGITD_OK);
    source.job = r.job;
    buffer out = {0};
    pull_all(&source, &out);
    ASSERT(!out.failed && (exact ? out.len == announced : out.len <= announced));
    if (d->format == FORMAT_SAFETENSORS)
        check_safetensors(&out);
    else if (d->format == FORMAT_NDJSON)
        check_ndjson(d, &out);
    else
        ASSERT(check_json_line(out.data, out.len) == d->request.n_prompts);
    buffer_free(&out);
    logitd_withdraw(engine, r.job, NULL);
    logitd_job_free(r.job);
}

bool reply_check(const char *body, size_t n, const char *accept, int step_tokens) {
    dist_request d;
    logitd_error err = {0};
    logitd_engine *engine = fake_open();
    fake.step_tokens = step_tokens;
    logitd_status status = dist_request_parse(engine, body, n, accept, &d, &err);
    if (status) {
        fuzz_check_error(status, &err);
    } else {
        check_request(&d);
        check_reply(&d, engine);
    }
    dist_request_free(&d);
    ASSERT(fake_n_live_jobs() == 0);
    return !status;
}
