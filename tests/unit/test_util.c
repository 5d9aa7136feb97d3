/* util.c: values of every function, limits, and what Python says of the same bytes. */
#include "sha256.h"
#include "util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// ------------------------------------------------------------------------------------------------------ errors

static void test_error_set(void **state) {
    (void)state;
    logitd_error err = {.param = "left over"};
    assert_int_equal(error_set(&err, LOGITD_EIO, "file %s, line %d", "a", 3), LOGITD_EIO);
    assert_int_equal(err.status, LOGITD_EIO);
    assert_string_equal(err.message, "file a, line 3");
    assert_string_equal(err.param, "");
    assert_int_equal(error_set_param(&err, LOGITD_EINVAL, "prompt[3]", "is empty"), LOGITD_EINVAL);
    assert_string_equal(err.param, "prompt[3]");
    assert_string_equal(err.message, "is empty");
    assert_int_equal(error_set(NULL, LOGITD_ENOMEM, "nobody listens"), LOGITD_ENOMEM);
}

static void test_error_set_may_quote_itself(void **state) {
    (void)state;
    logitd_error err;
    error_set(&err, LOGITD_EFORMAT, "inner");
    error_set_param(&err, err.status, "model", "outer: %s", err.message);
    assert_string_equal(err.message, "outer: inner");
}

static void test_error_set_cuts_between_characters(void **state) {
    (void)state;
    static const char *const characters[] = {"a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
    logitd_error err;
    for (size_t c = 0; c < ARRAY_LEN(characters); c++) {
        size_t n = strlen(characters[c]);
        for (size_t lead = 0; lead < n; lead++) { // so that the end falls on every byte of the character
            buffer text = {0};
            for (size_t i = 0; i < lead; i++) buffer_puts(&text, "x");
            for (int i = 0; i < 600; i++) buffer_puts(&text, characters[c]);
            error_set(&err, LOGITD_EINVAL, "%s", text.data);
            size_t len = strlen(err.message);
            assert_int_equal(len, lead + (sizeof err.message - 1 - lead) / n * n);
            assert_memory_equal(err.message, text.data, len);
            buffer_free(&text);
        }
    }
}

static void test_error_list_choices(void **state) {
    (void)state;
    static const char *const names[] = {"a", "bc", "d"};
    static const char *const lists[] = {"", "\"a\"", "\"a\" or \"bc\"", "\"a\", \"bc\" or \"d\""};
    char out[20], small[8];
    for (size_t n = 0; n < ARRAY_LEN(lists); n++) {
        assert_ptr_equal(error_list_choices(names, n, out, sizeof out), out);
        assert_string_equal(out, lists[n]);
    }
    assert_string_equal(error_list_choices(names, 3, small, sizeof small), "\"a\", \"b");
}

static void test_assert_aborts(void **state) {
    (void)state;
    ASSERT(1 + 1 == 2);
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(0);
        ASSERT(1 + 1 == 3);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

// ------------------------------------------------------------------------------------------------------ memory

static void test_mem_alloc(void **state) {
    (void)state;
    for (size_t n = 0; n < 300; n += 7) {
        uint8_t *memory = mem_alloc(n, 3);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 64, 0);
        for (size_t i = 0; i < 3 * n; i++) assert_int_equal(memory[i], 0);
        memset(memory, 0xFF, 3 * n);
        mem_free(memory);
    }
    mem_free(NULL);
    assert_null(mem_alloc(SIZE_MAX / 2, 3));
    assert_null(mem_alloc(SIZE_MAX - 10, 1));
}

static void test_arena(void **state) {
    (void)state;
    arena a = {0};
    static const size_t sizes[] = {1, 64, 65, 4000, 70000, 0, 200000, 3};
    uint8_t *memory[ARRAY_LEN(sizes) * 20];
    size_t wanted = 0, before = mem_held();
    for (size_t i = 0; i < ARRAY_LEN(memory); i++) {
        size_t n = sizes[i % ARRAY_LEN(sizes)];
        memory[i] = arena_alloc(&a, n, 1);
        assert_non_null(memory[i]);
        assert_int_equal((uintptr_t)memory[i] % 64, 0);
        for (size_t j = 0; j < n; j++) assert_int_equal(memory[i][j], 0);
        memset(memory[i], (int)i + 1, n);
        wanted += n;
    }
    for (size_t i = 0; i < ARRAY_LEN(memory); i++) { // nothing overlaps
        for (size_t j = 0; j < sizes[i % ARRAY_LEN(sizes)]; j++) assert_int_equal(memory[i][j], (uint8_t)(i + 1));
    }
    assert_true(mem_held() - before >= wanted);
    assert_string_equal(arena_strdup(&a, "text"), "text");
    assert_null(arena_alloc(&a, SIZE_MAX / 2, 3));
    assert_null(arena_alloc(&a, SIZE_MAX, 1));
    arena_free(&a);
    assert_null(a.head);
    assert_int_equal(mem_held(), before);
    assert_string_equal(arena_strdup(&a, "again"), "again");
    arena_free(&a);
}

static void test_buffer(void **state) {
    (void)state;
    buffer b = {0};
    buffer_puts(&b, "");
    assert_string_equal(b.data, "");
    buffer_puts(&b, "one");
    buffer_append(&b, "\0two", 4);
    assert_int_equal(b.len, 7);
    assert_memory_equal(b.data, "one\0two", 8);
    for (int i = 0; i < 1000; i++) buffer_printf(&b, " %d-%s", i, "x");
    assert_int_equal(b.len, 7 + 10 * 4 + 90 * 5 + 900 * 6);
    assert_memory_equal(b.data + b.len - 6, " 999-x", 7);
    assert_true(buffer_reserve(&b, 1 << 20));
    assert_true(b.cap - b.len > 1 << 20);
    assert_false(b.failed);
    buffer_free(&b);
    assert_null(b.data);
}

static void test_buffer_fails_for_good(void **state) {
    (void)state;
    buffer b = {0};
    buffer_puts(&b, "kept");
    assert_false(buffer_reserve(&b, SIZE_MAX));
    assert_true(b.failed);
    buffer_puts(&b, " not");
    buffer_printf(&b, " %d", 1);
    assert_string_equal(b.data, "kept");
    assert_int_equal(b.len, 4);
    buffer_free(&b);
}

static void test_cursor(void **state) {
    (void)state;
    static const uint8_t bytes[] = {0x01, 0x02, 0x03, 0xF4, 0xF3, 0xF2, 0xF1,                    // u8 u16 u32
                                    0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x81,              // u64
                                    0x00, 0x00, 0xC0, 0xBF,                                      // -1.5f
                                    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x40, 0xAA, 0xBB}; // 2.5
    cursor c = cursor_make(bytes, sizeof bytes);
    assert_int_equal(cursor_u8(&c), 0x01);
    assert_int_equal(cursor_u16(&c), 0x0302);
    assert_int_equal(cursor_u32(&c), 0xF1F2F3F4);
    assert_true(cursor_u64(&c) == 0x8102030405060708);
    assert_true(cursor_f32(&c) == -1.5f);
    assert_true(cursor_f64(&c) == 2.5);
    assert_int_equal(cursor_offset(&c), 27);
    assert_ptr_equal(cursor_take(&c, 2), bytes + 27);
    assert_non_null(cursor_take(&c, 0));
    assert_false(c.failed);
    assert_int_equal(cursor_u8(&c), 0);
    assert_true(c.failed);
    assert_null(cursor_take(&c, 0)); // once failed, always failed
}

static void test_cursor_past_the_end(void **state) {
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3};
    cursor c = cursor_make(bytes, sizeof bytes);
    assert_int_equal(cursor_u32(&c), 0);
    assert_true(c.failed);
    assert_int_equal(cursor_offset(&c), 0);
    c = cursor_make(bytes, sizeof bytes);
    assert_null(cursor_take(&c, UINT64_MAX));
    c = cursor_make(NULL, 0);
    assert_false(c.failed);
    assert_int_equal(cursor_u64(&c), 0);
    assert_true(c.failed);
}

