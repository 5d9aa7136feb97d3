/*
 * norm_rope.cu: RMS and layer norm of groups of features, the residual addition with its norms, and the rotary
 * embedding: its table, and its use on the way of keys and values to their cache.
 */
#include "common.cuh"

/// A group's norm: (x - mean) scale w + bias, or x scale w (Zhang and Sennrich, arXiv 1910.07467).
struct group_norm {
    double mean, scale;

    __device__ __forceinline__ float of(float x, float w, const float *bias, int i) const {
        const double y = ((double)x - mean) * scale * (double)w;
        return (float)(bias ? y + (double)bias[i] : y);
    }
};

/// Measures n features, by a whole block; a thread reads every ROW_THREADS-th. Sums in double by a fixed tree.
__device__ __forceinline__ group_norm measure(const float *x, int n, bool centred, float eps, double *scratch) {
    double mean = 0.0, variance = 0.0;
    if (centred) {
#pragma unroll 2
        for (int i = threadIdx.x; i < n; i += ROW_THREADS) mean += (double)x[i];
        mean = block_reduce<ROW_THREADS / WARP>(mean, scratch, op_add()) / n;
    }
#pragma unroll 2
    for (int i = threadIdx.x; i < n; i += ROW_THREADS) {
        const double d = (double)x[i] - mean;
        variance += d * d;
    }
    variance = block_reduce<ROW_THREADS / WARP>(variance, scratch, op_add()) / n;
    return {mean, 1.0 / sqrt(variance + (double)eps)};
}

/*
 * Kernel card: norm_groups
 *   (g - mean) / sqrt(var + eps) w + bias, or g / sqrt(mean g^2 + eps) w
 *   x [n_rows, n_groups n] f32 -> out alike; out may be x: a thread reads only elements that it writes itself
 *   grid (n_rows, n_groups), block 128; sums in double by a fixed tree
 *   bytes 12 n a group (x twice, from cache), bounded by memory; not measured
 *   reference norm of src/cpu/cpu_ops_ref.c; test norm of tests/unit/test_backend_ops.c
 *   counted for each element (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   norm_groups                   2.87    0.00    0.33    0.90    0.22    0.22    1.20   4.00 (4.00)   1.80 (1.80)
 */
extern "C" __global__ void __launch_bounds__(ROW_THREADS) norm_groups(const __grid_constant__ norm_params p) {
    __shared__ double scratch[ROW_THREADS / WARP];
    const int64_t at = ((int64_t)blockIdx.x * p.n_groups + blockIdx.y) * p.n;
    const group_norm norm = measure(p.x + at, p.n, p.bias, p.eps, scratch);
#pragma unroll 2
    for (int i = threadIdx.x; i < p.n; i += ROW_THREADS) p.out[at + i] = norm.of(p.x[at + i], p.w[i], p.bias, i);
}

/*
 * Kernel card: add_norm
 *   x += y, or x += norm(y) of weight y_norm; then out = norm(x), where there is a w
 *   x, y, out [n_rows, n] f32; grid n_rows, block 128; sums in double by a fixed tree; the bits of norm_groups and a
 *   plain addition, so y's norm is rounded to f32 first. No barrier but those of the sums: a thread reads only elements
 *   of x that it wrote itself
 *   bytes 16 n a row (12 n without a w; x again from cache, and y with a y_norm), where add and norm_groups move 20 n;
 *   bounded by memory, at few rows by the launch; not measured
 *   reference add_norm of src/cpu/cpu_backend.c over cpu_ops_ref.c; test add_norm of tests/unit/test_backend_ops.c
 *   counted for each element (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   add_norm                      2.73    0.00    0.24    1.11    0.15    0.23    1.01   4.00 (4.00)   1.80 (1.80)
 */
