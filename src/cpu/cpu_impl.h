/*
 * cpu_impl.h: what the files of the CPU backend share: its buffers, its weights, and the scratch of its threads.
 */
#ifndef CPU_IMPL_H
#define CPU_IMPL_H

#include "cpu/cpu_kernels.h"
#include "cpu/cpu_pool.h"

struct backend_buffer {
    int n_rows, n_features; // rows of capacity, features of a row
    int bm;                 // rows of a tile, as the last writer chose: 1 or the level's block_m
    uint64_t version;       // changes with every write, and no two buffers share one
    bool multiplied;        // a product has read it: the next one will too
    float *data;            // [tiles][n_features][bm], a tile of one row padded to whole vectors
};

struct backend_weight {
    cpu_matrix matrix; // of 2-D tensors
    int n_out, n_in;
    float *vector; // [n_out] f32 of 1-D tensors, owned, padded to whole vectors
};

struct backend_kv {
    int n_head_kv, head_dim;
    float *k; // [n_kv_rows / CPU_KEY_BLOCK][n_head_kv][head_dim][CPU_KEY_BLOCK]: a product's group of columns
    float *v; // [n_kv_rows][n_head_kv * head_dim]
};

/// Memory of packed weights.
typedef struct cpu_weight_block {
    struct cpu_weight_block *next;
    uint8_t *memory, *data; // data: from the first huge page on
    size_t cap, used;
} cpu_weight_block;

enum { CPU_WEIGHT_BLOCK_BYTES_MIN = 64 << 10, CPU_WEIGHT_BLOCK_BYTES_MAX = 64 << 20 };

/// Scratch of one thread.
typedef struct cpu_scratch {
    float *panel; // an unpacked group of weights, or a row of the embedding
    size_t panel_floats;
    float *tile; // [>= PACK_COLS][block_m] results of one product, or an attention tile
    size_t tile_floats;
} cpu_scratch;

typedef struct cpu_backend {
    backend base;
    const cpu_kernels *kernels;
    bool fast; // the near-exact product for quantised weights
    cpu_pool *pool;
    cpu_scratch *scratch; // [n_threads]
    cpu_weight_block *weights;
    void *project_memory; // cpu_project.c: state of one call, grown on demand
    size_t project_bytes;
    uint64_t last_version; // of any buffer
    // One buffer's rows as a product wants them; q, k and v, or gate and up, share them.
    uint8_t *acts;
    size_t acts_bytes;
    uint64_t acts_version; // the buffer's
    const cpu_product *acts_product;
} cpu_backend;

static inline cpu_backend *cpu_of(backend *b) {
    return (cpu_backend *)b;
}
/// The table for a batch of n_rows: tiles of one row while they are quicker.
static inline const cpu_kernels *cpu_kernels_for(const cpu_backend *cpu, int n_rows) {
    return n_rows <= cpu->kernels->single_rows ? cpu->kernels->single : cpu->kernels;
}
static inline int cpu_n_tiles(const cpu_kernels *kernels, int n_rows) {
    return (n_rows + kernels->block_m - 1) / kernels->block_m;
}
static inline size_t cpu_pad(size_t n_floats) {
    return (n_floats + 15) & ~(size_t)15;
}
/// Start of a tile: [n_features][bm].
static inline float *cpu_tile(const backend_buffer *buf, int tile) {
    return buf->data + (size_t)tile * cpu_pad((size_t)buf->n_features * (size_t)buf->bm);
}
/// Feature 0 of a row; feature f is at [f * bm].
static inline float *cpu_row(const backend_buffer *buf, int row) {
    return cpu_tile(buf, row / buf->bm) + row % buf->bm;
}
/// Before a buffer is written: it takes the table's tiles.
static inline void cpu_will_write(cpu_backend *cpu, backend_buffer *buf, const cpu_kernels *kernels) {
    buf->bm = kernels->block_m;
    buf->version = ++cpu->last_version;
}

// cpu_product.c
/// The product that the backend's precision asks of these weights.
const cpu_product *cpu_choose_product(const cpu_backend *cpu, const cpu_kernels *kernels, const cpu_matrix *w);
/// Bytes of scratch that a thread needs for products with these weights.
size_t cpu_product_panel_bytes(const cpu_backend *cpu, const cpu_matrix *w);
/// Bytes of prepared rows that a buffer may need.
size_t cpu_product_acts_bytes(const cpu_backend *cpu, int n_rows, int n_features);
/// Where tiles that are about to be written to a buffer can be prepared for the product that will follow, by the thread
/// that has them in its cache: cpu_prepare_tile for every tile, then the buffer counts as prepared.
typedef struct cpu_eager {
    const cpu_product *product; // NULL: no product follows
    uint8_t *acts;
    size_t tile_bytes;
} cpu_eager;
cpu_eager cpu_prepare_eagerly(cpu_backend *cpu, const cpu_kernels *kernels, const backend_buffer *buf);
void cpu_prepare_tile(const cpu_eager *eager, const backend_buffer *buf, int tile);
/// Rows 0 … n_rows - 1 of x as the product wants them, prepared once for each write of x; bytes from tile to tile in
/// *tile_bytes.
const void *cpu_prepare_acts(cpu_backend *cpu, const cpu_kernels *kernels, const cpu_product *product,
                             const backend_buffer *x, int n_rows, size_t *tile_bytes);
void cpu_matmul(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, int n_rows,
                backend_buffer *out);
void cpu_matmul_parts(backend *b, const backend_buffer *x, const matmul_part *parts, int n_parts, int n_rows);

// cpu_attention.c
void cpu_rope_kv_write(backend *b, const rope_params *rope, const backend_buffer *table, const token_batch *batch,
                       backend_buffer *q, backend_buffer *k, const backend_buffer *v, backend_kv *kv);
void cpu_attention(backend *b, const attention_params *params, const token_batch *batch, const backend_buffer *q,
                   const backend_kv *kv, backend_buffer *out);
/// Floats of tile scratch that attention needs.
size_t cpu_attention_scratch_floats(const cpu_kernels *kernels, int head_dim);

// cpu_project.c
logitd_status cpu_project_stats(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                const backend_weight *output_bias, float softcap, int n_rows, project_row *rows,
                                logitd_error *err);

#endif
