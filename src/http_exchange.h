/*
 * http_exchange.h: one request and its reply, as the handlers of routes see them. The server (http_server.h) makes
 * exchanges, runs the handlers in its threads, sends the replies and frees what an exchange holds.
 *
 * A handler runs when the whole body is there. It either fills in the reply (HTTP_DONE), or starts work elsewhere and
 * returns HTTP_WAIT: then the connection sleeps until http_wake, and the handler runs again. A reply whose end is not
 * known yet has a `pull` function, which is called for one piece after another, and may wait in the same way. When the
 * client goes away (or closes its sending side) while an exchange sleeps, client_left is called once. `finish` is
 * called exactly once, last; then the exchange is gone.
 */
#ifndef HTTP_EXCHANGE_H
#define HTTP_EXCHANGE_H

#include "util.h"

typedef struct http_exchange http_exchange;

#define HTTP_CLIENT_BYTES     64
#define HTTP_REQUEST_ID_BYTES 65

typedef enum http_step {
    HTTP_DONE = 0, // handler: the reply is filled in; pull: that was the last piece
    HTTP_WAIT,     // nothing to do until http_wake
    HTTP_MORE,     // pull: call again
    HTTP_ABORT,    // pull: the reply cannot be completed; the connection is cut so that the client sees it
} http_step;

struct http_exchange {
    // The request; lives as long as the exchange.
    void *context;      // of the server
    const char *method; // "GET", "POST", "HEAD"
    const char *path;
    const char *version;                    // "HTTP/1.1"
    char client[HTTP_CLIENT_BYTES];         // for limits: an address, until a key says better
    char request_id[HTTP_REQUEST_ID_BYTES]; // of the log, echoed as X-Request-Id
    bool on_loopback;                       // the server listens on a loopback address
    buffer body;                            // data[len] is '\0'; empty for GET
    int64_t start_us;

    // The reply, by the handler.
    int status;
    const char *content_type;
    buffer reply;                                     // whole, or what comes before the first pull
    http_step (*pull)(http_exchange *x, buffer *out); // NULL: the reply is whole
    uint64_t reply_bytes; // with pull: the size of the whole reply, `reply` included; 0: not known, so it is chunked

    // The handler's own.
    void *state;
    void (*client_left)(http_exchange *x); // any thread, at most once, never after finish; must be short
    void (*finish)(http_exchange *x);      // an HTTP thread
    int64_t n_tokens;                      // for the log line; 0: none
    uint64_t n_reply_bytes;                // sent, for the log line
};

typedef struct http_route {
    const char *method; // "GET" (serves HEAD too) or "POST" (takes JSON)
    const char *path;
    http_step (*handle)(http_exchange *x);
    bool open; // needs no key
} http_route;

/// A request header, or NULL. In an HTTP thread.
const char *http_header(const http_exchange *x, const char *name);
/// A header that holds a list, such as Accept: its lines joined by commas (RFC 9110, 5.3), or NULL; until the next
/// call. In an HTTP thread.
const char *http_header_list(http_exchange *x, const char *name);
/// Lines of the request that have this header. In an HTTP thread.
int http_n_headers(const http_exchange *x, const char *name);
/// Adds a header to the reply. Both strings are copied; `name` is a token, `value` has no line break.
void http_add_header(http_exchange *x, const char *name, const char *value);
/// A parameter of the path's query, or NULL; "" when it has no value. In an HTTP thread.
const char *http_query(const http_exchange *x, const char *name);
/// Lets a sleeping exchange go on; kept for its next HTTP_WAIT if it is awake. Any thread, until finish.
void http_wake(http_exchange *x);
/// Fills in an error reply as openapi.json's object. Returns HTTP_DONE.
http_step http_fail(http_exchange *x, int status, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/// The same of an error that a function returned.
http_step http_fail_with(http_exchange *x, const logitd_error *err);

#endif
