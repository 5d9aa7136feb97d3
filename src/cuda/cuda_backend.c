/*
 * cuda_backend.c: the backend's table on a GPU: choice of the device and of the code for it, buffers, and the
 * operations that are one launch each. The final projection is in cuda_project.c, weights in cuda_weight.c, queueing in
 * cuda_queue.c.
 */
#include "cuda/cuda_impl.h"
#include <string.h>

/// Nats at T = 1 from float64 on the same weights. `bf16`: over twice the worst that was measured (README).
static const double EXACT_BOUND = 3e-4, BF16_BOUND = 2.0;

enum { LEAST_CAPABILITY = 80 };

static int flat_blocks(int n) {
    return cuda_round_up(n, FLAT_THREADS) / FLAT_THREADS;
}

/// Said by every operation that changes a buffer.
static void written(cuda_backend *cuda, const backend_buffer *buf) {
    if (cuda->packed_of == buf) cuda->packed_of = NULL;
}

// --------------------------------------------------------------------------------------------------------- buffers

static backend_buffer *buffer_create(backend *b, int n_rows, int n_features) {
    cuda_backend *cuda = cuda_of(b);
    backend_buffer *buf = mem_alloc(1, sizeof *buf);
    if (!buf) return NULL;
    *buf = (backend_buffer){.n_rows = n_rows, .n_features = n_features};
    buf->data = cuda_alloc(cuda, (size_t)n_rows * (size_t)n_features * sizeof(float), "a working buffer", NULL);
    // Planned here, so that no product has to ask for memory.
    if (buf->data &&
        cuda_scratch_grow(cuda, &cuda->packed_memory, cuda_packed_bytes(n_rows, n_features), "packed rows", NULL)) {
        cuda->packed_of = NULL;
        return buf;
    }
    cuda_free(cuda, buf->data);
    mem_free(buf);
    return NULL;
}

static void buffer_destroy(backend *b, backend_buffer *buf) {
    if (!buf) return;
    written(cuda_of(b), buf);
    cuda_free(cuda_of(b), buf->data);
    mem_free(buf);
}

static void kv_destroy(backend *b, backend_kv *kv) {
    if (!kv) return;
    cuda_free(cuda_of(b), kv->k);
    cuda_free(cuda_of(b), kv->v);
    mem_free(kv);
}

static backend_kv *kv_create(backend *b, int n_kv_rows, int n_head_kv, int head_dim) {
    cuda_backend *cuda = cuda_of(b);
    if (head_dim > ATTENTION_MAX_HEAD_DIM) {
        log_line(LOG_ERROR, "the CUDA backend attends with heads of up to %d features; this model's have %d",
                 ATTENTION_MAX_HEAD_DIM, head_dim);
        return NULL;
    }
    backend_kv *kv = mem_alloc(1, sizeof *kv);
    if (!kv) return NULL;
    *kv = (backend_kv){.n_head_kv = n_head_kv, .head_dim = head_dim};
    const size_t n_bytes = (size_t)n_kv_rows * (size_t)n_head_kv * (size_t)head_dim * sizeof(float);
    kv->k = cuda_alloc(cuda, n_bytes, "a layer's KV cache", NULL);
    kv->v = kv->k ? cuda_alloc(cuda, n_bytes, "a layer's KV cache", NULL) : 0;
    if (kv->v) return kv;
    kv_destroy(b, kv);
    return NULL;
}

static void buffer_read(backend *b, const backend_buffer *buf, const int32_t *rows, int n, float *out) {
    const size_t n_features = (size_t)buf->n_features;
    for (int i = 0, run; i < n; i += run) { // neighbouring rows in one copy
        for (run = 1; i + run < n && rows[i + run] == rows[i] + run;) run++;
        ASSERT(rows[i] >= 0 && rows[i] + run <= buf->n_rows);
        cuda_download(cuda_of(b), out + (size_t)i * n_features,
                      buf->data + (size_t)rows[i] * n_features * sizeof(float),
                      (size_t)run * n_features * sizeof(float));
    }
}

static void buffer_write(backend *b, backend_buffer *buf, const float *in, int n) {
    ASSERT(n <= buf->n_rows);
    written(cuda_of(b), buf);
    cuda_upload(cuda_of(b), buf->data, in, (size_t)n * (size_t)buf->n_features * sizeof(float));
}

