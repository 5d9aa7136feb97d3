/*
 * ops_harness.h: what the files of test_backend_ops share: random operands, the backends under test, and comparing one
 * with the scalar reference (the CPU level of that name). One stream of random numbers for all: a failure comes again
 * in the same run of tests.
 */
#ifndef OPS_HARNESS_H
#define OPS_HARNESS_H

#include "backend.h"

// The tests, in their order: X(name) is test_name of ops_*.c. Those of CPU_OPS_TESTS are not run on a named backend.
// clang-format off
#define OPS_TESTS(X) \
    X(matmul) X(norm) X(add_norm) X(glu) X(attention) X(rope_table) X(embed) X(project_stats) \
    X(project_many) X(project_ties) X(project_extremes) X(project_minus_infinity) \
    X(project_nan_part) X(project_quantised) X(quantised_matmul) X(matmul_parts) X(quantised_poison)
#define CPU_OPS_TESTS(X) X(unpack) X(unknown_level)
// clang-format on
#define DECLARE(name) void test_##name(void **state);
OPS_TESTS(DECLARE)
CPU_OPS_TESTS(DECLARE)
#undef DECLARE

// ------------------------------------------------------------------------------------------------------ random data

int rng_int(int lo, int hi); // in [lo, hi]
/// n numbers in [-scale, scale), malloc'ed.
float *random_floats(int n, float scale);

// F32 tensors over data that outlives them: [n_out, n_in] and [n].
gguf_tensor matrix(const float *data, int n_out, int n_in);
gguf_tensor vector(const float *data, int n);
/// Rows of blocks (or plain numbers) with random bits, but halves and floats below 2: their high bytes are the odd
/// ones. `data` is malloc'ed.
gguf_tensor random_blocks(const quant_type *type, int n_out, int n_in);

// --------------------------------------------------------------------------------------------------------- backends

/// What is tested: names of CPU levels, or "cuda".
extern const char *tested[16];
extern int n_tested;

/// What a backend may offer. Not every one has each, and the reference is exact alone.
enum { N_PRECISIONS = 3 };
extern const char *const precisions[N_PRECISIONS];

/// NULL: it does not have this precision. Ended with end_backend.
backend *make_precision(const char *name, int n_threads, const char *precision);
backend *make_backend(const char *name, int n_threads); // "exact"
void end_backend(backend *b);
/// After all tests: GPUs are kept from test to test, since opening one compiles its kernels.
void end_gpus(void);

backend_weight *weight(backend *b, gguf_tensor t);
backend_weight *weight_or_null(backend *b, const float *x, int n); // x NULL: NULL
backend_buffer *upload(backend *b, const float *x, int n_rows, int n);
float *download(backend *b, backend_buffer *buf, int n_rows, int n); // malloc'ed

// -------------------------------------------------------------------------------------------------------- comparing

/// What `bf16` makes of floats: the nearest bf16, ties to even. malloc'ed.
float *rounded(const float *x, int n);

void assert_close(const char *what, const float *got, const float *want, int n, double absolute, double relative);

/// Runs an operation of some shape; gives its *n_out results, malloc'ed.
typedef float *(*operation)(backend *b, const void *shape, int *n_out);

/// Runs an operation on the reference and on every level that this processor has, and compares.
void compare_precision(const char *precision, const char *what, operation run, const void *shape, double absolute,
                       double relative);
void compare_levels(const char *what, operation run, const void *shape, double absolute, double relative); // "exact"

#endif
