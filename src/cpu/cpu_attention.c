/*
 * cpu_attention.c: causal attention with online softmax over blocks of keys, the KV cache it reads, and the rotation of
 * queries and keys on the way there.
 *
 * One item of work is a tile of rows and a query head: the lanes are the tile's positions, read where the buffers have
 * them. A tile that holds rows of several sequences is done once for each, and only the lanes of that sequence are
 * kept. Both products are the gemm of every other product: scores take keys as weights (K = head_dim), and the output
 * takes values as weights with the keys as K. Blocks of keys start at absolute multiples of CPU_KEY_BLOCK and a key
 * that a lane may not see adds an exact zero, so the sums of a position do not depend on how its prompt was cut into
 * batches.
 */
#include "cpu/cpu_impl.h"
#include <math.h>
#include <string.h>

// --------------------------------------------------------------------------------------------------- the cache

/// [head_dim][CPU_KEY_BLOCK] keys of the block that holds a row.
static float *kv_keys(const backend_kv *kv, int row, int head) {
    return kv->k + ((size_t)(row / CPU_KEY_BLOCK) * (size_t)kv->n_head_kv + (size_t)head) * (size_t)kv->head_dim *
                       CPU_KEY_BLOCK;
}
/// [head_dim] of one row; the next row's are n_head_kv * head_dim further.
static float *kv_values(const backend_kv *kv, int row, int head) {
    return kv->v + ((size_t)row * (size_t)kv->n_head_kv + (size_t)head) * (size_t)kv->head_dim;
}

typedef struct kv_job {
    const cpu_kernels *kernels;
    const rope_params *rope; // NULL: nothing turns
    const backend_buffer *table;
    const token_batch *batch;
    backend_buffer *q, *k;
    const backend_buffer *v;
    backend_kv *kv;
} kv_job;

/// The heads of a tile of q or k, in place.
static void rotate_tile(const kv_job *job, int tile, const backend_buffer *x) {
    const float *turns = cpu_tile(job->table, tile);
    float *heads = cpu_tile(x, tile);
    for (int first = 0; first < x->n_features; first += job->kv->head_dim)
        job->kernels->rope(turns, job->rope->n_rot, job->rope->neox, heads + (ptrdiff_t)first * x->bm);
}

static void kv_write_row(const kv_job *job, int row, int kv_row) {
    const int head_dim = job->kv->head_dim, bm = job->k->bm;
    const float *k = cpu_row(job->k, row), *v = cpu_row(job->v, row);
    for (int h = 0; h < job->kv->n_head_kv; h++) {
        float *keys = kv_keys(job->kv, kv_row, h) + kv_row % CPU_KEY_BLOCK, *values = kv_values(job->kv, kv_row, h);
        for (int d = 0; d < head_dim; d++) {
            keys[d * CPU_KEY_BLOCK] = k[(h * head_dim + d) * bm];
            values[d] = v[(h * head_dim + d) * bm];
        }
    }
}

/// The rows of one tile, whichever sequences they belong to.
static void rope_kv_write_tile(void *context, int tile, int thread) {
    (void)thread;
    const kv_job *job = context;
    if (job->rope) {
        rotate_tile(job, tile, job->q);
        rotate_tile(job, tile, job->k);
    }
    const int first = tile * job->k->bm, end = MIN(first + job->k->bm, job->batch->n_tokens);
    for (int s = 0; s < job->batch->n_slices; s++) {
        const batch_slice *slice = &job->batch->slices[s];
        for (int r = MAX(first, slice->first_row); r < MIN(end, slice->first_row + slice->n); r++)
            kv_write_row(job, r, slice->kv_first + slice->first_pos + r - slice->first_row);
    }
}

void cpu_rope_kv_write(backend *b, const rope_params *rope, const backend_buffer *table, const token_batch *batch,
                       backend_buffer *q, backend_buffer *k, const backend_buffer *v, backend_kv *kv) {
    ASSERT(k->n_features == kv->n_head_kv * kv->head_dim && v->n_features == k->n_features);
    ASSERT(!rope || (q->n_features % kv->head_dim == 0 && rope->n_rot <= kv->head_dim));
    cpu_backend *cpu = cpu_of(b);
    const cpu_kernels *kernels = cpu_kernels_for(cpu, batch->n_tokens);
    kv_job job = {.kernels = kernels, .rope = rope, .table = table, .batch = batch, .q = q, .k = k, .v = v, .kv = kv};
    if (rope) {
        cpu_will_write(cpu, q, kernels);
        cpu_will_write(cpu, k, kernels);
    }
    cpu_pool_run(cpu->pool, rope_kv_write_tile, &job, cpu_n_tiles(kernels, batch->n_tokens));
}

// --------------------------------------------------------------------------------------------------- attention

typedef struct attention_job {
    const cpu_backend *cpu;
    const cpu_kernels *kernels;
    const attention_params *params;
    const token_batch *batch;
    const backend_buffer *q;
    const backend_kv *kv;
    backend_buffer *out;
    int n_items;
} attention_job;

/// Lanes first_lane … end_lane - 1 of a tile of rows, all of one slice, and one query head.
typedef struct query_tile {
    const batch_slice *slice;
    int tile, head, first_lane, end_lane;
} query_tile;

static int slice_tiles(const attention_job *job, const batch_slice *slice) {
    const int bm = job->kernels->block_m;
    return (slice->first_row + slice->n - 1) / bm - slice->first_row / bm + 1;
}

