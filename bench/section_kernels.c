/*
 * section_kernels.c: the two operations that nearly all time goes to, alone: matrix products of every CPU level and
 * weight format, and the final projection with its statistics over positions, temperatures, entries and vocabulary.
 *
 * Weights are random bytes that read as finite numbers in every format; a kernel's time does not depend on them. Rows
 * are random too, but for the final projection, which gets real final hidden states: how often an entry enters the
 * top N depends on them.
 */
#include "bench.h"
#include "cpu/cpu_kernels.h"
#include <math.h>
#include <string.h>

static uint32_t next_random(uint64_t *state) { // xorshift64*
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)((*state * 2685821657736338717ull) >> 32);
}

/// A [n_out, n_in] tensor. Each byte, as the upper one of a half or a float, makes a normal number below 2: so whatever
/// of a block is a scale is a sane one. Its data is freed by the caller; NULL: no memory.
static uint8_t *random_tensor(const quant_type *type, int n_out, int n_in, gguf_tensor *out) {
    const size_t n_bytes = (size_t)n_out * (size_t)(n_in / type->block_weights) * (size_t)type->block_bytes;
    uint8_t *data = mem_alloc(n_bytes, 1);
    uint64_t state = 1;
    if (!data) return NULL;
    for (size_t i = 0; i < n_bytes; i++) data[i] = (uint8_t)((next_random(&state) & 0xBFu) | 0x20u);
    *out = (gguf_tensor){.name = {"random", 6},
                         .type = type,
                         .n_dims = 2,
                         .dims = {n_in, n_out, 1, 1},
                         .data = data,
                         .n_bytes = n_bytes};
    return data;
}

// ------------------------------------------------------------------------------------------------- matrix products

typedef struct product {
    backend *b;
    uint8_t *data;
    backend_weight *w;
    backend_buffer *x, *out;
    int n_rows;
    double weight_bytes;
} product;

static void product_free(product *p) {
    if (!p->b) return;
    p->b->ops->buffer_destroy(p->b, p->x);
    p->b->ops->buffer_destroy(p->b, p->out);
    if (p->w) p->b->ops->weight_destroy(p->b, p->w);
    p->b->ops->destroy(p->b);
    mem_free(p->data);
}

static logitd_status product_create(product *p, const backend_options *options, const quant_type *type, int n_rows,
                                    int n_in, int n_out, logitd_error *err) {
    gguf_tensor tensor;
    *p = (product){.n_rows = n_rows};
    logitd_status status = cpu_backend_create(options, &p->b, err);
    if (status) return status;
    const backend_ops *op = p->b->ops;
    float *rows = mem_alloc((size_t)n_rows * (size_t)n_in, sizeof *rows);
    p->data = random_tensor(type, n_out, n_in, &tensor);
    if (p->data) p->w = op->weight_create(p->b, &tensor, 0, n_out, true, err);
    p->x = op->buffer_create(p->b, n_rows, n_in);
    p->out = op->buffer_create(p->b, n_rows, n_out);
    if (!rows || !p->w || !p->x || !p->out) {
        mem_free(rows);
        product_free(p);
        return error_set(err, LOGITD_ENOMEM, "there is no memory for a product of %d x %d x %d", n_rows, n_in, n_out);
    }
    uint64_t state = 2;
    for (int i = 0; i < n_rows * n_in; i++) rows[i] = (float)next_random(&state) / 2147483648.0f - 1.0f;
    op->buffer_write(p->b, p->x, rows, n_rows);
    mem_free(rows);
    p->weight_bytes = (double)tensor.n_bytes;
    return LOGITD_OK;
}

static bool product_run(void *context) {
    const product *p = context;
    p->b->ops->matmul(p->b, p->x, p->w, NULL, p->n_rows, p->out);
    return p->b->ops->finish(p->b, NULL) == LOGITD_OK;
}

