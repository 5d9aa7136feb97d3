/*
 * test_enc_safetensors.c: the bytes of a safetensors reply from the fake engine's numbers: the size that was promised,
 * when it starts and waits, failures midway, every value in its place; and float16 against arithmetic on halves. That a
 * reader of the format takes it is tests/test_server_safetensors.py's.
 */
#include "enc_safetensors.h"
#include "fake_reply.h"
#include "float16.h"
#include "safetensors_head.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/// Returns the size that was promised before the job was there.
static uint64_t begin(fake_reply *r, const char *body) {
    fake_reply_begin(r, body);
    const uint64_t n = enc_safetensors_bytes(&r->source);
    fake_reply_submit(r);
    return n;
}

static enc_step pull_all(fake_reply *r, buffer *out, enc_safetensors *e) {
    for (;;) {
        enc_step step = enc_safetensors_next(e, out);
        if (step == ENC_END || step == ENC_FAILED) return step;
        if (step == ENC_WAIT) assert_true(logitd_step(r->engine) > 0 || logitd_job_state(r->job) != LOGITD_RUNNING);
    }
}

/// The values of a tensor in a file, found by its name in the head.
static const void *tensor(const buffer *file, const char *name, size_t n_bytes) {
    uint64_t size;
    char key[80];
    memcpy(&size, file->data, sizeof size);
    snprintf(key, sizeof key, "\"%s\":{", name);
    const char *at = strstr(file->data + 8, key);
    if (!at) fail_msg("no %s", key);
    at = strstr(at, "\"data_offsets\":[") + strlen("\"data_offsets\":[");
    char *comma;
    uint64_t start = strtoull(at, &comma, 10), stop = strtoull(comma + 1, NULL, 10);
    assert_int_equal(stop - start, n_bytes);
    assert_true(8 + size + stop <= file->len);
    return file->data + 8 + size + start;
}

static void the_size_is_known_before_the_work(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "{\"prompt\":\"abc\",\"format\":\"safetensors\"}",
        "{\"prompt\":[\"abc\",\"d\"],\"format\":\"safetensors\",\"top_n\":\"full\",\"temperatures\":[1,2]}",
        "{\"prompt\":\"abc\",\"format\":\"safetensors\",\"top_n\":\"full\",\"dtype\":\"float16\",\"token_ids\":[1]}",
        "{\"prompt\":\"abc\",\"format\":\"safetensors\",\"top_n\":0,\"stats\":false}",
        "{\"prompt\":\"abc\",\"format\":\"safetensors\",\"positions\":[],\"values\":\"logit\"}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        fake_reply r;
        buffer out = {0};
        uint64_t n = begin(&r, bodies[i]);
        enc_safetensors e = enc_safetensors_start(&r.source);
        assert_int_equal(pull_all(&r, &out, &e), ENC_END);
        assert_int_equal(out.len, n);
        buffer_free(&out);
        fake_reply_end(&r);
    }
}

static void values_are_in_their_places(void **state) {
    (void)state;
    fake_reply r;
    buffer out = {0};
    begin(&r, "{\"prompt\":[\"ab\",\"c\"],\"format\":\"safetensors\",\"top_n\":\"full\",\"temperatures\":[0.5,2],"
              "\"values\":\"logprob\",\"token_ids\":[7,9],\"positions\":[-1,0]}");
    enc_safetensors e = enc_safetensors_start(&r.source);
    assert_int_equal(pull_all(&r, &out, &e), ENC_END);
    float full[2][2][FAKE_VOCAB], listed[2][2][2], logprob[2][2], row[FAKE_VOCAB];
    int32_t positions[2], rank[2];
    memcpy(full, tensor(&out, "prompt.0.logprob", sizeof full), sizeof full);
    memcpy(listed, tensor(&out, "prompt.0.listed_logprob", sizeof listed), sizeof listed);
    memcpy(logprob, tensor(&out, "prompt.0.next_logprob", sizeof logprob), sizeof logprob);
    memcpy(positions, tensor(&out, "prompt.0.positions", sizeof positions), sizeof positions);
    memcpy(rank, tensor(&out, "prompt.0.next_rank", sizeof rank), sizeof rank);
    assert_int_equal(positions[0], 1);
    assert_int_equal(positions[1], 0);
    assert_int_equal(rank[0], -1);
    assert_true(rank[1] >= 0 && isnan(logprob[0][0]) && isnan(logprob[0][1]));
    for (int i = 0; i < 2; i++) {
        float logits[FAKE_VOCAB];
        for (int v = 0; v < FAKE_VOCAB; v++) logits[v] = fake_logit(i == 0 ? 'b' : 'a', v);
        for (int t = 0; t < 2; t++) {
            logitd_row_values(r.job, 0, i, t, logits, FAKE_VOCAB, row);
            assert_memory_equal(full[i][t], row, sizeof row);
            assert_memory_equal(&listed[i][t][0], &row[7], sizeof(float));
            assert_memory_equal(&listed[i][t][1], &row[9], sizeof(float));
            if (i == 1) assert_memory_equal(&logprob[i][t], &row['b'], sizeof(float));
        }
    }
    buffer_free(&out);
    fake_reply_end(&r);
}

