/*
 * cpu_pack.h: matrices as the kernels want them: the layout of the packed copy of a weight, and how it is made.
 *
 * PACK_COLS weight rows (columns of a product) make a group. Within a group, four consecutive weights of a row are one
 * 32-bit word, and words of the group's rows lie side by side, so that one vector load gives a k-step of 16 columns (a
 * few positions at a time: lanes are columns), and one broadcast gives a k-step of one column (many positions: lanes
 * are positions). A group is a stream of blocks of PACK_BLOCK weights of every row; a block is
 *
 *   bits   low quants                  high bits
 *   4      [4][48] words: nibbles      -
 *   5      [4][48]                     [48] words: bit s of byte j is the fifth bit of weight 4 s + j
 *   6      [4][48]                     [2][48] words: bits 2 (s % 4), 2 (s % 4) + 1 of byte j of word s / 4
 *   8      [8][48] words: bytes        -
 *
 * then scales [n][48] and, where the format has them, offsets [n][48], n = 32 / scale_weights, f16 or f32. In low
 * quants, word [i] holds k-step 2 i in its low nibbles and 2 i + 1 in its high ones. A quant is stored unsigned: q,
 * or q + 2^(bits - 1) when the format is signed; unpacked it stands in the top bits of a byte. The bytes read for a
 * product are those of the file, but for K formats, whose 6-bit scales become f32, and IQ4, whose quants become bytes.
 *
 * Plain numbers (F32, F16, BF16) are kept as they are, [n_in][48] a group.
 */
#ifndef CPU_PACK_H
#define CPU_PACK_H

#include "quant.h"
#include "util.h"

enum {
    PACK_COLS = 48,
    PACK_BLOCK = 32,
    PACK_STEPS = PACK_BLOCK / 4,
    PACK_NIBBLE_BYTES = PACK_COLS * PACK_BLOCK / 2,
    PACK_PLANE_BYTES = PACK_COLS * PACK_BLOCK / 8, // one high bit of a block
};

typedef struct pack_format {
    uint32_t type_id;  // of quant_type
    int bits;          // of a stored quant: 4, 5, 6 or 8; 0: plain numbers
    int scale_weights; // weights that share a scale: 16 or 32
    bool is_signed;    // stored as q + 2^(bits - 1)
    bool has_offset;   // weight = scale * q + offset
    bool wide;         // f32 scales and offsets, else f16
} pack_format;

typedef struct cpu_matrix {
    const quant_type *type;
    const uint8_t *rows; // [n_out][row_bytes] as in the file's mapping
    size_t row_bytes;
    int n_out, n_in;
    // packed; data is NULL until it is given memory
    const pack_format *format;
    size_t block_bytes, group_bytes;
    uint8_t *data; // [n_groups][group_bytes]
} cpu_matrix;

/// A matrix that is not packed.
cpu_matrix cpu_matrix_make(const quant_type *type, const void *rows, int n_out, int n_in);
static inline int cpu_matrix_groups(const cpu_matrix *w) {
    return (w->n_out + PACK_COLS - 1) / PACK_COLS;
}
/// dst[n][n_in] = rows first … first + n - 1 from the file.
void cpu_matrix_rows(const cpu_matrix *w, int first, int n, float *dst);

/// Bytes of the packed copy. Who owns `data` gives it as much, aligned to a vector.
static inline size_t cpu_pack_bytes(const cpu_matrix *w) {
    return (size_t)cpu_matrix_groups(w) * w->group_bytes;
}
/// Floats of scratch that packing a group needs.
size_t cpu_pack_scratch_floats(const cpu_matrix *w);
/// Fills one group; groups may be filled by several threads at once, each with its own scratch.
void cpu_pack_group(const cpu_matrix *w, int group, float *scratch);

static inline int pack_high_bits(const pack_format *f) {
    return f->bits == 5 || f->bits == 6 ? f->bits - 4 : 0;
}
/// Where the scales of a block start; the offsets follow.
static inline size_t pack_scales_at(const pack_format *f) {
    return f->bits == 8 ? (size_t)PACK_COLS * PACK_BLOCK
                        : (size_t)PACK_NIBBLE_BYTES + (size_t)(pack_high_bits(f) * PACK_PLANE_BYTES);
}
static inline int pack_scales_per_block(const pack_format *f) {
    return PACK_BLOCK / f->scale_weights;
}
/// Bytes of a block's scales.
static inline size_t pack_scales_bytes(const pack_format *f) {
    return (size_t)(pack_scales_per_block(f) * PACK_COLS) * (f->wide ? sizeof(float) : sizeof(uint16_t));
}
static inline const uint8_t *pack_block(const cpu_matrix *w, int group, int block) {
    return w->data + (size_t)group * w->group_bytes + (size_t)block * w->block_bytes;
}

#endif
