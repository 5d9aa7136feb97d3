/*
 * sched.c: see sched.h.
 *
 * Guards. `mutex` guards every field of struct sched and of struct sched_job except those marked [worker], which only
 * the worker touches, and [fixed], which are set before the job is seen by a second thread. In `full`, the rows that
 * are held are the submitter's, the other places the worker's while `want` is WANT_ROWS. The worker gives the mutex
 * away while the engine computes and while memory is freed; only the worker takes jobs out of the list and frees them,
 * so it may use a job without the mutex.
 */
#include "sched.h"
#include "limits.h"
#include <pthread.h>
#include <string.h>
#include <time.h>

#define SCHED_CLIENT_BYTES 64 // longer names are told apart by their start

// The longest wait for company: a sixteenth of a step, or of that a sixteenth where the next one has much to do anyway.
enum { COMPANY_DIVISOR = 16 };
enum phase { QUEUED, RUNNING, ENDED };
enum want { WANT_NOTHING, WANT_ROWS, ROWS_FAILED };

struct sched_job {
    sched_job *next;
    logitd_job *job;                 // [fixed]
    void (*wake)(void *arg);         // [fixed]
    void *arg;                       // [fixed]
    char client[SCHED_CLIENT_BYTES]; // [fixed]
    uint64_t client_number;          // [fixed] the same for all jobs of a client that are held at once
    int64_t submitted_us;            // [fixed]
    int64_t started_us;              // 0: not yet
    enum phase phase;
    bool canceled, released;
    int64_t n_rows_seen;     // [worker] rows that the submitter has been woken for
    enum want want;          // of the rows after the held ones
    int iprompt, irow, n;    // the full rows held
    float *full;             // [rows_held_max][n_vocab] logits, row i in place i modulo that; NULL until first wanted
    logitd_error full_error; // of ROWS_FAILED
};

struct sched {
    pthread_mutex_t mutex;
    pthread_cond_t work;     // signalled whenever the worker may have something to do
    pthread_cond_t advanced; // signalled when the worker has looked at every job
    pthread_t worker;
    logitd_engine *engine; // [worker], but for functions that logitd.h marks [any]
    sched_job *jobs;       // every job that is not freed, oldest first
    sched_job **jobs_end;
    int max_jobs, max_jobs_per_client;     // [fixed]
    int64_t max_queue_us, max_deadline_us; // [fixed]
    int64_t company_us_max;                // [fixed] 0: by the step before
    uint64_t company;      // [worker] the next step waits until so many jobs were accepted since the start …
    int64_t company_us;    // [worker] … or so long, if it would be less than half full
    int64_t step_ended_us; // [worker] … from here on
    bool draining, stopping;
    bool news; // something changed since the worker last looked: the condition of `work`
    sched_stats stats;
};

static void signal_worker(sched *s) {
    s->news = true;
    pthread_cond_signal(&s->work);
}

// ----------------------------------------------------------------------------------------- the worker, lock held

static void free_job(sched_job *j) {
    mem_free(j->full);
    logitd_job_free(j->job);
    mem_free(j);
}

static void end_job(sched *s, sched_job *j) {
    if (j->phase == RUNNING) s->stats.n_running--;
    if (j->phase == QUEUED) s->stats.n_queued--;
    j->phase = ENDED;
    bool done = logitd_job_state(j->job) == LOGITD_DONE;
    *(done ? &s->stats.n_done : j->canceled || j->released ? &s->stats.n_canceled : &s->stats.n_failed) += 1;
    if (!j->released) j->wake(j->arg);
}

/// Whether a running job has waited too long for its first batch, or is not done in time; *err says which.
static bool past_deadline(const sched *s, const sched_job *j, logitd_error *err) {
    const int64_t age_us = clock_us() - j->submitted_us;
    if (age_us > s->max_deadline_us) {
        error_set(err, LOGITD_EBUSY,
                  "the request was not computed within %.0f s, which is the limit; send less at once",
                  (double)s->max_deadline_us / 1e6);
        return true;
    }
    if (age_us <= s->max_queue_us || logitd_job_compute_ms(j->job) > 0) return false;
    error_set(err, LOGITD_EBUSY,
              "the request waited more than %.0f s for its turn, which is the limit; try again later",
              (double)s->max_queue_us / 1e6);
    return true;
}

