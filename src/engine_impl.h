/*
 * engine_impl.h: what job.c (a request's results), engine_batch.c (whose turn it is) and engine.c (the work) share.
 *
 * Who touches what. A job is written by the worker alone once it is submitted; other threads read rows below the
 * published `rows_ready` of a prompt, and `state`. Both are atomics stored with release after the rows were written.
 */
#ifndef ENGINE_IMPL_H
#define ENGINE_IMPL_H

#include "model.h"
#include "tokenizer.h"
#include <stdatomic.h>

/// One prompt of a job and the results of its positions. Rows are kept for each distinct position, ascending; the
/// request's own order and duplicates are `slot`.
typedef struct prompt_state {
    const int32_t *tokens; // [n_tokens]
    int n_tokens;
    const int32_t *positions; // [n_positions] as asked
    const int32_t *slot;      // [n_positions] row of each asked position
    int n_positions;
    const int32_t *row_position; // [n_rows] distinct positions, ascending
    int n_rows;
    int n_needed; // tokens to run: one past the last asked position; 0: none asked
    // results; T, N, K as in logitd.h
    float *logsumexp, *entropy, *varentropy, *next_logprob; // [n_rows][T]
    int32_t *next_rank;                                     // [n_rows]
    int32_t *top_id;                                        // [n_rows][N]
    float *top_value;                                       // [n_rows][T][N] or [n_rows][N]
    float *listed_value;                                    // [n_rows][T][K] or [n_rows][K]
    float *max;                                             // [n_rows] largest logit
    double *log_sum;                                        // [n_rows][T] log of the sum of exp x
    float *hidden;                                          // [n_rows][n_embd] after the final norm, if `full`
    bool *projected;                                        // [n_rows] of a deferred job: has statistics, if `full`
    // progress, the worker's
    int n_done;         // tokens run
    int n_rows_done;    // rows filled in; of a deferred job: whose hidden states are kept
    int n_take;         // tokens of the batch being formed
    int kv_first, n_kv; // the rows of the KV cache that it holds; n_kv 0: none
    // published
    atomic_int rows_ready; // asked positions whose rows are there, counted from the first
} prompt_state;

struct logitd_job {
    logitd_request request; // a copy, in memory
    prompt_state *prompts;  // [n_prompts]
    int n_vocab, n_embd;
    int n_top;     // min(top_n, n_vocab)
    bool deferred; // its rows get their statistics with their logits, in logitd_project_rows
    arena memory;
    logitd_error error; // valid once state is FAILED
    _Atomic double compute_ms;
    atomic_int state; // logitd_state
    // the batcher's (engine_batch.h)
    logitd_job *next; // submitted after it
    uint64_t client;  // whose it is
    int64_t n_left;   // tokens to run that are in no batch yet
    int first_open;   // first prompt with tokens to run
    // … while a batch is formed
    logitd_job *eldest;      // the oldest job of the same client
    logitd_job *next_eldest; // of an eldest: that of another client
    int64_t n_client_left;   // of an eldest: n_left over all jobs of the client
    logitd_job *next_turn;   // whose turn is next
};

/// Turns what project_stats gave into the row's results. False where the logits are not finite numbers.
bool job_store_row(logitd_job *job, prompt_state *prompt, int irow, const project_row *row);
/// Adds to the job's compute_ms, which others read meanwhile.
void job_add_ms(logitd_job *job, double ms);
/// Publishes the asked positions that are done, and DONE with the last of all.
void job_publish(logitd_job *job);
void job_fail(logitd_job *job, const logitd_error *error);

/// Whether full jobs are deferred: where one pass gives statistics and logits, two would be wasted.
bool engine_defers(const logitd_engine *engine);

#endif
