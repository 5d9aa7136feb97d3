/*
 * cpu_ops_neon.c: the kernels for 64-bit ARM, where NEON is always there: 4 lanes, 24 accumulators of 32 registers.
 */
#define CPU_LEVEL       neon
#define CPU_LANES       4
#define CPU_BLOCK_N     12
#define CPU_SINGLE_ROWS 2

static _Bool supported(void) {
    return 1;
}

#include "cpu/cpu_kernels_simd.h"
