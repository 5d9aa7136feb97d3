/*
 * cpu_ops_avx2.c: the kernels for AVX2 and FMA (Haswell, Zen and later): 8 lanes, 12 accumulators of 16 registers.
 */
#define CPU_LEVEL       avx2
#define CPU_LANES       8
#define CPU_BLOCK_N     6
#define CPU_SINGLE_ROWS 5
#define CPU_PAIRS

static _Bool supported(void) {
    // F16C came with Ivy Bridge and is in every processor that has FMA; clang 14 cannot ask for it.
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#include "cpu/cpu_kernels_simd.h"
