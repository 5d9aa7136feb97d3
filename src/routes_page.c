/*
 * routes_page.c: GET / and GET /docs: the documents of pages.h, which never change while the server runs. They are kept
 * by browsers and asked for again by ETag: 304 when nothing changed. The tag is a weak one, since a reply may be
 * compressed.
 */
#include "pages.h"
#include "routes.h"
#include "sha256.h"
#include <string.h>

#define ETAG_BYTES 40

static void write_etag(const char *html, size_t n_bytes, char out[ETAG_BYTES]) {
    char hex[65];
    sha256_hex(html, n_bytes, hex);
    snprintf(out, ETAG_BYTES, "W/\"%.32s\"", hex);
}

/// Whether If-None-Match names the tag: the opaque parts are compared (RFC 9110, 8.8.3.2 and 13.1.2).
static bool client_has(const http_exchange *x, const char *etag) {
    const char *tags = http_header(x, "If-None-Match");
    return tags && (strcmp(tags, "*") == 0 || strstr(tags, strchr(etag, '"')));
}

/// `csp`: the value of the Content-Security-Policy header.
static http_step send_page(http_exchange *x, const char *html, size_t html_bytes, const char *csp, size_t csp_bytes) {
    char etag[ETAG_BYTES], policy[1024];
    write_etag(html, html_bytes, etag);
    ASSERT(csp_bytes < sizeof policy);
    memcpy(policy, csp, csp_bytes);
    policy[csp_bytes] = '\0';
    http_add_header(x, "ETag", etag);
    http_add_header(x, "Cache-Control", "no-cache"); // kept, and asked for again each time
    http_add_header(x, "Content-Security-Policy", policy);
    http_add_header(x, "X-Content-Type-Options", "nosniff");
    http_add_header(x, "Referrer-Policy", "no-referrer");
    x->content_type = "text/html; charset=utf-8";
    x->status = client_has(x, etag) ? 304 : 200;
    if (x->status == 200) buffer_append(&x->reply, html, html_bytes);
    return HTTP_DONE;
}

http_step handle_explorer(http_exchange *x) {
    return send_page(x, explorer_html, (size_t)(explorer_html_end - explorer_html), explorer_csp,
                     (size_t)(explorer_csp_end - explorer_csp));
}

http_step handle_docs(http_exchange *x) {
    return send_page(x, docs_html, (size_t)(docs_html_end - docs_html), docs_csp, (size_t)(docs_csp_end - docs_csp));
}
