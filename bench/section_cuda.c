/*
 * section_cuda.c: the CUDA backend's kernels on this machine's device. Every launch of a layer and a projection of a
 * few model shapes (cuda_shapes.h) is caught on its way and, on a GPU, repeated between two events: best and median,
 * GB/s, Gop/s, and the share of what the device was measured to do (cuda/peaks.cu) with the same arithmetic or with
 * memory.
 *
 * An emulated device (tests/cuda_emu) has no times that mean anything: there the launches of smaller shapes are counted
 * instead: instructions by unit, 32-byte sectors of a global request, wavefronts of a shared one. It is known by a
 * symbol that no driver has.
 */
#include "bench.h"
#include "cuda_blas.h"
#include "cuda_events.h"
#include "cuda_shapes.h"
#include "cuda_work.h"
#include <string.h>

enum { MAX_ROWS = 64, PAST_SMALL = 40, MANY_SMALL = 40 };

/// Launches of one kernel and size.
typedef struct row {
    cuda_work work;
    const char *kernel;
    bool known;
    int n; // launches
    timing time;
    double counts[N_CUDA_COUNTS]; // of all n
} row;

typedef struct device_bench {
    bench *b;
    cuda_events events;
    cuda_span span;
    row rows[MAX_ROWS];
    int n_rows;
    double f32_gops, bf16_gops, int8_gops, gbps; // measured
} device_bench;

// ------------------------------------------------------------------------------------------------------- launches

typedef struct replay {
    cuda_backend *cuda;
    const cuda_launch_info *info;
} replay;

static cuda_result replay_run(void *arg) {
    const replay *r = arg;
    return cuda_launch_now(r->cuda, r->info);
}

static cuda_result count_launch(device_bench *d, cuda_backend *cuda, const cuda_launch_info *info, double *counts) {
    unsigned long long before[N_CUDA_COUNTS] = {0}, after[N_CUDA_COUNTS] = {0};
    cuda_result result = cuda->driver->StreamSynchronize(cuda->stream);
    if (!result) result = d->events.emu_counters(info->name, before, N_CUDA_COUNTS);
    if (!result) result = cuda_launch_now(cuda, info);
    if (!result) result = cuda->driver->StreamSynchronize(cuda->stream);
    if (!result) result = d->events.emu_counters(info->name, after, N_CUDA_COUNTS);
    for (int i = 0; i < N_CUDA_COUNTS; i++) counts[i] += (double)(after[i] - before[i]);
    return result;
}

static row *find_row(device_bench *d, const char *kernel, const char *label) {
    for (int i = 0; i < d->n_rows; i++)
        if (strcmp(d->rows[i].kernel, kernel) == 0 && strcmp(d->rows[i].work.label, label) == 0) return &d->rows[i];
    return NULL;
}

static cuda_result observe(cuda_backend *cuda, const cuda_launch_info *info) {
    device_bench *d = cuda->observer;
    cuda_work work;
    const bool known = cuda_work_of(info, &d->span, &work);
    row *r = find_row(d, info->name, work.label);
    const bool is_new = !r;
    if (is_new) {
        ASSERT(d->n_rows < MAX_ROWS);
        r = &d->rows[d->n_rows++];
        *r = (row){.work = work, .kernel = info->name, .known = known};
    }
    r->n++;
    if (d->events.emu_counters) return count_launch(d, cuda, info, r->counts);
    if (!is_new) return cuda_launch_now(cuda, info);
    return cuda_events_time(&d->events, cuda->stream, replay_run, &(replay){cuda, info}, &r->time);
}

// ------------------------------------------------------------------------------------------------------- reporting

static peak_limit limit_of(const device_bench *d, const cuda_work *w) {
    const double gops = w->arithmetic == ARITHMETIC_INT8   ? d->int8_gops
                        : w->arithmetic == ARITHMETIC_BF16 ? d->bf16_gops
                                                           : d->f32_gops;
    return (peak_limit){.gops = w->ops > 0 ? gops / MAX(w->passes, 1.0) : 0.0, .gbps = d->gbps};
}

static void report_rows(device_bench *d, const char *of) {
    for (int i = 0; i < d->n_rows; i++) {
        const row *r = &d->rows[i];
        bench_case c = {.section = "cuda", .ops = r->work.ops, .bytes = r->work.bytes, .time = r->time};
        if (r->known) c.limit = limit_of(d, &r->work);
        snprintf(c.name, sizeof c.name, "%s%s%s %s", of, *of ? ": " : "", r->kernel, r->work.label);
        if (d->events.emu_counters)
            report_counts(d->b->report, "cuda", c.name, r->kernel, r->work.units, cuda_count_names, r->counts,
                          N_CUDA_COUNTS);
        else
            report_case(d->b->report, &c);
    }
    d->n_rows = 0;
}

// ----------------------------------------------------------------------------------------------------------- peaks

static int peak_blocks(const device_bench *d, const cuda_backend *cuda) {
    return d->events.emu_counters ? 2 : cuda->n_multiprocessors * 8;
}

/// Runs a kernel of cuda/peaks.cu; its row says how fast it was.
static logitd_status run_peak(device_bench *d, cuda_backend *cuda, cuda_kernel kernel, const peak_params *params) {
    cuda_launch(cuda, kernel, peak_blocks(d, cuda), 1, 0, params);
    cuda_wait(cuda);
    return cuda_failed(cuda) ? LOGITD_EBACKEND : LOGITD_OK;
}

