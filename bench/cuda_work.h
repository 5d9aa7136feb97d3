/*
 * cuda_work.h: what a launch of the CUDA backend has to do, from its own arguments: the arithmetic of its result, the
 * bytes that it must move, and how many units of work it is cut into. Instructions that the emulated device counted for
 * a unit (cuda_mix.def) then tell what a launch of any size issues.
 */
#ifndef CUDA_WORK_H
#define CUDA_WORK_H

#include "cuda/cuda_impl.h"

/// How an operand is packed (cuda/params.h).
typedef struct cuda_format {
    int planes, bits, scale_bytes, group; // planes; bits of an element; bytes of a scale, which a group shares
} cuda_format;

/// Of weights of a packing (PACK_…) in a precision.
cuda_format cuda_weight_format(bool bf16, int packing);

typedef enum cuda_arithmetic { ARITHMETIC_F32, ARITHMETIC_BF16, ARITHMETIC_INT8 } cuda_arithmetic;

typedef struct cuda_work {
    char label[32];   // the launch's size: "512 x 576 x 1536"
    double ops;       // multiplies and adds of the result; 0: it only moves
    double passes;    // how often they are done to get it: products of limbs
    double bytes;     // operands and results, each once
    double depth;     // inputs of a product
    double units;     // of work, as the kernel's row of cuda_work.c says
    const char *unit; // "mma"
    cuda_arithmetic arithmetic;
} cuda_work;

/// A batch of one sequence: n_tokens positions from n_past on.
typedef struct cuda_span {
    int n_tokens, n_past;
} cuda_span;

/// False: the kernel is not known here.
bool cuda_work_of(const cuda_launch_info *launch, const cuda_span *span, cuda_work *out);

/// float4 of n_bytes that peak_read reads in whole rounds of a grid of n_blocks.
long long cuda_whole_reads(size_t n_bytes, int n_blocks);

/// Counts of one unit of a kernel's work, in the order of tests/cuda_emu/counts.def; NULL: not counted yet.
const double *cuda_mix_of(const char *kernel);

/// Indices into counts.
typedef enum cuda_count {
#define COUNT(name) COUNT_##name,
#include "tests/cuda_emu/counts.def"
#undef COUNT
    N_CUDA_COUNTS
} cuda_count;
extern const char *const cuda_count_names[N_CUDA_COUNTS];

#endif
