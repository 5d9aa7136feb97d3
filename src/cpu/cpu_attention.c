/*
 * cpu_attention.c: causal attention with online softmax over blocks of keys, and the KV cache it reads.
 *
 * The lanes of a tile are the queries of one sequence that share a key head: row r of a slice's tiles is position
 * r / group, query head r % group of the group. Both products are the gemm of every other product: scores take keys as
 * weights (K = head_dim), and the output takes values as weights with the keys as K. Blocks of keys start at absolute
 * multiples of CPU_KEY_BLOCK and a key that a lane may not see adds an exact zero, so the sums of a position do not
 * depend on how its prompt was cut into batches.
 */
#include "cpu/cpu_impl.h"
#include <math.h>

// --------------------------------------------------------------------------------------------------- the cache

typedef struct kv_job {
    const cpu_backend *cpu;
    const token_batch *batch;
    const backend_buffer *k, *v;
    backend_kv *kv;
} kv_job;

/// The rows of one tile, whichever sequences they belong to.
static void kv_write_tile(void *context, int tile, int thread) {
    (void)thread;
    const kv_job *job = context;
    const int bm = job->cpu->kernels->block_m, n = job->k->n_features;
    const int first = tile * bm, end = MIN(first + bm, job->batch->n_tokens);
    for (int s = 0; s < job->batch->n_slices; s++) {
        const batch_slice *slice = &job->batch->slices[s];
        for (int r = MAX(first, slice->first_row); r < MIN(end, slice->first_row + slice->n); r++) {
            const float *k = cpu_row(job->cpu, job->k, r), *v = cpu_row(job->cpu, job->v, r);
            const size_t at = (size_t)(slice->kv_first + slice->first_pos + r - slice->first_row) * (size_t)n;
            for (int f = 0; f < n; f++) {
                job->kv->k[at + (size_t)f] = k[f * bm];
                job->kv->v[at + (size_t)f] = v[f * bm];
            }
        }
    }
}

void cpu_kv_write(backend *b, const token_batch *batch, const backend_buffer *k, const backend_buffer *v,
                  backend_kv *kv) {
    ASSERT(k->n_features == kv->n_head_kv * kv->head_dim && v->n_features == k->n_features);
    kv_job job = {.cpu = cpu_of(b), .batch = batch, .k = k, .v = v, .kv = kv};
    cpu_pool_run(job.cpu->pool, kv_write_tile, &job, cpu_n_tiles(job.cpu, batch->n_tokens));
}

// --------------------------------------------------------------------------------------------------- attention

typedef struct attention_job {
    const cpu_backend *cpu;
    const attention_params *params;
    const token_batch *batch;
    const backend_buffer *q;
    const backend_kv *kv;
    backend_buffer *out;
    int n_items;
} attention_job;

/// One tile of queries: row first_lane + lane of the slice's (position, head in group) rows.
typedef struct query_tile {
    const batch_slice *slice;
    int head_kv, first_lane, n_lanes;
} query_tile;

static int slice_tiles(const attention_job *job, const batch_slice *slice) {
    return cpu_n_tiles(job->cpu, slice->n * (job->params->n_head / job->params->n_head_kv));
}

static query_tile find_tile(const attention_job *job, int item) {
    const int group = job->params->n_head / job->params->n_head_kv, bm = job->cpu->kernels->block_m;
    for (int i = 0; i < job->batch->n_slices; i++) {
        const batch_slice *slice = &job->batch->slices[i];
        const int n_tiles = slice_tiles(job, slice), n_items = n_tiles * job->params->n_head_kv;
        if (item < n_items) {
            const int first = item % n_tiles * bm;
            return (query_tile){slice, item / n_tiles, first, MIN(bm, slice->n * group - first)};
        }
        item -= n_items;
    }
    ASSERT(!"an item past the last slice");
    return (query_tile){0};
}

