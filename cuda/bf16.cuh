/*
 * bf16.cuh: the arithmetic of `bf16` for the tile of products (tile.cuh): bf16 tensor cores with sums in f32.
 *
 * Quants enter as they are: an integer of 8 bits is a bf16 exactly. A group's sum then is multiplied by its scale in
 * f32, so the only rounding to bf16 is that of activations (2^-9 of each) and of float weights: one less for each
 * weight than if it were multiplied by its scale and rounded before the product. The price is 8 multiply-adds a lane
 * for 16 x 8 outputs and 32 inputs, where weights scaled beforehand would need 4 and a conversion for every 32 rows.
 */
#ifndef CUDA_BF16_CUH
#define CUDA_BF16_CUH

#include "tile.cuh"

/// Four int8 (of NARROW: below 128) as bf16: bytes 0 and 1 in out[0], 2 and 3 in out[1]. 128 + (the low 7 bits) is put
/// together as bits; then 128 is taken away, or 256 where the sign is set: exact.
template <bool NARROW> __device__ __forceinline__ void int8_to_bf16(uint32_t (&out)[2], uint32_t q) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t v = __byte_perm(q, 0, i ? 0x4342 : 0x4140);
        const uint32_t low = NARROW ? v | 0x43004300u : (v & 0x007f007fu) | 0x43004300u;
        out[i] = fma_bf16x2(low, 0x3f803f80u, NARROW ? 0xc300c300u : (v & 0x00800080u) | 0xc300c300u);
    }
}

struct bf16 {
    using activation = operand<BF16_PLANES, BF16_BITS, BF16_SCALE, 1>;
    using a_scale = float;             // sum of the group
    using a_fragment = uint32_t[2][4]; // [half of the step][as mma has them]
    template <typename W> using w_fragment = uint32_t[2][2];

    template <int N_ROWS>
    static __device__ __forceinline__ void load_a(a_fragment &a, const uint8_t *rows, int row, int step) {
        const int lane = threadIdx.x % WARP;
#pragma unroll
        for (int h = 0; h < 2; h++)
            load_matrices(a[h], rows + activation::chunk_at(row + lane % 16, step * 4 + h * 2 + lane / 16));
    }
    template <typename W>
    static __device__ __forceinline__ void load_w(w_fragment<W> (&w)[2], const uint8_t *rows, int column, int step) {
        if constexpr (W::BITS == 16) {
            const int lane = threadIdx.x % WARP;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                uint32_t r[4];
                load_matrices(r, rows + W::chunk_at(column + i * 8 + lane % 8, step * 4 + lane / 8));
                w[i][0][0] = r[0], w[i][0][1] = r[1], w[i][1][0] = r[2], w[i][1][1] = r[3];
            }
        } else {
            uint32_t q[2][2];
            load_quants<W>(q, rows, column, step);
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int h = 0; h < 2; h++) int8_to_bf16<W::BITS == 4>(w[i][h], q[i][h]);
        }
    }
    /// Both halves of a step of one row that is bf16 in memory.
    template <typename O>
    static __device__ __forceinline__ void gather_row(uint32_t (&out)[2][2], const packed_matrix &m, int row,
                                                      int step) {
        constexpr int STEPS = BLOCK_K / STEP_K;
        const unsigned char *bytes = O::at(m, 0, row, step / STEPS) + step % STEPS * 64 + threadIdx.x % 4 * 4;
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int i = 0; i < 2; i++) out[h][i] = *(const uint32_t *)(bytes + h * 32 + i * 16);
    }
    static __device__ __forceinline__ void gather_a(a_fragment &a, const packed_matrix &x, int row, int step) {
        uint32_t r[2][2];
        gather_row<activation>(r, x, row, step);
#pragma unroll
        for (int h = 0; h < 2; h++) a[h][0] = r[h][0], a[h][1] = 0, a[h][2] = r[h][1], a[h][3] = 0;
    }
    template <typename W>
    static __device__ __forceinline__ void gather_w(w_fragment<W> &w, const packed_matrix &m, int row, int step) {
        if constexpr (W::BITS == 16) {
            gather_row<W>(w, m, row, step);
        } else {
            uint32_t q[2];
            gather_quants<W>(q, m, 0, row, step);
#pragma unroll
            for (int h = 0; h < 2; h++) int8_to_bf16<W::BITS == 4>(w[h], q[h]);
        }
    }

    /// Weights without scales are summed by mma itself; else a group's sum starts at zero.
    template <typename W>
    static __device__ __forceinline__ void fold(float (&acc)[4], const a_fragment &a, const w_fragment<W> &w, int group,
                                                const float (&sa)[2], float4 sw) {
        if constexpr (W::SCALE_BYTES == 0) {
            mma_bf16(acc, a[0], w[0]);
            mma_bf16(acc, a[1], w[1]);
        } else {
            float sum[4] = {};
            mma_bf16(sum, a[group], w[group]);
            if constexpr (W::GROUP == STEP_K) mma_bf16(sum, a[1], w[1]);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                acc[e] = __fmaf_rn(sum[e], e % 2 ? sw.z : sw.x, acc[e]);
                acc[e] = __fmaf_rn(sa[e / 2], e % 2 ? sw.w : sw.y, acc[e]); // the weights' add
            }
        }
    }
};

#endif
