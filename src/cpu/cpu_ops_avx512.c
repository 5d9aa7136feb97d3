/*
 * cpu_ops_avx512.c: the kernels for AVX-512 F, DQ, BW and VL (Skylake server, Zen 4 and later): 16 lanes, 24
 * accumulators of 32 registers.
 */
#define CPU_LEVEL       avx512
#define CPU_LANES       16
#define CPU_BLOCK_N     12
#define CPU_SINGLE_ROWS 4
#define CPU_PAIRS

static _Bool supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

#include "cpu/cpu_kernels_simd.h"
