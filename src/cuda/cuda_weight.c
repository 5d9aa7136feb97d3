/*
 * cuda_weight.c: GGUF tensors packed for the device (the layouts are cuda/params.h's). Quantised formats keep their
 * quants, those of 4 bits as nibbles: each weight of each of them is fma(scale, quant, add) exactly, since a quant has
 * at most 8 bits and a scale at most 18 (an f16 times a 7-bit number). Float formats become three limbs on a power of
 * two for each group, or bf16.
 */
#include "cuda/cuda_impl.h"
#include "quant_blocks.h"
#include <math.h>
#include <string.h>

typedef struct pair {
    float scale, add; // the device's float2
} pair;

/// What the two precisions make of a packing.
typedef struct pack_layout {
    int planes, bits, group, scale_bytes;
} pack_layout;

#define LAYOUT(name)                                                                                                   \
    { name##_PLANES, name##_BITS, name##_GROUP, name##_SCALE }
static const pack_layout layouts[2][N_PACKINGS] = {
    {LAYOUT(N32), LAYOUT(Q32), LAYOUT(Q16), LAYOUT(F32)}, // exact
    {LAYOUT(N32), LAYOUT(Q32), LAYOUT(Q16), LAYOUT(B16)}, // bf16
};
#undef LAYOUT

int cuda_packing_group(int packing) {
    return layouts[0][packing].group; // the same in both
}

// --------------------------------------------------------------------------------------------------------- formats

/// Where the quants and scales of a row go.
typedef struct quant_row {
    uint8_t *elements;    // input 0's; a stage further, stage_bytes
    size_t stage_bytes;   // of a tile of rows
    pair *scales;         // of group g at [g * n_out_pad]
    int group, n_out_pad; // inputs that share a scale, 16 or 32; groups of 32 are told twice
    int smallest;         // of nibbles: the format's smallest quant, which is stored as 0
} quant_row;

static inline uint8_t *stage_of(const quant_row *row, size_t at) {
    return row->elements + at / BLOCK_K * row->stage_bytes;
}

static inline void keep_scale(const quant_row *row, size_t at, float scale, float add) {
    row->scales[at / (size_t)row->group * (size_t)row->n_out_pad] = (pair){scale, add};
}

static inline void keep_bytes(void *out, size_t at, signed16 q, float scale, float offset) {
    const quant_row *row = out;
    memcpy(stage_of(row, at) + at % BLOCK_K, &q, sizeof q);
    keep_scale(row, at, scale, offset);
}

/// Quants 0 … 15 of a group are its bytes' low nibbles, 16 … 31 the high ones. The smallest times a scale is exact: it
/// is a power of two.
static inline void keep_nibbles(void *out, size_t at, signed16 q, float scale, float offset) {
    const quant_row *row = out;
    uint8_t *bytes = stage_of(row, at) + at % BLOCK_K / 32 * 16;
    for (int i = 0; i < 16; i++) bytes[i] |= (uint8_t)((q[i] - row->smallest) << at / 16 % 2 * 4);
    keep_scale(row, at, scale, offset + scale * (float)row->smallest);
}

/// Formats that have quants, by their number in the file, and their smallest quant where they are nibbles. What is not
/// here is a float format.
#define UNPACKERS(ROW)                                                                                                 \
    ROW(2, q4_0, PACK_N32, keep_nibbles, -8)                                                                           \
    ROW(3, q4_1, PACK_N32, keep_nibbles, 0)                                                                            \
    ROW(6, q5_0, PACK_Q32, keep_bytes, 0)                                                                              \
    ROW(7, q5_1, PACK_Q32, keep_bytes, 0)                                                                              \
    ROW(8, q8_0, PACK_Q32, keep_bytes, 0)                                                                              \
    ROW(10, q2_K, PACK_Q16, keep_bytes, 0)                                                                             \
    ROW(11, q3_K, PACK_Q16, keep_bytes, 0)                                                                             \
    ROW(12, q4_K, PACK_N32, keep_nibbles, 0)                                                                           \
    ROW(13, q5_K, PACK_Q32, keep_bytes, 0)                                                                             \
    ROW(14, q6_K, PACK_Q16, keep_bytes, 0)                                                                             \
    ROW(20, iq4_nl, PACK_Q32, keep_bytes, 0)                                                                           \
    ROW(23, iq4_xs, PACK_Q32, keep_bytes, 0)

#define UNPACK(id, format, packing, sink, smallest)                                                                    \
    static void unpack_##format(const void *src, size_t n, quant_row *row) {                                           \
        split_##format(src, n, sink, row);                                                                             \
    }
UNPACKERS(UNPACK)
#undef UNPACK