/// Feature 0 of a lane's query head in a buffer of [n_head * head_dim] features.
static float *lane_head(const attention_job *job, const query_tile *tile, const backend_buffer *buf, int lane) {
    const int group = job->params->n_head / job->params->n_head_kv, r = tile->first_lane + lane;
    const int head = tile->head_kv * group + r % group;
    return cpu_row(job->cpu, buf, tile->slice->first_row + r / group) +
           head * job->params->head_dim * job->cpu->kernels->block_m;
}

enum { N_LANE_VECTORS = 3 }; // max, sum, correction

size_t cpu_attention_scratch_floats(const cpu_kernels *kernels, int head_dim) {
    // queries, output and one block's values: head_dim each; scores; the lane vectors
    return (size_t)(3 * head_dim + CPU_KEY_BLOCK + N_LANE_VECTORS) * (size_t)kernels->block_m;
}

static void attention_tile(void *context, int item, int thread) {
    const attention_job *job = context;
    const cpu_kernels *kernels = job->cpu->kernels;
    const attention_params *params = job->params;
    const int bm = kernels->block_m, head_dim = params->head_dim, group = params->n_head / params->n_head_kv;
    const query_tile tile = find_tile(job, job->n_items - 1 - item); // long rows first, for balance

    float *q = job->cpu->scratch[thread].tile, *acc = q + head_dim * bm, *values = acc + head_dim * bm;
    float *scores = values + head_dim * bm, *max = scores + CPU_KEY_BLOCK * bm, *sum = max + bm, *correction = sum + bm;
    _Alignas(64) int32_t lo[CPU_MAX_BLOCK_M], hi[CPU_MAX_BLOCK_M];
    ASSERT(bm >= 1 && tile.n_lanes >= 1);

    for (int lane = 0; lane < bm; lane++) {
        // Lanes past the last repeat it: they cost nothing and stay finite.
        const int used = MIN(lane, tile.n_lanes - 1);
        const float *from = lane_head(job, &tile, job->q, used);
        for (int d = 0; d < head_dim; d++) {
            q[d * bm + lane] = from[d * bm];
            acc[d * bm + lane] = 0.0f;
        }
        hi[lane] = tile.slice->first_pos + (tile.first_lane + used) / group;
        lo[lane] = params->n_swa > 0 ? MAX(0, hi[lane] - params->n_swa + 1) : 0;
        max[lane] = -INFINITY;
        sum[lane] = 0.0f;
    }

    // Lanes ascend in position: lane 0 sees the first key of all, the last lane the last.
    const int key_stride = params->n_head_kv * head_dim;
    for (int key = lo[0] / CPU_KEY_BLOCK * CPU_KEY_BLOCK; key <= hi[bm - 1]; key += CPU_KEY_BLOCK) {
        const size_t at = (size_t)(tile.slice->kv_first + key) * (size_t)key_stride + (size_t)(tile.head_kv * head_dim);
        const int n_keys = MIN(CPU_KEY_BLOCK, hi[bm - 1] + 1 - key);
        kernels->gemm(q, head_dim, job->kv->k + at, key_stride, 1, n_keys, scores);
        kernels->softmax_step(scores, n_keys, key, lo, hi, params, max, sum, correction);
        kernels->gemm(scores, n_keys, job->kv->v + at, 1, key_stride, head_dim, values);
        kernels->scale_add(head_dim, acc, correction, values);
    }

    for (int lane = 0; lane < tile.n_lanes; lane++) {
        float *out = lane_head(job, &tile, job->out, lane);
        for (int d = 0; d < head_dim; d++) out[d * bm] = acc[d * bm + lane] / sum[lane];
    }
}

void cpu_attention(backend *b, const attention_params *params, const token_batch *batch, const backend_buffer *q,
                   const backend_kv *kv, backend_buffer *out) {
    ASSERT(q->n_features == params->n_head * params->head_dim && out->n_features == q->n_features);
    attention_job job = {.cpu = cpu_of(b), .params = params, .batch = batch, .q = q, .kv = kv, .out = out};
    for (int i = 0; i < batch->n_slices; i++) job.n_items += slice_tiles(&job, &batch->slices[i]) * params->n_head_kv;
    cpu_pool_run(job.cpu->pool, attention_tile, &job, job.n_items);
}
