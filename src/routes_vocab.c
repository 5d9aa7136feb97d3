/*
 * routes_vocab.c: GET /vocab: every id's text and bytes. `format` in the query, or the Accept header, chooses:
 *
 *   json         {"object":"vocab","model":{…},"tokens":[{"id":0,"text":"…","bytes":[…]},…]}     streamed
 *   safetensors  bytes u8 [n], bytes_offsets i64 [n_vocab + 1]: token i is bytes[offsets[i]:offsets[i + 1]];
 *                text and text_offsets the same in valid UTF-8; control u8 [n_vocab]: 1 for control
 *                tokens, which are no text; metadata `model`
 *
 * State of an exchange in JSON: a vocab_reply, freed by finish. A safetensors reply is some megabytes and is made
 * whole.
 */
#include "routes.h"
#include "safetensors_head.h"

#define PIECE_BYTES (64u << 10)

typedef struct vocab_reply {
    int32_t next_id;
} vocab_reply;

static void finish(http_exchange *x) {
    mem_free(x->state);
}

// ----------------------------------------------------------------------------------------------------------- JSON

static http_step pull_json(http_exchange *x, buffer *out) {
    const service *s = x->context;
    vocab_reply *r = x->state;
    const tokenizer *t = logitd_tokenizer(s->engine);
    const size_t end = out->len + PIECE_BYTES;
    for (; r->next_id < tokenizer_n_vocab(t) && out->len < end && !out->failed; r->next_id++) {
        if (r->next_id) buffer_puts(out, ",\n");
        token_json_put_bytes(s->tokens, t, r->next_id, out);
        buffer_puts(out, "}");
    }
    if (out->failed) return HTTP_ABORT;
    if (r->next_id < tokenizer_n_vocab(t)) return HTTP_MORE;
    buffer_puts(out, "]}\n");
    return HTTP_DONE;
}

static http_step begin_json(http_exchange *x) {
    const service *s = x->context;
    x->state = mem_alloc(1, sizeof(vocab_reply));
    if (!x->state) return http_fail(x, 503, "", "no memory for this request; try again later");
    x->finish = finish;
    x->pull = pull_json;
    buffer_puts(&x->reply, "{\"object\":\"vocab\",\"model\":");
    enc_put_model(&(enc_source){.model = logitd_model(s->engine)}, &x->reply);
    buffer_puts(&x->reply, ",\"tokens\":[\n");
    return HTTP_DONE;
}

// ---------------------------------------------------------------------------------------------------- safetensors

static void put_bytes(const tokenizer *t, int32_t id, buffer *out) {
    token_bytes bytes = tokenizer_bytes(t, id);
    buffer_append(out, bytes.data, bytes.len);
}

static void put_text(const tokenizer *t, int32_t id, buffer *out) {
    token_bytes bytes = tokenizer_bytes(t, id);
    utf8_append_lossy(out, bytes.data, bytes.len);
}

static void put_is_control(const tokenizer *t, int32_t id, buffer *out) {
    const uint8_t is_control = tokenizer_kind(t, id) == TOKEN_CONTROL;
    buffer_append(out, &is_control, 1);
}

/// What `put` appends for every token, and where each begins: [n_vocab + 1].
static void join(const tokenizer *t, void (*put)(const tokenizer *t, int32_t id, buffer *out), buffer *joined,
                 buffer *offsets) {
    const int n_vocab = tokenizer_n_vocab(t);
    for (int32_t id = 0; id <= n_vocab; id++) {
        int64_t offset = (int64_t)joined->len;
        buffer_append(offsets, &offset, sizeof offset);
        if (id < n_vocab) put(t, id, joined);
    }
}

static http_step reply_safetensors(http_exchange *x) {
    const service *s = x->context;
    const tokenizer *t = logitd_tokenizer(s->engine);
    const uint64_t n_offsets = (uint64_t)tokenizer_n_vocab(t) + 1;
    safetensors_head head = {0};
    buffer model = {0};
    enc_put_model(&(enc_source){.model = logitd_model(s->engine)}, &model);
    safetensors_put_metadata(&head, "model", &model);
    struct {
        const char *name;
        tensor_type type;
        buffer data;
    } parts[] = {{"bytes_offsets", TENSOR_I64, {0}}, // those with the wider values first, so that all are aligned
                 {"text_offsets", TENSOR_I64, {0}},
                 {"bytes", TENSOR_U8, {0}},
                 {"text", TENSOR_U8, {0}},
                 {"control", TENSOR_U8, {0}}};
    join(t, put_bytes, &parts[2].data, &parts[0].data);
    join(t, put_text, &parts[3].data, &parts[1].data);
    for (int32_t id = 0; id < tokenizer_n_vocab(t); id++) put_is_control(t, id, &parts[4].data);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        const uint64_t n = parts[i].type == TENSOR_I64 ? n_offsets : parts[i].data.len;
        safetensors_put_tensor(&head, parts[i].name, parts[i].type, &n, 1);
    }
    safetensors_put_head(&head, &x->reply);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        buffer_append(&x->reply, parts[i].data.data, parts[i].data.len);
        x->reply.failed |= parts[i].data.failed;
        buffer_free(&parts[i].data);
    }
    buffer_free(&model);
    return HTTP_DONE;
}

http_step handle_vocab(http_exchange *x) {
    const unsigned offered = FORMAT_BIT(FORMAT_JSON) | FORMAT_BIT(FORMAT_SAFETENSORS);
    const char *name = http_query(x, "format");
    reply_format format = reply_format_accepted(http_header_list(x, "Accept"), offered);
    logitd_error err = {0};
    if (name && reply_format_named(name, offered, &format, &err)) return http_fail_with(x, &err);
    x->status = 200;
    x->content_type = reply_formats[format].media_type;
    return format == FORMAT_JSON ? begin_json(x) : reply_safetensors(x);
}
