/*
 * cpu_backend.c: the backend's table on the CPU: weights, buffers, and the operations that are a loop over tiles.
 * Products are in cpu_product.c, attention in cpu_attention.c, the final projection in cpu_project.c.
 *
 * A weight's packed copy (cpu_pack.h) is made when it is created, by all threads. Batches of a few rows are done in
 * tiles of one row, larger ones in the level's tiles; every operation of a batch makes the same choice, and a row's
 * bits are the same in both.
 */
#include "cpu/cpu_impl.h"
#include <math.h>
#include <string.h>

// ------------------------------------------------------------------------------------------ weights and buffers

static bool grow(float **memory, size_t *have, size_t want) {
    if (*have >= want) return true;
    mem_free(*memory);
    *memory = mem_alloc(want, sizeof(float));
    *have = *memory ? want : 0;
    return *memory != NULL;
}

static bool grow_scratch(cpu_backend *cpu, size_t panel_floats, size_t tile_floats) {
    for (int i = 0; i < cpu->base.n_threads; i++) {
        cpu_scratch *s = &cpu->scratch[i];
        if (!grow(&s->panel, &s->panel_floats, panel_floats) || !grow(&s->tile, &s->tile_floats, tile_floats))
            return false;
    }
    return true;
}

static void weight_destroy(backend *b, backend_weight *w) {
    (void)b;
    if (!w) return;
    mem_free(w->vector);
    mem_free(w);
}

/// Elements first_out … of a 1-D tensor; they may start inside a block, so it is unpacked whole.
static bool load_vector(backend_weight *w, const gguf_tensor *tensor, int first_out) {
    const size_t n = (size_t)tensor->dims[0];
    float *all = mem_alloc(n, sizeof(float));
    w->vector = mem_alloc(cpu_pad((size_t)w->n_out), sizeof(float));
    if (all && w->vector) {
        tensor->type->dequantize(tensor->data, all, n);
        memcpy(w->vector, all + first_out, (size_t)w->n_out * sizeof(float));
    }
    mem_free(all);
    return all && w->vector;
}

/// Packed weights lie in few large blocks of huge pages: at one position they are all read once, and page walks cost a
/// third of the time (measured). Each is twice the one before, up to a size, so that a small model takes little. The
/// blocks belong to the backend and go with it.
static uint8_t *weight_alloc(cpu_backend *cpu, size_t bytes) {
    enum { HUGE_PAGE = 2 << 20 };
    const size_t want = (bytes + 63) & ~(size_t)63;
    cpu_weight_block *block = cpu->weights;
    if (!block || block->cap - block->used < want) {
        const size_t next =
            block ? MIN(2 * block->cap, (size_t)CPU_WEIGHT_BLOCK_BYTES_MAX) : (size_t)CPU_WEIGHT_BLOCK_BYTES_MIN;
        const size_t cap = MAX(want, next), alignment = cap >= HUGE_PAGE ? HUGE_PAGE : 64;
        block = mem_alloc(1, sizeof *block);
        if (!block) return NULL;
        block->memory = mem_alloc(cap + alignment, 1); // untouched pages cost nothing
        if (!block->memory) {
            mem_free(block);
            return NULL;
        }
        block->data = block->memory + (alignment - (uintptr_t)block->memory % alignment);
        block->cap = cap;
        block->next = cpu->weights;
        cpu->weights = block;
        if (cap >= HUGE_PAGE) mem_advise_huge(block->data, cap);
    }
    uint8_t *data = block->data + block->used;
    block->used += want;
    return data;
}

static void weights_free(cpu_backend *cpu) {
    while (cpu->weights) {
        cpu_weight_block *block = cpu->weights;
        cpu->weights = block->next;
        mem_free(block->memory);
        mem_free(block);
    }
}

typedef struct pack_job {
    const cpu_backend *cpu;
    const cpu_matrix *matrix;
} pack_job;

static void pack_item(void *context, int group, int thread) {
    const pack_job *job = context;
    cpu_pack_group(job->matrix, group, job->cpu->scratch[thread].panel);
}

