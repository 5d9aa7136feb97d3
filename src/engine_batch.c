// engine_batch.c: see engine_batch.h.
#include "engine_batch.h"
#include <string.h>

enum {
    KV_PAGE = BACKEND_KV_BLOCK, // rows of a page; a cut prompt wastes less than one
    AGE_DIVISOR = 4,            // of all tokens, the part that goes by age
};

bool batcher_init(batcher *b, int batch_tokens, int kv_tokens) {
    const size_t n = (size_t)batch_tokens;
    *b = (batcher){.batch_tokens = batch_tokens, .n_kv_pages = (kv_tokens + KV_PAGE - 1) / KV_PAGE, .may_hold = true};
    return (b->kv_pages = mem_alloc((size_t)b->n_kv_pages, 1)) && (b->tokens = mem_alloc(n, sizeof *b->tokens)) &&
           (b->positions = mem_alloc(n, sizeof *b->positions)) && (b->slices = mem_alloc(n, sizeof *b->slices)) &&
           (b->slice_prompt = mem_alloc(n, sizeof *b->slice_prompt)) &&
           (b->slice_job = mem_alloc(n, sizeof *b->slice_job));
}

void batcher_free(batcher *b) {
    void *all[] = {b->kv_pages, b->tokens, b->positions, b->slices, b->slice_prompt, b->slice_job};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) mem_free(all[i]);
}

int batcher_kv_rows(const batcher *b) {
    return b->n_kv_pages * KV_PAGE + b->batch_tokens;
}

// --------------------------------------------------------------------------------------------------- the KV cache

/// First fit. False: no run of free pages is long enough.
static bool kv_take(batcher *b, prompt_state *p) {
    const int n = (p->n_needed + KV_PAGE - 1) / KV_PAGE;
    for (int first = 0, run = 0; first + run < b->n_kv_pages;) {
        if (b->kv_pages[first + run]) {
            first += run + 1;
            run = 0;
        } else if (++run == n) {
            memset(b->kv_pages + first, 1, (size_t)n);
            p->kv_first = first * KV_PAGE;
            p->n_kv = n * KV_PAGE;
            return true;
        }
    }
    return false;
}

static void kv_release(batcher *b, prompt_state *p) {
    if (p->n_kv == 0) return;
    memset(b->kv_pages + p->kv_first / KV_PAGE, 0, (size_t)(p->n_kv / KV_PAGE));
    p->n_kv = 0;
}

// ------------------------------------------------------------------------------------------------------- the list

/// Moves first_open past the prompts that have no token left to run.
static void skip_done(logitd_job *job) {
    for (; job->first_open < job->request.n_prompts; job->first_open++) {
        const prompt_state *p = &job->prompts[job->first_open];
        if (p->n_done < p->n_needed) return;
    }
}

void batcher_add(batcher *b, logitd_job *job, uint64_t client) {
    logitd_job **end = &b->jobs;
    while (*end) end = &(*end)->next;
    *end = job;
    job->next = NULL;
    job->client = client;
    job->n_left = 0;
    for (int i = 0; i < job->request.n_prompts; i++) job->n_left += job->prompts[i].n_needed;
    skip_done(job);
}

void batcher_remove(batcher *b, logitd_job *job) {
    logitd_job **at = &b->jobs;
    while (*at && *at != job) at = &(*at)->next;
    if (*at) *at = job->next;
    for (int i = 0; i < job->request.n_prompts; i++) kv_release(b, &job->prompts[i]);
}

// ------------------------------------------------------------------------------------------------- forming a batch

/// Takes up to `limit` tokens of a job's prompts; returns how many. A prompt that would be cut without holding pages
/// ends it, unless `may_hold` and there are some.
static int take(batcher *b, logitd_job *job, int limit, bool may_hold) {
    int taken = 0;
    for (int i = job->first_open; i < job->request.n_prompts && taken < limit; i++) {
        prompt_state *p = &job->prompts[i];
        const int left = p->n_needed - p->n_done - p->n_take, n = MIN(left, limit - taken);
        if (n < left && p->n_kv == 0 && !(may_hold && kv_take(b, p))) break;
        p->n_take += n;
        taken += n;
    }
    job->n_left -= taken;
    return taken;
}

