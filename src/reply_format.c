// reply_format.c: see reply_format.h.
#include "reply_format.h"
#include "http_accept.h"
#include <string.h>
#include <strings.h>

const reply_format_row reply_formats[N_FORMATS] = {
    [FORMAT_JSON] = {"json", "application/json"},
    [FORMAT_NDJSON] = {"ndjson", "application/x-ndjson"},
    [FORMAT_SAFETENSORS] = {"safetensors", "application/vnd.safetensors"},
};

logitd_status reply_format_named(const char *name, unsigned offered, reply_format *out, logitd_error *err) {
    const char *names[N_FORMATS];
    size_t n = 0;
    for (int i = 0; i < N_FORMATS; i++) {
        if (!(offered & FORMAT_BIT(i))) continue;
        *out = (reply_format)i;
        if (strcmp(name, reply_formats[i].name) == 0) return LOGITD_OK;
        names[n++] = reply_formats[i].name;
    }
    char allowed[80];
    return error_set_param(err, LOGITD_EINVAL, "format", "format is \"%.40s\"; it must be %s", name,
                           error_list_choices(names, n, allowed, sizeof allowed));
}

/// How exactly a media range names a type: 3 itself, 2 its main type, 1 anything, 0 not at all.
static int range_specificity(const accept_item *range, const char *type) {
    if (accept_is(range, "*/*")) return 1;
    bool main_type = range->len >= 2 && !strncmp(range->name + range->len - 2, "/*", 2);
    if (main_type) return strncasecmp(range->name, type, range->len - 1) == 0 ? 2 : 0;
    return accept_is(range, type) ? 3 : 0;
}

/// The q that an Accept header gives a type: that of its most specific range.
static double accept_quality(const char *accept, const char *type) {
    int best = 0;
    double q = 0;
    accept_item range;
    while (accept_next(&accept, &range)) {
        int specificity = range_specificity(&range, type);
        if (specificity <= best) continue;
        best = specificity;
        q = range.q;
    }
    return q;
}

reply_format reply_format_accepted(const char *accept, unsigned offered) {
    reply_format format = FORMAT_JSON;
    double best = 0;
    for (int i = 0; accept && i < N_FORMATS; i++) {
        double q = offered & FORMAT_BIT(i) ? accept_quality(accept, reply_formats[i].media_type) : 0;
        if (q <= best) continue;
        best = q;
        format = (reply_format)i;
    }
    return format;
}