static bool load_matrix(cpu_backend *cpu, backend_weight *w, const gguf_tensor *tensor, int first_out,
                        bool multiplied) {
    cpu_matrix *matrix = &w->matrix;
    w->n_in = (int)tensor->dims[0];
    *matrix = cpu_matrix_make(tensor->type, tensor->data, w->n_out, w->n_in);
    matrix->rows += (size_t)first_out * matrix->row_bytes;
    const size_t panel_floats = (cpu_product_panel_bytes(cpu, matrix) + sizeof(float) - 1) / sizeof(float);
    const size_t row_floats = MAX((size_t)w->n_in, cpu_pack_scratch_floats(matrix));
    if (!grow_scratch(cpu, MAX(panel_floats, row_floats), 0)) return false;
    if (!multiplied || !cpu->kernels->packs) return true;
    matrix->data = weight_alloc(cpu, cpu_pack_bytes(matrix));
    if (!matrix->data) return false;
    pack_job job = {cpu, matrix};
    cpu_pool_run(cpu->pool, pack_item, &job, cpu_matrix_groups(matrix));
    return true;
}

static backend_weight *weight_create(backend *b, const gguf_tensor *tensor, int first_out, int n_out, bool multiplied,
                                     logitd_error *err) {
    backend_weight *w = mem_alloc(1, sizeof *w);
    if (w) {
        w->n_out = n_out;
        if (tensor->n_dims == 1 ? load_vector(w, tensor, first_out)
                                : load_matrix(cpu_of(b), w, tensor, first_out, multiplied))
            return w;
    }
    weight_destroy(b, w);
    error_set(err, LOGITD_ENOMEM, "there is no memory for the weights of tensor %.*s", (int)tensor->name.len,
              tensor->name.data);
    return NULL;
}

static bool grow_acts(cpu_backend *cpu, size_t bytes) {
    if (cpu->acts_bytes >= bytes) return true;
    mem_free(cpu->acts);
    cpu->acts = mem_alloc(bytes, 1);
    cpu->acts_bytes = cpu->acts ? bytes : 0;
    cpu->acts_version = 0;
    return cpu->acts != NULL;
}

static backend_buffer *buffer_create(backend *b, int n_rows, int n_features) {
    cpu_backend *cpu = cpu_of(b);
    const int block_m = cpu->kernels->block_m;
    backend_buffer *buf = mem_alloc(1, sizeof *buf);
    if (!buf) return NULL;
    *buf = (backend_buffer){.n_rows = n_rows, .n_features = n_features, .bm = block_m};
    const size_t rows = (size_t)cpu_n_tiles(cpu->kernels, n_rows) * (size_t)block_m;
    buf->data = mem_alloc(rows * cpu_pad((size_t)n_features), sizeof(float));
    if (buf->data && grow_acts(cpu, cpu_product_acts_bytes(cpu, n_rows, n_features))) return buf;
    mem_free(buf->data);
    mem_free(buf);
    return NULL;
}

static void buffer_destroy(backend *b, backend_buffer *buf) {
    (void)b;
    if (!buf) return;
    mem_free(buf->data);
    mem_free(buf);
}

static void kv_destroy(backend *b, backend_kv *kv) {
    (void)b;
    if (!kv) return;
    mem_free(kv->k);
    mem_free(kv->v);
    mem_free(kv);
}

static backend_kv *kv_create(backend *b, int n_kv_rows, int n_head_kv, int head_dim) {
    cpu_backend *cpu = cpu_of(b);
    backend_kv *kv = mem_alloc(1, sizeof *kv);
    if (!kv) return NULL;
    const size_t blocks = ((size_t)n_kv_rows + CPU_KEY_BLOCK - 1) / CPU_KEY_BLOCK;
    const size_t n = blocks * CPU_KEY_BLOCK * (size_t)n_head_kv * (size_t)head_dim;
    *kv = (backend_kv){.n_head_kv = n_head_kv, .head_dim = head_dim};
    kv->k = mem_alloc(n, sizeof(float));
    kv->v = mem_alloc(n, sizeof(float));
    if (kv->k && kv->v && grow_scratch(cpu, 0, cpu_attention_scratch_floats(cpu->kernels, head_dim))) return kv;
    kv_destroy(b, kv);
    return NULL;
}

