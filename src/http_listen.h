/*
 * http_listen.h: what a server is reached by: the socket that it listens on, its URL, and the files of TLS. Knows
 * neither HTTP nor the library. Errors are sentences that name the flag to change.
 */
#ifndef HTTP_LISTEN_H
#define HTTP_LISTEN_H

#include "util.h"

/// Opens a listening socket, which the caller closes. `host`: a name or an address; `port` 0: any free one. EIO, and
/// *fd is then -1.
logitd_status http_listen(const char *host, int port, int *fd, logitd_error *err);
/// Whether the socket is for this machine alone.
bool http_listens_on_loopback(int fd);
/// "http://127.0.0.1:8080", or https.
void http_listen_url(int fd, bool tls, char *out, size_t size);

/// Reads a PEM file, a certificate chain or a key, into an empty buffer, which the caller wipes and frees. EIO.
logitd_status http_read_pem(const char *path, buffer *out, logitd_error *err);

#endif
