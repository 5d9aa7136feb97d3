/*
 * matmul.cu: activations into limbs, the product of a batch with a weight matrix, and single logits by the same sums.
 * The arithmetic and the tile are limbs.cuh's.
 */
#include "limbs.cuh"

// ------------------------------------------------------------------------------------------------- pack_activations
/*
 * Kernel card: pack_activations
 *   q = round(x 2^k), |q| <= LIMB_MAX, the largest such k for each group; limbs of q; scale 2^-k; sum of q 2^-k
 *   x [n_rows, n_in] f32 -> limbs [3, n_rows_pad, k_pad] int8, scales [k_pad / group, n_rows_pad]; rows past n_rows:
 * zero grid (ceil(k_pad / 1024), n_rows_pad), block 256: a lane has 4 inputs, a group is 8 or 4 lanes bytes 4 n_rows
 * n_in read, 3.25 n_rows_pad k_pad written; bounded by memory; share of the bound: not measured not finite: the group's
 * scale is NaN, so every sum that it enters is NaN reference pack_row in tests/unit/test_backend_ops.c; test
 * pack_activations there
 */
template <int LANES> __device__ __forceinline__ void pack_group(const pack_params &p, int row, int k0) {
    float x[4];
    unsigned largest = 0; // as bits: NaN and infinity sort above all numbers
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[i] = row < p.n_rows && k0 + i < p.n_in ? p.x[(int64_t)row * p.n_in + k0 + i] : 0.0f;
        largest = max(largest, __float_as_uint(x[i]) & 0x7fffffffu);
    }
    largest = lanes_reduce<LANES>(largest, op_max());
    const int exponent = (int)(largest >> 23);
    const bool finite = exponent < 255;
    int k = min(22 + 127 - exponent, 126); // largest * 2^k lies in [2^22, 2^23), or is smaller still
    if (finite && __fmul_rn(__uint_as_float(largest), __int_as_float((127 + k) << 23)) > (float)LIMB_MAX) k--;
    const float up = finite ? __int_as_float((127 + k) << 23) : 0.0f;
    int sum = 0;
    uint32_t limbs[A_LIMBS] = {0, 0, 0}; // four bytes each
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int q = finite ? __float2int_rn(__fmul_rn(x[i], up)) : 0;
        const signed char lo = (signed char)q, mid = (signed char)((q - lo) / 256);
        limbs[0] |= (uint32_t)(((q - lo) / 256 - mid) / 256 & 255) << 8 * i;
        limbs[1] |= (uint32_t)(mid & 255) << 8 * i;
        limbs[2] |= (uint32_t)(lo & 255) << 8 * i;
        sum += q;
    }
    sum = lanes_reduce<LANES>(sum, op_add());
    if (k0 >= p.k_pad) return;
#pragma unroll
    for (int limb = 0; limb < A_LIMBS; limb++)
        *(uint32_t *)(p.limbs + ((int64_t)limb * p.n_rows_pad + row) * p.k_pad + k0) = limbs[limb];
    const float scale = finite ? __int_as_float((127 - k) << 23) : __int_as_float(0x7fffffff);
    if (threadIdx.x % LANES == 0)
        p.scales[(int64_t)(k0 / (4 * LANES)) * p.n_rows_pad + row] =
            make_float2(scale, __fmul_rn(__int2float_rn(sum), scale));
}

extern "C" __global__ void __launch_bounds__(FLAT_THREADS) pack_activations(const __grid_constant__ pack_params p) {
    const int k0 = (blockIdx.x * FLAT_THREADS + threadIdx.x) * 4;
    if (p.group == 32)
        pack_group<8>(p, blockIdx.y, k0);
    else
        pack_group<4>(p, blockIdx.y, k0);
}

// ----------------------------------------------------------------------------------------------------------- matmul
/*
 * Kernel card: matmul_{q32,q16,f32}_m{64,16}
 *   out[r][o] = cap(sum_k x[r][k] w[o][k] + bias[o]), groups of inputs folded in ascending order in f32
 *   x packed [n_rows_pad, k_pad], w packed [n_out_pad, k_pad] -> out [n_rows, n_out] f32
 *   grid (rows / BLOCK_M, n_out / 128), so that blocks that share weights run together; block 256: 2 x 4 warps of
 *   32 x 32 outputs, or 1 x 8 of 16 x 16; 3 stages (2 for float weights) of 64 inputs, GEMM_SHARED bytes
 *   2 n_rows n_out k operations; weights read rows / BLOCK_M times, mostly from L2
 *   bounded by folding (limbs.cuh) for many rows, by the weights' bytes for few; share of the bound: not measured
 *   a 4-bit format takes 8 bits here, with its scales 10: twice the file's bytes at few rows
 *   accumulators int32 within a group, f32 over groups; a row's bits depend on the row and the weights alone
 *   reference gemm of src/cpu/cpu_ops_ref.c; test matmul of tests/unit/test_backend_ops.c
 */
