/*
 * cuda_weight.c: GGUF tensors packed for the device (the layouts are cuda/params.h's). Quantised formats keep their
 * quants: each weight of each of them is fma(scale, quant, add) exactly, since a quant has at most 8 bits and a scale
 * at most 18 (an f16 times a 7-bit number). Float formats become three limbs on a power of two for each group.
 */
#include "cuda/cuda_impl.h"
#include "quant_blocks.h"
#include <math.h>
#include <string.h>

typedef struct pair {
    float scale, add; // the device's float2
} pair;

enum { CHUNK_ROWS = 128 }; // rows packed on the host at a time

int cuda_packing_group(packing p) {
    return p == PACK_Q16 ? 16 : 32;
}
int cuda_packing_limbs(packing p) {
    return p == PACK_F32 ? 3 : 1;
}

// --------------------------------------------------------------------------------------------------------- formats

/// Where the quants and scales of a row go.
typedef struct quant_row {
    int8_t *quants;       // [n_in]
    pair *scales;         // of group g at [g * n_out_pad]
    int group, n_out_pad; // inputs that share a scale, 16 or 32; groups of 32 are told twice
} quant_row;

static inline void keep16(void *out, size_t at, signed16 q, float scale, float offset) {
    const quant_row *row = out;
    memcpy(row->quants + at, &q, sizeof q);
    row->scales[at / (size_t)row->group * (size_t)row->n_out_pad] = (pair){scale, offset};
}

/// Formats that have quants, by their number in the file. What is not here is a float format.
#define UNPACKERS(ROW)                                                                                                 \
    ROW(2, q4_0, PACK_Q32)                                                                                             \
    ROW(3, q4_1, PACK_Q32)                                                                                             \
    ROW(6, q5_0, PACK_Q32)                                                                                             \
    ROW(7, q5_1, PACK_Q32)                                                                                             \
    ROW(8, q8_0, PACK_Q32)                                                                                             \
    ROW(10, q2_K, PACK_Q16)                                                                                            \
    ROW(11, q3_K, PACK_Q16)                                                                                            \
    ROW(12, q4_K, PACK_Q32)                                                                                            \
    ROW(13, q5_K, PACK_Q32)                                                                                            \
    ROW(14, q6_K, PACK_Q16)                                                                                            \
    ROW(20, iq4_nl, PACK_Q32)                                                                                          \
    ROW(23, iq4_xs, PACK_Q32)

#define UNPACK(id, format, packing)                                                                                    \
    static void unpack_##format(const void *src, size_t n, quant_row *row) {                                           \
        split_##format(src, n, keep16, row);                                                                           \
    }
UNPACKERS(UNPACK)
#undef UNPACK

static const struct {
    uint32_t type_id;
    packing packing;
    void (*unpack)(const void *src, size_t n, quant_row *row); // n weights of whole blocks
} unpackers[] = {
#define UNPACKER(id, format, packing) {id, packing, unpack_##format},
    UNPACKERS(UNPACKER)
#undef UNPACKER
};

static int find_unpacker(const quant_type *type) {
    for (size_t i = 0; i < ARRAY_LEN(unpackers); i++)
        if (unpackers[i].type_id == type->id) return (int)i;
    return -1;
}

// ------------------------------------------------------------------------------------------------------ whole rows

/// Rows being packed: limbs [n_limbs][CHUNK_ROWS][k_pad], and the scales of the whole matrix [k_pad /
/// group][n_out_pad].
typedef struct pack_job {
    const gguf_tensor *tensor;
    int unpacker; // -1: a float format
    int first_out, n_out, n_in, n_out_pad, k_pad, group;
    int8_t *limbs;
    pair *scales;
    float *row; // [k_pad] of a float format
} pack_job;

static const uint8_t *source_row(const pack_job *job, int row) {
    const quant_type *type = job->tensor->type;
    const size_t row_bytes = (size_t)(job->n_in / type->block_weights) * (size_t)type->block_bytes;
    return (const uint8_t *)job->tensor->data + (size_t)(job->first_out + row) * row_bytes;
}

static void pack_quants(const pack_job *job, int row, int8_t *limbs) {
    quant_row out = {.quants = limbs, .scales = job->scales + row, .group = job->group, .n_out_pad = job->n_out_pad};
    unpackers[job->unpacker].unpack(source_row(job, row), (size_t)job->n_in, &out);
}

