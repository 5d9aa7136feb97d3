/*
 * cpu_kernels.h: the table of functions that one instruction set gives to the CPU backend, and the rows of all levels.
 *
 * Layout. Rows of a batch are cut into tiles of block_m rows; a tile of n features is [n][block_m] f32, so that one
 * feature of all the tile's rows is one or two vector registers. Weights are broadcast, which keeps every sum and
 * statistic inside its own lane: no horizontal reductions, and a row's result cannot depend on its neighbours. For a
 * few rows that wastes lanes, so every level has a second table, `single`, of tiles of one row (block_m = 1), where
 * the lanes are features or weight columns. Both do the same arithmetic in the same order on every element: a row has
 * the same bits in either. Tiles are 64-byte aligned.
 *
 * The reference level has block_m = 1 and computes in double: it is what the others are tested against.
 */
#ifndef CPU_KERNELS_H
#define CPU_KERNELS_H

#include "backend.h"
#include "cpu/cpu_pack.h"

enum {
    CPU_MAX_BLOCK_M = 32,
    CPU_KEY_BLOCK = BACKEND_KV_BLOCK, // keys of one attention step; absolute multiples, so that a row's sums never
                                      // depend on its batch
    CPU_CHAIN = 128, // k-steps whose products are summed before they join the rest: keeps rounding errors small, and a
                     // chain of a tile stays in L1 while all columns of a panel use it
};

/// Running statistics of one tile over part of the vocabulary. bm = block_m, T = temperatures.
typedef struct cpu_stats {
    float *max;         // [bm] largest logit so far, -inf before the first
    double *sums;       // [T][3][bm] sums of e, x e, x^2 e with x = (logit - max) / T, e = exp x
    const float *inv_t; // [T][bm] 1 / temperature of each lane
    int n_temperatures;
} cpu_stats;

/// One way to multiply a tile with packed weights. What `multiply` reads is prepared once for a tile and once for a
/// group of weight columns; either may be nothing.
typedef struct cpu_product {
    size_t (*acts_bytes)(int n_in); // of a prepared tile; NULL: multiply reads the tile as it is
    void (*prepare)(const float *tile, int n_in, void *acts);
    size_t (*panel_bytes)(const cpu_matrix *w); // of an unpacked group; NULL: multiply reads the packed one
    void (*unpack)(const cpu_matrix *w, int group, void *panel);
    /// out[c][lane] = sum over k of x[k][lane] * weight[first + c][k], columns counted within the group.
    void (*multiply)(const cpu_matrix *w, int group, const void *panel, const void *acts, int first, int n_cols,
                     float *out);
} cpu_product;

typedef struct cpu_kernels {
    const char *name;
    int block_m;                      // rows of a tile
    bool (*supported)(void);          // by this processor
    bool packs;                       // products read packed weights; else the file's rows
    const struct cpu_kernels *single; // the table for tiles of one row; NULL: this is one
    int single_rows;                  // rows up to which it is quicker

    const cpu_product *product;       // of any weights, in f32
    const cpu_product *product_limbs; // of quantised weights, exact; NULL: none
    const cpu_product *product_fast;  // of quantised weights, near-exact; NULL: none
    /// out[c][lane] = sum over k of a[k][lane] * w[k * stride + c]
    /// Order: k ascending in chains of CPU_CHAIN, the chains' sums added in order.
    void (*gemm)(const float *a, int n_k, const float *w, ptrdiff_t stride, int n_cols, float *out);
    /// One group [n][bm]: RMS norm, or layer norm when bias is given. w, bias: [n]. Sums in double.
    void (*norm)(const float *x, const float *w, const float *bias, float eps, int n, float *out);
    /// One head [head_dim][bm] in place; table [n_rot/2][2][bm] holds cos, sin.
    void (*rope)(const float *table, int n_rot, bool neox, float *head);
    /// gate[i] = act(gate[i]) * up[i]; up may be NULL. n counts vectors of bm.
    void (*glu)(activation act, int n, float *gate, const float *up);
    void (*add)(int n, float *x, const float *y);           // x += y
    void (*add_scalar)(int n, float *x, const float *bias); // x[i][lane] += bias[i]
    void (*softcap)(int n, float *x, float cap);            // x = cap * tanh(x / cap)
    /// One step of online softmax (Milakov & Gimelshein 2018, arXiv 1805.02867) over keys key_first … + n_keys - 1:
    /// scores [n_keys][bm] become exp(score * scale - max), 0 where a lane may not look (outside lo … hi);
    /// max and sum [bm] are updated, and correction[bm] = exp(old max - new max).
    void (*softmax_step)(float *scores, int n_keys, int key_first, const int32_t *lo, const int32_t *hi,
                         const attention_params *params, float *max, float *sum, float *correction);
    /// acc[i][lane] = acc[i][lane] * factor[lane] + x[i][lane]
    void (*scale_add)(int n, float *acc, const float *factor, const float *x);

    // For logits [n_cols][bm], of which lanes 0 … n_lanes - 1 count (more may be computed). Not in `single`.
    /// Folds them into the running statistics. -inf adds 0; NaN and +inf make the sums NaN.
    void (*stats)(const float *logits, int n_cols, int n_lanes, cpu_stats *s);
    /// count[lane] += number of logits > target[lane]
    void (*count_above)(const float *logits, int n_cols, int n_lanes, const float *target, int32_t *count);
    /// hits[c] = mask of the lanes whose logit is not <= threshold[lane]: either may be NaN
    void (*find_above)(const float *logits, int n_cols, int n_lanes, const float *threshold, uint32_t *hits);
} cpu_kernels;

/// All levels compiled for this architecture, best first; the last is the reference.
extern const cpu_kernels *const cpu_levels[];
extern const int n_cpu_levels;

extern const cpu_kernels cpu_kernels_reference, cpu_kernels_portable;
#if defined(__x86_64__)
extern const cpu_kernels cpu_kernels_avx2, cpu_kernels_avx512, cpu_kernels_avx512vnni;
#elif defined(__aarch64__)
extern const cpu_kernels cpu_kernels_neon;
#endif

#endif