static const struct {
    uint32_t type_id;
    int packing, smallest;
    void (*unpack)(const void *src, size_t n, quant_row *row); // n weights of whole blocks
} unpackers[] = {
#define UNPACKER(id, format, packing, sink, smallest) {id, packing, smallest, unpack_##format},
    UNPACKERS(UNPACKER)
#undef UNPACKER
};

static int find_unpacker(const quant_type *type) {
    for (size_t i = 0; i < ARRAY_LEN(unpackers); i++)
        if (unpackers[i].type_id == type->id) return (int)i;
    return -1;
}

// ------------------------------------------------------------------------------------------------------ whole rows

/// A tile of BLOCK_N rows being packed: elements [planes][k_pad / BLOCK_K][BLOCK_N][a stage's bytes of a row], and the
/// scales of the whole matrix [k_pad / group][n_out_pad].
typedef struct pack_job {
    const gguf_tensor *tensor;
    const pack_layout *layout;
    int unpacker; // -1: a float format
    int first_out, n_out, n_in, n_out_pad, k_pad;
    size_t row_bytes, plane_bytes; // of a stage's row; of the tile
    uint8_t *elements;
    pair *scales; // NULL: it has none
    float *row;   // [k_pad] of a float format
} pack_job;

static const uint8_t *source_row(const pack_job *job, int row) {
    const quant_type *type = job->tensor->type;
    const size_t row_bytes = (size_t)(job->n_in / type->block_weights) * (size_t)type->block_bytes;
    return (const uint8_t *)job->tensor->data + (size_t)(job->first_out + row) * row_bytes;
}

/// Where input k of a row of the tile goes.
static uint8_t *element_at(const pack_job *job, int row, int k) {
    return job->elements + ((size_t)(k / BLOCK_K) * BLOCK_N + (size_t)(row % BLOCK_N)) * job->row_bytes +
           (size_t)(k % BLOCK_K * job->layout->bits / 8);
}

static void pack_quants(const pack_job *job, int row) {
    quant_row out = {.elements = element_at(job, row, 0),
                     .stage_bytes = BLOCK_N * job->row_bytes,
                     .scales = job->scales + row,
                     .group = job->layout->group,
                     .n_out_pad = job->n_out_pad,
                     .smallest = unpackers[job->unpacker].smallest};
    unpackers[job->unpacker].unpack(source_row(job, row), (size_t)job->n_in, &out);
}

/// As the kernel pack_limbs does it. The scale counts 65536, since the product drops that much of its limbs.
static pair pack_group(const float *x, int n, uint8_t *hi, size_t plane_bytes) {
    float largest = 0.0f;
    for (int i = 0; i < n; i++) {
        if (!isfinite(x[i])) return (pair){NAN, 0.0f};
        largest = MAX(largest, fabsf(x[i]));
    }
    int exponent;
    frexpf(largest, &exponent); // largest < 2^exponent
    int k = largest > 0.0f ? MIN(23 - exponent, 126) : 0;
    if (ldexpf(largest, k) > (float)LIMB_MAX) k--;
    for (int i = 0; i < n; i++) {
        const int q = (int)lrintf(ldexpf(x[i], k));
        const int8_t lo = (int8_t)q, mid = (int8_t)((q - lo) / 256);
        hi[i] = (uint8_t)(((q - lo) / 256 - mid) / 256);
        hi[(size_t)i + plane_bytes] = (uint8_t)mid;
        hi[(size_t)i + 2 * plane_bytes] = (uint8_t)lo;
    }
    return (pair){ldexpf(65536.0f, -k), 0.0f};
}

/// To the nearest, ties to even; what is not a number stays none.
static uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x)) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void pack_floats(const pack_job *job, int row) {
    job->tensor->type->dequantize(source_row(job, row), job->row, (size_t)job->n_in);
    if (job->layout->bits == 16)
        for (int k = 0; k < job->n_in; k++) {
            const uint16_t value = to_bf16(job->row[k]);
            memcpy(element_at(job, row, BF16_PLACE(k)), &value, sizeof value);
        }
    else
        for (int k = 0; k < job->n_in; k += 32)
            job->scales[(size_t)(k / 32) * (size_t)job->n_out_pad + (size_t)row] =
                pack_group(job->row + k, 32, element_at(job, row, k), job->plane_bytes);
}

