/*
 * test_sched.c: the scheduler over the fake engine: jobs end and wake their submitter, cancelling and releasing stop
 * work within a step, the queue is bounded, draining refuses, full rows are made on demand, and all of it from many
 * threads.
 */
#include "fake_engine.h"
#include "limits.h"
#include "sched.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define STEP_US 2000

static sched *start(int max_jobs) {
    sched *s;
    logitd_error err;
    assert_int_equal(sched_create(&(sched_options){.engine = fake_open(), .max_jobs = max_jobs}, &s, &err), LOGITD_OK);
    return s;
}

static void stop(sched *s) {
    sched_free(s);
    assert_int_equal(fake_n_live_jobs(), 0);
    fake = (fake_engine){0};
}

static logitd_job *make_job(int n_tokens, bool full) {
    int32_t *tokens = calloc((size_t)n_tokens, sizeof *tokens),
            *positions = calloc((size_t)n_tokens, sizeof *positions);
    for (int i = 0; i < n_tokens; i++) {
        tokens[i] = i % 256;
        positions[i] = i;
    }
    const double one = 1.0;
    logitd_prompt prompt = {.tokens = tokens, .n_tokens = n_tokens, .positions = positions, .n_positions = n_tokens};
    logitd_request r = {.prompts = &prompt, .n_prompts = 1, .temperatures = &one, .n_temperatures = 1, .full = full};
    logitd_job *job;
    logitd_error err;
    assert_int_equal(logitd_job_create(NULL, &r, &job, &err), LOGITD_OK);
    free(tokens);
    free(positions);
    return job;
}

typedef struct waiter { // counts wakes; its own lock, as the scheduler asks
    pthread_mutex_t mutex;
    pthread_cond_t woken;
    int n_wakes;
} waiter;
#define WAITER                                                                                                         \
    { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 }

static void wake(void *arg) {
    waiter *w = arg;
    pthread_mutex_lock(&w->mutex);
    w->n_wakes++;
    pthread_cond_signal(&w->woken);
    pthread_mutex_unlock(&w->mutex);
}

static void wait_ended(sched *s, waiter *w, sched_job *j) {
    pthread_mutex_lock(&w->mutex);
    for (int seen = -1;;) {
        while (w->n_wakes == seen) pthread_cond_wait(&w->woken, &w->mutex);
        seen = w->n_wakes;
        pthread_mutex_unlock(&w->mutex);
        if (sched_job_ended(s, j)) return;
        pthread_mutex_lock(&w->mutex);
    }
}

static sched_job *submit(sched *s, waiter *w, int n_tokens, bool full) {
    sched_job *j = NULL;
    logitd_error err = {0};
    if (sched_submit(s, make_job(n_tokens, full), "a", wake, w, &j, &err)) fail_msg("%s", err.message);
    return j;
}

static void a_job_ends_and_wakes(void **state) {
    (void)state;
    sched *s = start(0);
    waiter w = WAITER;
    fake.step_tokens = 3;
    sched_job *j = submit(s, &w, 10, false);
    wait_ended(s, &w, j);
    const logitd_job *job = sched_job_results(j);
    assert_int_equal(logitd_job_state(job), LOGITD_DONE);
    assert_int_equal(logitd_job_rows_ready(job, 0), 10);
    assert_true(w.n_wakes >= 4); // 3 + 3 + 3 + 1 rows
    assert_true(sched_job_queue_ms(s, j) >= 0);
    sched_release(s, j);
    sched_stats stats = sched_read_stats(s);
    assert_int_equal(stats.n_done, 1);
    assert_int_equal(stats.n_tokens, 10);
    assert_int_equal(stats.n_steps, 4);
    stop(s);
}

static void cancelling_costs_at_most_a_step(void **state) {
    (void)state;
    sched *s = start(0);
    waiter w = WAITER;
    fake.step_us = STEP_US;
    fake.step_tokens = 1;
    sched_job *j = submit(s, &w, 1000000, false);
    while (sched_read_stats(s).n_steps < 3) usleep(100);
    sched_cancel(s, j);
    uint64_t n_steps = sched_read_stats(s).n_steps;
    wait_ended(s, &w, j);
    assert_int_equal(logitd_job_state(sched_job_results(j)), LOGITD_FAILED);
    assert_int_equal(logitd_job_error(sched_job_results(j))->status, LOGITD_ECANCELED);
    assert_true(sched_read_stats(s).n_steps <= n_steps + 1);
    assert_int_equal(sched_read_stats(s).n_canceled, 1);
    sched_release(s, j);
    stop(s);
}

