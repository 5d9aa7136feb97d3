/*
 * enc_safetensors.h: a /distribution reply as a safetensors file, made piece by piece (enc_source.h). Its size is known
 * before the first byte; values are the bits that the JSON reply prints.
 *
 * Tensors of prompt i, in the order of their data; P positions, T temperatures, V the vocabulary, N = top_n, K listed
 * ids, n tokens. {v} is "logprob", "prob" or "logit", which has no T:
 *
 *   prompt.{i}.{v}                      [P,T,V]    of a full request
 *   prompt.{i}.tokens                   [n]    i32
 *   prompt.{i}.offsets                  [n]    i32    first byte in the text, -1 for a BOS; of prompts that are text
 *   prompt.{i}.positions                [P]    i32
 *   prompt.{i}.logsumexp .entropy .varentropy .next_logprob   [P,T] f32    unless stats is false
 *   prompt.{i}.next_rank                [P]    i32                         unless stats is false
 *   prompt.{i}.top_id                   [P,N]  i32
 *   prompt.{i}.top_{v}  .listed_{v}     [P,T,N]  [P,T,K]
 *
 * Those with {v} are f32, or f16 where the request says so (float16.h). A tensor whose width is zero is left out. At
 * the last position next_logprob is NaN and next_rank -1.
 *
 * The reply starts with its first row; a failure after that cuts it short. Not thread-safe; one encoder a reply.
 */
#ifndef ENC_SAFETENSORS_H
#define ENC_SAFETENSORS_H

#include "enc_source.h"

typedef struct enc_safetensors {
    const enc_source *source;
    bool begun;
    int iprompt, itensor, irow; // where it stands
    size_t ivalue;              // of a full row: values already written
    logitd_error error;         // of ENC_FAILED
} enc_safetensors;

enc_safetensors enc_safetensors_start(const enc_source *source);
enc_step enc_safetensors_next(enc_safetensors *e, buffer *out);
/// The exact size of the reply; 0: no memory. The source needs no job yet.
uint64_t enc_safetensors_bytes(const enc_source *source);

#endif
