/*
 * cuda_static.c: see cuda_static.h.
 *
 * The bound of a launch is the longer of its bytes at the published memory bandwidth and its operations (counted with
 * the passes over limbs) at the published rate of the arithmetic that it uses: no run can be faster.
 *
 * The prediction is the longest of what each part of the device needs for the instructions that the emulated device
 * counted (cuda_mix.def), scaled from that run to this one by units of work, plus LAUNCH_US:
 *   - memory at MEMORY_SHARE of the published bandwidth; L2 at 64 bytes a clock and multiprocessor;
 *   - tensor cores at what mma.sync gets of the published rate; f32, integer, f64, conversions and special functions at
 *     their lanes; shared memory at one wavefront a clock;
 *   - issue at one instruction a clock for each of four schedulers, fewer with fewer than two warps each;
 *   - blocks spread evenly: the multiprocessor with the most decides.
 * It knows no latency but LAUNCH_US, no second waves of other kernels, and takes PTX for machine code, but for moves,
 * which it drops. So it says what limits a kernel rather than how long it will take.
 */
#include "cuda_static.h"
#include "cuda_gpus.h"
#include "cuda_shapes.h"
#include "cuda_work.h"
#include <string.h>

static const double MEMORY_SHARE = 0.9; // what copies reach of the published bandwidth
static const double LAUNCH_US = 2.0;    // from the end of a kernel to the work of the next in its stream
static const double HOST_US = 2.5;      // of the host to queue a launch

enum { MAX_LAUNCHES = 48, N_SHOWN = 4, TOKENS_MANY = 512, TOKENS_PAST = 512 };

typedef struct seen {
    cuda_launch_info info; // without params
    cuda_work work;
    bool known;
    int n; // launches that are the same
} seen;

typedef struct recorder {
    cuda_span span;
    seen launches[MAX_LAUNCHES];
    int n, n_all;
} recorder;

static cuda_result record(cuda_backend *cuda, const cuda_launch_info *info) {
    recorder *r = cuda->observer;
    seen s = {.info = *info, .n = 1};
    s.known = cuda_work_of(info, &r->span, &s.work);
    s.info.params = NULL;
    r->n_all++;
    for (int i = 0; i < r->n; i++)
        if (r->launches[i].info.kernel == info->kernel && strcmp(r->launches[i].work.label, s.work.label) == 0) {
            r->launches[i].n++;
            return 0;
        }
    ASSERT(r->n < MAX_LAUNCHES);
    r->launches[r->n++] = s;
    return 0;
}

// ------------------------------------------------------------------------------------------------------ the model

static double arithmetic_tops(const cuda_gpu *gpu, cuda_arithmetic a) {
    return a == ARITHMETIC_INT8 ? gpu->int8_tops : a == ARITHMETIC_BF16 ? gpu->bf16_tflops : gpu->f32_tflops;
}

/// Microseconds, and what they are spent on.
typedef struct cost {
    double us;
    const char *by;
} cost;

static void longer(cost *c, double us, const char *by) {
    if (us > c->us) *c = (cost){us, by};
}

static cost bound_of(const cuda_gpu *gpu, const cuda_work *work) {
    cost c = {work->bytes / gpu->gbps * 1e-3, "memory"};
    longer(&c, work->ops * work->passes / arithmetic_tops(gpu, work->arithmetic) * 1e-6,
           work->arithmetic == ARITHMETIC_F32 ? "f32" : "tensor");
    return c;
}

/// Counts of a unit of this launch's work; false: not known. What a projection does with its logits was counted for
/// each unit of a product CUDA_SMALL_EMBD deep; a deeper one has fewer logits for as many units.
static bool mix_of(const seen *s, double mix[N_CUDA_COUNTS]) {
    static const char prefix[] = "project_stats_";
    const double *counted = cuda_mix_of(s->info.name), *product = NULL;
    char twin[48];
    if (counted) memcpy(mix, counted, N_CUDA_COUNTS * sizeof *mix);
    if (!counted || strncmp(s->info.name, prefix, strlen(prefix)) != 0) return counted;
    snprintf(twin, sizeof twin, "matmul_%s", s->info.name + strlen(prefix));
    product = cuda_mix_of(twin);
    for (int i = 0; product && i < N_CUDA_COUNTS; i++)
        mix[i] = product[i] + (counted[i] - product[i]) * CUDA_SMALL_EMBD / s->work.depth;
    return product;
}

