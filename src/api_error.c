// api_error.c: see api_error.h.
#include "api_error.h"
#include "json_write.h"

static const struct {
    int http_status;
    const char *type, *code;
} kinds[] = {
    {400, "invalid_request", "bad_request"},
    {401, "authentication", "bad_key"},
    {403, "forbidden", "bad_host"},
    {404, "not_found", "unknown_path"},
    {405, "invalid_request", "method_not_allowed"},
    {413, "invalid_request", "too_large"},
    {415, "invalid_request", "unsupported_media_type"},
    {429, "busy", "too_many_requests"},
    {503, "busy", "unavailable"},
    {500, "server_error", "internal"}, // last: what is not in the table
};

static const int http_status_of[] = {
    [LOGITD_OK] = 200,       [LOGITD_EINVAL] = 400,    [LOGITD_EFORMAT] = 500, [LOGITD_EIO] = 500,
    [LOGITD_ENOMEM] = 503,   [LOGITD_ETOOLARGE] = 413, [LOGITD_EBUSY] = 503,   [LOGITD_ECANCELED] = 503,
    [LOGITD_EBACKEND] = 503, [LOGITD_EQUOTA] = 429,
};

int api_error_http_status(logitd_status status) {
    ASSERT((size_t)status < ARRAY_LEN(http_status_of));
    return http_status_of[status];
}

void api_error_write(buffer *out, int http_status, const char *param, const char *message) {
    size_t i = 0;
    while (i + 1 < ARRAY_LEN(kinds) && kinds[i].http_status != http_status) i++;
    buffer_puts(out, "\"error\":{\"message\":");
    json_cstring(out, message);
    buffer_printf(out, ",\"type\":\"%s\",\"param\":", kinds[i].type);
    json_cstring(out, *param ? param : NULL);
    buffer_printf(out, ",\"code\":\"%s\"}", kinds[i].code);
}
