// http_coding.c: see http_coding.h. Both libraries take their memory from mem_alloc, so that it counts as the
// service's.
#define ZSTD_STATIC_LINKING_ONLY // for ZSTD_customMem
#include "http_coding.h"
#include "http_accept.h"
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define OUT_BYTES  (64u << 10) // room made in the output at once
#define ZSTD_LEVEL 1
#define GZIP_LEVEL 1
#define WINDOW_LOG 18 // of zstd, 256 KiB: what one reply's coder holds stays below 2 MiB

static const char *const names[N_CODINGS] = {"zstd", "gzip", "identity"};

const char *coding_name(content_coding coding) {
    return names[coding];
}

content_coding coding_accepted(const char *accept_encoding) {
    double q[N_CODINGS] = {-1, -1, -1}, others = -1; // -1: not named
    accept_item item;
    while (accept_next(&accept_encoding, &item)) {
        for (int i = 0; i < N_CODINGS; i++) {
            if (accept_is(&item, names[i])) q[i] = item.q;
        }
        if (accept_is(&item, "*")) others = item.q;
    }
    content_coding best = CODING_IDENTITY;
    double best_q = 0;
    for (int i = 0; i < N_CODINGS; i++) {
        double quality = q[i] >= 0 ? q[i] : others;
        if (quality <= best_q) continue;
        best = (content_coding)i;
        best_q = quality;
    }
    return best;
}

struct coder {
    content_coding coding;
    bool pending; // something was written since the last flush
    z_stream zlib;
    ZSTD_CCtx *zstd;
};

static void *zlib_alloc(void *unused, unsigned n, unsigned size) {
    (void)unused;
    return mem_alloc(n, size);
}

static void *zstd_alloc(void *unused, size_t n_bytes) {
    (void)unused;
    return mem_alloc(n_bytes, 1);
}

static void free_memory(void *unused, void *memory) {
    (void)unused;
    mem_free(memory);
}

static bool start_gzip(coder *c, bool is_text) {
    c->zlib = (z_stream){.zalloc = zlib_alloc, .zfree = free_memory};
    const int gzip_head = 16; // added to the window's bits: a gzip head instead of zlib's
    const int strategy = is_text ? Z_DEFAULT_STRATEGY : Z_HUFFMAN_ONLY;
    return deflateInit2(&c->zlib, GZIP_LEVEL, Z_DEFLATED, MAX_WBITS + gzip_head, 8, strategy) == Z_OK;
}

static bool start_zstd(coder *c) {
    c->zstd = ZSTD_createCCtx_advanced((ZSTD_customMem){zstd_alloc, free_memory, NULL});
    return c->zstd && !ZSTD_isError(ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_windowLog, WINDOW_LOG)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_checksumFlag, 1));
}

coder *coder_create(content_coding coding, const char *content_type) {
    ASSERT(coding != CODING_IDENTITY);
    coder *c = mem_alloc(1, sizeof *c);
    if (!c) return NULL;
    c->coding = coding;
    const bool is_text = strstr(content_type, "json") || !strncmp(content_type, "text/", strlen("text/"));
    if (coding == CODING_GZIP ? start_gzip(c, is_text) : start_zstd(c)) return c;
    coder_free(c);
    return NULL;
}

void coder_free(coder *c) {
    if (!c) return;
    if (c->coding == CODING_GZIP) deflateEnd(&c->zlib);
    ZSTD_freeCCtx(c->zstd);
    mem_free(c);
}

static bool write_gzip(coder *c, const void *data, size_t n, coder_end end, buffer *out) {
    static const int modes[] = {[CODER_MORE] = Z_NO_FLUSH, [CODER_FLUSH] = Z_SYNC_FLUSH, [CODER_FINISH] = Z_FINISH};
    ASSERT(n <= UINT_MAX);
    c->zlib.next_in = (z_const Bytef *)data;
    c->zlib.avail_in = (uInt)n;
    do {
        if (!buffer_reserve(out, OUT_BYTES)) return false;
        c->zlib.next_out = (Bytef *)out->data + out->len;
        c->zlib.avail_out = OUT_BYTES;
        if (deflate(&c->zlib, modes[end]) == Z_STREAM_ERROR) return false;
        buffer_grew(out, OUT_BYTES - c->zlib.avail_out);
    } while (c->zlib.avail_out == 0); // full: there may be more
    return true;
}

static bool write_zstd(coder *c, const void *data, size_t n, coder_end end, buffer *out) {
    static const ZSTD_EndDirective modes[] = {
        [CODER_MORE] = ZSTD_e_continue, [CODER_FLUSH] = ZSTD_e_flush, [CODER_FINISH] = ZSTD_e_end};
    ZSTD_inBuffer in = {data, n, 0};
    for (;;) {
        if (!buffer_reserve(out, OUT_BYTES)) return false;
        ZSTD_outBuffer piece = {out->data + out->len, OUT_BYTES, 0};
        size_t left = ZSTD_compressStream2(c->zstd, &piece, &in, modes[end]);
        if (ZSTD_isError(left)) return false;
        buffer_grew(out, piece.pos);
        if (in.pos == in.size && (end == CODER_MORE || left == 0)) return true;
    }
}

bool coder_write(coder *c, const void *data, size_t n, coder_end end, buffer *out) {
    c->pending |= n > 0;
    if (end != CODER_FINISH && !c->pending) return true;
    c->pending = end == CODER_MORE;
    return c->coding == CODING_GZIP ? write_gzip(c, data, n, end, out) : write_zstd(c, data, n, end, out);
}
