/*
 * http_server.h: HTTP as a table of routes. The only user of libmicrohttpd.
 *
 * An *exchange* is one request and its reply. When the whole body is there the route's handler runs, in one of the HTTP
 * threads. It either fills in the reply (HTTP_DONE), or starts work elsewhere and returns HTTP_WAIT: then the
 * connection sleeps until http_wake, and the handler runs again. A reply whose end is not known yet has a `pull`
 * function, which is called for one piece after another, and may wait in the same way. Nothing polls.
 *
 * Connections have due times (http_conns.h): for headers, body, and each piece of a reply; whoever is late is cut off.
 * While an exchange sleeps nothing is due of the client, and its socket is watched: when the client goes away (or
 * closes its sending side), client_left is called once. `finish` is called exactly once, last; then the exchange is
 * gone.
 *
 * A reply goes out compressed when the client accepts that (http_stream.h); then its size is not known beforehand.
 *
 * Answered here, without a handler: unknown paths (404), wrong methods (405), a body that is not JSON where JSON is due
 * (415) or is too large (413), too many connections (503, or 429 of one client), no memory for a body (503). HEAD works
 * for GET routes. Where not even an error can be made for lack of memory, a 503 made at start goes out. What cannot be
 * read as a request (a malformed line, headers over LIMIT_CONNECTION_BYTES) reaches none of this: libmicrohttpd answers
 * with a 4xx and a page of its own, or ends the connection. Does not know what routes mean.
 */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "util.h"

typedef struct http_server http_server;
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

typedef struct http_options {
    const char *host;                         // a name or an address; default 127.0.0.1
    int port;                                 // 0: any free one
    const char *tls_cert_path, *tls_key_path; // PEM files: HTTPS; both or neither
    const http_route *routes;
    size_t n_routes;
    void *context; // for the handlers
    /// Before a route's handler, as soon as the headers are there; `route` is NULL where no route fits. False: the
    /// reply is filled in.
    bool (*admit)(http_exchange *x, const http_route *route);
    /// When a request has ended, before finish; `cut`: its reply did not get through whole.
    void (*observe)(const http_exchange *x, bool cut);
} http_options;

/// Listens and serves until http_server_free. EIO: the address cannot be had, or a file of TLS not be read.
logitd_status http_server_create(const http_options *options, http_server **out, logitd_error *err);
/// "http://127.0.0.1:8080"
const char *http_server_url(const http_server *s);
http_server *http_server_of(const http_exchange *x);
/// Requests that are being read or answered now.
int http_server_n_exchanges(http_server *s);
/// Ends all connections. Every sleeping exchange must have been woken for good: its next step must not be HTTP_WAIT.
void http_server_free(http_server *s);

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
