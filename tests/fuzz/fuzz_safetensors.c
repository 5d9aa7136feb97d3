/*
 * fuzz_safetensors.c: writing safetensors (one input in eight: JSON or NDJSON). The bytes choose every field of a
 * request that is right, so that each input reaches the encoder; reply_check.c holds the reply against the announced
 * size and the file's own header.
 */
#include "fuzz.h"
#include "reply_check.h"
#include "unit/fake_engine.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    reply_check_init();
    return 0;
}

static int choose(cursor *c, int n) {
    return cursor_u8(c) % n;
}

static void put_list(buffer *body, cursor *c, int n, int (*item)(cursor *c, int i), int arg) {
    buffer_puts(body, "[");
    for (int i = 0; i < n; i++) buffer_printf(body, i ? ",%d" : "%d", item(c, arg));
    buffer_puts(body, "]");
}

static int any_id(cursor *c, int unused) {
    (void)unused;
    return (cursor_u8(c) | cursor_u8(c) << 8) % FAKE_VOCAB;
}

static int any_position(cursor *c, int n_tokens) {
    return choose(c, 2 * n_tokens) - n_tokens;
}

static void put_positions(buffer *body, cursor *c, int n_tokens) {
    switch (choose(c, 4)) {
    case 0:
        break;
    case 1:
        buffer_puts(body, ",\"positions\":\"last\"");
        break;
    case 2:
        buffer_puts(body, ",\"positions\":");
        put_list(body, c, choose(c, 5), any_position, n_tokens);
        break;
    default: {
        const int start = any_position(c, 8), stop = any_position(c, 8), step = 1 + choose(c, 3);
        buffer_printf(body, ",\"positions\":{\"start\":%d,\"stop\":%d,\"step\":%d}", start, stop,
                      choose(c, 2) ? step : -step);
    }
    }
}

static void put_prompts(buffer *body, cursor *c, int n_prompts, int n_tokens) {
    const bool text = choose(c, 2) == 0;
    buffer_puts(body, "\"prompt\":[");
    for (int i = 0; i < n_prompts; i++) {
        buffer_puts(body, i ? "," : "");
        if (!text) {
            put_list(body, c, n_tokens, any_id, 0);
            continue;
        }
        buffer_puts(body, "\"");
        for (int k = 0; k < n_tokens; k++) buffer_printf(body, "%c", 'a' + choose(c, 26));
        buffer_puts(body, "\"");
    }
    buffer_puts(body, "]");
    if (text && choose(c, 2)) buffer_puts(body, ",\"add_bos\":true");
}

static void put_temperatures(buffer *body, cursor *c) {
    const int n = 1 + choose(c, 4);
    buffer_puts(body, ",\"temperatures\":[");
    for (int i = 0; i < n; i++) buffer_printf(body, i ? ",%g" : "%g", 0.001 * (1 + choose(c, 200) * choose(c, 200)));
    buffer_puts(body, "]");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const formats[] = {"json",        "ndjson",      "safetensors", "safetensors",
                                          "safetensors", "safetensors", "safetensors", "safetensors"},
                             *const values[] = {"logprob", "prob", "logit"};
    cursor c = cursor_make(data, n);
    buffer body = {0};
    const int n_prompts = 1 + choose(&c, 4), n_tokens = 1 + choose(&c, 9), top_n = choose(&c, 8);
    buffer_puts(&body, "{");
    put_prompts(&body, &c, n_prompts, n_tokens);
    put_positions(&body, &c, n_tokens);
    put_temperatures(&body, &c);
    if (top_n == 7)
        buffer_puts(&body, ",\"top_n\":\"full\"");
    else
        buffer_printf(&body, ",\"top_n\":%d", top_n == 6 ? 1024 : top_n);
    buffer_printf(&body, ",\"values\":\"%s\",\"dtype\":\"float%d\",\"stats\":%s", values[choose(&c, 3)],
                  choose(&c, 2) ? 16 : 32, choose(&c, 2) ? "true" : "false");
    buffer_printf(&body, ",\"format\":\"%s\",\"token_ids\":", formats[choose(&c, 8)]);
    put_list(&body, &c, choose(&c, 4), any_id, 0);
    buffer_puts(&body, "}");
    ASSERT(!body.failed && reply_check(body.data, body.len, NULL, 1 + choose(&c, 9)));
    buffer_free(&body);
    return 0;
}
