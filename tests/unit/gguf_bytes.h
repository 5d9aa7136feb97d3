/*
 * gguf_bytes.h: the bytes of a GGUF file, put one after another at the end of a buffer in the order of the format
 * (gguf.h): for tests that make files, whole ones and such as no program should write. Checks nothing, counts nothing.
 */
#ifndef GGUF_BYTES_H
#define GGUF_BYTES_H

#include "gguf.h"

/// An integer of n_bytes, little-endian.
static inline void put(buffer *b, uint64_t value, int n_bytes) {
    for (int i = 0; i < n_bytes; i++) buffer_append(b, &(char){(char)(value >> (8 * i))}, 1);
}

static inline void put_f32(buffer *b, float value) {
    buffer_append(b, &value, sizeof value);
}

static inline void put_f64(buffer *b, double value) {
    buffer_append(b, &value, sizeof value);
}

static inline void put_str(buffer *b, const char *text) {
    put(b, strlen(text), 8);
    buffer_puts(b, text);
}

static inline void put_head(buffer *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv) {
    buffer_puts(b, "GGUF");
    put(b, version, 4);
    put(b, n_tensors, 8);
    put(b, n_kv, 8);
}

/// A metadata key; its value comes next.
static inline void put_key(buffer *b, const char *key, gguf_value_type type) {
    put_str(b, key);
    put(b, type, 4);
}

/// The key of an array; its n elements come next.
static inline void put_array(buffer *b, const char *key, gguf_value_type element, uint64_t n) {
    put_key(b, key, GGUF_ARRAY);
    put(b, element, 4);
    put(b, n, 8);
}

/// Zeros up to a multiple of `alignment`.
static inline void put_padding(buffer *b, size_t alignment) {
    while (b->len % alignment) buffer_append(b, "", 1);
}

#endif
