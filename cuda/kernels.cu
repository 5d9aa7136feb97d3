/*
 * kernels.cu: all kernels as one unit of translation, so that one PTX text and one cubin an architecture hold them all.
 */
#include "attention.cu"
#include "embed.cu"
#include "matmul.cu"
#include "norm_rope.cu"
#include "peaks.cu"
#include "project_stats.cu"
