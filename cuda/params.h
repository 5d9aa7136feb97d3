/*
 * params.h: what host and kernels agree on: packed layouts, tile sizes, and one struct of arguments for each kernel.
 * Valid in C and in CUDA. Pointers are device addresses; the host sees them as integers.
 *
 * Packed operands. Products are made of groups of GROUP consecutive inputs that share a scale: a value is
 * scale * (element) + add, one (scale, add) for each group. Elements lie in planes:
 *
 *   LIMBS  activations of `exact`: 3 int8 limbs, 65536 hi + 256 mid + lo, |.| <= LIMB_MAX, so that the sums of a group
 *          are exact integers; scale is a power of two, `add` holds the sum of the group's values instead, which a
 *          weight's add is multiplied by
 *   BF16   activations of `bf16`: the value rounded to bf16, at BF16_PLACE; of the scale there is the sum alone
 *   N32    a weight's quant of 4 bits, less the format's smallest; byte b of a group: quants b and b + 16
 *   Q32    a quant of up to 8 bits as it is; exact, as N32 is
 *   Q16    the same in groups of 16
 *   F32    3 limbs of a float weight, in groups of 32: 2^-22 of the group's largest; scale times 65536 (`exact`)
 *   B16    a float weight rounded to bf16, at BF16_PLACE; it has no scale (`bf16`)
 *
 *   elements  [n_planes][n_rows_pad][k_pad * bits / 8]
 *   scales    [k_pad / GROUP][n_rows_pad]
 *
 * Rows are padded to a tile and k to BLOCK_K with zeros, so that main loops have no tails.
 */
#ifndef CUDA_PARAMS_H
#define CUDA_PARAMS_H

#ifdef __CUDACC__
#    define DEVICE(type) type *
#else
#    include <stdint.h>
#    define DEVICE(type) uint64_t
#endif

enum {
    GEMM_THREADS = 256,
    BLOCK_N = 128,              // outputs (vocabulary) of a tile
    BLOCK_K = 64,               // inputs of a pipeline stage
    STEP_K = 32,                // inputs of a step of the inner loop: a group of 32, or two of 16
    BLOCK_M_LARGE = 64,         // tokens of a tile
    BLOCK_M_SMALL = 16,         // tokens of a tile when there are few: the same sums in the same order
    LIMB_MAX = 8355711,         // 127 * 65536 + 127 * 256 + 127
    LOGITS_PITCH = BLOCK_N + 4, // floats between rows of a tile of logits in shared memory: no bank conflicts by quads

    ATTENTION_ROWS = 16, // query rows of a tile: (position, head of the group)
    ATTENTION_KEYS = 32, // keys of a step; steps start at absolute multiples of it
    ATTENTION_THREADS = 128,
    ATTENTION_MAX_HEAD_DIM = 256,

    ROW_THREADS = 128,  // threads of a block that works on one row
    FLAT_THREADS = 256, // threads of a block of an element-wise kernel
    PAIR_THREADS = 64,  // a warp makes 8 single logits
    TOP_SLACK = 64,     // a list of best entries is cut to N … N + TOP_SLACK
    TOP_ROOM = 512,     // and has room for N + TOP_ROOM; more than BLOCK_N + TOP_SLACK
    TOP_MAX = 1024,     // N at most
    MERGE_THREADS = 256,

    PEAK_CHAINS = 16, // of multiply-adds in a thread of peak_f32
    PEAK_LOADS = 4,   // of 16 bytes in a thread of peak_read
    PEAK_TILES = 8,   // of mma in a warp of peak_bf16 and peak_int8
};

/// Formats of packed operands: planes, bits of an element, bytes of a scale. A group's inputs are the weights' matter.
enum { LIMBS_PLANES = 3, LIMBS_BITS = 8, LIMBS_SCALE = 8 };
enum { BF16_PLANES = 1, BF16_BITS = 16, BF16_SCALE = 4 };
enum { N32_PLANES = 1, N32_BITS = 4, N32_SCALE = 8, N32_GROUP = 32 };
enum { Q32_PLANES = 1, Q32_BITS = 8, Q32_SCALE = 8, Q32_GROUP = 32 };
enum { Q16_PLANES = 1, Q16_BITS = 8, Q16_SCALE = 8, Q16_GROUP = 16 };
enum { F32_PLANES = 3, F32_BITS = 8, F32_SCALE = 8, F32_GROUP = 32 };
enum { B16_PLANES = 1, B16_BITS = 16, B16_SCALE = 0, B16_GROUP = 32 };

