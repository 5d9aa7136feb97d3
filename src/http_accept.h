/*
 * http_accept.h: reads header values about what is sent: lists of names with q-values, as in Accept and Accept-Encoding
 * (RFC 9110, 12.4.2), without deciding what a name means; and whether a Content-Type is JSON's.
 */
#ifndef HTTP_ACCEPT_H
#define HTTP_ACCEPT_H

#include "util.h"

typedef struct accept_item {
    const char *name; // not terminated; without its parameters
    size_t len;
    double q; // 0 … 1; 1 when none is given, 0 when it is not a number
} accept_item;

/// The next item of *rest, which is a header's value or NULL; false at the end.
bool accept_next(const char **rest, accept_item *out);
/// Whether an item's name is `name`, in any case of letters.
bool accept_is(const accept_item *item, const char *name);

/// Whether a Content-Type (or NULL) is application/json, in UTF-8 if it says a charset.
bool content_is_json(const char *type);

#endif
