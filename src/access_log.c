// access_log.c: see access_log.h.
#include "access_log.h"
#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static pthread_once_t prefix_once = PTHREAD_ONCE_INIT;
static uint64_t prefix; // random, so that ids of two servers differ

static void make_prefix(void) {
    prefix = util_random();
}

void request_id_choose(const char *offered, char out[HTTP_REQUEST_ID_BYTES]) {
    static atomic_ullong n_ids;
    size_t n = offered ? strlen(offered) : 0;
    bool fits = n > 0 && n < HTTP_REQUEST_ID_BYTES;
    for (size_t i = 0; fits && i < n; i++) fits = isalnum((unsigned char)offered[i]) || strchr("._-", offered[i]);
    if (fits) {
        memcpy(out, offered, n + 1);
        return;
    }
    pthread_once(&prefix_once, make_prefix);
    snprintf(out, HTTP_REQUEST_ID_BYTES, "%016llx-%llu", (unsigned long long)prefix, atomic_fetch_add(&n_ids, 1) + 1);
}

/// Printable, and without what JSON escapes: paths are decoded by now and may hold anything.
static void copy_plain(const char *text, char *out, size_t size) {
    size_t n = 0;
    for (; text[n] && n + 1 < size; n++) {
        char c = text[n];
        out[n] = c > ' ' && c < 0x7F && c != '"' && c != '\\' ? c : '?';
    }
    out[n] = '\0';
}

void access_log_write(const http_exchange *x, bool cut) {
    if (log_threshold < LOG_INFO) return;
    char path[128], method[16], members[512];
    copy_plain(x->path, path, sizeof path);
    copy_plain(x->method, method, sizeof method);
    const double ms = (double)(clock_us() - x->start_us) / 1000;
    const long long n_tokens = x->n_tokens, n_bytes = (long long)x->n_reply_bytes;
    snprintf(members, sizeof members,
             "\"request_id\":\"%s\",\"client\":\"%s\",\"method\":\"%s\",\"path\":\"%s\",\"status\":%d,\"ms\":%.1f,"
             "\"tokens\":%lld,\"reply_bytes\":%lld,\"cut\":%s",
             x->request_id, x->client, method, path, x->status, ms, n_tokens, n_bytes, cut ? "true" : "false");
    char text[320], tokens[40] = "";
    if (n_tokens) snprintf(tokens, sizeof tokens, " %lld tokens", n_tokens);
    snprintf(text, sizeof text, "%s %s %d %.1f ms%s%s", method, path, x->status, ms, tokens, cut ? " (cut)" : "");
    log_members(LOG_INFO, text, members);
}