// ------------------------------------------------------------------------------------------------------ operations

static void embed(backend *b, const backend_weight *table, const int32_t *ids, int n_rows, float scale,
                  backend_buffer *out) {
    cuda_backend *cuda = cuda_of(b);
    ASSERT(out->n_features == table->n_in && n_rows <= out->n_rows);
    written(cuda, out);
    const embed_params params = {.w = table->packed,
                                 .ids = cuda_input_put(cuda, &cuda->ids, ids, (size_t)n_rows * sizeof *ids),
                                 .out = out->data,
                                 .n_in = table->n_in,
                                 .packing = table->packing,
                                 .group = cuda_packing_group(table->packing),
                                 .bf16 = cuda->bf16,
                                 .scale = scale};
    cuda_launch(cuda, KERNEL_embed, n_rows, 1, 0, &params);
}

static void norm(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, float eps,
                 int n_rows, int n_groups, backend_buffer *out) {
    ASSERT(x->n_features == n_groups * w->n_out && out->n_features == x->n_features);
    written(cuda_of(b), out);
    const norm_params params = {.x = x->data,
                                .w = w->memory,
                                .bias = bias ? bias->memory : 0,
                                .out = out->data,
                                .n = w->n_out,
                                .n_groups = n_groups,
                                .eps = eps};
    cuda_launch(cuda_of(b), KERNEL_norm_groups, n_rows, n_groups, 0, &params);
}

static void add_norm(backend *b, backend_buffer *x, backend_buffer *y, const backend_weight *y_norm,
                     const backend_weight *w, const backend_weight *bias, float eps, int n_rows, backend_buffer *out) {
    cuda_backend *cuda = cuda_of(b);
    ASSERT(x->n_features == y->n_features && (!y_norm || y_norm->n_out == x->n_features));
    ASSERT(!w || (w->n_out == x->n_features && out->n_features == x->n_features && out != x));
    written(cuda, x);
    if (w) written(cuda, out);
    const add_norm_params params = {.x = x->data,
                                    .y = y->data,
                                    .y_norm = y_norm ? y_norm->memory : 0,
                                    .w = w ? w->memory : 0,
                                    .bias = bias ? bias->memory : 0,
                                    .out = w ? out->data : 0,
                                    .n = x->n_features,
                                    .eps = eps};
    cuda_launch(cuda, KERNEL_add_norm, n_rows, 1, 0, &params);
}

static void matmul(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, int n_rows,
                   backend_buffer *out) {
    ASSERT(x->n_features == w->n_in && out->n_features == w->n_out && (!bias || bias->n_out == w->n_out));
    cuda_backend *cuda = cuda_of(b);
    cuda_pack_rows(cuda, x, w, n_rows);
    written(cuda, out);
    cuda_multiply(cuda, &cuda->packed, w, bias, n_rows, 0.0f, out->data);
}

static void rope_table(backend *b, const rope_params *rope, const token_batch *batch, backend_buffer *table) {
    cuda_backend *cuda = cuda_of(b);
    ASSERT(table->n_features == rope->n_rot);
    written(cuda, table);
    const size_t n = (size_t)batch->n_tokens, half = (size_t)rope->n_rot / 2;
    const rope_table_params params = {
        .positions = cuda_input_put(cuda, &cuda->positions, batch->positions, n * sizeof(int32_t)),
        .inv_freq = cuda_input_put(cuda, &cuda->inv_freq, rope->inv_freq, half * sizeof(double)),
        .table = table->data,
        .n_rows = batch->n_tokens,
        .n_rot = rope->n_rot,
        .magnitude = rope->magnitude};
    cuda_launch(cuda, KERNEL_rope_table, flat_blocks(batch->n_tokens * rope->n_rot / 2), 1, 0, &params);
}

