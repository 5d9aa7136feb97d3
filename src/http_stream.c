// http_stream.c: see http_stream.h.
#include "http_stream.h"
#include "limits.h"
#include <string.h>

enum { KEPT_BYTES = 4 << 20 }; // of a piece's memory, for the next: more than rows of the most entries take

content_coding http_stream_start(http_stream *s, const http_exchange *x, const char *accept_encoding) {
    const bool worth_it = x->status == 200 && (x->pull || x->reply.len >= LIMIT_CODED_BYTES);
    const content_coding coding = worth_it ? coding_accepted(accept_encoding) : CODING_IDENTITY;
    if (coding != CODING_IDENTITY) s->coder = coder_create(coding, x->content_type);
    s->begun = !s->coder;
    return s->coder ? coding : CODING_IDENTITY;
}

static const buffer *piece_of(const http_stream *s, const http_exchange *x) {
    return s->coder ? &s->coded : &x->reply;
}

size_t http_stream_take(http_stream *s, const http_exchange *x, char *out, size_t max) {
    const buffer *piece = piece_of(s, x);
    const size_t n = MIN(max, piece->len - s->n_sent);
    if (n) memcpy(out, piece->data + s->n_sent, n);
    s->n_sent += n;
    return n;
}

http_step http_stream_next(http_stream *s, http_exchange *x) {
    static const coder_end ends[] = {
        [HTTP_DONE] = CODER_FINISH, [HTTP_WAIT] = CODER_FLUSH, [HTTP_MORE] = CODER_MORE, [HTTP_ABORT] = CODER_FLUSH};
    http_step step = x->pull ? HTTP_MORE : HTTP_DONE;
    if (s->begun) {
        ASSERT(x->pull && !s->ended);
        if (x->reply.cap > KEPT_BYTES) buffer_free(&x->reply); // the first piece, which might have been the whole
        x->reply.len = 0;
        step = x->pull(x, &x->reply);
    }
    s->begun = true;
    s->coded.len = s->n_sent = 0;
    if (s->coder && !coder_write(s->coder, x->reply.data, x->reply.len, ends[step], &s->coded)) {
        log_line(LOG_WARN, "a reply was cut: it could not be compressed");
        step = HTTP_ABORT;
    }
    s->ended = step == HTTP_DONE || step == HTTP_ABORT;
    return step;
}

void http_stream_free(http_stream *s) {
    buffer_free(&s->coded);
    coder_free(s->coder);
}
