/*
 * gguf.c: a file built in memory with one entry of every type. Checks each getter's values; then that files which are
 * cut at any byte, lie in one field, or are mutated at random end in a sentence, or keep the promises of gguf.h.
 */
#include "gguf.h"
#include "limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// --------------------------------------------------------------------------------------------- building a file

static void put(buffer *b, uint64_t value, int n_bytes) {
    for (int i = 0; i < n_bytes; i++) buffer_append(b, &(char){(char)(value >> (8 * i))}, 1);
}

static void put_str(buffer *b, const char *text) {
    put(b, strlen(text), 8);
    buffer_puts(b, text);
}

static void put_kv(buffer *b, const char *key, gguf_value_type type) {
    put_str(b, key);
    put(b, type, 4);
}

static void put_array(buffer *b, const char *key, gguf_value_type element, uint64_t n) {
    put_kv(b, key, GGUF_ARRAY);
    put(b, element, 4);
    put(b, n, 8);
}

static void put_f32(buffer *b, float value) {
    buffer_append(b, &value, sizeof value);
}

static void put_f64(buffer *b, double value) {
    buffer_append(b, &value, sizeof value);
}

static void pad(buffer *b, size_t alignment) {
    while (b->len % alignment) buffer_append(b, "", 1);
}

/// Byte offsets of the fields that test_lies changes.
typedef struct layout {
    size_t key_len, type, alignment, bool_value, bools, string_len, array_type, array_n, strings_n, string_1;
    size_t name_len, n_dims, dims, tensor_type, offset, second_offset, second_name, data;
} layout;

#define N_KV 20

/// Tensors: "first" F32 [3, 2] = 0 … 5 and "next" Q8_0 [64, 1, 2, 1], at alignment 64.
static buffer make_file(uint32_t version, layout *at) {
    buffer b = {0};
    buffer_puts(&b, "GGUF");
    put(&b, version, 4);
    put(&b, 2, 8);
    put(&b, N_KV, 8);
    at->key_len = b.len;
    at->type = b.len + 8 + strlen("general.alignment");
    put_kv(&b, "general.alignment", GGUF_U32);
    at->alignment = b.len;
    put(&b, 64, 4);
    put_kv(&b, "u8", GGUF_U8), put(&b, 250, 1);
    put_kv(&b, "i8", GGUF_I8), put(&b, (uint64_t)-3, 1);
    put_kv(&b, "u16", GGUF_U16), put(&b, 65000, 2);
    put_kv(&b, "i16", GGUF_I16), put(&b, (uint64_t)-300, 2);
    put_kv(&b, "u32", GGUF_U32), put(&b, 4000000000u, 4);
    put_kv(&b, "i32", GGUF_I32), put(&b, (uint64_t)-70000, 4);
    put_kv(&b, "u64", GGUF_U64), put(&b, UINT64_MAX, 8);
    put_kv(&b, "i64", GGUF_I64), put(&b, (uint64_t)INT64_MIN, 8);
    put_kv(&b, "f32", GGUF_F32), put_f32(&b, 1e-5f);
    put_kv(&b, "f64", GGUF_F64), put_f64(&b, -0.1);
    put_kv(&b, "bool", GGUF_BOOL);
    at->bool_value = b.len;
    put(&b, 1, 1);
    put_kv(&b, "string", GGUF_STRING);
    at->string_len = b.len;
    put_str(&b, "h\xC3\xA9\n");
    put_kv(&b, "empty", GGUF_STRING), put_str(&b, "");
    put_array(&b, "ints", GGUF_I16, 3);
    at->array_type = b.len - 12;
    at->array_n = b.len - 8;
    put(&b, (uint64_t)-1, 2), put(&b, 0, 2), put(&b, 32767, 2);
    put_array(&b, "floats", GGUF_F32, 2), put_f32(&b, 0.5f), put_f32(&b, -2.0f);
    put_array(&b, "bools", GGUF_BOOL, 2);
    at->bools = b.len;
    put(&b, 0, 1), put(&b, 1, 1);
    put_array(&b, "strings", GGUF_STRING, 3);
    at->strings_n = b.len - 8;
    put_str(&b, "a");
    at->string_1 = b.len;
    put_str(&b, ""), put_str(&b, "\xFF\0x");
    put_array(&b, "none", GGUF_STRING, 0);
    put_array(&b, "wide", GGUF_U64, 2), put(&b, 7, 8), put(&b, UINT64_MAX, 8);

    at->name_len = b.len;
    put_str(&b, "first");
    at->n_dims = b.len;
    put(&b, 2, 4);
    at->dims = b.len;
    put(&b, 3, 8), put(&b, 2, 8);
    at->tensor_type = b.len;
    put(&b, 0, 4);
    at->offset = b.len;
    put(&b, 0, 8);
    at->second_name = b.len + 8;
    put_str(&b, "next!"), put(&b, 4, 4), put(&b, 64, 8), put(&b, 1, 8), put(&b, 2, 8), put(&b, 1, 8), put(&b, 8, 4);
    at->second_offset = b.len;
    put(&b, 64, 8);
    pad(&b, 64);
    at->data = b.len;
    for (int i = 0; i < 6; i++) put_f32(&b, (float)i);
    pad(&b, 64);
    for (int i = 0; i < 4 * 34; i++) put(&b, (uint64_t)i % 50, 1);
    assert_false(b.failed);
    return b;
}

