/*
 * cuda_project.c: products on the device, and the final projection: rows in chunks whose state fits, each chunk four
 * launches (packing, targets and listed logits, statistics of tiles, merge) and one copy back. The kernels and what
 * they promise are in cuda/matmul.cu and cuda/project_stats.cu.
 */
#include "cuda/cuda_impl.h"
#include <math.h>
#include <string.h>

enum {
    CHUNK_ROWS = 64,        // chunks are multiples of it, so that each starts at a tile
    MAX_PART_TILES = 16,    // tiles of a part at most: the fewer parts, the shorter the lists to merge
    BLOCKS_A_PROCESSOR = 4, // parts are made small enough for so many blocks
};
static const size_t STATE_BYTES = 192u << 20; // of one chunk, unless a single tile of rows needs more

// ------------------------------------------------------------------------------------------------------- products

static int pad_rows(int n_rows) {
    return n_rows <= BLOCK_M_SMALL ? BLOCK_M_SMALL : cuda_round_up(n_rows, BLOCK_M_LARGE);
}

size_t cuda_packed_bytes(int n_rows, int n_features) { // of limbs, which are more than bf16
    const size_t k_pad = (size_t)cuda_round_up(n_features, BLOCK_K), rows = (size_t)pad_rows(n_rows);
    return rows * k_pad * LIMBS_PLANES + rows * (k_pad / 16) * LIMBS_SCALE;
}

void cuda_pack_rows(cuda_backend *cuda, const backend_buffer *x, const backend_weight *w, int n_rows) {
    const int group = cuda_packing_group(w->packing), k_pad = cuda_round_up(x->n_features, BLOCK_K);
    ASSERT(x->n_features == w->n_in && n_rows <= x->n_rows);
    if (cuda->packed_of == x && cuda->packed_rows == n_rows && cuda->packed_group == group) return;
    logitd_error err = {0};
    if (!cuda_scratch_grow(cuda, &cuda->packed_memory, cuda_packed_bytes(n_rows, x->n_features), "packed rows", &err)) {
        cuda_fail(cuda, &err);
        return;
    }
    const int n_rows_pad = pad_rows(n_rows);
    const uint64_t value_bytes = cuda->bf16 ? sizeof(uint16_t) : LIMBS_PLANES;
    cuda->packed =
        (packed_matrix){.elements = cuda->packed_memory.data,
                        .scales = cuda->packed_memory.data + (uint64_t)n_rows_pad * (uint64_t)k_pad * value_bytes,
                        .n_rows_pad = n_rows_pad,
                        .k_pad = k_pad};
    const pack_params params = {.x = x->data,
                                .elements = cuda->packed.elements,
                                .scales = cuda->packed.scales,
                                .n_rows = n_rows,
                                .n_in = x->n_features,
                                .n_rows_pad = n_rows_pad,
                                .k_pad = k_pad,
                                .group = group};
    cuda_launch(cuda, cuda->bf16 ? KERNEL_pack_bf16 : KERNEL_pack_limbs,
                cuda_round_up(k_pad, 4 * FLAT_THREADS) / (4 * FLAT_THREADS), n_rows_pad, 0, &params);
    cuda->packed_of = x;
    cuda->packed_rows = n_rows;
    cuda->packed_group = group;
}

/// The rows from `first` on, a multiple of BLOCK_M_SMALL.
static packed_matrix rows_from(const cuda_backend *cuda, int first) {
    packed_matrix m = cuda->packed;
    m.elements += (uint64_t)first * (uint64_t)m.k_pad * (cuda->bf16 ? sizeof(uint16_t) : 1);
    m.scales += (uint64_t)first * (cuda->bf16 ? BF16_SCALE : LIMBS_SCALE);
    return m;
}

static int block_m(int n_rows) {
    return n_rows <= BLOCK_M_SMALL ? BLOCK_M_SMALL : BLOCK_M_LARGE;
}

/// The row of kernels.def of a product with w, from the first of its kind on.
static cuda_kernel variant(const cuda_backend *cuda, cuda_kernel first, const backend_weight *w, int n_rows) {
    return (cuda_kernel)((int)first + 2 * (cuda->bf16 * N_PACKINGS + w->packing) + (n_rows <= BLOCK_M_SMALL));
}

