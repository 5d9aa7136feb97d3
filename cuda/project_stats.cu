/*
 * project_stats.cu: the final projection and all statistics of a distribution from one pass over the output matrix.
 * Logits live in a tile of shared memory and are dropped. Three kernels run in turn: pair_logits (matmul.cu) makes the
 * targets' logits, project_stats the tiles' statistics and lists of candidates, project_merge one result a row.
 */
#include "bf16.cuh"
#include "limbs.cuh"

// Loops over lists are kept short (unroll 1): they are bounded by memory, and every line of them is run by the tests.

typedef unsigned long long key64;

/// Sorts as (logit, -id) do: order-preserving bits of the logit, then ~id. Never 0.
__device__ __forceinline__ key64 make_key(float logit, int id) {
    unsigned bits = __float_as_uint(__fadd_rn(logit, 0.0f)); // -0 is 0
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (key64)bits << 32 | (unsigned)~id;
}

/*
 * Kernel card: project_stats_{n32,q32,q16,f32}_m{64,16} (`exact`), project_stats_bf16_{n32,q32,q16,b16}_m{64,16}
 *   logits of a tile [BLOCK_M, 128]; with m = the row's largest there and x = (logit - m) / T for every temperature:
 *   sums of exp x, x exp x, x^2 exp x (Milakov and Gimelshein, arXiv 1805.02867, with two more moments)
 *   logits above the target's; a list that holds the N best of the part (and more)
 *   x packed [n_rows_pad, k_pad], w packed [n_vocab_pad, k_pad] -> arrays of stats_params
 *   grid (rows / BLOCK_M, parts), block 256, GEMM_SHARED bytes: the product's stages, then the tile in their place
 *   bytes: the matrix once for each row tile, mostly from L2; 12 T + 8 written a row and tile of 128 logits
 *   operations 2 rows vocabulary k, and about 8 T for each logit; bounded as matmul is, up to some 16 temperatures
 *   share of the bound: not measured
 *   sums in f32 over 32 logits a lane, then over 4 lanes by a fixed tree; tiles are merged in double by project_merge:
 *   bits depend neither on BLOCK_M, nor on the parts, nor on other rows
 *   reference stats of src/cpu/cpu_ops_ref.c; tests project_* of tests/unit/test_backend_ops.c
 *   counted for each 16 x 8 x 32 (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   project_stats_n32_m64          150    3.00    26.5    74.0    9.00    9.27    27.8   7.91 (7.89)   2.48 (2.36)
 *   project_stats_n32_m16          160    3.00    56.8    50.4    12.0    10.4    27.6   10.6 (10.6)   2.27 (2.22)
 *   project_stats_q32_m64          148    3.00    26.5    72.7    9.00    9.29    27.7   8.00 (7.98)   2.62 (2.50)
 *   project_stats_q32_m16          165    3.00    56.8    53.3    12.0    10.6    29.0   11.5 (11.5)   2.43 (2.37)
 *   project_stats_q16_m64          177    6.00    42.5    67.8    17.0    9.41    33.7   8.09 (8.07)   2.70 (2.61)
 *   project_stats_q16_m16          206    6.00    72.8    57.5    20.0    12.6    36.6   12.2 (12.2)   2.55 (2.51)
 *   project_stats_f32_m64          153    6.00    26.6    74.1    9.00    9.98    27.1   8.39 (8.37)   2.83 (2.73)
 *   project_stats_f32_m16          179    6.00    57.0    64.3    12.0    12.5    27.6   13.2 (13.2)   2.71 (2.66)
 *   project_stats_bf16_n32_m64     130    2.00    18.5    75.6    1.00    8.95    24.2   7.80 (7.78)   2.23 (2.10)
 *   project_stats_bf16_n32_m16     150    2.00    48.8    60.2    4.00    9.80    25.1   10.2 (10.2)   2.03 (1.97)
 *   project_stats_bf16_q32_m64     135    2.00    18.5    80.5    1.00    8.97    24.0   7.89 (7.87)   2.38 (2.25)
 *   project_stats_bf16_q32_m16     166    2.00    48.8    75.2    4.00    10.0    26.0   11.2 (11.2)   2.21 (2.15)
 *   project_stats_bf16_q16_m64     136    2.00    26.5    71.6    1.00    9.08    26.0   7.94 (7.92)   2.42 (2.32)
 *   project_stats_bf16_q16_m16     180    2.00    56.8    75.7    4.00    12.1    29.5   11.9 (11.9)   2.28 (2.24)
 *   project_stats_bf16_b16_m64     103    2.00    10.5    63.1    1.00    7.77    18.1   8.01 (7.99)   2.51 (2.36)
 *   project_stats_bf16_b16_m16     122    2.00    40.8    47.7    4.00    8.83    18.8   12.5 (12.5)   2.34 (2.28)
 */

