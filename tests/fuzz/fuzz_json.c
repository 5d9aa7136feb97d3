/*
 * fuzz_json.c: JSON writing. Byte 0 chooses: floats (the text reads back to the same bits, and printf knows no shorter
 * one), doubles, or a string (always valid UTF-8, and our own strict reader gives back what Python's errors="replace"
 * would make of the bytes).
 */
#include "float_text.h"
#include "fuzz.h"
#include "json_read.h"
#include "json_write.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    return 0;
}

static bool same_bits(double a, double b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

/// The shortest of printf's texts, in digits with an exponent or without, that reads back to value.
static size_t shortest(double value, bool is_float) {
    size_t best = SIZE_MAX;
    for (int digits = 1; digits <= DBL_DECIMAL_DIG; digits++) {
        char text[64];
        for (int form = 0; form < 2; form++) {
            snprintf(text, sizeof text, form ? "%.*g" : "%.*e", form ? digits : digits - 1, value);
            double back = is_float ? (double)strtof(text, NULL) : strtod(text, NULL);
            if (same_bits(back, value)) best = MIN(best, strlen(text));
        }
    }
    return best;
}

static void check_number(double value, bool is_float) {
    char text[DOUBLE_TEXT_BYTES + 1];
    size_t n = is_float ? float_text((float)value, text) : double_text(value, text);
    ASSERT(n <= (is_float ? FLOAT_TEXT_BYTES : DOUBLE_TEXT_BYTES));
    text[n] = '\0';
    if (!isfinite(value)) {
        ASSERT(strcmp(text, "null") == 0);
        return;
    }
    ASSERT(strspn(text, "0123456789+-.e") == n &&
           same_bits(is_float ? (double)strtof(text, NULL) : strtod(text, NULL), value));
    ASSERT(n <= shortest(value, is_float));
    char body[DOUBLE_TEXT_BYTES + 8];
    logitd_error err;
    size_t body_len = (size_t)snprintf(body, sizeof body, "{\"v\":%s}", text);
    json_node *root = json_parse(body, body_len, &err); // it is written as JSON writes numbers
    ASSERT(root && json_is_number(json_member(root, "v")));
    json_free(root);
}

static void check_string(const uint8_t *data, size_t n) {
    buffer text = {0}, wanted = {0};
    buffer_puts(&text, "{\"v\":");
    json_string(&text, n ? data : NULL, n); // what a buffer without bytes has
    buffer_puts(&text, "}");
    utf8_append_lossy(&wanted, data, n);
    ASSERT(!text.failed && utf8_first_invalid(text.data, text.len) == text.len);
    ASSERT(utf8_first_invalid(wanted.data, wanted.len) == wanted.len);
    if (n && !memchr(data, 0, n)) { // our reader takes no NUL
        logitd_error err;
        json_node *root = json_parse(text.data, text.len, &err);
        ASSERT(root && strcmp(json_text(json_member(root, "v")), wanted.data) == 0);
        json_free(root);
    }
    buffer_free(&text);
    buffer_free(&wanted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    cursor c = cursor_make(data, MIN(n, (size_t)4096));
    const uint8_t choice = cursor_u8(&c) % 3;
    if (choice == 2) check_string(c.p, (size_t)(c.end - c.p));
    while (choice != 2 && c.end - c.p >= (choice ? 8 : 4)) {
        if (choice)
            check_number(cursor_f64(&c), false);
        else
            check_number((double)cursor_f32(&c), true);
    }
    return 0;
}
