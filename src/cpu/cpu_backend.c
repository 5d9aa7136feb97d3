/*
 * cpu_backend.c: the backend's table on the CPU: weights, buffers, and the operations that are a loop over tiles or
 * over panels of weight rows. Attention is in cpu_attention.c, the final projection in cpu_project.c.
 *
 * Weights stay in the file's mapping in their own format. A product unpacks a panel of weight rows to f32 in the
 * thread's scratch (once for all rows of the batch) and runs the register tile over all row tiles with it; threads
 * share out the panels. Results therefore never depend on the number of threads.
 */
#include "cpu/cpu_impl.h"
#include <math.h>
#include <string.h>

int cpu_panel_cols(const cpu_backend *cpu, const backend_weight *w) {
    const int step = cpu->kernels->block_n;
    const int fitting = CPU_PANEL_BYTES / (int)sizeof(float) / w->n_in;
    return MAX(step, MIN(fitting, CPU_PANEL_MAX_COLS) / step * step);
}

void cpu_dequantize_rows(const cpu_backend *cpu, const backend_weight *w, int first, int n, float *out) {
    ASSERT(first >= 0 && n >= 0 && first + n <= w->n_out);
    cpu->kernels->dequantize(w->type, w->data + (size_t)first * w->row_bytes, out, (size_t)n * (size_t)w->n_in);
}

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

static backend_weight *weight_create(backend *b, const gguf_tensor *tensor, int first_out, int n_out,
                                     logitd_error *err) {
    cpu_backend *cpu = cpu_of(b);
    backend_weight *w = mem_alloc(1, sizeof *w);
    if (!w) goto no_memory;
    w->type = tensor->type;
    w->n_out = n_out;
    if (tensor->n_dims == 1) {
        // A vector may start inside a block; unpack it whole.
        const size_t n = (size_t)tensor->dims[0];
        float *all = mem_alloc(n, sizeof(float));
        w->vector = mem_alloc((size_t)n_out, sizeof(float));
        if (all && w->vector) {
            tensor->type->dequantize(tensor->data, all, n);
            memcpy(w->vector, all + first_out, (size_t)n_out * sizeof(float));
        }
        mem_free(all);
        if (!all || !w->vector) goto no_memory;
        return w;
    }
    w->n_in = (int)tensor->dims[0];
    w->row_bytes = (size_t)(w->n_in / tensor->type->block_weights) * (size_t)tensor->type->block_bytes;
    w->data = (const uint8_t *)tensor->data + (size_t)first_out * w->row_bytes;
    const size_t panel_floats = (size_t)MAX(cpu_panel_cols(cpu, w), cpu->kernels->block_m) * (size_t)w->n_in;
    if (!grow_scratch(cpu, panel_floats, 0)) goto no_memory;
    return w;
no_memory:
    weight_destroy(b, w);
    error_set(err, LOGITD_ENOMEM, "there is no memory for the weights of tensor %.*s", (int)tensor->name.len,
              tensor->name.data);
    return NULL;
}

static backend_buffer *buffer_create(backend *b, int n_rows, int n_features) {
    const cpu_backend *cpu = cpu_of(b);
    backend_buffer *buf = mem_alloc(1, sizeof *buf);
    if (!buf) return NULL;
    const size_t rows = (size_t)cpu_n_tiles(cpu, n_rows) * (size_t)cpu->kernels->block_m;
    *buf = (backend_buffer){.n_rows = n_rows, .n_features = n_features};
    buf->data = mem_alloc(rows * (size_t)n_features, sizeof(float));
    if (buf->data) return buf;
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
    const size_t n = (size_t)n_kv_rows * (size_t)n_head_kv * (size_t)head_dim;
    *kv = (backend_kv){.n_head_kv = n_head_kv, .head_dim = head_dim};
    kv->k = mem_alloc(n, sizeof(float));
    kv->v = mem_alloc(n, sizeof(float));
    if (kv->k && kv->v && grow_scratch(cpu, 0, cpu_attention_scratch_floats(cpu->kernels, head_dim))) return kv;
    kv_destroy(b, kv);
    return NULL;
}

static void buffer_read(backend *b, const backend_buffer *buf, const int32_t *rows, int n, float *out) {
    const cpu_backend *cpu = cpu_of(b);
    const int bm = cpu->kernels->block_m;
    for (int i = 0; i < n; i++) {
        ASSERT(rows[i] >= 0 && rows[i] < buf->n_rows);
        const float *row = cpu_row(cpu, buf, rows[i]);
        for (int f = 0; f < buf->n_features; f++) out[(size_t)i * (size_t)buf->n_features + (size_t)f] = row[f * bm];
    }
}

