/*
 * engine_batch.h: which tokens run in the next step. Owns the list of submitted jobs and the rows of the KV cache;
 * computes nothing. The worker's alone.
 *
 * A step packs up to `batch_tokens` tokens of any jobs densely, so that all of them share one pass over the weights and
 * one final projection. A job's prompts run in their order; tokens after its last asked position never run.
 *
 * Order.
 *   1. A quarter of all tokens goes to the jobs in order of arrival. So nobody starves, whatever comes later. What is
 *      left over in dividing a step by four counts in the next one: of steps of one token it is every fourth.
 *   2. The rest goes to the client with the fewest tokens left over all its jobs, and of a client's jobs to those with
 *      the fewest left, the older first among equals. So a short job waits for the step that runs and for still shorter
 *      ones, not for the long ones before it, and a client that sends a hundred at once waits for the one of another.
 *
 * KV cache.
 *     [ pages: kv_tokens, in runs of KV_PAGE rows | step: batch_tokens rows, one for each row of a batch ]
 *   A prompt that 1. or 2. takes whole needs its keys and values in that step alone: they take the step's rows, and it
 *   never waits for pages. A prompt that is cut holds consecutive pages from its first step to its last. When no run
 *   of free pages is long enough for the oldest job that needs one, no other prompt gets pages either, and those that
 *   hold some have the quarter of 1. to themselves: they end, and it is next.
 */
#ifndef ENGINE_BATCH_H
#define ENGINE_BATCH_H

#include "engine_impl.h"

typedef struct batcher {
    int batch_tokens;
    logitd_job *jobs;  // submitted and not ended, oldest first
    uint8_t *kv_pages; // [n_kv_pages] 1: taken
    int n_kv_pages;
    int age_owed;  // quarters of a token, less than a whole one, that 1. has still to get
    bool may_hold; // whether the step that last had tokens for 1. found pages for all of them
    // the batch last formed
    int32_t *tokens, *positions; // [batch_tokens]
    batch_slice *slices;         // [batch_tokens], n_slices of them in use
    prompt_state **slice_prompt; // [batch_tokens] whose rows a slice holds; a job's slices follow each other
    logitd_job **slice_job;      // [batch_tokens]
} batcher;

/// False: no memory. In either case free with batcher_free.
bool batcher_init(batcher *b, int batch_tokens, int kv_tokens);
void batcher_free(batcher *b);
/// Rows of the KV cache that the backend must have.
int batcher_kv_rows(const batcher *b);

/// `client`: whose it is, any number. The job's `n_left` says afterwards how many tokens it has to run; with 0 it is
/// never in a batch.
void batcher_add(batcher *b, logitd_job *job, uint64_t client);
/// Takes a job out, wherever it stands, and its pages back.
void batcher_remove(batcher *b, logitd_job *job);

/// Chooses the tokens of the next step and takes them from their jobs' `n_left`. No tokens: nothing to do.
token_batch batcher_form(batcher *b);
/// After the batch has run: its tokens count as done, and prompts that are through give their pages back.
void batcher_finish(batcher *b, const token_batch *batch);

#endif