static void it_starts_with_the_first_row(void **state) {
    (void)state;
    fake_reply r;
    buffer out = {0};
    fake.step_tokens = 1;
    begin(&r, "{\"prompt\":\"abc\",\"format\":\"safetensors\",\"top_n\":\"full\"}");
    enc_safetensors e = enc_safetensors_start(&r.source);
    assert_int_equal(enc_safetensors_next(&e, &out), ENC_WAIT);
    assert_int_equal(out.len, 0); // a failure can still be a status
    logitd_step(r.engine);
    assert_int_equal(enc_safetensors_next(&e, &out), ENC_MORE);
    size_t n_head = out.len;
    assert_int_equal(n_head % 8, 0);
    assert_int_equal(enc_safetensors_next(&e, &out), ENC_WAIT);
    assert_int_equal(out.len - n_head, FAKE_VOCAB * sizeof(float)); // one row of three
    assert_int_equal(pull_all(&r, &out, &e), ENC_END);
    buffer_free(&out);
    fake_reply_end(&r);
}

static void failures_cut_the_reply(void **state) {
    (void)state;
    fake_reply r;
    buffer out = {0};
    fake.step_tokens = 1;
    fake.fail_after = 1; // before the first row: nothing is written
    begin(&r, "{\"prompt\":\"abcdef\",\"format\":\"safetensors\"}");
    enc_safetensors e = enc_safetensors_start(&r.source);
    assert_int_equal(pull_all(&r, &out, &e), ENC_FAILED);
    assert_int_equal(out.len, 0);
    assert_string_equal(e.error.message, "the fake device failed");
    fake_reply_end(&r);

    fake.step_tokens = 1;
    fake.fail_after = 3;
    uint64_t n = begin(&r, "{\"prompt\":\"abcdef\",\"format\":\"safetensors\"}");
    e = enc_safetensors_start(&r.source);
    assert_int_equal(pull_all(&r, &out, &e), ENC_FAILED);
    assert_true(out.len > 0 && out.len < n);
    fake_reply_end(&r);

    out.len = 0;
    fake.project_fails_at_row = 2;
    begin(&r, "{\"prompt\":\"abcdef\",\"format\":\"safetensors\",\"top_n\":\"full\"}");
    e = enc_safetensors_start(&r.source);
    assert_int_equal(pull_all(&r, &out, &e), ENC_FAILED);
    assert_string_equal(e.error.message, "no more rows");
    buffer_free(&out);
    fake_reply_end(&r);
}

// ------------------------------------------------------------------------------------------------------- float16

/// The value of a positive half, from its definition; 0x7C00 counts as the value that would come next, 65536.
static double half_value(int bits) {
    int exponent = bits >> 10, fraction = bits & 0x3FF;
    return exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
}

static uint16_t half(float value) {
    uint16_t bits;
    float16_from(&value, 1, &bits);
    return bits;
}

static void halves_are_the_nearest(void **state) {
    (void)state;
    for (int h = 0; h < 0x7C00; h++) {
        double middle = (half_value(h) + half_value(h + 1)) / 2; // exact in float32
        int even = h % 2 == 0 ? h : h + 1;
        assert_int_equal(half((float)half_value(h)), h);
        assert_int_equal(half((float)-half_value(h)), h | 0x8000);
        assert_int_equal(half((float)middle), even);
        assert_int_equal(half(nextafterf((float)middle, 0)), h);
        assert_int_equal(half(nextafterf((float)middle, INFINITY)), h + 1);
    }
    assert_int_equal(half(INFINITY), 0x7C00);
    assert_int_equal(half(-1e30f), 0xFC00);
    assert_int_equal(half(NAN) & 0x7FFF, 0x7E00);
    assert_int_equal(half(1e-40f), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_size_is_known_before_the_work),
        cmocka_unit_test(values_are_in_their_places),
        cmocka_unit_test(it_starts_with_the_first_row),
        cmocka_unit_test(failures_cut_the_reply),
        cmocka_unit_test(halves_are_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
