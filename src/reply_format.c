// reply_format.c: see reply_format.h.
#include "reply_format.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const reply_format_row reply_formats[N_FORMATS] = {
    [FORMAT_JSON] = {"json", "application/json", true},
    [FORMAT_NDJSON] = {"ndjson", "application/x-ndjson", true},
    [FORMAT_SAFETENSORS] = {"safetensors", "application/vnd.safetensors", false},
};

logitd_status reply_format_named(const char *name, reply_format *out, logitd_error *err) {
    for (int i = 0; i < N_FORMATS; i++) {
        if (strcmp(name, reply_formats[i].name) != 0) continue;
        if (!reply_formats[i].offered) {
            return error_set_param(err, LOGITD_EINVAL, "format",
                                   "format \"%s\" is not in this build; it offers \"json\" and \"ndjson\"", name);
        }
        *out = (reply_format)i;
        return LOGITD_OK;
    }
    return error_set_param(err, LOGITD_EINVAL, "format",
                           "format is \"%.40s\"; it must be \"json\", \"ndjson\" or \"safetensors\"", name);
}

/// The next item of a list separated by `separator`, outside quotes and trimmed; false at the end.
static bool next_item(const char **rest, char separator, const char **item, size_t *n) {
    const char *p = *rest;
    if (!p) return false;
    bool quoted = false;
    const char *end = p;
    while (*end && (quoted || *end != separator)) quoted ^= *end++ == '"';
    *rest = *end ? end + 1 : NULL;
    while (p < end && strchr(" \t", *p)) p++;
    while (end > p && strchr(" \t", end[-1])) end--;
    *item = p;
    *n = (size_t)(end - p);
    return true;
}

/// How exactly a media range names a type: 3 itself, 2 its main type, 1 anything, 0 not at all.
static int range_specificity(const char *range, size_t n, const char *type) {
    if (n == 3 && !strncmp(range, "*/*", 3)) return 1;
    if (n >= 2 && !strncmp(range + n - 2, "/*", 2)) return strncasecmp(range, type, n - 1) == 0 ? 2 : 0;
    return n == strlen(type) && strncasecmp(range, type, n) == 0 ? 3 : 0;
}

/// The q parameter after a media range's first semicolon; 1 when there is none, 0 when it is not a number.
static double quality(const char *params) {
    const char *item;
    size_t n;
    while (next_item(&params, ';', &item, &n)) {
        if (n < 2 || strncasecmp(item, "q=", 2) != 0) continue;
        char *end;
        double q = strtod(item + 2, &end);
        return end > item + 2 && q > 0 ? MIN(q, 1.0) : 0;
    }
    return 1;
}

/// The q that an Accept header gives a type: that of its most specific range.
static double accept_quality(const char *accept, const char *type) {
    int best = 0;
    double q = 0;
    const char *item;
    size_t n;
    while (next_item(&accept, ',', &item, &n)) {
        char range[128];
        if (n >= sizeof range) continue;
        memcpy(range, item, n);
        range[n] = '\0';
        const char *params = range, *name;
        size_t name_len;
        next_item(&params, ';', &name, &name_len);
        int specificity = range_specificity(name, name_len, type);
        if (specificity <= best) continue;
        best = specificity;
        q = quality(params);
    }
    return q;
}

logitd_status reply_format_accepted(const char *accept, reply_format *out, logitd_error *err) {
    *out = FORMAT_JSON;
    if (!accept || !*accept) return LOGITD_OK;
    double best = 0;
    for (int i = 0; i < N_FORMATS; i++) {
        double q = reply_formats[i].offered ? accept_quality(accept, reply_formats[i].media_type) : 0;
        if (q <= best) continue;
        best = q;
        *out = (reply_format)i;
    }
    if (best > 0) return LOGITD_OK;
    return error_set(err, LOGITD_EINVAL,
                     "the Accept header \"%.80s\" allows none of the reply's types: application/json, "
                     "application/x-ndjson; application/vnd.safetensors is not in this build",
                     accept);
}
