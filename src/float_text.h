/*
 * float_text.h: numbers as the shortest decimal text that reads back to the same value. libstdc++'s std::to_chars does
 * the work; this is the only C++ of the service. Not terminated; a value that JSON cannot hold is "null".
 */
#ifndef FLOAT_TEXT_H
#define FLOAT_TEXT_H

#include <stddef.h>

#define FLOAT_TEXT_BYTES  16 // "-1.1754944e-38" is the longest
#define DOUBLE_TEXT_BYTES 32 // "-2.2250738585072014e-308"

#ifdef __cplusplus
extern "C" {
#endif

/// Writes at most FLOAT_TEXT_BYTES bytes; returns how many.
size_t float_text(float value, char *out);
/// Writes at most DOUBLE_TEXT_BYTES bytes; returns how many.
size_t double_text(double value, char *out);

#ifdef __cplusplus
}
#endif

#endif
