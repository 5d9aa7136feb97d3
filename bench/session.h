/*
 * session.h: one model over one backend, without the engine: a bench decides itself what is in each batch. It is the
 * layer loop and the final projection, which is all that an engine's step computes.
 */
#ifndef SESSION_H
#define SESSION_H

#include "model.h"
#include "profile.h"

typedef struct session_options {
    const char *model_path;
    backend_options backend;
    bool profiled;
    int max_tokens; // of a batch
    int n_kv_rows;  // of the KV cache, all sequences
    int max_rows;   // rows of a projection
} session_options;

typedef struct session {
    gguf_file *file;
    backend *backend;
    profile *profile; // NULL: not profiled
    model *model;
    forward_state *forward;
    // a batch: [max_tokens] each
    int32_t *tokens, *positions;
    int n_tokens;      // of the last batch
    backend_buffer *x; // what its layers left: [n_tokens, n_embd]
    batch_slice *slices;
    // the results of a projection
    project_row *rows; // [max_rows]
    int max_rows;
    arena memory;
} session;

enum { SESSION_TEMPERATURES = 32, SESSION_TOP_N = 1024 };

logitd_status session_open(const session_options *options, session *out, logitd_error *err);
void session_close(session *s);

/// The token of a sequence at a position: the same for every bench and peer.
int32_t session_token(int n_vocab, int position);

/// A batch of n_sequences slices, each n tokens from first_pos on; sequence i has n_kv rows of the cache from i * n_kv
/// on.
token_batch session_batch(session *s, int n_sequences, int n, int first_pos, int n_kv);

/// The layers. What they leave is valid until the next batch.
void session_forward(session *s, const token_batch *batch);
/// Final hidden states of the last n rows of that batch: exactly n rows, valid until the next call.
const backend_buffer *session_hidden(session *s, int n);
/// Statistics, target rank and the top entries of all n rows of final hidden states.
logitd_status session_project(session *s, const backend_buffer *hidden, int n, int n_temperatures, int top_n,
                              logitd_error *err);

/// Bytes of the file that one pass over few tokens must read: all tensors, but not an input embedding of its own.
double session_weight_bytes(const gguf_file *file);
/// Bytes of keys and values that a sequence of n tokens holds.
double session_kv_bytes(const session *s, int n);
/// Multiplies and adds of one pass over n tokens of one sequence from position 0, with n_rows projected: 2 for each
/// weight and token, and for each visible key and dimension of q.k and p.v.
double session_ops(const model_arch *arch, const model_hparams *hp, int n, int n_rows);

#endif
