// cuda_work.c: see cuda_work.h. A function for each family of kernels, then the table of families.
#include "cuda_work.h"
#include <string.h>

static double ceil_div(double n, double step) {
    return (double)(int64_t)((n + step - 1) / step);
}

// ------------------------------------------------------------------------------------------------------- products

#define FORMAT(name)                                                                                                   \
    { name##_PLANES, name##_BITS, name##_SCALE, name##_GROUP }
static const cuda_format weight_formats[2][N_PACKINGS] = {{FORMAT(N32), FORMAT(Q32), FORMAT(Q16), FORMAT(F32)},
                                                          {FORMAT(N32), FORMAT(Q32), FORMAT(Q16), FORMAT(B16)}};

cuda_format cuda_weight_format(bool bf16, int packing) {
    return weight_formats[bf16][packing];
}

/// Of a product's kernel, by its name: "matmul_q16_m64", "matmul_bf16_b16_m16".
typedef struct product_kind {
    bool bf16;
    int packing, block_m;
    cuda_format x, w;
} product_kind;

static product_kind kind_of(const char *name) {
    static const char *const packings[] = {"_n32", "_q32", "_q16"};
    product_kind kind = {.bf16 = strstr(name, "_bf16"),
                         .packing = PACK_FLOAT,
                         .block_m = strstr(name, "_m16") ? BLOCK_M_SMALL : BLOCK_M_LARGE};
    for (int i = 0; i < (int)ARRAY_LEN(packings); i++)
        if (strstr(name, packings[i])) kind.packing = i;
    kind.w = cuda_weight_format(kind.bf16, kind.packing);
    kind.x = kind.bf16 ? (cuda_format){BF16_PLANES, BF16_BITS, BF16_SCALE, kind.w.group}
                       : (cuda_format){LIMBS_PLANES, LIMBS_BITS, LIMBS_SCALE, kind.w.group};
    if (kind.w.scale_bytes == 0) kind.x.scale_bytes = 0; // then the products do not read them
    return kind;
}

static double packed_bytes(const cuda_format *f, double n_rows, int k_pad) {
    return n_rows * k_pad * (f->planes * f->bits / 8.0 + (double)f->scale_bytes / f->group);
}

/// Unit: 16 x 8 outputs and STEP_K inputs.
static void product_work(const product_kind *kind, const packed_matrix *x, double n_rows, double n_out,
                         cuda_work *out) {
    out->depth = x->k_pad;
    out->ops = 2 * n_rows * n_out * x->k_pad;
    out->passes = kind->bf16 ? 1 : kind->w.planes == 3 ? 6 : 3; // products of limbs that count (limbs.cuh)
    out->arithmetic = kind->bf16 ? ARITHMETIC_BF16 : ARITHMETIC_INT8;
    out->bytes = packed_bytes(&kind->x, n_rows, x->k_pad) + packed_bytes(&kind->w, n_out, x->k_pad);
    out->units = ceil_div(n_rows, kind->block_m) * kind->block_m / 16 * (ceil_div(n_out, BLOCK_N) * BLOCK_N / 8) *
                 ((double)x->k_pad / STEP_K);
    snprintf(out->label, sizeof out->label, "%.0f x %d x %.0f", n_rows, x->k_pad, n_out);
}

static void matmul_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const matmul_params *p = l->params;
    const product_kind kind = kind_of(l->name);
    product_work(&kind, &p->x, p->n_rows, p->n_out, out);
    out->bytes += 4.0 * p->n_rows * p->n_out;
}

static void stats_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const stats_params *p = l->params;
    const product_kind kind = kind_of(l->name);
    product_work(&kind, &p->x, p->n_rows, p->n_out, out);
    out->bytes += (double)p->n_tiles * p->n_rows * (4 + 12.0 * p->n_temperatures);
}

/// Unit: a row and part of the vocabulary. What a row costs whatever its parts, mostly the barriers of its bisection,
/// is taken as 16 more of them.
static void merge_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const merge_params *p = l->params;
    out->units = (double)p->n_rows * (p->n_parts + 16);
    out->bytes =
        (double)p->n_rows * p->n_tiles * (4 + 12.0 * p->n_temperatures) + 8.0 * p->n_rows * p->n_parts * p->max_top_n;
    snprintf(out->label, sizeof out->label, "%d x %d parts", p->n_rows, p->n_parts);
}