static void rope_kv_write(backend *b, const rope_params *rope, const backend_buffer *table, const token_batch *batch,
                          backend_buffer *q, backend_buffer *k, const backend_buffer *v, backend_kv *kv) {
    cuda_backend *cuda = cuda_of(b);
    ASSERT(k->n_features == kv->n_head_kv * kv->head_dim && v->n_features == k->n_features);
    ASSERT(!rope || (q->n_features % kv->head_dim == 0 && rope->n_rot <= kv->head_dim));
    if (rope) written(cuda, q);
    int32_t *places = mem_alloc((size_t)batch->n_tokens, sizeof *places);
    if (!places) {
        cuda_fail(cuda, &(logitd_error){.message = "there is no memory for a batch's places in the KV cache"});
        return;
    }
    for (int s = 0; s < batch->n_slices; s++) {
        const batch_slice *slice = &batch->slices[s];
        for (int i = 0; i < slice->n; i++) places[slice->first_row + i] = slice->kv_first + slice->first_pos + i;
    }
    const rope_kv_params params = {
        .table = rope ? table->data : 0,
        .q = rope ? q->data : 0,
        .k = k->data,
        .v = v->data,
        .places = cuda_input_put(cuda, &cuda->places, places, (size_t)batch->n_tokens * sizeof *places),
        .k_cache = kv->k,
        .v_cache = kv->v,
        .n_head = rope ? q->n_features / kv->head_dim : 0,
        .n_head_kv = kv->n_head_kv,
        .head_dim = kv->head_dim,
        .n_rot = rope ? rope->n_rot : 0,
        .neox = rope && rope->neox};
    mem_free(places);
    const int n_heads = params.n_head + 2 * kv->n_head_kv, n_pairs = n_heads * ((kv->head_dim + 1) / 2);
    cuda_launch(cuda, KERNEL_rope_kv_write, batch->n_tokens, cuda_round_up(n_pairs, ROW_THREADS) / ROW_THREADS, 0,
                &params);
}

/// Tiles of query rows of all slices, the longest last. Returns their number.
static int list_items(const token_batch *batch, int group, attention_item *items) {
    int n = 0;
    for (int s = 0; s < batch->n_slices; s++) {
        const batch_slice *slice = &batch->slices[s];
        for (int first = 0; first < slice->n * group; first += ATTENTION_ROWS, n++)
            if (items)
                items[n] = (attention_item){.batch_row = slice->first_row,
                                            .first = first,
                                            .n = MIN(ATTENTION_ROWS, slice->n * group - first),
                                            .first_pos = slice->first_pos,
                                            .kv_first = slice->kv_first};
    }
    return n;
}

static void attention(backend *b, const attention_params *p, const token_batch *batch, const backend_buffer *q,
                      const backend_kv *kv, backend_buffer *out) {
    cuda_backend *cuda = cuda_of(b);
    ASSERT(q->n_features == p->n_head * p->head_dim && out->n_features == q->n_features);
    written(cuda, out);
    const int group = p->n_head / p->n_head_kv, n_items = list_items(batch, group, NULL);
    attention_item *items = mem_alloc((size_t)n_items, sizeof *items);
    if (!items) {
        cuda_fail(cuda, &(logitd_error){.message = "there is no memory for a batch's list of attention tiles"});
        return;
    }
    list_items(batch, group, items);
    const attention_kernel_params params = {
        .items = cuda_input_put(cuda, &cuda->items, items, (size_t)n_items * sizeof *items),
        .q = q->data,
        .k = kv->k,
        .v = kv->v,
        .out = out->data,
        .n_head = p->n_head,
        .n_head_kv = p->n_head_kv,
        .head_dim = p->head_dim,
        .n_swa = p->n_swa,
        .scale = p->scale,
        .softcap = p->softcap};
    mem_free(items);
    const cuda_kernel kernel = p->head_dim <= 64    ? KERNEL_attention_64
                               : p->head_dim <= 128 ? KERNEL_attention_128
                                                    : KERNEL_attention_256;
    const int chunks = p->head_dim <= 64 ? 2 : p->head_dim <= 128 ? 4 : 8;
    cuda_launch(cuda, kernel, n_items, p->n_head_kv, ATTENTION_SHARED(p->head_dim, chunks), &params);
}

static void launch_flat(cuda_backend *cuda, cuda_kernel kernel, int n_rows, const flat_params *operands,
                        const backend_buffer *changed) {
    flat_params params = *operands;
    written(cuda, changed);
    params.x = changed->data;
    params.n_features = changed->n_features;
    params.n = n_rows * changed->n_features;
    cuda_launch(cuda, kernel, flat_blocks(params.n), 1, 0, &params);
}

static void glu(backend *b, activation act, int n_rows, backend_buffer *gate, const backend_buffer *up) {
    const flat_params operands = {.y = up ? up->data : 0, .act = act == ACT_SILU ? 0 : 1};
    launch_flat(cuda_of(b), KERNEL_glu, n_rows, &operands, gate);
}