/// Moves one job as far as it goes without computing: into the engine, out of it, or to its end. False: it is to be
/// freed.
static bool advance_job(sched *s, sched_job *j) {
    bool unwanted = j->canceled || j->released || s->stopping;
    if (j->phase == QUEUED && !unwanted) {
        logitd_error err; // a refusal shows in the job's state
        j->started_us = clock_us();
        j->phase = RUNNING;
        s->stats.n_queued--;
        s->stats.n_running++;
        if (logitd_submit(s->engine, j->job, j->client_number, &err)) {
            log_line(LOG_WARN, "the engine refused a job: %s", err.message);
            unwanted = true;
        }
    }
    logitd_error late;
    bool is_late = j->phase == RUNNING && !unwanted && past_deadline(s, j, &late);
    if (j->phase != ENDED && (unwanted || is_late)) {
        logitd_withdraw(s->engine, j->job, is_late ? &late : NULL);
        end_job(s, j);
    }
    if (j->want == WANT_ROWS && unwanted) {
        error_set(&j->full_error, LOGITD_ECANCELED, "the request was cancelled");
        j->want = ROWS_FAILED;
        if (!j->released) j->wake(j->arg);
    }
    return !j->released;
}

/// Advances every job. Released ones leave the list and are freed, without the mutex.
static void advance_all(sched *s) {
    sched_job *dead = NULL;
    for (sched_job **at = &s->jobs; *at;) {
        sched_job *j = *at;
        if (advance_job(s, j)) {
            at = &j->next;
            continue;
        }
        *at = j->next;
        if (!*at) s->jobs_end = at;
        s->stats.n_held--;
        j->next = dead;
        dead = j;
    }
    if (!dead) return;
    pthread_mutex_unlock(&s->mutex);
    while (dead) {
        sched_job *next = dead->next;
        free_job(dead);
        dead = next;
    }
    pthread_mutex_lock(&s->mutex);
}

/// Rows of a job that are ready, over its prompts.
static int64_t rows_ready(const logitd_job *job) {
    int64_t n = 0;
    for (int i = 0; i < logitd_job_request(job)->n_prompts; i++) n += logitd_job_rows_ready(job, i);
    return n;
}

/// After a step: wakes the submitters of jobs that got rows or ended.
static void report_progress(sched *s) {
    for (sched_job *j = s->jobs; j; j = j->next) {
        if (j->phase != RUNNING) continue;
        logitd_state state = logitd_job_state(j->job);
        if (state == LOGITD_DONE || state == LOGITD_FAILED) {
            end_job(s, j);
            continue;
        }
        int64_t n = rows_ready(j->job);
        if (n != j->n_rows_seen && !j->released) j->wake(j->arg);
        j->n_rows_seen = n;
    }
}

// ---------------------------------------------------------------------------------------------------- the worker

/// Full rows that are made at once, and the most that a job holds.
static int rows_at_once(const sched *s) {
    return limit_full_rows(logitd_model(s->engine)->n_vocab);
}

static int rows_held_max(const sched *s) {
    return rows_at_once(s) * LIMIT_FULL_HELD / LIMIT_FULL_ROWS;
}

static float *row_place(const sched *s, const sched_job *j, int irow) {
    return j->full + (size_t)(irow % rows_held_max(s)) * (size_t)logitd_model(s->engine)->n_vocab;
}

/// Makes full rows after those that a job holds. Takes and gives the mutex around the engine: meanwhile the reader may
/// go on among the held ones.
static void make_full_rows(sched *s, sched_job *j) {
    const int first = j->irow + j->n, n_places = rows_held_max(s) - j->n;
    pthread_mutex_unlock(&s->mutex);
    logitd_status status = LOGITD_OK;
    const int n = MIN(MIN(rows_at_once(s), n_places), logitd_job_rows_ready(j->job, j->iprompt) - first);
    ASSERT(n > 0);
    if (!j->full)
        j->full = mem_alloc((size_t)rows_held_max(s), (size_t)logitd_model(s->engine)->n_vocab * sizeof(float));
    if (j->full) {
        float *places[LIMIT_FULL_ROWS];
        for (int i = 0; i < n; i++) places[i] = row_place(s, j, first + i);
        status = logitd_project_rows(s->engine, j->job, j->iprompt, first, n, places, &j->full_error);
    } else {
        status = error_set(&j->full_error, LOGITD_ENOMEM, "no memory for full rows; try again later");
    }
    pthread_mutex_lock(&s->mutex);
    j->want = status ? ROWS_FAILED : WANT_NOTHING;
    j->n += status ? 0 : n;
    s->stats.n_full_rows += status ? 0 : (uint64_t)n;
    if (!j->released) j->wake(j->arg);
}

/// One call for every reply that waits for full rows: steps go on in between, so nobody starves.
static void serve_full_rows(sched *s) {
    for (sched_job *j = s->jobs; j; j = j->next) { // appended to while the mutex is given away, never shortened
        if (j->want == WANT_ROWS && !j->released && !j->canceled) make_full_rows(s, j);
    }
}

static void count_size(sched_stats *stats, int n_tokens) {
    int i = 0;
    while (i < SCHED_BATCH_SIZES && 1 << i < n_tokens) i++;
    if (n_tokens > 0 && i < SCHED_BATCH_SIZES) stats->n_steps_of_size[i]++;
}

