/*
 * cpu_pool.h: a fixed set of threads that work through numbered items. The caller works along as thread 0. Items are
 * handed out in order through one counter, so which thread runs an item is not determined: a task must give the same
 * result whatever the assignment.
 */
#ifndef CPU_POOL_H
#define CPU_POOL_H

typedef struct cpu_pool cpu_pool;
typedef void (*cpu_task)(void *context, int item, int thread); // thread in [0, n_threads)

cpu_pool *cpu_pool_create(int n_threads); // NULL: no memory or no threads
void cpu_pool_free(cpu_pool *pool);
/// Runs items 0 … n_items-1 and returns when all are done. One caller at a time.
void cpu_pool_run(cpu_pool *pool, cpu_task task, void *context, int n_items);

#endif
