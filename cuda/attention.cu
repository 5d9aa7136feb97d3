/*
 * attention.cu: causal attention with online softmax over ragged batches.
 */
#include "common.cuh"

/*
 * Kernel card: attention_{64,128,256} (features of a head up to that), for both precisions
 *   out = sum_j p_j v_j / sum_j p_j, p_j = exp(score_j - max), score = cap(q.k scale), over the keys a row may see
 *   (online softmax: Milakov and Gimelshein, arXiv 1805.02867; blocks of keys: Dao et al., arXiv 2205.14135)
 *   q [n_rows, n_head head_dim], k and v [n_kv_rows, n_head_kv head_dim] f32 -> out as q
 *   grid (items, n_head_kv), block 128: a tile of 16 query rows (position, head of the group) shares its keys; a warp
 *   has 4 of them; in scores a lane is a key, in outputs a lane is every 32nd feature
 *   shared: 16 queries, 32 keys, 32 values
 *   operations 4 rows keys head_dim in f32; bounded by shared-memory reads (5 for 4 multiply-adds in the scores)
 *   not measured. With `bf16` it is what grows: at 1,024 tokens of SmolLM2 18 of 152 million multiply-adds a token are
 *   attention, at f32 rate; bf16 mma for q.k and p.v would be worth it from some hundred tokens on, and is not done
 *   steps of 32 keys start at absolute multiples of 32, and a key that is not seen adds an exact zero: a row's bits do
 *   not depend on the tile or batch that it is in; accumulators f32, keys in order
 *   reference cpu_attention over cpu_ops_ref.c; test attention of tests/unit/test_backend_ops.c
 *   counted for each step and feature (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   attention_64                   231    0.00    41.8    92.7    3.03    40.5    52.9   3.66 (3.66)   1.03 (1.00)
 *   attention_128                  214    0.00    37.2    95.8    2.32    40.4    37.9   3.81 (3.81)   1.03 (1.00)
 *   attention_256                  191    0.00    34.8    83.9    1.43    40.2    30.2   3.88 (3.88)   1.03 (1.00)
 */
constexpr int ROWS_A_WARP = ATTENTION_ROWS / (ATTENTION_THREADS / WARP);
static_assert(ROWS_A_WARP * (ATTENTION_THREADS / WARP) == ATTENTION_ROWS, "warps share out the rows");
static_assert(ATTENTION_KEYS == WARP, "a lane is a key");
constexpr int THREADS_A_ROW = ATTENTION_THREADS / ATTENTION_ROWS; // that load a query
static_assert(THREADS_A_ROW * ATTENTION_ROWS == ATTENTION_THREADS, "threads share out the queries");

/// Where a query row of the item is: its position, and its head's first feature in q and out.
__device__ __forceinline__ int row_position(const attention_kernel_params &p, const attention_item &item, int row) {
    return item.first_pos + (item.first + row) / (p.n_head / p.n_head_kv);
}
__device__ __forceinline__ int64_t row_offset(const attention_kernel_params &p, const attention_item &item, int row) {
    const int group = p.n_head / p.n_head_kv, r = item.first + row;
    return ((int64_t)(item.batch_row + r / group) * p.n_head + blockIdx.y * group + r % group) * p.head_dim;
}

/// The running softmax of a warp's rows; `out` of a lane is features lane, lane + 32, …
template <int CHUNKS> struct row_state {
    float max[ROWS_A_WARP], sum[ROWS_A_WARP], out[ROWS_A_WARP][CHUNKS];
    int lo[ROWS_A_WARP], hi[ROWS_A_WARP]; // keys that it may see; hi < lo: none, past the item's last row
};

/// scores -> probabilities against the new maximum; what was summed before is scaled to it. Nothing seen so far and
/// nothing now: all stays zero.
template <int CHUNKS> __device__ __forceinline__ float softmax_step(row_state<CHUNKS> &s, int i, float score, int key) {
    if (key < s.lo[i] || key > s.hi[i]) score = -INFINITY;
    const float max = fmaxf(s.max[i], lanes_reduce<WARP>(score, op_max()));
    const float base = max == -INFINITY ? 0.0f : max, correction = expf(s.max[i] - base), e = expf(score - base);
    s.sum[i] = __fmaf_rn(s.sum[i], correction, lanes_reduce<WARP>(e, op_add()));
    s.max[i] = max;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) s.out[i][c] *= correction;
    return e;
}