/// Jobs that have come to their end, however.
static uint64_t n_ended(const sched *s) {
    return s->stats.n_done + s->stats.n_failed + s->stats.n_canceled;
}

/// Waits for jobs that may come back, or for any other news (sched.h, Steps). False: there is nothing to wait for.
static bool wait_for_company(sched *s) {
    if (s->stats.n_accepted >= s->company || s->draining) return false;
    const bool busy = 2 * logitd_tokens_left(s->engine) >= logitd_model(s->engine)->batch_tokens;
    const int64_t until_us = s->step_ended_us + s->company_us / (busy ? COMPANY_DIVISOR : 1);
    if (clock_us() >= until_us) return false;
    const struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    if (!s->news) pthread_cond_timedwait(&s->work, &s->mutex, &until);
    s->news = true;
    return true;
}

/// One batch. Takes and gives the mutex around the engine.
static void step(sched *s) {
    const int64_t start_us = clock_us();
    const uint64_t ended_before = n_ended(s);
    pthread_mutex_unlock(&s->mutex);
    int n_tokens = logitd_step(s->engine);
    pthread_mutex_lock(&s->mutex);
    s->stats.n_steps += n_tokens > 0;
    s->stats.n_tokens += (uint64_t)n_tokens;
    count_size(&s->stats, n_tokens);
    report_progress(s);
    s->step_ended_us = clock_us();
    s->company = s->stats.n_accepted + (n_ended(s) - ended_before);
    s->company_us = s->company_us_max ? s->company_us_max : (s->step_ended_us - start_us) / COMPANY_DIVISOR;
}

static void *worker_main(void *arg) {
    sched *s = arg;
    pthread_mutex_lock(&s->mutex);
    for (;;) {
        while (!s->news) pthread_cond_wait(&s->work, &s->mutex);
        s->news = false;
        advance_all(s);
        pthread_cond_broadcast(&s->advanced);
        serve_full_rows(s);
        if (s->stopping && !s->jobs) break;
        if (s->stats.n_running == 0 || wait_for_company(s)) continue;
        step(s);
        if (s->stats.n_running > 0) s->news = true;
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

// ------------------------------------------------------------------------------------------------- other threads

logitd_status sched_create(const sched_options *options, sched **out, logitd_error *err) {
    *out = NULL;
    sched *s = mem_alloc(1, sizeof *s);
    if (!s) return error_set(err, LOGITD_ENOMEM, "no memory for the scheduler");
    s->engine = options->engine;
    s->max_jobs = options->max_jobs ? options->max_jobs : (int)limits.jobs;
    s->max_jobs_per_client = options->max_jobs_per_client ? options->max_jobs_per_client : (int)limits.jobs_per_client;
    s->max_queue_us = options->max_queue_us ? options->max_queue_us : limits.queue_s * 1000000;
    s->max_deadline_us = options->max_deadline_us ? options->max_deadline_us : limits.deadline_s * 1000000;
    s->company_us_max = options->company_us;
    s->jobs_end = &s->jobs;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC); // as clock_us
    pthread_cond_init(&s->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&s->advanced, NULL);
    if (pthread_create(&s->worker, NULL, worker_main, s) != 0) {
        pthread_cond_destroy(&s->advanced);
        pthread_cond_destroy(&s->work);
        pthread_mutex_destroy(&s->mutex);
        mem_free(s);
        return error_set(err, LOGITD_ENOMEM, "the system refused the worker thread");
    }
    *out = s;
    return LOGITD_OK;
}

void sched_free(sched *s) {
    if (!s) return;
    pthread_mutex_lock(&s->mutex);
    s->draining = s->stopping = true;
    signal_worker(s);
    pthread_mutex_unlock(&s->mutex);
    pthread_join(s->worker, NULL);
    pthread_cond_destroy(&s->advanced);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->mutex);
    mem_free(s);
}

/// The number of a client: of its held jobs, or a new one. Lock held.
static uint64_t client_number(const sched *s, const char *client) {
    const sched_job *j = s->jobs;
    while (j && strcmp(j->client, client) != 0) j = j->next;
    return j ? j->client_number : s->stats.n_accepted;
}

/// Whether a job of `client` can be accepted now: EBUSY, EQUOTA. Lock held.
static logitd_status check_room(const sched *s, const char *client, logitd_error *err) {
    if (s->draining) return error_set(err, LOGITD_EBUSY, "the server is shutting down and takes no new requests");
    int n = 0;
    for (const sched_job *j = s->jobs; j; j = j->next) n += !j->released && strcmp(j->client, client) == 0;
    if (n >= s->max_jobs_per_client) {
        return error_set(err, LOGITD_EQUOTA,
                         "this client has %d requests in flight, which is the limit; wait for one to end", n);
    }
    if (s->stats.n_held < s->max_jobs) return LOGITD_OK;
    return error_set(err, LOGITD_EBUSY, "the queue is full: %d requests are in flight; try again in a second",
                     s->stats.n_held);
}

