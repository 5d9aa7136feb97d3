/*
 * test_enc_json.c: replies as text, from the fake engine's numbers: every member of the contract, streamed and whole
 * the same bytes, both formats, full rows, failures midway; numbers read back to the same bits; how fast it writes.
 */
#include "enc_json.h"
#include "fake_reply.h"
#include "float_text.h"
#include "json_write.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void begin(fake_reply *r, const char *body) {
    fake_reply_begin(r, body);
    fake_reply_submit(r);
}

/// Steps and pulls in turn until the reply ends; returns the last step.
static enc_step pull_all(fake_reply *r, buffer *out) {
    enc_json e = enc_json_start(&r->source);
    for (;;) {
        enc_step step = enc_json_next(&e, out);
        if (step == ENC_END) assert_true(out->len <= enc_json_most_bytes(&r->source));
        if (step == ENC_END || step == ENC_FAILED) return step;
        if (step == ENC_WAIT) assert_true(logitd_step(r->engine) > 0 || logitd_job_state(r->job) == LOGITD_FAILED);
    }
}

static void has(const buffer *text, const char *part) {
    if (!strstr(text->data, part)) fail_msg("no %s in\n%s", part, text->data);
}

/// What a value of the fake engine is, as text.
static const char *logprob_text(int32_t token, int32_t id, double temperature) {
    static char text[32];
    double sum = 0;
    for (int v = 0; v < FAKE_VOCAB; v++) sum += exp((double)fake_logit(token, v) / temperature);
    text[float_text((float)((double)fake_logit(token, id) / temperature - log(sum)), text)] = '\0';
    return text;
}

static void json_has_every_member(void **state) {
    (void)state;
    fake_reply r;
    buffer out = {0};
    begin(&r, "{\"prompt\":\"a\\n\",\"add_bos\":true,\"temperatures\":[0.1,2],\"top_n\":1,\"token_ids\":[258,259]}");
    assert_int_equal(pull_all(&r, &out), ENC_END);
    has(&out,
        "{\"object\":\"distribution\",\"id\":\"id-1\",\"created\":1790000000,\"model\":{\"name\":\"fake "
        "\\\"model\\\"\","
        "\"architecture\":\"fake\",\"n_vocab\":260,\"sha256\":\"00\"},\"numerics\":{\"backend\":\"cpu\",\"precision\":"
        "\"exact\",\"kernel\":\"none\",\"logprob_bound\":3e-04},\"temperatures\":[0.1,2],\"values\":\"logprob\","
        "\"usage\":{\"prompt_tokens\":3,"
        "\"positions\":3},\"results\":[{\"index\":0,\"tokens\":[{\"id\":256,\"text\":\"<bos>\",\"bytes\":[60,98,111,"
        "115,"
        "62],\"offset\":null},{\"id\":97,\"text\":\"a\",\"bytes\":[97],\"offset\":0},{\"id\":10,\"text\":\"\\n\","
        "\"bytes\":"
        "[10],\"offset\":1}],\"summary\":[{\"temperature\":0.1,\"cross_entropy\":");
    has(&out, "\"mean_entropy\":1.5,\"n\":2}]"); // entropy is 0.5 + the temperature's index
    has(&out, "\"positions\":[{\"position\":0,\"token_id\":256,\"logsumexp\":[");
    has(&out, "\"entropy\":[0.5,1.5],\"varentropy\":[null,null],\"next\":{\"id\":97,\"text\":\"a\",\"rank\":");
    has(&out, "\"next\":null,\"top\":[{\"id\":");
    has(&out, "\"token_ids\":[{\"id\":258,\"text\":\" quote\\\"\",\"logprob\":[");
    char part[128], first[32];
    snprintf(first, sizeof first, "%s", logprob_text(97, 259, 0.1));
    snprintf(part, sizeof part, "{\"id\":259,\"text\":\"\",\"logprob\":[%s,%s]}", first, logprob_text(97, 259, 2));
    has(&out, part);
    has(&out, "]}]}],\"timing_ms\":{\"queue\":0.25,\"compute\":1.5}}\n");
    assert_int_equal(out.data[out.len - 1], '\n');
    buffer_free(&out);
    fake_reply_end(&r);
}

