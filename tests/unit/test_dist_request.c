/*
 * test_dist_request.c: the fields of POST /distribution against the fake model of fake_engine.h (260 tokens, one a
 * byte, context 4096): what is read, and for every wrong one its param and words. Accept negotiation.
 */
#include "dist_request.h"
#include "fake_engine.h"
#include "limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static logitd_status parse(const char *body, const char *accept, dist_request *r, logitd_error *err) {
    *err = (logitd_error){0};
    return dist_request_parse(fake_open(), body, strlen(body), accept, r, err);
}

static void defaults_are_the_contract(void **state) {
    (void)state;
    dist_request r;
    logitd_error err;
    assert_int_equal(parse("{\"prompt\":\"abc\"}", NULL, &r, &err), LOGITD_OK);
    assert_int_equal(r.request.n_prompts, 1);
    assert_int_equal(r.request.prompts[0].n_tokens, 3);
    assert_int_equal(r.request.prompts[0].tokens[2], 'c');
    assert_int_equal(r.offsets[0][2], 2);
    assert_int_equal(r.request.prompts[0].n_positions, 3);
    assert_int_equal(r.request.n_temperatures, 1);
    assert_true(r.request.temperatures[0] == 1.0);
    assert_int_equal(r.request.top_n, 20);
    assert_false(r.request.full);
    assert_int_equal(r.request.values, LOGITD_LOGPROB);
    assert_int_equal(r.request.n_token_ids, 0);
    assert_true(r.stats);
    assert_int_equal(r.format, FORMAT_JSON);
    assert_int_equal(r.n_prompt_tokens, 3);
    dist_request_free(&r);
}

static void every_field_is_read(void **state) {
    (void)state;
    dist_request r;
    logitd_error err;
    const char *body =
        "{\"prompt\":[\"ab\",\"c\"],\"add_bos\":true,\"special\":false,\"positions\":[-1,0,0],"
        "\"temperatures\":[2,0.001,2,1000],\"top_n\":0,\"values\":\"logit\",\"token_ids\":[259,0,259],\"stats\":"
        "false,\"format\":\"ndjson\",\"dtype\":\"float16\"}";
    assert_int_equal(parse(body, "application/json", &r, &err), LOGITD_OK);
    assert_int_equal(r.request.n_prompts, 2);
    assert_int_equal(r.request.prompts[1].n_tokens, 2);
    assert_int_equal(r.request.prompts[1].tokens[0], FAKE_BOS);
    assert_int_equal(r.offsets[1][0], UINT32_MAX);
    assert_int_equal(r.offsets[1][1], 0);
    const int32_t wanted[] = {2, 0, 0};
    assert_memory_equal(r.request.prompts[0].positions, wanted, sizeof wanted);
    assert_int_equal(r.request.prompts[1].positions[0], 1);
    assert_int_equal(r.request.n_temperatures, 4);
    assert_true(r.request.temperatures[1] == 0.001 && r.request.temperatures[3] == 1000);
    assert_int_equal(r.request.top_n, 0);
    assert_int_equal(r.request.values, LOGITD_LOGIT);
    assert_int_equal(r.request.token_ids[2], 259);
    assert_false(r.stats);
    assert_int_equal(r.format, FORMAT_NDJSON);
    assert_int_equal(r.dtype, DTYPE_FLOAT16);
    assert_int_equal(r.n_positions, 6);
    dist_request_free(&r);

    assert_int_equal(parse("{\"prompt\":[[1,2],[3]],\"top_n\":\"full\",\"temperature\":0.5}", NULL, &r, &err),
                     LOGITD_OK);
    assert_int_equal(r.request.prompts[1].tokens[0], 3);
    assert_null(r.offsets[0]);
    assert_true(r.request.full && r.request.temperatures[0] == 0.5);
    dist_request_free(&r);
}

