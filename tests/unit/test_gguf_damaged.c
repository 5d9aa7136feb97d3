/*
 * test_gguf_damaged.c: gguf.c on files that are cut at any byte, lie in one field, or are mutated at random: they end
 * in a sentence, or keep the promises of gguf.h.
 */
#include "gguf_bytes.h"
#include "gguf_sample.h"
#include "limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

/// Opens a copy whose end is the end of its memory, so that a sanitizer sees a read past it.
static logitd_status open_copy(const void *data, size_t n, uint8_t **copy, gguf_file **file, logitd_error *err) {
    *copy = malloc(n ? n : 1);
    assert_non_null(*copy);
    memcpy(*copy, data, n);
    return gguf_open_memory(*copy, n, file, err);
}

// --------------------------------------------------------------------------------------------- damaged files

static void test_cut_at_every_byte(void **state) {
    (void)state;
    sample_layout at;
    buffer b = sample_make(3, &at);
    for (size_t n = 0; n < b.len; n++) {
        uint8_t *copy;
        gguf_file *file;
        logitd_error err = {0};
        assert_int_equal(open_copy(b.data, n, &copy, &file, &err), LOGITD_EFORMAT);
        assert_null(file);
        if (n >= 4 && !strstr(err.message, "truncated")) fail_msg("cut at %zu: %s", n, err.message);
        free(copy);
    }
    buffer_free(&b);
}

/// One field of the file replaced, and what the sentence must hold.
typedef struct lie {
    size_t at;
    uint64_t value;
    int n_bytes;
    const char *message;
} lie;

static void assert_lie(const buffer *honest, const lie *l) {
    uint8_t *copy;
    gguf_file *file;
    logitd_error err = {0};
    uint8_t *patched = malloc(honest->len);
    memcpy(patched, honest->data, honest->len);
    for (int i = 0; i < l->n_bytes; i++) patched[l->at + (size_t)i] = (uint8_t)(l->value >> (8 * i));
    logitd_status status = open_copy(patched, honest->len, &copy, &file, &err);
    if (status != LOGITD_EFORMAT || file) fail_msg("accepted, but must say: %s", l->message);
    if (!strstr(err.message, l->message)) fail_msg("says: %s\nbut must say: %s", err.message, l->message);
    assert_memory_equal(err.message, "(memory): ", 10);
    free(copy);
    free(patched);
}

