/*
 * cpu_project.c: project_stats, the final projection without logits in memory, or with them where they are asked for.
 *
 * The vocabulary is cut into parts of PART_GROUPS groups of PACK_COLS columns. Threads share out the parts; within one,
 * group by group of weight rows is unpacked and multiplied with every tile of positions, and each block of logits (a
 * group's columns x a tile's lanes, in L1) is folded at once into
 *
 *   parts[part][tile]   max, sums for each temperature, number of logits above the target's
 *   heaps[thread][row]  the best N so far of the parts that this thread took
 *
 * Then, row by row, the parts are merged in their order and the heaps by a total order (logit descending, id
 * ascending): nothing depends on which thread did which part. The target's logit is wanted before the pass that counts
 * what lies above it; target and listed logits are therefore computed first, by the same gemm over gathered weight
 * rows, hence bit for bit the same.
 */
#include "cpu/cpu_impl.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PART_GROUPS = 32 };
static const size_t STATE_BYTES = 64u << 20; // parts and heaps of one pass: positions are taken in chunks that fit

/// The N best of one row, in one thread: an unsorted buffer with room for 2N, cut back to N when full.
/// An entry is a key that sorts as (logit, -id) do: order-preserving bits of the logit, then ~id.
typedef struct top_heap {
    uint64_t *keys; // [2N]
    int n, top_n;
} top_heap;

typedef struct project {
    cpu_backend *cpu;
    const cpu_kernels
        *kernels; // of the products: single rows or tiles; all else is in tiles of bm = the level's block_m
    const cpu_product *product;
    const cpu_matrix *output;
    const float *bias; // [n_vocab] or NULL
    float softcap;
    const uint8_t *acts; // of all rows, tile_bytes from tile to tile of the products' kernels
    size_t tile_bytes;
    int n_groups, n_parts;
    // this chunk of rows
    project_row *rows;           // [n_rows]
    int first_tile, n_rows;      // the chunk's first row is first_tile * block_m of the buffer
    int n_tiles, n_temperatures; // the most of any row
    float *inv_t;                // [tiles][T][bm]
    float *target;               // [tiles][bm] logits; +inf: no target
    float *max;                  // [parts][tiles][bm]
    int32_t *above;              // [parts][tiles][bm]
    double *sums;                // [parts][tiles][T][3][bm]
    float *threshold;            // [threads][tiles][bm] the worst of the N best; NaN until there are N
    top_heap *heaps;             // [threads][rows]
    uint64_t *keys;              // of all heaps
} project;

// ---------------------------------------------------------------------------------------------------- best N