void cuda_multiply(cuda_backend *cuda, const packed_matrix *x, const backend_weight *w, const backend_weight *bias,
                   int n_rows, float softcap, cuda_address out) {
    const matmul_params params = {.x = *x,
                                  .w = w->packed,
                                  .bias = bias ? bias->memory : 0,
                                  .out = out,
                                  .n_rows = n_rows,
                                  .n_out = w->n_out,
                                  .softcap = softcap};
    const cuda_kernel kernel = variant(cuda, KERNEL_matmul_n32_m64, w, n_rows);
    cuda_launch(cuda, kernel, pad_rows(n_rows) / block_m(n_rows), w->packed.n_rows_pad / BLOCK_N,
                cuda_kernel_shared_bytes(kernel), &params);
}

/// Rows of logits that are made at once: half of them, in whole small tiles, so that there are two to overlap.
static int logit_rows(int n_rows) {
    return MIN(CHUNK_ROWS, cuda_round_up((n_rows + 1) / 2, BLOCK_M_SMALL));
}

/// Rows of logits are made in two buffers in turn: while one is copied to the host, the other is filled.
logitd_status cuda_project_logits(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                  const backend_weight *output_bias, float softcap, int n_rows, float *out,
                                  logitd_error *err) {
    cuda_backend *cuda = cuda_of(b);
    const int part_rows = logit_rows(n_rows);
    const size_t row_bytes = (size_t)output->n_out * sizeof(float), part_bytes = (size_t)part_rows * row_bytes;
    if (!cuda_scratch_grow(cuda, &cuda->project, 2 * part_bytes, "rows of logits", err))
        return err ? err->status : LOGITD_ENOMEM;
    cuda_pack_rows(cuda, hidden, output, n_rows);
    for (int part = 0; part * part_rows < n_rows + part_rows; part++) {
        const int first = part * part_rows, before = first - part_rows;
        if (first < n_rows) {
            const packed_matrix x = rows_from(cuda, first);
            cuda_multiply(cuda, &x, output, output_bias, MIN(part_rows, n_rows - first), softcap,
                          cuda->project.data + (uint64_t)(part % 2) * part_bytes);
            cuda_mark(cuda, part % 2);
        }
        if (before >= 0)
            cuda_download_marked(cuda, 1 - part % 2, out + (size_t)before * (size_t)output->n_out,
                                 cuda->project.data + (uint64_t)(1 - part % 2) * part_bytes,
                                 (size_t)MIN(part_rows, n_rows - before) * row_bytes);
    }
    cuda_wait(cuda);
    return cuda_report(cuda, err);
}

// ------------------------------------------------------------------------------------------------- a chunk of rows

/// Where the arrays of a chunk lie in its state on the device: inputs, results, and what stays there. The first
/// input_bytes and the result_bytes after them have a copy at the same offsets in host memory.
typedef struct chunk {
    cuda_backend *cuda;
    const backend_weight *output;
    project_row *rows; // [n_rows]
    int first, n_rows, n_rows_pad;
    int n_tiles, part_tiles, n_parts, n_temperatures, max_top_n, top_room, n_pairs;
    size_t temperatures, inv_t, top_n, pairs;              // inputs
    size_t pair_logits, above, out_sums, out_max, out_top; // results
    size_t max, sums, keys, n_keys;                        // on the device alone
    size_t input_bytes, result_bytes, state_bytes;
} chunk;

static size_t place(size_t *at, size_t n, size_t size) {
    const size_t here = *at;
    *at += (n * size + 255) & ~(size_t)255;
    return here;
}

