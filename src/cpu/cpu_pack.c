/*
 * cpu_pack.c: from the file's blocks to the layout of cpu_pack.h. Which quants, scales and offsets a block has is said
 * by quant_blocks.h; here they are only moved.
 */
#include "cpu/cpu_pack.h"
#include "quant_blocks.h"
#include <math.h>

static const pack_format formats[] = {
    // type          bits  scale_weights  signed  offset  wide
    {0 /* F32 */, 0, 0, false, false, false},    {1 /* F16 */, 0, 0, false, false, false},
    {30 /* BF16 */, 0, 0, false, false, false},  {2 /* Q4_0 */, 4, 32, true, false, false},
    {3 /* Q4_1 */, 4, 32, false, true, false},   {6 /* Q5_0 */, 5, 32, true, false, false},
    {7 /* Q5_1 */, 5, 32, false, true, false},   {8 /* Q8_0 */, 8, 32, true, false, false},
    {10 /* Q2_K */, 4, 16, false, true, true},   {11 /* Q3_K */, 4, 16, true, false, true},
    {12 /* Q4_K */, 4, 32, false, true, true},   {13 /* Q5_K */, 5, 32, false, true, true},
    {14 /* Q6_K */, 6, 16, true, false, true},   {20 /* IQ4_NL */, 8, 32, true, false, false},
    {23 /* IQ4_XS */, 8, 32, true, false, true},
};

static const pack_format *find_format(const quant_type *type) {
    for (size_t i = 0; i < ARRAY_LEN(formats); i++)
        if (formats[i].type_id == type->id) return &formats[i];
    ASSERT(!"every quant_type has a packed format");
    return NULL;
}

cpu_matrix cpu_matrix_make(const quant_type *type, const void *rows, int n_out, int n_in) {
    cpu_matrix w = {.type = type, .rows = rows, .n_out = n_out, .n_in = n_in, .format = find_format(type)};
    w.row_bytes = (size_t)(n_in / type->block_weights) * (size_t)type->block_bytes;
    if (w.format->bits == 0) {
        w.group_bytes = w.row_bytes * PACK_COLS;
    } else {
        w.block_bytes = pack_scales_at(w.format) + pack_scales_bytes(w.format) * (w.format->has_offset ? 2 : 1);
        w.group_bytes = w.block_bytes * (size_t)(n_in / PACK_BLOCK);
    }
    return w;
}

void cpu_matrix_rows(const cpu_matrix *w, int first, int n, float *dst) {
    ASSERT(first >= 0 && n >= 0 && first + n <= w->n_out);
    w->type->dequantize(w->rows + (size_t)first * w->row_bytes, dst, (size_t)n * (size_t)w->n_in);
}

// ------------------------------------------------------------------------------------------------------- one column

/// One row of the file, taken apart.
typedef struct column {
    float *scales, *offsets; // [n_in / 16] of every sixteen quants
    uint8_t *quants;         // [n_in]
    uint8_t bias;            // added to make them unsigned
} column;

size_t cpu_pack_scratch_floats(const cpu_matrix *w) {
    return w->format->bits == 0 ? 0 : (size_t)w->n_in / 16 * 2 + (size_t)w->n_in / sizeof(float);
}

static inline void keep16(void *out, size_t at, signed16 q, float scale, float offset) {
    const column *col = out;
    const quants16 stored = (quants16)q + col->bias;
    memcpy(col->quants + at, &stored, sizeof stored);
    col->scales[at / 16] = scale;
    col->offsets[at / 16] = offset;
}

static void split_row(const quant_type *type, const uint8_t *row, size_t n, column *col) {
    switch (type->id) {
#define SPLIT_AS(id, format)                                                                                           \
    case id:                                                                                                           \
        split_##format(row, n, keep16, col);                                                                           \
        return
        SPLIT_AS(2, q4_0);
        SPLIT_AS(3, q4_1);
        SPLIT_AS(6, q5_0);
        SPLIT_AS(7, q5_1);
        SPLIT_AS(8, q8_0);
        SPLIT_AS(10, q2_K);
        SPLIT_AS(11, q3_K);
        SPLIT_AS(12, q4_K);
        SPLIT_AS(13, q5_K);
        SPLIT_AS(14, q6_K);
        SPLIT_AS(20, iq4_nl);
        SPLIT_AS(23, iq4_xs);
#undef SPLIT_AS
    default:
        ASSERT(!"a format of quants");
    }
}