static void buffer_read(backend *b, const backend_buffer *buf, const int32_t *rows, int n, float *out) {
    (void)b;
    for (int i = 0; i < n; i++) {
        ASSERT(rows[i] >= 0 && rows[i] < buf->n_rows);
        const float *row = cpu_row(buf, rows[i]);
        for (int f = 0; f < buf->n_features; f++)
            out[(size_t)i * (size_t)buf->n_features + (size_t)f] = row[f * buf->bm];
    }
}

static void buffer_write(backend *b, backend_buffer *buf, const float *in, int n) {
    cpu_backend *cpu = cpu_of(b);
    ASSERT(n <= buf->n_rows);
    cpu_will_write(cpu, buf, cpu_kernels_for(cpu, n));
    for (int i = 0; i < n; i++) {
        float *row = cpu_row(buf, i);
        for (int f = 0; f < buf->n_features; f++)
            row[f * buf->bm] = in[(size_t)i * (size_t)buf->n_features + (size_t)f];
    }
}

// ------------------------------------------------------------------------------------------------- tile by tile

/// Operations whose items are tiles, or groups of features within tiles.
typedef struct tile_job {
    cpu_task task;
    const cpu_backend *cpu;
    const cpu_kernels *kernels;
    const backend_buffer *x, *y;
    backend_buffer *out;
    const backend_weight *w, *bias, *y_norm;
    int n_rows, n_groups;
    float eps, scale;
    const int32_t *ids;
    const rope_params *rope;
    const int32_t *positions;
    activation act;
    cpu_eager eager; // of out
} tile_job;

static void run_tile(void *context, int tile, int thread) {
    const tile_job *job = context;
    job->task(context, tile, thread);
    cpu_prepare_tile(&job->eager, job->out, tile);
}

/// Runs a task for every tile of job->out, which it writes.
static void run_tiles(backend *b, tile_job *job, cpu_task task) {
    cpu_backend *cpu = cpu_of(b);
    job->cpu = cpu;
    job->kernels = cpu_kernels_for(cpu, job->n_rows);
    cpu_will_write(cpu, job->out, job->kernels);
    job->eager = cpu_prepare_eagerly(cpu, job->kernels, job->out);
    job->task = task;
    cpu_pool_run(cpu->pool, run_tile, job, cpu_n_tiles(job->kernels, job->n_rows));
}

static void embed_tile(void *context, int tile, int thread) {
    const tile_job *job = context;
    const int bm = job->kernels->block_m, n = job->w->n_in;
    float *row = job->cpu->scratch[thread].panel, *out = cpu_tile(job->out, tile);
    for (int lane = 0; lane < bm; lane++) {
        const int r = tile * bm + lane;
        if (r < job->n_rows) cpu_matrix_rows(&job->w->matrix, job->ids[r], 1, row);
        // Lanes past the last row hold zeros; nobody reads what becomes of them.
        for (int i = 0; i < n; i++) out[i * bm + lane] = r < job->n_rows ? row[i] * job->scale : 0.0f;
    }
}

static void embed(backend *b, const backend_weight *table, const int32_t *ids, int n_rows, float scale,
                  backend_buffer *out) {
    tile_job job = {.w = table, .ids = ids, .n_rows = n_rows, .scale = scale, .out = out};
    run_tiles(b, &job, embed_tile);
}

static void norm_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    const int n = job->x->n_features / job->n_groups;
    for (int g = 0; g < job->n_groups; g++) {
        const size_t at = (size_t)(g * n * job->kernels->block_m);
        job->kernels->norm(cpu_tile(job->x, tile) + at, job->w->vector, job->bias ? job->bias->vector : NULL, job->eps,
                           n, cpu_tile(job->out, tile) + at);
    }
}