/// What one thread keeps of a row: four neighbouring lanes share a row and take every fourth column.
constexpr int QUAD = 4;

/// Sums become logits, in place; past the vocabulary: a probability of 0. Most tiles have nothing to do.
template <typename S> __device__ __forceinline__ void finish_tile(const stats_params &p, int column0, float *logits) {
    if (!p.bias && p.softcap <= 0.0f && column0 + BLOCK_N <= p.n_out) return; // the same for all threads
    for_tile<S>([&](int, int column, int at) {
        logits[at] =
            column0 + column < p.n_out ? finish_sum(logits[at], p.bias, column0 + column, p.softcap) : -INFINITY;
    });
    __syncthreads(); // the logits are there
}

/// Sums of one row of the tile at one temperature. The quad's lanes agree on the results.
__device__ __forceinline__ void sum_row(const float *row, int quad_lane, float base, float inv_t, float (&sums)[3]) {
    sums[0] = sums[1] = sums[2] = 0.0f;
    for (int c = quad_lane; c < BLOCK_N; c += QUAD) {
        const float x = (row[c] - base) * inv_t, e = expf(x);
        const float xe = e == 0.0f ? 0.0f : x * e; // x may be -inf
        sums[0] += e;
        sums[1] += xe;
        sums[2] += e == 0.0f ? 0.0f : x * xe;
    }
#pragma unroll
    for (int i = 0; i < 3; i++) sums[i] = lanes_reduce<QUAD>(sums[i], op_add());
}

/// Statistics of the tile. Threads beyond four a row take other temperatures.
template <int BLOCK_M>
__device__ __forceinline__ void fold_stats(const stats_params &p, int row0, int tile, const float *logits) {
    constexpr int STEP_T = GEMM_THREADS / QUAD / BLOCK_M;
    const int quad_lane = threadIdx.x % QUAD, row = threadIdx.x / QUAD % BLOCK_M,
              first_t = threadIdx.x / QUAD / BLOCK_M;
    const float *values = logits + row * LOGITS_PITCH;
    const int64_t n_rows_pad = p.n_rows_pad, at = row0 + row;
    const float target = p.target[at];
    float largest = -INFINITY;
    int above = 0;
    for (int c = quad_lane; c < BLOCK_N; c += QUAD) {
        largest = values[c] > largest ? values[c] : largest;
        above += values[c] > target;
    }
    largest = lanes_reduce<QUAD>(largest, op_max());
    above = lanes_reduce<QUAD>(above, op_add());
    if (first_t == 0 && quad_lane == 0) {
        p.max[tile * n_rows_pad + at] = largest;
        if (above > 0) atomicAdd(&p.above[at], above); // other parts count the same row; integers have no order
    }
    const float base = largest == -INFINITY ? 0.0f : largest;
    for (int t0 = 0; t0 < p.n_temperatures; t0 += STEP_T) { // the same for all lanes of a warp
        const int t = t0 + first_t, used = t < p.n_temperatures ? t : 0;
        float sums[3];
        sum_row(values, quad_lane, base, p.inv_t[at * p.n_temperatures + used], sums);
        if (t == used && quad_lane < 3)
            p.sums[((tile * (int64_t)p.n_temperatures + t) * 3 + quad_lane) * n_rows_pad + at] =
                quad_lane == 0   ? sums[0]
                : quad_lane == 1 ? sums[1]
                                 : sums[2];
    }
}

