/*
 * job.c: a request's copy, the memory of its results, and reading them. Computes nothing but the last step from sums to
 * statistics; engine.c does the work.
 */
#include "engine_impl.h"
#include "limits.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ----------------------------------------------------------------------------------------------------- creation

static logitd_status check_prompt(const logitd_model_info *info, const logitd_prompt *p, int index, logitd_error *err) {
    char param[64];
    snprintf(param, sizeof param, "prompt[%d]", index);
    if (p->n_tokens < 1)
        return error_set_param(err, LOGITD_EINVAL, param, "%s has no tokens; at least one is needed", param);
    if (p->n_tokens > info->n_ctx)
        return error_set_param(err, LOGITD_EINVAL, param, "%s has %d tokens; this server takes at most %d", param,
                               p->n_tokens, info->n_ctx);
    if (p->n_positions < 0)
        return error_set_param(err, LOGITD_EINVAL, "positions", "%s has %d positions", param, p->n_positions);
    for (int i = 0; i < p->n_tokens; i++)
        if (p->tokens[i] < 0 || p->tokens[i] >= info->n_vocab)
            return error_set_param(err, LOGITD_EINVAL, param, "%s[%d] is %d; token ids of this model are 0 to %d",
                                   param, i, p->tokens[i], info->n_vocab - 1);
    for (int i = 0; i < p->n_positions; i++)
        if (p->positions[i] < 0 || p->positions[i] >= p->n_tokens)
            return error_set_param(err, LOGITD_EINVAL, "positions", "position %d is outside %s, which has %d tokens",
                                   p->positions[i], param, p->n_tokens);
    return LOGITD_OK;
}

static logitd_status check_request(const logitd_engine *engine, const logitd_request *r, logitd_error *err) {
    const logitd_model_info *info = logitd_model(engine);
    if (r->n_prompts < 1 || r->n_prompts > limits.prompts)
        return error_set_param(err, LOGITD_EINVAL, "prompt", "there are %d prompts; from 1 to %lld are allowed",
                               r->n_prompts, (long long)limits.prompts);
    if (r->n_temperatures < 1 || r->n_temperatures > LIMIT_TEMPERATURES)
        return error_set_param(err, LOGITD_EINVAL, "temperatures",
                               "there are %d temperatures; from 1 to %d are allowed", r->n_temperatures,
                               LIMIT_TEMPERATURES);
    for (int t = 0; t < r->n_temperatures; t++)
        if (!(r->temperatures[t] >= LIMIT_TEMPERATURE_MIN && r->temperatures[t] <= LIMIT_TEMPERATURE_MAX))
            return error_set_param(err, LOGITD_EINVAL, "temperatures", "temperature %g is outside %g to %g",
                                   r->temperatures[t], LIMIT_TEMPERATURE_MIN, LIMIT_TEMPERATURE_MAX);
    if (r->top_n < 0 || r->top_n > LIMIT_TOP_N)
        return error_set_param(err, LOGITD_EINVAL, "top_n", "top_n is %d; from 0 to %d is allowed", r->top_n,
                               LIMIT_TOP_N);
    if (r->n_token_ids < 0 || r->n_token_ids > LIMIT_LISTED_IDS)
        return error_set_param(err, LOGITD_EINVAL, "token_ids", "there are %d token ids; at most %d are allowed",
                               r->n_token_ids, LIMIT_LISTED_IDS);
    for (int i = 0; i < r->n_token_ids; i++)
        if (r->token_ids[i] < 0 || r->token_ids[i] >= info->n_vocab)
            return error_set_param(err, LOGITD_EINVAL, "token_ids",
                                   "token_ids[%d] is %d; ids of this model are 0 to %d", i, r->token_ids[i],
                                   info->n_vocab - 1);
    int64_t n_tokens = 0;
    for (int i = 0; i < r->n_prompts; i++) {
        const logitd_status status = check_prompt(info, &r->prompts[i], i, err);
        if (status) return status;
        n_tokens += r->prompts[i].n_tokens;
    }
    if (n_tokens > limits.request_tokens)
        return error_set_param(err, LOGITD_ETOOLARGE, "prompt",
                               "the prompts have %lld tokens in all; at most %lld are allowed", (long long)n_tokens,
                               (long long)limits.request_tokens);
    return LOGITD_OK;
}

