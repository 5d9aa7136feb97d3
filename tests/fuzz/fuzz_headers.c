/*
 * fuzz_headers.c: what a client may say in Accept, Accept-Encoding, Content-Type and X-Request-Id. Items lie inside the
 * header and end, a q is from 0 to 1, and what is chosen is something that was offered.
 */
#include "access_log.h"
#include "fuzz.h"
#include "http_accept.h"
#include "http_coding.h"
#include "reply_format.h"
#include <ctype.h>

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    return 0;
}

static void check_items(const char *header, size_t n) {
    accept_item item;
    size_t n_items = 0;
    for (const char *rest = header; accept_next(&rest, &item); n_items++) {
        ASSERT(n_items <= n); // each ends behind the one before
        ASSERT(item.q >= 0 && item.q <= 1);
        ASSERT(item.name >= header && item.name + item.len <= header + n);
        ASSERT(!rest || (rest > item.name && rest <= header + n));
        (void)accept_is(&item, "gzip");
    }
    ASSERT(n_items >= 1);
}

static void check_choices(const char *header) {
    ASSERT((unsigned)coding_accepted(header) < N_CODINGS);
    for (unsigned more = 0; more <= FORMATS_ALL; more++) {
        const unsigned offered = more | FORMAT_BIT(FORMAT_JSON); // as every caller does
        const reply_format format = reply_format_accepted(header, offered);
        ASSERT(format < N_FORMATS && (FORMAT_BIT(format) & offered));
    }
}

static void check_request_id(const char *header) {
    char id[HTTP_REQUEST_ID_BYTES] = "";
    request_id_choose(header, id);
    size_t n = strnlen(id, sizeof id);
    ASSERT(n > 0 && n < sizeof id);
    for (size_t i = 0; i < n; i++)
        ASSERT(isgraph((unsigned char)id[i]) && id[i] != '"' && id[i] != '\\'); // it is logged
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    buffer header = {0};
    buffer_append(&header, data, MIN(n, (size_t)4096));
    n = strlen(header.data); // a header holds no NUL
    check_items(header.data, n);
    check_choices(header.data);
    check_request_id(header.data);
    (void)content_is_json(header.data); // reads no further than the NUL
    buffer_free(&header);
    return 0;
}