static uint64_t make_key(float logit, int32_t id) {
    uint32_t bits;
    logit += 0.0f; // -0 is 0
    memcpy(&bits, &logit, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~id;
}

static int32_t key_id(uint64_t key) {
    return (int32_t) ~(uint32_t)key;
}

static float key_logit(uint64_t key) {
    uint32_t bits = (uint32_t)(key >> 32);
    bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
    float logit;
    memcpy(&logit, &bits, sizeof logit);
    return logit;
}

/// Moves the n largest of keys[0 … count-1] to the front (Hoare's quickselect). Keys are distinct.
static void select_largest(uint64_t *keys, int count, int n) {
    int lo = 0, hi = count - 1;
    // Invariant: the n largest have their border within [lo, hi]; everything before lo is larger, after hi smaller.
    while (lo < hi) {
        const uint64_t pivot = keys[lo + (hi - lo) / 2];
        int i = lo, j = hi;
        while (i <= j) {
            while (keys[i] > pivot) i++;
            while (keys[j] < pivot) j--;
            if (i > j) break;
            const uint64_t swap = keys[i];
            keys[i++] = keys[j];
            keys[j--] = swap;
        }
        if (n - 1 <= j)
            hi = j;
        else if (n - 1 >= i)
            lo = i;
        else
            return;
    }
}

static int compare_keys_descending(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

static void heap_cut(top_heap *heap, float *threshold) {
    if (heap->n < heap->top_n) return;
    select_largest(heap->keys, heap->n, heap->top_n);
    heap->n = heap->top_n;
    uint64_t worst = heap->keys[0];
    for (int i = 1; i < heap->n; i++) worst = MIN(worst, heap->keys[i]);
    *threshold = key_logit(worst);
}

/// The threshold is NaN, and everything enters, until N are there. Ids come in ascending order, so an equal logit never
/// replaces one that is there.
static void heap_offer(top_heap *heap, float *threshold, float logit, int32_t id) {
    if (!(logit > *threshold || isnan(*threshold))) return;
    heap->keys[heap->n++] = make_key(logit, id);
    if (heap->n == 2 * heap->top_n) heap_cut(heap, threshold);
}

// ------------------------------------------------------------------------------------------------ blocks of logits

/// Rows of a tile of the chunk.
static int tile_rows(const project *p, int tile) {
    const int bm = p->cpu->kernels->block_m;
    return MIN(bm, p->n_rows - tile * bm);
}

/// The products of single rows, one lane each. The lanes after them keep what an earlier block left there: finite, and
/// nobody reads what becomes of it.
static void single_logits(const project *p, int tile, const void *panel, int group, int first, int n, float *logits) {
    const int bm = p->cpu->kernels->block_m, n_rows = tile_rows(p, tile);
    _Alignas(64) float row[PACK_COLS];
    for (int lane = 0; lane < n_rows; lane++) {
        const int r = (p->first_tile + tile) * bm + lane;
        p->product->multiply(p->output, group, panel, p->acts + (size_t)r * p->tile_bytes, first, n, row);
        for (int c = 0; c < n; c++) logits[c * bm + lane] = row[c];
    }
}

/// logits[c][lane] of columns first … first + n - 1 of a group, which is unpacked in the panel, for one tile.
static void block_logits(const project *p, int tile, const void *panel, int group, int first, int n, float *logits) {
    const cpu_kernels *kernels = p->cpu->kernels;
    if (p->kernels != kernels)
        single_logits(p, tile, panel, group, first, n, logits);
    else
        p->product->multiply(p->output, group, panel, p->acts + (size_t)(p->first_tile + tile) * p->tile_bytes, first,
                             n, logits);
    if (p->bias) kernels->add_scalar(n, logits, p->bias + group * PACK_COLS + first);
    if (p->softcap > 0.0f) kernels->softcap(n, logits, p->softcap);
}

/// The thread's panel: unpacks a group unless it is the one there already.
static const void *unpack_group(const project *p, int thread, int group, int *unpacked) {
    void *panel = p->cpu->scratch[thread].panel;
    if (p->product->unpack && *unpacked != group) p->product->unpack(p->output, group, panel);
    *unpacked = group;
    return panel;
}

/// One token's logits for all lanes of a tile.
static void token_logits(const project *p, int tile, int thread, int32_t id, int *unpacked, float *logits) {
    const int group = id / PACK_COLS;
    block_logits(p, tile, unpack_group(p, thread, group, unpacked), group, id % PACK_COLS, 1, logits);
}

static void target_logits(const project *p, int tile, int thread) {
    const int bm = p->cpu->kernels->block_m;
    float *logits = p->cpu->scratch[thread].tile, *target = p->target + (ptrdiff_t)tile * bm;
    int unpacked = -1;
    for (int lane = 0; lane < bm; lane++) {
        project_row *row = lane < tile_rows(p, tile) ? &p->rows[tile * bm + lane] : NULL;
        target[lane] = INFINITY; // nothing lies above it
        if (!row || row->target_id < 0) continue;
        token_logits(p, tile, thread, row->target_id, &unpacked, logits);
        row->target_logit = target[lane] = logits[lane];
    }
}

/// Rows of one request share their list; each run of such rows in the tile is served at once.
static void listed_logits(const project *p, int tile, int thread) {
    const int bm = p->cpu->kernels->block_m, end = MIN(p->n_rows, (tile + 1) * bm);
    float *logits = p->cpu->scratch[thread].tile;
    int unpacked = -1;
    for (int r = tile * bm; r < end;) {
        const int32_t *ids = p->rows[r].listed_ids;
        const int n_ids = p->rows[r].n_listed;
        int run_end = r + 1;
        while (run_end < end && p->rows[run_end].listed_ids == ids && p->rows[run_end].n_listed == n_ids) run_end++;
        for (int i = 0; i < n_ids; i++) {
            token_logits(p, tile, thread, ids[i], &unpacked, logits);
            for (int to = r; to < run_end; to++) p->rows[to].listed_logit[i] = logits[to - tile * bm];
        }
        r = run_end;
    }
}

static void prepare_tile(void *context, int tile, int thread) {
    const project *p = context;
    const int bm = p->cpu->kernels->block_m;
    for (int lane = 0; lane < bm; lane++) {
        const int r = tile * bm + lane;
        for (int t = 0; t < p->n_temperatures; t++)
            p->inv_t[((ptrdiff_t)tile * p->n_temperatures + t) * bm + lane] =
                r < p->n_rows && t < p->rows[r].n_temperatures ? (float)(1.0 / p->rows[r].temperatures[t]) : 1.0f;
    }
    target_logits(p, tile, thread);
    listed_logits(p, tile, thread);
}

static void offer_block(const project *p, int tile, int thread, int first_id, const float *logits, int n) {
    const int bm = p->cpu->kernels->block_m;
    float *threshold = p->threshold + ((ptrdiff_t)thread * p->n_tiles + tile) * bm;
    top_heap *heaps = p->heaps + (ptrdiff_t)thread * p->n_rows + (ptrdiff_t)tile * bm;
    uint32_t hits[PACK_COLS];
    p->cpu->kernels->find_above(logits, n, tile_rows(p, tile), threshold, hits);
    for (int c = 0; c < n; c++)
        for (uint32_t mask = hits[c]; mask; mask &= mask - 1) {
            const int lane = __builtin_ctz(mask);
            heap_offer(&heaps[lane], &threshold[lane], logits[c * bm + lane], first_id + c);
        }
}

static void fold_block(const project *p, int part, int tile, int thread, int first_id, const float *logits, int n) {
    const int bm = p->cpu->kernels->block_m;
    const ptrdiff_t at = (ptrdiff_t)part * p->n_tiles + tile;
    cpu_stats stats = {.max = p->max + at * bm,
                       .sums = p->sums + at * p->n_temperatures * 3 * bm,
                       .inv_t = p->inv_t + (ptrdiff_t)tile * p->n_temperatures * bm,
                       .n_temperatures = p->n_temperatures};
    p->cpu->kernels->stats(logits, n, tile_rows(p, tile), &stats);
    p->cpu->kernels->count_above(logits, n, tile_rows(p, tile), p->target + (ptrdiff_t)tile * bm, p->above + at * bm);
    offer_block(p, tile, thread, first_id, logits, n);
}

/// Gives the rows that want their logits a block of them.
static void store_block(const project *p, int tile, int first_id, const float *logits, int n) {
    const int bm = p->cpu->kernels->block_m, n_rows = tile_rows(p, tile);
    for (int lane = 0; lane < n_rows; lane++) {
        float *row = p->rows[tile * bm + lane].logits;
        for (int c = 0; row && c < n; c++) row[first_id + c] = logits[c * bm + lane];
    }
}

static void project_part(void *context, int part, int thread) {
    const project *p = context;
    float *logits = p->cpu->scratch[thread].tile;
    int unpacked = -1;
    memset(logits, 0, PACK_COLS * (size_t)p->cpu->kernels->block_m * sizeof *logits); // lanes that no row will fill
    for (int group = part * PART_GROUPS; group < MIN((part + 1) * PART_GROUPS, p->n_groups); group++) {
        const int first = group * PACK_COLS, n = MIN(PACK_COLS, p->output->n_out - first);
        const void *panel = unpack_group(p, thread, group, &unpacked);
        for (int tile = 0; tile < p->n_tiles; tile++) {
            block_logits(p, tile, panel, group, 0, n, logits);
            store_block(p, tile, first, logits, n);
            fold_block(p, part, tile, thread, first, logits, n);
        }
    }
}

// ------------------------------------------------------------------------------------------------------- merging

static void merge_sums(const project *p, int r) {
    const int bm = p->cpu->kernels->block_m, tile = r / bm, lane = r % bm;
    project_row *row = &p->rows[r];
    float max = -INFINITY;
    row->target_rank = 0;
    for (int part = 0; part < p->n_parts; part++) {
        const ptrdiff_t at = ((ptrdiff_t)part * p->n_tiles + tile) * bm + lane;
        if (!(p->max[at] <= max)) max = p->max[at];
        row->target_rank += p->above[at];
    }
    row->max = max;
    for (int t = 0; t < row->n_temperatures; t++) {
        double s0 = 0.0, s1 = 0.0, s2 = 0.0;
        for (int part = 0; part < p->n_parts; part++) {
            const ptrdiff_t at = (ptrdiff_t)part * p->n_tiles + tile;
            const double *sums = p->sums + (at * p->n_temperatures + t) * 3 * bm + lane;
            // as in cpu_kernels: a part's sums move to the common maximum
            const double d = ((double)p->max[at * bm + lane] - (double)max) / row->temperatures[t], e = exp(d);
            if (e == 0.0 && isfinite(sums[0])) continue; // what is not a number must stay seen
            s0 += e * sums[0];
            s1 += e * (sums[bm] + d * sums[0]);
            s2 += e * (sums[2 * bm] + d * (2.0 * sums[bm] + d * sums[0]));
        }
        row->sum_e[t] = s0;
        row->sum_xe[t] = s1;
        row->sum_xxe[t] = s2;
    }
}

/// Gathers the threads' heaps into the first one's buffer, which has room for 2N keys: cut whenever it is full.
static void merge_heaps(const project *p, int r) {
    top_heap *all = &p->heaps[r];
    project_row *row = &p->rows[r];
    float unused = 0.0f;
    for (int thread = 1; thread < p->cpu->base.n_threads; thread++) {
        const top_heap *heap = &p->heaps[(ptrdiff_t)thread * p->n_rows + r];
        for (int i = 0; i < heap->n; i++) {
            all->keys[all->n++] = heap->keys[i];
            if (all->n == 2 * all->top_n) heap_cut(all, &unused);
        }
    }
    heap_cut(all, &unused);
    qsort(all->keys, (size_t)all->n, sizeof *all->keys, compare_keys_descending);
    ASSERT(all->n == row->top_n); // top_n <= n_vocab, and a heap takes everything until it holds N
    for (int i = 0; i < row->top_n; i++) {
        row->top_id[i] = key_id(all->keys[i]);
        row->top_logit[i] = key_logit(all->keys[i]);
    }
}

static void merge_row(void *context, int r, int thread) {
    (void)thread;
    const project *p = context;
    merge_sums(p, r);
    if (p->rows[r].top_n > 0) merge_heaps(p, r);
}

// ------------------------------------------------------------------------------------------------- one chunk of rows

static size_t align64(size_t bytes) {
    return (bytes + 63) & ~(size_t)63;
}

/// Lays the chunk's arrays out at `memory`, or only measures them when it is NULL. Returns the bytes.
static size_t lay_out(project *p, uint8_t *memory) {
    const size_t bm = (size_t)p->cpu->kernels->block_m, lanes = (size_t)p->n_tiles * bm;
    const size_t threads = (size_t)p->cpu->base.n_threads, parts = (size_t)p->n_parts,
                 temps = (size_t)p->n_temperatures;
    size_t n_keys = 0;
    for (int r = 0; r < p->n_rows; r++) n_keys += 2 * (size_t)p->rows[r].top_n;
    size_t at = 0;
#define PLACE(field, count)                                                                                            \
    do {                                                                                                               \
        if (memory) p->field = (void *)(memory + at);                                                                  \
        at += align64((count) * sizeof *p->field);                                                                     \
    } while (0)
    PLACE(inv_t, lanes * temps);
    PLACE(target, lanes);
    PLACE(max, parts * lanes);
    PLACE(above, parts * lanes);
    PLACE(sums, parts * lanes * temps * 3);
    PLACE(threshold, threads * lanes);
    PLACE(heaps, threads * (size_t)p->n_rows);
    PLACE(keys, threads * n_keys);
#undef PLACE
    return at;
}

static void set_up_chunk(project *p) {
    const int bm = p->cpu->kernels->block_m, lanes = p->n_tiles * bm;
    ASSERT(p->max && p->above && p->sums && p->keys);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)p->n_parts * lanes; i++) p->max[i] = -INFINITY;
    memset(p->above, 0, (size_t)p->n_parts * (size_t)lanes * sizeof *p->above);
    memset(p->sums, 0, (size_t)p->n_parts * (size_t)lanes * (size_t)p->n_temperatures * 3 * sizeof *p->sums);
    uint64_t *keys = p->keys;
    for (int thread = 0; thread < p->cpu->base.n_threads; thread++)
        for (int r = 0; r < lanes; r++) {
            const int top_n = r < p->n_rows ? p->rows[r].top_n : 0;
            p->threshold[(ptrdiff_t)thread * lanes + r] = top_n > 0 ? NAN : INFINITY; // INFINITY: never a hit
            if (r >= p->n_rows) continue;
            p->heaps[(ptrdiff_t)thread * p->n_rows + r] = (top_heap){.keys = keys, .top_n = top_n};
            keys += 2 * top_n;
        }
}

