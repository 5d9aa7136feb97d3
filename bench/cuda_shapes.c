// cuda_shapes.c: see cuda_shapes.h. The shapes; the backend without a device; the model.
#include "cuda_shapes.h"
#include "cuda_work.h"
#include <stdlib.h>
#include <string.h>

// Packings as their usual files have them: Q4_1 and Q8_0, Q5_0 and Q8_0, Q4_K and Q6_K.
const cuda_shape cuda_shapes[] = {
    {"SmolLM2 135M", "llama", 30, 576, 9, 3, 64, 1536, 49152, 0, PACK_N32, PACK_Q32},
    {"Gemma 3 270M", "gemma3", 18, 640, 4, 1, 256, 2048, 262144, 512, PACK_Q32, PACK_Q32},
    {"Llama 3 8B", "llama", 32, 4096, 32, 8, 128, 14336, 128256, 0, PACK_N32, PACK_Q16},
};
const int n_cuda_shapes = ARRAY_LEN(cuda_shapes);

const cuda_shape cuda_small_shapes[] = {
    {"small n32", "llama", 1, CUDA_SMALL_EMBD, 2, 1, 64, 192, 2048, 0, PACK_N32, PACK_N32},
    {"small q32", "llama", 1, CUDA_SMALL_EMBD, 2, 1, 128, 192, 2048, 0, PACK_Q32, PACK_Q32},
    {"small q16", "gemma3", 1, CUDA_SMALL_EMBD, 1, 1, 256, 192, 2048, 512, PACK_Q16, PACK_Q16},
    {"small float", "qwen3", 1, CUDA_SMALL_EMBD, 2, 1, 64, 192, 2048, 0, PACK_FLOAT, PACK_FLOAT},
};
const int n_cuda_small_shapes = ARRAY_LEN(cuda_small_shapes);

// ------------------------------------------------------------------------------------------------------- no device

static cuda_address next_address = 1 << 20;

static cuda_result dry_set_context(cuda_context context) {
    (void)context;
    return 0;
}
static cuda_result dry_alloc(cuda_address *at, size_t n_bytes) {
    *at = next_address;
    next_address += (n_bytes + 255) & ~(size_t)255;
    return 0;
}
static cuda_result dry_free(cuda_address at) {
    (void)at;
    return 0;
}
static cuda_result dry_free_host(void *memory) {
    free(memory);
    return 0;
}
static cuda_result dry_upload(cuda_address to, const void *from, size_t n, cuda_stream stream) {
    (void)to, (void)from, (void)n, (void)stream;
    return 0;
}
static cuda_result dry_download(void *to, cuda_address from, size_t n, cuda_stream stream) {
    (void)from, (void)stream;
    memset(to, 0, n);
    return 0;
}
static cuda_result dry_set(cuda_address at, unsigned char value, size_t n, cuda_stream stream) {
    (void)at, (void)value, (void)n, (void)stream;
    return 0;
}
static cuda_result dry_stream(cuda_stream stream) {
    (void)stream;
    return 0;
}
static cuda_result dry_record(cuda_event event, cuda_stream stream) {
    (void)event, (void)stream;
    return 0;
}
static cuda_result dry_wait(cuda_stream stream, cuda_event event, unsigned flags) {
    (void)stream, (void)event, (void)flags;
    return 0;
}
static cuda_result dry_event(cuda_event event) {
    (void)event;
    return 0;
}
static cuda_result dry_create_stream(cuda_stream *stream, unsigned flags) {
    (void)flags;
    *stream = NULL;
    return 0;
}
static cuda_result dry_create_event(cuda_event *event, unsigned flags) {
    (void)flags;
    *event = NULL;
    return 0;
}
static cuda_result dry_alloc_host(void **memory, size_t n_bytes) {
    *memory = malloc(n_bytes);
    return *memory ? 0 : CUDA_ERROR_MEMORY;
}
static cuda_result dry_release(cuda_device device) {
    (void)device;
    return 0;
}

