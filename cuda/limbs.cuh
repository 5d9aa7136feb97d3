/*
 * limbs.cuh: the arithmetic of `exact`, written once: how a group's integer sums become a float, and the tile of
 * products on int8 tensor cores. Every product of the service is made of these two, so a logit has the same bits on
 * every path.
 *
 * Why limbs. An f32 product by tensor cores needs bf16 split three ways and 6 products of 16 inputs; with quants that
 * are int8 already, 3 products of 32 inputs do, and their sums are integers: no order, no rounding, the same bits on
 * any device. Per 16 x 8 outputs and 32 inputs: 3 mma of 4,096 multiply-adds against 4 x 7 ordinary instructions a lane
 * to fold them, which is what bounds it (f32 FMA would take 128).
 */
#ifndef CUDA_LIMBS_CUH
#define CUDA_LIMBS_CUH

#include "common.cuh"

/// acc += (the group's sum) by its limbs' integer sums: high counts 256, low counts 1. Every step rounds once, in
/// order.
__device__ __forceinline__ float fold_group(float acc, int high, int low, float2 a, float2 w) {
    const float dot = __fmaf_rn(256.0f, __int2float_rn(high), __int2float_rn(low));
    acc = __fmaf_rn(__fmul_rn(a.x, w.x), dot, acc);
    return __fmaf_rn(a.y, w.y, acc); // the weights' add times the sum of the activations
}

/// What a sum becomes: bias, then the soft cap.
__device__ __forceinline__ float finish_sum(float sum, const float *bias, int column, float softcap) {
    if (bias) sum = __fadd_rn(sum, bias[column]);
    if (softcap > 0.0f) sum = __fmul_rn(softcap, tanhf(__fdiv_rn(sum, softcap)));
    return sum;
}

/// Sizes of one instance of the product.
template <int W_LIMBS_, int GROUP_, int BLOCK_M_> struct tile_shape {
    static constexpr int W_LIMBS = W_LIMBS_, GROUP = GROUP_, BLOCK_M = BLOCK_M_;
    static constexpr int WARPS_M = BLOCK_M == BLOCK_M_LARGE ? 2 : 1, WARPS_N = GEMM_THREADS / WARP / WARPS_M;
    static constexpr int WARP_M = BLOCK_M / WARPS_M, WARP_N = BLOCK_N / WARPS_N; // outputs of a warp
    static constexpr int M_TILES = WARP_M / 16, N_TILES = WARP_N / 8;            // in mma tiles
    static constexpr int STAGES = NUM_STAGES(W_LIMBS), GROUPS = BLOCK_K / GROUP; // groups of a stage
    // A stage in shared memory: activations, weights, their scales.
    static constexpr int W_AT = A_LIMBS * BLOCK_M * BLOCK_K, A_SCALES_AT = W_AT + W_LIMBS * BLOCK_N * BLOCK_K,
                         W_SCALES_AT = A_SCALES_AT + GROUPS * BLOCK_M * 8, BYTES = W_SCALES_AT + GROUPS * BLOCK_N * 8;
    static_assert(BYTES == STAGE_BYTES(W_LIMBS, GROUP, BLOCK_M), "host and device agree on a stage");
    static_assert(WARP_M * WARPS_M == BLOCK_M && M_TILES * 16 == WARP_M, "warps tile the rows");
    static_assert(WARP_N * WARPS_N == BLOCK_N && N_TILES % 2 == 0, "warps tile the columns by pairs of mma tiles");
    static_assert(BYTES % 16 == 0 && BLOCK_K == 64 && (GROUP == 16 || GROUP == 32), "chunks of 16 bytes");
    static_assert(STAGES * BYTES >= BLOCK_M * LOGITS_PITCH * 4, "a tile of logits fits where the stages were");
};

/// Byte of a 16-byte chunk in rows of 64 bytes. Chunks are swizzled: the eight rows that one matrix load touches lie in
/// eight different groups of banks.
__device__ __forceinline__ int chunk_at(int row, int chunk) {
    return row * BLOCK_K + (chunk ^ (row >> 1 & 3)) * 16;
}