static void upload_matrix(cuda_backend *cuda, const pack_job *job, const backend_weight *w) {
    const size_t n_tiles = (size_t)(job->n_out_pad / BLOCK_N), n_planes = (size_t)job->layout->planes;
    for (size_t tile = 0; tile < n_tiles; tile++) {
        memset(job->elements, 0, n_planes * job->plane_bytes);
        const int first = (int)tile * BLOCK_N;
        for (int row = first; row < MIN(first + BLOCK_N, job->n_out); row++)
            (job->unpacker >= 0 ? pack_quants : pack_floats)(job, row);
        for (size_t plane = 0; plane < n_planes; plane++)
            cuda_upload(cuda, w->packed.elements + (plane * n_tiles + tile) * job->plane_bytes,
                        job->elements + plane * job->plane_bytes, job->plane_bytes);
    }
    if (job->scales)
        cuda_upload(cuda, w->packed.scales, job->scales,
                    (size_t)(job->k_pad / job->layout->group * job->n_out_pad) * sizeof(pair));
}

static bool create_matrix(cuda_backend *cuda, backend_weight *w, const gguf_tensor *tensor, int first_out,
                          const char *what, logitd_error *err) {
    pack_job job = {
        .tensor = tensor, .unpacker = find_unpacker(tensor->type), .first_out = first_out, .n_out = w->n_out};
    w->n_in = job.n_in = (int)tensor->dims[0];
    w->packing = job.unpacker >= 0 ? unpackers[job.unpacker].packing : PACK_FLOAT;
    const pack_layout *layout = job.layout = &layouts[cuda->bf16][w->packing];
    job.n_out_pad = cuda_round_up(w->n_out, BLOCK_N);
    job.k_pad = cuda_round_up(w->n_in, BLOCK_K);
    job.row_bytes = (size_t)(BLOCK_K * layout->bits / 8);
    job.plane_bytes = (size_t)(job.k_pad / BLOCK_K * BLOCK_N) * job.row_bytes;
    const size_t tile_bytes = (size_t)layout->planes * job.plane_bytes,
                 n_bytes = tile_bytes * (size_t)(job.n_out_pad / BLOCK_N);
    const size_t n_scales = layout->scale_bytes ? (size_t)(job.k_pad / layout->group) * (size_t)job.n_out_pad : 0;
    w->memory = cuda_alloc(cuda, n_bytes + n_scales * sizeof(pair), what, err);
    if (!w->memory) return false;
    w->packed = (packed_matrix){
        .elements = w->memory, .scales = w->memory + n_bytes, .n_rows_pad = job.n_out_pad, .k_pad = job.k_pad};
    job.elements = mem_alloc(tile_bytes, 1);
    job.scales = n_scales ? mem_alloc(n_scales, sizeof *job.scales) : NULL;
    job.row = mem_alloc((size_t)job.k_pad, sizeof *job.row);
    const bool ok = job.elements && (job.scales || !n_scales) && job.row;
    if (ok)
        upload_matrix(cuda, &job, w);
    else
        error_set(err, LOGITD_ENOMEM, "there is no memory to pack %s", what);
    mem_free(job.elements);
    mem_free(job.scales);
    mem_free(job.row);
    return ok && cuda_report(cuda, err) == LOGITD_OK;
}

/// A vector may start inside a block; it is unpacked whole.
static bool create_vector(cuda_backend *cuda, backend_weight *w, const gguf_tensor *tensor, int first_out,
                          const char *what, logitd_error *err) {
    float *all = mem_alloc((size_t)tensor->dims[0], sizeof *all);
    if (!all) {
        error_set(err, LOGITD_ENOMEM, "there is no memory to unpack %s", what);
        return false;
    }
    tensor->type->dequantize(tensor->data, all, (size_t)tensor->dims[0]);
    w->memory = cuda_alloc(cuda, (size_t)w->n_out * sizeof(float), what, err);
    if (w->memory) cuda_upload(cuda, w->memory, all + first_out, (size_t)w->n_out * sizeof(float));
    mem_free(all);
    return w->memory && cuda_report(cuda, err) == LOGITD_OK;
}

void cuda_weight_destroy(backend *b, backend_weight *w) {
    if (!w) return;
    cuda_free(cuda_of(b), w->memory);
    mem_free(w);
}

backend_weight *cuda_weight_create(backend *b, const gguf_tensor *tensor, int first_out, int n_out, bool multiplied,
                                   logitd_error *err) {
    (void)multiplied; // products and the embedding read the same packed matrix
    char what[128];
    snprintf(what, sizeof what, "tensor %.*s", (int)MIN(tensor->name.len, 100), tensor->name.data);
    backend_weight *w = mem_alloc(1, sizeof *w);
    if (!w) {
        error_set(err, LOGITD_ENOMEM, "there is no memory for %s", what);
        return NULL;
    }
    w->n_out = n_out;
    const bool ok = tensor->n_dims == 1 ? create_vector(cuda_of(b), w, tensor, first_out, what, err)
                                        : create_matrix(cuda_of(b), w, tensor, first_out, what, err);
    if (ok) return w;
    cuda_weight_destroy(b, w);
    return NULL;
}
