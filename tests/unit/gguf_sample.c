// gguf_sample.c: see gguf_sample.h.
#include "gguf_sample.h"
#include "gguf_bytes.h"

buffer sample_make(uint32_t version, sample_layout *at) {
    buffer b = {0};
    put_head(&b, version, 2, SAMPLE_N_KV);
    at->key_len = b.len;
    at->type = b.len + 8 + strlen("general.alignment");
    put_key(&b, "general.alignment", GGUF_U32);
    at->alignment = b.len;
    put(&b, 64, 4);
    put_key(&b, "u8", GGUF_U8), put(&b, 250, 1);
    put_key(&b, "i8", GGUF_I8), put(&b, (uint64_t)-3, 1);
    put_key(&b, "u16", GGUF_U16), put(&b, 65000, 2);
    put_key(&b, "i16", GGUF_I16), put(&b, (uint64_t)-300, 2);
    put_key(&b, "u32", GGUF_U32), put(&b, 4000000000u, 4);
    put_key(&b, "i32", GGUF_I32), put(&b, (uint64_t)-70000, 4);
    put_key(&b, "u64", GGUF_U64), put(&b, UINT64_MAX, 8);
    put_key(&b, "i64", GGUF_I64), put(&b, (uint64_t)INT64_MIN, 8);
    put_key(&b, "f32", GGUF_F32), put_f32(&b, 1e-5f);
    put_key(&b, "f64", GGUF_F64), put_f64(&b, -0.1);
    put_key(&b, "bool", GGUF_BOOL);
    at->bool_value = b.len;
    put(&b, 1, 1);
    put_key(&b, "string", GGUF_STRING);
    at->string_len = b.len;
    put_str(&b, "h\xC3\xA9\n");
    put_key(&b, "empty", GGUF_STRING), put_str(&b, "");
    put_array(&b, "ints", GGUF_I16, 3);
    at->array_type = b.len - 12;
    at->array_n = b.len - 8;
    put(&b, (uint64_t)-1, 2), put(&b, 0, 2), put(&b, 32767, 2);
    put_array(&b, "floats", GGUF_F32, 2), put_f32(&b, 0.5f), put_f32(&b, -2.0f);
    put_array(&b, "bools", GGUF_BOOL, 2);
    at->bools = b.len;
    put(&b, 0, 1), put(&b, 1, 1);
    put_array(&b, "strings", GGUF_STRING, 3);
    at->strings_n = b.len - 8;
    put_str(&b, "a");
    at->string_1 = b.len;
    put_str(&b, ""), put_str(&b, "\xFF\0x");
    put_array(&b, "none", GGUF_STRING, 0);
    put_array(&b, "wide", GGUF_U64, 2), put(&b, 7, 8), put(&b, UINT64_MAX, 8);

    at->name_len = b.len;
    put_str(&b, "first");
    at->n_dims = b.len;
    put(&b, 2, 4);
    at->dims = b.len;
    put(&b, 3, 8), put(&b, 2, 8);
    at->tensor_type = b.len;
    put(&b, 0, 4);
    at->offset = b.len;
    put(&b, 0, 8);
    at->second_name = b.len + 8;
    put_str(&b, "next!"), put(&b, 4, 4), put(&b, 64, 8), put(&b, 1, 8), put(&b, 2, 8), put(&b, 1, 8), put(&b, 8, 4);
    at->second_offset = b.len;
    put(&b, 64, 8);
    put_padding(&b, 64);
    at->data = b.len;
    for (int i = 0; i < 6; i++) put_f32(&b, (float)i);
    put_padding(&b, 64);
    for (int i = 0; i < 4 * 34; i++) put(&b, (uint64_t)i % 50, 1);
    ASSERT(!b.failed);
    return b;
}
