/*
 * http_server.h: HTTP as a table of routes. The only user of libmicrohttpd. What a handler is and does is
 * http_exchange.h's. Nothing polls.
 *
 * Connections have due times (http_conns.h): for headers, body, and each piece of a reply; whoever is late is cut off.
 * While an exchange sleeps nothing is due of the client, and its socket is watched.
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

#include "http_exchange.h"

typedef struct http_server http_server;

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

#endif
