/*
 * peaks.c: see peaks.h. The loops come first, then the table, then the threads that run them.
 *
 * A loop needs enough independent accumulators to hide its instruction's latency: two pipes of 4 to 5 cycles want 10.
 * With fewer, the machine shows less than it has.
 */
#include "peaks.h"
#include "util.h"
#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#    include <immintrin.h>
#elif defined(__aarch64__)
#    include <arm_neon.h>
#endif

enum { ROUNDS = 16, READ_ROUNDS = 8, STEPS = 1 << 20 };
enum { READ_BYTES = 128 << 20 }; // a thread: beyond its caches, so that nothing of a round is there in the next

/// n_acc accumulators of a vector type, each put through one instruction a step: in assembler, because what a compiler
/// adds around an intrinsic (copies of accumulators) would be measured too. Operands: %0 accumulator, %1 and %2 factors
/// of about 0.75, or bytes that mean as little.
#define PEAK_LOOP(name, attribute, vec, reg, n_acc, ops, instruction)                                                  \
    attribute static double name(const void *memory, size_t n_bytes) {                                                 \
        vec acc[n_acc], factor;                                                                                        \
        memset(&factor, 0x3f, sizeof factor);                                                                          \
        _Pragma("GCC unroll 32") for (int i = 0; i < (n_acc); i++) acc[i] = factor - factor;                           \
        for (int round = 0; round < STEPS; round++) {                                                                  \
            _Pragma("GCC unroll 32") for (int i = 0; i < (n_acc); i++) {                                               \
                __asm__ volatile(instruction : "+" reg(acc[i]) : reg(factor), reg(factor));                            \
            }                                                                                                          \
        }                                                                                                              \
        (void)memory, (void)n_bytes;                                                                                   \
        return (double)(ops) * (n_acc) * (double)STEPS;                                                                \
    }

#define TARGET(features) __attribute__((target(features)))

#if defined(__x86_64__)

PEAK_LOOP(f32_avx512, TARGET("avx512f"), __m512, "v", 24, 32, "vfmadd213ps %2, %1, %0")
PEAK_LOOP(f32_avx2, TARGET("avx2,fma"), __m256, "x", 12, 16, "vfmadd213ps %2, %1, %0")
PEAK_LOOP(f32_baseline, , __m128, "x", 12, 8, "mulps %1, %0\n\taddps %2, %0")
PEAK_LOOP(bf16_avx512, TARGET("avx512f,avx512bf16"), __m512, "v", 24, 64, "vdpbf16ps %2, %1, %0")
PEAK_LOOP(int8_avx512, TARGET("avx512f,avx512vnni"), __m512i, "v", 24, 128, "vpdpbusd %2, %1, %0")

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f");
}
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static bool has_bf16(void) {
    return __builtin_cpu_supports("avx512bf16");
}
static bool has_vnni(void) {
    return __builtin_cpu_supports("avx512vnni");
}

#elif defined(__aarch64__)

PEAK_LOOP(f32_baseline, , float32x4_t, "w", 24, 8, "fmla %0.4s, %1.4s, %2.4s")

#endif

static bool always(void) {
    return true;
}

/// 64 bytes a line, four independent sums.
static double read_loop(const void *memory, size_t n_bytes) {
    typedef uint64_t line __attribute__((vector_size(64)));
    const line *p = memory;
    line sum[4] = {0};
    for (size_t i = 0; i < n_bytes / sizeof(line); i += 4)
        for (size_t k = 0; k < 4; k++) sum[k] += p[i + k];
    volatile uint64_t all = (sum[0] + sum[1] + sum[2] + sum[3])[0];
    (void)all;
    return (double)n_bytes;
}

const peak peaks[] = {
#if defined(__x86_64__)
    {"f32 FMA, AVX-512", "avx512", false, has_avx512, f32_avx512},
    {"f32 FMA, AVX2", "avx2", false, has_avx2, f32_avx2},
    {"f32 multiply and add, SSE2", "", false, always, f32_baseline},
    {"bf16 dot, AVX-512", NULL, false, has_bf16, bf16_avx512},
    {"int8 dot, AVX-512 VNNI", NULL, false, has_vnni, int8_avx512},
#elif defined(__aarch64__)
    {"f32 FMA, NEON", "", false, always, f32_baseline},
#endif
    {"memory read", NULL, true, always, read_loop},
};
const int n_peaks = ARRAY_LEN(peaks);

// ---------------------------------------------------------------------------------------------------------- threads

typedef struct runner {
    pthread_t thread;
    const peak *p;
    void *memory;
    size_t n_bytes;
    double work;
} runner;

static void *run_thread(void *argument) {
    runner *r = argument;
    r->work = r->p->loop(r->memory, r->n_bytes);
    return NULL;
}

/// One round of all threads: ms, and the work done.
static double run_round(runner *runners, int n_threads, double *work) {
    const double start = timing_now_ms();
    *work = 0.0;
    for (int i = 0; i < n_threads; i++) ASSERT(!pthread_create(&runners[i].thread, NULL, run_thread, &runners[i]));
    for (int i = 0; i < n_threads; i++) {
        pthread_join(runners[i].thread, NULL);
        *work += runners[i].work;
    }
    return timing_now_ms() - start;
}

timing peak_measure(const peak *p, int n_threads, double *work) {
    const int n_rounds = p->reads ? READ_ROUNDS : ROUNDS;
    const size_t n_bytes = p->reads ? READ_BYTES : 64;
    double ms[ROUNDS];
    ASSERT(n_threads >= 1 && p->supported());
    runner *runners = mem_alloc((size_t)n_threads, sizeof *runners);
    ASSERT(runners);
    for (int i = 0; i < n_threads; i++) {
        runners[i] = (runner){.p = p, .memory = mem_alloc(n_bytes, 1), .n_bytes = n_bytes};
        ASSERT(runners[i].memory);
        memset(runners[i].memory, 1, n_bytes); // pages of its own: untouched ones are all the same page of zeros
    }
    for (int round = 0; round < n_rounds; round++) ms[round] = run_round(runners, n_threads, work);
    for (int i = 0; i < n_threads; i++) mem_free(runners[i].memory);
    mem_free(runners);
    return timing_of(ms, n_rounds);
}

// ----------------------------------------------------------------------------------------------------------- limits

static double best_rate(const peak *p, int n_threads) {
    double work;
    const timing t = peak_measure(p, n_threads, &work);
    return work / t.best_ms / 1e6;
}

double peak_read_gbps(int n_threads) {
    return best_rate(&peaks[n_peaks - 1], n_threads);
}

/// The first of the table whose level the name begins with; the narrowest has the empty one.
static const peak *peak_of_level(const char *level) {
    const bool widest = !level || strcmp(level, "auto") == 0;
    for (int i = 0; i < n_peaks; i++) {
        const peak *p = &peaks[i];
        if (p->level && p->supported() && (widest || strncmp(level, p->level, strlen(p->level)) == 0)) return p;
    }
    return NULL;
}

double peak_gops(const char *level, int n_threads) {
    const peak *p = peak_of_level(level);
    ASSERT(p); // the narrowest is always there
    return best_rate(p, n_threads);
}