static void gather(backend *b, const backend_buffer *x, const int32_t *rows, int n, backend_buffer *out) {
    cuda_backend *cuda = cuda_of(b);
    ASSERT(x->n_features == out->n_features && n <= out->n_rows);
    const flat_params operands = {.y = x->data,
                                  .rows = cuda_input_put(cuda, &cuda->rows, rows, (size_t)n * sizeof *rows)};
    launch_flat(cuda, KERNEL_gather, n, &operands, out);
}

static logitd_status finish(backend *b, logitd_error *err) {
    cuda_wait(cuda_of(b));
    return cuda_report(cuda_of(b), err);
}

// ------------------------------------------------------------------------------------------------ start and end

static void destroy(backend *b) {
    cuda_backend *cuda = cuda_of(b);
    if (cuda->context) {
        cuda_input *inputs[] = {&cuda->ids,   &cuda->positions, &cuda->places,
                                &cuda->items, &cuda->inv_freq,  &cuda->rows};
        cuda_wait(cuda);
        for (size_t i = 0; i < ARRAY_LEN(inputs); i++) {
            cuda_free(cuda, inputs[i]->device.data);
            mem_free(inputs[i]->copy);
        }
        cuda_free(cuda, cuda->packed_memory.data);
        cuda_free(cuda, cuda->project.data);
        cuda_queue_close(cuda);
        if (cuda->module) cuda->driver->ModuleUnload(cuda->module);
        cuda->driver->PrimaryCtxRelease(cuda->device);
    }
    mem_free(cuda->project_host);
    mem_free(cuda);
}

const backend_ops cuda_ops = {
    .name = "cuda",
    .destroy = destroy,
    .weight_create = cuda_weight_create,
    .weight_destroy = cuda_weight_destroy,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .kv_create = kv_create,
    .kv_destroy = kv_destroy,
    .buffer_read = buffer_read,
    .buffer_write = buffer_write,
    .embed = embed,
    .norm = norm,
    .add_norm = add_norm,
    .matmul = matmul,
    .rope_table = rope_table,
    .rope_kv_write = rope_kv_write,
    .attention = attention,
    .glu = glu,
    .gather = gather,
    .reserve = cuda_project_reserve,
    .project_stats = cuda_project_stats,
    .project_logits = cuda_project_logits,
    .finish = finish,
};

static int attribute(const cuda_backend *cuda, cuda_device device, int which) {
    int value = 0;
    cuda->driver->DeviceGetAttribute(&value, which, device);
    return value;
}

static int capability(const cuda_backend *cuda, cuda_device device) {
    return attribute(cuda, device, CUDA_ATTRIBUTE_CAPABILITY_MAJOR) * 10 +
           attribute(cuda, device, CUDA_ATTRIBUTE_CAPABILITY_MINOR);
}

/// The first device that is new enough.
static logitd_status choose_device(cuda_backend *cuda, logitd_error *err) {
    int n_devices = 0;
    const cuda_result result = cuda->driver->DeviceGetCount(&n_devices);
    char text[160], name[80] = "";
    if (result)
        return error_set(err, LOGITD_EINVAL, "the CUDA driver lists no devices: %s",
                         cuda_driver_error(cuda->driver, result, text));
    if (n_devices == 0) return error_set(err, LOGITD_EINVAL, "the CUDA driver has no device");
    for (int i = 0; i < n_devices; i++) {
        if (cuda->driver->DeviceGet(&cuda->device, i)) continue;
        cuda->driver->DeviceGetName(name, sizeof name, cuda->device);
        if (capability(cuda, cuda->device) >= LEAST_CAPABILITY) {
            snprintf(cuda->name, sizeof cuda->name, "%s", name);
            return LOGITD_OK;
        }
    }
    const int last = capability(cuda, cuda->device);
    return error_set(err, LOGITD_EINVAL, "none of the %d CUDA devices has compute capability 8.0 or more; %s has %d.%d",
                     n_devices, name, last / 10, last % 10);
}