static const cuda_driver dry_driver = {.CtxSetCurrent = dry_set_context,
                                       .MemAlloc = dry_alloc,
                                       .MemFree = dry_free,
                                       .MemFreeHost = dry_free_host,
                                       .MemcpyHtoDAsync = dry_upload,
                                       .MemcpyDtoHAsync = dry_download,
                                       .MemsetD8Async = dry_set,
                                       .MemAllocHost = dry_alloc_host,
                                       .StreamCreate = dry_create_stream,
                                       .StreamSynchronize = dry_stream,
                                       .StreamWaitEvent = dry_wait,
                                       .EventCreate = dry_create_event,
                                       .EventRecord = dry_record,
                                       .EventSynchronize = dry_event,
                                       .PrimaryCtxRelease = dry_release};

backend *cuda_dry_create(bool bf16, int n_sm, cuda_result (*launch)(cuda_backend *, const cuda_launch_info *),
                         void *observer) {
    static char a_context; // something that is not NULL
    cuda_backend *cuda = mem_alloc(1, sizeof *cuda);
    if (!cuda) return NULL;
    cuda->base = (backend){.ops = &cuda_ops, .precision = bf16 ? "bf16" : "exact", .kernel = "none", .n_threads = 1};
    cuda->bf16 = bf16;
    cuda->launch = launch;
    cuda->observer = observer;
    cuda->driver = &dry_driver;
    cuda->context = (cuda_context)(void *)&a_context;
    cuda->n_multiprocessors = n_sm;
    snprintf(cuda->name, sizeof cuda->name, "no device");
    if (!cuda_queue_open(cuda)) return &cuda->base;
    cuda_ops.destroy(&cuda->base);
    return NULL;
}

// ------------------------------------------------------------------------------------------------------- the model

enum { MAX_WEIGHTS = 24, TOP_N = 20 };

struct cuda_shape_model {
    cuda_backend *cuda;
    bool filled, failed;
    model m;
    model_layer layer;
    backend_weight *weights[MAX_WEIGHTS];
    int n_weights, n_tokens, n_past;
    double *inv_freq; // [head_dim / 2]
    forward_state *forward;
    int32_t *tokens, *positions, *rows; // [the larger of n_tokens and n_past] each, as all below
    project_row *results;
    double *sums;    // [][3]
    int32_t *top_id; // [][TOP_N]
    float *top_logit;
};

static const double one_temperature[] = {1.0};

/// Bytes that look like quants, and like bf16 of modest size.
static void fill_noise(cuda_backend *cuda, cuda_address at, size_t n_bytes) {
    enum { BLOCK_BYTES = 1 << 16 };
    uint8_t block[BLOCK_BYTES];
    uint32_t state = 12345;
    for (size_t i = 0; i < sizeof block; i++) {
        state = state * 1664525u + 1013904223u;
        block[i] = i % 2 ? (uint8_t)(state >> 28 & 8) | 0x35 : (uint8_t)(state >> 24);
    }
    for (size_t done = 0; done < n_bytes; done += sizeof block)
        cuda_upload(cuda, at + done, block, MIN(sizeof block, n_bytes - done));
}

static void fill_floats(cuda_backend *cuda, cuda_address at, size_t n_bytes) {
    enum { SMALL_FLOATS = 0x3a }; // 0x3a3a3a3a is 7.1e-4
    if (n_bytes == 0) return;
    cuda_ok(cuda, cuda->driver->MemsetD8Async(at, SMALL_FLOATS, n_bytes, cuda->stream), "filling its memory");
}

