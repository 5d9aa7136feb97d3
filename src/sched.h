/*
 * sched.h: the worker thread that owns the engine, and the bounded queue before it.
 *
 * Life of a job: an HTTP thread submits it (the scheduler now owns it); the worker puts it in the engine, steps, and
 * wakes the submitter when rows became ready, when the job ended and when full rows were made; the submitter releases
 * it exactly once, at any time, and the worker frees it. A released or cancelled job costs at most the step that runs.
 * A job that waits too long for its first batch, or is not computed by its deadline, ends FAILED with EBUSY.
 *
 * Steps. What is in a step, and in which order jobs advance, is the engine's (engine_batch.h). The scheduler decides
 * when it begins: at once, unless jobs have just ended. Their clients often ask again within a millisecond, so it waits
 * for as many new jobs: at most a sixteenth of the step before if it would be less than half full, else two clients
 * with short requests would take turns for ever instead of sharing steps; and a sixteenth of that if it is fuller,
 * else a client of short requests would just miss every step beside long ones.
 *
 * Does not know HTTP. Every function but sched_create and sched_free may be called from any thread.
 */
#ifndef SCHED_H
#define SCHED_H

#include "util.h"

typedef struct sched sched;
typedef struct sched_job sched_job;

typedef struct sched_options {
    logitd_engine *engine;                 // used by the worker alone from now on, until sched_free returns
    int max_jobs;                          // accepted and not yet released; default limits.jobs
    int max_jobs_per_client;               // default limits.jobs_per_client
    int64_t max_queue_us, max_deadline_us; // default limits.queue_s and deadline_s
    int64_t company_us; // longest wait for jobs that may come back, of a step not half full; default: by the one before
} sched_options;

/// Starts the worker.
logitd_status sched_create(const sched_options *options, sched **out, logitd_error *err);
/// Cancels what is left, ends the worker, frees. Every job must have been released.
void sched_free(sched *s);

/// Hands a job over and takes it in either case: on an error it is freed. EBUSY: the queue is full, or draining;
/// EQUOTA: this client (any name) has its part of it.
/// `wake(arg)` is called by the worker with the scheduler's mutex held: it must be short, must not call the scheduler,
/// and may be called for no reason. It is not called after sched_release has returned.
logitd_status sched_submit(sched *s, logitd_job *job, const char *client, void (*wake)(void *arg), void *arg,
                           sched_job **out, logitd_error *err);
void sched_release(sched *s, sched_job *job);
/// Withdraws a job from the engine before the next step; it ends FAILED with ECANCELED. The job stays to be released.
void sched_cancel(sched *s, sched_job *job);

/// The engine's job, to read its rows (logitd.h says when). It has ended once the worker is done with it too.
const logitd_job *sched_job_results(const sched_job *job);
bool sched_job_ended(sched *s, sched_job *job);
double sched_job_queue_ms(sched *s, sched_job *job); // from submission to the first step

/// The logits of row irow of prompt iprompt: ENOMEM, ECANCELED, … : *err says why. OK with *row == NULL: not made yet,
/// wake will be called. Else [n_vocab] logits, for logitd_row_values; good until the next call for this job or its
/// release. Rows before one that is there are given up, and make room for those after it.
logitd_status sched_full_row(sched *s, sched_job *job, int iprompt, int irow, const float **row, logitd_error *err);

/// From now on sched_submit refuses. Accepted jobs go on.
void sched_drain(sched *s);
bool sched_draining(sched *s);
/// Drains and cancels every job; returns once none waits for the worker any more, at most a step later.
void sched_cancel_all(sched *s);

/// Counters since the start, for /health.
#define SCHED_BATCH_SIZES 13 // 1, 2, 4 … 4096 tokens
typedef struct sched_stats {
    int n_queued;  // waiting for the worker
    int n_running; // in the engine
    int n_held;    // accepted and not yet released, those above included
    uint64_t n_accepted, n_refused, n_done, n_failed, n_canceled;
    uint64_t n_steps, n_tokens; // of the engine
    uint64_t n_full_rows;
    uint64_t n_steps_of_size[SCHED_BATCH_SIZES]; // [i]: of more than 2^(i-1) and at most 2^i tokens
} sched_stats;
sched_stats sched_read_stats(sched *s);

#endif
