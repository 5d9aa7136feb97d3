/*
 * cuda_gpus.h: what GPUs are published to do, the machine code's needs as the build recorded them, and how many blocks
 * of a kernel fit a multiprocessor. No device is needed.
 */
#ifndef CUDA_GPUS_H
#define CUDA_GPUS_H

#include <stdbool.h>

/// Peaks are those of the data sheets named in cuda_gpus.c: dense, at boost clock. Rates of a multiprocessor are
/// results a clock.
typedef struct cuda_gpu {
    const char *name;
    int capability, n_sm;
    double ghz;                            // boost clock
    double f32_tflops;                     // multiply-adds count two
    double bf16_tflops, int8_tops;         // tensor cores by the best instruction that the device has
    double mma_share;                      // of these, what mma.sync reaches
    double gbps;                           // memory
    double l2_mb;                          // L2
    int f64_lanes, convert_lanes;          // f64 multiply-adds; conversions between integers and f32
    int shared_kb, shared_block_kb;        // of a multiprocessor; most of a block
    int max_threads, max_blocks, n_regs_k; // of a multiprocessor; registers in 1,024
} cuda_gpu;

extern const cuda_gpu cuda_gpus[];
extern const int n_cuda_gpus;

/// Registers of a thread and static shared memory of a block, as the assembler reported when the cubin was made.
typedef struct cuda_resource {
    int capability;
    const char *kernel;
    int registers, static_shared_bytes;
} cuda_resource;

extern const cuda_resource cuda_resources[];
extern const int n_cuda_resources;
const cuda_resource *cuda_resource_find(int capability, const char *kernel); // or NULL

typedef struct cuda_occupancy {
    int blocks;        // of a multiprocessor; 0: the kernel does not fit
    const char *limit; // what keeps more away: "registers", "shared memory", "threads", "blocks"
} cuda_occupancy;

/// By the toolkit's own cuda_occupancy.h (cuda_occupancy.cc). False: the build did not find it.
bool cuda_occupancy_of(const cuda_gpu *gpu, const cuda_resource *resource, int threads, int dynamic_shared_bytes,
                       cuda_occupancy *out);

#endif
