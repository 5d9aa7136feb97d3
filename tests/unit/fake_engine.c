// fake_engine.c: see fake_engine.h.
#include "fake_engine.h"
#include "tokenizer.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

fake_engine fake;

struct logitd_engine {
    logitd_job *jobs[64];
    int n_jobs, n_steps;
};

typedef struct fake_rows {
    float *stats; // [n_positions][4][T]: logsumexp, entropy, varentropy, next_logprob
    int32_t *top_id;
    float *top_value, *listed_value;
    int32_t *next_rank;
    bool *filled; // [n] those of a full job are filled when they are projected
    atomic_int ready;
} fake_rows;

struct logitd_job {
    arena memory;
    logitd_request request;
    fake_rows *rows;
    logitd_error error;
    atomic_int state;
};

static atomic_int n_live_jobs;

int fake_n_live_jobs(void) {
    return n_live_jobs;
}

float fake_logit(int32_t token, int32_t id) {
    uint32_t h = (uint32_t)token * 2654435761u ^ ((uint32_t)id + 1) * 2246822519u;
    h ^= h >> 15;
    h *= 3266489917u;
    return (float)(h >> 8) / (float)(1 << 24) * 20 - 10;
}

// ------------------------------------------------------------------------------------------------------- tokenizer

static const char *const names[] = {"<bos>", "The", " quote\"", ""};

token_bytes tokenizer_bytes(const tokenizer *t, int32_t id) {
    (void)t;
    static uint8_t bytes[256];
    if (id >= 256) return (token_bytes){(const uint8_t *)names[id - 256], strlen(names[id - 256])};
    static atomic_bool filled;
    if (!atomic_exchange(&filled, true)) {
        for (int i = 0; i < 256; i++) bytes[i] = (uint8_t)i;
    }
    return (token_bytes){&bytes[id], 1};
}

token_kind tokenizer_kind(const tokenizer *t, int32_t id) {
    (void)t;
    return id == FAKE_BOS ? TOKEN_CONTROL : TOKEN_NORMAL;
}

size_t tokenizer_longest(const tokenizer *t) {
    (void)t;
    return strlen(names[2]);
}

int tokenizer_n_vocab(const tokenizer *t) {
    (void)t;
    return FAKE_VOCAB;
}

int tokenizer_bos_id(const tokenizer *t) {
    (void)t;
    return FAKE_BOS;
}

bool tokenizer_add_bos(const tokenizer *t) {
    (void)t;
    return false;
}

void token_vec_free(token_vec *v) {
    mem_free(v->ids);
    mem_free(v->offsets);
    *v = (token_vec){0};
}

logitd_status tokenizer_encode(const tokenizer *t, const char *text, size_t n_bytes, bool add_bos, bool special,
                               token_vec *out, logitd_error *err) {
    (void)t, (void)special, (void)err;
    out->ids = mem_alloc(n_bytes + 1, sizeof *out->ids);
    out->offsets = mem_alloc(n_bytes + 1, sizeof *out->offsets);
    if (add_bos) {
        out->offsets[out->n] = UINT32_MAX;
        out->ids[out->n++] = FAKE_BOS;
    }
    for (size_t i = 0; i < n_bytes; i++) {
        out->offsets[out->n] = (uint32_t)i;
        out->ids[out->n++] = (uint8_t)text[i];
    }
    return LOGITD_OK;
}

// ---------------------------------------------------------------------------------------------------------- engine

logitd_engine *fake_open(void) {
    static logitd_engine engine;
    engine = (logitd_engine){0};
    return &engine;
}

const logitd_model_info *logitd_model(const logitd_engine *engine) {
    (void)engine;
    static const logitd_model_info info = {.path = "/fake.gguf",
                                           .name = "fake \"model\"",
                                           .architecture = "fake",
                                           .sha256 = "00",
                                           .tokenizer = "bytes",
                                           .backend = "cpu",
                                           .precision = "exact",
                                           .kernel = "none",
                                           .logprob_bound = 3e-4,
                                           .n_vocab = FAKE_VOCAB,
                                           .batch_tokens = 8,
                                           .n_ctx = 4096,
                                           .n_ctx_train = 4096,
                                           .bos_id = FAKE_BOS,
                                           .eos_id = -1};
    return &info;
}