/// n_in 0: a vector.
static backend_weight *add_weight(cuda_shape_model *m, int n_out, int n_in, int packing) {
    ASSERT(m->n_weights < MAX_WEIGHTS);
    backend_weight *w = mem_alloc(1, sizeof *w);
    if (!w) {
        m->failed = true;
        return NULL;
    }
    *w = (backend_weight){.n_out = n_out, .n_in = n_in, .packing = packing};
    m->weights[m->n_weights++] = w;
    const int n_out_pad = cuda_round_up(n_out, BLOCK_N), k_pad = cuda_round_up(n_in, BLOCK_K);
    const cuda_format f = cuda_weight_format(m->cuda->bf16, packing);
    const size_t rows = (size_t)n_out_pad, elements = rows * (size_t)k_pad * (size_t)(f.planes * f.bits) / 8;
    const size_t scales = rows * (size_t)(k_pad / f.group) * (size_t)f.scale_bytes;
    const size_t floats = n_in ? scales : (size_t)n_out * sizeof(float);
    w->memory = cuda_alloc(m->cuda, elements + floats, "a weight", NULL);
    w->packed =
        (packed_matrix){.elements = w->memory, .scales = w->memory + elements, .n_rows_pad = n_out_pad, .k_pad = k_pad};
    if (!w->memory) m->failed = true;
    if (w->memory && m->filled) {
        fill_noise(m->cuda, w->memory, elements);
        fill_floats(m->cuda, w->memory + elements, floats);
    }
    return w;
}

static void add_layer(cuda_shape_model *m, const cuda_shape *s) {
    const int n_q = s->n_head * s->head_dim, n_kv = s->n_head_kv * s->head_dim;
    const model_arch *arch = m->m.arch;
    m->layer = (model_layer){.swa = s->n_swa > 0,
                             .attn_norm = add_weight(m, s->n_embd, 0, s->layers),
                             .attn_q = add_weight(m, n_q, s->n_embd, s->layers),
                             .attn_k = add_weight(m, n_kv, s->n_embd, s->layers),
                             .attn_v = add_weight(m, n_kv, s->n_embd, s->layers),
                             .attn_output = add_weight(m, s->n_embd, n_q, s->layers),
                             .ffn_norm = add_weight(m, s->n_embd, 0, s->layers),
                             .ffn_gate = add_weight(m, s->n_ff, s->n_embd, s->layers),
                             .ffn_up = add_weight(m, s->n_ff, s->n_embd, s->layers),
                             .ffn_down = add_weight(m, s->n_embd, s->n_ff, s->layers)};
    if (arch->qk_norm) {
        m->layer.attn_q_norm = add_weight(m, s->head_dim, 0, s->layers);
        m->layer.attn_k_norm = add_weight(m, s->head_dim, 0, s->layers);
    }
    if (arch->post_norm) {
        m->layer.attn_post_norm = add_weight(m, s->n_embd, 0, s->layers);
        m->layer.ffn_post_norm = add_weight(m, s->n_embd, 0, s->layers);
    }
}

static void add_model(cuda_shape_model *m, const cuda_shape *s) {
    const gguf_str name = {.data = s->architecture, .len = strlen(s->architecture)};
    m->m = (model){.arch = model_arch_find(name), .backend = &m->cuda->base, .layers = &m->layer};
    ASSERT(m->m.arch);
    m->m.hp = (model_hparams){.n_vocab = s->n_vocab,
                              .n_ctx = m->n_past + m->n_tokens,
                              .n_embd = s->n_embd,
                              .n_layer = 1,
                              .n_head = s->n_head,
                              .n_head_kv = s->n_head_kv,
                              .head_dim = s->head_dim,
                              .n_ff = s->n_ff,
                              .n_rot = s->head_dim,
                              .n_swa = s->n_swa,
                              .norm_eps = 1e-5f,
                              .attn_scale = 0.125f,
                              .embd_scale = 1.0f};
    add_layer(m, s);
    m->m.output = m->m.tok_embd = add_weight(m, s->n_vocab, s->n_embd, s->output);
    m->m.output_norm = add_weight(m, s->n_embd, 0, s->output);
    m->m.rope = m->m.rope_swa =
        (rope_params){.n_rot = s->head_dim, .neox = m->m.arch->rope_neox, .inv_freq = m->inv_freq, .magnitude = 1.0};
}