extern "C" __global__ void __launch_bounds__(ROW_THREADS) add_norm(const __grid_constant__ add_norm_params p) {
    __shared__ double scratch[ROW_THREADS / WARP];
    const int64_t at = (int64_t)blockIdx.x * p.n;
    float *x = p.x + at;
    const float *y = p.y + at;
    group_norm norm = {};
    if (p.y_norm) norm = measure(y, p.n, false, p.eps, scratch);
    for (int i = threadIdx.x; i < p.n; i += ROW_THREADS)
        x[i] = __fadd_rn(x[i], p.y_norm ? norm.of(y[i], p.y_norm[i], nullptr, i) : y[i]);
    if (!p.w) return;
    norm = measure(x, p.n, p.bias, p.eps, scratch);
    for (int i = threadIdx.x; i < p.n; i += ROW_THREADS) p.out[at + i] = norm.of(x[i], p.w[i], p.bias, i);
}

/*
 * Kernel card: rope_table
 *   cos and sin of position inv_freq[i], times the magnitude, in double (float32 angles put others off by 1e-3)
 *   positions [n_rows] -> table [n_rows, n_rot]; grid ceil(n_rows n_rot / 2 / 256), block 256; once a batch
 *   not measured; the angle is divided by pi first: sincospi has no slow path for large ones
 *   reference rope_table_tile of src/cpu/cpu_backend.c; tests attention, rope_table of tests/unit/test_backend_ops.c
 *   counted for each thread (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   rope_table                    3.31    0.00    0.74    0.88    0.21    0.12    1.37   6.25 (4.25)             -
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
 * Kernel card: rope_kv_write
 *   turns each pair of a head of q and k, (i, i + n_rot / 2) or (2 i, 2 i + 1), by its row's angle (Su et al., arXiv
 *   2104.09864): q in place, k on its way to cache[places[row]], where v goes as it is
 *   q [n_rows, n_head head_dim], k and v [n_rows, n_head_kv head_dim], the caches' rows alike; f32
 *   grid (n_rows, ceil(pairs of a row / 128)), block 128; a thread has a pair of a head: of q, then k, then v. Features
 *   past n_rot are pairs of neighbours, which do not turn; the last of an odd number is alone
 *   bytes 8 a feature of k, of v, and of q that turns, and the table; bounded by memory, at few rows by the launch;
 *   not measured
 *   reference cpu_rope_kv_write of src/cpu/cpu_attention.c over cpu_ops_ref.c; test attention of
 *   tests/unit/test_backend_ops.c
 *   counted for each thread (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   rope_kv_write                 3.15    0.00    0.11    1.78    0.03    0.19    1.04   5.81 (3.71)             -
 */
extern "C" __global__ void __launch_bounds__(ROW_THREADS) rope_kv_write(const __grid_constant__ rope_kv_params p) {
    const int i = blockIdx.y * ROW_THREADS + threadIdx.x, pairs = (p.head_dim + 1) / 2, half = p.n_rot / 2;
    const int head = i / pairs, pair = i % pairs;
    const int key = head - p.n_head, value = key - p.n_head_kv; // heads of k and of v, from 0 on
    const int64_t row = blockIdx.x;
    const bool turns = pair < half && value < 0;
    if (value >= p.n_head_kv || (key < 0 && !turns)) return; // past the row, or of q and stays
    const float *from = p.q + (row * p.n_head + head) * p.head_dim;
    float *to = p.q + (row * p.n_head + head) * p.head_dim;
    if (key >= 0) {
        const int head_kv = value < 0 ? key : value;
        from = (value < 0 ? p.k : p.v) + (row * p.n_head_kv + head_kv) * p.head_dim;
        to = (value < 0 ? p.k_cache : p.v_cache) + ((int64_t)p.places[row] * p.n_head_kv + head_kv) * p.head_dim;
    }
    const bool apart = p.neox && pair < half;
    const int first = apart ? pair : 2 * pair, second = apart ? pair + half : 2 * pair + 1;
    if (turns) {
        const float *turn = p.table + row * p.n_rot + 2 * pair;
        const float c = turn[0], s = turn[1], x0 = from[first], x1 = from[second];
        to[first] = __fmaf_rn(x0, c, -__fmul_rn(x1, s));
        to[second] = __fmaf_rn(x0, s, __fmul_rn(x1, c));
    } else {
        to[first] = from[first];
        if (second < p.head_dim) to[second] = from[second];
    }
}