/// Number of keys >= pivot, by one warp.
__device__ __forceinline__ int count_keys(const key64 *keys, int n, key64 pivot) {
    int count = 0;
#pragma unroll 1
    for (int i = threadIdx.x % WARP; i < n; i += WARP) count += keys[i] >= pivot;
    return lanes_reduce<WARP>(count, op_add());
}

/// Cuts a warp's list of n > top_n + TOP_SLACK distinct keys to the best top_n … top_n + TOP_SLACK, in place; returns
/// how many. *floor becomes a key that top_n keys reach. Invariant of the bisection: at least top_n keys are >= lo and
/// fewer than top_n are >= hi. Keys are distinct, so it ends at the latest when hi = lo + 1, with top_n exactly.
__device__ __forceinline__ int cut_list(key64 *keys, int n, int top_n, key64 *floor) {
    key64 lo = *floor, hi = ~0ull;
    int count = n;
    while (count > top_n + TOP_SLACK) {
        const key64 pivot = lo + (hi - lo) / 2;
        const int at_least = count_keys(keys, n, pivot);
        if (at_least >= top_n) {
            lo = pivot;
            count = at_least;
        } else {
            hi = pivot;
        }
    }
    const int lane = threadIdx.x % WARP;
    int kept = 0;
#pragma unroll 1
    for (int first = 0; first < n; first += WARP) {
        const key64 key = first + lane < n ? keys[first + lane] : 0;
        const unsigned keep = __ballot_sync(FULL_WARP, key >= lo && key != 0); // all lanes have read before one writes
        if (keep >> lane & 1) keys[kept + __popc(keep & ((1u << lane) - 1))] = key;
        kept += __popc(keep);
        __syncwarp(); // the places written are read no more; what later rounds read is not written yet
    }
    *floor = lo;
    return kept;
}

/// Appends what reaches the row's floor; the list then has room for another tile again. The last tile's list is cut
/// once more, so that the merge reads little.
__device__ __forceinline__ int offer_row(const float *values, int first_id, int n_vocab, int top_n, int room,
                                         key64 *keys, int n, key64 *floor) {
    const int lane = threadIdx.x % WARP;
#pragma unroll 1
    for (int c = lane; c < BLOCK_N; c += WARP) {
        const key64 key = make_key(values[c], first_id + c);
        const unsigned takes = __ballot_sync(FULL_WARP, first_id + c < n_vocab && key >= *floor);
        if (takes >> lane & 1) keys[n + __popc(takes & ((1u << lane) - 1))] = key;
        n += __popc(takes);
    }
    __syncwarp(); // the list is read by other lanes than wrote it
    return n > room ? cut_list(keys, n, top_n, floor) : n;
}

/// What a warp remembers of the lists of its rows.
template <int BLOCK_M> struct top_lists {
    static constexpr int ROWS = BLOCK_M / (GEMM_THREADS / WARP); // of a warp
    key64 floor[BLOCK_M];
    int n[BLOCK_M];
};

template <int BLOCK_M>
__device__ __forceinline__ void offer_tile(const stats_params &p, top_lists<BLOCK_M> &lists, int row0, int tile,
                                           bool last, const float *logits) {
#pragma unroll 1
    for (int i = 0; i < lists.ROWS; i++) {
        const int row = threadIdx.x / WARP * lists.ROWS + i, at = row0 + row;
        const int top_n = at < p.n_rows ? p.top_n[at] : 0; // the same for all lanes
        if (top_n == 0) continue;
        key64 floor = lists.floor[row];
        const int room = last ? top_n + TOP_SLACK : p.top_room - BLOCK_N;
        const int n = offer_row(logits + row * LOGITS_PITCH, tile * BLOCK_N, p.n_out, top_n, room,
                                p.keys + ((int64_t)blockIdx.y * p.n_rows + at) * p.top_room, lists.n[row], &floor);
        __syncwarp(); // all lanes have read the row's entry
        if (threadIdx.x % WARP == 0) lists.n[row] = n, lists.floor[row] = floor;
        __syncwarp(); // and see it changed
    }
}

