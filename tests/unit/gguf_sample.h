/*
 * gguf_sample.h: a small GGUF file for tests, with a metadata entry of every type and two tensors, and where its fields
 * are, so that a test can damage one.
 *
 *   tensors   "first" F32 [3, 2] = 0 … 5        "next!" Q8_0 [64, 1, 2, 1]        at alignment 64
 */
#ifndef GGUF_SAMPLE_H
#define GGUF_SAMPLE_H

#include "gguf.h"

enum { SAMPLE_N_KV = 20 };

/// Byte offsets.
typedef struct sample_layout {
    size_t key_len, type, alignment, bool_value, bools, string_len, array_type, array_n, strings_n, string_1;
    size_t name_len, n_dims, dims, tensor_type, offset, second_offset, second_name, data;
} sample_layout;

/// The caller frees it.
buffer sample_make(uint32_t version, sample_layout *at);

#endif
