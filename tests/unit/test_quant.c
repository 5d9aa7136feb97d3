/*
 * quant.c: the table, and blocks worked out by hand. Bit-identity with the `gguf` package is tests/test_quant.py's.
 */
#include "quant.h"
#include "util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void test_table(void **state) {
    (void)state;
    static const struct {
        uint32_t id;
        const char *name;
        int weights, bytes;
    } rows[] = {{0, "F32", 1, 4},       {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},    {3, "Q4_1", 32, 20},
                {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},      {8, "Q8_0", 32, 34},    {10, "Q2_K", 256, 84},
                {11, "Q3_K", 256, 110}, {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176}, {14, "Q6_K", 256, 210},
                {20, "IQ4_NL", 32, 18}, {23, "IQ4_XS", 256, 136}, {30, "BF16", 1, 2}};
    assert_int_equal(n_quant_types, ARRAY_LEN(rows));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const quant_type *type = quant_find(rows[i].id);
        assert_non_null(type);
        assert_int_equal(type->id, rows[i].id);
        assert_string_equal(type->name, rows[i].name);
        assert_string_equal(quant_name(rows[i].id), rows[i].name);
        assert_int_equal(type->block_weights, rows[i].weights);
        assert_int_equal(type->block_bytes, rows[i].bytes);
    }
}

static void test_unsupported_names(void **state) {
    (void)state;
    assert_null(quant_find(16));
    assert_string_equal(quant_name(16), "IQ2_XXS");
    assert_string_equal(quant_name(39), "MXFP4");
    assert_null(quant_find(1234));
    assert_null(quant_name(1234));
    for (int i = 0; i < n_quant_types; i++) { // no number has two rows
        for (int j = 0; j < i; j++) assert_int_not_equal(quant_types[i].id, quant_types[j].id);
    }
}

/// Float16 by IEEE 754-2008, table 3.5: powers of two, largest, smallest, denormals, signed zero, infinity.
static void test_halves(void **state) {
    (void)state;
    static const struct {
        uint16_t bits;
        float value;
    } cases[] = {{0x0000, 0.0f},     {0x3C00, 1.0f},     {0xC000, -2.0f},    {0x3555, 0x1.554p-2f},
                 {0x7BFF, 65504.0f}, {0x0400, 0x1p-14f}, {0x0001, 0x1p-24f}, {0x83FF, -0x1.FF8p-15f},
                 {0x0200, 0x1p-15f}, {0xFBFF, -65504.0f}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        float got;
        quant_find(1)->dequantize(&cases[i].bits, &got, 1);
        assert_memory_equal(&got, &cases[i].value, 4);
    }
    uint16_t special[] = {0x7C00, 0xFC00, 0x7E00, 0x8000};
    float got[4];
    quant_find(1)->dequantize(special, got, 4);
    assert_true(isinf(got[0]) && got[0] > 0 && isinf(got[1]) && got[1] < 0 && isnan(got[2]));
    assert_true(got[3] == 0.0f && 1.0f / got[3] < 0);
}

static void test_bf16(void **state) {
    (void)state;
    static const uint16_t bits[] = {0x3F80, 0xC049, 0x0001, 0x8000};
    static const float want[] = {1.0f, -3.140625f, 0x1p-133f, -0.0f};
    float got[4];
    quant_find(30)->dequantize(bits, got, 4);
    assert_memory_equal(got, want, sizeof want);
}

/// Q4_0: d = 0.5, byte j = j + 16 (15 - j): low nibbles rise, high ones fall.
static void test_q4_0_by_hand(void **state) {
    (void)state;
    uint8_t block[18] = {0x00, 0x38};
    float got[32];
    for (int j = 0; j < 16; j++) block[2 + j] = (uint8_t)(j | (15 - j) << 4);
    quant_find(2)->dequantize(block, got, 32);
    for (int j = 0; j < 16; j++) {
        assert_true(got[j] == 0.5f * (float)(j - 8));
        assert_true(got[j + 16] == 0.5f * (float)(7 - j));
    }
}