static void releasing_a_running_job_frees_it(void **state) {
    (void)state;
    sched *s = start(0);
    waiter w = WAITER;
    fake.step_us = STEP_US;
    fake.step_tokens = 1;
    sched_job *j = submit(s, &w, 1000000, false);
    while (sched_read_stats(s).n_running == 0) usleep(100);
    sched_release(s, j);
    while (fake_n_live_jobs() > 0) usleep(100);
    int n_wakes = w.n_wakes;
    usleep(3 * STEP_US);
    assert_int_equal(w.n_wakes, n_wakes); // never after release
    assert_int_equal(sched_read_stats(s).n_held, 0);
    stop(s);
}

static void the_queue_is_bounded_and_draining_refuses(void **state) {
    (void)state;
    sched *s = start(2);
    waiter w = WAITER;
    fake.step_us = STEP_US;
    sched_job *a = submit(s, &w, 40, false), *b = submit(s, &w, 40, false), *c;
    logitd_error err;
    assert_int_equal(sched_submit(s, make_job(1, false), "a", wake, &w, &c, &err), LOGITD_EBUSY);
    assert_non_null(strstr(err.message, "queue is full"));
    assert_null(c);
    sched_drain(s);
    assert_int_equal(sched_submit(s, make_job(1, false), "a", wake, &w, &c, &err), LOGITD_EBUSY);
    assert_non_null(strstr(err.message, "shutting down"));
    wait_ended(s, &w, a); // accepted work goes on
    wait_ended(s, &w, b);
    assert_int_equal(logitd_job_state(sched_job_results(b)), LOGITD_DONE);
    sched_release(s, a);
    sched_release(s, b);
    stop(s);
}

static void a_client_has_its_part_of_the_queue(void **state) {
    (void)state;
    sched *s;
    logitd_error err;
    const sched_options options = {.engine = fake_open(), .max_jobs = 3, .max_jobs_per_client = 2};
    assert_int_equal(sched_create(&options, &s, &err), LOGITD_OK);
    waiter w = WAITER;
    fake.step_us = STEP_US;
    sched_job *a = submit(s, &w, 100000, false), *b = submit(s, &w, 100000, false), *c;
    assert_int_equal(sched_submit(s, make_job(1, false), "a", wake, &w, &c, &err), LOGITD_EQUOTA);
    assert_non_null(strstr(err.message, "2 requests in flight"));
    assert_int_equal(sched_submit(s, make_job(1, false), "b", wake, &w, &c, &err), LOGITD_OK);
    sched_job *d;
    assert_int_equal(sched_submit(s, make_job(1, false), "c", wake, &w, &d, &err), LOGITD_EBUSY);
    assert_int_equal(sched_read_stats(s).n_refused, 2);
    sched_release(s, a); // no longer in flight, though the worker may not have freed it yet
    assert_int_equal(sched_submit(s, make_job(1, false), "a", wake, &w, &d, &err) == LOGITD_EQUOTA, 0);
    if (d) sched_release(s, d);
    sched_release(s, b);
    sched_release(s, c);
    stop(s);
}

static void a_late_job_ends(void **state) {
    (void)state;
    sched *s;
    logitd_error err;
    const sched_options options = {.engine = fake_open(), .max_deadline_us = 500 * STEP_US};
    assert_int_equal(sched_create(&options, &s, &err), LOGITD_OK);
    waiter w = WAITER;
    fake.step_us = STEP_US;
    fake.step_tokens = 1;
    sched_job *soon = submit(s, &w, 1, false), *late = submit(s, &w, 1000000, false);
    wait_ended(s, &w, late);
    assert_int_equal(logitd_job_error(sched_job_results(late))->status, LOGITD_EBUSY);
    assert_non_null(strstr(logitd_job_error(sched_job_results(late))->message, "not computed within"));
    assert_int_equal(sched_read_stats(s).n_failed, 1);
    sched_release(s, late);
    sched_release(s, soon);
    stop(s);
}