static void lay_out(chunk *c) {
    const size_t rows = (size_t)c->n_rows, rows_pad = (size_t)c->n_rows_pad, temps = (size_t)c->n_temperatures,
                 tiles = (size_t)c->n_tiles, lists = (size_t)c->n_parts * rows, pairs = (size_t)c->n_pairs;
    size_t at = 0;
    c->temperatures = place(&at, rows_pad * temps, sizeof(double));
    c->inv_t = place(&at, rows_pad * temps, sizeof(float));
    c->top_n = place(&at, rows_pad, sizeof(int));
    c->pairs = place(&at, pairs, sizeof(logit_pair));
    c->input_bytes = at;
    c->pair_logits = place(&at, pairs, sizeof(float));
    c->above = place(&at, rows_pad, sizeof(int));
    c->out_sums = place(&at, rows * temps * 3, sizeof(double));
    c->out_max = place(&at, rows, sizeof(float));
    c->out_top = place(&at, rows * (size_t)c->max_top_n, sizeof(uint64_t));
    c->result_bytes = at - c->input_bytes;
    c->max = place(&at, tiles * rows_pad, sizeof(float));
    c->sums = place(&at, tiles * temps * 3 * rows_pad, sizeof(float));
    c->keys = place(&at, lists * (size_t)c->top_room, sizeof(uint64_t));
    c->n_keys = place(&at, lists, sizeof(int));
    c->state_bytes = at;
}

/// Sizes of a chunk of n rows, whose temperatures, entries and pairs are known.
static void size_up(chunk *c, int n) {
    c->n_rows = n;
    c->n_rows_pad = pad_rows(n);
    c->top_room = c->max_top_n > 0 ? c->max_top_n + TOP_ROOM : 0;
    c->n_tiles = cuda_round_up(c->output->n_out, BLOCK_N) / BLOCK_N;
    const int blocks = c->cuda->n_multiprocessors * BLOCKS_A_PROCESSOR, row_tiles = c->n_rows_pad / block_m(n);
    c->part_tiles = MAX(1, MIN(MAX_PART_TILES, c->n_tiles * row_tiles / blocks));
    c->n_parts = (c->n_tiles + c->part_tiles - 1) / c->part_tiles;
    lay_out(c);
}

/// The same of the next n rows.
static void measure(chunk *c, int n) {
    c->n_temperatures = 1;
    c->max_top_n = 0;
    c->n_pairs = pad_rows(n); // the targets
    for (int r = 0; r < n; r++) {
        c->n_temperatures = MAX(c->n_temperatures, c->rows[r].n_temperatures);
        c->max_top_n = MAX(c->max_top_n, c->rows[r].top_n);
        c->n_pairs += c->rows[r].n_listed;
    }
    size_up(c, n);
}

/// The most rows whose state fits STATE_BYTES, in whole tiles, at least one.
static void choose_rows(chunk *c, int n_left) {
    measure(c, n_left);
    for (int n = n_left; c->state_bytes > STATE_BYTES && n > CHUNK_ROWS;) {
        n = MAX(n / 2 / CHUNK_ROWS, 1) * CHUNK_ROWS;
        measure(c, n);
    }
}

static void write_inputs(const chunk *c, uint8_t *host) {
    double *temperatures = (double *)(void *)(host + c->temperatures);
    float *inv_t = (float *)(void *)(host + c->inv_t);
    int *top_n = (int *)(void *)(host + c->top_n);
    logit_pair *pairs = (logit_pair *)(void *)(host + c->pairs);
    int n_pairs = c->n_rows_pad;
    for (int r = 0; r < c->n_rows_pad; r++) {
        const project_row *row = r < c->n_rows ? &c->rows[r] : NULL;
        for (int t = 0; t < c->n_temperatures; t++) {
            const double temperature = row && t < row->n_temperatures ? row->temperatures[t] : 1.0;
            temperatures[r * c->n_temperatures + t] = temperature;
            inv_t[r * c->n_temperatures + t] = (float)(1.0 / temperature);
        }
        top_n[r] = row ? row->top_n : 0;
        pairs[r] = (logit_pair){.row = r, .id = row ? row->target_id : -1};
        for (int i = 0; row && i < row->n_listed; i++)
            pairs[n_pairs++] = (logit_pair){.row = r, .id = row->listed_ids[i]};
    }
    ASSERT(n_pairs == c->n_pairs);
}