/// How a weight is packed, in the order of kernels.def. PACK_FLOAT is F32 for `exact` and B16 for `bf16`.
enum { PACK_N32, PACK_Q32, PACK_Q16, PACK_FLOAT, N_PACKINGS };

/// Where input k lies in a row of bf16: the four inputs that four bytes of quants hold are those that one lane gives to
/// mma m16n8k16, so that quants need no shuffle.
#define BF16_PLACE(k) (((k) & ~15) | ((k)&2) << 2 | ((k) >> 1 & 6) | ((k)&1))

/// Bytes of shared memory of one stage of the product of operands a and w, and stages: few rows leave room for more
/// bytes under way, float weights for less.
#define STAGE_ROW_BYTES(format, w)                                                                                     \
    (format##_PLANES * BLOCK_K * format##_BITS / 8 + (w##_SCALE ? BLOCK_K / w##_GROUP * format##_SCALE : 0))
#define STAGE_BYTES(a, w, block_m) ((block_m)*STAGE_ROW_BYTES(a, w) + BLOCK_N * STAGE_ROW_BYTES(w, w))
#define NUM_STAGES(w, block_m)     (w##_PLANES > 1 ? 2 : (block_m) == BLOCK_M_SMALL ? 4 : 3)
#define GEMM_SHARED(a, w, block_m) (NUM_STAGES(w, block_m) * STAGE_BYTES(a, w, block_m))
#define ATTENTION_PITCH(head_dim)  ((head_dim) + 1)
#define ATTENTION_SHARED(head_dim, chunks)                                                                             \
    (((ATTENTION_ROWS + ATTENTION_KEYS) * ATTENTION_PITCH(head_dim) + ATTENTION_KEYS * 32 * (chunks)) * 4)

/// One packed operand.
typedef struct packed_matrix {
    DEVICE(const unsigned char) elements; // [n_planes][n_rows_pad][k_pad * bits / 8]
    DEVICE(const unsigned char) scales;   // [k_pad / group][n_rows_pad] float2, or float for BF16
    int n_rows_pad, k_pad;
} packed_matrix;

typedef struct pack_params {
    DEVICE(const float) x;          // [n_rows][n_in]
    DEVICE(unsigned char) elements; // as packed_matrix has them
    DEVICE(unsigned char) scales;
    int n_rows, n_in, n_rows_pad, k_pad;
    int group; // 16 or 32
} pack_params;

typedef struct matmul_params {
    packed_matrix x, w;
    DEVICE(const float) bias; // [n_out] or 0
    DEVICE(float) out;        // [n_rows][n_out]
    int n_rows, n_out;
    float softcap; // > 0: out = softcap * tanh(out / softcap)
} matmul_params;

/// A logit to be made alone: of row `row` for token `id`; -1: +infinity, which nothing is above.
typedef struct logit_pair {
    int row, id;
} logit_pair;

typedef struct pair_params {
    packed_matrix x, w;
    DEVICE(const float) bias;
    DEVICE(const logit_pair) pairs; // [n_pairs]
    DEVICE(float) out;              // [n_pairs]
    int n_pairs;
    float softcap;
} pair_params;

typedef struct stats_params {
    packed_matrix x, w;
    DEVICE(const float) bias;
    int n_rows, n_rows_pad; // rows of this pass; padded, as the arrays below have them
    int n_out;              // the vocabulary
    float softcap;
    int n_tiles, part_tiles; // tiles of BLOCK_N columns; of them in one part
    int n_temperatures;
    DEVICE(const float) inv_t;  // [n_rows_pad][n_temperatures]
    DEVICE(const float) target; // [n_rows_pad] logits; +inf: none
    DEVICE(const int) top_n;    // [n_rows_pad]; 0: none
    DEVICE(float) max;          // [n_tiles][n_rows_pad]
    DEVICE(float)
    sums; // [n_tiles][n_temperatures][3][n_rows_pad] of exp x, x exp x, x^2 exp x; x = (logit - tile's max) / T
    DEVICE(int) above;               // [n_rows_pad] logits above the target's; zero before
    int top_room;                    // keys of a list
    DEVICE(unsigned long long) keys; // [n_parts][n_rows][top_room]
    DEVICE(int) n_keys;              // [n_parts][n_rows]
} stats_params;

typedef struct merge_params {
    int n_rows, n_rows_pad, n_tiles, n_parts, n_temperatures, top_room, max_top_n;
    DEVICE(const double) temperatures; // [n_rows_pad][n_temperatures]
    DEVICE(const int) top_n;
    DEVICE(const float) max;
    DEVICE(const float) sums;
    DEVICE(const unsigned long long) keys;
    DEVICE(const int) n_keys;
    DEVICE(double) out_sums;            // [n_rows][n_temperatures][3]
    DEVICE(float) out_max;              // [n_rows]
    DEVICE(unsigned long long) out_top; // [n_rows][max_top_n] keys, best first
} merge_params;

typedef struct embed_params {
    packed_matrix w;
    DEVICE(const int) ids; // [n_rows]
    DEVICE(float) out;     // [n_rows][n_in]
    int n_in;
    int packing, group; // PACK_…
    int bf16;           // floats are B16
    float scale;
} embed_params;

typedef struct norm_params {
    DEVICE(const float) x;
    DEVICE(const float) w;    // [n]
    DEVICE(const float) bias; // [n] or 0: RMS norm
    DEVICE(float) out;        // may be x
    int n, n_groups;
    float eps;
} norm_params;

typedef struct add_norm_params {
    DEVICE(float) x;            // [n_rows][n]
    DEVICE(const float) y;      // [n_rows][n]
    DEVICE(const float) y_norm; // [n] or 0: y is added as it is
    DEVICE(const float) w;      // [n] or 0: no norm of x
    DEVICE(const float) bias;   // [n] or 0: RMS norm
    DEVICE(float) out;          // [n_rows][n], not x
    int n;
    float eps;
} add_norm_params;

typedef struct rope_table_params {
    DEVICE(const int) positions;   // [n_rows]
    DEVICE(const double) inv_freq; // [n_rot / 2]
    DEVICE(float) table;           // [n_rows][n_rot] cos and sin in turn
    int n_rows, n_rot;
    double magnitude;
} rope_table_params;

typedef struct rope_kv_params {
    DEVICE(const float) table; // [n_rows][n_rot]
    DEVICE(float) q;           // [n_rows][n_head * head_dim]
    DEVICE(const float) k;     // [n_rows][n_head_kv * head_dim], as all below
    DEVICE(const float) v;
    DEVICE(const int) places; // [n_rows] row of the cache
    DEVICE(float) k_cache;
    DEVICE(float) v_cache;
    int n_head, n_head_kv, head_dim; // n_head 0: no queries
    int n_rot, neox;                 // n_rot 0: nothing turns
} rope_kv_params;

/// A tile of query rows of one sequence: row r of the sequence's rows is position r / group, head r % group of a group.
typedef struct attention_item {
    int batch_row; // the sequence's first row in the batch
    int first, n;  // rows first … first + n - 1, n <= ATTENTION_ROWS
    int first_pos; // of batch_row
    int kv_first;  // cache row of position 0
} attention_item;

typedef struct attention_kernel_params {
    DEVICE(const attention_item) items; // one a block column
    DEVICE(const float) q;              // [n_rows][n_head * head_dim]
    DEVICE(const float) k;              // [n_kv_rows][n_head_kv * head_dim]
    DEVICE(const float) v;
    DEVICE(float) out; // as q
    int n_head, n_head_kv, head_dim, n_swa;
    float scale, softcap;
} attention_kernel_params;

typedef struct flat_params {
    DEVICE(float) x;        // changed in place, or written
    DEVICE(const float) y;  // the other operand; may be 0 for glu
    DEVICE(const int) rows; // gather: [n / n_features]
    int n, n_features;      // elements; features of a row
    int act;                // glu: 0 SiLU, 1 GELU (tanh)
} flat_params;

/// Of the kernels that measure the device (peaks.cu).
typedef struct peak_params {
    DEVICE(const float4) memory; // [n], of peak_read
    DEVICE(float) out;           // [threads of the grid]
    long long n;
    int rounds;
    float a, b; // factors of peak_f32
} peak_params;

#endif
