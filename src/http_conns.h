/*
 * http_conns.h: the open connections of the server: whose they are, how many a client has, until when each must have
 * got on with what it is doing, and when its client hangs up. libmicrohttpd limits the pause between two bytes at most,
 * and may not notice a client that leaves: not while a connection is suspended, and not when its last bytes and its end
 * came together.
 *
 * A thread watches all sockets with epoll. When a client hangs up (or closes its sending side) the server's function is
 * called once; a connection that then still owes a request's bytes is cut shortly after. Once a second the connections
 * that are late are cut. To cut is to shut the socket down, which libmicrohttpd sees.
 *
 * A client is an IPv4 address, or the /64 network of an IPv6 one. Knows neither HTTP nor the library. Every function
 * may be called from any thread.
 */
#ifndef HTTP_CONNS_H
#define HTTP_CONNS_H

#include "util.h"

struct sockaddr;
typedef struct http_conns http_conns;
typedef struct http_conn http_conn;

/// on_hang_up(arg, conn) must be short and must not call this module with `conns`. EIO, ENOMEM.
logitd_status http_conns_create(void (*on_hang_up)(void *arg, const http_conn *conn), void *arg, http_conns **out,
                                logitd_error *err);
/// No connection is left.
void http_conns_free(http_conns *c);

/// A new connection, which is to send headers; cut at once where its client has so many that not even a refusal is
/// worth another. NULL: no memory, or the socket cannot be watched.
http_conn *http_conn_add(http_conns *c, int fd, const struct sockaddr *address);
/// Before the socket is closed.
void http_conn_remove(http_conns *c, http_conn *conn);

const char *http_conn_client(const http_conn *conn);
bool http_conn_hung_up(const http_conn *conn);

/// Whether this connection is one too many, of all or of its client's: its requests are to be refused.
typedef enum http_crowd { CROWD_NONE = 0, CROWD_SERVER, CROWD_CLIENT } http_crowd;
http_crowd http_conn_crowd(const http_conn *conn);

typedef enum http_expected {
    EXPECT_NOTHING = 0, // the server works
    EXPECT_HEADERS,     // of a request, whole, within limits.header_s
    EXPECT_BODY,        // whole, within limits.body_s
    EXPECT_READING,     // of a piece of a reply, within limits.stall_s
} http_expected;
/// What the client must do from now on. `n_bytes` of EXPECT_READING: the size of a piece larger than some 64 KiB, which
/// may take a second more for each KiB; else 0.
void http_conn_expect(http_conn *conn, http_expected what, size_t n_bytes);

#endif