/// Positions of the prompt "abcdefghij" (10 tokens); expected values are those of Python's range(10)[slice].
static void positions_follow_python(void **state) {
    (void)state;
    static const struct {
        const char *positions;
        int n, values[10];
    } cases[] = {
        {"\"all\"", 10, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
        {"\"last\"", 1, {9}},
        {"[]", 0, {0}},
        {"[-10,9,3,3]", 4, {0, 9, 3, 3}},
        {"{}", 10, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
        {"{\"start\":7}", 3, {7, 8, 9}},
        {"{\"stop\":2}", 2, {0, 1}},
        {"{\"stop\":-8}", 2, {0, 1}},
        {"{\"start\":-3,\"stop\":-1}", 2, {7, 8}},
        {"{\"step\":4}", 3, {0, 4, 8}},
        {"{\"step\":-3}", 4, {9, 6, 3, 0}},
        {"{\"start\":-2,\"stop\":2,\"step\":-2}", 3, {8, 6, 4}},
        {"{\"start\":5,\"stop\":5}", 0, {0}},
        {"{\"start\":6,\"stop\":5}", 0, {0}},
        {"{\"start\":2,\"stop\":5,\"step\":-1}", 0, {0}},
        {"{\"start\":-99,\"stop\":99,\"step\":5}", 2, {0, 5}},
        {"{\"start\":99,\"stop\":-99,\"step\":-5}", 2, {9, 4}},
        {"{\"start\":99}", 0, {0}},
        {"{\"start\":-99,\"step\":-1}", 0, {0}},
        {"{\"start\":null,\"stop\":null,\"step\":9007199254740992}", 1, {0}},
        {"{\"step\":-9007199254740992}", 1, {9}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char body[160];
        snprintf(body, sizeof body, "{\"prompt\":\"abcdefghij\",\"positions\":%s}", cases[i].positions);
        dist_request r;
        logitd_error err;
        if (parse(body, NULL, &r, &err)) fail_msg("%s: %s", body, err.message);
        assert_int_equal(r.request.prompts[0].n_positions, cases[i].n);
        for (int k = 0; k < cases[i].n; k++) assert_int_equal(r.request.prompts[0].positions[k], cases[i].values[k]);
        dist_request_free(&r);
    }
}

static void wrong_fields_are_named(void **state) {
    (void)state;
    static const struct {
        const char *body, *param, *words;
    } cases[] = {
        {"{}", "prompt", "missing"},
        {"{\"prompt\":null}", "prompt", "is null"},
        {"{\"prompt\":7}", "prompt", "is 7"},
        {"{\"prompt\":{}}", "prompt", "an object"},
        {"{\"prompt\":\"\"}", "prompt", "has no tokens"},
        {"{\"prompt\":[]}", "prompt", "0 items"},
        {"{\"prompt\":[\"a\",\"\"]}", "prompt[1]", "has no tokens"},
        {"{\"prompt\":[\"a\",1]}", "prompt[1]", "is 1"},
        {"{\"prompt\":[1,\"a\"]}", "prompt[1]", "the string \"a\""},
        {"{\"prompt\":[null]}", "prompt[0]", "is null"},
        {"{\"prompt\":[[1],\"a\"]}", "prompt[1]", "all be strings or all"},
        {"{\"prompt\":[[1],[]]}", "prompt[1]", "has no tokens"},
        {"{\"prompt\":[260]}", "prompt[0]", "from 0 to 259"},
        {"{\"prompt\":[1,-1]}", "prompt[1]", "is -1"},
        {"{\"prompt\":[[1],[2,1.5]]}", "prompt[1][1]", "is 1.5"},
        {"{\"prompt\":[1],\"add_bos\":true}", "add_bos", "leave it out"},
        {"{\"prompt\":[[1]],\"special\":false}", "special", "leave it out"},
        {"{\"prompt\":\"a\",\"add_bos\":1}", "add_bos", "true or false"},
        {"{\"prompt\":\"a\",\"special\":\"no\"}", "special", "true or false"},
        {"{\"prompt\":\"ab\",\"positions\":[0,2]}", "positions[1]", "from -2 to 1"},
        {"{\"prompt\":\"ab\",\"positions\":[-3]}", "positions[0]", "is -3"},
        {"{\"prompt\":[\"ab\",\"a\"],\"positions\":[1]}", "positions[0]", "prompt 1 has 1 tokens"},
        {"{\"prompt\":\"ab\",\"positions\":\"first\"}", "positions", "the string \"first\""},
        {"{\"prompt\":\"ab\",\"positions\":1}", "positions", "is 1"},
        {"{\"prompt\":\"ab\",\"positions\":null}", "positions", "is null"},
        {"{\"prompt\":\"ab\",\"positions\":{\"step\":0}}", "positions.step", "is 0"},
        {"{\"prompt\":\"ab\",\"positions\":{\"begin\":0}}", "positions.begin", "start, stop, step"},
        {"{\"prompt\":\"ab\",\"positions\":{\"start\":0.5}}", "positions.start", "0.5"},
        {"{\"prompt\":\"a\",\"temperatures\":[]}", "temperatures", "1 to 32"},
        {"{\"prompt\":\"a\",\"temperatures\":1}", "temperatures", "must be an array"},
        {"{\"prompt\":\"a\",\"temperatures\":[1,0]}", "temperatures[1]", "from 0.001 to 1000"},
        {"{\"prompt\":\"a\",\"temperatures\":[\"1\"]}", "temperatures[0]", "the string"},
        {"{\"prompt\":\"a\",\"temperature\":1001}", "temperature", "is 1001"},
        {"{\"prompt\":\"a\",\"temperature\":null}", "temperature", "is null"},
        {"{\"prompt\":\"a\",\"temperature\":1,\"temperatures\":[1]}", "temperature", "both"},
        {"{\"prompt\":\"a\",\"top_n\":-1}", "top_n", "0 to 1024, or \"full\""},
        {"{\"prompt\":\"a\",\"top_n\":1025}", "top_n", "is 1025"},
        {"{\"prompt\":\"a\",\"top_n\":\"all\"}", "top_n", "\"full\""},
        {"{\"prompt\":\"a\",\"values\":\"odds\"}", "values", "\"logprob\", \"prob\" or \"logit\""},
        {"{\"prompt\":\"a\",\"values\":0}", "values", "is 0"},
        {"{\"prompt\":\"a\",\"token_ids\":5}", "token_ids", "an array"},
        {"{\"prompt\":\"a\",\"token_ids\":[260]}", "token_ids[0]", "from 0 to 259"},
        {"{\"prompt\":\"a\",\"stats\":\"yes\"}", "stats", "true or false"},
        {"{\"prompt\":\"a\",\"format\":\"xml\"}", "format", "safetensors"},
        {"{\"prompt\":\"a\",\"format\":3}", "format", "must be \"json\", \"ndjson\" or \"safetensors\""},
        {"{\"prompt\":\"a\",\"dtype\":\"float64\"}", "dtype", "\"float32\" or \"float16\""},
        {"{\"prompt\":\"a\",\"topn\":3}", "topn", "did you mean top_n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        dist_request r;
        logitd_error err;
        logitd_status status = parse(cases[i].body, NULL, &r, &err);
        dist_request_free(&r);
        if (status != LOGITD_EINVAL) fail_msg("%s: status %d", cases[i].body, status);
        if (strcmp(err.param, cases[i].param) != 0) fail_msg("%s: param \"%s\"", cases[i].body, err.param);
        if (!strstr(err.message, cases[i].words))
            fail_msg("%s: \"%s\" lacks \"%s\"", cases[i].body, err.message, cases[i].words);
    }
}

/// A body that repeats one item: head, item × n with commas, tail.
static void check_repeated(const char *head, const char *item, int n, const char *tail, logitd_status wanted,
                           const char *param, const char *words) {
    buffer body = {0};
    buffer_puts(&body, head);
    for (int i = 0; i < n; i++) buffer_printf(&body, "%s%s", i ? "," : "", item);
    buffer_puts(&body, tail);
    dist_request r;
    logitd_error err;
    assert_int_equal(parse(body.data, NULL, &r, &err), wanted);
    if (wanted) {
        assert_string_equal(err.param, param);
        if (!strstr(err.message, words)) fail_msg("\"%s\" lacks \"%s\"", err.message, words);
    }
    dist_request_free(&r);
    buffer_free(&body);
}

static void sizes_are_bounded(void **state) {
    (void)state;
    check_repeated("{\"prompt\":[", "1", 4096, "]}", LOGITD_OK, "", "");
    check_repeated("{\"prompt\":[", "1", 4097, "]}", LOGITD_EINVAL, "prompt",
                   "4097 tokens; this model's context takes at most 4096");
    check_repeated("{\"prompt\":[", "\"a\"", (int)limits.prompts + 1, "]}", LOGITD_EINVAL, "prompt", "1025 items");
    check_repeated("{\"prompt\":\"a\",\"temperatures\":[", "1", 33, "]}", LOGITD_EINVAL, "temperatures", "33 items");
    check_repeated("{\"prompt\":\"a\",\"token_ids\":[", "1", 1025, "]}", LOGITD_EINVAL, "token_ids", "1025 items");
    check_repeated("{\"prompt\":\"a\",\"positions\":[", "0", (int)limits.request_positions + 1, "]}", LOGITD_ETOOLARGE,
                   "positions", "at most 1048576");
    check_repeated("{\"prompt\":\"a\",\"positions\":[", "0", (int)limits.json_values + 1, "]}", LOGITD_ETOOLARGE, "",
                   "values");
}

static void accept_is_negotiated(void **state) {
    (void)state;
    static const struct {
        const char *accept;
        reply_format format;
    } cases[] = {
        {NULL, FORMAT_JSON},
        {"", FORMAT_JSON},
        {"*/*", FORMAT_JSON},
        {"application/*", FORMAT_JSON},
        {"application/json", FORMAT_JSON},
        {"APPLICATION/X-NDJSON", FORMAT_NDJSON},
        {"application/x-ndjson, application/json", FORMAT_JSON},
        {"application/json;q=0.5, application/x-ndjson", FORMAT_NDJSON},
        {"application/json; q=0.5 , application/x-ndjson;q=0.4", FORMAT_JSON},
        {"application/json;q=0, */*", FORMAT_NDJSON},
        {"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", FORMAT_JSON},
        {"application/vnd.safetensors, */*;q=0.1", FORMAT_SAFETENSORS},
        {"application/vnd.safetensors", FORMAT_SAFETENSORS},
        {"application/json;q=0.9, application/vnd.safetensors;Q=0.95;x=\"a,b\"", FORMAT_SAFETENSORS},
        {"text/plain", FORMAT_JSON}, // none of them: the default
        {"*/*;q=0", FORMAT_JSON},
        {"application/json;q=x, application/x-ndjson;q=0", FORMAT_JSON},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        dist_request r;
        logitd_error err;
        assert_int_equal(parse("{\"prompt\":\"a\"}", cases[i].accept, &r, &err), LOGITD_OK);
        if (r.format != cases[i].format) fail_msg("%s: %d", cases[i].accept, (int)r.format);
        dist_request_free(&r);
    }
    dist_request r;
    logitd_error err;
    assert_int_equal(parse("{\"prompt\":\"a\",\"format\":\"json\"}", "text/plain", &r, &err), LOGITD_OK); // format wins
    dist_request_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_the_contract), cmocka_unit_test(every_field_is_read),
        cmocka_unit_test(positions_follow_python),   cmocka_unit_test(wrong_fields_are_named),
        cmocka_unit_test(sizes_are_bounded),         cmocka_unit_test(accept_is_negotiated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
