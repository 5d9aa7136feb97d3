/*
 * cpu_impl.h: what the files of the CPU backend share: the layout of its buffers and its per-thread scratch.
 */
#ifndef CPU_IMPL_H
#define CPU_IMPL_H

#include "cpu/cpu_kernels.h"
#include "cpu/cpu_pool.h"

enum {
    CPU_PANEL_BYTES = 192 << 10, // f32 weights of one panel: with a tile and its results it stays in a 512 KiB L2
    CPU_PANEL_MAX_COLS = 96,     // columns of a panel
};

struct backend_buffer {
    int n_rows, n_features; // rows of capacity, features of a row
    float *data;            // [tiles][n_features][block_m]
};

struct backend_weight {
    const quant_type *type;
    const uint8_t *data; // in the file's mapping; NULL for vectors
    size_t row_bytes;
    int n_out, n_in;
    float *vector; // [n_out] f32 of 1-D tensors, owned
};

struct backend_kv {
    int n_head_kv, head_dim;
    float *k, *v; // [n_kv_rows][n_head_kv * head_dim]
};

/// Scratch of one thread.
typedef struct cpu_scratch {
    float *panel; // dequantised weight rows
    size_t panel_floats;
    float *tile; // [>= CPU_PANEL_MAX_COLS][block_m] results of one gemm, or an attention tile
    size_t tile_floats;
} cpu_scratch;

typedef struct cpu_backend {
    backend base;
    const cpu_kernels *kernels;
    cpu_pool *pool;
    cpu_scratch *scratch; // [n_threads]
    void *project_memory; // cpu_project.c: state of one call, grown on demand
    size_t project_bytes;
} cpu_backend;

static inline cpu_backend *cpu_of(backend *b) {
    return (cpu_backend *)b;
}
static inline int cpu_n_tiles(const cpu_backend *cpu, int n_rows) {
    return (n_rows + cpu->kernels->block_m - 1) / cpu->kernels->block_m;
}
/// Start of a tile: [n_features][block_m].
static inline float *cpu_tile(const cpu_backend *cpu, const backend_buffer *buf, int tile) {
    return buf->data + (size_t)tile * (size_t)buf->n_features * (size_t)cpu->kernels->block_m;
}
/// Feature 0 of a row; feature f is at [f * block_m].
static inline float *cpu_row(const cpu_backend *cpu, const backend_buffer *buf, int row) {
    const int bm = cpu->kernels->block_m;
    return cpu_tile(cpu, buf, row / bm) + row % bm;
}
/// Columns of a weight's panel: as many as fit CPU_PANEL_BYTES, a multiple of the gemm's register tile.
int cpu_panel_cols(const cpu_backend *cpu, const backend_weight *w);
/// Dequantises rows first … first+n-1 into [n][n_in].
void cpu_dequantize_rows(const cpu_backend *cpu, const backend_weight *w, int first, int n, float *out);

// cpu_attention.c
void cpu_kv_write(backend *b, const token_batch *batch, const backend_buffer *k, const backend_buffer *v,
                  backend_kv *kv);
void cpu_attention(backend *b, const attention_params *params, const token_batch *batch, const backend_buffer *q,
                   const backend_kv *kv, backend_buffer *out);
/// Floats of tile scratch that attention needs.
size_t cpu_attention_scratch_floats(const cpu_kernels *kernels, int head_dim);

// cpu_project.c
logitd_status cpu_project_stats(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                const backend_weight *output_bias, float softcap, int n_rows, project_row *rows,
                                logitd_error *err);
logitd_status cpu_project_logits(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                 const backend_weight *output_bias, float softcap, int n_rows, float *out,
                                 logitd_error *err);

#endif