bool logitd_healthy(const logitd_engine *engine, const char **why) {
    (void)engine;
    *why = "the fake device is broken";
    return !fake.broken;
}

const struct tokenizer *logitd_tokenizer(const logitd_engine *engine) {
    (void)engine;
    return NULL;
}

const char *logitd_version(void) {
    return "fake";
}

static void *copy(arena *memory, const void *data, size_t n, size_t size) {
    void *to = arena_alloc(memory, n, size);
    if (n) memcpy(to, data, n * size);
    return to;
}

logitd_status logitd_job_create(const logitd_engine *engine, const logitd_request *request, logitd_job **out,
                                logitd_error *err) {
    (void)engine, (void)err;
    logitd_job *job = mem_alloc(1, sizeof *job);
    arena *m = &job->memory;
    logitd_request r = *request;
    logitd_prompt *prompts = copy(m, r.prompts, (size_t)r.n_prompts, sizeof *prompts);
    job->rows = arena_alloc(m, (size_t)r.n_prompts, sizeof *job->rows);
    r.top_n = MIN(r.top_n, FAKE_VOCAB);
    size_t n_temperatures = (size_t)r.n_temperatures;
    for (int i = 0; i < r.n_prompts; i++) {
        logitd_prompt *p = &prompts[i];
        size_t n = (size_t)p->n_positions;
        p->tokens = copy(m, p->tokens, (size_t)p->n_tokens, sizeof *p->tokens);
        p->positions = copy(m, p->positions, n, sizeof *p->positions);
        job->rows[i] =
            (fake_rows){.stats = arena_alloc(m, n * 4 * n_temperatures, sizeof(float)),
                        .top_id = arena_alloc(m, n * (size_t)r.top_n, sizeof(int32_t)),
                        .top_value = arena_alloc(m, n * (size_t)r.top_n * n_temperatures, sizeof(float)),
                        .listed_value = arena_alloc(m, n * (size_t)r.n_token_ids * n_temperatures, sizeof(float)),
                        .next_rank = arena_alloc(m, n, sizeof(int32_t)),
                        .filled = arena_alloc(m, n, sizeof(bool))};
    }
    r.prompts = prompts;
    r.temperatures = copy(m, r.temperatures, n_temperatures, sizeof *r.temperatures);
    r.token_ids = copy(m, r.token_ids, (size_t)r.n_token_ids, sizeof *r.token_ids);
    job->request = r;
    n_live_jobs++;
    *out = job;
    return LOGITD_OK;
}

void logitd_job_free(logitd_job *job) {
    if (!job) return;
    ASSERT(job->state != LOGITD_RUNNING);
    arena_free(&job->memory);
    mem_free(job);
    n_live_jobs--;
}

logitd_state logitd_job_state(const logitd_job *job) {
    return (logitd_state)job->state;
}

const logitd_error *logitd_job_error(const logitd_job *job) {
    return &job->error;
}

const logitd_request *logitd_job_request(const logitd_job *job) {
    return &job->request;
}

int logitd_job_rows_ready(const logitd_job *job, int iprompt) {
    return job->rows[iprompt].ready;
}

double logitd_job_compute_ms(const logitd_job *job) {
    (void)job;
    return 1.5;
}

logitd_row logitd_job_row(const logitd_job *job, int iprompt, int irow) {
    const logitd_request *r = &job->request;
    const logitd_prompt *p = &r->prompts[iprompt];
    const fake_rows *rows = &job->rows[iprompt];
    size_t i = (size_t)irow, t = (size_t)r->n_temperatures, wide = r->values == LOGITD_LOGIT ? 1 : t;
    size_t n_top = (size_t)r->top_n, n_listed = (size_t)r->n_token_ids;
    int position = p->positions[irow], next = position + 1 < p->n_tokens ? p->tokens[position + 1] : -1;
    ASSERT(rows->filled[irow]);
    return (logitd_row){.position = position,
                        .token_id = p->tokens[position],
                        .next_id = next,
                        .next_rank = rows->next_rank[i],
                        .logsumexp = rows->stats + i * 4 * t,
                        .entropy = rows->stats + (i * 4 + 1) * t,
                        .varentropy = rows->stats + (i * 4 + 2) * t,
                        .next_logprob = rows->stats + (i * 4 + 3) * t,
                        .top_id = rows->top_id + i * n_top,
                        .top_value = rows->top_value + i * n_top * wide,
                        .listed_value = rows->listed_value + i * n_listed * wide};
}