template <typename S> __device__ __forceinline__ void matmul(const matmul_params &p) {
    extern __shared__ __align__(16) uint8_t shared[];
    const int row0 = blockIdx.x * S::BLOCK_M, column0 = blockIdx.y * BLOCK_N;
    const tile_place<S> place;
    tile_sums<S> acc;
    multiply_tile<S>(acc, p.x, p.w, row0, column0, shared);
#pragma unroll
    for (int i = 0; i < S::M_TILES; i++)
#pragma unroll
        for (int j = 0; j < S::N_TILES; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int row = row0 + place.element_row(i, e), column = column0 + place.element_column(j, e);
                if (row < p.n_rows && column < p.n_out)
                    p.out[(int64_t)row * p.n_out + column] = finish_sum(acc[i][j][e], p.bias, column, p.softcap);
            }
}

#define MATMUL_KERNEL(name, w_limbs, group, block_m)                                                                   \
    extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 1) name(const __grid_constant__ matmul_params p) {      \
        matmul<tile_shape<w_limbs, group, block_m>>(p);                                                                \
    }
MATMUL_KERNEL(matmul_q32_m64, 1, 32, 64)
MATMUL_KERNEL(matmul_q16_m64, 1, 16, 64)
MATMUL_KERNEL(matmul_f32_m64, 3, 32, 64)
MATMUL_KERNEL(matmul_q32_m16, 1, 32, 16)
MATMUL_KERNEL(matmul_q16_m16, 1, 16, 16)
MATMUL_KERNEL(matmul_f32_m16, 3, 32, 16)

// ------------------------------------------------------------------------------------------------------ pair_logits
/*
 * Kernel card: pair_logits
 *   out[i] = the logit of row pairs[i].row for token pairs[i].id, bit for bit that of matmul and project_stats
 *   grid ceil(n_pairs / 8), block 256: a warp a pair; a lane makes the integer sums of every 32nd group, then all lanes
 *   fold the groups in order
 *   bytes about 4 k a pair; a few pairs a row, so bounded by latency; not measured
 *   reference and test: those of project_stats
 */
__device__ __forceinline__ int dot_bytes(const signed char *a, const signed char *w, int n) {
    int sum = 0;
    for (int i = 0; i < n; i += 4) sum = __dp4a(*(const int *)(a + i), *(const int *)(w + i), sum);
    return sum;
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 1) pair_logits(const __grid_constant__ pair_params p) {
    const int ipair = blockIdx.x * (GEMM_THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (ipair >= p.n_pairs) return; // whole warps
    const logit_pair pair = p.pairs[ipair];
    if (pair.id < 0) {
        if (lane == 0) p.out[ipair] = INFINITY;
        return;
    }
    const int64_t a_plane = (int64_t)p.x.n_rows_pad * p.x.k_pad, w_plane = (int64_t)p.w.n_rows_pad * p.w.k_pad;
    const signed char *a = p.x.limbs + (int64_t)pair.row * p.x.k_pad, *w = p.w.limbs + (int64_t)pair.id * p.w.k_pad;
    const int n_groups = p.x.k_pad / p.group, n = p.group;
    float acc = 0.0f;
    for (int first = 0; first < n_groups; first += WARP) {
        const int group = first + lane, k = group * n;
        int high = 0, low = 0;
        float2 sa = {0.0f, 0.0f}, sw = {0.0f, 0.0f};
        if (group < n_groups) {
            high = 256 * dot_bytes(a + k, w + k, n) + dot_bytes(a + a_plane + k, w + k, n);
            low = dot_bytes(a + 2 * a_plane + k, w + k, n);
            if (p.w_limbs == 3) {
                high += dot_bytes(a + k, w + w_plane + k, n);
                low += dot_bytes(a + a_plane + k, w + w_plane + k, n) + dot_bytes(a + k, w + 2 * w_plane + k, n);
            }
            sa = p.x.scales[(int64_t)group * p.x.n_rows_pad + pair.row];
            sw = p.w.scales[(int64_t)group * p.w.n_rows_pad + pair.id];
        }
        for (int i = 0; i < min(WARP, n_groups - first); i++) {
            const float2 ai = {__shfl_sync(FULL_WARP, sa.x, i), __shfl_sync(FULL_WARP, sa.y, i)};
            const float2 wi = {__shfl_sync(FULL_WARP, sw.x, i), __shfl_sync(FULL_WARP, sw.y, i)};
            acc = fold_group(acc, __shfl_sync(FULL_WARP, high, i), __shfl_sync(FULL_WARP, low, i), ai, wi);
        }
    }
    if (lane == 0) p.out[ipair] = finish_sum(acc, p.bias, pair.id, p.softcap);
}