/// The bits of a half that is known to hold this number exactly.
static uint16_t half_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 255u << 23) return (uint16_t)(sign | 0x7c00 | (magnitude >> 13 & 0x3ff)); // infinity, NaN
    if (magnitude >= 113u << 23) return (uint16_t)(sign | ((magnitude >> 13) - (112u << 10)));
    return (uint16_t)(sign | (uint32_t)(fabsf(x) * 0x1p24f)); // denormal
}

static void put_scale(const pack_format *f, uint8_t *at, int i, float value) {
    if (f->wide) {
        memcpy(at + (size_t)i * sizeof value, &value, sizeof value);
    } else {
        const uint16_t bits = half_bits(value);
        memcpy(at + (size_t)i * sizeof bits, &bits, sizeof bits);
    }
}

/// The quants of one block and column into a block's words. high: where its plane starts.
static void put_quants(const pack_format *f, const uint8_t *quants, int c, uint32_t *low, uint32_t *high) {
    uint32_t steps[PACK_STEPS];
    memcpy(steps, quants, sizeof steps);
    if (f->bits == 8) {
        for (int s = 0; s < PACK_STEPS; s++) low[s * PACK_COLS + c] = steps[s];
        return;
    }
    const uint32_t nibbles = 0x0f0f0f0f;
    for (int s = 0; s < PACK_STEPS; s += 2)
        low[s / 2 * PACK_COLS + c] = (steps[s] & nibbles) | (steps[s + 1] & nibbles) << 4;
    if (f->bits == 5) {
        uint32_t plane = 0;
        for (int s = 0; s < PACK_STEPS; s++) plane |= (steps[s] >> 4 & 0x01010101u) << s;
        high[c] = plane;
    } else if (f->bits == 6) {
        uint32_t plane[2] = {0};
        for (int s = 0; s < PACK_STEPS; s++) plane[s / 4] |= (steps[s] >> 4 & 0x03030303u) << s % 4 * 2;
        high[c] = plane[0];
        high[PACK_COLS + c] = plane[1];
    }
}

static void pack_quants_column(const cpu_matrix *w, int group, int c, const column *col) {
    const pack_format *f = w->format;
    const int per_block = pack_scales_per_block(f), runs = f->scale_weights / 16; // runs of 16 that share a scale
    for (int b = 0; b < w->n_in / PACK_BLOCK; b++) {
        uint8_t *block = w->data + (size_t)group * w->group_bytes + (size_t)b * w->block_bytes;
        uint8_t *scales = block + pack_scales_at(f), *offsets = scales + pack_scales_bytes(f);
        put_quants(f, col->quants + (size_t)b * PACK_BLOCK, c, (uint32_t *)(void *)block,
                   (uint32_t *)(void *)(block + PACK_NIBBLE_BYTES));
        for (int i = 0; i < per_block; i++) {
            const int run = (b * per_block + i) * runs;
            put_scale(f, scales, i * PACK_COLS + c, col->scales[run]);
            if (f->has_offset) put_scale(f, offsets, i * PACK_COLS + c, col->offsets[run]);
        }
    }
}

/// Plain numbers: element k of the row goes to [k][c].
static void pack_numbers_column(const cpu_matrix *w, int group, int c, const uint8_t *row) {
    const size_t size = (size_t)w->type->block_bytes;
    uint8_t *out = w->data + (size_t)group * w->group_bytes + (size_t)c * size;
    for (int k = 0; k < w->n_in; k++) memcpy(out + (size_t)k * PACK_COLS * size, row + (size_t)k * size, size);
}

void cpu_pack_group(const cpu_matrix *w, int group, float *scratch) {
    const size_t n_runs = (size_t)w->n_in / 16;
    column col = {.scales = scratch, .offsets = scratch + n_runs, .quants = (uint8_t *)(scratch + 2 * n_runs)};
    if (w->format->is_signed) col.bias = (uint8_t)(1u << (w->format->bits - 1));
    const int n_cols = MIN(PACK_COLS, w->n_out - group * PACK_COLS);
    if (n_cols < PACK_COLS) memset(w->data + (size_t)group * w->group_bytes, 0, w->group_bytes);
    for (int c = 0; c < n_cols; c++) {
        const uint8_t *row = w->rows + (size_t)(group * PACK_COLS + c) * w->row_bytes;
        if (w->format->bits == 0) {
            pack_numbers_column(w, group, c, row);
        } else {
            split_row(w->type, row, (size_t)w->n_in, &col);
            pack_quants_column(w, group, c, &col);
        }
    }
}