logitd_summary logitd_job_summary(const logitd_job *job, int iprompt, int itemperature) {
    logitd_summary s = {0};
    int n_positions = job->request.prompts[iprompt].n_positions;
    for (int i = 0; i < n_positions; i++) {
        logitd_row row = logitd_job_row(job, iprompt, i);
        s.mean_entropy += (double)row.entropy[itemperature] / n_positions;
        if (row.next_id < 0) continue;
        s.n++;
        s.next_logprob_sum += (double)row.next_logprob[itemperature];
    }
    s.cross_entropy = s.n ? -s.next_logprob_sum / s.n : (double)NAN;
    if (!n_positions) s.mean_entropy = (double)NAN;
    return s;
}

// ------------------------------------------------------------------------------------------------------------ work

static double log_sum(int32_t token, double temperature) {
    double sum = 0;
    for (int v = 0; v < FAKE_VOCAB; v++) sum += exp((double)fake_logit(token, v) / temperature);
    return log(sum);
}

/// `sum`: log_sum(token, temperature)
static float value_of(const logitd_request *r, int32_t token, int32_t id, double temperature, double sum) {
    double logit = (double)fake_logit(token, id), logprob = logit / temperature - sum;
    return (float)(r->values == LOGITD_LOGIT ? logit : r->values == LOGITD_PROB ? exp(logprob) : logprob);
}

/// Counted once for each token, by the worker alone.
static int rank_of(int32_t token, int32_t id) {
    static int ranks[FAKE_VOCAB][FAKE_VOCAB];
    static bool counted[FAKE_VOCAB];
    for (int i = 0; !counted[token] && i < FAKE_VOCAB; i++)
        for (int v = 0; v < FAKE_VOCAB; v++) ranks[token][i] += fake_logit(token, v) > fake_logit(token, i);
    counted[token] = true;
    return ranks[token][id];
}

static void fill_row(logitd_job *job, int iprompt, int irow) {
    const logitd_request *r = &job->request;
    fake_rows *rows = &job->rows[iprompt];
    rows->filled[irow] = true;
    logitd_row row = logitd_job_row(job, iprompt, irow); // const pointers into memory of the job's own
    rows->next_rank[irow] = row.next_id < 0 ? -1 : rank_of(row.token_id, row.next_id);
    for (int v = 0; v < FAKE_VOCAB; v++) {
        int rank = rank_of(row.token_id, v);
        if (rank < r->top_n) ((int32_t *)row.top_id)[rank] = v;
    }
    int n_wide = r->values == LOGITD_LOGIT ? 1 : r->n_temperatures;
    for (int t = 0; t < r->n_temperatures; t++) {
        double temperature = r->temperatures[t], sum = log_sum(row.token_id, temperature);
        ((float *)row.logsumexp)[t] = (float)sum;
        ((float *)row.entropy)[t] = (float)t + 0.5f;
        ((float *)row.varentropy)[t] = INFINITY; // JSON has no word for it
        ((float *)row.next_logprob)[t] =
            row.next_id < 0 ? NAN : (float)((double)fake_logit(row.token_id, row.next_id) / temperature - sum);
        for (int i = 0; t < n_wide && i < r->top_n; i++) {
            ((float *)row.top_value)[t * r->top_n + i] = value_of(r, row.token_id, row.top_id[i], temperature, sum);
        }
        for (int i = 0; t < n_wide && i < r->n_token_ids; i++) {
            ((float *)row.listed_value)[t * r->n_token_ids + i] =
                value_of(r, row.token_id, r->token_ids[i], temperature, sum);
        }
    }
}

