/*
 * norm_rope.cu: RMS and layer norm of groups of features, and the rotary embedding with its table.
 */
#include "common.cuh"

/*
 * Kernel card: norm_groups
 *   (g - mean) / sqrt(var + eps) w + bias, or g / sqrt(mean g^2 + eps) w (Zhang and Sennrich, arXiv 1910.07467)
 *   x [n_rows, n_groups n] f32 -> out alike; out may be x: a thread reads only elements that it writes itself
 *   grid (n_rows, n_groups), block 128; sums in double by a fixed tree
 *   bytes 12 n a group (x twice, from cache), bounded by memory; not measured
 *   reference norm of src/cpu/cpu_ops_ref.c; test norm of tests/unit/test_backend_ops.c
 */
extern "C" __global__ void __launch_bounds__(ROW_THREADS) norm_groups(const __grid_constant__ norm_params p) {
    __shared__ double scratch[ROW_THREADS / WARP];
    const int64_t at = ((int64_t)blockIdx.x * p.n_groups + blockIdx.y) * p.n;
    double mean = 0.0, variance = 0.0;
    if (p.bias) {
#pragma unroll 2
        for (int i = threadIdx.x; i < p.n; i += ROW_THREADS) mean += (double)p.x[at + i];
        mean = block_reduce<ROW_THREADS / WARP>(mean, scratch, op_add()) / p.n;
    }
#pragma unroll 2
    for (int i = threadIdx.x; i < p.n; i += ROW_THREADS) {
        const double d = (double)p.x[at + i] - mean;
        variance += d * d;
    }
    variance = block_reduce<ROW_THREADS / WARP>(variance, scratch, op_add()) / p.n;
    const double scale = 1.0 / sqrt(variance + (double)p.eps);
#pragma unroll 2
    for (int i = threadIdx.x; i < p.n; i += ROW_THREADS) {
        const double y = ((double)p.x[at + i] - mean) * scale * (double)p.w[i];
        p.out[at + i] = (float)(p.bias ? y + (double)p.bias[i] : y);
    }
}

/*
 * Kernel card: rope_table
 *   cos and sin of position inv_freq[i], times the magnitude, in double (float32 angles put others off by 1e-3)
 *   positions [n_rows] -> table [n_rows, n_rot]; grid ceil(n_rows n_rot / 2 / 256), block 256; once a batch
 *   not measured; the angle is divided by pi first: sincospi has no slow path for large ones
 *   reference rope_table_tile of src/cpu/cpu_backend.c; tests attention, rope_table of tests/unit/test_backend_ops.c
 */
extern "C" __global__ void __launch_bounds__(FLAT_THREADS) rope_table(const __grid_constant__ rope_table_params p) {
    const int i = blockIdx.x * FLAT_THREADS + threadIdx.x, half = p.n_rot / 2;
    if (i >= p.n_rows * half) return;
    const double one_over_pi = 0.31830988618379067154;
    double s, c;
    sincospi((double)p.positions[i / half] * p.inv_freq[i % half] * one_over_pi, &s, &c);
    p.table[2 * i] = (float)(c * p.magnitude);
    p.table[2 * i + 1] = (float)(s * p.magnitude);
}

/*
 * Kernel card: rope
 *   turns each pair of a head, (i, i + n_rot / 2) or (2 i, 2 i + 1), by its row's angle (Su et al., arXiv 2104.09864)
 *   x [n_rows, n_head head_dim] in place; grid ceil(pairs / 256), block 256; a thread has a pair
 *   bytes 16 a pair and the table; bounded by memory; not measured
 *   reference rope of src/cpu/cpu_ops_ref.c; test attention of tests/unit/test_backend_ops.c
 */
extern "C" __global__ void __launch_bounds__(FLAT_THREADS) rope(const __grid_constant__ rope_apply_params p) {
    const int i = blockIdx.x * FLAT_THREADS + threadIdx.x, half = p.n_rot / 2, pair = i % half, head = i / half;
    if (head >= p.n_rows * p.n_head) return;
    const float *turn = p.table + (int64_t)(head / p.n_head) * p.n_rot + 2 * pair;
    float *x = p.x + (int64_t)head * p.head_dim + (p.neox ? pair : 2 * pair), *y = x + (p.neox ? half : 1);
    const float c = turn[0], s = turn[1], x0 = *x, x1 = *y;
    *x = __fmaf_rn(x0, c, -__fmul_rn(x1, s));
    *y = __fmaf_rn(x0, s, __fmul_rn(x1, c));
}