/// A cubin made for the device's architecture, else the PTX, which the driver compiles.
static logitd_status load_code(cuda_backend *cuda, logitd_error *err) {
    const int device = capability(cuda, cuda->device);
    cuda_result result = CUDA_ERROR_NO_BINARY;
    char text[160];
    for (int i = 0; i < n_cuda_images && result; i++) {
        const int made_for = cuda_images[i].capability;
        if (made_for != 0 && (made_for / 10 != device / 10 || made_for > device)) continue;
        result = cuda->driver->ModuleLoadData(&cuda->module, cuda_images[i].code);
        if (!result) cuda->base.kernel = cuda_images[i].name;
    }
    if (!result) return LOGITD_OK;
    int version = 0;
    cuda->driver->DriverGetVersion(&version);
    return error_set(
        err, LOGITD_EINVAL,
        "the GPU (%s, compute capability %d.%d) with a driver of CUDA %d.%d does not take the kernels of this "
        "build: %s",
        cuda->name, device / 10, device % 10, version / 1000, version % 1000 / 10,
        cuda_driver_error(cuda->driver, result, text));
}

static const struct {
    const char *name;
    int shared_bytes; // at most
} kernel_table[] = {
#define KERNEL(name, shared_bytes, threads) {#name, shared_bytes},
#include "cuda/kernels.def"
#undef KERNEL
};

int cuda_kernel_shared_bytes(cuda_kernel kernel) {
    return kernel_table[kernel].shared_bytes;
}

static logitd_status find_kernels(cuda_backend *cuda, logitd_error *err) {
    char text[160];
    for (int i = 0; i < N_CUDA_KERNELS; i++) {
        const char *name = kernel_table[i].name;
        const int shared_bytes = kernel_table[i].shared_bytes;
        cuda_result result = cuda->driver->ModuleGetFunction(&cuda->kernels[i], cuda->module, name);
        if (!result && shared_bytes > 0)
            result = cuda->driver->FuncSetAttribute(cuda->kernels[i], CUDA_FUNCTION_SHARED_BYTES, shared_bytes);
        if (result)
            return error_set(err, LOGITD_EINVAL,
                             "the GPU (%s) does not take the kernel %s with %d bytes of shared memory: %s", cuda->name,
                             name, shared_bytes, cuda_driver_error(cuda->driver, result, text));
    }
    return LOGITD_OK;
}

static logitd_status open_device(cuda_backend *cuda, logitd_error *err) {
    const cuda_driver *driver = cuda->driver;
    char text[160];
    cuda_result result = driver->PrimaryCtxRetain(&cuda->context, cuda->device);
    if (!result) result = driver->CtxSetCurrent(cuda->context);
    if (!result) result = cuda_queue_open(cuda);
    if (result)
        return error_set(err, LOGITD_EINVAL, "the GPU (%s) cannot be used: %s", cuda->name,
                         cuda_driver_error(driver, result, text));
    cuda->n_multiprocessors = MAX(1, attribute(cuda, cuda->device, CUDA_ATTRIBUTE_MULTIPROCESSORS));
    logitd_status status = load_code(cuda, err);
    if (!status) status = find_kernels(cuda, err);
    return status;
}

logitd_status cuda_backend_create(const backend_options *options, backend **out, logitd_error *err) {
    *out = NULL;
    if (n_cuda_images == 0)
        return error_set(err, LOGITD_EINVAL, "this build has no CUDA kernels: nvcc was not found when it was made");
    const char *precision = options->precision ? options->precision : "exact";
    const bool bf16 = strcmp(precision, "bf16") == 0;
    if (!bf16 && strcmp(precision, "exact") != 0)
        return error_set(err, LOGITD_EINVAL, "the cuda backend has no precision \"%s\"; it offers exact and bf16",
                         precision);
    cuda_backend *cuda = mem_alloc(1, sizeof *cuda);
    if (!cuda) return error_set(err, LOGITD_ENOMEM, "there is no memory for the CUDA backend");
    cuda->base = (backend){.ops = &cuda_ops,
                           .precision = bf16 ? "bf16" : "exact",
                           .kernel = "",
                           .logprob_bound = bf16 ? BF16_BOUND : EXACT_BOUND,
                           .n_threads = 1};
    cuda->bf16 = bf16;
    cuda->launch = cuda_launch_now;
    cuda->driver = cuda_driver_load(err);
    logitd_status status = cuda->driver ? choose_device(cuda, err) : LOGITD_EINVAL;
    if (!status) status = open_device(cuda, err);
    if (status) {
        destroy(&cuda->base);
        return status;
    }
    *out = &cuda->base;
    return LOGITD_OK;
}