/// Opens a copy whose end is the end of its memory, so that a sanitizer sees a read past it.
static logitd_status open_copy(const void *data, size_t n, uint8_t **copy, gguf_file **file, logitd_error *err) {
    *copy = malloc(n ? n : 1);
    assert_non_null(*copy);
    memcpy(*copy, data, n);
    return gguf_open_memory(*copy, n, file, err);
}

// ----------------------------------------------------------------------------------------------------- getters

static gguf_file *open_file(const buffer *b) {
    gguf_file *file;
    logitd_error err = {0};
    if (gguf_open_memory(b->data, b->len, &file, &err)) fail_msg("%s", err.message);
    return file;
}

static void assert_str(gguf_str s, const char *data, size_t len) {
    assert_int_equal(s.len, len);
    assert_memory_equal(s.data, data, len);
}

static void test_integers(void **state) {
    (void)state;
    static const struct {
        const char *key;
        int64_t value;
    } cases[] = {{"u8", 250},         {"i8", -3},      {"u16", 65000},    {"i16", -300},
                 {"u32", 4000000000}, {"i32", -70000}, {"i64", INT64_MIN}};
    layout at;
    buffer b = make_file(3, &at);
    gguf_file *file = open_file(&b);
    double number;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t value = 1;
        assert_true(gguf_int(file, cases[i].key, &value));
        assert_true(value == cases[i].value);
        assert_true(gguf_float(file, cases[i].key, &number));
        assert_true(number == (double)cases[i].value);
    }
    int64_t untouched = 42;
    static const char *const not_ints[] = {"u64", "f32", "f64", "bool", "string", "ints", "absent", "u", "u88", ""};
    for (size_t i = 0; i < ARRAY_LEN(not_ints); i++) assert_false(gguf_int(file, not_ints[i], &untouched));
    assert_true(untouched == 42);
    assert_true(gguf_float(file, "u64", &number));
    assert_true(number == 18446744073709551615.0);
    gguf_close(file);
    buffer_free(&b);
}

static void test_floats_bools_strings(void **state) {
    (void)state;
    layout at;
    buffer b = make_file(2, &at);
    gguf_file *file = open_file(&b);
    double number = 7;
    assert_true(gguf_float(file, "f32", &number));
    assert_true(number == (double)1e-5f);
    assert_true(gguf_float(file, "f64", &number));
    assert_true(number == -0.1);
    assert_false(gguf_float(file, "bool", &number) || gguf_float(file, "string", &number) ||
                 gguf_float(file, "floats", &number));
    assert_true(number == -0.1);
    bool flag = false;
    assert_true(gguf_bool(file, "bool", &flag));
    assert_true(flag);
    assert_false(gguf_bool(file, "u8", &flag) || gguf_bool(file, "absent", &flag) || gguf_bool(file, "bools", &flag));
    gguf_str s;
    assert_true(gguf_string(file, "string", &s));
    assert_str(s, "h\xC3\xA9\n", 4);
    assert_true(gguf_string(file, "empty", &s));
    assert_str(s, "", 0);
    assert_false(gguf_string(file, "strings", &s) || gguf_string(file, "u8", &s));
    gguf_close(file);
    buffer_free(&b);
}

