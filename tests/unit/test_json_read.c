/*
 * test_json_read.c: what the JSON reader refuses before and after cJSON, with the words of each sentence; typed
 * readers.
 */
#include "json_read.h"
#include "limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct bad_text {
    const char *text, *words;
} bad_text;

static void refuses(const char *text, size_t n, const char *words) {
    logitd_error err = {0};
    char *copy = malloc(n + 1); // exactly sized, so that the sanitizer sees a read too far
    memcpy(copy, text, n);
    copy[n] = '\0';
    json_node *root = json_parse(copy, n, &err);
    free(copy);
    if (root) fail_msg("accepted: %s", text);
    if (!strstr(err.message, words)) fail_msg("%s: \"%s\" lacks \"%s\"", text, err.message, words);
}

static void bad_texts_get_their_sentence(void **state) {
    (void)state;
    static const bad_text cases[] = {
        {"", "empty"},
        {"[1]", "is an array; send a JSON object"},
        {"3", "is 3; send"},
        {"null", "is null"},
        {"{\"a\":1} x", "not valid JSON at byte 8"},
        {"{\"a\":1}{}", "not valid JSON at byte 7"},
        {"{\"a\":}", "not valid JSON"},
        {"{\"a\":1,}", "not valid JSON"},
        {"{a:1}", "not valid JSON"},
        {"{\"a\":NaN}", "not valid JSON"},
        {"{\"a\":\"\\u0000\"}", "NUL"},
        {"{\"a\\u0000\":1}", "NUL"},
        {"{\"a\":\"\\ud800\"}", "surrogate"},
        {"{\"a\":\"\\ud800\\u0041\"}", "surrogate"},
        {"{\"a\":\"\\udc00\"}", "surrogate"},
        {"{\"a\":\"\\u12g4\"}", "four hex digits"},
        {"{\"a\":\"\\u1", "four hex digits"},
        {"{\"a\":\"\\x\"}", "none of JSON's"},
        {"{\"a\":\"\n\"}", "control character 0x0a at byte 6"},
        {"{\"a\":\"open", "starts at byte 5"},
        {"{\"a\":\"open\\", "starts at byte 5"},
        {"{\"a\":\x01}", "0x01 at 5"},
        {"{\"a\":01}", "not written as JSON"},
        {"{\"a\":1.}", "not written as JSON"},
        {"{\"a\":-}", "not written as JSON"},
        {"{\"a\":-.5}", "not written as JSON"},
        {"{\"a\":1e}", "not written as JSON"},
        {"{\"a\":-Infinity}", "not written as JSON"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "\"a\" is given twice"},
        {"{\"x\":{\"k\":1,\"k\":1}}", "\"k\" is given twice"},
        {"{\"x\":[{\"k\":1,\"k\":1}]}", "\"k\" is given twice"},
        {"{\"a\":\"\xff\"}", "not valid UTF-8 at byte 6 (0xff)"},
        {"{\"a\":\"\xed\xa0\x80\"}", "not valid UTF-8 at byte 6"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) refuses(cases[i].text, strlen(cases[i].text), cases[i].words);
    refuses("{\"a\":\"x\0y\"}", 11, "NUL at byte 7");
    refuses("{}\0", 3, "0x00 at 2");
}

static void long_numbers_and_depth_are_bounded(void **state) {
    (void)state;
    char number[80] = "{\"a\":";
    memset(number + 5, '7', 64);
    strcpy(number + 69, "}");
    refuses(number, strlen(number), "has 64 characters");
    char deep[LIMIT_JSON_DEPTH + 8] = "{\"a\":";
    memset(deep + 5, '[', LIMIT_JSON_DEPTH);
    refuses(deep, strlen(deep), "nests deeper than 32");
}

static void strings_keep_their_bytes(void **state) {
    (void)state;
    const char *text = "{\"a\":\"\\u00e9\\ud83d\\ude00\\n\\\"\xc3\xa9\",\"b\":-1.5e2,\"c\":null}";
    logitd_error err = {0};
    json_node *root = json_parse(text, strlen(text), &err);
    assert_non_null(root);
    assert_string_equal(json_text(json_member(root, "a")), "\xc3\xa9\xf0\x9f\x98\x80\n\"\xc3\xa9");
    double value;
    assert_int_equal(json_read_number(json_member(root, "b"), "b", -200, 0, &value, &err), LOGITD_OK);
    assert_true(value == -150);
    assert_true(json_is_null(json_member(root, "c")));
    assert_null(json_member(root, "A"));
    json_free(root);
}

static void integers_are_integers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        const char *words; // NULL: taken as 5
    } cases[] = {
        {"5", NULL},
        {"5.0", NULL},
        {"50e-1", NULL},
        {"1.5", "n is 1.5; it must be an integer from 0 to 9"},
        {"-1", "n is -1"},
        {"10", "n is 10"},
        {"1e400", "beyond what float64 holds"},
        {"true", "n is true"},
        {"\"5\"", "n is the string \"5\""},
        {"null", "n is null"},
        {"[]", "an array"},
        {"{}", "an object"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[64];
        snprintf(text, sizeof text, "{\"n\":%s}", cases[i].text);
        logitd_error err = {0};
        json_node *root = json_parse(text, strlen(text), &err);
        assert_non_null(root);
        int64_t n = 0;
        logitd_status status = json_read_int(json_member(root, "n"), "n", 0, 9, &n, &err);
        if (cases[i].words) {
            assert_int_equal(status, LOGITD_EINVAL);
            assert_non_null(strstr(err.message, cases[i].words));
            assert_string_equal(err.param, "n");
        } else {
            assert_int_equal(status, LOGITD_OK);
            assert_int_equal(n, 5);
        }
        json_free(root);
    }
}

static void unknown_members_are_named(void **state) {
    (void)state;
    static const char *const names[] = {"prompt", "temperature", "top_n"};
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"{\"promt\":1}", "did you mean prompt?"},
        {"{\"temprature\":1}", "did you mean temperature?"},
        {"{\"zzz\":1}", "\"zzz\" is unknown; the fields are prompt, temperature, top_n"},
        {"{\"Prompt\":1}", "did you mean prompt?"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        logitd_error err = {0};
        json_node *root = json_parse(cases[i].text, strlen(cases[i].text), &err);
        assert_int_equal(json_check_members(root, "", names, 3, &err), LOGITD_EINVAL);
        if (!strstr(err.message, cases[i].words)) fail_msg("\"%s\" lacks \"%s\"", err.message, cases[i].words);
        json_free(root);
    }
}

/// Failing memory is not mistaken for a body that is not JSON.
static void no_memory_is_said(void **state) {
    (void)state;
    const char *text = "{\"prompt\":[1,2,3]}";
    logitd_error err = {0};
    json_free(json_parse(text, strlen(text), &err)); // whatever is allocated once
    size_t before = mem_held();
    mem_set_ceiling(before + 200);
    assert_null(json_parse(text, strlen(text), &err));
    assert_int_equal(err.status, LOGITD_ENOMEM);
    mem_set_ceiling(SIZE_MAX);
    assert_int_equal(mem_held(), before);
    json_node *root = json_parse(text, strlen(text), &err);
    assert_non_null(root);
    assert_true(mem_held() > before);
    json_free(root);
    assert_int_equal(mem_held(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_texts_get_their_sentence), cmocka_unit_test(long_numbers_and_depth_are_bounded),
        cmocka_unit_test(strings_keep_their_bytes),     cmocka_unit_test(integers_are_integers),
        cmocka_unit_test(unknown_members_are_named),    cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
