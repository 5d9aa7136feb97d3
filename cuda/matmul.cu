/*
 * matmul.cu: activations packed for the products, the product of a batch with a weight matrix, and single logits by the
 * same sums. The tile is tile.cuh's; the arithmetic of `exact` is limbs.cuh's, that of `bf16` bf16.cuh's.
 */
#include "bf16.cuh"
#include "limbs.cuh"

// --------------------------------------------------------------------------------------------------- pack_{limbs,bf16}
/*
 * Kernel cards: pack_limbs, pack_bf16 (x [n_rows, n_in] f32 -> an operand of params.h; rows past n_rows: zero)
 *   limbs: q = round(x 2^k), |q| <= LIMB_MAX, the largest such k for each group; limbs of q; scale 2^-k; sum q 2^-k
 *   bf16: x to the nearest bf16; sum of a group's rounded values, in f32 by a fixed tree
 *   grid (ceil(k_pad / 1024), n_rows_pad), block 256: a lane has 4 inputs, a group is 8 or 4 lanes
 *   bytes 4 n_rows n_in read, 3.25 or 2.13 n_rows_pad k_pad written; bounded by memory; share of it: not measured
 *   not finite: the group's scale is NaN (limbs), or the value stays what it is (bf16): no sum that it enters is finite
 *   reference pack_group of src/cuda/cuda_weight.c (limbs)
 *   tests quantised_matmul, quantised_poison of tests/unit/test_backend_ops.c
 *   counted for each thread (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   pack_limbs                    5.50    0.00    0.23    3.27    0.13    0.03    1.84   5.30 (4.51)             -
 *   pack_bf16                     2.23    0.00    0.22    0.70    0.07    0.03    1.22   7.89 (4.65)             -
 */