static logitd_status time_product(bench *b, const char *level, peak_limit limit, const quant_type *type, int n_rows,
                                  logitd_error *err) {
    const int block = type->block_weights; // as wide as the model, in whole blocks
    const int n_in = MAX(b->hp.n_embd / block, 1) * block, n_out = b->hp.n_ff;
    backend_options options = bench_backend_options(b);
    product p;
    options.cpu_level = level;
    const logitd_status status = product_create(&p, &options, type, n_rows, n_in, n_out, err);
    if (status) return status;
    bench_case c = {.section = "matmul",
                    .threads = b->engine.n_threads,
                    .positions = n_rows,
                    .ops = 2.0 * n_rows * n_in * n_out,
                    .bytes = p.weight_bytes,
                    .limit = limit};
    snprintf(c.name, sizeof c.name, "%s %s, %d x %d x %d", level, type->name, n_rows, n_in, n_out);
    const bool ran = timing_repeat(&b->plan, product_run, &p, &c.time);
    product_free(&p);
    if (!ran) return error_set(err, LOGITD_EBACKEND, "the backend failed in a matrix product");
    report_case(b->report, &c);
    return LOGITD_OK;
}

static const quant_type *find_type(const char *name) {
    for (int i = 0; i < n_quant_types; i++)
        if (strcmp(quant_types[i].name, name) == 0) return &quant_types[i];
    return NULL;
}

/// Every format at the full number of rows, and one format at few.
static logitd_status time_level(bench *b, const char *level, logitd_error *err) {
    static const char *const formats[] = {"Q4_1", "Q5_0", "Q4_K", "Q6_K", "Q8_0", "F16"};
    static const int few[] = {1, 2, 4, 8, 32, 128};
    const peak_limit limit = {.gops = peak_gops(level, b->engine.n_threads), .gbps = b->limit.gbps};
    logitd_status status = LOGITD_OK;
    for (size_t i = 0; i < ARRAY_LEN(formats) && !status; i++)
        status = time_product(b, level, limit, find_type(formats[i]), b->n_tokens, err);
    for (size_t i = 0; i < ARRAY_LEN(few) && !status; i++)
        if (few[i] < b->n_tokens) status = time_product(b, level, limit, find_type("Q4_1"), few[i], err);
    return status;
}

/// The levels of this processor but the reference, which is for truth and not for speed; or the one asked for.
logitd_status section_matmul(bench *b, logitd_error *err) {
    const char *asked = b->engine.cpu_level;
    if (asked && strcmp(asked, "auto") != 0) return time_level(b, asked, err);
    logitd_status status = LOGITD_OK;
    for (int i = 0; i < n_cpu_levels && !status; i++)
        if (cpu_levels[i]->supported() && cpu_levels[i] != &cpu_kernels_reference)
            status = time_level(b, cpu_levels[i]->name, err);
    return status;
}

// ----------------------------------------------------------------------------------------------- final projection

typedef struct projection {
    session *s;
    const backend_buffer *hidden;
    int n_rows, n_temperatures, top_n;
    logitd_error *err;
} projection;

static bool projection_run(void *context) {
    const projection *p = context;
    return session_project(p->s, p->hidden, p->n_rows, p->n_temperatures, p->top_n, p->err) == LOGITD_OK;
}

static logitd_status time_projection(bench *b, projection *p, const char *name, int n_vocab, double weight_bytes) {
    bench_case c = {.section = "projection",
                    .threads = b->engine.n_threads,
                    .positions = p->n_rows,
                    .temperatures = p->n_temperatures,
                    .vocabulary = n_vocab,
                    .top_n = p->top_n,
                    .ops = 2.0 * p->n_rows * (double)b->hp.n_embd * n_vocab,
                    .bytes = weight_bytes,
                    .limit = b->limit};
    snprintf(c.name, sizeof c.name, "%s", name);
    p->hidden = session_hidden(p->s, p->n_rows); // of exactly so many rows: a backend may lay out few in another way
    if (!timing_repeat(&b->plan, projection_run, p, &c.time)) return p->err->status;
    report_case(b->report, &c);
    return LOGITD_OK;
}

