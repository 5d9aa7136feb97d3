/*
 * test_cpu_pool.c: the CPU backend's threads: every item of every job runs exactly once, and its result is there when
 * the job returns, with one thread, several, and more than the machine has processors; sleeping and awake.
 */
#include "cpu/cpu_pool.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { MOST_ITEMS = 97, MOST_THREADS = 8 };

typedef struct job {
    int number;
    int runs[MOST_ITEMS];        // plain numbers: a second run of an item would be a race
    int by_thread[MOST_THREADS]; // one writer each
    int n_threads, bad_thread;   // an index that is none
    int results[MOST_ITEMS];
} job;

static void run_item(void *context, int item, int thread) {
    job *j = context;
    if (thread < 0 || thread >= j->n_threads) {
        j->bad_thread = 1;
        return;
    }
    j->runs[item]++;
    j->by_thread[thread]++;
    j->results[item] = j->number * 1000 + item;
}

static void check_job(cpu_pool *pool, int n_threads, int number, int n_items) {
    job j = {.number = number, .n_threads = n_threads};
    int ran = 0;
    cpu_pool_run(pool, run_item, &j, n_items);
    assert_int_equal(j.bad_thread, 0);
    for (int i = 0; i < MOST_ITEMS; i++) {
        assert_int_equal(j.runs[i], i < n_items);
        assert_int_equal(j.results[i], i < n_items ? number * 1000 + i : 0);
    }
    for (int i = 0; i < n_threads; i++) ran += j.by_thread[i];
    assert_int_equal(ran, n_items);
}

static void test_every_item_once(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, MOST_THREADS};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        cpu_pool *pool = cpu_pool_create(threads[t]);
        assert_non_null(pool);
        for (int i = 0; i < 4000; i++) check_job(pool, threads[t], i, i * 31 % (MOST_ITEMS + 1));
        cpu_pool_free(pool);
    }
}

/// Threads that have gone to sleep come back, and a pool that never had a job ends.
static void test_sleepers(void **state) {
    (void)state;
    cpu_pool_free(cpu_pool_create(3));
    cpu_pool *pool = cpu_pool_create(3);
    for (int i = 0; i < 20; i++) {
        const struct timespec a_while = {.tv_nsec = 2000000};
        nanosleep(&a_while, NULL);
        check_job(pool, 3, i, MOST_ITEMS);
    }
    cpu_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_item_once), cmocka_unit_test(test_sleepers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
