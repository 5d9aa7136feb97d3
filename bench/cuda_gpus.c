/*
 * cuda_gpus.c: see cuda_gpus.h.
 *
 * Sources of the peaks: NVIDIA's data sheets A100 80GB SXM (2021), H100 SXM5 (2023), HGX B200 (2024), and the Ada GPU
 * architecture white papers of GA102, AD102 and GB202 for the RTX 3090, 4090 and 5090 (tensor rates with f32 sums). L2,
 * shared memory, threads and blocks: the tuning guides and "Compute Capabilities" of the CUDA C++ Programming Guide;
 * rates of f64 and of conversions: its table of arithmetic throughput (16 conversions a clock, taken for every device).
 * The L2 and clock of the B200 are as others report them.
 *
 * mma_share. mma.sync reaches the whole rate on 8.x. On 9.0 only wgmma does; 63 % is assumed for mma.sync, as Luo et
 * al. (arXiv 2402.13499 and 2501.12084) are remembered to have measured: the papers were found again, the figure was
 * not. On 10.0 only tcgen05 does, and no figure for mma.sync was found: it is assumed to have Hopper's rate for each
 * multiprocessor and clock, which is 31 % of the B200's peak.
 */
#include "cuda_gpus.h"
#include "util.h"
#include <string.h>

const cuda_gpu cuda_gpus[] = {
    {.name = "A100",
     .capability = 80,
     .n_sm = 108,
     .ghz = 1.41,
     .f32_tflops = 19.5,
     .bf16_tflops = 312,
     .int8_tops = 624,
     .mma_share = 1.0,
     .gbps = 2039,
     .l2_mb = 40,
     .f64_lanes = 32,
     .convert_lanes = 16,
     .shared_kb = 164,
     .shared_block_kb = 163,
     .max_threads = 2048,
     .max_blocks = 32,
     .n_regs_k = 64},
    {.name = "H100",
     .capability = 90,
     .n_sm = 132,
     .ghz = 1.83,
     .f32_tflops = 66.9,
     .bf16_tflops = 989,
     .int8_tops = 1979,
     .mma_share = 0.63,
     .gbps = 3350,
     .l2_mb = 50,
     .f64_lanes = 64,
     .convert_lanes = 16,
     .shared_kb = 228,
     .shared_block_kb = 227,
     .max_threads = 2048,
     .max_blocks = 32,
     .n_regs_k = 64},
    {.name = "RTX 4090",
     .capability = 89,
     .n_sm = 128,
     .ghz = 2.52,
     .f32_tflops = 82.6,
     .bf16_tflops = 165.2,
     .int8_tops = 660.6,
     .mma_share = 1.0,
     .gbps = 1008,
     .l2_mb = 72,
     .f64_lanes = 2,
     .convert_lanes = 16,
     .shared_kb = 100,
     .shared_block_kb = 99,
     .max_threads = 1536,
     .max_blocks = 24,
     .n_regs_k = 64},
    {.name = "B200",
     .capability = 100,
     .n_sm = 148,
     .ghz = 1.85,
     .f32_tflops = 75,
     .bf16_tflops = 2250,
     .int8_tops = 4500,
     .mma_share = 0.31,
     .gbps = 8000,
     .l2_mb = 126,
     .f64_lanes = 64,
     .convert_lanes = 16,
     .shared_kb = 228,
     .shared_block_kb = 227,
     .max_threads = 2048,
     .max_blocks = 32,
     .n_regs_k = 64},
    {.name = "RTX 3090",
     .capability = 86,
     .n_sm = 82,
     .ghz = 1.695,
     .f32_tflops = 35.6,
     .bf16_tflops = 71,
     .int8_tops = 284,
     .mma_share = 1.0,
     .gbps = 936,
     .l2_mb = 6,
     .f64_lanes = 2,
     .convert_lanes = 16,
     .shared_kb = 100,
     .shared_block_kb = 99,
     .max_threads = 1536,
     .max_blocks = 16,
     .n_regs_k = 64},
    {.name = "RTX 5090",
     .capability = 120,
     .n_sm = 170,
     .ghz = 2.41,
     .f32_tflops = 104.8,
     .bf16_tflops = 209.5,
     .int8_tops = 838,
     .mma_share = 1.0,
     .gbps = 1792,
     .l2_mb = 96,
     .f64_lanes = 2,
     .convert_lanes = 16,
     .shared_kb = 100,
     .shared_block_kb = 99,
     .max_threads = 1536,
     .max_blocks = 24,
     .n_regs_k = 64},
};
const int n_cuda_gpus = ARRAY_LEN(cuda_gpus);

const cuda_resource cuda_resources[] = {
#define RESOURCE(capability, kernel, registers, shared) {capability, #kernel, registers, shared},
#include "cuda_resources.def"
#undef RESOURCE
    {0, NULL, 0, 0}, // an empty table is no C
};
const int n_cuda_resources = (int)ARRAY_LEN(cuda_resources) - 1;

const cuda_resource *cuda_resource_find(int capability, const char *kernel) {
    for (int i = 0; i < n_cuda_resources; i++)
        if (cuda_resources[i].capability == capability && strcmp(cuda_resources[i].kernel, kernel) == 0)
            return &cuda_resources[i];
    return NULL;
}