/// N_LIMBS x N_ROWS rows of 64 bytes of an operand, from row0 and byte k0 on.
template <int N_LIMBS, int N_ROWS>
__device__ __forceinline__ void copy_limbs(uint8_t *shared, const packed_matrix &m, int row0, int k0) {
    constexpr int CHUNKS = N_LIMBS * N_ROWS * 4;
#pragma unroll
    for (int first = 0; first < CHUNKS; first += GEMM_THREADS) {
        const int i = first + threadIdx.x, limb_row = i / 4, limb = limb_row / N_ROWS, row = limb_row % N_ROWS;
        if (CHUNKS % GEMM_THREADS != 0 && i >= CHUNKS) break;
        const int64_t at = ((int64_t)limb * m.n_rows_pad + row0 + row) * m.k_pad + k0 + i % 4 * 16;
        copy16_async(shared + chunk_at(limb_row, i % 4), m.limbs + at);
    }
}

/// GROUPS x N_ROWS scales.
template <int GROUPS, int N_ROWS>
__device__ __forceinline__ void copy_scales(uint8_t *shared, const packed_matrix &m, int row0, int group0) {
    constexpr int PAIRS = N_ROWS / 2; // 16 bytes are two scales
    for (int i = threadIdx.x; i < GROUPS * PAIRS; i += GEMM_THREADS) {
        const int group = i / PAIRS, pair = i % PAIRS;
        copy16_async(shared + i * 16, m.scales + (int64_t)(group0 + group) * m.n_rows_pad + row0 + pair * 2);
    }
}

template <typename S>
__device__ __forceinline__ void copy_stage(uint8_t *stage, const packed_matrix &x, const packed_matrix &w, int row0,
                                           int column0, int step) {
    copy_limbs<A_LIMBS, S::BLOCK_M>(stage, x, row0, step * BLOCK_K);
    copy_limbs<S::W_LIMBS, BLOCK_N>(stage + S::W_AT, w, column0, step * BLOCK_K);
    copy_scales<S::GROUPS, S::BLOCK_M>(stage + S::A_SCALES_AT, x, row0, step * S::GROUPS);
    copy_scales<S::GROUPS, BLOCK_N>(stage + S::W_SCALES_AT, w, column0, step * S::GROUPS);
}

/// Integer sums of one mma tile over its limbs. Limbs that count less than 1 (256 mid lo, 256 lo mid and lo lo of a
/// float weight, below 2^-23 of the largest product) are left out. |high| < 2^28: 32 products of at most 2^14, times
/// 256.
template <int W_LIMBS>
__device__ __forceinline__ void dot_limbs(const uint32_t (&a)[A_LIMBS][4], const uint32_t (&w)[W_LIMBS][2],
                                          int (&high)[4], int (&low)[4]) {
#pragma unroll
    for (int e = 0; e < 4; e++) high[e] = low[e] = 0;
    mma_s8(high, a[0], w[0]);
#pragma unroll
    for (int e = 0; e < 4; e++) high[e] *= 256;
    mma_s8(high, a[1], w[0]);
    mma_s8(low, a[2], w[0]);
    if constexpr (W_LIMBS == 3) {
        mma_s8(high, a[0], w[1]);
        mma_s8(low, a[1], w[1]);
        mma_s8(low, a[0], w[2]);
    }
}

/// Where a thread stands in its block's tile.
template <typename S> struct tile_place {
    int lane, row, column; // the warp's first row and column
    __device__ tile_place()
        : lane(threadIdx.x % WARP), row(threadIdx.x / WARP % S::WARPS_M * S::WARP_M),
          column(threadIdx.x / WARP / S::WARPS_M * S::WARP_N) {}
    /// Row and column in the tile of element e of mma tile (i, j).
    __device__ int element_row(int i, int e) const { return row + i * 16 + e / 2 * 8 + lane / 4; }
    __device__ int element_column(int j, int e) const { return column + j * 8 + lane % 4 * 2 + e % 2; }
};

template <typename S> using tile_sums = float[S::M_TILES][S::N_TILES][4];

/// Folds the group whose activations are `a` (zero outside it) into the sums of mma tile columns j and j + 1.
template <typename S>
__device__ __forceinline__ void fold_tiles(tile_sums<S> &acc, const uint32_t (&a)[S::M_TILES][A_LIMBS][4],
                                           const uint32_t (&w)[2][S::W_LIMBS][2], const float2 *a_scales,
                                           const float2 *w_scales, const tile_place<S> &place, int j) {
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
        const float4 sw = *(const float4 *)&w_scales[place.element_column(j + pair, 0)]; // of two columns
#pragma unroll
        for (int i = 0; i < S::M_TILES; i++) {
            int high[4], low[4];
            dot_limbs<S::W_LIMBS>(a[i], w[pair], high, low);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float2 scale = e % 2 ? make_float2(sw.z, sw.w) : make_float2(sw.x, sw.y);
                acc[i][j + pair][e] =
                    fold_group(acc[i][j + pair][e], high[e], low[e], a_scales[place.element_row(i, e)], scale);
            }
        }
    }
}

