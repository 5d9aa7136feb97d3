/*
 * enc_json.h: a /distribution reply as JSON or ndjson text, made piece by piece.
 *
 * The caller pulls: each enc_json_next appends one piece (some prompts' tokens, some rows, a stretch of a full row;
 * about PIECE_BYTES, or one prompt's tokens) and says whether there is more now, later, or not at all. So a reply of
 * any size costs the memory of a piece, and a caller that wants it whole loops. Full rows come from the caller's
 * `full_row`.
 *
 *   json    starts when all rows are there (a failure until then can still be an HTTP status)
 *   ndjson  starts when the first row is there; a failure after that is the last line
 *
 * Knows nothing of HTTP or of the scheduler. Not thread-safe; one encoder a reply.
 */
#ifndef ENC_JSON_H
#define ENC_JSON_H

#include "dist_request.h"
#include "tokenizer.h"

/// For every token the JSON text `"id":504,"text":"The"`, escaped once when the server starts. Immutable.
typedef struct token_json token_json;
token_json *token_json_create(const tokenizer *t); // NULL: no memory
void token_json_free(token_json *table);
/// Appends `{"id":…,"text":…,"bytes":[…]` without the closing brace.
void token_json_append(const token_json *table, const tokenizer *t, int32_t id, buffer *out);

typedef enum enc_step {
    ENC_MORE = 0, // call again
    ENC_WAIT,     // nothing to append until more rows are there
    ENC_END,      // the reply is complete
    ENC_FAILED,   // the reply cannot be completed: the encoder's `error` says why
} enc_step;

/// What a reply is made of. Everything outlives the encoder.
typedef struct enc_source {
    const logitd_model_info *model;
    const tokenizer *tokenizer;
    const token_json *tokens;
    const dist_request *request;
    const logitd_job *job;
    const char *id;  // of the reply, unique
    int64_t created; // Unix time, seconds
    double queue_ms; // may be filled in until the reply's end
    /// ENC_MORE: *logits is the row's [n_vocab], good until the next call; ENC_WAIT: not yet; ENC_FAILED: *err says
    /// why. May be NULL when the request is not full.
    enc_step (*full_row)(void *arg, int iprompt, int irow, const float **logits, logitd_error *err);
    void *arg;
} enc_source;

typedef struct enc_json {
    const enc_source *source;
    int stage;          // of the state machine in enc_json.c
    int iprompt, irow;  // where it stands
    size_t ivalue;      // of a full row: values already written
    logitd_error error; // of ENC_FAILED
} enc_json;

enc_json enc_json_start(const enc_source *source);
enc_step enc_json_next(enc_json *e, buffer *out);

#endif
