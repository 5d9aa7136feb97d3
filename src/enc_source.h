/*
 * enc_source.h: what every encoder of a /distribution reply is given, how it answers, and the parts of a reply that all
 * formats say in the same JSON.
 *
 * An encoder is pulled: each call of its next function appends one piece and says whether there is more now, later, or
 * not at all. So a reply of any size costs the memory of a piece.
 */
#ifndef ENC_SOURCE_H
#define ENC_SOURCE_H

#include "dist_request.h"
#include "enc_tokens.h"

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
    const logitd_job *job; // not needed to know the reply's size
    const char *id;        // of the reply, unique
    int64_t created;       // Unix time, seconds
    double queue_ms;       // may be filled in until the reply's end
    /// ENC_MORE: *logits is the row's [n_vocab], good until the next call; ENC_WAIT: not yet; ENC_FAILED: *err says
    /// why. May be NULL when the request is not full.
    enc_step (*full_row)(void *arg, int iprompt, int irow, const float **logits, logitd_error *err);
    void *arg;
} enc_source;

/// The member that holds an entry's values: "logprob", "prob" or "logit".
const char *enc_values_name(const enc_source *s);
/// How many values an entry has: one a temperature, or the logit alone.
size_t enc_values_of_entry(const enc_source *s);
/// Entries of `top`.
size_t enc_top_n(const enc_source *s);

void enc_put_model(const enc_source *s, buffer *out);    // {"name":…,"architecture":…,"n_vocab":…,"sha256":…}
void enc_put_numerics(const enc_source *s, buffer *out); // {"backend":…, "precision":…, …}
void enc_put_temperatures(const enc_source *s, buffer *out); // [0.5,1]
void enc_put_usage(const enc_source *s, buffer *out);        // {"prompt_tokens":…,"positions":…}

/// Whether a reply may begin: with the first row, or, if `whole`, when the job is done; a full one once the logits of
/// its first row are there too. A failure until then can still be an HTTP status. ENC_MORE, ENC_WAIT, or ENC_FAILED
/// with the error.
enc_step enc_may_begin(const enc_source *s, bool whole, logitd_error *err);
/// Whether row irow of a prompt is there: ENC_MORE, ENC_WAIT, or ENC_FAILED with the error.
enc_step enc_row_ready(const enc_source *s, int iprompt, int irow, logitd_error *err);

#endif
