/*
 * cuda_static.h: what can be said of the CUDA kernels without a device: resources and occupancy of each on each
 * architecture, and for the launches of real model shapes the roofline bound and a prediction; `logitd-bench
 * --cuda-static`.
 */
#ifndef CUDA_STATIC_H
#define CUDA_STATIC_H

#include <stdbool.h>
#include <stdio.h>

/// False: this build has no kernels, or there is no memory; said in `out`.
bool cuda_static_print(FILE *out);

#endif
