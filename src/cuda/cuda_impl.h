/*
 * cuda_impl.h: what the files of the CUDA backend share: its buffers on the device, and how work is queued.
 *
 * One stream holds all work in order, so no operation waits for another; a second one brings results back while the
 * first computes on (cuda_mark, cuda_download_marked). Small inputs (ids, positions, temperatures) go
 * through pinned memory that is reused only after a wait. The first error of the driver is kept as a sentence, and from
 * then on every operation does nothing: `finish` and the projections report it.
 */
#ifndef CUDA_IMPL_H
#define CUDA_IMPL_H

#include "backend.h"
#include "cuda/cuda_driver.h"
#include "cuda/params.h"

typedef enum cuda_kernel {
#define KERNEL(name, shared_bytes, threads) KERNEL_##name,
#include "cuda/kernels.def"
#undef KERNEL
    N_CUDA_KERNELS
} cuda_kernel;

/// A launch as it goes to the driver.
typedef struct cuda_launch_info {
    cuda_kernel kernel;
    const char *name;
    unsigned grid_x, grid_y, threads, shared_bytes;
    const void *params; // the kernel's one argument, valid during the call
} cuda_launch_info;

struct backend_buffer {
    int n_rows, n_features;
    cuda_address data; // [n_rows][n_features] f32
};

struct backend_weight {
    int n_out, n_in;
    int packing;          // PACK_…
    packed_matrix packed; // of matrices
    cuda_address memory;  // its elements and scales in one piece, or the vector [n_out] f32
};

struct backend_kv {
    int n_head_kv, head_dim;
    cuda_address k, v; // [n_kv_rows][n_head_kv * head_dim] f32
};

/// Device memory that grows on demand; what it held is lost then.
typedef struct cuda_scratch {
    cuda_address data;
    size_t n_bytes;
} cuda_scratch;

/// An input that many operations of a batch share: uploaded when it differs from what is there.
typedef struct cuda_input {
    cuda_scratch device;
    void *copy; // the bytes that are there
    size_t n_bytes, capacity;
} cuda_input;

typedef struct cuda_backend {
    backend base;
    /// Queues a launch: cuda_launch_now, or what a bench puts in its place, with `observer`.
    cuda_result (*launch)(struct cuda_backend *cuda, const cuda_launch_info *launch);
    void *observer;
    const cuda_driver *driver;
    cuda_device device;
    cuda_context context;
    cuda_stream stream;
    cuda_stream copies;      // of results
    cuda_event marks[2];     // cuda_mark
    cuda_event copied[2];    // halves of `results`
    uint64_t n_device_bytes; // allocated in all
    cuda_module module;
    cuda_function kernels[N_CUDA_KERNELS];
    int n_multiprocessors;
    bool bf16;            // the precision; else exact
    char name[96];        // of the device and its code
    logitd_error failure; // the first one; status 0 while there is none

    uint8_t *pinned; // [pinned_bytes] inputs on their way; the first pinned_used are taken
    size_t pinned_used, pinned_bytes;
    uint8_t *results; // [results_bytes] pinned, for results
    size_t results_bytes;

    // the rows that were packed last: kept while nothing writes their buffer
    const backend_buffer *packed_of;
    int packed_rows, packed_group;
    packed_matrix packed;
    cuda_scratch packed_memory;

    cuda_input ids, positions, places, items, inv_freq, rows;
    cuda_scratch project;  // cuda_project.c: state of one pass
    uint8_t *project_host; // [project_host_bytes] its inputs and results
    size_t project_host_bytes;
} cuda_backend;

extern const backend_ops cuda_ops; // cuda_backend.c

static inline cuda_backend *cuda_of(backend *b) {
    return (cuda_backend *)b;
}
static inline int cuda_round_up(int n, int step) {
    return (n + step - 1) / step * step;
}

// ------------------------------------------------------------------------------------- cuda_queue.c: memory, work

/// Streams, events and pinned memory; the context is current. The result of the first call that failed.
cuda_result cuda_queue_open(cuda_backend *cuda);
void cuda_queue_close(cuda_backend *cuda);

