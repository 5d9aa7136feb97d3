/*
 * tile.cuh: the tile of products that every matrix kernel is made of, written once over an arithmetic (limbs.cuh:
 * `exact`; bf16.cuh: `bf16`) and a packing of the weights: shapes, stages in shared memory, the main loop, and what a
 * sum becomes. A logit therefore has the same bits on every path.
 *
 * An arithmetic P says what activations look like, how a lane gets its part of them and of the weights, from a stage or
 * from memory, and how a group enters a sum:
 *
 *   P::activation, P::a_scale, P::a_fragment, P::w_fragment<W>
 *   P::load_a, P::load_w<W>       for the STEP_K inputs of a step, from a stage
 *   P::gather_a, P::gather_w<W>   the same of one row, from memory
 *   P::fold<W>                    sums += one group, or the whole step where the weights have no scales
 */
#ifndef CUDA_TILE_CUH
#define CUDA_TILE_CUH

#include "common.cuh"

// --------------------------------------------------------------------------------------------------------- operands

/// The rows of an operand in memory: tiles of TILE_ROWS rows, in them a stage's bytes of all rows side by side, so that
/// a stage of weights is one piece.
template <int PLANES_, int BITS_, int SCALE_BYTES_, int TILE_ROWS_> struct operand {
    static constexpr int PLANES = PLANES_, BITS = BITS_, SCALE_BYTES = SCALE_BYTES_, TILE_ROWS = TILE_ROWS_;
    static constexpr int ROW_BYTES = BLOCK_K * BITS / 8; // of a plane's row in a stage
    static constexpr int CHUNKS = ROW_BYTES / 16;        // of 16 bytes
    static_assert(CHUNKS == 2 || CHUNKS == 4 || CHUNKS == 8, "the swizzle divides the 8 groups of banks");

    /// The ROW_BYTES of one row and stage.
    static __device__ __forceinline__ const unsigned char *at(const packed_matrix &m, int plane, int row, int stage) {
        const int64_t rows = (int64_t)plane * m.n_rows_pad + row - row % TILE_ROWS;
        return m.elements + (rows * (m.k_pad / BLOCK_K) + stage * TILE_ROWS + row % TILE_ROWS) * ROW_BYTES;
    }
    /// Byte of a 16-byte chunk of a stage in shared memory. Chunks are swizzled: the eight rows that one matrix load
    /// touches lie in eight different groups of banks.
    static __device__ __forceinline__ int chunk_at(int row, int chunk) {
        return row * ROW_BYTES + (chunk ^ row / (8 / CHUNKS) % CHUNKS) * 16;
    }
};

template <int BITS_, int PLANES_, int SCALE_BYTES_, int GROUP_>
struct weight_packing : operand<PLANES_, BITS_, SCALE_BYTES_, BLOCK_N> {
    static constexpr int GROUP = GROUP_, STEP_GROUPS = STEP_K / GROUP; // groups of a step
    static_assert(GROUP == 16 || GROUP == 32, "a step is one group or two");
};
#define WEIGHT_PACKING(name) weight_packing<name##_BITS, name##_PLANES, name##_SCALE, name##_GROUP>
using n32 = WEIGHT_PACKING(N32);
using q32 = WEIGHT_PACKING(Q32);
using q16 = WEIGHT_PACKING(Q16);
using f32 = WEIGHT_PACKING(F32);
using b16 = WEIGHT_PACKING(B16);

/// Four bytes of 4-bit quants as two words of four.
__device__ __forceinline__ void split_nibbles(uint32_t (&q)[2], uint32_t word) {
    q[0] = word & 0x0f0f0f0fu;
    q[1] = word >> 4 & 0x0f0f0f0fu;
}

