/*
 * fake_reply.h: what the encoders' tests begin with: a request, its job in the fake engine (fake_engine.h), and the
 * source of a reply to it. One at a time, as the engine is.
 */
#ifndef FAKE_REPLY_H
#define FAKE_REPLY_H

#include "enc_source.h"
#include "fake_engine.h"

typedef struct fake_reply {
    logitd_engine *engine;
    dist_request request;
    logitd_job *job;
    token_json *tokens;
    enc_source source;
    float row[FAKE_VOCAB]; // the full row last made
} fake_reply;

/// Reads the body of a request, which must be a right one. The source has no job yet.
void fake_reply_begin(fake_reply *r, const char *body);
/// Hands the job to the engine; its steps are the test's.
void fake_reply_submit(fake_reply *r);
/// Frees everything, and sets `fake` back.
void fake_reply_end(fake_reply *r);

#endif
