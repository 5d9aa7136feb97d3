// http_accept.c: see http_accept.h.
#include "http_accept.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct span {
    const char *start, *end;
} span;

/// Cuts the next part off *rest: up to `separator` outside quotes, trimmed. False at the end.
static bool next_part(span *rest, char separator, span *part) {
    if (!rest->start) return false;
    bool quoted = false;
    const char *p = rest->start, *end = p;
    while (end < rest->end && (quoted || *end != separator)) quoted ^= *end++ == '"';
    rest->start = end < rest->end ? end + 1 : NULL;
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t')) end--;
    *part = (span){p, end};
    return true;
}

/// The q among an item's parameters.
static double quality(span params) {
    span part;
    while (next_part(&params, ';', &part)) {
        char text[16] = "";
        size_t n = (size_t)(part.end - part.start);
        if (n < 2 || strncasecmp(part.start, "q=", 2) != 0) continue;
        memcpy(text, part.start + 2, MIN(n - 2, sizeof text - 1));
        char *end;
        double q = strtod(text, &end);
        return end > text && q > 0 ? MIN(q, 1.0) : 0;
    }
    return 1;
}

bool accept_next(const char **rest, accept_item *out) {
    span list = {*rest, *rest ? *rest + strlen(*rest) : NULL}, item, name;
    if (!next_part(&list, ',', &item)) return false;
    *rest = list.start;
    next_part(&item, ';', &name);
    *out = (accept_item){.name = name.start, .len = (size_t)(name.end - name.start), .q = quality(item)};
    return true;
}

bool accept_is(const accept_item *item, const char *name) {
    return item->len == strlen(name) && strncasecmp(item->name, name, item->len) == 0;
}

bool content_is_json(const char *type) {
    size_t n = type ? strcspn(type, "; \t") : 0;
    if (n != strlen("application/json") || strncasecmp(type, "application/json", n) != 0) return false;
    const char *charset = strcasestr(type, "charset=");
    if (!charset) return true;
    charset += strlen("charset=");
    if (*charset == '"') charset++;
    return strncasecmp(charset, "utf-8", 5) == 0 && strchr("\"; \t", charset[5]); // the NUL is found, too
}
