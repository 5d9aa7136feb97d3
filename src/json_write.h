/*
 * json_write.h: JSON text appended to a buffer: the leaves, which are strings, numbers and arrays of numbers. The
 * members around them are written as literal text by the callers, who know their shape. Does not check nesting. A
 * failed allocation shows in the buffer's `failed`.
 */
#ifndef JSON_WRITE_H
#define JSON_WRITE_H

#include "util.h"

/// A quoted string. Ill-formed UTF-8 becomes U+FFFD, so that the text is always valid JSON.
void json_string(buffer *out, const void *text, size_t n);
/// The same of a C string; NULL gives null.
void json_cstring(buffer *out, const char *text);
void json_int(buffer *out, int64_t value);
void json_float(buffer *out, float value);   // null for NaN and infinities
void json_double(buffer *out, double value); // null for NaN and infinities
/// [v,v,…] of values[0], values[stride], …
void json_floats(buffer *out, const float *values, size_t n, size_t stride);
void json_float_items(buffer *out, const float *values, size_t n, size_t stride); // v,v,…
void json_bytes(buffer *out, const uint8_t *bytes, size_t n);                     // [84,104,101]

#endif