/// Row irow, waiting as a reply does.
static const float *full_row(sched *s, waiter *w, sched_job *j, int irow, logitd_error *err) {
    for (;;) {
        const float *row;
        pthread_mutex_lock(&w->mutex);
        int seen = w->n_wakes;
        pthread_mutex_unlock(&w->mutex);
        if (sched_full_row(s, j, 0, irow, &row, err)) return NULL;
        if (row) return row;
        pthread_mutex_lock(&w->mutex);
        while (w->n_wakes == seen) pthread_cond_wait(&w->woken, &w->mutex);
        pthread_mutex_unlock(&w->mutex);
    }
}

static void full_rows_are_made_on_demand(void **state) {
    (void)state;
    sched *s = start(0);
    waiter w = WAITER;
    sched_job *j = submit(s, &w, 50, true);
    wait_ended(s, &w, j);
    assert_int_equal(sched_read_stats(s).n_full_rows, 0);
    logitd_error err = {0};
    for (int i = 0; i < 50; i++) {
        const float *row = full_row(s, &w, j, i, &err);
        const int32_t token = logitd_job_row(sched_job_results(j), 0, i).token_id;
        assert_non_null(row);
        for (int v = 0; v < FAKE_VOCAB; v++) assert_true(row[v] == fake_logit(token, v));
    }
    assert_int_equal(sched_read_stats(s).n_full_rows, 50); // none twice
    sched_cancel(s, j);
    assert_null(full_row(s, &w, j, 0, &err));
    assert_int_equal(err.status, LOGITD_ECANCELED);
    sched_release(s, j);

    fake.project_fails_at_row = 1;
    j = submit(s, &w, 3, true);
    wait_ended(s, &w, j);
    assert_null(full_row(s, &w, j, 0, &err));
    assert_int_equal(err.status, LOGITD_EBACKEND);
    sched_release(s, j);
    stop(s);
}

/// While a reply sends the last rows that it holds, the next are made, as soon as there is room for them.
static void full_rows_are_made_ahead(void **state) {
    (void)state;
    enum { ROOM_AT = 2 * LIMIT_FULL_ROWS - LIMIT_FULL_HELD }; // rows given up
    sched *s = start(0);
    waiter w = WAITER;
    logitd_error err = {0};
    fake.project_fails_at_row = 70;
    sched_job *j = submit(s, &w, 100, true);
    wait_ended(s, &w, j);
    const float *first = full_row(s, &w, j, 0, &err), *row;
    assert_non_null(first);
    assert_int_equal(sched_read_stats(s).n_full_rows, LIMIT_FULL_ROWS);
    assert_int_equal(sched_full_row(s, j, 0, ROOM_AT - 1, &row, &err), LOGITD_OK);
    usleep(1000); // no room for more yet
    assert_int_equal(sched_read_stats(s).n_full_rows, LIMIT_FULL_ROWS);
    assert_int_equal(sched_full_row(s, j, 0, ROOM_AT, &row, &err), LOGITD_OK);
    while (sched_read_stats(s).n_full_rows < (uint64_t)2 * LIMIT_FULL_ROWS) usleep(10); // nobody asked for one
    for (int i = ROOM_AT; i < 2 * LIMIT_FULL_ROWS; i++) {
        row = full_row(s, &w, j, i, &err);
        const int32_t token = logitd_job_row(sched_job_results(j), 0, i).token_id;
        assert_non_null(row);
        for (int v = 0; v < FAKE_VOCAB; v++) assert_true(row[v] == fake_logit(token, v));
    }
    assert_null(full_row(s, &w, j, 2 * LIMIT_FULL_ROWS, &err)); // what failed took no row away that was there
    assert_int_equal(err.status, LOGITD_EBACKEND);
    fake.project_fails_at_row = 0;
    sched_release(s, j);
    stop(s);
}

static void cancel_all_leaves_nobody_waiting(void **state) {
    (void)state;
    sched *s = start(0);
    waiter w = WAITER;
    fake.step_us = STEP_US;
    fake.step_tokens = 1;
    sched_job *jobs[5];
    for (int i = 0; i < 5; i++) jobs[i] = submit(s, &w, 1000, i % 2);
    sched_cancel_all(s);
    for (int i = 0; i < 5; i++) {
        assert_true(sched_job_ended(s, jobs[i]));
        assert_int_equal(logitd_job_state(sched_job_results(jobs[i])), LOGITD_FAILED);
        sched_release(s, jobs[i]);
    }
    stop(s);
}

