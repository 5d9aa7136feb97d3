/*
 * enc_reply.h: a /distribution reply in the format that the request asks for, made piece by piece (enc_source.h).
 */
#ifndef ENC_REPLY_H
#define ENC_REPLY_H

#include "enc_json.h"
#include "enc_safetensors.h"

typedef struct enc_reply {
    reply_format format;
    union {
        enc_json json; // and ndjson
        enc_safetensors safetensors;
    };
} enc_reply;

enc_reply enc_reply_start(const enc_source *source);
enc_step enc_reply_next(enc_reply *e, buffer *out);
const logitd_error *enc_reply_error(const enc_reply *e); // of ENC_FAILED

/// The bytes of the whole reply: exactly (*exact), or at most. Known before the job is made.
uint64_t enc_reply_bytes(const enc_source *source, bool *exact);

#endif