static void buffer_write(backend *b, backend_buffer *buf, const float *in, int n) {
    const cpu_backend *cpu = cpu_of(b);
    const int bm = cpu->kernels->block_m;
    ASSERT(n <= buf->n_rows);
    for (int i = 0; i < n; i++) {
        float *row = cpu_row(cpu, buf, i);
        for (int f = 0; f < buf->n_features; f++) row[f * bm] = in[(size_t)i * (size_t)buf->n_features + (size_t)f];
    }
}

// ------------------------------------------------------------------------------------------------- tile by tile

/// Operations whose items are tiles, or groups of features within tiles.
typedef struct tile_job {
    const cpu_backend *cpu;
    const backend_buffer *x;
    backend_buffer *out;
    const backend_weight *w, *bias;
    int n_rows, n_groups;
    float eps, scale;
    const int32_t *ids;
    const rope_params *rope;
    const int32_t *positions;
    activation act;
} tile_job;

static void run_tiles(const tile_job *job, cpu_task task) {
    cpu_pool_run(job->cpu->pool, task, (void *)job, cpu_n_tiles(job->cpu, job->n_rows));
}

static void embed_tile(void *context, int tile, int thread) {
    const tile_job *job = context;
    const int bm = job->cpu->kernels->block_m, n = job->w->n_in;
    float *row = job->cpu->scratch[thread].panel, *out = cpu_tile(job->cpu, job->out, tile);
    for (int lane = 0; lane < bm; lane++) {
        const int r = tile * bm + lane;
        if (r < job->n_rows) cpu_dequantize_rows(job->cpu, job->w, job->ids[r], 1, row);
        // Lanes past the last row hold zeros; nobody reads what becomes of them.
        for (int i = 0; i < n; i++) out[i * bm + lane] = r < job->n_rows ? row[i] * job->scale : 0.0f;
    }
}

static void embed(backend *b, const backend_weight *table, const int32_t *ids, int n_rows, float scale,
                  backend_buffer *out) {
    const tile_job job = {.cpu = cpu_of(b), .w = table, .ids = ids, .n_rows = n_rows, .scale = scale, .out = out};
    run_tiles(&job, embed_tile);
}

static void norm_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    const int n = job->x->n_features / job->n_groups;
    for (int g = 0; g < job->n_groups; g++) {
        const size_t at = (size_t)(g * n * job->cpu->kernels->block_m);
        job->cpu->kernels->norm(cpu_tile(job->cpu, job->x, tile) + at, job->w->vector,
                                job->bias ? job->bias->vector : NULL, job->eps, n,
                                cpu_tile(job->cpu, job->out, tile) + at);
    }
}

static void norm(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, float eps,
                 int n_rows, int n_groups, backend_buffer *out) {
    ASSERT(x->n_features == n_groups * w->n_out && out->n_features == x->n_features);
    const tile_job job = {
        .cpu = cpu_of(b), .x = x, .w = w, .bias = bias, .eps = eps, .n_rows = n_rows, .n_groups = n_groups, .out = out};
    run_tiles(&job, norm_tile);
}

static void rope_table_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    const int bm = job->cpu->kernels->block_m;
    float *out = cpu_tile(job->cpu, job->out, tile);
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
    const tile_job job = {
        .cpu = cpu_of(b), .rope = rope, .positions = batch->positions, .n_rows = batch->n_tokens, .out = table};
    run_tiles(&job, rope_table_tile);
}

static void rope_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    const cpu_kernels *kernels = job->cpu->kernels;
    const int head_dim = job->out->n_features / job->n_groups;
    float *x = cpu_tile(job->cpu, job->out, tile);
    for (int h = 0; h < job->n_groups; h++)
        kernels->rope(cpu_tile(job->cpu, job->x, tile), job->rope->n_rot, job->rope->neox,
                      x + h * head_dim * kernels->block_m);
}

static void rope(backend *b, const rope_params *rope, const backend_buffer *table, int n_rows, int n_head, int head_dim,
                 backend_buffer *x) {
    ASSERT(x->n_features == n_head * head_dim && rope->n_rot <= head_dim);
    const tile_job job = {.cpu = cpu_of(b), .rope = rope, .x = table, .n_rows = n_rows, .n_groups = n_head, .out = x};
    run_tiles(&job, rope_tile);
}

static void glu_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    job->cpu->kernels->glu(job->act, job->out->n_features, cpu_tile(job->cpu, job->out, tile),
                           job->x ? cpu_tile(job->cpu, job->x, tile) : NULL);
}

static void glu(backend *b, activation act, int n_rows, backend_buffer *gate, const backend_buffer *up) {
    const tile_job job = {.cpu = cpu_of(b), .act = act, .n_rows = n_rows, .x = up, .out = gate};
    run_tiles(&job, glu_tile);
}

