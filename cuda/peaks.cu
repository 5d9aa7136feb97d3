/*
 * peaks.cu: what the device can do at most, for the benches: each kernel does one kind of work and nothing else, with
 * enough of it under way in a thread to hide its latency. bench/cuda_device.c runs and times them.
 */
#include "common.cuh"

/*
 * Kernel card: peak_f32
 *   PEAK_CHAINS chains of fused multiply-adds a thread, x = x a + b, `rounds` long; grid: enough blocks to fill the
 *   device, block 256; operations 2 rounds PEAK_CHAINS threads; bounded by the f32 units, which is its purpose
 *   result [threads] f32, so that nothing can be left out; test test_cuda_bench.py
 *   counted for each thread (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   peak_f32                      3.84    0.00    2.00    0.81    0.50    0.03    0.50   4.00 (4.00)             -
 */
extern "C" __global__ void __launch_bounds__(FLAT_THREADS) peak_f32(const __grid_constant__ peak_params p) {
    float x[PEAK_CHAINS];
#pragma unroll
    for (int i = 0; i < PEAK_CHAINS; i++) x[i] = (float)(threadIdx.x + i);
#pragma unroll 1
    for (int round = 0; round < p.rounds; round++)
#pragma unroll
        for (int i = 0; i < PEAK_CHAINS; i++) x[i] = __fmaf_rn(x[i], p.a, p.b);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PEAK_CHAINS; i++) sum = __fadd_rn(sum, x[i]);
    p.out[blockIdx.x * FLAT_THREADS + threadIdx.x] = sum;
}

/*
 * Kernel cards: peak_bf16, peak_int8
 *   PEAK_TILES chains of mma.sync a warp (m16n8k16 bf16 with f32 sums, m16n8k32 int8 with int32 sums), `rounds` long;
 *   grid and result as peak_f32's; operations 2 rounds PEAK_TILES warps 16 8 (16 or 32)
 *   bounded by what mma.sync gets of the tensor cores: on devices of 9.0 and 10.0 less than wgmma and tcgen05 get
 *   counted for each thread (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   peak_bf16                     3.66    0.75    1.00    0.44    0.00    0.03    1.44   4.00 (4.00)             -
 *   peak_int8                     3.66    0.75    0.00    1.34    0.03    0.03    1.50   4.00 (4.00)             -
 */
template <typename T, typename Mma>
__device__ __forceinline__ void peak_mma(const peak_params &p, uint32_t word, Mma mma) {
    T d[PEAK_TILES][4] = {}, sum = 0;
    const uint32_t a[4] = {word, word, word, word}, b[2] = {word, word};
#pragma unroll 1
    for (int round = 0; round < p.rounds; round++)
#pragma unroll
        for (int i = 0; i < PEAK_TILES; i++) mma(d[i], a, b);
#pragma unroll
    for (int i = 0; i < PEAK_TILES; i++) sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
    p.out[blockIdx.x * FLAT_THREADS + threadIdx.x] = (float)sum;
}

extern "C" __global__ void __launch_bounds__(FLAT_THREADS) peak_bf16(const __grid_constant__ peak_params p) {
    peak_mma<float>(p, 0x3f803f80u + threadIdx.x % 2, [](auto &...x) { mma_bf16(x...); });
}

extern "C" __global__ void __launch_bounds__(FLAT_THREADS) peak_int8(const __grid_constant__ peak_params p) {
    peak_mma<int>(p, 0x01010101u, [](auto &...x) { mma_s8(x...); });
}

/*
 * Kernel card: peak_read
 *   each thread adds up every (threads of the grid)th of n float4; bytes 16 n; bounded by memory, which is its purpose
 *   grid and result as peak_f32's; PEAK_LOADS loads of 16 bytes a thread under way, so n is a multiple of so many
 *   threads
 *   counted for each thread (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   peak_read                     2.75    0.00    1.00    1.00    0.00    0.28    0.47   14.7 (14.7)             -
 */
extern "C" __global__ void __launch_bounds__(FLAT_THREADS) peak_read(const __grid_constant__ peak_params p) {
    const int64_t step = (int64_t)gridDim.x * FLAT_THREADS;
    float sum = 0.0f;
#pragma unroll 1
    for (int64_t i = (int64_t)blockIdx.x * FLAT_THREADS + threadIdx.x; i < p.n; i += PEAK_LOADS * step) {
        float4 x[PEAK_LOADS];
#pragma unroll
        for (int k = 0; k < PEAK_LOADS; k++) x[k] = p.memory[i + k * step];
#pragma unroll
        for (int k = 0; k < PEAK_LOADS; k++) sum += x[k].x + x[k].y + x[k].z + x[k].w;
    }
    p.out[blockIdx.x * FLAT_THREADS + threadIdx.x] = sum;
}