/// Q5_1: d = 2, m = -1, nibble 3 everywhere; the fifth bit on for weights 0, 7, 8, 16 and 31.
static void test_q5_1_by_hand(void **state) {
    (void)state;
    uint8_t block[24] = {0x00, 0x40, 0x00, 0xBC, 0x81, 0x01, 0x01, 0x80};
    float got[32];
    memset(block + 8, 0x33, 16);
    quant_find(7)->dequantize(block, got, 32);
    for (int j = 0; j < 32; j++) {
        bool fifth = j == 0 || j == 7 || j == 8 || j == 16 || j == 31;
        assert_true(got[j] == (fifth ? 2.0f * 19 - 1 : 2.0f * 3 - 1));
    }
}

/// Q4_K: d = 1, dmin = 1; scale of group g is 60 - g and its minimum g + 40, packed by the format's picture.
static void test_q4_K_by_hand(void **state) {
    (void)state;
    uint8_t block[144] = {0x00, 0x3C, 0x00, 0x3C}, *scales = block + 4;
    float got[256];
    for (int g = 0; g < 4; g++) {
        int scale = 60 - (g + 4), minimum = g + 4 + 40;
        scales[g] = (uint8_t)((60 - g) | scale >> 4 << 6);
        scales[g + 4] = (uint8_t)((g + 40) | minimum >> 4 << 6);
        scales[g + 8] = (uint8_t)((scale & 15) | (minimum & 15) << 4);
    }
    for (int i = 0; i < 128; i++) block[16 + i] = (uint8_t)(i % 16 | (i / 16 + 3) << 4);
    quant_find(12)->dequantize(block, got, 256);
    for (int i = 0; i < 256; i++) {
        int group = i / 32, byte = group / 2 * 32 + i % 32;
        int q = group % 2 ? byte / 16 + 3 : byte % 16;
        assert_true(got[i] == (float)((60 - group) * q - (group + 40)));
    }
}

static void test_iq4_nl_by_hand(void **state) {
    (void)state;
    static const float values[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    uint8_t block[18] = {0x00, 0xC0}; // d = -2
    float got[32];
    for (int j = 0; j < 16; j++) block[2 + j] = (uint8_t)(j | (15 - j) << 4);
    quant_find(20)->dequantize(block, got, 32);
    for (int j = 0; j < 16; j++) assert_true(got[j] == -2 * values[j] && got[j + 16] == -2 * values[15 - j]);
}

/// Any number of blocks at any alignment: nothing outside is read or written, and a block has one value anywhere.
static void test_bounds_and_alignment(void **state) {
    (void)state;
    for (int t = 0; t < n_quant_types; t++) {
        const quant_type *type = &quant_types[t];
        size_t n_blocks = type->block_weights == 1 ? 37 : 3, n = n_blocks * (size_t)type->block_weights;
        size_t n_bytes = n_blocks * (size_t)type->block_bytes;
        float *want = malloc(n * sizeof *want), *got = malloc((n + 1) * sizeof *got);
        for (size_t shift = 0; shift < 4; shift++) {
            uint8_t *blocks =
                malloc(shift + n_bytes); // ends with the blocks, so that a sanitizer sees a read past them
            for (size_t i = 0; i < n_bytes; i++) blocks[shift + i] = (uint8_t)(i * 37 % 120);
            got[n] = 12345;
            type->dequantize(blocks + shift, got, n);
            assert_true(got[n] == 12345);
            if (shift == 0) memcpy(want, got, n * sizeof *want);
            assert_memory_equal(got, want, n * sizeof *want);
            for (size_t i = 0; i < n_blocks; i++) { // one at a time
                type->dequantize(blocks + shift + i * (size_t)type->block_bytes, got, (size_t)type->block_weights);
                assert_memory_equal(got, want + i * (size_t)type->block_weights,
                                    (size_t)type->block_weights * sizeof *got);
            }
            free(blocks);
        }
        free(want);
        free(got);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_unsupported_names),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_q4_0_by_hand),
        cmocka_unit_test(test_q5_1_by_hand),
        cmocka_unit_test(test_q4_K_by_hand),
        cmocka_unit_test(test_iq4_nl_by_hand),
        cmocka_unit_test(test_bounds_and_alignment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
