/*
 * float16.h: float32 rounded to IEEE binary16, nearest and ties to even, as numpy's astype(float16). A value between
 * 6.1e-5 and 65504 in size is off by at most 2^-11 of itself, a smaller one by at most 2^-25; from 65520 on it becomes
 * infinite; NaN stays NaN. In bits rather than with F16C, so that it runs (and is vectorised) everywhere.
 */
#ifndef FLOAT16_H
#define FLOAT16_H

#include <stddef.h>
#include <stdint.h>

void float16_from(const float *in, size_t n, uint16_t *out);

#endif