// ------------------------------------------------------------------------------------------------------- UTF-8

static int encode(uint32_t c, uint8_t out[4]) {
    if (c < 0x80) return out[0] = (uint8_t)c, 1;
    if (c < 0x800) return out[0] = (uint8_t)(0xC0 | c >> 6), out[1] = (uint8_t)(0x80 | (c & 63)), 2;
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12), out[1] = (uint8_t)(0x80 | (c >> 6 & 63)),
        out[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | c >> 18), out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 63)), out[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

static void test_utf8_every_character(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 0x200000; c++) {
        uint8_t text[4];
        int n = encode(c, text);
        bool valid = c < 0xD800 || (c > 0xDFFF && c < 0x110000);
        if (utf8_char_len(text, 4) != (valid ? n : 0)) fail_msg("U+%04X", c);
        if (n > 1 && utf8_char_len(text, (size_t)n - 1) != 0) fail_msg("U+%04X cut", c);
    }
    assert_int_equal(utf8_char_len((const uint8_t *)"", 0), 0);
    static const char *const overlong[] = {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF"};
    for (size_t i = 0; i < ARRAY_LEN(overlong); i++) {
        assert_int_equal(utf8_char_len((const uint8_t *)overlong[i], strlen(overlong[i])), 0);
    }
}

static void test_utf8_first_invalid(void **state) {
    (void)state;
    assert_int_equal(utf8_first_invalid("", 0), 0);
    assert_int_equal(utf8_first_invalid("abc", 3), 3);
    assert_int_equal(utf8_first_invalid("a\0\xC3\xA9", 4), 4);
    assert_int_equal(utf8_first_invalid("ab\xFFzz", 5), 2);
    assert_int_equal(utf8_first_invalid("\xE2\x82\xAC\xE2\x82", 5), 3);
    assert_int_equal(utf8_first_invalid("a\xED\xA0\x80", 4), 1);
}

/// Right sides are Python's bytes.decode("utf-8", "replace"), R being U+FFFD.
static void test_utf8_append_lossy(void **state) {
    (void)state;
#define R "\xEF\xBF\xBD"
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"plain \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "plain \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"},
        {"\x80", R},
        {"a\xC3", "a" R},
        {"\xC3\x28", R "("},
        {"\xE2\x82", R},
        {"\xE2\x28\xA1", R "(" R},
        {"\xE0\x80\x80", R R R},
        {"\xED\xA0\x80", R R R},
        {"\xF0\x9F\x98", R},
        {"\xF0\x9F\x41", R "A"},
        {"\xF0\x80\x80\x80", R R R R},
        {"\xF4\x90\x80\x80", R R R R},
        {"\xF5\x80\xFF", R R R},
        {"\xC0\xAF", R R},
        {"\xF1\x80\x80\xE1\x80\xC2x", R R R "x"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buffer out = {0};
        buffer_puts(&out, ">");
        utf8_append_lossy(&out, cases[i].bytes, strlen(cases[i].bytes));
        assert_string_equal(out.data + 1, cases[i].text);
        buffer_free(&out);
    }
}

// ----------------------------------------------------------------------------------------------- clock and log

static void test_clock(void **state) {
    (void)state;
    int64_t before = clock_us();
    usleep(2000);
    int64_t passed = clock_us() - before;
    assert_true(passed >= 2000 && passed < 10000000);
}

static void test_log_line(void **state) {
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    log_threshold = LOG_WARN;
    log_line(LOG_INFO, "not this");
    log_line(LOG_WARN, "but %s", "this");
    log_threshold = LOG_INFO;
    dup2(kept, STDERR_FILENO);
    close(kept);
    char text[256] = "";
    rewind(file);
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    assert_int_equal(n, strlen("2026-01-01 00:00:00.000 warning: but this\n"));
    assert_string_equal(text + strlen("2026-01-01 00:00:00.000"), " warning: but this\n");
}

/// FIPS 180-2, appendix B, and the empty text.
static void test_sha256(void **state) {
    (void)state;
    char hex[65];
    sha256_hex("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_hex("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

/// More bytes than a thread takes at once, by a million of 'a' (FIPS 180-2, B.3) and by the same as one block.
static void test_sha256_in_a_thread(void **state) {
    (void)state;
    enum { MILLION = 1000000, N = 9 * MILLION + 1 };
    char *text = mem_alloc(N, 1), hex[65], whole[65];
    assert_non_null(text);
    memset(text, 'a', MILLION);
    sha256_finish(sha256_start(text, MILLION), hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    for (int i = 0; i < N; i++) text[i] = (char)(i % 251);
    sha256_hex(text, N, whole);
    sha256_finish(sha256_start(text, N), hex);
    assert_string_equal(hex, whole);
    sha256_finish(sha256_start(text, 0), hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_cancel(sha256_start(text, N)); // the sanitizers see what is read or kept after it
    sha256_cancel(NULL);
    mem_free(text);
}

static void test_cpu_count(void **state) {
    (void)state;
    int count = util_cpu_count();
    assert_true(count >= 1);
    pid_t child = fork();
    if (child == 0) { // pinned to one processor, it counts one
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)sched_getcpu(), &set);
        _exit(sched_setaffinity(0, sizeof set, &set) == 0 && util_cpu_count() != 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_memory_is_counted(void **state) {
    (void)state;
    size_t before = mem_held();
    void *a = mem_alloc(1000, 1), *b = mem_alloc_plain(5000);
    buffer text = {0};
    for (int i = 0; i < 10000; i++) buffer_puts(&text, "0123456789");
    arena pool = {0};
    assert_non_null(arena_alloc(&pool, 300000, 1));
    size_t held = mem_held() - before;
    assert_in_range(held, 1000 + 5000 + 100001 + 300000, 2 * (1000 + 5000 + 131072 + 300000));
    mem_free(a);
    mem_free_plain(b);
    mem_free(NULL);
    mem_free_plain(NULL);
    buffer_free(&text);
    arena_free(&pool);
    assert_int_equal(mem_held(), before);
}

static void test_memory_has_a_ceiling(void **state) {
    (void)state;
    const size_t MIB = 1 << 20, before = mem_held();
    assert_false(mem_is_scarce());
    mem_set_ceiling(before + 8 * MIB);
    void *most = mem_alloc(6 * MIB, 1);
    assert_non_null(most);
    assert_false(mem_is_scarce());
    assert_null(mem_alloc(2 * MIB, 1));
    assert_null(mem_alloc_plain(2 * MIB));
    buffer text = {0};
    assert_true(buffer_reserve(&text, MIB + MIB / 2));
    assert_true(mem_is_scarce()); // less than 1 MiB is left
    buffer_puts(&text, "kept");
    assert_false(buffer_reserve(&text, 3 * MIB));
    assert_string_equal(text.data, "kept");
    mem_free(most);
    buffer_free(&text);
    assert_int_equal(mem_held(), before); // what was refused is not counted
    assert_false(mem_is_scarce());
    most = mem_alloc(7 * MIB, 1);
    assert_non_null(most);
    mem_free(most);
    mem_set_ceiling(SIZE_MAX);
}

static void test_machine_bytes(void **state) {
    (void)state;
    assert_in_range(util_machine_bytes(), 64 << 20,
                    (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
#ifdef __SANITIZE_THREAD__ // whose shadow of the pages is resident too
    const size_t n = 64 << 20, most = 8 * n;
#else
    const size_t n = 64 << 20, most = n + n / 2;
#endif
    uint64_t before = util_resident_bytes();
    char *pages = mem_alloc(n, 1);
    memset(pages, 1, n);
    assert_in_range(util_resident_bytes() - before, n - n / 8, most);
    mem_free(pages);
}

static void write_text(const char *folder, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void make_folder(const char *folder, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void test_cgroup_bytes(void **state) {
    (void)state;
    char folder[] = "/tmp/logitd_cgroup_XXXXXX", membership[64];
    assert_non_null(mkdtemp(folder));
    snprintf(membership, sizeof membership, "%s/self", folder);
    assert_true(util_cgroup_bytes(membership, folder) == UINT64_MAX); // no such file
    write_text(folder, "self", "2:cpu,cpuacct:/\n0::/system.slice/logitd.service\n");
    assert_true(util_cgroup_bytes(membership, folder) == UINT64_MAX); // nor a limit
    make_folder(folder, "system.slice");
    make_folder(folder, "system.slice/logitd.service");
    write_text(folder, "system.slice/logitd.service/memory.max", "1000000\n");
    assert_int_equal(util_cgroup_bytes(membership, folder), 1000000);
    write_text(folder, "system.slice/memory.max", "300000\n"); // of the group above
    assert_int_equal(util_cgroup_bytes(membership, folder), 300000);
    write_text(folder, "system.slice/memory.max", "max\n");
    write_text(folder, "memory.max", "200000\n"); // in a container its own group is the mount
    assert_int_equal(util_cgroup_bytes(membership, folder), 200000);
    write_text(folder, "self", "9:name=systemd:/\n4:hugetlb,memory:/docker/x\n0::/\n");
    make_folder(folder, "memory");
    write_text(folder, "memory/memory.limit_in_bytes", "100000\n"); // version 1, its group not mounted
    assert_int_equal(util_cgroup_bytes(membership, folder), 100000);
    write_text(folder, "memory.max", "50000\n");
    assert_int_equal(util_cgroup_bytes(membership, folder), 50000);
    const char *const made[] = {"self",
                                "memory.max",
                                "memory/memory.limit_in_bytes",
                                "memory",
                                "system.slice/memory.max",
                                "system.slice/logitd.service/memory.max",
                                "system.slice/logitd.service",
                                "system.slice"};
    for (size_t i = 0; i < ARRAY_LEN(made); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, made[i]);
        assert_int_equal(remove(path), 0);
    }
    assert_int_equal(rmdir(folder), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_set),
        cmocka_unit_test(test_error_set_may_quote_itself),
        cmocka_unit_test(test_error_set_cuts_between_characters),
        cmocka_unit_test(test_error_list_choices),
        cmocka_unit_test(test_assert_aborts),
        cmocka_unit_test(test_mem_alloc),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_buffer),
        cmocka_unit_test(test_buffer_fails_for_good),
        cmocka_unit_test(test_cursor),
        cmocka_unit_test(test_cursor_past_the_end),
        cmocka_unit_test(test_utf8_every_character),
        cmocka_unit_test(test_utf8_first_invalid),
        cmocka_unit_test(test_utf8_append_lossy),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_log_line),
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_sha256_in_a_thread),
        cmocka_unit_test(test_cpu_count),
        cmocka_unit_test(test_memory_is_counted),
        cmocka_unit_test(test_memory_has_a_ceiling),
        cmocka_unit_test(test_machine_bytes),
        cmocka_unit_test(test_cgroup_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
