/*
 * cuda_shapes.h: models as shapes alone, over the CUDA backend: weights of the right sizes with made-up values, so that
 * the layer loop and the backend's own code make the very launches that a real model makes. On a device they run; on no
 * device (cuda_dry_create) they are only seen by the backend's observer.
 */
#ifndef CUDA_SHAPES_H
#define CUDA_SHAPES_H

#include "cuda/cuda_impl.h"
#include "model.h"

typedef struct cuda_shape {
    const char *name, *architecture;
    int n_layer; // of the whole model; a pass here has one
    int n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab, n_swa;
    int layers, output; // packings of matrices: PACK_…
} cuda_shape;

extern const cuda_shape cuda_shapes[]; // models that people run
extern const int n_cuda_shapes;
enum { CUDA_SMALL_EMBD = 256 };              // n_embd of all small shapes
extern const cuda_shape cuda_small_shapes[]; // that an emulator can run; between them they use every kernel
extern const int n_cuda_small_shapes;

/// A backend without a device that behaves as one with n_sm multiprocessors: memory has addresses and no bytes, and
/// launches go to `launch` with `observer`. NULL: no memory. Ended as any backend, by its destroy.
backend *cuda_dry_create(bool bf16, int n_sm, cuda_result (*launch)(cuda_backend *cuda, const cuda_launch_info *info),
                         void *observer);

typedef struct cuda_shape_model cuda_shape_model;

/// One layer and the vocabulary, with room for `n_tokens` after n_past of the same sequence. filled: the memory has
/// bytes (there is a device). NULL: no memory, or the backend failed.
cuda_shape_model *cuda_shape_open(backend *b, const cuda_shape *shape, int n_tokens, int n_past, bool filled);
void cuda_shape_close(cuda_shape_model *m);
/// Puts the n_past tokens into the KV cache, as needs to be done once before passes on a device.
void cuda_shape_past(cuda_shape_model *m);
/// Embedding, the layer, final norm, and statistics with the top 20 at one temperature of all tokens.
logitd_status cuda_shape_pass(cuda_shape_model *m, logitd_error *err);

#endif
