/*
 * http_stream.h: the bytes of a streamed reply, handed out in any amounts: what the handler left in x->reply, then one
 * piece after another of x->pull, as they are or compressed (http_coding.h). Holds one piece at a time. Does not wait,
 * and knows nothing of connections.
 */
#ifndef HTTP_STREAM_H
#define HTTP_STREAM_H

#include "http_coding.h"
#include "http_exchange.h"

typedef struct http_stream {
    coder *coder;  // NULL: the pieces go out as they are
    buffer coded;  // what it made of the piece
    size_t n_sent; // of the piece
    bool begun;    // x->reply as the handler left it is, or was, the piece
    bool ended;    // the piece is the last one
} http_stream;

/// Sets up the coding that the client accepts (`accept_encoding`, or NULL) and the reply is worth; returns it. A whole
/// reply needs a stream only for a coding. Without memory for one it goes out as it is.
content_coding http_stream_start(http_stream *s, const http_exchange *x, const char *accept_encoding);
/// Copies what is left of the piece, up to `max` bytes, and returns how many; 0: it is all sent.
size_t http_stream_take(http_stream *s, const http_exchange *x, char *out, size_t max);
/// Makes the next piece, and returns what pull said: after HTTP_WAIT the piece may hold bytes all the same. HTTP_ABORT
/// too when they could not be compressed.
http_step http_stream_next(http_stream *s, http_exchange *x);
void http_stream_free(http_stream *s);

#endif
