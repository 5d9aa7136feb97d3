/*
 * test_engine_batch.c: whose turn it is. Jobs that arrive together share a batch, short ones pass long ones, long ones
 * advance whatever comes after them, cut prompts keep their rows of the KV cache, and in random traffic every token
 * runs once, in order, on rows that nobody else has.
 */
#include "engine_batch.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 8, KV = 4 * BACKEND_KV_BLOCK, KV_STEP = KV }; // KV_STEP: first of the rows that last one step

static batcher start_with(int batch_tokens) {
    batcher b;
    assert_true(batcher_init(&b, batch_tokens, KV));
    assert_int_equal(batcher_kv_rows(&b), KV + batch_tokens);
    return b;
}

static batcher start(void) {
    return start_with(BATCH);
}

/// A job whose prompts have these numbers of tokens to run; token k of a prompt is k.
static logitd_job *make_job(const int *n_needed, int n_prompts) {
    logitd_job *job = mem_alloc(1, sizeof *job);
    job->prompts = arena_alloc(&job->memory, (size_t)n_prompts, sizeof *job->prompts);
    job->request.n_prompts = n_prompts;
    for (int i = 0; i < n_prompts; i++) {
        prompt_state *p = &job->prompts[i];
        int32_t *tokens = arena_alloc(&job->memory, (size_t)MAX(n_needed[i], 1), sizeof *tokens);
        for (int k = 0; k < n_needed[i]; k++) tokens[k] = k;
        p->tokens = tokens;
        p->n_tokens = p->n_needed = n_needed[i];
    }
    return job;
}

static logitd_job *add_for(batcher *b, uint64_t client, int n_tokens) {
    logitd_job *job = make_job(&n_tokens, 1);
    batcher_add(b, job, client);
    assert_int_equal(job->n_left, n_tokens);
    return job;
}

static logitd_job *add(batcher *b, int n_tokens) {
    return add_for(b, 0, n_tokens);
}

static void drop(batcher *b, logitd_job *job) {
    batcher_remove(b, job);
    arena_free(&job->memory);
    mem_free(job);
}

/// Tokens of a job in a batch.
static int tokens_of(const batcher *b, const token_batch *batch, const logitd_job *job) {
    int n = 0;
    for (int s = 0; s < batch->n_slices; s++)
        if (b->slice_job[s] == job) n += batch->slices[s].n;
    return n;
}

static bool ended(const logitd_job *job) {
    return job->first_open == job->request.n_prompts;
}

/// One step; jobs that ended are dropped, but for `kept`. Returns its tokens.
static int step(batcher *b, const logitd_job *kept) {
    const token_batch batch = batcher_form(b);
    batcher_finish(b, &batch);
    for (logitd_job *job = b->jobs, *next; job; job = next) {
        next = job->next;
        if (job != kept && ended(job)) drop(b, job);
    }
    return batch.n_tokens;
}

static void assert_all_pages_free(const batcher *b) {
    for (int i = 0; i < b->n_kv_pages; i++) assert_int_equal(b->kv_pages[i], 0);
}

// ----------------------------------------------------------------------------------------------------------- tests

static void jobs_that_arrive_together_share_a_batch(void **state) {
    (void)state;
    batcher b = start();
    const int two[] = {2, 0, 1};
    logitd_job *jobs[] = {add(&b, 2), make_job(two, 3), add(&b, 1)};
    batcher_add(&b, jobs[1], 0);
    const token_batch batch = batcher_form(&b);
    const int32_t tokens[] = {0, 1, 0, 0, 1, 0}; // in order of arrival: 2, then 1, then 2 and 1
    assert_int_equal(batch.n_tokens, 6);
    assert_memory_equal(batch.tokens, tokens, sizeof tokens);
    assert_memory_equal(batch.positions, tokens, sizeof tokens);
    assert_int_equal(batch.n_slices, 4);
    for (int s = 0, row = 0; s < 4; row += batch.slices[s++].n) {
        assert_int_equal(batch.slices[s].first_row, row);
        assert_int_equal(batch.slices[s].first_pos, 0);
        assert_int_equal(batch.slices[s].kv_first, KV_STEP + row); // nothing is kept
    }
    batcher_finish(&b, &batch);
    assert_all_pages_free(&b);
    for (int i = 0; i < 3; i++) {
        assert_true(ended(jobs[i]) && jobs[i]->n_left == 0);
        drop(&b, jobs[i]);
    }
    assert_int_equal(batcher_form(&b).n_tokens, 0);
    batcher_free(&b);
}

