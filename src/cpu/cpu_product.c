/*
 * cpu_product.c: products of a buffer's rows with a weight. A group of PACK_COLS weight rows is unpacked to the
 * thread's scratch once (L2 keeps it) and multiplied with tile after tile of rows; threads share out groups, and runs
 * of tiles where groups are few. Which thread does what never shows in a result.
 */
#include "cpu/cpu_impl.h"

/// Of quantised weights by whole numbers; NULL: none.
static const cpu_product *choose_limbs(const cpu_backend *cpu, const cpu_kernels *kernels) {
    return cpu->fast ? kernels->product_fast : kernels->product_limbs;
}

const cpu_product *cpu_choose_product(const cpu_backend *cpu, const cpu_kernels *kernels, const cpu_matrix *w) {
    const cpu_product *limbs = choose_limbs(cpu, kernels);
    return w->format->bits == 0 || !limbs ? kernels->product : limbs;
}

size_t cpu_product_panel_bytes(const cpu_backend *cpu, const cpu_matrix *w) {
    const cpu_product *product = cpu_choose_product(cpu, cpu->kernels, w);
    return product->panel_bytes ? product->panel_bytes(w) : 0;
}

static size_t tile_acts_bytes(const cpu_product *product, int n_features) {
    return (product->acts_bytes(n_features) + 63) & ~(size_t)63;
}

size_t cpu_product_acts_bytes(const cpu_backend *cpu, int n_rows, int n_features) {
    const cpu_kernels *tables[] = {cpu->kernels, cpu->kernels->single};
    const int rows[] = {n_rows, MIN(n_rows, cpu->kernels->single_rows)};
    size_t most = 0;
    for (int i = 0; i < 2; i++) {
        const cpu_product *product = tables[i] ? choose_limbs(cpu, tables[i]) : NULL;
        if (!product) continue;
        most = MAX(most, tile_acts_bytes(product, n_features) * (size_t)cpu_n_tiles(tables[i], rows[i]));
    }
    return most;
}

static cpu_eager start_preparing(cpu_backend *cpu, const cpu_product *product, const backend_buffer *buf) {
    const cpu_eager eager = {product, cpu->acts, tile_acts_bytes(product, buf->n_features)};
    cpu->acts_version = buf->version;
    cpu->acts_product = product;
    return eager;
}

cpu_eager cpu_prepare_eagerly(cpu_backend *cpu, const cpu_kernels *kernels, const backend_buffer *buf) {
    const cpu_product *product = choose_limbs(cpu, kernels);
    return buf->multiplied && product ? start_preparing(cpu, product, buf) : (cpu_eager){0};
}

void cpu_prepare_tile(const cpu_eager *eager, const backend_buffer *buf, int tile) {
    if (eager->product)
        eager->product->prepare(cpu_tile(buf, tile), buf->n_features, eager->acts + (size_t)tile * eager->tile_bytes);
}

typedef struct prepare_job {
    cpu_eager eager;
    const backend_buffer *x;
} prepare_job;

static void prepare_item(void *context, int tile, int thread) {
    (void)thread;
    const prepare_job *job = context;
    cpu_prepare_tile(&job->eager, job->x, tile);
}

const void *cpu_prepare_acts(cpu_backend *cpu, const cpu_kernels *kernels, const cpu_product *product,
                             const backend_buffer *x, int n_rows, size_t *tile_bytes) {
    ASSERT(x->bm == kernels->block_m);
    if (!product->prepare) {
        *tile_bytes = cpu_pad((size_t)x->n_features * (size_t)x->bm) * sizeof(float);
        return x->data;
    }
    ((backend_buffer *)(uintptr_t)x)->multiplied = true; // a note about it, not a part of it
    *tile_bytes = tile_acts_bytes(product, x->n_features);
    if (cpu->acts_version == x->version && cpu->acts_product == product) return cpu->acts;
    const int n_tiles = cpu_n_tiles(kernels, n_rows);
    ASSERT(*tile_bytes * (size_t)n_tiles <= cpu->acts_bytes);
    prepare_job job = {start_preparing(cpu, product, x), x};
    cpu_pool_run(cpu->pool, prepare_item, &job, n_tiles);
    return cpu->acts;
}

/// Products of one kind with the same rows. Groups are counted over all parts.
typedef struct matmul_job {
    const cpu_backend *cpu;
    const cpu_kernels *kernels;
    const cpu_product *product;
    const matmul_part *parts;
    const uint8_t *acts;
    size_t tile_bytes;
    int n_tiles, chunk;        // tiles in all, and of one item
    int n_groups, group_chunk; // the same of groups
} matmul_job;