/// Takes tokens in order of arrival until *room is used up. False: a job waits for pages, and nobody else may have any.
static bool take_by_age(batcher *b, int *room, bool may_hold) {
    for (logitd_job *job = b->jobs; job && *room > 0; job = job->next) {
        if (job->n_left == 0 || (!may_hold && job->prompts[job->first_open].n_kv == 0)) continue;
        *room -= take(b, job, *room, may_hold);
        may_hold = may_hold && (*room == 0 || job->n_left == 0);
    }
    return may_hold;
}

/// Sums the tokens left of each client's jobs, at its oldest one.
static void count_clients(const batcher *b) {
    logitd_job *eldests = NULL;
    for (logitd_job *job = b->jobs; job; job = job->next) {
        logitd_job *eldest = eldests;
        while (eldest && eldest->client != job->client) eldest = eldest->next_eldest;
        if (!eldest) {
            eldest = job;
            eldest->n_client_left = 0;
            eldest->next_eldest = eldests;
            eldests = eldest;
        }
        job->eldest = eldest;
        eldest->n_client_left += job->n_left;
    }
}

/// Whether an older job comes before `job`.
static bool comes_first(const logitd_job *older, const logitd_job *job) {
    const int64_t n_older = older->eldest->n_client_left, n_job = job->eldest->n_client_left;
    if (n_older != n_job) return n_older < n_job;
    return older->n_left <= job->n_left;
}

/// Links the jobs by `next_turn`: the client with the fewest tokens left first, then the job, then the oldest. Returns
/// the first.
static logitd_job *sort_by_need(const batcher *b) {
    logitd_job *first = NULL;
    count_clients(b);
    for (logitd_job *job = b->jobs; job; job = job->next) {
        logitd_job **at = &first;
        while (*at && comes_first(*at, job)) at = &(*at)->next_turn;
        job->next_turn = *at;
        *at = job;
    }
    return first;
}

/// Lays the taken tokens out in rows, job by job. The jobs' first_open moves on with batcher_finish.
static token_batch lay_out(batcher *b) {
    token_batch batch = {.tokens = b->tokens, .positions = b->positions, .slices = b->slices};
    for (logitd_job *job = b->jobs; job; job = job->next)
        for (int i = job->first_open; i < job->request.n_prompts; i++) {
            prompt_state *p = &job->prompts[i];
            if (p->n_needed > 0 && p->n_take == 0) break; // prompts run in order: nor is anything taken after it
            if (p->n_take == 0) continue;
            b->slice_prompt[batch.n_slices] = p;
            b->slice_job[batch.n_slices] = job;
            b->slices[batch.n_slices++] =
                (batch_slice){.first_row = batch.n_tokens,
                              .n = p->n_take,
                              .first_pos = p->n_done,
                              .kv_first = p->n_kv > 0 ? p->kv_first : b->n_kv_pages * KV_PAGE + batch.n_tokens};
            for (int k = 0; k < p->n_take; k++) {
                b->tokens[batch.n_tokens] = p->tokens[p->n_done + k];
                b->positions[batch.n_tokens++] = p->n_done + k;
            }
            p->n_take = 0;
        }
    return batch;
}

token_batch batcher_form(batcher *b) {
    b->age_owed += b->batch_tokens;
    int by_age = b->age_owed / AGE_DIVISOR, room = b->batch_tokens - by_age;
    b->age_owed %= AGE_DIVISOR;
    if (by_age > 0) b->may_hold = take_by_age(b, &by_age, true);
    room += by_age; // what nobody took
    for (logitd_job *job = sort_by_need(b); job && room > 0; job = job->next_turn)
        room -= take(b, job, room, b->may_hold);
    // Room is left when pages are short: for those that hold some. With all of it left nobody does: for the oldest.
    take_by_age(b, &room, b->may_hold || room == b->batch_tokens);
    return lay_out(b);
}

void batcher_finish(batcher *b, const token_batch *batch) {
    for (int s = 0; s < batch->n_slices; s++) {
        prompt_state *p = b->slice_prompt[s];
        p->n_done += batch->slices[s].n;
        if (p->n_done == p->n_needed) kv_release(b, p);
        skip_done(b->slice_job[s]);
    }
}
