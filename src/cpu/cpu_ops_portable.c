/*
 * cpu_ops_portable.c: the kernels in the compiler's vector extensions alone, for any processor. It has the tile shapes
 * of the AVX-512 level, so that those are exercised on machines without it.
 */
#define CPU_LEVEL       portable
#define CPU_LANES       16
#define CPU_BLOCK_N     12
#define CPU_SINGLE_ROWS 2

static _Bool supported(void) {
    return 1;
}

#include "cpu/cpu_kernels_simd.h"