static void norm(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, float eps,
                 int n_rows, int n_groups, backend_buffer *out) {
    ASSERT(x->n_features == n_groups * w->n_out && out->n_features == x->n_features);
    tile_job job = {.x = x, .w = w, .bias = bias, .eps = eps, .n_rows = n_rows, .n_groups = n_groups, .out = out};
    run_tiles(b, &job, norm_tile);
}

/// While the tile is in the thread's cache: y normed, x += y, out = x normed.
static void add_norm_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    const cpu_kernels *kernels = job->kernels;
    const int n = job->x->n_features;
    float *x = cpu_tile(job->x, tile), *y = cpu_tile(job->y, tile);
    if (job->y_norm) kernels->norm(y, job->y_norm->vector, NULL, job->eps, n, y);
    kernels->add(n, x, y);
    if (!job->w) return;
    kernels->norm(x, job->w->vector, job->bias ? job->bias->vector : NULL, job->eps, n, cpu_tile(job->out, tile));
}

static void add_norm(backend *b, backend_buffer *x, backend_buffer *y, const backend_weight *y_norm,
                     const backend_weight *w, const backend_weight *bias, float eps, int n_rows, backend_buffer *out) {
    cpu_backend *cpu = cpu_of(b);
    const cpu_kernels *kernels = cpu_kernels_for(cpu, n_rows);
    ASSERT(x->n_features == y->n_features && (!y_norm || y_norm->n_out == x->n_features));
    ASSERT(!w || (w->n_out == x->n_features && out->n_features == x->n_features && out != x));
    tile_job job = {.x = x, .y = y, .y_norm = y_norm, .w = w, .bias = bias, .eps = eps, .n_rows = n_rows};
    job.out = w ? out : x;
    cpu_will_write(cpu, x, kernels);
    cpu_will_write(cpu, y, kernels);
    run_tiles(b, &job, add_norm_tile);
}

static void rope_table_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    const int bm = job->kernels->block_m;
    float *out = cpu_tile(job->out, tile);
    for (int lane = 0; lane < bm; lane++) {
        const int r = tile * bm + lane;
        const double position = r < job->n_rows ? job->positions[r] : 0;
        for (int i = 0; i < job->rope->n_rot / 2; i++) {
            const double angle = position * job->rope->inv_freq[i];
            out[(2 * i) * bm + lane] = (float)(cos(angle) * job->rope->magnitude);
            out[(2 * i + 1) * bm + lane] = (float)(sin(angle) * job->rope->magnitude);
        }
    }
}

static void rope_table(backend *b, const rope_params *rope, const token_batch *batch, backend_buffer *table) {
    ASSERT(table->n_features == rope->n_rot);
    tile_job job = {.rope = rope, .positions = batch->positions, .n_rows = batch->n_tokens, .out = table};
    run_tiles(b, &job, rope_table_tile);
}

static void glu_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    job->kernels->glu(job->act, job->out->n_features, cpu_tile(job->out, tile), job->x ? cpu_tile(job->x, tile) : NULL);
}

static void glu(backend *b, activation act, int n_rows, backend_buffer *gate, const backend_buffer *up) {
    tile_job job = {.act = act, .n_rows = n_rows, .x = up, .out = gate};
    run_tiles(b, &job, glu_tile);
}

static void gather_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    const int bm = job->kernels->block_m, from_bm = job->x->bm; // x may have more rows, hence other tiles
    float *out = cpu_tile(job->out, tile);
    for (int lane = 0; lane < bm; lane++) {
        const int r = tile * bm + lane;
        const float *row = r < job->n_rows ? cpu_row(job->x, job->ids[r]) : NULL;
        for (int f = 0; f < job->x->n_features; f++) out[f * bm + lane] = row ? row[f * from_bm] : 0.0f;
    }
}

static void gather(backend *b, const backend_buffer *x, const int32_t *rows, int n, backend_buffer *out) {
    ASSERT(x->n_features == out->n_features && n <= out->n_rows);
    tile_job job = {.ids = rows, .n_rows = n, .x = x, .out = out};
    run_tiles(b, &job, gather_tile);
}

// ------------------------------------------------------------------------------------------------------ the table

