/*
 * safetensors_head.h: the head of a safetensors file, whose raw data follows it:
 *
 *   offset 0   8 bytes   size of the JSON, little-endian
 *          8             JSON, padded with spaces to a multiple of 8:
 *                        {"__metadata__":{"k":"text",…},"name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},…}
 *        8 + size        the tensors' values, little-endian, in the order of their offsets, without gaps
 *
 * Tensors are named in the order of their data, so that it can be written as it is computed. Keeps no tensor in memory.
 */
#ifndef SAFETENSORS_HEAD_H
#define SAFETENSORS_HEAD_H

#include "util.h"

typedef enum tensor_type { TENSOR_U8, TENSOR_I32, TENSOR_I64, TENSOR_F16, TENSOR_F32 } tensor_type;

typedef struct safetensors_head {
    buffer json;
    uint64_t data_bytes; // of the tensors so far
    int n_metadata, n_tensors;
} safetensors_head;

/// Adds an entry to the metadata; all of them come before the first tensor. `text` is any text, here JSON.
void safetensors_put_metadata(safetensors_head *h, const char *key, const buffer *text);
/// Adds a tensor of up to 4 dimensions, row-major.
void safetensors_put_tensor(safetensors_head *h, const char *name, tensor_type type, const uint64_t *dims, int n_dims);
/// Closes the head, appends it to `out` and frees it; the data comes next. A failed allocation shows in out->failed.
void safetensors_put_head(safetensors_head *h, buffer *out);

#endif
