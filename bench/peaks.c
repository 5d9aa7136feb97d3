/*
 * peaks.c: the machine's limits, measured by loops that do nothing else. Enough independent accumulators hide the
 * latency of the multiply-adds: fewer than 10 on two 4-cycle pipes show less than the machine has.
 */
#include "peaks.h"
#include "util.h"
#include <pthread.h>

enum { ROUNDS = 20, FMA_STEPS = 4000000, READ_BYTES = 256 << 20 };

/// One thread's run of a loop: returns the work done (FLOPs or bytes).
typedef double (*loop)(void *memory);

#define FMA_LOOP(name, lanes, n_acc, attribute)                                                                        \
    attribute static double name(void *memory) {                                                                       \
        typedef float v __attribute__((vector_size(4 * (lanes))));                                                     \
        v acc[n_acc], a = {0}, b = {0};                                                                                \
        a += 0.5f;                                                                                                     \
        b += 0.25f;                                                                                                    \
        for (int i = 0; i < n_acc; i++) acc[i] = a * (float)i; /* different, or the compiler merges them */            \
        for (int step = 0; step < FMA_STEPS; step++) {                                                                 \
            _Pragma("GCC unroll 32") for (int i = 0; i < n_acc; i++) acc[i] = acc[i] * a + b;                          \
            __asm__ volatile("" : "+x"(a), "+x"(b));                                                                   \
        }                                                                                                              \
        for (int i = 1; i < n_acc; i++) acc[0] += acc[i];                                                              \
        *(volatile float *)memory = acc[0][0];                                                                         \
        return 2.0 * (lanes) * (n_acc) * (double)FMA_STEPS;                                                            \
    }

#if defined(__x86_64__)
FMA_LOOP(fma_avx512, 16, 24, __attribute__((target("avx512f"), optimize("fp-contract=fast"))))
FMA_LOOP(fma_avx2, 8, 12, __attribute__((target("avx2,fma"), optimize("fp-contract=fast"))))
FMA_LOOP(fma_baseline, 4, 12, )
static loop best_fma(void) {
    if (__builtin_cpu_supports("avx512f")) return fma_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return fma_avx2;
    return fma_baseline;
}
#else
#    undef FMA_LOOP
static double fma_baseline(void *memory) {
    typedef float v __attribute__((vector_size(16)));
    v acc[24], a = {0.5f, 0.5f, 0.5f, 0.5f}, b = {0.25f, 0.25f, 0.25f, 0.25f};
    for (int i = 0; i < 24; i++) acc[i] = a * (float)i; // different, or the compiler merges them
    for (int step = 0; step < FMA_STEPS; step++) {
#    pragma GCC unroll 24
        for (int i = 0; i < 24; i++) acc[i] = acc[i] * a + b;
        __asm__ volatile("" : "+w"(a), "+w"(b));
    }
    for (int i = 1; i < 24; i++) acc[0] += acc[i];
    *(volatile float *)memory = acc[0][0];
    return 2.0 * 4 * 24 * (double)FMA_STEPS;
}
static loop best_fma(void) {
    return fma_baseline;
}
#endif

static double read_loop(void *memory) {
    typedef uint64_t v __attribute__((vector_size(64)));
    const v *p = memory;
    v sum[4] = {0};
    for (size_t i = 0; i < READ_BYTES / sizeof(v); i += 4)
        for (size_t k = 0; k < 4; k++) sum[k] += p[i + k];
    *(volatile uint64_t *)memory = (sum[0] + sum[1] + sum[2] + sum[3])[0];
    return READ_BYTES;
}

typedef struct runner {
    pthread_t thread;
    loop run;
    void *memory;
    double work;
} runner;

static void *run_thread(void *argument) {
    runner *r = argument;
    r->work = r->run(r->memory);
    return NULL;
}

/// Work a nanosecond of all threads together: the best round.
static double measure(loop run, int n_threads, size_t bytes_each) {
    double best = 0.0;
    runner *runners = mem_alloc((size_t)n_threads, sizeof *runners);
    ASSERT(runners);
    for (int i = 0; i < n_threads; i++) {
        runners[i] = (runner){.run = run, .memory = mem_alloc(bytes_each, 1)};
        ASSERT(runners[i].memory);
    }
    for (int round = 0; round < ROUNDS; round++) {
        const int64_t start = clock_us();
        double work = 0.0;
        for (int i = 0; i < n_threads; i++) ASSERT(!pthread_create(&runners[i].thread, NULL, run_thread, &runners[i]));
        for (int i = 0; i < n_threads; i++) {
            pthread_join(runners[i].thread, NULL);
            work += runners[i].work;
        }
        best = MAX(best, work / ((double)(clock_us() - start) * 1e3));
    }
    for (int i = 0; i < n_threads; i++) mem_free(runners[i].memory);
    mem_free(runners);
    return best;
}

double peak_fma_gflops(int n_threads) {
    return measure(best_fma(), n_threads, 64);
}
double peak_read_gbps(int n_threads) {
    return measure(read_loop, n_threads, READ_BYTES);
}
