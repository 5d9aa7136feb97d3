// http_exchange.c: error replies (http_exchange.h). The functions that ask libmicrohttpd are in http_server.c.
#include "http_exchange.h"
#include "api_error.h"

http_step http_fail(http_exchange *x, int status, const char *param, const char *format, ...) {
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    buffer_free(&x->reply);
    x->status = status;
    x->content_type = "application/json";
    x->pull = NULL;
    buffer_puts(&x->reply, "{");
    api_error_write(&x->reply, status, param, message);
    buffer_puts(&x->reply, "}\n");
    return HTTP_DONE;
}

http_step http_fail_with(http_exchange *x, const logitd_error *err) {
    return http_fail(x, api_error_http_status(err->status), err->param, "%s", err->message);
}