__device__ __forceinline__ void load_inputs(float (&x)[4], const pack_params &p, int row, int k0) {
    const float *from = p.x + (int64_t)row * p.n_in + k0;
    if (p.n_in % 4 == 0) { // any real model: a row begins at 16 bytes
        const bool inside = row < p.n_rows && k0 < p.n_in;
        const float4 v = inside ? *(const float4 *)from : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = row < p.n_rows && k0 + i < p.n_in ? from[i] : 0.0f;
}

template <int LANES>
__device__ __forceinline__ void pack_limbs_group(const pack_params &p, const float (&x)[4], int row, int k0) {
    unsigned largest = 0; // as bits: NaN and infinity sort above all numbers
#pragma unroll
    for (int i = 0; i < 4; i++) largest = max(largest, __float_as_uint(x[i]) & 0x7fffffffu);
    largest = lanes_reduce<LANES>(largest, op_max());
    const int exponent = (int)(largest >> 23);
    const bool finite = exponent < 255;
    int k = min(22 + 127 - exponent, 126); // largest * 2^k lies in [2^22, 2^23), or is smaller still
    if (finite && __fmul_rn(__uint_as_float(largest), __int_as_float((127 + k) << 23)) > (float)LIMB_MAX) k--;
    const float up = finite ? __int_as_float((127 + k) << 23) : 0.0f;
    int sum = 0;
    uint32_t limbs[LIMBS_PLANES] = {}; // four bytes each
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
    for (int limb = 0; limb < LIMBS_PLANES; limb++)
        *(uint32_t *)(p.elements + ((int64_t)limb * p.n_rows_pad + row) * p.k_pad + k0) = limbs[limb];
    const float scale = finite ? __int_as_float((127 - k) << 23) : __int_as_float(0x7fffffff);
    if (threadIdx.x % LANES == 0)
        ((float2 *)p.scales)[(int64_t)(k0 / (4 * LANES)) * p.n_rows_pad + row] =
            make_float2(scale, __fmul_rn(__int2float_rn(sum), scale));
}

extern "C" __global__ void __launch_bounds__(FLAT_THREADS) pack_limbs(const __grid_constant__ pack_params p) {
    const int k0 = (blockIdx.x * FLAT_THREADS + threadIdx.x) * 4, row = blockIdx.y;
    float x[4];
    load_inputs(x, p, row, k0);
    if (p.group == 32)
        pack_limbs_group<8>(p, x, row, k0);
    else
        pack_limbs_group<4>(p, x, row, k0);
}

extern "C" __global__ void __launch_bounds__(FLAT_THREADS) pack_bf16(const __grid_constant__ pack_params p) {
    const int k0 = (blockIdx.x * FLAT_THREADS + threadIdx.x) * 4, row = blockIdx.y;
    float x[4];
    load_inputs(x, p, row, k0);
    const uint32_t low = to_bf16x2(x[0], x[1]), high = to_bf16x2(x[2], x[3]);
    float sum = (__uint_as_float(low << 16) + __uint_as_float(low & 0xffff0000u)) +
                (__uint_as_float(high << 16) + __uint_as_float(high & 0xffff0000u));
    sum = lanes_reduce<4>(sum, op_add());
    const float next = __shfl_xor_sync(FULL_WARP, sum, 4); // the other half of a group of 32
    if (p.group == 32) sum += next;
    if (k0 >= p.k_pad) return;
    uint32_t *words = (uint32_t *)p.elements + ((int64_t)row * p.k_pad + BF16_PLACE(k0)) / 2;
    words[0] = low;
    words[4] = high; // BF16_PLACE(k0 + 2) is 8 further
    if (k0 % p.group == 0) ((float *)p.scales)[(int64_t)(k0 / p.group) * p.n_rows_pad + row] = sum;
}

// ----------------------------------------------------------------------------------------------------------- matmul
/*
 * Kernel card: matmul_{n32,q32,q16,f32}_m{64,16} (`exact`), matmul_bf16_{n32,q32,q16,b16}_m{64,16} (`bf16`)
 *   out[r][o] = cap(sum_k x[r][k] w[o][k] + bias[o]), groups of inputs folded in ascending order in f32
 *   x packed [n_rows_pad, k_pad], w packed [n_out_pad, k_pad] -> out [n_rows, n_out] f32
 *   grid (rows / BLOCK_M, n_out / 128), so that blocks that share weights run together; block 256: 2 x 4 warps of
 *   32 x 32 outputs, or 1 x 8 of 16 x 16; GEMM_SHARED bytes: 3 stages of 64 inputs, 4 for few rows, 2 for F32
 *   the tile of sums goes through shared memory, so that outputs are written in whole rows of 512 bytes
 *   2 n_rows n_out k operations; weights are read rows / BLOCK_M times, mostly from L2, in pieces of 4 to 16 KiB
 *   bytes a weight: 0.75 (N32), 1.25 (Q32), 1.5 (Q16), 3.25 (F32), 2 (B16); of them 0.25 (Q16: 0.5) are f32 scales
 *   few rows: bounded by the weights' bytes. Many: by the issue of what is no mma. For 16 x 8 outputs and 32 inputs
 *   a warp needs, beside its mma,
 *     exact  (3 mma) 28 instructions to fold limbs
 *     bf16   (2 mma) 8 multiply-adds to fold, and 8 (N32: 7; B16: none of both) as its share of making bf16 of quants
 *   so `bf16` has at most some 70 % of an A100's tensor cores (1,024 multiply-adds a clock and processor against 4
 *   instructions); mma.sync is assumed to reach 63 % of wgmma on Hopper, 31 % of tcgen05 on Blackwell (bench/README.md)
 *   share of the bound: not measured
 *   accumulators: int32 or f32 within a group, f32 over groups, in order
 *   a row's bits depend on the row and the weights alone, and are the same for both BLOCK_M
 *   reference gemm of src/cpu/cpu_ops_ref.c; tests matmul, quantised_matmul of tests/unit/test_backend_ops.c
 *   counted for each 16 x 8 x 32 (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   matmul_n32_m64                68.7    3.00    16.3    25.4    8.00    3.38    12.6   10.0 (10.0)   3.15 (2.95)
 *   matmul_n32_m16                 105    3.00    16.0    54.4    8.00    5.80    18.1   15.0 (15.0)   3.31 (3.19)
 *   matmul_q32_m64                66.6    3.00    16.3    23.6    8.00    3.41    12.3   10.6 (10.6)   3.33 (3.15)
 *   matmul_q32_m16                 103    3.00    16.0    52.5    8.00    5.99    17.6   15.3 (15.3)   3.54 (3.44)
 *   matmul_q16_m64                 107    6.00    32.3    28.0    16.0    4.46    20.2   10.9 (10.9)   3.25 (3.12)
 *   matmul_q16_m16                 146    6.00    32.0    59.0    16.0    8.11    25.3   15.6 (15.6)   3.41 (3.34)
 *   matmul_f32_m64                75.5    6.00    16.3    28.9    8.00    4.17    12.1   12.1 (12.1)   3.47 (3.32)
 *   matmul_f32_m16                 132    6.00    16.0    78.1    8.00    7.91    16.3   15.7 (15.7)   3.66 (3.58)
 *   matmul_bf16_n32_m64           49.2    2.00    8.30    26.8    0.00    3.06    9.08   9.20 (9.20)   2.85 (2.63)
 *   matmul_bf16_n32_m16           94.7    2.00    8.03    63.4    0.00    5.24    16.0   14.7 (14.7)   2.99 (2.86)
 *   matmul_bf16_q32_m64           53.1    2.00    8.30    31.1    0.00    3.09    8.67   9.90 (9.90)   3.06 (2.86)
 *   matmul_bf16_q32_m16            106    2.00    8.03    75.5    0.00    5.43    15.0   15.1 (15.1)   3.26 (3.14)
 *   matmul_bf16_q16_m64           66.4    2.00    16.3    31.4    0.00    4.13    12.6   10.3 (10.3)   2.91 (2.77)
 *   matmul_bf16_q16_m16            123    2.00    16.0    78.2    0.00    7.55    18.7   15.3 (15.3)   3.05 (2.97)
 *   matmul_bf16_b16_m64           27.3    2.00    0.30    18.5    0.00    2.45    3.99   10.7 (10.7)   3.51 (3.22)
 *   matmul_bf16_b16_m16           63.1    2.00    0.03    48.7    0.00    4.34    8.03   15.7 (15.7)   3.89 (3.73)
 */
template <typename S> __device__ __forceinline__ void matmul(const matmul_params &p) {
    extern __shared__ __align__(16) uint8_t shared[];
    const int row0 = blockIdx.x * S::BLOCK_M, column0 = blockIdx.y * BLOCK_N;
    float *sums = (float *)shared;
    tile_sums<S> acc;
    multiply_tile<S>(acc, p.x, p.w, row0, column0, shared);
    store_sums<S>(acc, sums);
    __syncthreads(); // the tile is whole
    for_tile<S>([&](int row, int column, int at) {
        if (row0 + row < p.n_rows && column0 + column < p.n_out)
            p.out[(int64_t)(row0 + row) * p.n_out + column0 + column] =
                finish_sum(sums[at], p.bias, column0 + column, p.softcap);
    });
}

#define MATMUL_KERNEL(name, a, w, arithmetic, packing, block_m)                                                        \
    extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 1)                                                      \
        matmul_##name##_m##block_m(const __grid_constant__ matmul_params p) {                                          \
        matmul<TILE_SHAPE(a, w, arithmetic, packing, block_m)>(p);                                                     \
    }
