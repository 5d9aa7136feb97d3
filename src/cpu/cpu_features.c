/*
 * cpu_features.c: the levels of this architecture, best first.
 */
#include "cpu/cpu_kernels.h"

const cpu_kernels *const cpu_levels[] = {
#if defined(__x86_64__)
    &cpu_kernels_avx512vnni, &cpu_kernels_avx512,    &cpu_kernels_avx2,
#elif defined(__aarch64__)
    &cpu_kernels_neon,
#endif
    &cpu_kernels_portable,   &cpu_kernels_reference,
};
const int n_cpu_levels = ARRAY_LEN(cpu_levels);
