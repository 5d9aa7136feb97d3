/*
 * gguf_value.h: one metadata value of a GGUF file: its type, its bytes, and how they are read as numbers, as strings or
 * as a text for people. gguf.c makes it once it has checked the bytes, so nothing here can fail on what a file holds.
 * Others ask for values by their key (gguf.h).
 */
#ifndef GGUF_VALUE_H
#define GGUF_VALUE_H

#include "gguf.h"

/// A scalar is an array of one.
typedef struct gguf_value {
    gguf_value_type type;
    gguf_value_type element; // of an array; else = type
    uint64_t n;              // elements of an array; else 1
    const uint8_t *data;     // the first element, in the mapping
    size_t n_bytes;          // of all elements
} gguf_value;

enum { GGUF_N_TYPES = GGUF_F64 + 1 };

const char *gguf_type_name(gguf_value_type type); // "u32"
/// Bytes of a value; 0: it has no fixed size.
unsigned gguf_type_bytes(gguf_value_type type);

/// Element i < n. False: it is of another kind, or does not fit. An integer may be of any width, and of an array a bool
/// is one too.
bool gguf_value_int(const gguf_value *v, uint64_t i, int64_t *out);
bool gguf_value_float(const gguf_value *v, uint64_t i, double *out); // any number
/// All n elements, which are strings.
void gguf_value_strings(const gguf_value *v, gguf_str *out);
/// As gguf_kv_text.
void gguf_value_text(const gguf_value *v, buffer *out);

#endif