static cost predict(const cuda_gpu *gpu, const seen *s, int blocks_of_sm) {
    double mix[N_CUDA_COUNTS];
    const double units = s->work.units;
    const double blocks = (double)s->info.grid_x * s->info.grid_y;
    const double of_fullest = (double)(int64_t)((blocks + gpu->n_sm - 1) / gpu->n_sm); // multiprocessor, in blocks
    const double resident = MIN(of_fullest, MAX(blocks_of_sm, 1)) * s->info.threads / 32 / 4; // warps of a scheduler
    cost c = {s->work.bytes / (gpu->gbps * MEMORY_SHARE) * 1e-3, "memory"};
    if (mix_of(s, mix)) {
        // A count of the whole launch takes so many microseconds at one a clock on the fullest multiprocessor.
        const double us = units * of_fullest / blocks / (gpu->ghz * 1e3);
        const double f32_lanes = gpu->f32_tflops * 1e3 / (2 * gpu->n_sm * gpu->ghz), whole_64 = MIN(16, gpu->f64_lanes);
        const double tensor_us = units * of_fullest * gpu->n_sm / blocks / gpu->mma_share * 1e-6;
        double issued = 0;
        for (int i = COUNT_f32; i < N_CUDA_COUNTS; i++)
            if (i != COUNT_moves) issued += mix[i];
        longer(&c, us * issued / (4 * MIN(1.0, resident / 2)), "issue");
        longer(&c, us * mix[COUNT_f32] * 32 / f32_lanes, "f32");
        longer(&c, us * mix[COUNT_integer] * 32 / 64, "integer");
        longer(&c, us * mix[COUNT_convert] * 32 / gpu->convert_lanes, "convert");
        longer(&c, us * (mix[COUNT_f64] / gpu->f64_lanes + mix[COUNT_convert64] / whole_64) * 32, "f64");
        longer(&c, us * mix[COUNT_special] * 32 / 16, "special");
        longer(&c, us * mix[COUNT_shared_wavefronts], "shared");
        longer(&c, us * (mix[COUNT_global_load_sectors] + mix[COUNT_global_store_sectors]) * 32 / 64, "L2");
        if (s->work.arithmetic != ARITHMETIC_F32) // units of the product are 16 x 8 outputs and STEP_K inputs
            longer(&c, tensor_us * s->work.passes * 2 * 16 * 8 * STEP_K / arithmetic_tops(gpu, s->work.arithmetic),
                   "tensor");
    }
    if (LAUNCH_US > c.us) c.by = "launch";
    c.us += LAUNCH_US;
    return c;
}

// ------------------------------------------------------------------------------------------------------- printing

static const struct {
    const char *name;
    int threads, dynamic_bytes;
} kernels[] = {
#define KERNEL(name, shared_bytes, threads) {#name, threads, shared_bytes},
#include "cuda/kernels.def"
#undef KERNEL
};

static cuda_occupancy occupancy(const cuda_gpu *gpu, const char *kernel, int threads, int dynamic_bytes) {
    cuda_occupancy o = {0};
    const cuda_resource *r = cuda_resource_find(gpu->capability, kernel);
    if (r) cuda_occupancy_of(gpu, r, threads, dynamic_bytes, &o);
    return o;
}

static void print_resources(FILE *out) {
    fprintf(out,
            "Kernels: threads and dynamic shared bytes of a block; then for each architecture registers of a "
            "thread,\nstatic shared bytes, warps on a multiprocessor as a share of the most, and what keeps more "
            "away (r: registers,\ns: shared memory, t: threads, b: blocks). No kernel spills: the build would "
            "fail.\n\n  %-24s %7s %7s",
            "", "threads", "dynamic");
    for (int g = 0; g < n_cuda_gpus; g++) {
        char name[32];
        snprintf(name, sizeof name, "sm_%d", cuda_gpus[g].capability);
        fprintf(out, " %15s", name);
    }
    fputc('\n', out);
    for (size_t i = 0; i < ARRAY_LEN(kernels); i++) {
        fprintf(out, "  %-24s %7d %7d", kernels[i].name, kernels[i].threads, kernels[i].dynamic_bytes);
        for (int g = 0; g < n_cuda_gpus; g++) {
            const cuda_gpu *gpu = &cuda_gpus[g];
            const cuda_resource *r = cuda_resource_find(gpu->capability, kernels[i].name);
            if (!r) {
                fprintf(out, " %15s", "-");
                continue;
            }
            const cuda_occupancy o = occupancy(gpu, kernels[i].name, kernels[i].threads, kernels[i].dynamic_bytes);
            fprintf(out, " %3d %5d %3d%% %c", r->registers, r->static_shared_bytes,
                    100 * o.blocks * kernels[i].threads / gpu->max_threads, o.limit ? o.limit[0] : '?');
        }
        fputc('\n', out);
    }
}