/// The largest chunk from `first` on, in whole tiles, whose state fits STATE_BYTES (at least one tile).
static size_t choose_chunk(project *p, project_row *rows, int first, int n_rows) {
    const int bm = p->cpu->kernels->block_m;
    size_t bytes = 0;
    p->rows = rows + first;
    p->first_tile = first / bm;
    p->n_temperatures = 0;
    p->n_rows = p->n_tiles = 0;
    for (int end = first; end < n_rows;) {
        const project before = *p;
        end = MIN(end + bm, n_rows);
        for (int r = first + p->n_rows; r < end; r++)
            p->n_temperatures = MAX(p->n_temperatures, rows[r].n_temperatures);
        p->n_rows = end - first;
        p->n_tiles++;
        const size_t want = lay_out(p, NULL);
        if (want > STATE_BYTES && before.n_rows > 0) {
            *p = before;
            break;
        }
        bytes = want;
    }
    return bytes;
}

static bool grow_state(cpu_backend *cpu, size_t bytes) {
    if (cpu->project_bytes >= bytes) return true;
    mem_free(cpu->project_memory);
    cpu->project_memory = mem_alloc(bytes, 1);
    cpu->project_bytes = cpu->project_memory ? bytes : 0;
    return cpu->project_memory != NULL;
}