static void test_lies(void **state) {
    (void)state;
    sample_layout at;
    buffer b = sample_make(3, &at);
    const lie lies[] = {
        {0, 'X', 1, "begins with the bytes 58 47 55 46, not with \"GGUF\""},
        {4, 0, 4, "GGUF version 0 is not supported; versions 2 and 3 are"},
        {4, 1, 4, "GGUF version 1 is not supported"},
        {4, 4, 4, "GGUF version 4 is not supported"},
        {4, 0x03000000, 4, "big-endian"},
        {8, LIMIT_TENSORS + 1, 8, "the header says 65537 tensors; at most 65536"},
        {8, UINT64_MAX, 8, "the header says 18446744073709551615 tensors"},
        {8, 60000, 8, "truncated: the header says 60000 tensors"},
        {8, 3, 8, "an empty tensor name before byte"},
        {16, LIMIT_METADATA + 1, 8, "65537 metadata entries; at most 65536"},
        {16, 65000, 8, "truncated: the header says 65000 metadata entries"},
        {16, SAMPLE_N_KV + 1, 8, "a tensor name at byte 570 has"}, // the first tensor taken for an entry
        {at.key_len, 0, 8, "an empty metadata key"},
        {at.key_len, LIMIT_STRING_BYTES + 1, 8, "a metadata key at byte 24 has 16777217 bytes; at most 16777216"},
        {at.key_len, LIMIT_STRING_BYTES, 8, "a metadata key at byte 24 has 16777216 bytes, past the end"},
        {at.key_len, UINT64_MAX, 8, "a metadata key at byte 24 has 18446744073709551615 bytes"},
        {at.type, 13, 4, "the type of 'general.alignment' at byte 49 is 13; GGUF has types 0 to 12"},
        {at.type, GGUF_STRING, 4, "'general.alignment'"},
        {at.type, GGUF_F32, 4, "general.alignment is 9e-44; it must be a power of two from 8 to 1048576"},
        {at.alignment, 0, 4, "general.alignment is 0; it must be a power of two"},
        {at.alignment, 4, 4, "general.alignment is 4;"},
        {at.alignment, 48, 4, "general.alignment is 48;"},
        {at.alignment, 1u << 21, 4, "general.alignment is 2097152;"},
        {at.alignment, 128, 4, "the offset 64 of tensor 'next!' is no multiple of the alignment 128"},
        {at.bool_value, 2, 1, "a bool of 'bool'"},
        {at.bools + 1, 255, 1, "a bool of 'bools'"},
        {at.string_len, UINT64_MAX, 8, "a string of 'string'"},
        {at.string_len, 100000, 8, "truncated: a string of 'string'"},
        {at.array_type, GGUF_ARRAY, 4, "'ints' is an array of arrays, which is not supported"},
        {at.array_type, 99, 4, "the element type of 'ints'"},
        {at.array_n, UINT64_MAX, 8, "truncated: the value of 'ints' (i16, 18446744073709551615 of them)"},
        {at.array_n, UINT64_MAX / 2 + 1, 8, "truncated: the value of 'ints'"}, // times 2 bytes: 0 modulo 2^64
        {at.strings_n, UINT64_MAX / 8 + 1, 8, "truncated: the value of 'strings'"},
        {at.string_1, 1u << 20, 8, "truncated: a string of 'strings'"},
        {at.name_len, 0, 8, "an empty tensor name"},
        {at.name_len, 1u << 20, 8, "truncated: a tensor name"},
        {at.n_dims, 0, 4, "tensor 'first' has 0 dimensions; 1 to 4 are supported"},
        {at.n_dims, 5, 4, "tensor 'first' has 5 dimensions"},
        {at.dims, 0, 8, "dimension 0 of tensor 'first' is 0"},
        {at.dims + 8, 0, 8, "dimension 1 of tensor 'first' is 0"},
        {at.dims, UINT64_MAX, 8, "dimension 0 of tensor 'first' is 18446744073709551615"},
        {at.dims, INT64_MAX, 8, "the dimensions of tensor 'first' multiply to more than 2^63"},
        {at.dims, 1ull << 61, 8, "tensor 'first' has more than 2^64 bytes"},
        {at.dims, 1ull << 40, 8, "truncated or damaged: tensor 'first' has 8796093022208 bytes"},
        {at.dims, 27, 8, "truncated or damaged: tensor 'first' has 216 bytes at offset 0 of the data, which has 200"},
        {at.tensor_type, 8, 4, "a row of tensor 'first' has 3 weights, which is no multiple of the 32 in a Q8_0 block"},
        {at.tensor_type, 16, 4,
         "tensor 'first' has type IQ2_XXS (number 16), which is not supported; supported: F32, F16, BF16"},
        {at.tensor_type, 1234, 4, "tensor 'first' has type unknown (number 1234)"},
        {at.offset, 32, 8, "the offset 32 of tensor 'first' is no multiple of the alignment 64"},
        {at.offset, 192, 8, "truncated or damaged: tensor 'first' has 24 bytes at offset 192"},
        {at.second_offset, 128, 8, "truncated or damaged: tensor 'next!'"},
        {at.second_offset, UINT64_MAX - 63, 8, "truncated or damaged: tensor 'next!'"},
    };
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) assert_lie(&b, &lies[i]);
    buffer_free(&b);
}

static void test_names_that_occur_twice(void **state) {
    (void)state;
    sample_layout at;
    buffer b = sample_make(3, &at);
    memcpy(b.data + at.second_name, "first", 5);
    gguf_file *file;
    logitd_error err;
    assert_int_equal(gguf_open_memory(b.data, b.len, &file, &err), LOGITD_EFORMAT);
    assert_string_equal(err.message, "(memory): tensor name 'first' occurs twice");
    buffer_free(&b);
    b = sample_make(3, &at);
    char *i8 = b.data + at.alignment + 4 + (8 + 2 + 4 + 1) + 8;
    assert_memory_equal(i8, "i8", 2);
    i8[0] = 'u';
    assert_int_equal(gguf_open_memory(b.data, b.len, &file, &err), LOGITD_EFORMAT);
    assert_string_equal(err.message, "(memory): metadata key 'u8' occurs twice");
    buffer_free(&b);
}

/// Names in messages are printable and short, whatever the file says.
static void test_names_in_messages(void **state) {
    (void)state;
    buffer b = {0};
    put_head(&b, 3, 0, 1);
    put(&b, 300, 8);
    for (int i = 0; i < 100; i++) buffer_append(&b, "\x1B\xFF[", 3);
    put(&b, 77, 4), put(&b, 0, 8);
    gguf_file *file;
    logitd_error err;
    assert_int_equal(gguf_open_memory(b.data, b.len, &file, &err), LOGITD_EFORMAT);
    assert_string_equal(
        err.message,
        "(memory): the type of '\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?[\?\?["
        "\?\?[\?\?[\?\?[...' at byte 332 is 77; GGUF has types 0 to 12");
    buffer_free(&b);
}

