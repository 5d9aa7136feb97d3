/*
 * logitd: exact next-token distributions from a transformer language model, as a C library.
 *
 * Mental model. An *engine* owns one model and the state of one compute worker (weights, KV cache, threads).
 * A *job* is one request: prompts x positions x temperatures. The worker submits jobs to the engine; each
 * logitd_step() packs up to `batch_tokens` tokens of all submitted jobs into one batch, runs the forward pass and
 * fills in the rows (one row = one position of one prompt) that became known. A row holds the statistics of the whole
 * distribution, never the logits; logitd_project_rows() makes some rows of logits from the hidden states of a job that
 * keeps them, and logitd_row_values() their values, so that a reply of any size needs little memory.
 *
 *   engine = logitd_open(options)
 *   job = logitd_job_create(engine, request)      any thread; copies the request
 *   logitd_submit(engine, job, client)            worker thread
 *   while (logitd_job_state(job) == RUNNING) logitd_step(engine)
 *   row = logitd_job_row(job, iprompt, irow)      any thread, once irow < logitd_job_rows_ready(job, iprompt)
 *   logitd_job_free(job)
 *
 * Threads. Exactly one thread (the worker) may be inside a function marked [worker]. Functions marked [any] may run in
 * any thread at any time; what they touch is immutable or published with release/acquire order.
 *
 * Numbers. Natural logarithms (nats). For temperature T: x = (logit - max logit) / T, S = sum exp x,
 *   logprob = x - log S,  logsumexp = max/T + log S,  entropy = log S - sum(x e^x)/S,
 *   varentropy = sum(x^2 e^x)/S - (sum(x e^x)/S)^2.
 * The same request gives the same bits whatever else is in a batch, and for any number of threads.
 */
#ifndef LOGITD_H
#define LOGITD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum logitd_status {
    LOGITD_OK = 0,
    LOGITD_EINVAL,    // a request or an option is wrong
    LOGITD_EFORMAT,   // a file is malformed, holds something unsupported, or weights that give no finite logits
    LOGITD_EIO,       // the operating system refused a file
    LOGITD_ENOMEM,    // no memory
    LOGITD_ETOOLARGE, // a limit is exceeded
    LOGITD_EBUSY,     // a queue is full; try again later
    LOGITD_ECANCELED, // the job was cancelled
    LOGITD_EBACKEND,  // the device failed, for good
    LOGITD_EQUOTA,    // this client has too much in flight; others may go on
} logitd_status;

/// What went wrong, as one sentence for a person: what, where, what is allowed. `param` is the path of the offending
/// request field (`prompt[3]`), or "".
typedef struct logitd_error {
    logitd_status status;
    char param[64];
    char message[512];
} logitd_error;

typedef struct logitd_engine logitd_engine;
typedef struct logitd_job logitd_job;

/// Zero means the default for every field but model_path.
typedef struct logitd_options {
    const char *model_path;
    const char *backend;   // "auto" (default), "cpu", "cuda"
    const char *precision; // "exact" (default), "fast", "bf16": a backend offers those that it has
    /// "auto" (default), "reference", "portable", "avx2", "avx512", "avx512vnni", "neon": for tests
    const char *cpu_level;
    int n_threads;    // default: the number of processors this process may run on
    int batch_tokens; // tokens of a batch; default LIMIT_BATCH_TOKENS
    int n_ctx;        // longest prompt in tokens; default min(the model's context, LIMIT_CTX_TOKENS)
    int kv_tokens;    // tokens of cut prompts that the KV cache holds; default n_ctx + 4 x batch_tokens
    void (*progress)(void *arg, const char *what, double fraction); // may be NULL; called while opening
    void *progress_arg;
} logitd_options;

/// Facts about the open model. Strings live as long as the engine.
typedef struct logitd_model_info {
    const char *path;
    const char *name;          // general.name, or the file's name
    const char *architecture;  // general.architecture
    const char *sha256;        // of the file, 64 hex digits
    const char *tokenizer;     // "bpe (smollm)", "spm"
    const char *chat_template; // or NULL
    const char *license;       // general.license, or NULL
    const char *backend;       // "cpu", "cuda"
    const char *precision;     // "exact", …
    const char *kernel;        // "avx2", "avx512", …
    double logprob_bound;      // most that a log-probability at T = 1 may be off from float64, nats
    uint64_t file_bytes;
    uint64_t n_params;
    int n_vocab;
    int n_ctx;       // longest prompt accepted
    int n_ctx_train; // the model's own context
    int n_embd, n_layer, n_head, n_head_kv, head_dim, n_ff;
    int bos_id, eos_id; // -1: none
    bool add_bos;       // the model's own default
    int n_threads;
    int batch_tokens;
    int kv_tokens;
} logitd_model_info;

/// Opens a model. [worker] On failure *out is NULL and *err says why. Free with logitd_close.
logitd_status logitd_open(const logitd_options *options, logitd_engine **out, logitd_error *err);
void logitd_close(logitd_engine *engine);
const logitd_model_info *logitd_model(const logitd_engine *engine); // [any]

/// False once the device or its memory has failed for good; *why then is a sentence. [any]
bool logitd_healthy(const logitd_engine *engine, const char **why);

struct tokenizer; // src/tokenizer.h; immutable, [any]
const struct tokenizer *logitd_tokenizer(const logitd_engine *engine);