/// Unit: a pair and STEP_K inputs.
static void pair_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const pair_params *p = l->params;
    const product_kind kind = kind_of(l->name);
    out->units = p->n_pairs * ((double)p->x.k_pad / STEP_K);
    out->bytes = packed_bytes(&kind.x, p->n_pairs, p->x.k_pad) + packed_bytes(&kind.w, p->n_pairs, p->x.k_pad);
    out->ops = 2.0 * p->n_pairs * p->x.k_pad;
    out->passes = 1;
    snprintf(out->label, sizeof out->label, "%d x %d", p->n_pairs, p->x.k_pad);
}

/// Unit: a feature of a head in a step of 16 rows by 32 keys.
static void attention_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    const attention_kernel_params *p = l->params;
    const int group = p->n_head / p->n_head_kv;
    const int n_past = span->n_past, n_rows = span->n_tokens * group; // (position, head of the group)
    double steps = 0, keys = 0;
    for (int item = 0; item < (int)l->grid_x; item++) {
        const int first = n_past + item * ATTENTION_ROWS / group;
        const int last = n_past + (MIN((item + 1) * ATTENTION_ROWS, n_rows) - 1) / group;
        const int from = p->n_swa > 0 ? MAX(0, first - p->n_swa + 1) / ATTENTION_KEYS * ATTENTION_KEYS : 0;
        steps += ceil_div(last + 1 - from, ATTENTION_KEYS);
    }
    for (int i = n_past; i < n_past + span->n_tokens; i++) keys += p->n_swa > 0 ? MIN(i + 1, p->n_swa) : i + 1;
    const double n_kv = (double)p->n_head_kv * p->head_dim;
    out->units = steps * p->n_head_kv * p->head_dim;
    out->ops = 4.0 * keys * p->n_head * p->head_dim;
    out->passes = 1;
    out->bytes = 8.0 * ((n_past + span->n_tokens) * n_kv + (double)span->n_tokens * p->n_head * p->head_dim);
    out->arithmetic = ARITHMETIC_F32;
    snprintf(out->label, sizeof out->label, "%d after %d, %d features", span->n_tokens, n_past, p->head_dim);
}

/// Unit of this and the following: a thread of the grid.
static void thread_units(const cuda_launch_info *l, cuda_work *out) {
    out->units = (double)l->grid_x * l->grid_y * l->threads;
}

static void pack_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const pack_params *p = l->params;
    thread_units(l, out);
    const bool bf16 = strcmp(l->name, "pack_bf16") == 0;
    const cuda_format to = {bf16 ? BF16_PLANES : LIMBS_PLANES, bf16 ? BF16_BITS : LIMBS_BITS,
                            bf16 ? BF16_SCALE : LIMBS_SCALE, p->group};
    out->bytes = 4.0 * p->n_rows * p->n_in + packed_bytes(&to, p->n_rows_pad, p->k_pad);
    snprintf(out->label, sizeof out->label, "%d x %d", p->n_rows, p->n_in);
}

static void embed_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const embed_params *p = l->params;
    out->units = (double)l->grid_x * p->n_in;
    const cuda_format w = cuda_weight_format(p->bf16, p->packing);
    out->bytes = packed_bytes(&w, l->grid_x, p->n_in) + 4.0 * out->units;
    snprintf(out->label, sizeof out->label, "%u x %d", l->grid_x, p->n_in);
}

static void norm_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const norm_params *p = l->params;
    out->units = (double)l->grid_x * l->grid_y * p->n;
    out->bytes = out->units * 8;
    snprintf(out->label, sizeof out->label, "%u x %u x %d", l->grid_x, l->grid_y, p->n);
}

static void add_norm_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const add_norm_params *p = l->params;
    out->units = (double)l->grid_x * p->n;
    out->bytes = out->units * (p->w ? 16 : 12);
    snprintf(out->label, sizeof out->label, "%u x %d%s", l->grid_x, p->n, p->w ? "" : ", no norm");
}