logitd_status logitd_submit(logitd_engine *engine, logitd_job *job, uint64_t client, logitd_error *err) {
    (void)client;
    (void)err;
    ASSERT(engine->n_jobs < (int)ARRAY_LEN(engine->jobs));
    engine->jobs[engine->n_jobs++] = job;
    job->state = LOGITD_RUNNING;
    return LOGITD_OK;
}

static void drop(logitd_engine *engine, logitd_job *job) {
    for (int i = 0; i < engine->n_jobs; i++) {
        if (engine->jobs[i] != job) continue;
        memmove(&engine->jobs[i], &engine->jobs[i + 1], (size_t)(--engine->n_jobs - i) * sizeof job);
        return;
    }
}

void logitd_withdraw(logitd_engine *engine, logitd_job *job, const logitd_error *why) {
    drop(engine, job);
    if (job->state == LOGITD_DONE || job->state == LOGITD_FAILED) return;
    error_set(&job->error, LOGITD_ECANCELED, "the request was cancelled");
    if (why) job->error = *why;
    job->state = LOGITD_FAILED;
}

/// Up to n rows of a job; returns how many. The job ends with its last row.
static int run_job(logitd_job *job, int n) {
    int n_filled = 0;
    for (int i = 0; i < job->request.n_prompts; i++) {
        while (job->rows[i].ready < job->request.prompts[i].n_positions) {
            if (n_filled == n) return n_filled;
            if (!job->request.full) fill_row(job, i, job->rows[i].ready);
            job->rows[i].ready++;
            n_filled++;
        }
    }
    job->state = LOGITD_DONE;
    return n_filled;
}

int64_t logitd_tokens_left(const logitd_engine *engine) {
    int64_t n = 0;
    for (int i = 0; i < engine->n_jobs; i++)
        for (int k = 0; k < engine->jobs[i]->request.n_prompts; k++)
            n += engine->jobs[i]->request.prompts[k].n_positions - engine->jobs[i]->rows[k].ready;
    return n;
}

int logitd_step(logitd_engine *engine) {
    if (!engine->n_jobs) return 0;
    if (fake.step_us) usleep((unsigned)fake.step_us);
    while (atomic_load(&fake.hold)) usleep(100);
    engine->n_steps++;
    int n = 0, n_max = fake.step_tokens ? fake.step_tokens : 8;
    for (int i = 0; i < engine->n_jobs && n < n_max;) {
        logitd_job *job = engine->jobs[i];
        if (fake.fail_after && engine->n_steps >= fake.fail_after) {
            error_set(&job->error, LOGITD_EBACKEND, "the fake device failed");
            job->state = LOGITD_FAILED;
        } else {
            n += run_job(job, n_max - n);
        }
        if (job->state == LOGITD_RUNNING) {
            i++;
        } else {
            drop(engine, job);
        }
    }
    return n;
}

logitd_status logitd_project_rows(logitd_engine *engine, logitd_job *job, int iprompt, int irow, int n,
                                  float *const *out, logitd_error *err) {
    (void)engine;
    const logitd_request *r = &job->request;
    for (int i = irow; i < irow + n; i++, out++) {
        if (fake.project_fails_at_row && i >= fake.project_fails_at_row)
            return error_set(err, LOGITD_EBACKEND, "no more rows");
        int32_t token = r->prompts[iprompt].tokens[r->prompts[iprompt].positions[i]];
        for (int v = 0; v < FAKE_VOCAB; v++) (*out)[v] = fake_logit(token, v);
        if (!job->rows[iprompt].filled[i]) fill_row(job, iprompt, i);
    }
    return LOGITD_OK;
}

void logitd_row_values(const logitd_job *job, int iprompt, int irow, int itemperature, const float *logits, size_t n,
                       float *out) {
    const logitd_request *r = &job->request;
    int32_t token = r->prompts[iprompt].tokens[r->prompts[iprompt].positions[irow]];
    double temperature = r->temperatures[itemperature], sum = log_sum(token, temperature);
    for (size_t i = 0; i < n; i++) {
        double logit = (double)logits[i], logprob = logit / temperature - sum;
        out[i] = (float)(r->values == LOGITD_LOGIT ? logit : r->values == LOGITD_PROB ? exp(logprob) : logprob);
    }
}
