/*
 * cpu_pool.c: threads that claim items of a job from one word, its number and the next item. A worker wakes to a new
 * number, spins a little for one (operations follow each other within microseconds during a batch) and then sleeps on a
 * condition variable (the server is idle).
 *
 * The caller waits for items, not for workers: one that is late, because its processor does something else, finds the
 * word changed and takes nothing, so that more threads than free processors cost little.
 */
#include "cpu/cpu_pool.h"
#include "util.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { SPIN_ROUNDS = 4000 }; // about 50 us

#define CLOSED 0xffffffffu // next item of a job that is being written

typedef struct worker {
    cpu_pool *pool;
    int thread; // 1 … n_threads-1
    pthread_t handle;
} worker;

struct cpu_pool {
    int n_threads;
    worker *workers;
    // The job: written while the word is closed, released with it. A worker may read it at any time, but uses it only
    // if it then claims an item, which fails when the word has changed since.
    _Atomic(cpu_task) task;
    _Atomic(void *) context;
    atomic_uint n_items;
    // Lines of their own: claims and ends of items come from all threads.
    _Alignas(64) _Atomic(uint64_t) word; // (number of the job << 32) | next item
    _Alignas(64) atomic_uint n_ended;    // items of this job
    _Alignas(64) atomic_int n_asleep;    // workers; changed under the mutex
    atomic_bool stop;
    pthread_mutex_t mutex; // guards nothing but the sleep: a sleeper rechecks the word under it
    pthread_cond_t wake;
};

static void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/// Runs items of job `number` until there is none left.
static void work(cpu_pool *pool, uint32_t number, int thread) {
    // Acquire: what the caller wrote for this job, or for a later one, in which case the claim below fails.
    uint64_t word = atomic_load_explicit(&pool->word, memory_order_acquire);
    for (;;) {
        const cpu_task task = atomic_load_explicit(&pool->task, memory_order_acquire);
        void *context = atomic_load_explicit(&pool->context, memory_order_acquire);
        const uint32_t item = (uint32_t)word, n_items = atomic_load_explicit(&pool->n_items, memory_order_acquire);
        if (word >> 32 != number || item >= n_items) return; // CLOSED is past any item
        if (!atomic_compare_exchange_weak_explicit(&pool->word, &word, word + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        task(context, (int)item, thread);
        // Release: the caller's acquire of the last end sees everything that the items wrote.
        atomic_fetch_add_explicit(&pool->n_ended, 1, memory_order_release);
        word = atomic_load_explicit(&pool->word, memory_order_acquire);
    }
}

static uint32_t job_number(cpu_pool *pool) {
    return (uint32_t)(atomic_load_explicit(&pool->word, memory_order_seq_cst) >> 32);
}

static uint32_t wait_for_job(cpu_pool *pool, uint32_t seen) {
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        const uint32_t now = job_number(pool);
        if (now != seen) return now;
        cpu_relax();
    }
    pthread_mutex_lock(&pool->mutex);
    // Before the word is read again: the caller writes the word and then looks for sleepers (both seq_cst), so one of
    // the two sees the other.
    atomic_fetch_add_explicit(&pool->n_asleep, 1, memory_order_seq_cst);
    while (job_number(pool) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub_explicit(&pool->n_asleep, 1, memory_order_seq_cst);
    pthread_mutex_unlock(&pool->mutex);
    return job_number(pool);
}

static void *worker_main(void *argument) {
    worker *self = argument;
    cpu_pool *pool = self->pool;
    for (uint32_t seen = 0;;) {
        seen = wait_for_job(pool, seen);
        if (atomic_load_explicit(&pool->stop, memory_order_acquire)) return NULL;
        work(pool, seen, self->thread);
    }
}

/// Opens the next job and wakes who sleeps. Returns its number.
static uint32_t start_job(cpu_pool *pool, cpu_task task, void *context, uint32_t n_items) {
    const uint32_t number = job_number(pool) + 1;
    // From here on no claim of the job before can succeed, and none of this one yet: its number is that before.
    atomic_store_explicit(&pool->word, (uint64_t)(number - 1) << 32 | CLOSED, memory_order_relaxed);
    // Release: who reads any of these also sees the word closed.
    atomic_store_explicit(&pool->task, task, memory_order_release);
    atomic_store_explicit(&pool->context, context, memory_order_release);
    atomic_store_explicit(&pool->n_items, n_items, memory_order_release);
    atomic_store_explicit(&pool->n_ended, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->word, (uint64_t)number << 32, memory_order_seq_cst);
    if (atomic_load_explicit(&pool->n_asleep, memory_order_seq_cst) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
    return number;
}

void cpu_pool_run(cpu_pool *pool, cpu_task task, void *context, int n_items) {
    if (pool->n_threads == 1 || n_items == 1) {
        for (int item = 0; item < n_items; item++) task(context, item, 0);
        return;
    }
    if (n_items <= 0) return;
    work(pool, start_job(pool, task, context, (uint32_t)n_items), 0);
    for (int spins = 0; atomic_load_explicit(&pool->n_ended, memory_order_acquire) != (uint32_t)n_items;) {
        if (++spins < SPIN_ROUNDS)
            cpu_relax();
        else
            sched_yield(); // an item's thread may wait for this processor
    }
}

cpu_pool *cpu_pool_create(int n_threads) {
    ASSERT(n_threads >= 1);
    cpu_pool *pool = mem_alloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->n_threads = 1;
    atomic_store_explicit(&pool->word, CLOSED, memory_order_relaxed);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->workers = mem_alloc((size_t)n_threads, sizeof *pool->workers);
    for (int i = 1; pool->workers && i < n_threads; i++) {
        worker *w = &pool->workers[i];
        *w = (worker){.pool = pool, .thread = i};
        if (pthread_create(&w->handle, NULL, worker_main, w) != 0) break;
        pool->n_threads = i + 1;
    }
    if (pool->n_threads != n_threads) {
        cpu_pool_free(pool);
        return NULL;
    }
    return pool;
}

void cpu_pool_free(cpu_pool *pool) {
    if (!pool) return;
    atomic_store_explicit(&pool->stop, true, memory_order_release);
    start_job(pool, NULL, NULL, 0);
    for (int i = 1; i < pool->n_threads; i++) pthread_join(pool->workers[i].handle, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    mem_free(pool->workers);
    mem_free(pool);
}