logitd_status cpu_project_stats(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                const backend_weight *output_bias, float softcap, int n_rows, project_row *rows,
                                logitd_error *err) {
    ASSERT(hidden->n_features == output->n_in);
    cpu_backend *cpu = cpu_of(b);
    project p = {.cpu = cpu,
                 .kernels = hidden->bm == cpu->kernels->block_m ? cpu->kernels : cpu->kernels->single,
                 .output = &output->matrix,
                 .bias = output_bias ? output_bias->vector : NULL,
                 .softcap = softcap};
    p.product = cpu_choose_product(cpu, p.kernels, p.output);
    p.acts = cpu_prepare_acts(cpu, p.kernels, p.product, hidden, n_rows, &p.tile_bytes);
    p.n_groups = cpu_matrix_groups(p.output);
    p.n_parts = (p.n_groups + PART_GROUPS - 1) / PART_GROUPS;
    for (int first = 0; first < n_rows; first += p.n_rows) {
        const size_t bytes = choose_chunk(&p, rows, first, n_rows);
        if (!grow_state(cpu, bytes))
            return error_set(err, LOGITD_ENOMEM, "there is no memory for the statistics of %d positions", p.n_rows);
        lay_out(&p, cpu->project_memory);
        set_up_chunk(&p);
        cpu_pool_run(cpu->pool, prepare_tile, &p, p.n_tiles);
        cpu_pool_run(cpu->pool, project_part, &p, p.n_parts);
        cpu_pool_run(cpu->pool, merge_row, &p, p.n_rows);
    }
    return LOGITD_OK;
}