static void print_gpus(FILE *out) {
    fprintf(out,
            "\nPublished peaks (sources in bench/cuda_gpus.c); mma.sync: what it gets of the tensor rates\n\n"
            "  %-10s %5s %6s %8s %8s %8s %8s %8s %6s\n",
            "", "sm", "GHz", "f32 TF", "bf16 TF", "int8 T", "mma.sync", "GB/s", "L2 MB");
    for (int g = 0; g < n_cuda_gpus; g++) {
        const cuda_gpu *u = &cuda_gpus[g];
        fprintf(out, "  %-10s %5d %6.2f %8.1f %8.1f %8.1f %7.0f%% %8.0f %6.0f\n", u->name, u->n_sm, u->ghz,
                u->f32_tflops, u->bf16_tflops, u->int8_tops, 100 * u->mma_share, u->gbps, u->l2_mb);
    }
}

/// Row i of what each device's backend launched: the same launches, cut into parts for that device.
static void print_launch(FILE *out, const recorder r[N_SHOWN], int i, double total_us[N_SHOWN]) {
    const seen *first = &r[0].launches[i];
    fprintf(out, "  %-24s %-26s %3d %9.3f %9.4f", first->info.name, first->work.label, first->n,
            first->work.bytes * 1e-6, first->work.ops * 1e-9);
    for (int g = 0; g < N_SHOWN; g++) {
        const cuda_gpu *gpu = &cuda_gpus[g];
        const seen *s = &r[g].launches[i];
        const cuda_occupancy o = occupancy(gpu, s->info.name, (int)s->info.threads, (int)s->info.shared_bytes);
        const cost bound = bound_of(gpu, &s->work), predicted = predict(gpu, s, o.blocks);
        if (cuda_mix_of(s->info.name))
            fprintf(out, " %8.2f %c %3.0f%% %-7s", bound.us, bound.by[0], 100 * bound.us / predicted.us, predicted.by);
        else
            fprintf(out, " %8.2f %c   not counted", bound.us, bound.by[0]);
        total_us[g] += s->n * predicted.us;
    }
    fputc('\n', out);
}

static bool print_shape(FILE *out, const cuda_shape *shape, bool bf16, cuda_span span) {
    logitd_error err;
    double total_us[N_SHOWN] = {0};
    bool ok = true;
    recorder r[N_SHOWN]; // the backend cuts the vocabulary by the number of multiprocessors
    for (int g = 0; g < N_SHOWN && ok; g++) {
        r[g] = (recorder){.span = span};
        backend *b = cuda_dry_create(bf16, cuda_gpus[g].n_sm, record, &r[g]);
        cuda_shape_model *m = b ? cuda_shape_open(b, shape, span.n_tokens, span.n_past, false) : NULL;
        ok = m && cuda_shape_pass(m, &err) == LOGITD_OK;
        cuda_shape_close(m);
        if (b) b->ops->destroy(b);
        ASSERT(!ok || r[g].n == r[0].n);
    }
    if (!ok) {
        fprintf(out, "\nthere is no memory for the shape of %s\n", shape->name);
        return false;
    }
    fprintf(out, "\n%s, %s, one layer of %d and the projection, %d token%s after %d\n\n  %-24s %-26s %3s %9s %9s",
            shape->name, bf16 ? "bf16" : "exact", shape->n_layer, span.n_tokens, span.n_tokens == 1 ? "" : "s",
            span.n_past, "", "size", "n", "MB", "GFLOP");
    for (int g = 0; g < N_SHOWN; g++) fprintf(out, " %23s", cuda_gpus[g].name);
    fprintf(out, "\n");
    for (int i = 0; i < r[0].n; i++) print_launch(out, r, i, total_us);
    fprintf(out, "  %-74s", "together, us");
    for (int g = 0; g < N_SHOWN; g++) fprintf(out, " %23.1f", total_us[g]);
    fprintf(out, "\n  %d launches take the host %.0f us to queue\n", r[0].n_all, r[0].n_all * HOST_US);
    return true;
}

bool cuda_static_print(FILE *out) {
    if (n_cuda_resources == 0) {
        fprintf(out, "this build has no CUDA kernels: nvcc was not found when it was made\n");
        return false;
    }
    print_resources(out);
    print_gpus(out);
    fprintf(out,
            "\nLaunches: MB and GFLOP that one must move and do; for each device the roofline bound in us (m: memory, "
            "t: tensor\ncores, f: f32), the predicted share of it, and what limits the kernel. Predicted, not "
            "measured: bench/cuda_static.c\nsays from what.\n");
    static const cuda_span spans[] = {{TOKENS_MANY, 0}, {1, TOKENS_PAST}};
    bool ok = true;
    for (int i = 0; i < n_cuda_shapes * 2; i++)
        for (size_t s = 0; s < ARRAY_LEN(spans) && ok; s++) ok = print_shape(out, &cuda_shapes[i / 2], i % 2, spans[s]);
    return ok;
}