static void what_is_not_asked_is_left_out(void **state) {
    (void)state;
    fake_reply r;
    buffer out = {0};
    begin(&r, "{\"prompt\":[[1,2],[3]],\"top_n\":0,\"stats\":false,\"values\":\"logit\",\"token_ids\":[7],"
              "\"positions\":{\"start\":1}}");
    assert_int_equal(pull_all(&r, &out), ENC_END);
    char part[200], logit[32];
    logit[float_text(fake_logit(2, 7), logit)] = '\0';
    snprintf(
        part, sizeof part,
        "\"offset\":null}],\"positions\":[{\"position\":1,\"token_id\":2,\"top\":[],\"token_ids\":[{\"id\":7,\"text\":"
        "\"\\u0007\",\"logit\":%s}]}]},{\"index\":1,",
        logit);
    has(&out, part);
    has(&out, "\"positions\":[]}],\"timing_ms\"");
    assert_null(strstr(out.data, "summary"));
    assert_null(strstr(out.data, "entropy"));
    assert_null(strstr(out.data, "next"));
    buffer_free(&out);
    fake_reply_end(&r);
}

static void ndjson_lines_come_in_order(void **state) {
    (void)state;
    static const char *const starts[] = {"{\"object\":",
                                         "{\"index\":0,\"tokens\":[",
                                         "{\"index\":0,\"position\":0,",
                                         "{\"index\":0,\"position\":1,",
                                         "{\"index\":0,\"summary\":[",
                                         "{\"index\":1,\"tokens\":[",
                                         "{\"index\":1,\"position\":0,",
                                         "{\"index\":1,\"summary\":[",
                                         "{\"timing_ms\":"};
    fake_reply r;
    buffer out = {0};
    fake.step_tokens = 1;
    begin(&r, "{\"prompt\":[\"ab\",\"c\"],\"format\":\"ndjson\"}");
    enc_json e = enc_json_start(&r.source);
    assert_int_equal(enc_json_next(&e, &out), ENC_WAIT);
    assert_int_equal(out.len, 0); // nothing before the first row: a failure can still be a status
    logitd_step(r.engine);
    while (enc_json_next(&e, &out) == ENC_MORE) {
    }
    has(&out, "\"position\":0"); // early: one row of three is there
    assert_null(strstr(out.data, "\"position\":1"));
    out.len = 0;
    assert_int_equal(pull_all(&r, &out), ENC_END);
    size_t i = 0;
    for (const char *line = out.data; *line; line = strchr(line, '\n') + 1, i++) {
        assert_true(i < ARRAY_LEN(starts));
        if (strncmp(line, starts[i], strlen(starts[i])) != 0) fail_msg("line %zu is %.60s", i, line);
    }
    assert_int_equal(i, ARRAY_LEN(starts));
    buffer_free(&out);
    fake_reply_end(&r);
}

static void a_failure_midway_is_the_last_line(void **state) {
    (void)state;
    fake_reply r;
    buffer out = {0};
    fake.step_tokens = 1;
    fake.fail_after = 3;
    begin(&r, "{\"prompt\":\"abcdef\",\"format\":\"ndjson\"}");
    assert_int_equal(pull_all(&r, &out), ENC_END);
    has(&out, "\"position\":1");
    has(&out, "\n{\"error\":{\"message\":\"the fake device "
              "failed\",\"type\":\"busy\",\"param\":null,\"code\":\"unavailable\"}}\n");
    assert_int_equal(out.data[out.len - 2], '}');
    assert_null(strstr(out.data, "timing_ms"));
    fake_reply_end(&r);
    out.len = 0;

    fake.fail_after = 1; // before anything is written: the caller's to say
    begin(&r, "{\"prompt\":\"abcdef\",\"format\":\"ndjson\"}");
    assert_int_equal(pull_all(&r, &out), ENC_FAILED);
    assert_int_equal(out.len, 0);
    buffer_free(&out);
    fake_reply_end(&r);
}

