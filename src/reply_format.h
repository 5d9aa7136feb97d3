/*
 * reply_format.h: the formats of a /distribution reply as a table, and the choice among them: the request's `format`
 * wins; else the Accept header (RFC 9110, 12.5.1: media ranges with q-values); else JSON.
 */
#ifndef REPLY_FORMAT_H
#define REPLY_FORMAT_H

#include "util.h"

typedef enum reply_format { FORMAT_JSON = 0, FORMAT_NDJSON, FORMAT_SAFETENSORS, N_FORMATS } reply_format;

typedef struct reply_format_row {
    const char *name;       // in the request's `format`
    const char *media_type; // in Accept and Content-Type
    bool offered;           // false: part of the contract, not in this build
} reply_format_row;
extern const reply_format_row reply_formats[N_FORMATS];

/// By name. Unknown or not offered: EINVAL with param "format".
logitd_status reply_format_named(const char *name, reply_format *out, logitd_error *err);
/// By an Accept header (NULL: JSON): the offered format with the highest q; among equals the first of the table.
logitd_status reply_format_accepted(const char *accept, reply_format *out, logitd_error *err);

#endif