/// As the kernel pack_activations does it. The scale counts 65536, since the product drops that much of its limbs.
static pair pack_group(const float *x, int n, int8_t *hi, int8_t *mid, int8_t *lo) {
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
        lo[i] = (int8_t)q;
        mid[i] = (int8_t)((q - lo[i]) / 256);
        hi[i] = (int8_t)(((q - lo[i]) / 256 - mid[i]) / 256);
    }
    return (pair){ldexpf(65536.0f, -k), 0.0f};
}

static void pack_floats(const pack_job *job, int row, int8_t *limbs) {
    const size_t plane = (size_t)CHUNK_ROWS * (size_t)job->k_pad;
    job->tensor->type->dequantize(source_row(job, row), job->row, (size_t)job->n_in);
    for (int k = 0; k < job->n_in; k += 32)
        job->scales[(size_t)(k / 32) * (size_t)job->n_out_pad + (size_t)row] =
            pack_group(job->row + k, 32, limbs + k, limbs + plane + k, limbs + 2 * plane + k);
}

static void upload_matrix(cuda_backend *cuda, const pack_job *job, const backend_weight *w) {
    const size_t row_bytes = (size_t)job->k_pad, plane = (size_t)CHUNK_ROWS * row_bytes;
    const int n_limbs = cuda_packing_limbs(w->packing);
    for (int first = 0; first < job->n_out_pad; first += CHUNK_ROWS) {
        memset(job->limbs, 0, (size_t)n_limbs * plane);
        for (int row = first; row < MIN(first + CHUNK_ROWS, job->n_out); row++) {
            int8_t *limbs = job->limbs + (size_t)(row - first) * row_bytes;
            if (job->unpacker >= 0)
                pack_quants(job, row, limbs);
            else
                pack_floats(job, row, limbs);
        }
        for (int limb = 0; limb < n_limbs; limb++)
            cuda_upload(cuda, w->packed.limbs + ((size_t)limb * (size_t)job->n_out_pad + (size_t)first) * row_bytes,
                        job->limbs + (size_t)limb * plane, plane);
    }
    cuda_upload(cuda, w->packed.scales, job->scales, (size_t)(job->k_pad / job->group * job->n_out_pad) * sizeof(pair));
}

static bool create_matrix(cuda_backend *cuda, backend_weight *w, const gguf_tensor *tensor, int first_out,
                          const char *what, logitd_error *err) {
    pack_job job = {
        .tensor = tensor, .unpacker = find_unpacker(tensor->type), .first_out = first_out, .n_out = w->n_out};
    w->n_in = job.n_in = (int)tensor->dims[0];
    w->packing = job.unpacker >= 0 ? unpackers[job.unpacker].packing : PACK_F32;
    job.group = cuda_packing_group(w->packing);
    job.n_out_pad = cuda_round_up(w->n_out, BLOCK_N);
    job.k_pad = cuda_round_up(w->n_in, BLOCK_K);
    const size_t limb_bytes = (size_t)cuda_packing_limbs(w->packing) * (size_t)job.n_out_pad * (size_t)job.k_pad;
    const size_t n_scales = (size_t)(job.k_pad / job.group) * (size_t)job.n_out_pad;
    w->memory = cuda_alloc(cuda, limb_bytes + n_scales * sizeof(pair), what, err);
    if (!w->memory) return false;
    w->packed = (packed_matrix){
        .limbs = w->memory, .scales = w->memory + limb_bytes, .n_rows_pad = job.n_out_pad, .k_pad = job.k_pad};
    job.limbs = mem_alloc((size_t)cuda_packing_limbs(w->packing) * CHUNK_ROWS, (size_t)job.k_pad);
    job.scales = mem_alloc(n_scales, sizeof *job.scales);
    job.row = mem_alloc((size_t)job.k_pad, sizeof *job.row);
    const bool ok = job.limbs && job.scales && job.row;
    if (ok)
        upload_matrix(cuda, &job, w);
    else
        error_set(err, LOGITD_ENOMEM, "there is no memory to pack %s", what);
    mem_free(job.limbs);
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
