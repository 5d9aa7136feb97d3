// safetensors_head.c: see safetensors_head.h.
#include "safetensors_head.h"
#include "json_write.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#    error "values are written as they lie in memory: little-endian"
#endif

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
    [TENSOR_U8] = {"U8", 1},   [TENSOR_I32] = {"I32", 4}, [TENSOR_I64] = {"I64", 8},
    [TENSOR_F16] = {"F16", 2}, [TENSOR_F32] = {"F32", 4},
};

void safetensors_put_metadata(safetensors_head *h, const char *key, const buffer *text) {
    ASSERT(h->n_tensors == 0);
    buffer_puts(&h->json, h->n_metadata++ ? "," : "{\"__metadata__\":{");
    json_cstring(&h->json, key);
    buffer_puts(&h->json, ":");
    json_string(&h->json, text->data, text->len);
    h->json.failed |= text->failed;
}

void safetensors_put_tensor(safetensors_head *h, const char *name, tensor_type type, const uint64_t *dims, int n_dims) {
    if (h->n_tensors++ == 0 && h->n_metadata) buffer_puts(&h->json, "}");
    buffer_puts(&h->json, h->n_tensors > 1 || h->n_metadata ? "," : "{");
    json_cstring(&h->json, name);
    buffer_printf(&h->json, ":{\"dtype\":\"%s\",\"shape\":[", types[type].name);
    uint64_t n_bytes = types[type].bytes;
    for (int i = 0; i < n_dims; i++) {
        buffer_printf(&h->json, "%s%llu", i ? "," : "", (unsigned long long)dims[i]);
        n_bytes *= dims[i];
    }
    buffer_printf(&h->json, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)h->data_bytes,
                  (unsigned long long)(h->data_bytes + n_bytes));
    h->data_bytes += n_bytes;
}

void safetensors_put_head(safetensors_head *h, buffer *out) {
    ASSERT(h->n_tensors > 0);
    buffer_puts(&h->json, "}");
    while (h->json.len % 8 && !h->json.failed) buffer_puts(&h->json, " ");
    uint64_t size = h->json.len;
    buffer_append(out, &size, sizeof size);
    buffer_append(out, h->json.data, h->json.len);
    out->failed |= h->json.failed;
    buffer_free(&h->json);
}