static double best_gops(const device_bench *d, int i) {
    return d->rows[i].time.best_ms > 0 ? d->rows[i].work.ops / d->rows[i].time.best_ms * 1e-6 : 0.0;
}

static logitd_status measure_peaks(device_bench *d, cuda_backend *cuda, logitd_error *err) {
    const bool emulated = d->events.emu_counters;
    const size_t n_bytes = emulated ? 1 << 16 : 1u << 29, out_bytes = (size_t)cuda->n_multiprocessors * 8 * 256 * 4;
    peak_params p = {.memory = cuda_alloc(cuda, n_bytes, "the bench's memory to read", err),
                     .out = cuda_alloc(cuda, out_bytes, "the bench's results", err),
                     .n = cuda_whole_reads(n_bytes, peak_blocks(d, cuda)),
                     .rounds = emulated ? 3 : 4096,
                     .a = 0.5f,
                     .b = 1.0f};
    logitd_status status = p.memory && p.out ? LOGITD_OK : LOGITD_ENOMEM;
    if (!status) cuda_ok(cuda, cuda->driver->MemsetD8Async(p.memory, 0, n_bytes, cuda->stream), "clearing its memory");
    static const cuda_kernel kernels[] = {KERNEL_peak_f32, KERNEL_peak_bf16, KERNEL_peak_int8, KERNEL_peak_read};
    for (size_t i = 0; i < ARRAY_LEN(kernels) && !status; i++) status = run_peak(d, cuda, kernels[i], &p);
    cuda_free(cuda, p.memory);
    cuda_free(cuda, p.out);
    if (status) return cuda_failed(cuda) ? cuda_report(cuda, err) : status;
    d->f32_gops = best_gops(d, 0);
    d->bf16_gops = best_gops(d, 1);
    d->int8_gops = best_gops(d, 2);
    d->gbps = emulated ? 0.0 : d->rows[3].work.bytes / d->rows[3].time.best_ms * 1e-6;
    report_rows(d, cuda->base.precision);
    return LOGITD_OK;
}

// ---------------------------------------------------------------------------------------------------------- shapes

static logitd_status run_shape(device_bench *d, cuda_backend *cuda, const cuda_shape *shape, cuda_span span,
                               logitd_error *err) {
    char of[48];
    d->span = span;
    cuda->launch = cuda_launch_now;
    cuda_shape_model *m = cuda_shape_open(&cuda->base, shape, span.n_tokens, span.n_past, true);
    if (!m && !cuda_failed(cuda)) return error_set(err, LOGITD_ENOMEM, "the GPU has no memory for %s", shape->name);
    if (m) cuda_shape_past(m);
    cuda->launch = observe;
    if (m) cuda_shape_pass(m, err);
    cuda_shape_close(m);
    if (cuda_failed(cuda)) return cuda_report(cuda, err);
    snprintf(of, sizeof of, "%s %s, %d after %d", shape->name, cuda->base.precision, span.n_tokens, span.n_past);
    report_rows(d, of);
    return LOGITD_OK;
}

static logitd_status run_all(device_bench *d, cuda_backend *cuda, logitd_error *err) {
    const bool emulated = d->events.emu_counters;
    const cuda_shape *shapes = emulated ? cuda_small_shapes : cuda_shapes;
    const int n = emulated ? n_cuda_small_shapes : n_cuda_shapes, many = emulated ? MANY_SMALL : d->b->n_tokens;
    logitd_status status = measure_peaks(d, cuda, err);
    for (int i = 0; i < n && !status; i++) {
        status = run_shape(d, cuda, &shapes[i], (cuda_span){many, 0}, err);
        if (!status) status = run_shape(d, cuda, &shapes[i], (cuda_span){1, emulated ? PAST_SMALL : many}, err);
    }
    if (!status && !emulated && !cuda->bf16) status = cuda_blas_compare(d->b, cuda, &d->events, err);
    return status;
}

/// A device that is not there, or does not take the precision, is said.
static logitd_status run_precision(bench *b, const char *precision, logitd_error *err) {
    backend *made = NULL;
    logitd_error why = {0};
    const backend_options options = {.precision = precision};
    if (cuda_backend_create(&options, &made, &why)) {
        report_note(b->report, why.message);
        return LOGITD_OK;
    }
    static device_bench d; // some kilobytes
    cuda_backend *cuda = cuda_of(made);
    d = (device_bench){.b = b};
    logitd_status status = cuda_events_open(&d.events, err);
    if (!status) {
        char device[160];
        snprintf(device, sizeof device, "%s, %s, code %s, %d multiprocessors%s", precision, cuda->name, made->kernel,
                 cuda->n_multiprocessors, d.events.emu_counters ? "; emulated: counts, no times" : "");
        report_note(b->report, device);
        if (d.events.emu_counters) {
            d.events.emu_set("TRAFFIC", 1);
            cuda->n_multiprocessors = 1; // parts of several tiles, as large vocabularies have them
        }
        cuda->launch = observe;
        cuda->observer = &d;
        status = run_all(&d, cuda, err);
        cuda_events_close(&d.events);
    }
    cuda->launch = cuda_launch_now;
    made->ops->destroy(made);
    return status;
}

logitd_status section_cuda(bench *b, logitd_error *err) {
    const logitd_status status = run_precision(b, "exact", err);
    return status ? status : run_precision(b, "bf16", err);
}
