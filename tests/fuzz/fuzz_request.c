/*
 * fuzz_request.c: bodies of POST /distribution as they come, to the reply's last byte: byte 0 chooses the Accept header
 * and the engine's steps, the rest is the body.
 */
#include "fuzz.h"
#include "reply_check.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    reply_check_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const accepts[] = {NULL, "*/*", "application/x-ndjson", "application/vnd.safetensors"};
    cursor c = cursor_make(data, MIN(n, (size_t)4096));
    const uint8_t choice = cursor_u8(&c);
    buffer body = {0};
    buffer_append(&body, c.p, (size_t)(c.end - c.p));
    reply_check(body.data, body.len, accepts[choice & 3], 1 + (choice >> 2) % 9);
    buffer_free(&body);
    return 0;
}