static void matmul_group(const matmul_job *job, int group, int first_tile, int end_tile, int thread) {
    const matmul_part *part = job->parts;
    for (; group >= cpu_matrix_groups(&part->w->matrix); part++) group -= cpu_matrix_groups(&part->w->matrix);
    const cpu_matrix *w = &part->w->matrix;
    const int col = group * PACK_COLS, n_cols = MIN(PACK_COLS, w->n_out - col);
    void *panel = job->cpu->scratch[thread].panel;
    if (job->product->unpack) job->product->unpack(w, group, panel);
    for (int tile = first_tile; tile < end_tile; tile++) {
        float *out = cpu_tile(part->out, tile) + (size_t)col * (size_t)part->out->bm;
        job->product->multiply(w, group, panel, job->acts + (size_t)tile * job->tile_bytes, 0, n_cols, out);
        if (part->bias) job->kernels->add_scalar(n_cols, out, part->bias->vector + col);
    }
}

static void matmul_item(void *context, int item, int thread) {
    const matmul_job *job = context;
    const int n_chunks = (job->n_tiles + job->chunk - 1) / job->chunk;
    const int first_group = item / n_chunks * job->group_chunk, first_tile = item % n_chunks * job->chunk;
    for (int group = first_group; group < MIN(first_group + job->group_chunk, job->n_groups); group++)
        matmul_group(job, group, first_tile, MIN(first_tile + job->chunk, job->n_tiles), thread);
}

static void run_parts(cpu_backend *cpu, const cpu_product *product, const backend_buffer *x, const matmul_part *parts,
                      int n_parts, int n_rows) {
    // Tiles: even shares, but unpacking is worth a few tiles. Single rows: long runs of groups, since two threads that
    // take turns in one stream halve its speed (each prefetches what the other will read).
    enum { ITEMS_PER_THREAD = 8, FEWEST_TILES = 4, STREAMS_PER_THREAD = 4, FEWEST_GROUPS = 16 };
    const cpu_kernels *kernels = cpu_kernels_for(cpu, n_rows);
    const int n_threads = cpu->base.n_threads;
    matmul_job job = {.cpu = cpu, .kernels = kernels, .product = product, .parts = parts};
    job.n_tiles = cpu_n_tiles(kernels, n_rows);
    job.acts = cpu_prepare_acts(cpu, kernels, product, x, n_rows, &job.tile_bytes);
    for (int i = 0; i < n_parts; i++) {
        const backend_weight *w = parts[i].w, *bias = parts[i].bias;
        ASSERT(x->n_features == w->n_in && parts[i].out->n_features == w->n_out && (!bias || bias->n_out == w->n_out));
        job.n_groups += cpu_matrix_groups(&w->matrix);
        cpu_will_write(cpu, parts[i].out, kernels);
    }
    const int share = (job.n_groups + n_threads - 1) / n_threads; // of a thread
    job.group_chunk = kernels->block_m == 1 ? MIN(share, MAX(FEWEST_GROUPS, share / STREAMS_PER_THREAD)) : 1;
    const int n_group_items = (job.n_groups + job.group_chunk - 1) / job.group_chunk;
    const int wanted = (n_threads * ITEMS_PER_THREAD + job.n_groups - 1) / job.n_groups; // runs of tiles
    job.chunk = MAX(MIN(FEWEST_TILES, job.n_tiles), job.n_tiles / wanted);
    cpu_pool_run(cpu->pool, matmul_item, &job, n_group_items * ((job.n_tiles + job.chunk - 1) / job.chunk));
}

void cpu_matmul_parts(backend *b, const backend_buffer *x, const matmul_part *parts, int n_parts, int n_rows) {
    cpu_backend *cpu = cpu_of(b);
    const cpu_kernels *kernels = cpu_kernels_for(cpu, n_rows);
    for (int first = 0, end; first < n_parts; first = end) { // runs of parts that want the same product
        const cpu_product *product = cpu_choose_product(cpu, kernels, &parts[first].w->matrix);
        for (end = first + 1; end < n_parts; end++)
            if (cpu_choose_product(cpu, kernels, &parts[end].w->matrix) != product) break;
        run_parts(cpu, product, x, parts + first, end - first, n_rows);
    }
}

void cpu_matmul(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, int n_rows,
                backend_buffer *out) {
    const matmul_part part = {w, bias, out};
    cpu_matmul_parts(b, x, &part, 1, n_rows);
}