// --------------------------------------------------------------------------------------------- random mutations

static uint64_t random_state;

static uint64_t random_u64(void) { // splitmix64
    uint64_t z = random_state += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

static void mutate(uint8_t *data, size_t n) {
    static const uint64_t extremes[] = {0,     1,        2,         8,          12,        31,        255,
                                        65536, 1u << 24, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
    size_t at = random_u64() % n;
    switch (random_u64() % 4) {
    case 0:
        data[at] = (uint8_t)random_u64();
        break;
    case 1:
        data[at] ^= (uint8_t)(1u << random_u64() % 8);
        break;
    case 2:
        data[at] = (uint8_t)(data[at] + (random_u64() % 2 ? 1 : 255));
        break;
    default: {
        size_t width = random_u64() % 2 ? 4 : 8;
        if (at + width <= n) memcpy(data + at, &extremes[random_u64() % ARRAY_LEN(extremes)], width);
    }
    }
}

/// Reads all that the getters give, and holds it against the promises of gguf.h.
static void read_everything(const gguf_file *file) {
    uint64_t n_bytes, n, sum = 0;
    const uint8_t *data = gguf_data(file, &n_bytes);
    buffer out = {0};
    for (int i = 0; i < gguf_n_kv(file); i++) {
        gguf_kv_text(file, i, &out);
        char key[64] = "";
        gguf_str name = gguf_kv_key(file, i);
        memcpy(key, name.data, MIN(name.len, sizeof key - 1));
        gguf_value_type type;
        int64_t integer;
        double number;
        if (!gguf_array(file, key, &type, &n)) continue;
        for (uint64_t j = 0; j < MIN(n, (uint64_t)100); j++) {
            sum += (uint64_t)gguf_array_int(file, gguf_find(file, key), j, &integer) +
                   (uint64_t)gguf_array_float(file, gguf_find(file, key), j, &number);
        }
        gguf_str *strings = type == GGUF_STRING ? calloc(n + 1, sizeof *strings) : NULL;
        if (strings) assert_true(gguf_array_strings(file, key, strings, n));
        for (uint64_t j = 0; strings && j < n; j++)
            sum += strings[j].len ? (uint8_t)strings[j].data[strings[j].len - 1] : 0;
        free(strings);
    }
    assert_false(out.failed);
    buffer_free(&out);
    for (int i = 0; i < gguf_n_tensors(file); i++) {
        const gguf_tensor *tensor = gguf_tensor_at(file, i);
        assert_true((const uint8_t *)tensor->data >= data && tensor->n_bytes <= n_bytes);
        assert_true((const uint8_t *)tensor->data + tensor->n_bytes <= data + n_bytes);
        assert_true(tensor->n_bytes > 0 && tensor->n_bytes % (uint64_t)tensor->type->block_bytes == 0);
        assert_true(tensor->dims[0] % tensor->type->block_weights == 0);
        assert_true(((const uint8_t *)tensor->data - data) % 8 == 0);
        for (uint64_t j = 0; j < tensor->n_bytes; j++) sum += ((const uint8_t *)tensor->data)[j];
    }
    assert_true(sum != UINT64_MAX); // so that no read is optimised away
}

static void test_random_mutations(void **state) {
    (void)state;
    sample_layout at;
    buffer b = sample_make(3, &at);
    uint8_t *data = malloc(b.len);
    int n_opened = 0, n_files = 300000;
    for (int i = 0; i < n_files; i++) {
        random_state = (uint64_t)i;
        memcpy(data, b.data, b.len);
        for (uint64_t n = 1 + random_u64() % 4; n > 0; n--) mutate(data, random_u64() % 8 ? at.data : b.len);
        gguf_file *file;
        logitd_error err = {0};
        logitd_status status = gguf_open_memory(data, b.len, &file, &err);
        if (status == LOGITD_OK)
            read_everything(file);
        else if (status != LOGITD_EFORMAT || !err.message[0] || file)
            fail_msg("seed %d: status %d", i, (int)status);
        n_opened += status == LOGITD_OK;
        gguf_close(file);
    }
    assert_true(n_opened > n_files / 20 && n_opened < n_files); // both ways were taken often
    free(data);
    buffer_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_at_every_byte),      cmocka_unit_test(test_lies),
        cmocka_unit_test(test_names_that_occur_twice), cmocka_unit_test(test_names_in_messages),
        cmocka_unit_test(test_random_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
