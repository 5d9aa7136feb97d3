/*
 * quant.h: the block formats of GGUF tensors. One table row each: id in the file, name, weights of a block, bytes of a
 * block, scalar dequantisation. The layouts and the arithmetic (f32, no fused multiply-add, in the order of the
 * `gguf` Python package) stand in quant_blocks.h, so that a weight has one exact value everywhere.
 */
#ifndef QUANT_H
#define QUANT_H

#include <stddef.h>
#include <stdint.h>

typedef struct quant_type {
    uint32_t id;       // the number in the file
    const char *name;  // "Q4_1"
    int block_weights; // weights of a block: 1, 32 or 256
    int block_bytes;   // bytes of a block
    /// dst[n] = the weights of n / block_weights blocks at src (no alignment needed). n is a multiple of block_weights.
    void (*dequantize)(const void *src, float *dst, size_t n);
} quant_type;

/// The row of a file's type number, or NULL when it is not supported.
const quant_type *quant_find(uint32_t id);
/// Name of any type number that GGUF knows, supported or not, for messages; "type 1234" style numbers give NULL.
const char *quant_name(uint32_t id);
/// The table, for tests and messages.
extern const quant_type quant_types[];
extern const int n_quant_types;

#endif
