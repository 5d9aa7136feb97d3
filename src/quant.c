/*
 * quant.c: the table of block formats (quant.h); the formats themselves are quant_blocks.h.
 */
#include "quant.h"

#include "quant_blocks.h"

const quant_type quant_types[] = {QUANT_TABLE};
const int n_quant_types = sizeof quant_types / sizeof *quant_types;

/// Names of the other numbers, so that a message can say what it will not read (ggml.h, enum ggml_type).
static const struct {
    uint32_t id;
    const char *name;
} unsupported[] = {
    {4, "Q4_2"},      {5, "Q4_3"},   {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"},  {17, "IQ2_XS"},
    {18, "IQ3_XXS"},  {19, "IQ1_S"}, {21, "IQ3_S"}, {22, "IQ2_S"}, {24, "I8"},       {25, "I16"},
    {26, "I32"},      {27, "I64"},   {28, "F64"},   {29, "IQ1_M"}, {31, "Q4_0_4_4"}, {32, "Q4_0_4_8"},
    {33, "Q4_0_8_8"}, {34, "TQ1_0"}, {35, "TQ2_0"}, {39, "MXFP4"}, {40, "NVFP4"},    {41, "Q1_0"},
};

const quant_type *quant_find(uint32_t id) {
    for (int i = 0; i < n_quant_types; i++) {
        if (quant_types[i].id == id) return &quant_types[i];
    }
    return NULL;
}

const char *quant_name(uint32_t id) {
    const quant_type *type = quant_find(id);
    if (type) return type->name;
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        if (unsupported[i].id == id) return unsupported[i].name;
    }
    return NULL;
}