#define MATMUL_KERNELS(...) MATMUL_KERNEL(__VA_ARGS__, 64) MATMUL_KERNEL(__VA_ARGS__, 16)
EACH_PRODUCT(MATMUL_KERNELS)

// ------------------------------------------------------------------------------------------------------ pair_logits
/*
 * Kernel card: pair_logits_{n32,q32,q16,f32}, pair_logits_bf16_{n32,q32,q16,b16}
 *   out[i] = the logit of row pairs[i].row for token pairs[i].id, bit for bit that of matmul and project_stats
 *   grid ceil(n_pairs / 16), block 64: a warp makes 8 pairs as the diagonal of an mma tile, so that the order of sums
 *   within mma, which no one promises, is the products' own; the tile's other sums are dropped
 *   bytes about 3 k (`bf16`) or 4 k a pair, 16 by 16; a few pairs a row, so bounded by latency; not measured
 *   reference and test: those of project_stats
 *   counted for each pair x 32 (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   pair_logits_n32               9.63    0.38    0.89    4.93    0.50    1.17    1.76   6.36 (3.59)             -
 *   pair_logits_q32               8.99    0.38    0.89    4.17    0.50    1.30    1.76   6.18 (3.48)             -
 *   pair_logits_q16               12.8    0.75    1.77    4.97    1.00    1.55    2.76   5.71 (3.44)             -
 *   pair_logits_f32               10.3    0.75    0.89    4.59    0.50    1.80    1.80   5.71 (3.21)             -
 *   pair_logits_bf16_n32          9.15    0.25    0.52    5.79    0.00    0.92    1.66   5.78 (3.34)             -
 *   pair_logits_bf16_q32          10.3    0.25    0.52    6.92    0.00    1.05    1.54   5.63 (3.24)             -
 *   pair_logits_bf16_q16          11.8    0.25    1.02    7.18    0.00    1.30    2.04   5.07 (3.14)             -
 *   pair_logits_bf16_b16          4.97    0.25    0.02    3.06    0.00    1.05    0.60   6.05 (3.18)             -
 */