static void add_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    job->cpu->kernels->add(job->out->n_features, cpu_tile(job->cpu, job->out, tile), cpu_tile(job->cpu, job->x, tile));
}

static void add(backend *b, int n_rows, backend_buffer *x, const backend_buffer *y) {
    ASSERT(x->n_features == y->n_features);
    const tile_job job = {.cpu = cpu_of(b), .n_rows = n_rows, .x = y, .out = x};
    run_tiles(&job, add_tile);
}

static void gather_tile(void *context, int tile, int thread) {
    (void)thread;
    const tile_job *job = context;
    const int bm = job->cpu->kernels->block_m;
    float *out = cpu_tile(job->cpu, job->out, tile);
    for (int lane = 0; lane < bm; lane++) {
        const int r = tile * bm + lane;
        const float *row = r < job->n_rows ? cpu_row(job->cpu, job->x, job->ids[r]) : NULL;
        for (int f = 0; f < job->x->n_features; f++) out[f * bm + lane] = row ? row[f * bm] : 0.0f;
    }
}

static void gather(backend *b, const backend_buffer *x, const int32_t *rows, int n, backend_buffer *out) {
    ASSERT(x->n_features == out->n_features && n <= out->n_rows);
    const tile_job job = {.cpu = cpu_of(b), .ids = rows, .n_rows = n, .x = x, .out = out};
    run_tiles(&job, gather_tile);
}

// ------------------------------------------------------------------------------------------------------- matmul

typedef struct matmul_job {
    const cpu_backend *cpu;
    const backend_buffer *x;
    const backend_weight *w, *bias;
    int n_rows, panel_cols;
    backend_buffer *out;
} matmul_job;

static void matmul_panel(void *context, int item, int thread) {
    const matmul_job *job = context;
    const cpu_kernels *kernels = job->cpu->kernels;
    const int first = item * job->panel_cols, n = MIN(job->panel_cols, job->w->n_out - first), n_in = job->w->n_in;
    float *panel = job->cpu->scratch[thread].panel;
    cpu_dequantize_rows(job->cpu, job->w, first, n, panel);
    for (int tile = 0; tile < cpu_n_tiles(job->cpu, job->n_rows); tile++) {
        float *out = cpu_tile(job->cpu, job->out, tile) + (size_t)first * (size_t)kernels->block_m;
        kernels->gemm(cpu_tile(job->cpu, job->x, tile), n_in, panel, n_in, 1, n, out);
        if (job->bias) kernels->add_scalar(n, out, job->bias->vector + first);
    }
}

static void matmul(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, int n_rows,
                   backend_buffer *out) {
    ASSERT(x->n_features == w->n_in && out->n_features == w->n_out && (!bias || bias->n_out == w->n_out));
    cpu_backend *cpu = cpu_of(b);
    matmul_job job = {
        .cpu = cpu, .x = x, .w = w, .bias = bias, .n_rows = n_rows, .out = out, .panel_cols = cpu_panel_cols(cpu, w)};
    cpu_pool_run(cpu->pool, matmul_panel, &job, (w->n_out + job.panel_cols - 1) / job.panel_cols);
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
    .matmul = matmul,
    .rope_table = rope_table,
    .rope = rope,
    .kv_write = cpu_kv_write,
    .attention = cpu_attention,
    .glu = glu,
    .add = add,
    .gather = gather,
    .project_stats = cpu_project_stats,
    .project_logits = cpu_project_logits,
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
    if (options->precision && strcmp(options->precision, "exact") != 0)
        return error_set(err, LOGITD_EINVAL, "the cpu backend has no precision \"%s\"; it offers exact",
                         options->precision);
    const cpu_kernels *kernels = find_level(options->cpu_level, err);
    if (!kernels) return LOGITD_EINVAL;
    cpu_backend *cpu = mem_alloc(1, sizeof *cpu);
    if (!cpu) return error_set(err, LOGITD_ENOMEM, "there is no memory for the CPU backend");
    const int n_threads = options->n_threads > 0 ? options->n_threads : util_cpu_count();
    cpu->base = (backend){.ops = &cpu_ops, .precision = "exact", .kernel = kernels->name, .n_threads = n_threads};
    cpu->kernels = kernels;
    cpu->scratch = mem_alloc((size_t)n_threads, sizeof *cpu->scratch);
    cpu->pool = cpu->scratch ? cpu_pool_create(n_threads) : NULL;
    const size_t tile_floats = (size_t)CPU_PANEL_MAX_COLS * (size_t)kernels->block_m;
    if (!cpu->pool || !grow_scratch(cpu, 0, tile_floats)) {
        destroy(&cpu->base);
        return error_set(err, LOGITD_ENOMEM, "there is no memory for %d threads", n_threads);
    }
    *out = &cpu->base;
    return LOGITD_OK;
}