/// One step of 32 inputs of a stage: a whole group, or two of 16, each with the other half's activations zeroed.
template <typename S>
__device__ __forceinline__ void multiply_step(tile_sums<S> &acc, const uint8_t *stage, int step,
                                              const tile_place<S> &place) {
    const int lane = place.lane;
    uint32_t a[S::M_TILES][A_LIMBS][4];
#pragma unroll
    for (int i = 0; i < S::M_TILES; i++)
#pragma unroll
        for (int limb = 0; limb < A_LIMBS; limb++)
            load_matrices(a[i][limb],
                          stage + chunk_at(limb * S::BLOCK_M + place.row + i * 16 + lane % 16, step * 2 + lane / 16));
    const float2 *a_scales = (const float2 *)(stage + S::A_SCALES_AT);
    const float2 *w_scales = (const float2 *)(stage + S::W_SCALES_AT);
#pragma unroll
    for (int j = 0; j < S::N_TILES; j += 2) {
        uint32_t w[2][S::W_LIMBS][2];
#pragma unroll
        for (int limb = 0; limb < S::W_LIMBS; limb++) {
            uint32_t r[4];
            const int row = limb * BLOCK_N + place.column + j * 8 + lane / 16 * 8 + lane % 8;
            load_matrices(r, stage + S::W_AT + chunk_at(row, step * 2 + lane / 8 % 2));
            w[0][limb][0] = r[0], w[0][limb][1] = r[1], w[1][limb][0] = r[2], w[1][limb][1] = r[3];
        }
        if constexpr (S::GROUP == 32) {
            fold_tiles<S>(acc, a, w, a_scales + step * S::BLOCK_M, w_scales + step * BLOCK_N, place, j);
        } else {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                uint32_t part[S::M_TILES][A_LIMBS][4];
#pragma unroll
                for (int i = 0; i < S::M_TILES; i++)
#pragma unroll
                    for (int limb = 0; limb < A_LIMBS; limb++)
#pragma unroll
                        for (int r = 0; r < 4; r++) part[i][limb][r] = r / 2 == half ? a[i][limb][r] : 0;
                const int group = step * 2 + half;
                fold_tiles<S>(acc, part, w, a_scales + group * S::BLOCK_M, w_scales + group * BLOCK_N, place, j);
            }
        }
    }
}

/// acc = x[row0 …] w[column0 …]^T of one tile. Groups are folded in ascending order. `shared` holds STAGES stages; it
/// is free again when this returns.
template <typename S>
__device__ __forceinline__ void multiply_tile(tile_sums<S> &acc, const packed_matrix &x, const packed_matrix &w,
                                              int row0, int column0, uint8_t *shared) {
    const tile_place<S> place;
    const int n_steps = x.k_pad / BLOCK_K;
#pragma unroll
    for (int i = 0; i < S::M_TILES; i++)
#pragma unroll
        for (int j = 0; j < S::N_TILES; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][j][e] = 0.0f;

    for (int step = 0; step < S::STAGES - 1; step++) {
        if (step < n_steps) copy_stage<S>(shared + step * S::BYTES, x, w, row0, column0, step);
        copy_commit(); // empty groups keep the count
    }
    for (int step = 0; step < n_steps; step++) {
        copy_wait<S::STAGES - 2>();
        __syncthreads(); // this stage's copies of all threads have landed, and nobody still reads the one refilled next
        const int next = step + S::STAGES - 1;
        if (next < n_steps) copy_stage<S>(shared + next % S::STAGES * S::BYTES, x, w, row0, column0, next);
        copy_commit();
        const uint8_t *stage = shared + step % S::STAGES * S::BYTES;
#pragma unroll 1
        for (int k = 0; k < BLOCK_K / 32; k++) multiply_step<S>(acc, stage, k, place);
    }
    copy_wait<0>();
    __syncthreads(); // the last stage has been read by all: the caller may write there
}

#endif