/// The quants of a step in two mma tiles of columns: q[i][h] of a lane is column lane / 4 of tile i, inputs
/// 16 h + 4 (lane % 4) … as four bytes. `rows` is a plane of a stage.
template <typename W>
__device__ __forceinline__ void load_quants(uint32_t (&q)[2][2], const uint8_t *rows, int column, int step) {
    const int lane = threadIdx.x % WARP;
    if constexpr (W::BITS == 4) {
        uint32_t r[2];
        load_matrices(r, rows + W::chunk_at(column + lane / 8 % 2 * 8 + lane % 8, step));
        split_nibbles(q[0], r[0]);
        split_nibbles(q[1], r[1]);
    } else {
        uint32_t r[4];
        load_matrices(r, rows + W::chunk_at(column + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
        q[0][0] = r[0], q[0][1] = r[1], q[1][0] = r[2], q[1][1] = r[3];
    }
}

/// The same of one row of the matrix.
template <typename W>
__device__ __forceinline__ void gather_quants(uint32_t (&q)[2], const packed_matrix &w, int plane, int row, int step) {
    constexpr int STEP_BYTES = STEP_K * W::BITS / 8, STEPS = BLOCK_K / STEP_K;
    const unsigned char *bytes =
        W::at(w, plane, row, step / STEPS) + step % STEPS * STEP_BYTES + threadIdx.x % 4 * sizeof(uint32_t);
    if constexpr (W::BITS == 4)
        split_nibbles(q, *(const uint32_t *)bytes);
    else
        q[0] = *(const uint32_t *)bytes, q[1] = *(const uint32_t *)(bytes + 16);
}

/// What a sum becomes: bias, then the soft cap.
__device__ __forceinline__ float finish_sum(float sum, const float *bias, int column, float softcap) {
    if (bias) sum = __fadd_rn(sum, bias[column]);
    if (softcap > 0.0f) sum = __fmul_rn(softcap, tanhf(__fdiv_rn(sum, softcap)));
    return sum;
}

// ----------------------------------------------------------------------------------------------------------- shapes

/// Sizes of one instance of the product.
template <typename P_, typename W_, int BLOCK_M_, int STAGES_, int BYTES_> struct tile_shape {
    using P = P_; // the arithmetic
    using W = W_; // the weights' packing
    using A = typename P::activation;
    static constexpr int BLOCK_M = BLOCK_M_, STAGES = STAGES_, BYTES = BYTES_;
    static constexpr int WARPS_M = BLOCK_M == BLOCK_M_LARGE ? 2 : 1, WARPS_N = GEMM_THREADS / WARP / WARPS_M;
    static constexpr int WARP_M = BLOCK_M / WARPS_M, WARP_N = BLOCK_N / WARPS_N; // outputs of a warp
    static constexpr int M_TILES = WARP_M / 16, N_TILES = WARP_N / 8;            // in mma tiles
    static constexpr int GROUPS = W::SCALE_BYTES ? BLOCK_K / W::GROUP : 0;       // scales of a row in a stage
    // A stage in shared memory: activations, weights, their scales.
    static constexpr int W_AT = A::PLANES * BLOCK_M * A::ROW_BYTES,
                         A_SCALES_AT = W_AT + W::PLANES * BLOCK_N * W::ROW_BYTES,
                         W_SCALES_AT = A_SCALES_AT + GROUPS * BLOCK_M * A::SCALE_BYTES;
    static_assert(W_SCALES_AT + GROUPS * BLOCK_N * W::SCALE_BYTES == BYTES, "host and device agree on a stage");
    static_assert(WARP_M * WARPS_M == BLOCK_M && M_TILES * 16 == WARP_M, "warps tile the rows");
    static_assert(WARP_N * WARPS_N == BLOCK_N && N_TILES % 2 == 0, "warps tile the columns by pairs of mma tiles");
    static_assert(BYTES % 16 == 0 && BLOCK_K % STEP_K == 0 && STAGES >= 2, "a stage is whole chunks and steps");
    static_assert(STAGES * BYTES >= BLOCK_M * LOGITS_PITCH * 4, "a tile of logits fits where the stages were");
};
/// TILE_SHAPE(LIMBS, N32, 64): by the names that params.h has for the sizes.
#define TILE_SHAPE(a, w, arithmetic, packing, block_m)                                                                 \
    tile_shape<arithmetic, packing, block_m, NUM_STAGES(w, block_m), STAGE_BYTES(a, w, block_m)>

/// Every arithmetic with each packing of weights that it has, a row each, in the order of kernels.def:
/// ROW(end of the kernel's name, operands by the names that params.h has for them, arithmetic, packing).
#define EACH_PRODUCT(ROW)                                                                                              \
    ROW(n32, LIMBS, N32, exact, n32)                                                                                   \
    ROW(q32, LIMBS, Q32, exact, q32)                                                                                   \
    ROW(q16, LIMBS, Q16, exact, q16)                                                                                   \
    ROW(f32, LIMBS, F32, exact, f32)                                                                                   \
    ROW(bf16_n32, BF16, N32, bf16, n32)                                                                                \
    ROW(bf16_q32, BF16, Q32, bf16, q32)                                                                                \
    ROW(bf16_q16, BF16, Q16, bf16, q16)                                                                                \
    ROW(bf16_b16, BF16, B16, bf16, b16)

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

// ----------------------------------------------------------------------------------------------------------- stages

/// The elements of N_ROWS rows from row0 on.
template <typename O, int N_ROWS>
__device__ __forceinline__ void copy_elements(uint8_t *shared, const packed_matrix &m, int row0, int stage) {
    constexpr int CHUNKS = O::PLANES * N_ROWS * O::CHUNKS;
#pragma unroll
    for (int first = 0; first < CHUNKS; first += GEMM_THREADS) {
        const int i = first + threadIdx.x, chunk = i % O::CHUNKS, plane_row = i / O::CHUNKS;
        if (first + GEMM_THREADS > CHUNKS && i >= CHUNKS) break;
        copy16_async(shared + O::chunk_at(plane_row, chunk),
                     O::at(m, plane_row / N_ROWS, row0 + plane_row % N_ROWS, stage) + chunk * 16);
    }
}

/// The scales of N_ROWS rows from row0 on, GROUPS of each.
template <typename O, int N_ROWS, int GROUPS>
__device__ __forceinline__ void copy_scales(uint8_t *shared, const packed_matrix &m, int row0, int stage) {
    constexpr int CHUNKS = N_ROWS * O::SCALE_BYTES / 16; // of a group
#pragma unroll
    for (int first = 0; first < GROUPS * CHUNKS; first += GEMM_THREADS) {
        const int i = first + threadIdx.x;
        if (first + GEMM_THREADS > GROUPS * CHUNKS && i >= GROUPS * CHUNKS) break;
        const int64_t row = (int64_t)(stage * GROUPS + i / CHUNKS) * m.n_rows_pad + row0;
        copy16_async(shared + i * 16, m.scales + row * O::SCALE_BYTES + i % CHUNKS * 16);
    }
}

template <typename S>
__device__ __forceinline__ void copy_stage(uint8_t *shared, const packed_matrix &x, const packed_matrix &w, int row0,
                                           int column0, int stage) {
    copy_elements<typename S::A, S::BLOCK_M>(shared, x, row0, stage);
    copy_elements<typename S::W, BLOCK_N>(shared + S::W_AT, w, column0, stage);
    if constexpr (S::GROUPS > 0) {
        copy_scales<typename S::A, S::BLOCK_M, S::GROUPS>(shared + S::A_SCALES_AT, x, row0, stage);
        copy_scales<typename S::W, BLOCK_N, S::GROUPS>(shared + S::W_SCALES_AT, w, column0, stage);
    }
}

// ----------------------------------------------------------------------------------------------------- the main loop

/// Step `step` of a stage.
template <typename S>
__device__ __forceinline__ void multiply_step(tile_sums<S> &acc, const uint8_t *stage, int step,
                                              const tile_place<S> &place) {
    using P = typename S::P;
    using W = typename S::W;
    constexpr int FOLDS = W::SCALE_BYTES ? W::STEP_GROUPS : 1;
    typename P::a_fragment a[S::M_TILES];
    typename P::a_scale a_scales[FOLDS][S::M_TILES][2] = {};
#pragma unroll
    for (int i = 0; i < S::M_TILES; i++) {
        P::template load_a<S::BLOCK_M>(a[i], stage, place.row + i * 16, step);
        if constexpr (W::SCALE_BYTES > 0)
#pragma unroll
            for (int fold = 0; fold < FOLDS; fold++)
#pragma unroll
                for (int half = 0; half < 2; half++)
                    a_scales[fold][i][half] =
                        ((const typename P::a_scale *)(stage + S::A_SCALES_AT))[(step * FOLDS + fold) * S::BLOCK_M +
                                                                                place.element_row(i, half * 2)];
    }
#pragma unroll
    for (int j = 0; j < S::N_TILES; j += 2) {
        typename P::template w_fragment<W> w[2];
        P::template load_w<W>(w, stage + S::W_AT, place.column + j * 8, step);
#pragma unroll
        for (int fold = 0; fold < FOLDS; fold++)
#pragma unroll
            for (int pair = 0; pair < 2; pair++) {
                float4 w_scales = {}; // of two columns
                if constexpr (W::SCALE_BYTES > 0)
                    w_scales = *(const float4 *)(stage + S::W_SCALES_AT +
                                                 ((step * FOLDS + fold) * BLOCK_N + place.element_column(j + pair, 0)) *
                                                     W::SCALE_BYTES);
#pragma unroll
                for (int i = 0; i < S::M_TILES; i++)
                    P::template fold<W>(acc[i][j + pair], a[i], w[pair], fold, a_scales[fold][i], w_scales);
            }
    }
}

/// acc = x[row0 …] w[column0 …]^T of one tile. Groups are folded in ascending order. `shared` holds STAGES stages; it
/// is free again when this returns.
template <typename S>
__device__ __forceinline__ void multiply_tile(tile_sums<S> &acc, const packed_matrix &x, const packed_matrix &w,
                                              int row0, int column0, uint8_t *shared) {
    const tile_place<S> place;
    const int n_stages = x.k_pad / BLOCK_K;
#pragma unroll
    for (int i = 0; i < S::M_TILES; i++)
#pragma unroll
        for (int j = 0; j < S::N_TILES; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][j][e] = 0.0f;

#pragma unroll 1
    for (int first = 0; first < S::STAGES - 1; first++) {
        if (first == 0 || first < n_stages) copy_stage<S>(shared + first * S::BYTES, x, w, row0, column0, first);
        copy_commit(); // empty groups keep the count
    }
    int stage = 0;
    do {
        copy_wait<S::STAGES - 2>();
        __syncthreads(); // this stage's copies of all threads have landed, and nobody still reads the one refilled next
        const int next = stage + S::STAGES - 1;
        if (next < n_stages) copy_stage<S>(shared + next % S::STAGES * S::BYTES, x, w, row0, column0, next);
        copy_commit();
#pragma unroll 1
        for (int step = 0; step < BLOCK_K / STEP_K; step++)
            multiply_step<S>(acc, shared + stage % S::STAGES * S::BYTES, step, place);
    } while (++stage < n_stages); // there is one at least
    copy_wait<0>();
    __syncthreads(); // the last stage has been read by all: the caller may write there
}

// --------------------------------------------------------------------------------------------------------- epilogue

/// The tile's sums to shared memory, [BLOCK_M][LOGITS_PITCH], where the stages were. The caller's barrier follows.
template <typename S> __device__ __forceinline__ void store_sums(const tile_sums<S> &acc, float *tile) {
    const tile_place<S> place;
#pragma unroll
    for (int i = 0; i < S::M_TILES; i++)
#pragma unroll
        for (int j = 0; j < S::N_TILES; j++)
#pragma unroll
            for (int e = 0; e < 4; e += 2)
                *(float2 *)&tile[place.element_row(i, e) * LOGITS_PITCH + place.element_column(j, e)] =
                    make_float2(acc[i][j][e], acc[i][j][e + 1]);
}

/// put(row, column, its place in the tile) for all of a tile, neighbouring threads at neighbouring columns.
template <typename S, typename Put> __device__ __forceinline__ void for_tile(Put put) {
    static_assert(S::BLOCK_M * BLOCK_N % GEMM_THREADS == 0 && GEMM_THREADS % BLOCK_N == 0, "threads share out a tile");
    constexpr int ROWS = GEMM_THREADS / BLOCK_N; // at a time
    const int column = threadIdx.x % BLOCK_N;
#pragma unroll 2
    for (int first = 0; first < S::BLOCK_M; first += ROWS) {
        const int row = first + threadIdx.x / BLOCK_N;
        put(row, column, row * LOGITS_PITCH + column);
    }
}

#endif
