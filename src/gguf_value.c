// gguf_value.c: see gguf_value.h.
#include "gguf_value.h"
#include <inttypes.h>
#include <stdlib.h>

static const struct {
    const char *name;
    uint8_t n_bytes; // 0: no fixed size
} types[GGUF_N_TYPES] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},   [GGUF_U16] = {"u16", 2}, [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4},     [GGUF_I32] = {"i32", 4}, [GGUF_F32] = {"f32", 4}, [GGUF_BOOL] = {"bool", 1},
    [GGUF_U64] = {"u64", 8},     [GGUF_I64] = {"i64", 8}, [GGUF_F64] = {"f64", 8}, [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0},
};

const char *gguf_type_name(gguf_value_type type) {
    return types[type].name;
}

unsigned gguf_type_bytes(gguf_value_type type) {
    return types[type].n_bytes;
}

// ----------------------------------------------------------------------------------------------- numbers, strings

/// At element i, which has a fixed size.
static cursor at_element(const gguf_value *v, uint64_t i) {
    const size_t n_bytes = types[v->element].n_bytes;
    return cursor_make(v->data + i * n_bytes, n_bytes);
}

bool gguf_value_int(const gguf_value *v, uint64_t i, int64_t *out) {
    const gguf_value_type type = v->element;
    if (type == GGUF_F32 || type == GGUF_F64 || type == GGUF_STRING) return false;
    if (type == GGUF_BOOL && v->type != GGUF_ARRAY) return false;
    cursor in = at_element(v, i);
    switch (types[type].n_bytes) {
    case 1:
        *out = type == GGUF_I8 ? (int8_t)cursor_u8(&in) : cursor_u8(&in);
        return true;
    case 2:
        *out = type == GGUF_I16 ? (int16_t)cursor_u16(&in) : cursor_u16(&in);
        return true;
    case 4:
        *out = type == GGUF_I32 ? (int32_t)cursor_u32(&in) : (int64_t)cursor_u32(&in);
        return true;
    default:
        break;
    }
    uint64_t wide = cursor_u64(&in);
    if (type == GGUF_U64 && wide > INT64_MAX) return false;
    *out = (int64_t)wide;
    return true;
}

bool gguf_value_float(const gguf_value *v, uint64_t i, double *out) {
    if (v->element == GGUF_BOOL) return false;
    cursor in = at_element(v, i);
    int64_t integer;
    if (v->element == GGUF_F32)
        *out = (double)cursor_f32(&in);
    else if (v->element == GGUF_F64)
        *out = cursor_f64(&in);
    else if (v->element == GGUF_U64)
        *out = (double)cursor_u64(&in);
    else if (gguf_value_int(v, i, &integer))
        *out = (double)integer;
    else
        return false;
    return true;
}

void gguf_value_strings(const gguf_value *v, gguf_str *out) {
    ASSERT(v->element == GGUF_STRING);
    cursor in = cursor_make(v->data, v->n_bytes);
    for (uint64_t i = 0; i < v->n; i++) {
        out[i].len = cursor_u64(&in);
        out[i].data = (const char *)cursor_take(&in, out[i].len);
    }
}

// ------------------------------------------------------------------------------------------------ a text for people

/// The shortest decimal that reads back as the same number; whole numbers without an exponent.
static void put_float(buffer *out, double value, bool single) {
    bool whole = value > -1e15 && value < 1e15 && value == (double)(int64_t)value;
    char text[40] = "";
    for (int digits = 1; !whole && digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (single ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value) break;
    }
    if (whole) snprintf(text, sizeof text, "%.0f", value);
    buffer_puts(out, text);
}

static void put_string(buffer *out, gguf_str s) {
    size_t n = 0;
    for (int i = 0; i < 60 && n < s.len; i++)
        n += (size_t)MAX(1, utf8_char_len((const uint8_t *)s.data + n, s.len - n));
    buffer text = {0};
    utf8_append_lossy(&text, s.data, n);
    for (size_t i = 0; i < text.len; i++) {
        if ((uint8_t)text.data[i] >= ' ' && text.data[i] != 0x7F)
            buffer_append(out, text.data + i, 1);
        else
            buffer_printf(out, text.data[i] == '\n' ? "\\n" : "\\x%02x", (unsigned)text.data[i]);
    }
    if (n < s.len) buffer_puts(out, "...");
    buffer_free(&text);
}

gguf_shown gguf_show(gguf_str s) {
    gguf_shown shown;
    const size_t n = MIN(s.len, (size_t)60);
    for (size_t i = 0; i < n; i++) shown.text[i] = s.data[i] < ' ' || s.data[i] > '~' ? '?' : s.data[i];
    memcpy(shown.text + n, s.len > n ? "..." : "", s.len > n ? 4 : 1);
    return shown;
}

void gguf_value_text(const gguf_value *v, buffer *out) {
    gguf_str string = {0};
    int64_t integer;
    double number;
    if (v->type == GGUF_ARRAY) {
        buffer_printf(out, "%s[%" PRIu64 "]", types[v->element].name, v->n);
    } else if (v->type == GGUF_STRING) {
        gguf_value_strings(v, &string);
        put_string(out, string);
    } else if (v->type == GGUF_BOOL) {
        buffer_puts(out, v->data[0] ? "true" : "false");
    } else if (v->type == GGUF_U64) {
        cursor in = at_element(v, 0);
        buffer_printf(out, "%" PRIu64, cursor_u64(&in));
    } else if (gguf_value_int(v, 0, &integer)) {
        buffer_printf(out, "%" PRId64, integer);
    } else if (gguf_value_float(v, 0, &number)) {
        put_float(out, number, v->type == GGUF_F32);
    }
}