static void launch_chunk(const chunk *c, const backend_weight *bias, float softcap) {
    cuda_backend *cuda = c->cuda;
    const backend_weight *w = c->output;
    const packed_matrix x = rows_from(cuda, c->first);
    const cuda_address state = cuda->project.data, bias_data = bias ? bias->memory : 0;
    const int pairs_a_block = PAIR_THREADS / 32 * 8;
    const pair_params pairs = {.x = x,
                               .w = w->packed,
                               .bias = bias_data,
                               .pairs = state + c->pairs,
                               .out = state + c->pair_logits,
                               .n_pairs = c->n_pairs,
                               .softcap = softcap};
    const cuda_kernel pair_kernel = (cuda_kernel)(KERNEL_pair_logits_n32 + cuda->bf16 * N_PACKINGS + w->packing);
    cuda_launch(cuda, pair_kernel, cuda_round_up(c->n_pairs, pairs_a_block) / pairs_a_block, 1, 0, &pairs);
    const stats_params stats = {.x = x,
                                .w = w->packed,
                                .bias = bias_data,
                                .n_rows = c->n_rows,
                                .n_rows_pad = c->n_rows_pad,
                                .n_out = w->n_out,
                                .softcap = softcap,
                                .n_tiles = c->n_tiles,
                                .part_tiles = c->part_tiles,
                                .n_temperatures = c->n_temperatures,
                                .inv_t = state + c->inv_t,
                                .target = state + c->pair_logits,
                                .top_n = state + c->top_n,
                                .max = state + c->max,
                                .sums = state + c->sums,
                                .above = state + c->above,
                                .top_room = c->top_room,
                                .keys = state + c->keys,
                                .n_keys = state + c->n_keys};
    const cuda_kernel kernel = variant(cuda, KERNEL_project_stats_n32_m64, w, c->n_rows);
    cuda_launch(cuda, kernel, c->n_rows_pad / block_m(c->n_rows), c->n_parts, cuda_kernel_shared_bytes(kernel), &stats);
    const merge_params merge = {.n_rows = c->n_rows,
                                .n_rows_pad = c->n_rows_pad,
                                .n_tiles = c->n_tiles,
                                .n_parts = c->n_parts,
                                .n_temperatures = c->n_temperatures,
                                .top_room = c->top_room,
                                .max_top_n = c->max_top_n,
                                .temperatures = state + c->temperatures,
                                .top_n = state + c->top_n,
                                .max = state + c->max,
                                .sums = state + c->sums,
                                .keys = state + c->keys,
                                .n_keys = state + c->n_keys,
                                .out_sums = state + c->out_sums,
                                .out_max = state + c->out_max,
                                .out_top = state + c->out_top};
    cuda_launch(cuda, KERNEL_project_merge, c->n_rows, 1, 0, &merge);
}

/// The logit of a key (make_key of project_stats.cu).
static float key_logit(uint64_t key) {
    uint32_t bits = (uint32_t)(key >> 32);
    bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
    float logit;
    memcpy(&logit, &bits, sizeof logit);
    return logit;
}

static void read_results(const chunk *c, const uint8_t *host) {
    const float *pair_logits = (const float *)(const void *)(host + c->pair_logits),
                *listed = pair_logits + c->n_rows_pad;
    const int *above = (const int *)(const void *)(host + c->above);
    const double *sums = (const double *)(const void *)(host + c->out_sums);
    const float *max = (const float *)(const void *)(host + c->out_max);
    const uint64_t *top = (const uint64_t *)(const void *)(host + c->out_top);
    for (int r = 0; r < c->n_rows; r++) {
        project_row *row = &c->rows[r];
        row->max = max[r];
        if (row->target_id >= 0) row->target_logit = pair_logits[r];
        row->target_rank = above[r];
        for (int t = 0; t < row->n_temperatures; t++) {
            const double *of_t = sums + ((size_t)r * (size_t)c->n_temperatures + (size_t)t) * 3;
            row->sum_e[t] = of_t[0];
            row->sum_xe[t] = of_t[1];
            row->sum_xxe[t] = of_t[2];
        }
        for (int i = 0; i < row->top_n; i++) {
            const uint64_t key = top[(size_t)r * (size_t)c->max_top_n + (size_t)i];
            row->top_id[i] = (int32_t) ~(uint32_t)key;
            row->top_logit[i] = key_logit(key);
        }
        for (int i = 0; i < row->n_listed; i++) row->listed_logit[i] = *listed++;
    }
}