static bool add_rows(cuda_shape_model *m) {
    const int n_room = MAX(m->n_tokens, m->n_past);
    const size_t n = (size_t)n_room;
    m->tokens = mem_alloc(n, sizeof(int32_t));
    m->positions = mem_alloc(n, sizeof(int32_t));
    m->rows = mem_alloc(n, sizeof(int32_t));
    m->results = mem_alloc(n, sizeof(project_row));
    m->sums = mem_alloc(n * 3, sizeof(double));
    m->top_id = mem_alloc(n * TOP_N, sizeof(int32_t));
    m->top_logit = mem_alloc(n * TOP_N, sizeof(float));
    if (!m->tokens || !m->positions || !m->rows || !m->results || !m->sums || !m->top_id || !m->top_logit) return false;
    for (int i = 0; i < n_room; i++) {
        m->tokens[i] = (int32_t)((int64_t)i * 7919 % m->m.hp.n_vocab);
        m->rows[i] = i;
        m->results[i] = (project_row){.target_id = m->tokens[i],
                                      .n_temperatures = 1,
                                      .temperatures = one_temperature,
                                      .top_n = TOP_N,
                                      .sum_e = m->sums + 3 * (size_t)i,
                                      .sum_xe = m->sums + 3 * (size_t)i + 1,
                                      .sum_xxe = m->sums + 3 * (size_t)i + 2,
                                      .top_id = m->top_id + TOP_N * (size_t)i,
                                      .top_logit = m->top_logit + TOP_N * (size_t)i};
    }
    return true;
}

cuda_shape_model *cuda_shape_open(backend *b, const cuda_shape *shape, int n_tokens, int n_past, bool filled) {
    cuda_shape_model *m = mem_alloc(1, sizeof *m);
    if (!m) return NULL;
    *m = (cuda_shape_model){.cuda = cuda_of(b), .filled = filled, .n_tokens = n_tokens, .n_past = n_past};
    m->inv_freq = mem_alloc((size_t)shape->head_dim / 2, sizeof(double));
    for (int i = 0; m->inv_freq && i < shape->head_dim / 2; i++) m->inv_freq[i] = 1.0 / (1.0 + i);
    if (m->inv_freq) add_model(m, shape);
    if (m->inv_freq && !m->failed) m->forward = forward_create(&m->m, MAX(n_tokens, n_past), n_past + n_tokens);
    if (m->forward && add_rows(m) && !cuda_failed(m->cuda)) return m;
    cuda_shape_close(m);
    return NULL;
}

void cuda_shape_close(cuda_shape_model *m) {
    if (!m) return;
    forward_free(m->forward);
    for (int i = 0; i < m->n_weights; i++) {
        cuda_free(m->cuda, m->weights[i]->memory);
        mem_free(m->weights[i]);
    }
    void *const owned[] = {m->inv_freq, m->tokens, m->positions, m->rows, m->results, m->sums, m->top_id, m->top_logit};
    for (size_t i = 0; i < ARRAY_LEN(owned); i++) mem_free(owned[i]);
    mem_free(m);
}

/// The layer over n tokens from first_pos on.
static const backend_buffer *run_layer(cuda_shape_model *m, int n, int first_pos) {
    const batch_slice slice = {.n = n, .first_pos = first_pos};
    for (int i = 0; i < n; i++) m->positions[i] = first_pos + i;
    const token_batch batch = {
        .n_tokens = n, .tokens = m->tokens, .positions = m->positions, .slices = &slice, .n_slices = 1};
    return forward_batch(m->forward, &batch);
}

void cuda_shape_past(cuda_shape_model *m) {
    if (m->n_past > 0) run_layer(m, m->n_past, 0);
}

logitd_status cuda_shape_pass(cuda_shape_model *m, logitd_error *err) {
    backend *b = &m->cuda->base;
    const backend_buffer *x = run_layer(m, m->n_tokens, m->n_past);
    const backend_buffer *hidden = forward_final_norm(m->forward, x, m->rows, m->n_tokens);
    return b->ops->project_stats(b, hidden, m->m.output, NULL, 0.0f, m->n_tokens, m->results, err);
}
