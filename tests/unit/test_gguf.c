/*
 * test_gguf.c: gguf.c on a sound file, in memory and on disk: each getter's values. (Damaged: test_gguf_damaged.c.)
 */
#include "gguf_bytes.h"
#include "gguf_sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    sample_layout at;
    buffer b = sample_make(3, &at);
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
    sample_layout at;
    buffer b = sample_make(2, &at);
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
    sample_layout at;
    buffer b = sample_make(3, &at);
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
    sample_layout at;
    buffer b = sample_make(3, &at);
    gguf_file *file = open_file(&b);
    uint64_t n_bytes;
    assert_ptr_equal(gguf_data(file, &n_bytes), b.data);
    assert_int_equal(n_bytes, b.len);
    assert_int_equal(gguf_version(file), 3);
    assert_string_equal(gguf_path(file), "(memory)");
    assert_int_equal(gguf_n_kv(file), SAMPLE_N_KV);
    assert_int_equal(gguf_find(file, "general.alignment"), 0);
    assert_int_equal(gguf_find(file, "wide"), SAMPLE_N_KV - 1);
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
    static const char *const texts[SAMPLE_N_KV] = {"64",
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
    sample_layout at;
    buffer b = sample_make(3, &at);
    gguf_file *file = open_file(&b);
    for (int i = 0; i < SAMPLE_N_KV; i++) {
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
    put_head(&b, 3, 0, 1);
    put_key(&b, "long", GGUF_STRING);
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
    put_head(&b, 3, 0, 5000);
    char key[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "blk.%d.key", i);
        put_key(&b, key, GGUF_I32), put(&b, (uint64_t)i * 3, 4);
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
    sample_layout at;
    buffer b = sample_make(3, &at);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),  cmocka_unit_test(test_floats_bools_strings),
        cmocka_unit_test(test_arrays),    cmocka_unit_test(test_directory),
        cmocka_unit_test(test_kv_text),   cmocka_unit_test(test_kv_text_cuts_long_strings),
        cmocka_unit_test(test_many_keys), cmocka_unit_test(test_open_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
