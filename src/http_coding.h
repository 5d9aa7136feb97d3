/*
 * http_coding.h: content codings: the choice by Accept-Encoding (RFC 9110, 12.5.3), and a reply compressed piece by
 * piece. The only user of zlib and libzstd; both are set to their fastest level, since a reply is sent once.
 */
#ifndef HTTP_CODING_H
#define HTTP_CODING_H

#include "util.h"

typedef enum content_coding { CODING_ZSTD = 0, CODING_GZIP, CODING_IDENTITY, N_CODINGS } content_coding;

/// The coding with the highest q; among equals the first of the enumeration. Identity without a header (NULL), and when
/// nothing else is left.
content_coding coding_accepted(const char *accept_encoding);
/// In Content-Encoding.
const char *coding_name(content_coding coding);

typedef struct coder coder;
typedef enum coder_end {
    CODER_MORE = 0, // more data follows at once: some of it may be kept back
    CODER_FLUSH,    // what was written so far must be readable now
    CODER_FINISH,   // the last data
} coder_end;

/// Not for CODING_IDENTITY. What the content type says is no text is taken for numbers, in which gzip looks for no
/// repetitions: as small, three times as fast. NULL: no memory.
coder *coder_create(content_coding coding, const char *content_type);
/// Appends data[n] to `out`, compressed. False: no memory, or the library failed; the stream is then of no use.
bool coder_write(coder *c, const void *data, size_t n, coder_end end, buffer *out);
void coder_free(coder *c);

#endif
