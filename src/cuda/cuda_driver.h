/*
 * cuda_driver.h: the CUDA driver as a table of functions, found in libcuda.so.1 at run time, and the machine code of
 * the kernels that the build embedded (cuda_image.S). Knows nothing of tensors. No CUDA header or library is needed.
 *
 * Thread-safety: the table is filled once, under a lock, and never changes; everything else belongs to the caller.
 */
#ifndef CUDA_DRIVER_H
#define CUDA_DRIVER_H

#include "util.h"

// The driver's types and numbers, as its ABI has them (cuda.h of CUDA 11 and newer).
typedef int cuda_result; // 0: success
typedef int cuda_device;
typedef uint64_t cuda_address;
typedef struct cuda_context_tag *cuda_context;
typedef struct cuda_stream_tag *cuda_stream;
typedef struct cuda_event_tag *cuda_event;
typedef struct cuda_module_tag *cuda_module;
typedef struct cuda_function_tag *cuda_function;

enum {
    CUDA_ERROR_MEMORY = 2,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_IMAGE = 200,
    CUDA_ERROR_NO_BINARY = 209,
    CUDA_ATTRIBUTE_MULTIPROCESSORS = 16,
    CUDA_ATTRIBUTE_CAPABILITY_MAJOR = 75,
    CUDA_ATTRIBUTE_CAPABILITY_MINOR = 76,
    CUDA_ATTRIBUTE_SHARED_BYTES_OPTIN = 97,
    CUDA_FUNCTION_SHARED_BYTES = 8,
    CUDA_STREAM_NON_BLOCKING = 1,
    CUDA_EVENT_NO_TIMING = 2,
};

typedef struct cuda_driver {
#define DRIVER(name, symbol, parameters) cuda_result(*name) parameters;
#include "cuda/cuda_driver.def"
#undef DRIVER
} cuda_driver;

/// The driver, initialised, or NULL with a sentence: no libcuda.so.1, a symbol that it lacks, or its own refusal.
const cuda_driver *cuda_driver_load(logitd_error *err);
/// "CUDA_ERROR_X (what it means)" of a result, in `text`.
const char *cuda_driver_error(const cuda_driver *driver, cuda_result result, char text[160]);

/// Code for one architecture: a cubin for devices of `capability` (80 = 8.0) and of the same major number above it, or
/// PTX text (capability 0), which the driver compiles for any device of 8.0 or more.
typedef struct cuda_image {
    int capability;
    const char *name; // "sm_80", "ptx"
    const void *code;
} cuda_image;
/// Newest first, the PTX last. n_cuda_images is 0 in a build without nvcc.
extern const cuda_image cuda_images[];
extern const int n_cuda_images;

#endif