static void test_arrays(void **state) {
    (void)state;
    layout at;
    buffer b = make_file(3, &at);
    gguf_file *file = open_file(&b);
    gguf_value_type type;
    uint64_t n;
    int64_t integer;
    double number;
    gguf_str strings[3];
    assert_true(gguf_array(file, "ints", &type, &n));
    assert_true(type == GGUF_I16 && n == 3);
    assert_true(gguf_array_int(file, gguf_find(file, "ints"), 0, &integer) && integer == -1);
    assert_true(gguf_array_int(file, gguf_find(file, "ints"), 2, &integer) && integer == 32767);
    assert_true(gguf_array_float(file, gguf_find(file, "ints"), 0, &number) && number == -1);
    assert_false(gguf_array_int(file, gguf_find(file, "ints"), 3, &integer));
    assert_false(gguf_array_int(file, gguf_find(file, "ints"), UINT64_MAX, &integer));
    assert_true(gguf_array_float(file, gguf_find(file, "floats"), 1, &number) && number == -2);
    assert_false(gguf_array_int(file, gguf_find(file, "floats"), 1, &integer));
    assert_true(gguf_array_int(file, gguf_find(file, "bools"), 0, &integer) && integer == 0);
    assert_true(gguf_array_int(file, gguf_find(file, "bools"), 1, &integer) && integer == 1);
    assert_false(gguf_array_float(file, gguf_find(file, "bools"), 1, &number));
    assert_true(gguf_array_int(file, gguf_find(file, "wide"), 0, &integer) && integer == 7);
    assert_false(gguf_array_int(file, gguf_find(file, "wide"), 1, &integer));
    assert_true(gguf_array_strings(file, "strings", strings, 3));
    assert_str(strings[0], "a", 1);
    assert_str(strings[1], "", 0);
    assert_str(strings[2], "\xFF", 1);
    assert_false(gguf_array_strings(file, "strings", strings, 2) || gguf_array_strings(file, "ints", strings, 3));
    assert_false(gguf_array_int(file, gguf_find(file, "strings"), 0, &integer) ||
                 gguf_array_float(file, gguf_find(file, "strings"), 0, &number));
    assert_true(gguf_array(file, "none", &type, &n));
    assert_true(type == GGUF_STRING && n == 0);
    assert_true(gguf_array_strings(file, "none", strings, 0));
    assert_false(gguf_array(file, "u8", &type, &n) || gguf_array_int(file, gguf_find(file, "u8"), 0, &integer));
    gguf_close(file);
    buffer_free(&b);
}

static void test_directory(void **state) {
    (void)state;
    layout at;
    buffer b = make_file(3, &at);
    gguf_file *file = open_file(&b);
    uint64_t n_bytes;
    assert_ptr_equal(gguf_data(file, &n_bytes), b.data);
    assert_int_equal(n_bytes, b.len);
    assert_int_equal(gguf_version(file), 3);
    assert_string_equal(gguf_path(file), "(memory)");
    assert_int_equal(gguf_n_kv(file), N_KV);
    assert_int_equal(gguf_find(file, "general.alignment"), 0);
    assert_int_equal(gguf_find(file, "wide"), N_KV - 1);
    assert_int_equal(gguf_find(file, "wid"), -1);
    assert_str(gguf_kv_key(file, 1), "u8", 2);
    assert_int_equal(gguf_kv_type(file, 9), GGUF_F32);

    assert_int_equal(gguf_n_tensors(file), 2);
    const gguf_tensor *first = gguf_find_tensor(file, "first"), *next = gguf_find_tensor(file, "next!");
    assert_ptr_equal(first, gguf_tensor_at(file, 0));
    assert_ptr_equal(next, gguf_tensor_at(file, 1));
    assert_null(gguf_find_tensor(file, "u8"));
    assert_str(first->name, "first", 5);
    assert_string_equal(first->type->name, "F32");
    assert_int_equal(first->n_dims, 2);
    static const int64_t first_dims[] = {3, 2, 1, 1}, next_dims[] = {64, 1, 2, 1};
    assert_memory_equal(first->dims, first_dims, sizeof first_dims);
    assert_int_equal(first->n_bytes, 24);
    assert_ptr_equal(first->data, b.data + at.data);
    assert_true(((const float *)first->data)[5] == 5);
    assert_string_equal(next->type->name, "Q8_0");
    assert_memory_equal(next->dims, next_dims, sizeof next_dims);
    assert_int_equal(next->n_bytes, 4 * 34);
    assert_ptr_equal(next->data, b.data + at.data + 64);
    gguf_close(file);
    buffer_free(&b);
}

static void test_kv_text(void **state) {
    (void)state;
    static const char *const texts[N_KV] = {"64",
                                            "250",
                                            "-3",
                                            "65000",
                                            "-300",
                                            "4000000000",
                                            "-70000",
                                            "18446744073709551615",
                                            "-9223372036854775808",
                                            "1e-05",
                                            "-0.1",
                                            "true",
                                            "h\xC3\xA9\\n",
                                            "",
                                            "i16[3]",
                                            "f32[2]",
                                            "bool[2]",
                                            "string[3]",
                                            "string[0]",
                                            "u64[2]"};
    layout at;
    buffer b = make_file(3, &at);
    gguf_file *file = open_file(&b);
    for (int i = 0; i < N_KV; i++) {
        buffer out = {0};
        buffer_puts(&out, "");
        gguf_kv_text(file, i, &out);
        assert_string_equal(out.data, texts[i]);
        buffer_free(&out);
    }
    gguf_close(file);
    buffer_free(&b);
}

