/*
 * enc_json.h: a /distribution reply as JSON or ndjson text, made piece by piece (enc_source.h).
 *
 * A piece is some prompts' tokens, some rows or a stretch of a full row; about PIECE_BYTES, or one prompt's tokens.
 *
 *   json    starts when all rows are there (a failure until then can still be an HTTP status)
 *   ndjson  starts when the first row is there; a failure after that is the last line
 *
 * Knows nothing of HTTP or of the scheduler. Not thread-safe; one encoder a reply.
 */
#ifndef ENC_JSON_H
#define ENC_JSON_H

#include "enc_source.h"

typedef struct enc_json {
    const enc_source *source;
    int stage;          // of the state machine in enc_json.c
    int iprompt, irow;  // where it stands
    size_t ivalue;      // of a full row: values already written
    logitd_error error; // of ENC_FAILED
} enc_json;

enc_json enc_json_start(const enc_source *source);
enc_step enc_json_next(enc_json *e, buffer *out);
/// The most bytes that the reply can have. The source needs no job yet.
uint64_t enc_json_most_bytes(const enc_source *source);

#endif
