/*
 * cpu_ops_avx512vnni.c: the AVX-512 kernels with integer products on VNNI (Ice Lake server, Zen 4 and later).
 */
#define CPU_LEVEL       avx512vnni
#define CPU_LANES       16
#define CPU_BLOCK_N     12
#define CPU_SINGLE_ROWS 16
#define CPU_LIMBS

static _Bool supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

#include "cpu/cpu_kernels_simd.h"