static void test_kv_text_cuts_long_strings(void **state) {
    (void)state;
    buffer b = {0}, out = {0}, want = {0};
    buffer_puts(&b, "GGUF");
    put(&b, 3, 4), put(&b, 0, 8), put(&b, 1, 8);
    put_kv(&b, "long", GGUF_STRING);
    put(&b, 122, 8);
    for (int i = 0; i < 61; i++) buffer_puts(&b, "\xC3\xA9");
    for (int i = 0; i < 60; i++) buffer_puts(&want, "\xC3\xA9");
    buffer_puts(&want, "...");
    gguf_file *file = open_file(&b);
    gguf_kv_text(file, 0, &out);
    assert_string_equal(out.data, want.data);
    assert_int_equal(gguf_n_tensors(file), 0);
    assert_null(gguf_find_tensor(file, "x"));
    gguf_close(file);
    buffer_free(&b), buffer_free(&out), buffer_free(&want);
}

/// More names than the index begins with, and lookups of all of them.
static void test_many_keys(void **state) {
    (void)state;
    buffer b = {0};
    buffer_puts(&b, "GGUF");
    put(&b, 3, 4), put(&b, 0, 8), put(&b, 5000, 8);
    char key[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "blk.%d.key", i);
        put_kv(&b, key, GGUF_I32), put(&b, (uint64_t)i * 3, 4);
    }
    gguf_file *file = open_file(&b);
    for (int i = 0; i < 5000; i++) {
        int64_t value = -1;
        snprintf(key, sizeof key, "blk.%d.key", i);
        assert_true(gguf_int(file, key, &value) && value == i * 3);
        assert_int_equal(gguf_find(file, key), i);
    }
    assert_int_equal(gguf_find(file, "blk.5000.key"), -1);
    gguf_close(file);
    buffer_free(&b);
}

// ----------------------------------------------------------------------------------------------- files on disk

static void test_open_path(void **state) {
    (void)state;
    layout at;
    buffer b = make_file(3, &at);
    char path[] = "/tmp/test_gguf_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, b.data, b.len) == (ssize_t)b.len);
    gguf_file *file;
    logitd_error err;
    assert_int_equal(gguf_open(path, &file, &err), LOGITD_OK);
    assert_string_equal(gguf_path(file), path);
    uint64_t n_bytes;
    assert_memory_equal(gguf_data(file, &n_bytes), b.data, b.len);
    assert_int_equal((uintptr_t)gguf_find_tensor(file, "next!")->data % 64, 0);
    gguf_close(file);

    char want[256];
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(gguf_open(path, &file, &err), LOGITD_EFORMAT);
    assert_null(file);
    snprintf(want, sizeof want, "%s: not a GGUF file but an empty one", path);
    assert_string_equal(err.message, want);
    close(fd);
    unlink(path);
    assert_int_equal(gguf_open(path, &file, &err), LOGITD_EIO);
    snprintf(want, sizeof want, "%s: cannot be opened: No such file or directory", path);
    assert_string_equal(err.message, want);
    assert_int_equal(mkfifo(path, 0600), 0); // a pipe that nobody writes to must not be waited for
    assert_int_equal(gguf_open(path, &file, &err), LOGITD_EFORMAT);
    snprintf(want, sizeof want, "%s: not a GGUF file but a folder or a device", path);
    assert_string_equal(err.message, want);
    unlink(path);
    assert_int_equal(gguf_open("/tmp", &file, &err), LOGITD_EFORMAT);
    assert_string_equal(err.message, "/tmp: not a GGUF file but a folder or a device");
    gguf_close(NULL);
    buffer_free(&b);
}

// --------------------------------------------------------------------------------------------- damaged files

static void test_cut_at_every_byte(void **state) {
    (void)state;
    layout at;
    buffer b = make_file(3, &at);
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
    layout at;
    buffer b = make_file(3, &at);
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
        {16, N_KV + 1, 8, "a tensor name at byte 570 has"}, // the first tensor taken for an entry
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
    layout at;
    buffer b = make_file(3, &at);
    memcpy(b.data + at.second_name, "first", 5);
    gguf_file *file;
    logitd_error err;
    assert_int_equal(gguf_open_memory(b.data, b.len, &file, &err), LOGITD_EFORMAT);
    assert_string_equal(err.message, "(memory): tensor name 'first' occurs twice");
    buffer_free(&b);
    b = make_file(3, &at);
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
    buffer_puts(&b, "GGUF");
    put(&b, 3, 4), put(&b, 0, 8), put(&b, 1, 8);
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
    layout at;
    buffer b = make_file(3, &at);
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
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_floats_bools_strings),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_directory),
        cmocka_unit_test(test_kv_text),
        cmocka_unit_test(test_kv_text_cuts_long_strings),
        cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_open_path),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_names_that_occur_twice),
        cmocka_unit_test(test_names_in_messages),
        cmocka_unit_test(test_random_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