template <typename S> __device__ __forceinline__ void project_stats(const stats_params &p) {
    extern __shared__ __align__(16) uint8_t shared[];
    __shared__ top_lists<S::BLOCK_M> lists;
    const int row0 = blockIdx.x * S::BLOCK_M;
    if (threadIdx.x < S::BLOCK_M) lists.floor[threadIdx.x] = 0, lists.n[threadIdx.x] = 0;
    const int first = blockIdx.y * p.part_tiles, end = min(first + p.part_tiles, p.n_tiles);
    float *logits = (float *)shared;
    int tile = first;
    do {
        tile_sums<S> acc;
        multiply_tile<S>(acc, p.x, p.w, row0, tile * BLOCK_N, shared);
        store_sums<S>(acc, logits);
        __syncthreads(); // the tile is whole; the lists are set up
        finish_tile<S>(p, tile * BLOCK_N, logits);
        fold_stats<S::BLOCK_M>(p, row0, tile, logits);
        offer_tile<S::BLOCK_M>(p, lists, row0, tile, tile + 1 == end, logits);
        __syncthreads();    // the tile has been read: stages may be copied over it
    } while (++tile < end); // a part has one at least
    const int row = row0 + threadIdx.x;
    if (threadIdx.x < S::BLOCK_M && row < p.n_rows)
        p.n_keys[(int64_t)blockIdx.y * p.n_rows + row] = lists.n[threadIdx.x];
}

#define STATS_KERNEL(name, a, w, arithmetic, packing, block_m)                                                         \
    extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 1)                                                      \
        project_stats_##name##_m##block_m(const __grid_constant__ stats_params p) {                                    \
        project_stats<TILE_SHAPE(a, w, arithmetic, packing, block_m)>(p);                                              \
    }
#define STATS_KERNELS(...) STATS_KERNEL(__VA_ARGS__, 64) STATS_KERNEL(__VA_ARGS__, 16)
EACH_PRODUCT(STATS_KERNELS)

// ----------------------------------------------------------------------------------------------------- project_merge
/*
 * Kernel card: project_merge
 *   a row's tiles to one (max, sums), in double: with d = (m_tile - m) / T and f = exp d, the sums of a tile move to
 *   the common maximum as f s0, f (s1 + d s0), f (s2 + d (2 s1 + d s0)); its parts' lists to the N best, sorted
 *   grid n_rows, block 256: thread i folds tiles i, i + 256, … in order, then a fixed tree
 *   bytes (12 T + 4) n_tiles and 8 n_parts (N + 64) a row; small beside the projection; not measured
 *   reference merge_sums of src/cpu/cpu_project.c; tests project_* of tests/unit/test_backend_ops.c
 *   counted for each row and part (bench/cuda_mix.py):
 *                               issued     mma   float     int special  memory    rest       sectors    wavefronts
 *   project_merge                 1415    0.00    18.1     695    0.65     202     499   4.35 (4.22)   1.02 (1.02)
 */
constexpr int MERGE_WARPS = MERGE_THREADS / WARP;

__device__ __forceinline__ void merge_sums(const merge_params &p, int row, float max, int t, double *scratch) {
    const double temperature = p.temperatures[(int64_t)row * p.n_temperatures + t];
    double sums[3] = {0.0, 0.0, 0.0};
#pragma unroll 1
    for (int tile = threadIdx.x; tile < p.n_tiles; tile += MERGE_THREADS) {
        const float *part = p.sums + ((int64_t)tile * p.n_temperatures + t) * 3 * p.n_rows_pad + row;
        const float tile_max = p.max[(int64_t)tile * p.n_rows_pad + row];
        const double s0 = part[0], s1 = part[p.n_rows_pad], s2 = part[2 * p.n_rows_pad];
        const double d = ((double)tile_max - (double)max) / temperature, f = exp(d);
        if (f == 0.0 && isfinite(s0)) continue; // d may be -inf; what is not a number must stay seen
        sums[0] += f * s0;
        sums[1] += f * (s1 + d * s0);
        sums[2] += f * (s2 + d * (2.0 * s1 + d * s0));
    }
#pragma unroll
    for (int i = 0; i < 3; i++) {
        const double sum = block_reduce<MERGE_WARPS>(sums[i], scratch, op_add());
        if (threadIdx.x == 0) p.out_sums[((int64_t)row * p.n_temperatures + t) * 3 + i] = sum;
    }
}