static void rope_table_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const rope_table_params *p = l->params;
    thread_units(l, out);
    out->bytes = 4.0 * p->n_rows * p->n_rot;
    snprintf(out->label, sizeof out->label, "%d x %d", p->n_rows, p->n_rot);
}

static void rope_kv_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const rope_kv_params *p = l->params;
    thread_units(l, out);
    out->bytes = 4.0 * l->grid_x * (2.0 * p->n_head * p->n_rot + 4.0 * p->n_head_kv * p->head_dim + p->n_rot);
    snprintf(out->label, sizeof out->label, "%u x (%d + %d) x %d", l->grid_x, p->n_head, 2 * p->n_head_kv, p->head_dim);
}

static void flat_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const flat_params *p = l->params;
    thread_units(l, out);
    out->bytes = (p->rows ? 8.0 : 12.0) * p->n;
    snprintf(out->label, sizeof out->label, "%d", p->n);
}

static void peak_work(const cuda_launch_info *l, const cuda_span *span, cuda_work *out) {
    (void)span;
    const peak_params *p = l->params;
    const double threads = (double)l->grid_x * l->threads, tiles = threads / 32 * PEAK_TILES * p->rounds;
    thread_units(l, out);
    out->passes = 1;
    if (strcmp(l->name, "peak_f32") == 0) out->ops = 2 * threads * PEAK_CHAINS * p->rounds;
    if (strcmp(l->name, "peak_bf16") == 0) out->ops = 2 * tiles * 16 * 8 * 16, out->arithmetic = ARITHMETIC_BF16;
    if (strcmp(l->name, "peak_int8") == 0) out->ops = 2 * tiles * 16 * 8 * 32, out->arithmetic = ARITHMETIC_INT8;
    if (strcmp(l->name, "peak_read") == 0) out->bytes = 16.0 * (double)p->n;
    snprintf(out->label, sizeof out->label, "%u blocks", l->grid_x);
}

static const struct {
    const char *prefix, *unit;
    void (*work)(const cuda_launch_info *launch, const cuda_span *span, cuda_work *out);
} families[] = {
    {"matmul_", "16 x 8 x 32", matmul_work},
    {"project_stats_", "16 x 8 x 32", stats_work},
    {"project_merge", "row and part", merge_work},
    {"pair_logits_", "pair x 32", pair_work},
    {"attention_", "step and feature", attention_work},
    {"pack_", "thread", pack_work},
    {"embed", "element", embed_work},
    {"norm_groups", "element", norm_work},
    {"add_norm", "element", add_norm_work},
    {"rope_table", "thread", rope_table_work},
    {"rope_kv_write", "thread", rope_kv_work},
    {"gather", "thread", flat_work},
    {"glu", "thread", flat_work},
    {"peak_", "thread", peak_work},
};

bool cuda_work_of(const cuda_launch_info *launch, const cuda_span *span, cuda_work *out) {
    *out = (cuda_work){.unit = "thread"};
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        if (strncmp(launch->name, families[i].prefix, strlen(families[i].prefix)) != 0) continue;
        out->unit = families[i].unit;
        families[i].work(launch, span, out);
        return true;
    }
    return false;
}

long long cuda_whole_reads(size_t n_bytes, int n_blocks) {
    const long long round = (long long)n_blocks * FLAT_THREADS * PEAK_LOADS;
    return (long long)(n_bytes / 16) / round * round;
}

// ------------------------------------------------------------------------------------------------- counted mixes

const char *const cuda_count_names[N_CUDA_COUNTS] = {
#define COUNT(name) #name,
#include "tests/cuda_emu/counts.def"
#undef COUNT
};

static const struct {
    const char *kernel;
    double counts[N_CUDA_COUNTS];
} mixes[] = {
#define MIX(kernel, ...) {#kernel, {__VA_ARGS__}},
#include "cuda_mix.def"
#undef MIX
    {"", {0}}, // an empty table is no C
};

const double *cuda_mix_of(const char *kernel) {
    for (size_t i = 0; i + 1 < ARRAY_LEN(mixes); i++)
        if (strcmp(mixes[i].kernel, kernel) == 0) return mixes[i].counts;
    return NULL;
}
