/*
 * cuda_blas.c: see cuda_blas.h. A product in f32 (to set beside `exact`) or in bf16 with f32 sums, logits [n_tokens,
 * n_vocab] in f32, and then one pass that reads them all (peak_read): the least that any unfused softmax, entropy and
 * top N have to do, so the rows are kind to the unfused way.
 */
#include "cuda_blas.h"
#include "cuda_work.h"
#include <dlfcn.h>

// Numbers of cublas_api.h and library_types.h.
enum { OP_N = 0, OP_T = 1, R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, GEMM_DEFAULT = -1 };

typedef struct blas {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, cuda_stream stream);
    int (*gemm)(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, int type_a,
                int lda, const void *b, int type_b, int ldb, const void *beta, void *c, int type_c, int ldc,
                int compute, int algorithm);
    void *handle;
} blas;

static bool find_blas(blas *out) {
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12"};
    void *library = NULL;
    for (size_t i = 0; i < ARRAY_LEN(names) && !library; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    *(void **)&out->create = dlsym(library, "cublasCreate_v2");
    *(void **)&out->destroy = dlsym(library, "cublasDestroy_v2");
    *(void **)&out->set_stream = dlsym(library, "cublasSetStream_v2");
    *(void **)&out->gemm = dlsym(library, "cublasGemmEx");
    return out->create && out->destroy && out->set_stream && out->gemm && !out->create(&out->handle);
}

typedef struct unfused {
    const blas *blas;
    cuda_backend *cuda;
    int n_tokens, n_embd, n_vocab, type;
    cuda_address x, w, logits, out;
} unfused;

static void *pointer(cuda_address at) {
    return (void *)(uintptr_t)at;
}

/// In column-major words: logits [n_vocab, n_tokens] = w^T [n_embd, n_vocab] x [n_embd, n_tokens].
static cuda_result run(void *arg) {
    const unfused *u = arg;
    static const float one = 1.0f, zero = 0.0f;
    const int status = u->blas->gemm(u->blas->handle, OP_T, OP_N, u->n_vocab, u->n_tokens, u->n_embd, &one,
                                     pointer(u->w), u->type, u->n_embd, pointer(u->x), u->type, u->n_embd, &zero,
                                     pointer(u->logits), R_32F, u->n_vocab, COMPUTE_32F, GEMM_DEFAULT);
    if (status) return CUDA_ERROR_INVALID_IMAGE;
    const peak_params p = {
        .memory = u->logits,
        .out = u->out,
        .n = cuda_whole_reads((size_t)u->n_tokens * (size_t)u->n_vocab * 4, u->cuda->n_multiprocessors * 8),
        .rounds = 1};
    const cuda_launch_info read = {.kernel = KERNEL_peak_read,
                                   .name = "peak_read",
                                   .grid_x = (unsigned)u->cuda->n_multiprocessors * 8,
                                   .grid_y = 1,
                                   .threads = FLAT_THREADS,
                                   .params = &p};
    return cuda_launch_now(u->cuda, &read);
}

static logitd_status compare_shape(bench *b, const cuda_events *events, unfused *u, const char *shape,
                                   logitd_error *err) {
    const size_t element = u->type == R_32F ? 4 : 2, n = (size_t)u->n_tokens, v = (size_t)u->n_vocab,
                 k = (size_t)u->n_embd;
    bench_case c = {.section = "cuda",
                    .positions = u->n_tokens,
                    .ops = 2.0 * (double)n * (double)v * (double)k,
                    .bytes = (double)(element * (n + v) * k + 8 * n * v)};
    snprintf(c.name, sizeof c.name, "%s: cuBLAS %s, then a read of the logits", shape,
             u->type == R_32F ? "f32" : "bf16");
    u->x = cuda_alloc(u->cuda, n * k * element, "rows for cuBLAS", err);
    u->w = u->x ? cuda_alloc(u->cuda, v * k * element, "a matrix for cuBLAS", err) : 0;
    u->logits = u->w ? cuda_alloc(u->cuda, n * v * 4, "logits", err) : 0;
    u->out =
        u->logits ? cuda_alloc(u->cuda, (size_t)u->cuda->n_multiprocessors * 8 * FLAT_THREADS * 4, "sums", err) : 0;
    logitd_status status = u->out ? LOGITD_OK : LOGITD_ENOMEM;
    if (!status) {
        cuda_ok(u->cuda, u->cuda->driver->MemsetD8Async(u->x, 0x3a, n * k * element, u->cuda->stream), "filling");
        cuda_ok(u->cuda, u->cuda->driver->MemsetD8Async(u->w, 0x3a, v * k * element, u->cuda->stream), "filling");
        cuda_ok(u->cuda, cuda_events_time(events, u->cuda->stream, run, u, &c.time), "a product by cuBLAS");
        status = cuda_report(u->cuda, err);
    }
    if (!status) report_case(b->report, &c);
    const cuda_address all[] = {u->x, u->w, u->logits, u->out};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) cuda_free(u->cuda, all[i]);
    return status;
}

logitd_status cuda_blas_compare(bench *b, cuda_backend *cuda, const cuda_events *events, logitd_error *err) {
    blas found = {0};
    static const int types[] = {R_32F, R_16BF};
    if (!find_blas(&found)) {
        report_note(b->report, "cuBLAS (libcublas.so.13 or .12) cannot be loaded: no comparison with it");
        return LOGITD_OK;
    }
    found.set_stream(found.handle, cuda->stream);
    logitd_status status = LOGITD_OK;
    for (int i = 0; i < n_cuda_shapes && !status; i++)
        for (size_t t = 0; t < ARRAY_LEN(types) && !status; t++) {
            unfused u = {.blas = &found,
                         .cuda = cuda,
                         .n_tokens = b->n_tokens,
                         .n_embd = cuda_shapes[i].n_embd,
                         .n_vocab = cuda_shapes[i].n_vocab,
                         .type = types[t]};
            status = compare_shape(b, events, &u, cuda_shapes[i].name, err);
        }
    found.destroy(found.handle);
    return status;
}