/// Positions at one temperature, then temperatures and entries at all positions.
static logitd_status sweep_rows(bench *b, projection *p, double weight_bytes) {
    char name[72];
    logitd_status status = LOGITD_OK;
    const int n = b->n_tokens, n_vocab = b->hp.n_vocab;
    for (int rows = 1; rows <= n && !status; rows *= 2) {
        p->n_rows = rows;
        snprintf(name, sizeof name, "%d position%s", rows, rows == 1 ? "" : "s");
        status = time_projection(b, p, name, n_vocab, weight_bytes);
    }
    p->n_rows = n;
    for (int T = 2; T <= SESSION_TEMPERATURES && !status; T *= 2) {
        p->n_temperatures = T;
        snprintf(name, sizeof name, "%d positions, %d temperatures", n, T);
        status = time_projection(b, p, name, n_vocab, weight_bytes);
    }
    p->n_temperatures = 1;
    static const int tops[] = {0, 100, 1024};
    for (size_t i = 0; i < ARRAY_LEN(tops) && !status; i++) {
        p->top_n = tops[i];
        snprintf(name, sizeof name, "%d positions, top %d", n, tops[i]);
        status = time_projection(b, p, name, n_vocab, weight_bytes);
    }
    p->top_n = 20;
    return status;
}

/// One vocabulary, with a random matrix in the format of the model's own.
static logitd_status time_vocabulary(bench *b, projection *p, const quant_type *type, int n_vocab) {
    gguf_tensor tensor;
    char name[72];
    model *m = p->s->model;
    backend_weight *own = m->output;
    const int own_vocab = m->hp.n_vocab;
    uint8_t *data = random_tensor(type, n_vocab, b->hp.n_embd, &tensor);
    if (!data) return error_set(p->err, LOGITD_ENOMEM, "there is no memory for a vocabulary of %d", n_vocab);
    backend_weight *w = p->s->backend->ops->weight_create(p->s->backend, &tensor, 0, n_vocab, true, p->err);
    if (!w) {
        mem_free(data);
        return p->err->status;
    }
    m->output = w;
    m->hp.n_vocab = n_vocab;
    snprintf(name, sizeof name, "%d positions, random vocabulary of %d", p->n_rows, n_vocab);
    const logitd_status status = time_projection(b, p, name, n_vocab, (double)tensor.n_bytes);
    m->output = own;
    m->hp.n_vocab = own_vocab;
    p->s->backend->ops->weight_destroy(p->s->backend, w);
    mem_free(data);
    return status;
}

logitd_status section_projection(bench *b, logitd_error *err) {
    enum { SWEEP_MAX_VOCAB = 1 << 19 };
    session s;
    const session_options options = {.model_path = b->engine.model_path,
                                     .backend = bench_backend_options(b),
                                     .max_tokens = b->n_tokens,
                                     .n_kv_rows = b->n_tokens,
                                     .max_rows = b->n_tokens};
    logitd_status status = session_open(&options, &s, err);
    if (status) return status;
    const gguf_tensor *output = gguf_find_tensor(s.file, "output.weight");
    if (!output) output = gguf_find_tensor(s.file, "token_embd.weight");
    const token_batch batch = session_batch(&s, 1, b->n_tokens, 0, b->n_tokens);
    projection p = {.s = &s, .n_temperatures = 1, .top_n = 20, .err = err};
    session_forward(&s, &batch);
    status = sweep_rows(b, &p, (double)output->n_bytes);
    p.n_rows = MIN(128, b->n_tokens);
    for (int eighths = 1; eighths <= 32 && !status; eighths *= 2) {
        const int n_vocab = (int)((int64_t)b->hp.n_vocab * eighths / 8);
        if (n_vocab <= MAX(SWEEP_MAX_VOCAB, b->hp.n_vocab)) status = time_vocabulary(b, &p, output->type, n_vocab);
    }
    session_close(&s);
    return status;
}
