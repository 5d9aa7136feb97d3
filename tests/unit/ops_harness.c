// ops_harness.c: see ops_harness.h.
#include "ops_harness.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t rng_state = 1;

static uint32_t rng(void) { // xorshift64*
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return (uint32_t)((rng_state * 2685821657736338717ull) >> 32);
}

int rng_int(int lo, int hi) {
    return lo + (int)(rng() % (uint32_t)(hi - lo + 1));
}

static float rng_float(void) {
    return (float)rng() / 2147483648.0f - 1.0f;
}

float *random_floats(int n, float scale) {
    float *x = malloc((size_t)n * sizeof *x);
    for (int i = 0; i < n; i++) x[i] = rng_float() * scale;
    return x;
}

gguf_tensor matrix(const float *data, int n_out, int n_in) {
    return (gguf_tensor){.name = {"w", 1},
                         .type = quant_find(0),
                         .n_dims = 2,
                         .dims = {n_in, n_out, 1, 1},
                         .data = data,
                         .n_bytes = (uint64_t)n_out * (uint64_t)n_in * 4};
}

gguf_tensor vector(const float *data, int n) {
    return (gguf_tensor){.name = {"v", 1},
                         .type = quant_find(0),
                         .n_dims = 1,
                         .dims = {n, 1, 1, 1},
                         .data = data,
                         .n_bytes = (uint64_t)n * 4};
}

gguf_tensor random_blocks(const quant_type *type, int n_out, int n_in) {
    const size_t n_bytes = (size_t)(n_out * (n_in / type->block_weights)) * (size_t)type->block_bytes;
    uint8_t *blocks = malloc(n_bytes);
    for (size_t i = 0; i < n_bytes; i++) blocks[i] = (uint8_t)(rng() & (i % 2 ? 0xbf : 0xff));
    gguf_tensor t = matrix((const float *)(const void *)blocks, n_out, n_in);
    t.type = type;
    t.n_bytes = n_bytes;
    return t;
}

backend_weight *weight(backend *b, gguf_tensor t) {
    return b->ops->weight_create(b, &t, 0, (int)(t.n_dims == 1 ? t.dims[0] : t.dims[1]), true, NULL);
}

backend_weight *weight_or_null(backend *b, const float *x, int n) {
    return x ? weight(b, vector(x, n)) : NULL;
}

// --------------------------------------------------------------------------------------------------------- backends

const char *tested[16];
int n_tested;

const char *const precisions[N_PRECISIONS] = {"exact", "fast", "bf16"};

/// One GPU of each precision for all cases: opening one compiles its kernels.
static backend *gpus[N_PRECISIONS];

backend *make_precision(const char *name, int n_threads, const char *precision) {
    backend *b = NULL;
    logitd_error err = {0};
    const bool cuda = strcmp(name, "cuda") == 0;
    size_t p = 0;
    while (strcmp(precisions[p], precision) != 0) p++;
    if (cuda && gpus[p]) return gpus[p];
    const backend_options o = {.cpu_level = cuda ? NULL : name, .n_threads = n_threads, .precision = precision};
    const logitd_status status = cuda ? cuda_backend_create(&o, &b, &err) : cpu_backend_create(&o, &b, &err);
    if (status && strcmp(precision, "exact") == 0) fail_msg("%s: %s", name, err.message);
    if (cuda) gpus[p] = b;
    return b;
}

void end_backend(backend *b) {
    for (size_t p = 0; p < N_PRECISIONS; p++)
        if (b == gpus[p]) return;
    b->ops->destroy(b);
}

void end_gpus(void) {
    for (size_t p = 0; p < N_PRECISIONS; p++)
        if (gpus[p]) gpus[p]->ops->destroy(gpus[p]);
}

backend *make_backend(const char *name, int n_threads) {
    return make_precision(name, n_threads, "exact");
}

float *rounded(const float *x, int n) {
    float *out = malloc((size_t)n * sizeof *out);
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
        memcpy(&out[i], &bits, sizeof bits);
    }
    return out;
}

backend_buffer *upload(backend *b, const float *x, int n_rows, int n) {
    backend_buffer *buf = b->ops->buffer_create(b, n_rows, n);
    b->ops->buffer_write(b, buf, x, n_rows);
    return buf;
}

float *download(backend *b, backend_buffer *buf, int n_rows, int n) {
    int32_t *rows = malloc((size_t)n_rows * sizeof *rows);
    float *out = malloc((size_t)n_rows * (size_t)n * sizeof *out);
    for (int i = 0; i < n_rows; i++) rows[i] = i;
    b->ops->buffer_read(b, buf, rows, n_rows, out);
    free(rows);
    return out;
}

void assert_close(const char *what, const float *got, const float *want, int n, double absolute, double relative) {
    double worst = -1.0;
    int at = 0;
    for (int i = 0; i < n; i++) {
        if (got[i] == want[i]) continue; // infinities too
        const double error = fabs((double)got[i] - (double)want[i]) / (absolute + relative * fabs((double)want[i]));
        if (!(error <= worst)) worst = error, at = i;
    }
    if (!(worst <= 1.0))
        fail_msg("%s: element %d is %.9g, the reference has %.9g (%.2f x the bound)", what, at, (double)got[at],
                 (double)want[at], worst);
}

void compare_precision(const char *precision, const char *what, operation run, const void *shape, double absolute,
                       double relative) {
    int n = 0;
    backend *reference = make_backend("reference", 1);
    float *want = run(reference, shape, &n);
    for (int i = 0; i < n_tested; i++) {
        if (strcmp(tested[i], "reference") == 0) continue;
        for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
            char label[128];
            snprintf(label, sizeof label, "%s, %s, %s, %d threads", what, tested[i], precision, n_threads);
            backend *b = make_precision(tested[i], n_threads, precision);
            if (!b) continue;
            float *got = run(b, shape, &n);
            assert_close(label, got, want, n, absolute, relative);
            free(got);
            end_backend(b);
        }
    }
    free(want);
    end_backend(reference);
}

void compare_levels(const char *what, operation run, const void *shape, double absolute, double relative) {
    compare_precision("exact", what, run, shape, absolute, relative);
}