template <typename P, typename W> __device__ __forceinline__ void pair_logits(const pair_params &p) {
    using A = typename P::activation;
    const int lane = threadIdx.x % WARP, first = (blockIdx.x * PAIR_THREADS + threadIdx.x) / WARP * 8;
    if (first >= p.n_pairs) return; // whole warps
    const logit_pair pair = p.pairs[min(first + lane / 4, p.n_pairs - 1)];
    const int id = max(pair.id, 0);
    float acc[4] = {};
    int step = 0;
#pragma unroll 1
    do {
        typename P::a_fragment a;
        typename P::template w_fragment<W> w;
        P::gather_a(a, p.x, pair.row, step);
        P::template gather_w<W>(w, p.w, id, step);
        if constexpr (W::SCALE_BYTES == 0) {
            P::template fold<W>(acc, a, w, 0, {}, {});
        } else {
#pragma unroll
            for (int group = 0; group < W::STEP_GROUPS; group++) {
                const int64_t at = step * W::STEP_GROUPS + group;
                const auto sa =
                    *(const typename P::a_scale *)(p.x.scales + (at * p.x.n_rows_pad + pair.row) * A::SCALE_BYTES);
                const float2 sw = *(const float2 *)(p.w.scales + (at * p.w.n_rows_pad + id) * W::SCALE_BYTES);
                P::template fold<W>(acc, a, w, group, {sa, sa}, {sw.x, sw.y, sw.x, sw.y});
            }
        }
    } while (++step < p.x.k_pad / STEP_K); // there is one at least
    // Lane 4 r + t holds columns 2 t and 2 t + 1 of row r.
    if (lane % 4 == lane / 8 && first + lane / 4 < p.n_pairs)
        p.out[first + lane / 4] =
            pair.id < 0 ? INFINITY : finish_sum(lane / 4 % 2 ? acc[1] : acc[0], p.bias, id, p.softcap);
}

#define PAIR_KERNEL(name, a, w, arithmetic, packing)                                                                   \
    extern "C" __global__ void __launch_bounds__(PAIR_THREADS)                                                         \
        pair_logits_##name(const __grid_constant__ pair_params p) {                                                    \
        pair_logits<arithmetic, packing>(p);                                                                           \
    }
EACH_PRODUCT(PAIR_KERNEL)