logitd_status sched_submit(sched *s, logitd_job *job, const char *client, void (*wake)(void *arg), void *arg,
                           sched_job **out, logitd_error *err) {
    sched_job *j = mem_alloc(1, sizeof *j);
    *out = NULL;
    if (!j) {
        logitd_job_free(job);
        return error_set(err, LOGITD_ENOMEM, "no memory for this request; try again later");
    }
    *j = (sched_job){.job = job, .wake = wake, .arg = arg, .submitted_us = clock_us()};
    snprintf(j->client, sizeof j->client, "%s", client);
    pthread_mutex_lock(&s->mutex);
    const logitd_status status = check_room(s, j->client, err);
    if (!status) {
        j->client_number = client_number(s, j->client);
        *s->jobs_end = j;
        s->jobs_end = &j->next;
        s->stats.n_held++;
        s->stats.n_queued++;
        s->stats.n_accepted++;
        *out = j;
        signal_worker(s);
    } else {
        s->stats.n_refused++;
    }
    pthread_mutex_unlock(&s->mutex);
    if (status) free_job(j);
    return status;
}

void sched_release(sched *s, sched_job *job) {
    pthread_mutex_lock(&s->mutex);
    ASSERT(!job->released);
    job->released = true;
    signal_worker(s);
    pthread_mutex_unlock(&s->mutex);
}

void sched_cancel(sched *s, sched_job *job) {
    pthread_mutex_lock(&s->mutex);
    job->canceled = true;
    signal_worker(s);
    pthread_mutex_unlock(&s->mutex);
}

const logitd_job *sched_job_results(const sched_job *job) {
    return job->job;
}

bool sched_job_ended(sched *s, sched_job *job) {
    pthread_mutex_lock(&s->mutex);
    bool ended = job->phase == ENDED;
    pthread_mutex_unlock(&s->mutex);
    return ended;
}

double sched_job_queue_ms(sched *s, sched_job *job) {
    pthread_mutex_lock(&s->mutex);
    int64_t waited_us = job->started_us ? job->started_us - job->submitted_us : 0;
    pthread_mutex_unlock(&s->mutex);
    return (double)waited_us / 1000;
}

logitd_status sched_full_row(sched *s, sched_job *job, int iprompt, int irow, const float **row, logitd_error *err) {
    logitd_status status = LOGITD_OK;
    *row = NULL;
    pthread_mutex_lock(&s->mutex);
    const bool held = job->iprompt == iprompt && irow >= job->irow && irow < job->irow + job->n;
    if (job->canceled) {
        status = error_set(err, LOGITD_ECANCELED, "the request was cancelled");
    } else if (held) {
        *row = row_place(s, job, irow);
        job->n -= irow - job->irow; // those before are given up
        job->irow = irow;
    } else if (job->want == ROWS_FAILED) {
        status = job->full_error.status;
        if (err) *err = job->full_error;
    } else if (job->want == WANT_NOTHING) {
        job->iprompt = iprompt;
        job->irow = irow;
        job->n = 0;
    }
    // While a reply sends the rest, the next are made: as soon as there is room for a whole call's.
    const int next = job->irow + job->n, n_rows = logitd_job_rows_ready(job->job, job->iprompt);
    if (!status && job->want == WANT_NOTHING && next < n_rows && job->n + rows_at_once(s) <= rows_held_max(s)) {
        job->want = WANT_ROWS;
        signal_worker(s);
    }
    pthread_mutex_unlock(&s->mutex);
    return status;
}

void sched_drain(sched *s) {
    pthread_mutex_lock(&s->mutex);
    s->draining = true;
    pthread_mutex_unlock(&s->mutex);
}

bool sched_draining(sched *s) {
    pthread_mutex_lock(&s->mutex);
    bool draining = s->draining;
    pthread_mutex_unlock(&s->mutex);
    return draining;
}

static bool any_waits_for_worker(const sched *s) {
    const sched_job *j = s->jobs;
    while (j && j->phase == ENDED && j->want != WANT_ROWS) j = j->next;
    return j != NULL;
}

void sched_cancel_all(sched *s) {
    pthread_mutex_lock(&s->mutex);
    s->draining = true;
    for (sched_job *j = s->jobs; j; j = j->next) j->canceled = true;
    signal_worker(s);
    while (any_waits_for_worker(s)) pthread_cond_wait(&s->advanced, &s->mutex);
    pthread_mutex_unlock(&s->mutex);
}

sched_stats sched_read_stats(sched *s) {
    pthread_mutex_lock(&s->mutex);
    sched_stats stats = s->stats;
    pthread_mutex_unlock(&s->mutex);
    return stats;
}