/// The list of part `part`, and its length.
__device__ __forceinline__ const key64 *part_list(const merge_params &p, int row, int part, int *n) {
    const int64_t list = (int64_t)part * p.n_rows + row;
    *n = p.n_keys[list];
    return p.keys + list * p.top_room;
}

/// Number of the row's keys >= pivot, by the block.
__device__ __forceinline__ int count_row(const merge_params &p, int row, key64 pivot, int *scratch) {
    int count = 0, n;
#pragma unroll 1
    for (int part = threadIdx.x / WARP; part < p.n_parts; part += MERGE_WARPS) {
        const key64 *keys = part_list(p, row, part, &n);
#pragma unroll 1
        for (int i = threadIdx.x % WARP; i < n; i += WARP) count += keys[i] >= pivot;
    }
    return block_reduce<MERGE_WARPS>(count, scratch, op_add());
}

/// Bitonic sort (Batcher 1968) of n keys, a power of two, largest first.
__device__ __forceinline__ void sort_keys(key64 *keys, int n) {
    for (int size = 2; size <= n; size *= 2)
        for (int step = size / 2; step > 0; step /= 2) {
            __syncthreads(); // the step before has written its pairs
#pragma unroll 1
            for (int i = threadIdx.x; i < n; i += MERGE_THREADS) {
                const int other = i ^ step;
                if (other < i) continue; // its partner does the pair
                const key64 a = keys[i], b = keys[other];
                if ((a < b) == ((i & size) == 0)) keys[i] = b, keys[other] = a;
            }
        }
    __syncthreads(); // sorted for all
}

/// The top_n best of all parts. Bisection as in cut_list, down to exactly top_n.
__device__ __forceinline__ void merge_top(const merge_params &p, int row, int top_n, key64 *best, int *scratch,
                                          int *n_best) {
    key64 lo = 0, hi = ~0ull;
    int count = count_row(p, row, lo, scratch), n;
    while (count > top_n) {
        const key64 pivot = lo + (hi - lo) / 2;
        const int at_least = count_row(p, row, pivot, scratch);
        if (at_least >= top_n) {
            lo = pivot;
            count = at_least;
        } else {
            hi = pivot;
        }
    }
    int size = 1;
    while (size < top_n) size *= 2;
#pragma unroll 1
    for (int i = threadIdx.x; i < size; i += MERGE_THREADS) best[i] = 0; // sorts last
    if (threadIdx.x == 0) *n_best = 0;
    __syncthreads(); // cleared before anybody adds
#pragma unroll 1
    for (int part = threadIdx.x / WARP; part < p.n_parts; part += MERGE_WARPS) {
        const key64 *keys = part_list(p, row, part, &n);
#pragma unroll 1
        for (int i = threadIdx.x % WARP; i < n; i += WARP)
            if (keys[i] >= lo) best[atomicAdd(n_best, 1)] = keys[i]; // any order: they are sorted next
    }
    sort_keys(best, size);
#pragma unroll 1
    for (int i = threadIdx.x; i < top_n; i += MERGE_THREADS) p.out_top[(int64_t)row * p.max_top_n + i] = best[i];
}

extern "C" __global__ void __launch_bounds__(MERGE_THREADS, 1) project_merge(const __grid_constant__ merge_params p) {
    __shared__ double sums_scratch[MERGE_WARPS];
    __shared__ float max_scratch[MERGE_WARPS];
    __shared__ int count_scratch[MERGE_WARPS], n_best;
    __shared__ key64 best[TOP_MAX];
    const int row = blockIdx.x;
    float max = -INFINITY;
#pragma unroll 1
    for (int tile = threadIdx.x; tile < p.n_tiles; tile += MERGE_THREADS) {
        const float tile_max = p.max[(int64_t)tile * p.n_rows_pad + row];
        max = tile_max > max ? tile_max : max;
    }
    max = block_reduce<MERGE_WARPS>(max, max_scratch, op_max());
    if (threadIdx.x == 0) p.out_max[row] = max;
    int t = 0;
    do merge_sums(p, row, max, t, sums_scratch);
    while (++t < p.n_temperatures); // there is one at least
    const int top_n = p.top_n[row];
    if (top_n > 0) merge_top(p, row, top_n, best, count_scratch, &n_best);
}