static void full_rows_hold_every_value(void **state) {
    (void)state;
    fake_reply r;
    buffer out = {0}, wanted = {0};
    begin(&r, "{\"prompt\":\"abc\",\"top_n\":\"full\",\"temperatures\":[1,3]}");
    assert_int_equal(pull_all(&r, &out), ENC_END);
    buffer_puts(&wanted, "\"full\":[[");
    for (int t = 1; t <= 3; t += 2) {
        for (int v = 0; v < FAKE_VOCAB; v++) buffer_printf(&wanted, "%s%s", v ? "," : "", logprob_text('b', v, t));
        buffer_puts(&wanted, t == 1 ? "],[" : "]],\"token_ids\":[]}");
    }
    has(&out, wanted.data);
    assert_null(strstr(out.data, "\"top\""));
    fake_reply_end(&r);

    out.len = wanted.len = 0;
    begin(&r, "{\"prompt\":\"abc\",\"top_n\":\"full\",\"values\":\"logit\",\"temperatures\":[1,3]}");
    assert_int_equal(pull_all(&r, &out), ENC_END);
    buffer_puts(&wanted, "\"full\":[[");
    for (int v = 0; v < FAKE_VOCAB; v++) {
        if (v) buffer_puts(&wanted, ",");
        json_float(&wanted, fake_logit('c', v));
    }
    buffer_puts(&wanted, "]],\"token_ids\":[]}],\"summary\":[{\"temperature\":1,"); // known when all rows are
    has(&out, wanted.data);
    fake_reply_end(&r);

    out.len = 0;
    fake.project_fails_at_row = 1;
    begin(&r, "{\"prompt\":\"abc\",\"top_n\":\"full\"}");
    assert_int_equal(pull_all(&r, &out), ENC_FAILED); // JSON cannot say it: the connection is cut
    fake_reply_end(&r);
    buffer_free(&out);
    buffer_free(&wanted);
}

static void floats_read_back_to_the_same_bits(void **state) {
    (void)state;
    static const uint32_t edges[] = {0x00000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF,
                                     0x80000000, 0x3DCCCCCD, 0x80800001};
    uint32_t bits = 12345;
    for (int i = 0; i < 200000; i++) {
        bits = i < (int)ARRAY_LEN(edges) ? edges[i] : bits * 1664525u + 1013904223u;
        float value, back;
        memcpy(&value, &bits, sizeof value);
        char text[FLOAT_TEXT_BYTES + 1];
        size_t n = float_text(value, text);
        assert_true(n <= FLOAT_TEXT_BYTES);
        text[n] = '\0';
        if (!isfinite(value)) {
            assert_string_equal(text, "null");
            continue;
        }
        back = strtof(text, NULL);
        assert_memory_equal(&back, &value, sizeof value);
    }
    char text[DOUBLE_TEXT_BYTES];
    assert_int_equal(double_text(-2.2250738585072014e-308, text), 24);
    assert_int_equal(double_text(0.1, text), 3);
}

static void strings_are_always_valid(void **state) {
    (void)state;
    buffer out = {0};
    static const char text[] = "a\"\\\b\f\n\r\t\x01\x7f\xc3\xa9\xff\xe2\x82z";
    json_string(&out, text, sizeof text - 1);
    json_cstring(&out, NULL);
    json_int(&out, INT64_MIN);
    json_bytes(&out, (const uint8_t *)"\0\xff", 2);
    assert_string_equal(
        out.data, "\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007f\xc3\xa9\xef\xbf\xbd\xef\xbf\xbdz\"null-9223372036854775808"
                  "[0,255]");
    buffer_free(&out);
}

/// Top 20 of 4,096 positions: printed, not asserted, since the machine may be busy.
static void encodes_fast(void **state) {
    (void)state;
    char body[4200] = "{\"prompt\":\"";
    size_t len = strlen(body);
    for (uint32_t i = 0; i < 4096; i++) body[len++] = (char)('a' + (i * 2654435761u >> 16) % 26);
    memcpy(body + len, "\"}", 3);
    fake_reply r;
    buffer out = {0};
    fake.step_tokens = 4096;
    begin(&r, body);
    while (logitd_job_state(r.job) == LOGITD_RUNNING) logitd_step(r.engine);
    for (int i = 0; i < 3; i++) {
        out.len = 0;
        int64_t start_us = clock_us();
        assert_int_equal(pull_all(&r, &out), ENC_END);
        int64_t us = clock_us() - start_us;
        print_message("top 20 of 4096 positions: %zu bytes in %.1f ms, %.0f MB/s\n", out.len, (double)us / 1000,
                      (double)out.len / (double)us);
    }
    buffer_free(&out);
    fake_reply_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_every_member),      cmocka_unit_test(what_is_not_asked_is_left_out),
        cmocka_unit_test(ndjson_lines_come_in_order), cmocka_unit_test(a_failure_midway_is_the_last_line),
        cmocka_unit_test(full_rows_hold_every_value), cmocka_unit_test(floats_read_back_to_the_same_bits),
        cmocka_unit_test(strings_are_always_valid),   cmocka_unit_test(encodes_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