static query_tile find_tile(const attention_job *job, int item) {
    const int bm = job->kernels->block_m, n_head = job->params->n_head;
    for (int i = 0; i < job->batch->n_slices; i++) {
        const batch_slice *slice = &job->batch->slices[i];
        const int n_items = slice_tiles(job, slice) * n_head;
        if (item < n_items) {
            const int tile = slice->first_row / bm + item / n_head, first_row = tile * bm;
            return (query_tile){.slice = slice,
                                .tile = tile,
                                .head = item % n_head,
                                .first_lane = MAX(0, slice->first_row - first_row),
                                .end_lane = MIN(bm, slice->first_row + slice->n - first_row)};
        }
        item -= n_items;
    }
    ASSERT(!"an item past the last slice");
    return (query_tile){0};
}

enum { N_LANE_VECTORS = 3 }; // max, sum, correction

size_t cpu_attention_scratch_floats(const cpu_kernels *kernels, int head_dim) {
    // output and one block's values: head_dim each; scores; the lane vectors
    const size_t bm = (size_t)kernels->block_m;
    return 2 * cpu_pad((size_t)head_dim * bm) + CPU_KEY_BLOCK * bm + N_LANE_VECTORS * cpu_pad(bm);
}

/// scores[key][lane] = queries . keys, for keys at rows kv_row … of the cache: in one block of the cache where the
/// sequence starts at a multiple of CPU_KEY_BLOCK, else in two.
static void score_keys(const attention_job *job, const float *q, int head_kv, int kv_row, int n_keys, float *scores) {
    const int skip = kv_row % CPU_KEY_BLOCK, n = MIN(n_keys, CPU_KEY_BLOCK - skip), head_dim = job->params->head_dim;
    const cpu_kernels *kernels = job->kernels;
    kernels->gemm(q, head_dim, kv_keys(job->kv, kv_row, head_kv) + skip, CPU_KEY_BLOCK, n, scores);
    if (n < n_keys)
        kernels->gemm(q, head_dim, kv_keys(job->kv, kv_row + n, head_kv), CPU_KEY_BLOCK, n_keys - n,
                      scores + n * kernels->block_m);
}

static void attention_tile(void *context, int item, int thread) {
    const attention_job *job = context;
    const cpu_kernels *kernels = job->kernels;
    const attention_params *params = job->params;
    const int bm = kernels->block_m, head_dim = params->head_dim, key_stride = params->n_head_kv * head_dim;
    const query_tile tile = find_tile(job, job->n_items - 1 - item); // long rows first, for balance
    const int head_kv = tile.head / (params->n_head / params->n_head_kv);

    const size_t n = cpu_pad((size_t)(head_dim * bm)), n_lanes = cpu_pad((size_t)bm);
    float *acc = job->cpu->scratch[thread].tile, *values = acc + n, *scores = values + n;
    float *max = scores + CPU_KEY_BLOCK * bm, *sum = max + n_lanes, *correction = sum + n_lanes;
    const float *q = cpu_tile(job->q, tile.tile) + (ptrdiff_t)(tile.head * head_dim * bm);
    _Alignas(64) int32_t lo[CPU_MAX_BLOCK_M], hi[CPU_MAX_BLOCK_M];
    ASSERT(bm >= 1 && tile.first_lane < tile.end_lane);

    memset(acc, 0, n * sizeof *acc);
    for (int lane = 0; lane < bm; lane++) {
        // Lanes of other sequences look where their nearest neighbour of this one looks.
        const int used = MAX(tile.first_lane, MIN(lane, tile.end_lane - 1));
        hi[lane] = tile.slice->first_pos + tile.tile * bm + used - tile.slice->first_row;
        lo[lane] = params->n_swa > 0 ? MAX(0, hi[lane] - params->n_swa + 1) : 0;
        max[lane] = -INFINITY;
        sum[lane] = 0.0f;
    }

    // Lanes ascend in position: lane 0 sees the first key of all, the last lane the last.
    for (int key = lo[0] / CPU_KEY_BLOCK * CPU_KEY_BLOCK; key <= hi[bm - 1]; key += CPU_KEY_BLOCK) {
        const int kv_row = tile.slice->kv_first + key, n_keys = MIN(CPU_KEY_BLOCK, hi[bm - 1] + 1 - key);
        score_keys(job, q, head_kv, kv_row, n_keys, scores);
        kernels->softmax_step(scores, n_keys, key, lo, hi, params, max, sum, correction);
        kernels->gemm(scores, n_keys, kv_values(job->kv, kv_row, head_kv), key_stride, head_dim, values);
        kernels->scale_add(head_dim, acc, correction, values);
    }

    float *out = cpu_tile(job->out, tile.tile) + (ptrdiff_t)(tile.head * head_dim * bm);
    for (int lane = 0; lane < bm; lane++) sum[lane] = 1.0f / sum[lane];
    for (int d = 0; d < head_dim; d++)
        for (int lane = tile.first_lane; lane < tile.end_lane; lane++)
            out[d * bm + lane] = acc[d * bm + lane] * sum[lane];
}

void cpu_attention(backend *b, const attention_params *params, const token_batch *batch, const backend_buffer *q,
                   const backend_kv *kv, backend_buffer *out) {
    ASSERT(q->n_features == params->n_head * params->head_dim && out->n_features == q->n_features);
    cpu_backend *cpu = cpu_of(b);
    const cpu_kernels *kernels = cpu_kernels_for(cpu, batch->n_tokens);
    attention_job job = {
        .cpu = cpu, .kernels = kernels, .params = params, .batch = batch, .q = q, .kv = kv, .out = out};
    cpu_will_write(cpu, out, kernels);
    for (int i = 0; i < batch->n_slices; i++) job.n_items += slice_tiles(&job, &batch->slices[i]) * params->n_head;
    cpu_pool_run(cpu->pool, attention_tile, &job, job.n_items);
}