static int compare_ints(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/// A copy of n elements in the job's memory; NULL: no memory.
static void *copy(logitd_job *job, const void *from, int n, size_t size) {
    void *to = arena_alloc(&job->memory, (size_t)MAX(n, 1), size);
    if (to && n > 0) memcpy(to, from, (size_t)n * size);
    return to;
}

/// Finds the distinct positions and the row of each asked one. False: no memory.
static bool plan_rows(logitd_job *job, prompt_state *p) {
    int32_t *sorted = copy(job, p->positions, p->n_positions, sizeof *sorted);
    int32_t *slot = arena_alloc(&job->memory, (size_t)MAX(p->n_positions, 1), sizeof *slot);
    if (!sorted || !slot) return false;
    qsort(sorted, (size_t)p->n_positions, sizeof *sorted, compare_ints);
    for (int i = 0; i < p->n_positions; i++)
        if (p->n_rows == 0 || sorted[i] != sorted[p->n_rows - 1]) sorted[p->n_rows++] = sorted[i];
    for (int i = 0; i < p->n_positions; i++) {
        const int32_t *found = bsearch(&p->positions[i], sorted, (size_t)p->n_rows, sizeof *sorted, compare_ints);
        slot[i] = (int32_t)(found - sorted);
    }
    p->row_position = sorted;
    p->slot = slot;
    p->n_needed = p->n_rows > 0 ? sorted[p->n_rows - 1] + 1 : 0;
    return true;
}

/// Values of an entry: one a temperature, or the logit alone.
static int entry_values(const logitd_job *job) {
    return job->request.values == LOGITD_LOGIT ? 1 : job->request.n_temperatures;
}

/// Bytes of results of one row.
static size_t row_bytes(const logitd_job *job) {
    const size_t T = (size_t)job->request.n_temperatures, N = (size_t)job->n_top, K = (size_t)job->request.n_token_ids;
    return T * (4 * sizeof(float) + sizeof(double)) + (2 + N) * sizeof(float) +
           (size_t)entry_values(job) * (N + K) * sizeof(float) +
           (job->request.full ? (size_t)job->n_embd * sizeof(float) + sizeof(bool) : 0);
}

static bool plan_results(logitd_job *job, prompt_state *p) {
    const size_t T = (size_t)job->request.n_temperatures, N = (size_t)job->n_top, K = (size_t)job->request.n_token_ids;
    const size_t values = (size_t)entry_values(job), rows = (size_t)p->n_rows;
    arena *a = &job->memory;
    return (p->logsumexp = arena_alloc(a, rows * T, sizeof(float))) &&
           (p->entropy = arena_alloc(a, rows * T, sizeof(float))) &&
           (p->varentropy = arena_alloc(a, rows * T, sizeof(float))) &&
           (p->next_logprob = arena_alloc(a, rows * T, sizeof(float))) &&
           (p->log_sum = arena_alloc(a, rows * T, sizeof(double))) &&
           (p->next_rank = arena_alloc(a, rows, sizeof(int32_t))) && (p->max = arena_alloc(a, rows, sizeof(float))) &&
           (p->top_id = arena_alloc(a, rows * N, sizeof(int32_t))) &&
           (p->top_value = arena_alloc(a, rows * values * N, sizeof(float))) &&
           (p->listed_value = arena_alloc(a, rows * values * K, sizeof(float))) &&
           (!job->request.full || ((p->hidden = arena_alloc(a, rows * (size_t)job->n_embd, sizeof(float))) &&
                                   (p->projected = arena_alloc(a, rows, sizeof(bool)))));
}

/// Copies the request and lays out its results. ENOMEM or ETOOLARGE.
static logitd_status plan(logitd_job *job, const logitd_request *r, logitd_error *err) {
    job->request = *r;
    job->request.temperatures = copy(job, r->temperatures, r->n_temperatures, sizeof(double));
    job->request.token_ids = copy(job, r->token_ids, r->n_token_ids, sizeof(int32_t));
    logitd_prompt *prompts = copy(job, r->prompts, r->n_prompts, sizeof *prompts);
    job->prompts = arena_alloc(&job->memory, (size_t)r->n_prompts, sizeof *job->prompts);
    if (!job->request.temperatures || !job->request.token_ids || !prompts || !job->prompts) goto no_memory;
    job->request.prompts = prompts;
    uint64_t n_bytes = 0;
    for (int i = 0; i < r->n_prompts; i++) {
        prompt_state *p = &job->prompts[i];
        p->n_tokens = r->prompts[i].n_tokens;
        p->n_positions = r->prompts[i].n_positions;
        prompts[i].tokens = p->tokens = copy(job, r->prompts[i].tokens, p->n_tokens, sizeof(int32_t));
        prompts[i].positions = p->positions = copy(job, r->prompts[i].positions, p->n_positions, sizeof(int32_t));
        if (!p->tokens || !p->positions || !plan_rows(job, p)) goto no_memory;
        n_bytes += (uint64_t)p->n_rows * row_bytes(job);
    }
    if (n_bytes > (uint64_t)limits.result_bytes)
        return error_set_param(err, LOGITD_ETOOLARGE, "",
                               "the results would take %llu bytes of memory; at most %lld are allowed: ask for fewer "
                               "positions, temperatures or entries at once",
                               (unsigned long long)n_bytes, (long long)limits.result_bytes);
    for (int i = 0; i < r->n_prompts; i++)
        if (!plan_results(job, &job->prompts[i])) goto no_memory;
    return LOGITD_OK;
no_memory:
    return error_set(err, LOGITD_ENOMEM, "there is no memory for this request now; try again later");
}

logitd_status logitd_job_create(const logitd_engine *engine, const logitd_request *request, logitd_job **out,
                                logitd_error *err) {
    *out = NULL;
    logitd_status status = check_request(engine, request, err);
    if (status) return status;
    logitd_job *job = mem_alloc(1, sizeof *job);
    if (!job) return error_set(err, LOGITD_ENOMEM, "there is no memory for this request now; try again later");
    job->n_vocab = logitd_model(engine)->n_vocab;
    job->n_embd = logitd_model(engine)->n_embd;
    job->n_top = MIN(request->top_n, job->n_vocab);
    job->deferred = request->full && engine_defers(engine);
    status = plan(job, request, err);
    if (status) {
        logitd_job_free(job);
        return status;
    }
    *out = job;
    return LOGITD_OK;
}

void logitd_job_free(logitd_job *job) {
    if (!job) return;
    ASSERT(logitd_job_state(job) != LOGITD_RUNNING);
    arena_free(&job->memory);
    mem_free(job);
}

// ------------------------------------------------------------------------------------------ written by the worker

/// The log-probability of a logit at one temperature of a row, from the row's largest logit and log sum.
static inline double logprob_of(float logit, double max, double inv_temperature, double log_sum) {
    return ((double)logit - max) * inv_temperature - log_sum;
}

/// What `values` names, of n logits of a row at one temperature.
static void write_values(logitd_values values, const float *restrict logits, size_t n, double max,
                         double inv_temperature, double log_sum, float *restrict out) {
    switch (values) {
    case LOGITD_LOGIT:
        memcpy(out, logits, n * sizeof *out);
        break;
    case LOGITD_PROB:
        for (size_t i = 0; i < n; i++) out[i] = (float)exp(logprob_of(logits[i], max, inv_temperature, log_sum));
        break;
    case LOGITD_LOGPROB:
        for (size_t i = 0; i < n; i++) {
            const float logprob = (float)logprob_of(logits[i], max, inv_temperature, log_sum);
            out[i] = logprob < 0.0f ? logprob : 0.0f; // in float: the compiler makes vectors of it
        }
        break;
    }
}

/// Entries of a row: [n] logits, or their values at every temperature, [T][n].
static void store_entries(const logitd_job *job, const project_row *row, const double *log_sum, const float *logits,
                          int n, float *values) {
    for (int t = 0; t < entry_values(job); t++)
        write_values(job->request.values, logits, (size_t)n, (double)row->max, 1.0 / row->temperatures[t], log_sum[t],
                     values + (ptrdiff_t)t * n);
}

bool job_store_row(logitd_job *job, prompt_state *p, int irow, const project_row *row) {
    const int T = job->request.n_temperatures, N = job->n_top, K = job->request.n_token_ids;
    const int values = entry_values(job);
    double *log_sum = p->log_sum + (ptrdiff_t)irow * T;
    if (!isfinite(row->max)) return false;
    for (int t = 0; t < T; t++) {
        const ptrdiff_t at = (ptrdiff_t)irow * T + t;
        const double s = row->sum_e[t], mean = row->sum_xe[t] / s, temperature = row->temperatures[t];
        if (!(isfinite(s) && s >= 1.0 && isfinite(row->sum_xxe[t]))) return false; // the largest logit adds exp 0 = 1
        log_sum[t] = log(s);
        p->logsumexp[at] = (float)((double)row->max / temperature + log_sum[t]);
        p->entropy[at] = (float)MAX(0.0, log_sum[t] - mean);
        p->varentropy[at] = (float)MAX(0.0, row->sum_xxe[t] / s - mean * mean);
        p->next_logprob[at] = NAN;
        if (row->target_id < 0) continue;
        const double logprob = logprob_of(row->target_logit, (double)row->max, 1.0 / temperature, log_sum[t]);
        p->next_logprob[at] = (float)MIN(logprob, 0.0);
    }
    p->max[irow] = row->max;
    p->next_rank[irow] = row->target_id < 0 ? -1 : row->target_rank;
    memcpy(p->top_id + (ptrdiff_t)irow * N, row->top_id, (size_t)N * sizeof(int32_t));
    store_entries(job, row, log_sum, row->top_logit, N, p->top_value + (ptrdiff_t)irow * values * N);
    store_entries(job, row, log_sum, row->listed_logit, K, p->listed_value + (ptrdiff_t)irow * values * K);
    return true;
}

void job_add_ms(logitd_job *job, double ms) {
    const double before = atomic_load_explicit(&job->compute_ms, memory_order_relaxed);
    atomic_store_explicit(&job->compute_ms, before + ms, memory_order_relaxed);
}

void job_publish(logitd_job *job) {
    bool all = true;
    for (int i = 0; i < job->request.n_prompts; i++) {
        prompt_state *p = &job->prompts[i];
        int ready = atomic_load_explicit(&p->rows_ready, memory_order_relaxed);
        while (ready < p->n_positions && p->slot[ready] < p->n_rows_done) ready++;
        // Release: who sees the new count sees the rows.
        atomic_store_explicit(&p->rows_ready, ready, memory_order_release);
        all = all && ready == p->n_positions;
    }
    if (all) atomic_store_explicit(&job->state, LOGITD_DONE, memory_order_release);
}

void job_fail(logitd_job *job, const logitd_error *error) {
    job->error = *error;
    atomic_store_explicit(&job->state, LOGITD_FAILED, memory_order_release);
}

// ------------------------------------------------------------------------------------------------------- reading

logitd_state logitd_job_state(const logitd_job *job) {
    return (logitd_state)atomic_load_explicit(&job->state, memory_order_acquire);
}

const logitd_error *logitd_job_error(const logitd_job *job) {
    return &job->error;
}

const logitd_request *logitd_job_request(const logitd_job *job) {
    return &job->request;
}

double logitd_job_compute_ms(const logitd_job *job) {
    return atomic_load_explicit(&job->compute_ms, memory_order_relaxed);
}

int logitd_job_rows_ready(const logitd_job *job, int iprompt) {
    ASSERT(iprompt >= 0 && iprompt < job->request.n_prompts);
    return atomic_load_explicit(&job->prompts[iprompt].rows_ready, memory_order_acquire);
}

logitd_row logitd_job_row(const logitd_job *job, int iprompt, int irow) {
    ASSERT(irow >= 0 && irow < logitd_job_rows_ready(job, iprompt));
    const prompt_state *p = &job->prompts[iprompt];
    const ptrdiff_t T = job->request.n_temperatures, N = job->n_top, K = job->request.n_token_ids;
    const ptrdiff_t row = p->slot[irow], values = entry_values(job);
    const int position = p->positions[irow];
    return (logitd_row){
        .position = position,
        .token_id = p->tokens[position],
        .logsumexp = p->logsumexp + row * T,
        .entropy = p->entropy + row * T,
        .varentropy = p->varentropy + row * T,
        .next_id = position + 1 < p->n_tokens ? p->tokens[position + 1] : -1,
        .next_rank = p->next_rank[row],
        .next_logprob = p->next_logprob + row * T,
        .top_id = p->top_id + row * N,
        .top_value = p->top_value + row * values * N,
        .listed_value = p->listed_value + row * values * K,
    };
}

void logitd_row_values(const logitd_job *job, int iprompt, int irow, int itemperature, const float *logits, size_t n,
                       float *out) {
    ASSERT(itemperature >= 0 && itemperature < job->request.n_temperatures);
    const prompt_state *p = &job->prompts[iprompt];
    const ptrdiff_t row = p->slot[irow];
    write_values(job->request.values, logits, n, (double)p->max[row], 1.0 / job->request.temperatures[itemperature],
                 p->log_sum[row * job->request.n_temperatures + itemperature], out);
}

logitd_summary logitd_job_summary(const logitd_job *job, int iprompt, int itemperature) {
    const int n_rows = job->prompts[iprompt].n_positions;
    ASSERT(logitd_job_rows_ready(job, iprompt) == n_rows);
    logitd_summary s = {.mean_entropy = n_rows > 0 ? 0.0 : NAN};
    for (int i = 0; i < n_rows; i++) {
        const logitd_row row = logitd_job_row(job, iprompt, i);
        s.mean_entropy += (double)row.entropy[itemperature] / n_rows;
        if (row.next_id < 0) continue;
        s.next_logprob_sum += (double)row.next_logprob[itemperature];
        s.n++;
    }
    s.cross_entropy = s.n > 0 ? -s.next_logprob_sum / s.n : NAN;
    return s;
}
