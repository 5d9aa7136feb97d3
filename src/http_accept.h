/*
 * http_accept.h: reads what a client accepts: lists of names with q-values, as in Accept and Accept-Encoding (RFC 9110,
 * 12.4.2). Does not decide what a name means.
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

#endif
