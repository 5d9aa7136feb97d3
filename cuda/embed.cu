/*
 * embed.cu: what moves rows and works element by element: embedding gather with dequantisation, gather, gated
 * activations. Each is bounded by memory, and small beside the products.
 */
#include "tile.cuh"

/*
 * Kernel card: embed
 *   out[r][i] = (scale q + add) * factor of row ids[r]; a quantised weight has the file's exact value
 *   w packed [n_vocab_pad, k_pad] of any packing -> out [n_rows, n_in]; grid n_rows, block 128
 *   bytes 0.75 to 3.25 read and 4 written an element; bounded by memory; not measured
 *   reference embed of src/cpu/cpu_backend.c; test embed of tests/unit/test_backend_ops.c
 *   counted for each element (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   embed                         2.24    0.00    0.06    1.51    0.05    0.11    0.50   1.93 (1.93)             -
 */
__device__ __forceinline__ float weight_at(const embed_params &p, int id, int i) {
    const int stage = i / BLOCK_K, k = i % BLOCK_K;
    if (p.packing == PACK_FLOAT && p.bf16)
        return __uint_as_float((unsigned)((const unsigned short *)b16::at(p.w, 0, id, stage))[BF16_PLACE(k)] << 16);
    const float2 scale = ((const float2 *)p.w.scales)[(int64_t)(i / p.group) * p.w.n_rows_pad + id];
    if (p.packing == PACK_FLOAT) {
        int q = 0;
#pragma unroll
        for (int limb = 0; limb < F32_PLANES; limb++) q = q * 256 + (signed char)f32::at(p.w, limb, id, stage)[k];
        return __fmul_rn(scale.x * (1.0f / 65536.0f), (float)q);
    }
    // The product is exact: a quant has at most 8 bits and a scale at most 18.
    const int q = p.packing == PACK_N32 ? n32::at(p.w, 0, id, stage)[k / 32 * 16 + k % 16] >> k / 16 % 2 * 4 & 15
                                        : (signed char)q32::at(p.w, 0, id, stage)[k];
    return __fmaf_rn(scale.x, (float)q, scale.y);
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS) embed(const __grid_constant__ embed_params p) {
    const int id = p.ids[blockIdx.x];
    for (int i = threadIdx.x; i < p.n_in; i += ROW_THREADS)
        p.out[(int64_t)blockIdx.x * p.n_in + i] = __fmul_rn(weight_at(p, id, i), p.scale);
}

/*
 * Kernel cards: gather (x[i] = y[rows[i]]), glu (x = act(x) y)
 *   f32, element by element; grid ceil(n / 256), block 256; bytes 8 to 12 an element; not measured
 *   reference cpu_ops_ref.c; tests gather, glu of tests/unit/test_backend_ops.c
 *   counted for each thread (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   gather                        1.00    0.00    0.00    0.47    0.03    0.09    0.41   3.00 (3.00)             -
 *   glu                           1.61    0.00    0.43    0.31    0.09    0.09    0.68   4.00 (4.00)             -
 */
extern "C" __global__ void __launch_bounds__(FLAT_THREADS) gather(const __grid_constant__ flat_params p) {
    const int i = blockIdx.x * FLAT_THREADS + threadIdx.x;
    if (i < p.n) p.x[i] = p.y[(int64_t)p.rows[i / p.n_features] * p.n_features + i % p.n_features];
}

extern "C" __global__ void __launch_bounds__(FLAT_THREADS) glu(const __grid_constant__ flat_params p) {
    const int i = blockIdx.x * FLAT_THREADS + threadIdx.x;
    if (i >= p.n) return;
    const float x = p.x[i];
    // GELU's 0.5 x (1 + tanh u) is x / (1 + exp(-2 u)), which does not cancel.
    const float u = p.act == 0 ? x : 2.0f * 0.797884560802865f * (x + 0.044715f * x * x * x);
    const float y = x / (1.0f + expf(-u));
    p.x[i] = p.y ? y * p.y[i] : y;
}