template <int CHUNKS>
__device__ __forceinline__ void attend_keys(const attention_kernel_params &p, row_state<CHUNKS> &s, const float *q,
                                            const float *k, const float *v, int key0) {
    const int lane = threadIdx.x % WARP, pitch = ATTENTION_PITCH(p.head_dim);
    float e[ROWS_A_WARP] = {};
    int d = 0;
#pragma unroll 1
    do {
        const float kd = k[lane * pitch + d];
#pragma unroll
        for (int i = 0; i < ROWS_A_WARP; i++) e[i] = __fmaf_rn(q[i * pitch + d], kd, e[i]);
    } while (++d < p.head_dim);
#pragma unroll
    for (int i = 0; i < ROWS_A_WARP; i++) {
        float score = e[i] * p.scale;
        if (p.softcap > 0.0f) score = p.softcap * tanhf(score / p.softcap);
        e[i] = softmax_step<CHUNKS>(s, i, score, key0 + lane);
    }
    for (int j = 0; j < ATTENTION_KEYS; j++)
#pragma unroll
        for (int i = 0; i < ROWS_A_WARP; i++) {
            const float weight = __shfl_sync(FULL_WARP, e[i], j);
#pragma unroll
            for (int c = 0; c < CHUNKS; c++)
                s.out[i][c] = __fmaf_rn(weight, v[(j * CHUNKS + c) * WARP + lane], s.out[i][c]);
        }
}

/// Keys and values key0 … of the sequence; zeros past `end`, which may never have been written, and in features past
/// the head's.
template <int CHUNKS>
__device__ __forceinline__ void load_keys(const attention_kernel_params &p, const attention_item &item, int key0,
                                          int end, float *k, float *v) {
    constexpr int WIDTH = CHUNKS * WARP;
    static_assert(ATTENTION_KEYS * WIDTH % (4 * ATTENTION_THREADS) == 0, "threads share out the keys, four at a time");
#pragma unroll 4
    for (int first = 0; first < ATTENTION_KEYS * WIDTH; first += ATTENTION_THREADS) {
        const int i = first + threadIdx.x, j = i / WIDTH, d = i % WIDTH;
        const bool there = key0 + j < end && d < p.head_dim;
        const int64_t at = ((int64_t)(item.kv_first + key0 + j) * p.n_head_kv + blockIdx.y) * p.head_dim + d;
        if (d < p.head_dim) k[j * ATTENTION_PITCH(p.head_dim) + d] = there ? p.k[at] : 0.0f;
        v[i] = there ? p.v[at] : 0.0f;
    }
}

template <int CHUNKS> __device__ __forceinline__ void attention(const attention_kernel_params &p) {
    extern __shared__ float shared_floats[];
    const int pitch = ATTENTION_PITCH(p.head_dim), lane = threadIdx.x % WARP, row0 = threadIdx.x / WARP * ROWS_A_WARP;
    float *q = shared_floats, *k = q + ATTENTION_ROWS * pitch, *v = k + ATTENTION_KEYS * pitch;
    const attention_item item = p.items[blockIdx.x];
    const int q_row = threadIdx.x / THREADS_A_ROW;
    int q_d = threadIdx.x % THREADS_A_ROW;
#pragma unroll 1
    do
        if (q_d < p.head_dim) q[q_row * pitch + q_d] = q_row < item.n ? p.q[row_offset(p, item, q_row) + q_d] : 0.0f;
    while ((q_d += THREADS_A_ROW) < p.head_dim);
    row_state<CHUNKS> s;
#pragma unroll
    for (int i = 0; i < ROWS_A_WARP; i++) {
        s.hi[i] = row0 + i < item.n ? row_position(p, item, row0 + i) : -1;
        s.lo[i] = p.n_swa > 0 ? max(0, s.hi[i] - p.n_swa + 1) : 0;
        s.max[i] = -INFINITY;
        s.sum[i] = 0.0f;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) s.out[i][c] = 0.0f;
    }
    // Rows ascend in position: the first sees the first key of all, the last the last.
    const int first_pos = row_position(p, item, 0), end = row_position(p, item, item.n - 1) + 1;
    const int first = (p.n_swa > 0 ? max(0, first_pos - p.n_swa + 1) : 0) / ATTENTION_KEYS * ATTENTION_KEYS;
    int key0 = first;
    do {
        load_keys<CHUNKS>(p, item, key0, end, k, v);
        __syncthreads(); // queries, keys and values are there
        attend_keys<CHUNKS>(p, s, q + row0 * pitch, k, v, key0);
        __syncthreads();                      // keys have been read: the next may overwrite them
    } while ((key0 += ATTENTION_KEYS) < end); // a row sees itself at least
#pragma unroll
    for (int i = 0; i < ROWS_A_WARP; i++)
        if (row0 + i < item.n)
#pragma unroll
            for (int c = 0; c < CHUNKS; c++)
                if (c * WARP + lane < p.head_dim)
                    p.out[row_offset(p, item, row0 + i) + c * WARP + lane] = s.out[i][c] / s.sum[i];
}

#define ATTENTION_KERNEL(name, chunks)                                                                                 \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)                                                    \
        name(const __grid_constant__ attention_kernel_params p) {                                                      \
        attention<chunks>(p);                                                                                          \
    }
ATTENTION_KERNEL(attention_64, 2)
ATTENTION_KERNEL(attention_128, 4)
ATTENTION_KERNEL(attention_256, 8)