static void a_long_prompt_is_cut_and_keeps_its_rows(void **state) {
    (void)state;
    batcher b = start();
    logitd_job *job = add(&b, 2 * BATCH + 3);
    for (int done = 0; done < 2 * BATCH + 3; done += BATCH) {
        const token_batch batch = batcher_form(&b);
        assert_int_equal(batch.n_tokens, MIN(BATCH, 2 * BATCH + 3 - done));
        assert_int_equal(batch.n_slices, 1);
        assert_int_equal(batch.slices[0].first_pos, done);
        assert_int_equal(batch.slices[0].kv_first, 0);
        assert_int_equal(batch.positions[0], done);
        batcher_finish(&b, &batch);
    }
    assert_true(ended(job));
    assert_all_pages_free(&b);
    drop(&b, job);
    batcher_free(&b);
}

static void a_short_job_passes_long_ones(void **state) {
    (void)state;
    batcher b = start();
    for (int i = 0; i < 20; i++) add(&b, KV);
    for (int i = 0; i < 3; i++) step(&b, NULL);
    logitd_job *few = add(&b, 3), *one = add(&b, 1), *most = add(&b, BATCH - BATCH / 4);
    const token_batch batch = batcher_form(&b);
    assert_int_equal(batch.n_tokens, BATCH);
    assert_int_equal(tokens_of(&b, &batch, b.jobs), BATCH / 4 + 2); // its part, and what is left over
    assert_int_equal(tokens_of(&b, &batch, one), 1);
    assert_int_equal(tokens_of(&b, &batch, few), 3);
    assert_int_equal(tokens_of(&b, &batch, most), 0); // needs pages, which are short: waits a step
    batcher_finish(&b, &batch);
    drop(&b, few);
    drop(&b, one);
    const token_batch after = batcher_form(&b);
    assert_int_equal(tokens_of(&b, &after, most), BATCH - BATCH / 4);
    batcher_finish(&b, &after);
    while (b.jobs) drop(&b, b.jobs);
    assert_all_pages_free(&b);
    batcher_free(&b);
}

/// A client with many short jobs has them before its own long ones, but after the middling one of another client.
static void clients_with_little_to_do_come_first(void **state) {
    (void)state;
    enum { PART = BATCH - BATCH / 4 }; // of a step, what does not go by age
    batcher b = start();
    for (int i = 0; i < 20; i++) add_for(&b, 1, 2);
    logitd_job *other = add_for(&b, 2, PART);
    const token_batch batch = batcher_form(&b);
    assert_int_equal(batch.n_tokens, BATCH);
    assert_int_equal(tokens_of(&b, &batch, b.jobs), BATCH / 4); // the oldest, whosoever it is
    assert_int_equal(tokens_of(&b, &batch, other), PART);
    batcher_finish(&b, &batch);
    while (b.jobs) drop(&b, b.jobs);
    batcher_free(&b);
}

/// Steps that a job takes while `n_new` jobs of `n_tokens` come before each.
static int steps_of(batcher *b, logitd_job *job, int n_new, int n_tokens) {
    int n = 0;
    for (; !ended(job); n++) {
        for (int i = 0; i < n_new; i++) add(b, n_tokens);
        assert_true(step(b, job) > 0);
        assert_true(n < 10000);
    }
    return n;
}

static void a_long_job_advances_whatever_comes(void **state) {
    (void)state;
    batcher b = start();
    logitd_job *job = add(&b, 40);
    assert_int_equal(steps_of(&b, job, 4, 2),
                     40 / (BATCH / 4) - 1); // a quarter of each step; at last it is short itself
    drop(&b, job);
    while (b.jobs) drop(&b, b.jobs);
    batcher_free(&b);
}

/// A step may be too small to be divided: then the part that goes by age is a quarter over several.
static void small_steps_are_shared_over_time(void **state) {
    (void)state;
    for (int batch_tokens = 1; batch_tokens <= BATCH + 1; batch_tokens++) {
        batcher b = start_with(batch_tokens);
        logitd_job *job = add_for(&b, 1, KV);
        for (int i = 1; i <= 20; i++) {
            for (int k = 0; k < batch_tokens; k++) add_for(&b, 2, 1);
            assert_int_equal(step(&b, job), batch_tokens);
            assert_int_equal(job->prompts[0].n_done, i * batch_tokens / 4);
        }
        while (b.jobs) drop(&b, b.jobs);
        batcher_free(&b);
    }
}

/// Steps of one token: who has little to do has three of four, whatever is there already.
static void a_short_job_passes_a_long_one_by_single_tokens(void **state) {
    (void)state;
    batcher b = start_with(1);
    logitd_job *job = add_for(&b, 1, KV / 2);
    for (int i = 0; i < 5; i++) step(&b, job);
    logitd_job *brief = add_for(&b, 2, 6);
    assert_int_equal(steps_of(&b, brief, 0, 0), 8); // the third and the seventh of them go by age
    drop(&b, brief);
    drop(&b, job);
    assert_all_pages_free(&b);
    batcher_free(&b);
}

