/*
 * test_http_coding.c: which coding a header asks for, and which type is JSON; that compressed pieces read back to what
 * was written, that a flush makes everything readable, and that no memory is left behind. Both libraries read back what
 * they wrote.
 */
#include "http_accept.h"
#include "http_coding.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

static void the_best_accepted_coding_is_chosen(void **state) {
    (void)state;
    static const struct {
        const char *header;
        content_coding coding;
    } cases[] = {
        {NULL, CODING_IDENTITY},
        {"", CODING_IDENTITY},
        {"identity", CODING_IDENTITY},
        {"gzip", CODING_GZIP},
        {"GZip", CODING_GZIP},
        {"zstd", CODING_ZSTD},
        {"gzip, deflate, br", CODING_GZIP},
        {"gzip, deflate, br, zstd", CODING_ZSTD},
        {"gzip;q=0.9, zstd;q=0.5", CODING_GZIP},
        {"gzip;q=0.5, identity", CODING_IDENTITY},
        {"gzip;q=0.5, identity;q=0.2", CODING_GZIP},
        {"gzip;q=0", CODING_IDENTITY},
        {"gzip;q=0, zstd;q=0, identity;q=0", CODING_IDENTITY}, // nothing is left: as it is
        {"br, deflate", CODING_IDENTITY},
        {"*", CODING_ZSTD},
        {"*;q=0.5, gzip", CODING_GZIP},
        {"zstd;q=0, *", CODING_GZIP},
        {"*;q=0", CODING_IDENTITY},
        {"gzip;q=x", CODING_IDENTITY},
        {",, gzip ;q=1.0 ,", CODING_GZIP},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        content_coding got = coding_accepted(cases[i].header);
        if (got != cases[i].coding) fail_msg("%s: %s", cases[i].header, coding_name(got));
    }
}

static void a_content_type_is_json_or_not(void **state) {
    (void)state;
    static const char *const yes[] = {"application/json", "Application/JSON", "application/json;charset=utf-8",
                                      "application/json; charset=\"UTF-8\"; x=1", "application/json ;x=1"};
    static const char *const no[] = {NULL,
                                     "",
                                     "text/plain",
                                     "application/jsonl",
                                     "application/json, text/plain",
                                     "application/json; charset=latin-1",
                                     "json",
                                     "application/json; charset=utf-80",
                                     "application/json; charset=utf-"};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++)
        if (!content_is_json(yes[i])) fail_msg("%s", yes[i]);
    for (size_t i = 0; i < ARRAY_LEN(no); i++)
        if (content_is_json(no[i])) fail_msg("%s", no[i]);
}

/// Appends what can be read of a compressed stream so far; true at its end.
static bool decode(content_coding coding, const buffer *coded, buffer *out) {
    assert_true(buffer_reserve(out, 4 << 20));
    if (coding == CODING_GZIP) {
        z_stream z = {.next_in = (Bytef *)coded->data, .avail_in = (uInt)coded->len};
        assert_int_equal(inflateInit2(&z, 16 + MAX_WBITS), Z_OK);
        z.next_out = (Bytef *)out->data;
        z.avail_out = (uInt)out->cap;
        int status = inflate(&z, Z_SYNC_FLUSH);
        assert_true(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR);
        out->len = z.total_out;
        inflateEnd(&z);
        return status == Z_STREAM_END;
    }
    ZSTD_DCtx *zstd = ZSTD_createDCtx();
    ZSTD_inBuffer in = {coded->data, coded->len, 0};
    ZSTD_outBuffer read = {out->data, out->cap, 0};
    size_t left = ZSTD_decompressStream(zstd, &read, &in);
    assert_false(ZSTD_isError(left));
    out->len = read.pos;
    ZSTD_freeDCtx(zstd);
    return left == 0;
}

static void pieces_read_back(void **state) {
    (void)state;
    enum { N = 700000 };
    static char text[N];
    for (size_t i = 0; i < N; i++) text[i] = (char)(i % 7 ? i * 2654435761u >> 13 : '{'); // half of it like noise
    for (content_coding coding = CODING_ZSTD; coding < CODING_IDENTITY; coding++) {
        static const size_t sizes[] = {1, 999, 70000, 300000};
        for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
            coder *c = coder_create(coding, k % 2 ? "application/json" : "application/vnd.safetensors");
            buffer coded = {0}, read = {0};
            size_t step = sizes[k] == 1 ? N : sizes[k];
            for (size_t i = 0; i < N; i += step) {
                size_t n = MIN(step, N - i);
                assert_true(coder_write(c, text + i, n, i + n < N ? CODER_MORE : CODER_FINISH, &coded));
            }
            assert_true(decode(coding, &coded, &read));
            assert_int_equal(read.len, N);
            assert_memory_equal(read.data, text, N);
            coder_free(c);
            buffer_free(&coded);
            buffer_free(&read);
        }
    }
}

static void a_flush_makes_all_of_it_readable(void **state) {
    (void)state;
    for (content_coding coding = CODING_ZSTD; coding < CODING_IDENTITY; coding++) {
        coder *c = coder_create(coding, "text/plain");
        buffer coded = {0}, read = {0};
        assert_true(coder_write(c, "", 0, CODER_FLUSH, &coded));
        assert_int_equal(coded.len, 0); // nothing to say yet
        assert_true(coder_write(c, "first line\n", 11, CODER_FLUSH, &coded));
        assert_false(decode(coding, &coded, &read));
        assert_int_equal(read.len, 11);
        assert_memory_equal(read.data, "first line\n", 11);
        size_t len = coded.len;
        assert_true(coder_write(c, "", 0, CODER_FLUSH, &coded));
        assert_int_equal(coded.len, len); // nothing new: nothing sent
        assert_true(coder_write(c, "", 0, CODER_FINISH, &coded));
        assert_true(decode(coding, &coded, &read));
        assert_int_equal(read.len, 11);
        coder_free(c);
        buffer_free(&coded);
        buffer_free(&read);
    }
}

static void an_empty_stream_is_a_stream(void **state) {
    (void)state;
    for (content_coding coding = CODING_ZSTD; coding < CODING_IDENTITY; coding++) {
        coder *c = coder_create(coding, "text/plain");
        buffer coded = {0}, read = {0};
        assert_true(coder_write(c, NULL, 0, CODER_FINISH, &coded));
        assert_true(decode(coding, &coded, &read));
        assert_int_equal(read.len, 0);
        coder_free(c);
        buffer_free(&coded);
        buffer_free(&read);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_accepted_coding_is_chosen), cmocka_unit_test(a_content_type_is_json_or_not),
        cmocka_unit_test(pieces_read_back), cmocka_unit_test(a_flush_makes_all_of_it_readable),
        cmocka_unit_test(an_empty_stream_is_a_stream)};
    size_t held = mem_held();
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    return n_failed || mem_held() != held;
}
