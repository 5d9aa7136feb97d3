/*
 * json_write.c: see json_write.h. The number writers reserve the longest text once and write in place, since a reply
 * holds a hundred thousand numbers and more.
 */
#include "json_write.h"
#include "float_text.h"
#include <string.h>

/// What stands for a byte inside quotes: 0 itself, 'u' a \u00XX escape, else the letter after the backslash.
static char escape_of(uint8_t c) {
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return c < 0x20 || c == 0x7F ? 'u' : 0;
    }
}

static void append_escaped(buffer *out, const uint8_t *s, size_t n) {
    size_t run = 0; // bytes of s[run … i-1] need no escape
    for (size_t i = 0; i < n; i++) {
        char escape = escape_of(s[i]);
        if (!escape) continue;
        buffer_append(out, s + run, i - run);
        run = i + 1;
        if (escape == 'u') {
            buffer_printf(out, "\\u%04x", s[i]);
        } else {
            buffer_append(out, (char[]){'\\', escape}, 2);
        }
    }
    if (n > run) buffer_append(out, s + run, n - run); // NULL + 0 of an empty text is undefined
}

void json_string(buffer *out, const void *text, size_t n) {
    buffer_append(out, "\"", 1);
    if (utf8_first_invalid(text, n) == n) {
        append_escaped(out, text, n);
    } else {
        buffer valid = {0};
        utf8_append_lossy(&valid, text, n);
        append_escaped(out, (const uint8_t *)valid.data, valid.len);
        out->failed |= valid.failed;
        buffer_free(&valid);
    }
    buffer_append(out, "\"", 1);
}

void json_cstring(buffer *out, const char *text) {
    if (text) {
        json_string(out, text, strlen(text));
    } else {
        buffer_append(out, "null", 4);
    }
}

/// Decimal digits of an integer at `out` (room for 20); returns how many characters.
static size_t int_text(int64_t value, char *out) {
    char digits[20];
    size_t n = 0, len = 0;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0) out[len++] = '-';
    while (n) out[len++] = digits[--n];
    return len;
}

void json_int(buffer *out, int64_t value) {
    if (buffer_reserve(out, 20)) buffer_grew(out, int_text(value, out->data + out->len));
}

void json_float(buffer *out, float value) {
    if (buffer_reserve(out, FLOAT_TEXT_BYTES)) buffer_grew(out, float_text(value, out->data + out->len));
}

void json_double(buffer *out, double value) {
    if (buffer_reserve(out, DOUBLE_TEXT_BYTES)) buffer_grew(out, double_text(value, out->data + out->len));
}

void json_float_items(buffer *out, const float *values, size_t n, size_t stride) {
    if (!buffer_reserve(out, n * (FLOAT_TEXT_BYTES + 1))) return;
    char *p = out->data + out->len;
    for (size_t i = 0; i < n; i++) {
        if (i) *p++ = ',';
        p += float_text(values[i * stride], p);
    }
    buffer_grew(out, (size_t)(p - (out->data + out->len)));
}

void json_floats(buffer *out, const float *values, size_t n, size_t stride) {
    buffer_append(out, "[", 1);
    json_float_items(out, values, n, stride);
    buffer_append(out, "]", 1);
}

void json_bytes(buffer *out, const uint8_t *bytes, size_t n) {
    if (!buffer_reserve(out, 2 + 4 * n)) return;
    char *p = out->data + out->len;
    *p++ = '[';
    for (size_t i = 0; i < n; i++) {
        if (i) *p++ = ',';
        p += int_text(bytes[i], p);
    }
    *p++ = ']';
    buffer_grew(out, (size_t)(p - (out->data + out->len)));
}
