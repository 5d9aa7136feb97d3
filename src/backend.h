/*
 * backend.h: the operations that a device offers to the layer loop. A backend is a table of functions on opaque
 * buffers; the layer loop (model_forward.c) is written once over it.
 *
 * Buffers hold [n_rows, n_features] f32. How they are laid out is the backend's own business (the CPU keeps tiles of
 * rows in vector lanes), so only buffer_read and buffer_write see row-major data. A *row* is one token of the batch.
 *
 * Promise, which every backend must keep: what a row gets does not depend, not by one bit, on which rows share its
 * batch, on their number or order, nor on the number of threads.
 *
 * Errors: operations that only compute return nothing; a device fault is sticky and reported by `finish`, which also
 * waits for all work queued before it. Who creates a buffer or a weight destroys it, before the backend.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include "gguf.h"
#include "util.h"

typedef struct backend backend;
typedef struct backend_buffer backend_buffer; // [n_rows, n_features] f32 on the device
typedef struct backend_weight backend_weight; // [n_out, n_in] in a GGUF format, or a vector [n_out] f32
typedef struct backend_kv backend_kv;         // keys and values of one layer: 2 x [n_kv_rows, n_head_kv * head_dim] f32

enum { BACKEND_KV_BLOCK = 48 }; // a sequence whose kv_first is a multiple of it is quickest

/// Rows first_row … first_row+n-1 of a batch are positions first_pos … of one sequence, whose key of position p is row
/// kv_first + p of the KV cache.
typedef struct batch_slice {
    int first_row, n;
    int first_pos;
    int kv_first;
} batch_slice;

/// The rows of one batch.
typedef struct token_batch {
    int n_tokens;
    const int32_t *tokens;     // [n_tokens]
    const int32_t *positions;  // [n_tokens] position in its sequence
    const batch_slice *slices; // [n_slices] cover the rows in order
    int n_slices;
} token_batch;

typedef enum activation { ACT_SILU, ACT_GELU_TANH } activation;

/// Rotary embedding (Su et al. 2021, arXiv 2104.09864). Pair i of a head turns by position * inv_freq[i].
typedef struct rope_params {
    int n_rot;              // rotated dimensions of a head, even, <= head_dim
    bool neox;              // pairs are (i, i + n_rot/2); else (2i, 2i+1)
    const double *inv_freq; // [n_rot/2] radians a position
    double magnitude;       // cos and sin are multiplied by it (YaRN, LongRoPE); 1 otherwise
} rope_params;

/// One of several products of the same rows: out = x * w^T (+ bias).
typedef struct matmul_part {
    const backend_weight *w, *bias; // bias: or NULL
    backend_buffer *out;
} matmul_part;

typedef struct attention_params {
    int n_head, n_head_kv, head_dim; // head h reads the keys of head h / (n_head / n_head_kv)
    float scale;                     // score = q.k * scale
    float softcap;                   // > 0: score = softcap * tanh(score / softcap)
    int n_swa;                       // > 0: position p sees p - n_swa + 1 … p
} attention_params;

/// What project_stats gives for one row (one position). x = (logit - max) / T, in double.
typedef struct project_row {
    // asked
    int32_t target_id;          // its logit and rank are wanted; -1: none
    int n_temperatures;         // T
    const double *temperatures; // [T]
    int top_n;                  // N <= n_vocab
    int n_listed;               // K
    const int32_t *listed_ids;  // [K]
    float *logits;              // [n_vocab] host memory for all of its logits, or NULL
    // given
    double *sum_e, *sum_xe, *sum_xxe; // [T] sums over the vocabulary of exp x, x exp x, x^2 exp x
    float max;                        // largest logit
    float target_logit;
    int32_t target_rank; // tokens with a strictly larger logit
    int32_t *top_id;     // [N] by logit descending, then id ascending
    float *top_logit;    // [N]
    float *listed_logit; // [K]
} project_row;

/// The most that one call of a projection is ever asked for.
typedef struct project_limits {
    int n_rows, n_full_rows; // of project_stats; of those whose logits are wanted
    int n_temperatures, top_n, n_listed;
} project_limits;

typedef struct backend_ops {
    const char *name; // "cpu"
    void (*destroy)(backend *b);

    /// Rows first_out … first_out+n_out-1 of a 2-D tensor, or elements of a 1-D one. The tensor's file must outlive it.
    /// multiplied: it will be a matrix of matmul or of a projection (and may serve embed too); else of embed alone.
    backend_weight *(*weight_create)(backend *b, const gguf_tensor *tensor, int first_out, int n_out, bool multiplied,
                                     logitd_error *err);
    void (*weight_destroy)(backend *b, backend_weight *w);
    backend_buffer *(*buffer_create)(backend *b, int n_rows, int n_features); // NULL: no memory
    void (*buffer_destroy)(backend *b, backend_buffer *buf);
    backend_kv *(*kv_create)(backend *b, int n_kv_rows, int n_head_kv, int head_dim); // NULL: no memory
    void (*kv_destroy)(backend *b, backend_kv *kv);

    /// out[i] = buffer[rows[i]], row-major [n, n_features] in host memory; waits for the work before it.
    void (*buffer_read)(backend *b, const backend_buffer *buf, const int32_t *rows, int n, float *out);
    /// buffer[i] = in[i] for rows 0 … n-1, from row-major host memory.
    void (*buffer_write)(backend *b, backend_buffer *buf, const float *in, int n);

    /// out[r] = table[ids[r]] * scale
    void (*embed)(backend *b, const backend_weight *table, const int32_t *ids, int n_rows, float scale,
                  backend_buffer *out);
    /// Each row is n_groups groups of equal size; a group becomes (g - mean) / sqrt(var + eps) * w + bias when bias is
    /// given (layer norm), else g / sqrt(mean(g^2) + eps) * w (RMS norm). out may be x.
    void (*norm)(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, float eps,
                 int n_rows, int n_groups, backend_buffer *out);
    /// The end of a half-block and the start of the next: x[r] += y[r], whose RMS norm of weight y_norm takes its place
    /// when that is given; then out[r] = norm of x[r], as one group. w NULL: x is only added to, and out not touched.
    /// What y holds afterwards is not defined. The bits of norm, a plain addition and norm.
    void (*add_norm)(backend *b, backend_buffer *x, backend_buffer *y, const backend_weight *y_norm,
                     const backend_weight *w, const backend_weight *bias, float eps, int n_rows, backend_buffer *out);
    /// out[r][o] = sum_i x[r][i] * w[o][i] (+ bias[o])
    void (*matmul)(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, int n_rows,
                   backend_buffer *out);
    /// The products of parts 0 … n_parts - 1 with the same rows (q, k and v; gate and up), the bits of matmul. NULL:
    /// the device gains nothing by having them at once.
    void (*matmul_parts)(backend *b, const backend_buffer *x, const matmul_part *parts, int n_parts, int n_rows);
    /// table: a buffer of n_rot features, filled with cos and sin for the rows' positions. Angles in double.
    void (*rope_table)(backend *b, const rope_params *rope, const token_batch *batch, backend_buffer *table);
    /// Rotates the heads of the rows' queries, in place, and of their keys, and stores keys and values at their places
    /// in the cache. rope NULL: nothing turns, and q is not touched. What k holds afterwards is not defined.
    void (*rope_kv_write)(backend *b, const rope_params *rope, const backend_buffer *table, const token_batch *batch,
                          backend_buffer *q, backend_buffer *k, const backend_buffer *v, backend_kv *kv);
    /// Causal attention of the rows' queries over their sequences' keys, those of this batch included.
    void (*attention)(backend *b, const attention_params *params, const token_batch *batch, const backend_buffer *q,
                      const backend_kv *kv, backend_buffer *out);
    /// gate[r] = act(gate[r]) * up[r], or act(gate[r]) when up is NULL
    void (*glu)(backend *b, activation act, int n_rows, backend_buffer *gate, const backend_buffer *up);
    /// out[i] = x[rows[i]], both on the device
    void (*gather)(backend *b, const backend_buffer *x, const int32_t *rows, int n, backend_buffer *out);

    /// Takes the memory that projections within these limits need, so that none of them has to ask for it. ENOMEM:
    /// there is less; *err has the numbers. NULL: they need next to nothing.
    logitd_status (*reserve)(backend *b, const backend_weight *output, const project_limits *most, logitd_error *err);
    /// Final projection and statistics in one pass over the output matrix; softcap > 0: logit = c * tanh(logit / c).
    /// A backend that has project_logits is never asked for a row's logits. Waits for its results. Errors: ENOMEM,
    /// EBACKEND.
    logitd_status (*project_stats)(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                   const backend_weight *output_bias, float softcap, int n_rows, project_row *rows,
                                   logitd_error *err);
    /// The same logits, bit for bit, without statistics, row-major [n_rows, n_vocab] in host memory. Waits. NULL:
    /// project_stats gives both for hardly more than one, however few the rows.
    logitd_status (*project_logits)(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                    const backend_weight *output_bias, float softcap, int n_rows, float *out,
                                    logitd_error *err);
    /// Waits for all work; EBACKEND with a sentence once the device has failed.
    logitd_status (*finish)(backend *b, logitd_error *err);
} backend_ops;

/// A backend's first member is its table.
struct backend {
    const backend_ops *ops;
    const char *precision; // "exact"
    const char *kernel;    // "avx2"
    double logprob_bound;  // most that a log-probability at T = 1 may be off, nats: promised for "exact", else measured
    int n_threads;
};

typedef struct backend_options {
    const char *precision; // "exact"
    const char *cpu_level; // "auto", or the name of a row of cpu_levels
    int n_threads;         // 0: the processors of this process
} backend_options;

logitd_status cpu_backend_create(const backend_options *options, backend **out, logitd_error *err);
/// The first CUDA device of compute capability 8.0 or more. EINVAL with a sentence: no kernels in this build, no
/// driver, too old a driver, no such device, or a precision that it does not have.
logitd_status cuda_backend_create(const backend_options *options, backend **out, logitd_error *err);

#endif
