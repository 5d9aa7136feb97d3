/*
 * cpu_pool.c: threads wait for a new generation number, spin a little for it (operations follow each other within
 * microseconds during a batch) and then sleep on a condition variable (the server is idle).
 */
#include "cpu/cpu_pool.h"
#include "util.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { SPIN_ROUNDS = 4000 }; // about 50 us

typedef struct worker {
    cpu_pool *pool;
    int thread; // 1 … n_threads-1
    pthread_t handle;
} worker;

struct cpu_pool {
    int n_threads;
    worker *workers;
    // The job of this generation: written before `generation` is released, read after it is acquired.
    cpu_task task;
    void *context;
    int n_items;
    atomic_int next_item;
    atomic_int n_busy; // workers that have not finished this generation
    atomic_uint generation;
    atomic_bool stop;
    // Guards nothing but the sleep: a sleeper rechecks `generation` under it, and the caller bumps it under it.
    pthread_mutex_t mutex;
    pthread_cond_t wake;
};

static void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work(cpu_pool *pool, int thread) {
    for (;;) {
        const int item = atomic_fetch_add_explicit(&pool->next_item, 1, memory_order_relaxed);
        if (item >= pool->n_items) return;
        pool->task(pool->context, item, thread);
    }
}

static unsigned wait_for_generation(cpu_pool *pool, unsigned seen) {
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        const unsigned now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != seen) return now;
        cpu_relax();
    }
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load_explicit(&pool->generation, memory_order_acquire) == seen)
        pthread_cond_wait(&pool->wake, &pool->mutex);
    const unsigned now = atomic_load_explicit(&pool->generation, memory_order_acquire);
    pthread_mutex_unlock(&pool->mutex);
    return now;
}

static void *worker_main(void *argument) {
    worker *self = argument;
    cpu_pool *pool = self->pool;
    for (unsigned seen = 0;;) {
        seen = wait_for_generation(pool, seen);
        if (atomic_load_explicit(&pool->stop, memory_order_acquire)) return NULL;
        work(pool, self->thread);
        // Release: the caller's acquire of 0 sees everything that this worker's items wrote.
        atomic_fetch_sub_explicit(&pool->n_busy, 1, memory_order_release);
    }
}

static void start_generation(cpu_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

void cpu_pool_run(cpu_pool *pool, cpu_task task, void *context, int n_items) {
    if (n_items <= 0) return;
    pool->task = task;
    pool->context = context;
    pool->n_items = n_items;
    atomic_store_explicit(&pool->next_item, 0, memory_order_relaxed);
    if (pool->n_threads == 1 || n_items == 1) {
        work(pool, 0);
        return;
    }
    atomic_store_explicit(&pool->n_busy, pool->n_threads - 1, memory_order_relaxed);
    start_generation(pool);
    work(pool, 0);
    for (int spins = 0; atomic_load_explicit(&pool->n_busy, memory_order_acquire) != 0;) {
        if (++spins < SPIN_ROUNDS)
            cpu_relax();
        else
            sched_yield(); // more threads than processors: let the others finish
    }
}

cpu_pool *cpu_pool_create(int n_threads) {
    ASSERT(n_threads >= 1);
    cpu_pool *pool = mem_alloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->n_threads = 1;
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
    start_generation(pool);
    for (int i = 1; i < pool->n_threads; i++) pthread_join(pool->workers[i].handle, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    mem_free(pool->workers);
    mem_free(pool);
}
