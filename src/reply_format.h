/*
 * reply_format.h: the formats of a reply as a table, and the choice among them: the request's `format` wins; else the
 * Accept header (RFC 9110, 12.5.1: media ranges with q-values); else JSON.
 */
#ifndef REPLY_FORMAT_H
#define REPLY_FORMAT_H

#include "util.h"

typedef enum reply_format { FORMAT_JSON = 0, FORMAT_NDJSON, FORMAT_SAFETENSORS, N_FORMATS } reply_format;

typedef struct reply_format_row {
    const char *name;       // in the request's `format`
    const char *media_type; // in Accept and Content-Type
} reply_format_row;
extern const reply_format_row reply_formats[N_FORMATS];

/// A set of formats: a bit for each.
#define FORMAT_BIT(format) (1u << (format))
#define FORMATS_ALL        (FORMAT_BIT(N_FORMATS) - 1)

/// By name. Not in the set `offered`: EINVAL with param "format".
logitd_status reply_format_named(const char *name, unsigned offered, reply_format *out, logitd_error *err);
/// By an Accept header or NULL: the offered format with the highest q, among equals the first of the table; JSON for a
/// client that accepts none of them (RFC 9110, 12.5.1, leaves that to the server).
reply_format reply_format_accepted(const char *accept, unsigned offered);

#endif
