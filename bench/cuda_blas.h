/*
 * cuda_blas.h: the usual way to the same results, for comparison: cuBLAS writes all logits to memory, and statistics
 * read them. cuBLAS is looked for at run time; without it that is said.
 */
#ifndef CUDA_BLAS_H
#define CUDA_BLAS_H

#include "bench.h"
#include "cuda_events.h"
#include "cuda_shapes.h"

/// A row for each precision and shape of cuda_shapes, at the bench's number of tokens.
logitd_status cuda_blas_compare(bench *b, cuda_backend *cuda, const cuda_events *events, logitd_error *err);

#endif
