/*
 * dist_request.h: one request for distributions, read from the JSON of POST /distribution (or made from a text, for
 * `logitd score`) and checked against the model: what the engine is asked, and what the reply must say about it.
 *
 * Owns its memory (one arena) until dist_request_free; logitd_job_create copies what the engine needs.
 */
#ifndef DIST_REQUEST_H
#define DIST_REQUEST_H

#include "reply_format.h"
#include "util.h"

typedef enum dist_dtype { DTYPE_FLOAT32 = 0, DTYPE_FLOAT16 } dist_dtype; // of the values in a safetensors reply

extern const char *const dist_values_names[]; // of each logitd_values, in requests and in replies

typedef struct dist_request {
    arena memory;
    logitd_request request;   // prompts, positions, temperatures, ids: all in `memory`
    const uint32_t **offsets; // [n_prompts] → [n_tokens] first byte of each token in its text, UINT32_MAX for a BOS
                              //   that was added; NULL for a prompt of ids
    reply_format format;
    dist_dtype dtype;
    bool stats;
    int64_t n_prompt_tokens; // over all prompts
    int64_t n_positions;     // over all prompts
} dist_request;

/// Reads the body of POST /distribution; body[n] must be '\0'. `accept` is the Accept header or NULL.
/// Errors: EINVAL, ETOOLARGE, ENOMEM; param is the path of the field. *out is always to be freed.
logitd_status dist_request_parse(const logitd_engine *engine, const char *body, size_t n, const char *accept,
                                 dist_request *out, logitd_error *err);

/// One prompt of text, every position, statistics; the caller may change the rest of the fields afterwards.
logitd_status dist_request_from_text(const logitd_engine *engine, const char *text, size_t n, dist_request *out,
                                     logitd_error *err);

void dist_request_free(dist_request *request);

#endif