/// … and the largest prompt gets its pages too while smaller ones that need some keep coming.
static void the_largest_prompt_gets_its_pages_by_single_tokens(void **state) {
    (void)state;
    batcher b = start_with(1);
    for (int i = 0; i < 3; i++) add(&b, 17 + i);
    step(&b, NULL);
    logitd_job *job = add(&b, KV);
    assert_in_range(steps_of(&b, job, 1, 2), KV, 4 * (3 * 19 + KV + KV));
    drop(&b, job);
    while (b.jobs) drop(&b, b.jobs);
    assert_all_pages_free(&b);
    batcher_free(&b);
}

/// The largest prompt needs the whole cache; smaller ones that need pages too keep coming, and hold some when it comes.
static void the_largest_prompt_gets_its_pages(void **state) {
    (void)state;
    batcher b = start();
    for (int i = 0; i < 3; i++) add(&b, 17 + i);
    step(&b, NULL);
    logitd_job *job = add(&b, KV);
    // its own tokens and at most a cache full of others', a quarter of each step
    assert_in_range(steps_of(&b, job, 1, BATCH + 1), KV / BATCH, (3 * 19 + KV + KV) / (BATCH / 4));
    drop(&b, job);
    while (b.jobs) drop(&b, b.jobs);
    assert_all_pages_free(&b);
    batcher_free(&b);
}

/// Checks a batch of random traffic: rows dense, positions in order, cache rows nobody else's.
static void check_batch(const batcher *b, const token_batch *batch) {
    const logitd_job *owner[KV + BATCH] = {0};
    int row = 0;
    for (const logitd_job *job = b->jobs; job; job = job->next)
        for (int i = 0; i < job->request.n_prompts; i++)
            for (int k = 0; k < job->prompts[i].n_kv; k++) {
                assert_null(owner[job->prompts[i].kv_first + k]);
                owner[job->prompts[i].kv_first + k] = job;
            }
    for (int s = 0; s < batch->n_slices; s++) {
        const batch_slice *slice = &batch->slices[s];
        const prompt_state *p = b->slice_prompt[s];
        assert_int_equal(slice->first_row, row);
        assert_int_equal(slice->first_pos, p->n_done);
        assert_in_range(slice->n, 1, p->n_needed - p->n_done);
        for (int k = 0; k < slice->n; k++, row++) {
            assert_int_equal(batch->tokens[row], p->n_done + k);
            assert_int_equal(batch->positions[row], p->n_done + k);
            const logitd_job **at = &owner[slice->kv_first + p->n_done + k];
            assert_true(p->n_kv > 0 ? *at == b->slice_job[s] : *at == NULL && slice->kv_first >= KV_STEP);
            *at = b->slice_job[s];
        }
    }
    assert_int_equal(batch->n_tokens, row);
    assert_in_range(row, b->jobs ? 1 : 0, b->batch_tokens);
}

static void run_random_traffic(int batch_tokens, int n_steps) {
    unsigned seed = 20261124;
    print_message("seed %u\n", seed);
    batcher b = start_with(batch_tokens);
    for (int i = 0; i < n_steps || b.jobs; i++) {
        if (i < n_steps && rand_r(&seed) % 3 == 0) {
            int n[5] = {1}, n_prompts = 1 + rand_r(&seed) % 5;
            const int most = rand_r(&seed) % 2 ? KV : BATCH;
            for (int k = 1; k < n_prompts; k++) n[k] = rand_r(&seed) % (most + 1);
            n[0] = 1 + rand_r(&seed) % most;
            batcher_add(&b, make_job(n, n_prompts), (uint64_t)rand_r(&seed) % 3);
        }
        if (b.jobs && rand_r(&seed) % 40 == 0) drop(&b, b.jobs); // withdrawn, whatever it holds
        const token_batch batch = batcher_form(&b);
        check_batch(&b, &batch);
        batcher_finish(&b, &batch);
        for (logitd_job *job = b.jobs, *next; job; job = next) {
            next = job->next;
            assert_true(ended(job) == (job->n_left == 0));
            if (ended(job)) drop(&b, job);
        }
    }
    assert_all_pages_free(&b);
    batcher_free(&b);
}

static void random_traffic(void **state) {
    (void)state;
    run_random_traffic(BATCH, 4000);
    run_random_traffic(1, 100);
    run_random_traffic(3, 300);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_that_arrive_together_share_a_batch),
        cmocka_unit_test(a_long_prompt_is_cut_and_keeps_its_rows),
        cmocka_unit_test(a_short_job_passes_long_ones),
        cmocka_unit_test(clients_with_little_to_do_come_first),
        cmocka_unit_test(a_long_job_advances_whatever_comes),
        cmocka_unit_test(small_steps_are_shared_over_time),
        cmocka_unit_test(a_short_job_passes_a_long_one_by_single_tokens),
        cmocka_unit_test(the_largest_prompt_gets_its_pages),
        cmocka_unit_test(the_largest_prompt_gets_its_pages_by_single_tokens),
        cmocka_unit_test(random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