/// Every operation returns when its work is done, and none can fail.
static logitd_status finish(backend *b, logitd_error *err) {
    (void)b;
    (void)err;
    return LOGITD_OK;
}

static void destroy(backend *b) {
    cpu_backend *cpu = cpu_of(b);
    cpu_pool_free(cpu->pool);
    for (int i = 0; cpu->scratch && i < cpu->base.n_threads; i++) {
        mem_free(cpu->scratch[i].panel);
        mem_free(cpu->scratch[i].tile);
    }
    mem_free(cpu->scratch);
    mem_free(cpu->project_memory);
    mem_free(cpu->acts);
    weights_free(cpu);
    mem_free(cpu);
}

static const backend_ops cpu_ops = {
    .name = "cpu",
    .destroy = destroy,
    .weight_create = weight_create,
    .weight_destroy = weight_destroy,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .kv_create = kv_create,
    .kv_destroy = kv_destroy,
    .buffer_read = buffer_read,
    .buffer_write = buffer_write,
    .embed = embed,
    .norm = norm,
    .add_norm = add_norm,
    .matmul = cpu_matmul,
    .matmul_parts = cpu_matmul_parts,
    .rope_table = rope_table,
    .rope_kv_write = cpu_rope_kv_write,
    .attention = cpu_attention,
    .glu = glu,
    .gather = gather,
    .project_stats = cpu_project_stats,
    .finish = finish,
};

static const cpu_kernels *find_level(const char *name, logitd_error *err) {
    const bool automatic = !name || strcmp(name, "auto") == 0;
    for (int i = 0; i < n_cpu_levels; i++) {
        if (!automatic && strcmp(name, cpu_levels[i]->name) != 0) continue;
        if (cpu_levels[i]->supported()) return cpu_levels[i];
        if (!automatic) {
            error_set(err, LOGITD_EINVAL, "this processor cannot run the CPU level \"%s\"", name);
            return NULL;
        }
    }
    char known[128] = "auto";
    for (int i = 0; i < n_cpu_levels; i++) {
        const size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, ", %s", cpu_levels[i]->name);
    }
    error_set(err, LOGITD_EINVAL, "there is no CPU level \"%s\"; this build has %s", name, known);
    return NULL;
}

logitd_status cpu_backend_create(const backend_options *options, backend **out, logitd_error *err) {
    *out = NULL;
    const cpu_kernels *kernels = find_level(options->cpu_level, err);
    if (!kernels) return LOGITD_EINVAL;
    const char *precision = options->precision ? options->precision : "exact";
    const bool fast = strcmp(precision, "fast") == 0;
    if (strcmp(precision, "exact") != 0 && !(fast && kernels->product_fast))
        return error_set(err, LOGITD_EINVAL, "the CPU level \"%s\" has no precision \"%s\"; it offers %s",
                         kernels->name, precision, kernels->product_fast ? "exact and fast" : "exact");
    cpu_backend *cpu = mem_alloc(1, sizeof *cpu);
    if (!cpu) return error_set(err, LOGITD_ENOMEM, "there is no memory for the CPU backend");
    const int n_threads = options->n_threads > 0 ? options->n_threads : util_cpu_count();
    cpu->base = (backend){.ops = &cpu_ops,
                          .precision = fast ? "fast" : "exact",
                          .logprob_bound = fast ? 5e-2 : 3e-4,
                          .kernel = kernels->name,
                          .n_threads = n_threads};
    cpu->kernels = kernels;
    cpu->fast = fast;
    cpu->scratch = mem_alloc((size_t)n_threads, sizeof *cpu->scratch);
    cpu->pool = cpu->scratch ? cpu_pool_create(n_threads) : NULL;
    const size_t tile_floats = (size_t)PACK_COLS * (size_t)kernels->block_m;
    if (!cpu->pool || !grow_scratch(cpu, 0, tile_floats)) {
        destroy(&cpu->base);
        return error_set(err, LOGITD_ENOMEM, "there is no memory for %d threads", n_threads);
    }
    *out = &cpu->base;
    return LOGITD_OK;
}
