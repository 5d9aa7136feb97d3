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

/// Writes what is offered as a sentence needs it: `"json", "ndjson" or "safetensors"`, or the media types.
static const char *list_offered(unsigned offered, bool media_types, char text[160]) {
    size_t used = 0;
    for (int i = 0; i < N_FORMATS; i++) {
        if (!(offered & FORMAT_BIT(i))) continue;
        bool last = !(offered >> (i + 1));
        const char *quote = media_types ? "" : "\"",
                   *name = media_types ? reply_formats[i].media_type : reply_formats[i].name;
        used += (size_t)snprintf(text + used, 160 - used, "%s%s%s%s",
                                 used == 0 ? ""
                                 : last    ? " or "
                                           : ", ",
                                 quote, name, quote);
    }
    return text;
}

logitd_status reply_format_named(const char *name, unsigned offered, reply_format *out, logitd_error *err) {
    for (int i = 0; i < N_FORMATS; i++) {
        *out = (reply_format)i;
        if ((offered & FORMAT_BIT(i)) && strcmp(name, reply_formats[i].name) == 0) return LOGITD_OK;
    }
    char text[160];
    return error_set_param(err, LOGITD_EINVAL, "format", "format is \"%.40s\"; it must be %s", name,
                           list_offered(offered, false, text));
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

logitd_status reply_format_accepted(const char *accept, unsigned offered, reply_format *out, logitd_error *err) {
    *out = FORMAT_JSON;
    if (!accept || !*accept) return LOGITD_OK;
    double best = 0;
    for (int i = 0; i < N_FORMATS; i++) {
        double q = offered & FORMAT_BIT(i) ? accept_quality(accept, reply_formats[i].media_type) : 0;
        if (q <= best) continue;
        best = q;
        *out = (reply_format)i;
    }
    if (best > 0) return LOGITD_OK;
    char text[160];
    return error_set(err, LOGITD_EINVAL, "the Accept header \"%.80s\" allows none of the reply's types: %s", accept,
                     list_offered(offered, true, text));
}