static bool grow_host(cuda_backend *cuda, size_t n_bytes, logitd_error *err) {
    if (cuda->project_host_bytes >= n_bytes) return true;
    mem_free(cuda->project_host);
    cuda->project_host = mem_alloc(n_bytes, 1);
    cuda->project_host_bytes = cuda->project_host ? n_bytes : 0;
    if (!cuda->project_host) error_set(err, LOGITD_ENOMEM, "there is no memory for the statistics of a batch");
    return cuda->project_host != NULL;
}

/// A chunk is as large as its rows need, up to STATE_BYTES or to one of CHUNK_ROWS, whichever is more.
logitd_status cuda_project_reserve(backend *b, const backend_weight *output, const project_limits *most,
                                   logitd_error *err) {
    cuda_backend *cuda = cuda_of(b);
    size_t state_bytes = 2 * (size_t)logit_rows(most->n_full_rows) * (size_t)output->n_out * sizeof(float),
           host_bytes = 0;
    chunk c = {.cuda = cuda, .output = output, .n_temperatures = most->n_temperatures, .max_top_n = most->top_n};
    for (int n = MIN(CHUNK_ROWS, most->n_rows);; n = MIN(n + CHUNK_ROWS, most->n_rows)) {
        c.n_pairs = pad_rows(n) + n * most->n_listed;
        size_up(&c, n);
        if (n <= CHUNK_ROWS || c.state_bytes <= STATE_BYTES) {
            state_bytes = MAX(state_bytes, c.state_bytes);
            host_bytes = MAX(host_bytes, c.input_bytes + c.result_bytes);
        } else {
            state_bytes = MAX(state_bytes, STATE_BYTES); // fewer entries fit in that, and may fill it
        }
        if (n == most->n_rows) break;
    }
    if (!cuda_scratch_grow(cuda, &cuda->project, state_bytes, "the statistics of a batch", err) ||
        !grow_host(cuda, host_bytes, err))
        return cuda_failed(cuda) ? cuda_report(cuda, err) : LOGITD_ENOMEM;
    log_line(LOG_INFO, "the GPU (%s) holds %.1f MB: weights, KV cache, buffers of a batch, and %.1f MB for statistics",
             cuda->name, (double)cuda->n_device_bytes / 1e6, (double)state_bytes / 1e6);
    return LOGITD_OK;
}

logitd_status cuda_project_stats(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                 const backend_weight *output_bias, float softcap, int n_rows, project_row *rows,
                                 logitd_error *err) {
    ASSERT(!rows->logits); // cuda_project_logits makes them
    cuda_backend *cuda = cuda_of(b);
    cuda_pack_rows(cuda, hidden, output, n_rows);
    chunk c = {.cuda = cuda, .output = output};
    for (; c.first < n_rows; c.first += c.n_rows) {
        c.rows = rows + c.first;
        choose_rows(&c, n_rows - c.first);
        if (!grow_host(cuda, c.input_bytes + c.result_bytes, err) ||
            !cuda_scratch_grow(cuda, &cuda->project, c.state_bytes, "the statistics of a batch", err))
            return cuda_failed(cuda) ? cuda_report(cuda, err) : LOGITD_ENOMEM;
        write_inputs(&c, cuda->project_host);
        cuda_upload(cuda, cuda->project.data, cuda->project_host, c.input_bytes);
        if (!cuda_failed(cuda))
            cuda_ok(cuda,
                    cuda->driver->MemsetD8Async(cuda->project.data + c.above, 0, (size_t)c.n_rows_pad * sizeof(int),
                                                cuda->stream),
                    "clearing its memory");
        launch_chunk(&c, output_bias, softcap);
        cuda_download(cuda, cuda->project_host + c.input_bytes, cuda->project.data + c.input_bytes, c.result_bytes);
        if (cuda_failed(cuda)) return cuda_report(cuda, err);
        read_results(&c, cuda->project_host);
    }
    return LOGITD_OK;
}
