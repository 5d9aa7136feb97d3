/*
 * gguf_value.h: what a GGUF file is made of, without the file: types, strings, and a metadata value with how it is read
 * as numbers, as strings or as a text for people. gguf.c makes a value once it has checked the bytes, so nothing here
 * can fail on what a file holds. Others ask for values by their key (gguf.h).
 */
#ifndef GGUF_VALUE_H
#define GGUF_VALUE_H

#include "util.h"
#include <string.h>

typedef enum gguf_value_type {
    GGUF_U8 = 0,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
} gguf_value_type;

enum { GGUF_N_TYPES = GGUF_F64 + 1 };

const char *gguf_type_name(gguf_value_type type); // "u32"
/// Bytes of a value; 0: it has no fixed size.
unsigned gguf_type_bytes(gguf_value_type type);

/// Bytes of the file, not NUL-terminated.
typedef struct gguf_str {
    const char *data;
    size_t len;
} gguf_str;

/// A string made fit for a message: printable ASCII, "?" for anything else, "..." after 60 bytes.
typedef struct gguf_shown {
    char text[64];
} gguf_shown;
gguf_shown gguf_show(gguf_str s);

static inline bool gguf_str_is(gguf_str s, const char *text) {
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

/// A scalar is an array of one.
typedef struct gguf_value {
    gguf_value_type type;
    gguf_value_type element; // of an array; else = type
    uint64_t n;              // elements of an array; else 1
    const uint8_t *data;     // the first element, in the mapping
    size_t n_bytes;          // of all elements
} gguf_value;

/// Element i < n. False: it is of another kind, or does not fit. An integer may be of any width, and of an array a bool
/// is one too.
bool gguf_value_int(const gguf_value *v, uint64_t i, int64_t *out);
bool gguf_value_float(const gguf_value *v, uint64_t i, double *out); // any number
/// All n elements, which are strings.
void gguf_value_strings(const gguf_value *v, gguf_str *out);
/// A short text for people: numbers as they are, strings cut at 60 characters, arrays as type[n].
void gguf_value_text(const gguf_value *v, buffer *out);

#endif