// ---------------------------------------------------------------------------------------------------- requests

typedef enum logitd_values { LOGITD_LOGPROB = 0, LOGITD_PROB, LOGITD_LOGIT } logitd_values;

typedef struct logitd_prompt {
    const int32_t *tokens;    // [n_tokens] ids, each in [0, n_vocab)
    int n_tokens;             // 1 … n_ctx
    const int32_t *positions; // [n_positions] each in [0, n_tokens); any order, duplicates kept
    int n_positions;
} logitd_prompt;

typedef struct logitd_request {
    const logitd_prompt *prompts; // [n_prompts]
    int n_prompts;
    const double *temperatures; // [n_temperatures] each in [0.001, 1000]
    int n_temperatures;         // 1 … LIMIT_TEMPERATURES
    int top_n;                  // 0 … LIMIT_TOP_N; clipped to n_vocab
    bool full;                  // logitd_project_rows will be asked for every row
    logitd_values values;
    const int32_t *token_ids; // [n_token_ids] listed ids, each in [0, n_vocab), duplicates kept
    int n_token_ids;          // 0 … LIMIT_LISTED_IDS
} logitd_request;

typedef enum logitd_state { LOGITD_NEW = 0, LOGITD_RUNNING, LOGITD_DONE, LOGITD_FAILED } logitd_state;

/// One position of one prompt. T = n_temperatures, N = min(top_n, n_vocab), K = n_token_ids.
/// Pointers live as long as the job. `*_value` is what `values` names: [T][..] for logprob and prob, [..] for logit.
typedef struct logitd_row {
    int position;
    int32_t token_id;          // the token at this position
    const float *logsumexp;    // [T] nats, of logits / T
    const float *entropy;      // [T] nats
    const float *varentropy;   // [T] nats^2
    int32_t next_id;           // the token after it, or -1 at the last position
    int32_t next_rank;         // tokens with a strictly larger logit, or -1
    const float *next_logprob; // [T]; NaN where next_id is -1
    const int32_t *top_id;     // [N] most likely first, ties: lower id first
    const float *top_value;    // [T][N] or [N]
    const float *listed_value; // [T][K] or [K]
} logitd_row;

/// Means over the returned positions of one prompt.
typedef struct logitd_summary {
    double cross_entropy; // mean of -logprob(next) over the n positions with a next token; NaN if n == 0
    double mean_entropy;  // over all returned positions
    int n;
    double next_logprob_sum; // -cross_entropy * n
} logitd_summary;

/// Checks and copies a request, plans the memory of its results. [any]
/// Errors: EINVAL (param names the field), ETOOLARGE (results over the limit result_bytes), ENOMEM.
logitd_status logitd_job_create(const logitd_engine *engine, const logitd_request *request, logitd_job **out,
                                logitd_error *err);
/// Frees a job that is not submitted (new, done, failed, or withdrawn). [any]
void logitd_job_free(logitd_job *job);

logitd_state logitd_job_state(const logitd_job *job);                    // [any]
const logitd_error *logitd_job_error(const logitd_job *job);             // [any] of a FAILED job
const logitd_request *logitd_job_request(const logitd_job *job);         // [any] the copy
int logitd_job_rows_ready(const logitd_job *job, int iprompt);           // [any] in request order: rows 0 … n-1
logitd_row logitd_job_row(const logitd_job *job, int iprompt, int irow); // [any] irow < rows_ready; full: projected
logitd_summary logitd_job_summary(const logitd_job *job, int iprompt, int itemperature); // [any] all of them
double logitd_job_compute_ms(const logitd_job *job); // [any] wall time of its steps and full rows

// ------------------------------------------------------------------------------------------------------- work

/// Puts a new job in the engine's work list; the engine uses it until it is DONE, FAILED or withdrawn. `client`: whose
/// it is, any number; the client with the least to do has its turn first. A dead backend refuses: EBACKEND, and the job
/// is FAILED. [worker]
logitd_status logitd_submit(logitd_engine *engine, logitd_job *job, uint64_t client, logitd_error *err);
/// Takes a job out at once; its state becomes FAILED with *why (NULL: ECANCELED) unless it had ended. [worker]
void logitd_withdraw(logitd_engine *engine, logitd_job *job, const logitd_error *why);
/// Runs one batch over the submitted jobs. Returns the number of tokens in it; 0: nothing to do. [worker]
int logitd_step(logitd_engine *engine);
/// Tokens of the submitted jobs that are still to run. [worker]
int64_t logitd_tokens_left(const logitd_engine *engine);

/// Logits of rows irow … irow+n-1 (request order) of a `full` job, whose rows must be ready. [worker]
/// out[i]: [n_vocab] f32 in id order. n <= LIMIT_FULL_ROWS, which cost little more than one. A row of a full job has
/// its statistics from then on, not before. EFORMAT: they are not finite numbers.
logitd_status logitd_project_rows(logitd_engine *engine, logitd_job *job, int iprompt, int irow, int n,
                                  float *const *out, logitd_error *err);
/// What the request's `values` names, at one temperature, for any n logits of row irow: the bits of the row's entries.
/// For LOGITD_LOGIT the logits themselves. [any]
void logitd_row_values(const logitd_job *job, int iprompt, int irow, int itemperature, const float *logits, size_t n,
                       float *out);

const char *logitd_version(void); // [any] "0.1.0"

#endif