static void a_failing_engine_ends_its_jobs(void **state) {
    (void)state;
    sched *s = start(0);
    waiter w = WAITER;
    fake.step_tokens = 1;
    fake.fail_after = 2;
    sched_job *j = submit(s, &w, 5, false);
    wait_ended(s, &w, j);
    assert_int_equal(logitd_job_error(sched_job_results(j))->status, LOGITD_EBACKEND);
    assert_int_equal(sched_read_stats(s).n_failed, 1);
    sched_release(s, j);
    stop(s);
}

/// Two clients with short requests: the one whose turn it is waits for the other to come back, and they share a step.
static void short_requests_do_not_take_turns(void **state) {
    (void)state;
    sched *s;
    logitd_error err;
    const int64_t minute_us = 60000000; // the wait ends when the other is there, long before
    sched_options options = {.engine = fake_open(), .company_us = minute_us};
    assert_int_equal(sched_create(&options, &s, &err), LOGITD_OK);
    waiter w[2] = {WAITER, WAITER};
    atomic_store(&fake.hold, true); // until b has come
    sched_job *a = submit(s, &w[0], 1, false);
    while (sched_read_stats(s).n_running == 0) usleep(10);
    sched_job *b = submit(s, &w[1], 1, false);
    atomic_store(&fake.hold, false);
    wait_ended(s, &w[0], a);
    sched_release(s, a);
    a = submit(s, &w[0], 1, false);
    wait_ended(s, &w[0], a);
    wait_ended(s, &w[1], b);
    assert_int_equal(sched_read_stats(s).n_steps, 2);
    sched_release(s, a);
    sched_release(s, b);
    stop(s);
}

/// A short request that ended in a step is waited for although a long one fills the next.
static void short_requests_do_not_miss_steps(void **state) {
    (void)state;
    sched *s;
    logitd_error err;
    sched_options options = {.engine = fake_open(), .company_us = (int64_t)16 * 60 * 1000000}; // beside work: a minute
    assert_int_equal(sched_create(&options, &s, &err), LOGITD_OK);
    waiter w[2] = {WAITER, WAITER};
    atomic_store(&fake.hold, true); // until the long one has come
    sched_job *brief = submit(s, &w[0], 1, false);
    while (sched_read_stats(s).n_running == 0) usleep(10);
    sched_job *lengthy = submit(s, &w[1], 39, false); // its last step has room for one more
    atomic_store(&fake.hold, false);
    wait_ended(s, &w[0], brief);
    sched_release(s, brief);
    usleep(20000); // time enough for all steps of the long one, if they did not wait
    assert_int_equal(sched_read_stats(s).n_steps, 1);
    brief = submit(s, &w[0], 1, false);
    wait_ended(s, &w[0], brief);
    wait_ended(s, &w[1], lengthy);
    sched_release(s, brief);
    sched_release(s, lengthy);
    stop(s);
}

static void *hammer(void *arg) {
    sched *s = arg;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < 60; i++) {
        waiter w = WAITER;
        logitd_error err;
        sched_job *j = submit(s, &w, 1 + rand_r(&seed) % 40, true);
        switch (rand_r(&seed) % 4) {
        case 0:
            break; // released at once
        case 1:
            sched_cancel(s, j);
            break;
        case 2:
            wait_ended(s, &w, j);
            break;
        default:
            wait_ended(s, &w, j);
            assert_non_null(full_row(s, &w, j, logitd_job_rows_ready(sched_job_results(j), 0) - 1, &err));
        }
        sched_release(s, j);
    }
    return NULL;
}

static void many_threads(void **state) {
    (void)state;
    sched *s = start(0);
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, hammer, s);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    sched_stats stats = sched_read_stats(s);
    assert_int_equal(stats.n_accepted, 8 * 60);
    stop(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_ends_and_wakes),
        cmocka_unit_test(cancelling_costs_at_most_a_step),
        cmocka_unit_test(releasing_a_running_job_frees_it),
        cmocka_unit_test(the_queue_is_bounded_and_draining_refuses),
        cmocka_unit_test(a_client_has_its_part_of_the_queue),
        cmocka_unit_test(a_late_job_ends),
        cmocka_unit_test(full_rows_are_made_on_demand),
        cmocka_unit_test(full_rows_are_made_ahead),
        cmocka_unit_test(cancel_all_leaves_nobody_waiting),
        cmocka_unit_test(a_failing_engine_ends_its_jobs),
        cmocka_unit_test(short_requests_do_not_take_turns),
        cmocka_unit_test(short_requests_do_not_miss_steps),
        cmocka_unit_test(many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
