/*
 * gguf.h: a GGUF file (versions 2 and 3, little-endian), mapped and checked. The only user of mmap.
 *
 *   offset 0   u32 magic "GGUF"      u32 version      u64 n_tensors      u64 n_kv
 *   then       n_kv x  { string key, u32 type, value }          string = u64 length + bytes
 *   then       n_tensors x { string name, u32 n_dims, u64 dims[n_dims], u32 type, u64 offset }
 *   then       padding to general.alignment (default 32), then the tensors' data; offsets count from there
 *
 * Promise: after gguf_open succeeds, every size, offset and string that the getters return lies inside the mapping, no
 * key and no tensor name occurs twice, tensors are aligned, and dims are >= 1 with a product that does not overflow.
 * Pointers live until gguf_close.
 */
#ifndef GGUF_H
#define GGUF_H

#include "gguf_value.h"
#include "quant.h"
#include "util.h"

typedef struct gguf_file gguf_file;

typedef struct gguf_tensor {
    gguf_str name;
    const quant_type *type; // a row of the table in quant.c
    int n_dims;             // 1 … 4
    int64_t dims[4];        // dims[0] is the contiguous one; unused ones are 1
    const void *data;       // in the mapping
    uint64_t n_bytes;
} gguf_tensor;

logitd_status gguf_open(const char *path, gguf_file **out, logitd_error *err);
/// Parses bytes that the caller keeps alive (for tests and fuzzing).
logitd_status gguf_open_memory(const void *data, size_t n_bytes, gguf_file **out, logitd_error *err);
void gguf_close(gguf_file *file);

const char *gguf_path(const gguf_file *file);
const void *gguf_data(const gguf_file *file, uint64_t *n_bytes); // the whole file
int gguf_version(const gguf_file *file);

int gguf_n_kv(const gguf_file *file);
gguf_str gguf_kv_key(const gguf_file *file, int i);
int gguf_find(const gguf_file *file, const char *key); // index of a key, or -1
gguf_value_type gguf_kv_type(const gguf_file *file, int i);
void gguf_kv_text(const gguf_file *file, int i, buffer *out); // gguf_value_text

// Typed getters. Any integer type serves an integer, any number a float. False when the key is absent or of another
// kind (then *out is untouched); gguf_int also fails when the value does not fit in int64.
bool gguf_int(const gguf_file *file, const char *key, int64_t *out);
bool gguf_float(const gguf_file *file, const char *key, double *out);
bool gguf_bool(const gguf_file *file, const char *key, bool *out);
bool gguf_string(const gguf_file *file, const char *key, gguf_str *out);
/// An array's element type and length.
bool gguf_array(const gguf_file *file, const char *key, gguf_value_type *type, uint64_t *n);
/// Element i of the array at index kv of gguf_find (-1: false), so that a walk looks its key up once.
bool gguf_array_int(const gguf_file *file, int kv, uint64_t i, int64_t *out);  // any integer or bool type
bool gguf_array_float(const gguf_file *file, int kv, uint64_t i, double *out); // any number type
/// All strings of an array at once (its elements have no fixed size, so a walk): out[n] by the caller.
bool gguf_array_strings(const gguf_file *file, const char *key, gguf_str *out, uint64_t n);

int gguf_n_tensors(const gguf_file *file);
const gguf_tensor *gguf_tensor_at(const gguf_file *file, int i);
const gguf_tensor *gguf_find_tensor(const gguf_file *file, const char *name); // or NULL; O(1)

#endif
