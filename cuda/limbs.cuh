/*
 * limbs.cuh: the arithmetic of `exact` for the tile of products (tile.cuh): sums of a group as integers on int8 tensor
 * cores, and how they become a float.
 *
 * Why limbs. An f32 product by tensor cores needs bf16 split three ways and 6 products of 16 inputs; with quants that
 * are int8 already, 3 products of 32 inputs do, and their sums are integers: no order, no rounding, the same bits on
 * any device. Per 16 x 8 outputs and 32 inputs: 3 mma of 4,096 multiply-adds against 4 x 7 ordinary instructions a lane
 * to fold them, which is what bounds it (f32 FMA would take 128).
 */
#ifndef CUDA_LIMBS_CUH
#define CUDA_LIMBS_CUH

#include "tile.cuh"

struct exact {
    using activation = operand<LIMBS_PLANES, LIMBS_BITS, LIMBS_SCALE, 1>;
    using a_scale = float2;                       // scale, sum of the group
    using a_fragment = uint32_t[LIMBS_PLANES][4]; // [limb][as mma has them]
    template <typename W> using w_fragment = uint32_t[W::PLANES][2];

    template <int N_ROWS>
    static __device__ __forceinline__ void load_a(a_fragment &a, const uint8_t *rows, int row, int step) {
        const int lane = threadIdx.x % WARP;
#pragma unroll
        for (int limb = 0; limb < LIMBS_PLANES; limb++)
            load_matrices(a[limb], rows + activation::chunk_at(limb * N_ROWS + row + lane % 16, step * 2 + lane / 16));
    }
    template <typename W>
    static __device__ __forceinline__ void load_w(w_fragment<W> (&w)[2], const uint8_t *rows, int column, int step) {
#pragma unroll
        for (int limb = 0; limb < W::PLANES; limb++) {
            uint32_t q[2][2];
            load_quants<W>(q, rows + limb * BLOCK_N * W::ROW_BYTES, column, step);
#pragma unroll
            for (int i = 0; i < 2; i++) w[i][limb][0] = q[i][0], w[i][limb][1] = q[i][1];
        }
    }
    static __device__ __forceinline__ void gather_a(a_fragment &a, const packed_matrix &x, int row, int step) {
#pragma unroll
        for (int limb = 0; limb < LIMBS_PLANES; limb++) {
            uint32_t q[2];
            gather_quants<activation>(q, x, limb, row, step);
            a[limb][0] = q[0], a[limb][1] = 0, a[limb][2] = q[1], a[limb][3] = 0;
        }
    }
    template <typename W>
    static __device__ __forceinline__ void gather_w(w_fragment<W> &w, const packed_matrix &m, int row, int step) {
#pragma unroll
        for (int limb = 0; limb < W::PLANES; limb++) gather_quants<W>(w[limb], m, limb, row, step);
    }

    /// d += a b over a whole step, or over its half `group`.
    template <typename W>
    static __device__ __forceinline__ void dot(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int group) {
        if constexpr (W::GROUP == STEP_K)
            mma_s8(d, a, b);
        else
            mma_s8(d, a[2 * group], a[2 * group + 1], b[group]);
    }

    /// A group's integer sums: `high` counts 256, `low` counts 1. Limbs that count less than 1 (256 mid lo, 256 lo mid
    /// and lo lo of a float weight, below 2^-23 of the largest product) are left out. |high| < 2^28: 32 products of at
    /// most 2^14, times 256. Then every step rounds once, in order; the last is the weights' add times the sum of the
    /// activations.
    template <typename W>
    static __device__ __forceinline__ void fold(float (&acc)[4], const a_fragment &a, const w_fragment<W> &w, int group,
                                                const float2 (&sa)[2], float4 sw) {
        int high[4] = {}, low[4] = {};
        dot<W>(high, a[0], w[0], group);
#pragma unroll
        for (int e = 0; e < 4; e++) high[e] *= 256;
        dot<W>(high, a[1], w[0], group);
        dot<W>(low, a[2], w[0], group);
        if constexpr (W::PLANES == 3) {
            dot<W>(high, a[0], w[1], group);
            dot<W>(low, a[1], w[1], group);
            dot<W>(low, a[0], w[2], group);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float scale = e % 2 ? sw.z : sw.x, add = e % 2 ? sw.w : sw.y;
            const float sum = __fmaf_rn(256.0f, __int2float_rn(high[e]), __int2float_rn(low[e]));
            acc[e] = __fmaf_rn(__fmul_rn(sa[e / 2].x, scale), sum, acc[e]);
            acc[e] = __fmaf_rn(sa[e / 2].y, add, acc[e]);
        }
    }
};

#endif