/// Keeps the first failure, with `what` was tried. True when the result is success and nothing failed before.
bool cuda_ok(cuda_backend *cuda, cuda_result result, const char *what);
/// Ends the backend for a reason of the host: an operation that can report nothing lacks memory.
void cuda_fail(cuda_backend *cuda, const logitd_error *why);
bool cuda_failed(const cuda_backend *cuda);
/// Puts a failure into err.
logitd_status cuda_report(const cuda_backend *cuda, logitd_error *err);

/// Device memory, 256-byte aligned; 0: there is none (not sticky), and err, which may be NULL, says how much there is.
cuda_address cuda_alloc(cuda_backend *cuda, size_t n_bytes, const char *what, logitd_error *err);
void cuda_free(cuda_backend *cuda, cuda_address at);
/// True when the scratch now holds n_bytes. Waits for work that may use the old memory.
bool cuda_scratch_grow(cuda_backend *cuda, cuda_scratch *s, size_t n_bytes, const char *what, logitd_error *err);

/// Queues a copy of host memory, which may change as soon as this returns.
void cuda_upload(cuda_backend *cuda, cuda_address to, const void *from, size_t n_bytes);
/// The device address of these bytes: those of the last call when they are the same. 0 after a failure.
cuda_address cuda_input_put(cuda_backend *cuda, cuda_input *input, const void *bytes, size_t n_bytes);
/// Remembers this point of the queue, as 0 or 1.
void cuda_mark(cuda_backend *cuda, int mark);
/// Copies to host memory what is there at the mark, while work that was queued after it may run; waits for the copy
/// alone. After a failure the memory is zero.
void cuda_download_marked(cuda_backend *cuda, int mark, void *to, cuda_address from, size_t n_bytes);
/// Copies to host memory and waits for all work. After a failure the memory is zero.
void cuda_download(cuda_backend *cuda, void *to, cuda_address from, size_t n_bytes);
void cuda_wait(cuda_backend *cuda);

cuda_result cuda_launch_now(cuda_backend *cuda, const cuda_launch_info *launch);
/// Queues a kernel with its argument struct.
void cuda_launch(cuda_backend *cuda, cuda_kernel kernel, int grid_x, int grid_y, int shared_bytes, const void *params);

// ------------------------------------------------------------------------------------------------ cuda_backend.c

/// The dynamic shared memory of a kernel whose size is fixed.
int cuda_kernel_shared_bytes(cuda_kernel kernel);

// ------------------------------------------------------------------------------------------------ cuda_weight.c

backend_weight *cuda_weight_create(backend *b, const gguf_tensor *tensor, int first_out, int n_out, bool multiplied,
                                   logitd_error *err);
void cuda_weight_destroy(backend *b, backend_weight *w);
/// Inputs of a weight that share a scale.
int cuda_packing_group(int packing);

// ------------------------------------------------------------------------------------------------ cuda_project.c

/// Bytes of n_rows rows of n_features packed for products, at most.
size_t cuda_packed_bytes(int n_rows, int n_features);
/// The first n_rows rows of a buffer packed for products with w, in cuda->packed; packed unless they still are there.
void cuda_pack_rows(cuda_backend *cuda, const backend_buffer *x, const backend_weight *w, int n_rows);
/// out = cap(x w^T + bias) for rows that are packed.
void cuda_multiply(cuda_backend *cuda, const packed_matrix *x, const backend_weight *w, const backend_weight *bias,
                   int n_rows, float softcap, cuda_address out);
logitd_status cuda_project_reserve(backend *b, const backend_weight *output, const project_limits *most,
                                   logitd_error *err);
logitd_status cuda_project_stats(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                 const backend_weight *output_bias, float softcap, int n_rows, project_row *rows,
                                 logitd_error *err);
logitd_status cuda_project_logits(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                  const backend_weight *output_bias, float softcap, int n_rows, float *out,
                                  logitd_error *err);

#endif
