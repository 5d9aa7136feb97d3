/*
 * engine.c: opens a model and works through jobs, one batch a step.
 *
 * A step: the batcher chooses tokens of the submitted jobs, the layers run over all of them, and the asked positions
 * among them, of whichever jobs, are folded into statistics in one pass over the output matrix.
 */
#include "engine_batch.h"
#include "limits.h"
#include "sha256.h"
#include <math.h>
#include <string.h>

struct logitd_engine {
    gguf_file *file;
    tokenizer *tok;
    backend *backend;
    model *model;
    forward_state *forward;
    logitd_model_info info;
    arena strings; // of info
    char sha256[65];
    sha256_task *hashing; // of the file, while opening; else NULL

    batcher batcher;      // the submitted jobs and the batch that runs
    int32_t *rows;        // [batch_tokens] rows of the batch whose distributions are wanted
    project_row *project; // [batch_tokens] what becomes of them
    float *hidden;        // [batch_tokens, n_embd] staging for project_rows
    void *scratch;        // sums and entries of the batch's rows, grown on demand
    size_t scratch_bytes;

    atomic_bool dead;
    logitd_error death; // written once before dead is released
};

const char *logitd_version(void) {
    return LOGITD_VERSION;
}
const logitd_model_info *logitd_model(const logitd_engine *engine) {
    return &engine->info;
}
const struct tokenizer *logitd_tokenizer(const logitd_engine *engine) {
    return engine->tok;
}

bool logitd_healthy(const logitd_engine *engine, const char **why) {
    if (!atomic_load_explicit(&engine->dead, memory_order_acquire)) return true;
    if (why) *why = engine->death.message;
    return false;
}

// -------------------------------------------------------------------------------------------------------- opening

static const char *file_string(logitd_engine *e, const char *key) {
    gguf_str s;
    if (!gguf_string(e->file, key, &s)) return NULL;
    char *copy = arena_alloc(&e->strings, s.len + 1, 1);
    if (copy) memcpy(copy, s.data, s.len);
    return copy;
}

/// Beside the vocabulary, which takes one thread: the weights before it keep all of them busy.
static logitd_status start_hash(logitd_engine *e, logitd_error *err) {
    const void *data = gguf_data(e->file, &e->info.file_bytes);
    e->hashing = sha256_start(data, e->info.file_bytes);
    return e->hashing ? LOGITD_OK : error_set(err, LOGITD_ENOMEM, "there is no memory or no thread to hash the file");
}

/// auto: a GPU when there is one that has the precision, else the CPU; a CPU level that is asked for means the CPU.
static logitd_status open_backend(logitd_engine *e, const logitd_options *o, logitd_error *err) {
    const char *name = o->backend ? o->backend : "auto";
    const bool automatic = strcmp(name, "auto") == 0, cuda = strcmp(name, "cuda") == 0;
    if (!automatic && !cuda && strcmp(name, "cpu") != 0)
        return error_set(err, LOGITD_EINVAL, "there is no backend \"%s\"; auto, cpu and cuda are allowed", name);
    if (o->n_threads < 0 || o->n_threads > LIMIT_THREADS)
        return error_set(err, LOGITD_EINVAL, "threads is %d; from 1 to %d is allowed", o->n_threads, LIMIT_THREADS);
    const backend_options options = {.precision = o->precision, .cpu_level = o->cpu_level, .n_threads = o->n_threads};
    if (cuda) return cuda_backend_create(&options, &e->backend, err);
    if (automatic && (!o->cpu_level || strcmp(o->cpu_level, "auto") == 0)) {
        logitd_error why;
        if (!cuda_backend_create(&options, &e->backend, &why)) return LOGITD_OK;
        log_line(LOG_DEBUG, "the CPU computes: %s", why.message);
    }
    return cpu_backend_create(&options, &e->backend, err);
}

static void fill_info(logitd_engine *e) {
    const model_hparams *hp = &e->model->hp;
    logitd_model_info *info = &e->info;
    const char *slash = strrchr(gguf_path(e->file), '/');
    info->path = gguf_path(e->file);
    info->name = file_string(e, "general.name");
    if (!info->name) info->name = slash ? slash + 1 : gguf_path(e->file);
    info->architecture = e->model->arch->name;
    info->sha256 = e->sha256;
    info->tokenizer = tokenizer_name(e->tok);
    info->chat_template = file_string(e, "tokenizer.chat_template");
    info->license = file_string(e, "general.license");
    info->backend = e->backend->ops->name;
    info->precision = e->backend->precision;
    info->kernel = e->backend->kernel;
    info->logprob_bound = e->backend->logprob_bound;
    info->n_threads = e->backend->n_threads;
    info->n_params = e->model->n_params;
    info->n_vocab = hp->n_vocab;
    info->n_ctx_train = hp->n_ctx;
    info->n_embd = hp->n_embd;
    info->n_layer = hp->n_layer;
    info->n_head = hp->n_head;
    info->n_head_kv = hp->n_head_kv;
    info->head_dim = hp->head_dim;
    info->n_ff = hp->n_ff;
    info->bos_id = tokenizer_bos_id(e->tok);
    info->eos_id = tokenizer_eos_id(e->tok);
    info->add_bos = tokenizer_add_bos(e->tok);
}

/// Sizes from the options and the model, checked.
static logitd_status plan_sizes(logitd_engine *e, const logitd_options *o, logitd_error *err) {
    logitd_model_info *info = &e->info;
    const int n_ctx_train = e->model->hp.n_ctx;
    info->batch_tokens = o->batch_tokens ? o->batch_tokens : LIMIT_BATCH_TOKENS;
    info->n_ctx = o->n_ctx ? o->n_ctx : MIN(n_ctx_train, LIMIT_CTX_TOKENS);
    info->kv_tokens = o->kv_tokens ? o->kv_tokens : info->n_ctx + 4 * info->batch_tokens;
    if (info->n_ctx < 1 || info->n_ctx > n_ctx_train)
        return error_set(err, LOGITD_EINVAL, "the context is to be %d tokens; from 1 to %d is allowed with this model",
                         info->n_ctx, n_ctx_train);
    if (info->kv_tokens < info->n_ctx)
        return error_set(err, LOGITD_EINVAL, "the KV cache is to hold %d tokens; it must hold one context of %d",
                         info->kv_tokens, info->n_ctx);
    return LOGITD_OK;
}

static bool allocate(logitd_engine *e) {
    const size_t n = (size_t)e->info.batch_tokens;
    return batcher_init(&e->batcher, e->info.batch_tokens, e->info.kv_tokens) &&
           (e->forward = forward_create(e->model, e->info.batch_tokens, batcher_kv_rows(&e->batcher))) &&
           (e->rows = mem_alloc(n, sizeof(int32_t))) && (e->project = mem_alloc(n, sizeof(project_row))) &&
           (e->hidden = mem_alloc(n * (size_t)e->info.n_embd, sizeof(float)));
}

/// Of the KV cache of all layers: f32 keys and values (backend.h).
static double kv_megabytes(const logitd_engine *e) {
    const logitd_model_info *info = &e->info;
    return (double)info->kv_tokens * info->n_layer * info->n_head_kv * info->head_dim * 2 * sizeof(float) / 1e6;
}

/// Memory for the largest projection that limits allow.
static logitd_status reserve(logitd_engine *e, logitd_error *err) {
    const backend_ops *op = e->backend->ops;
    const project_limits most = {.n_rows = e->info.batch_tokens,
                                 .n_full_rows = LIMIT_FULL_ROWS,
                                 .n_temperatures = LIMIT_TEMPERATURES,
                                 .top_n = MIN(LIMIT_TOP_N, e->info.n_vocab),
                                 .n_listed = LIMIT_LISTED_IDS};
    return op->reserve ? op->reserve(e->backend, e->model->output, &most, err) : LOGITD_OK;
}

static void report(const logitd_options *o, const char *what, double fraction) {
    if (o->progress) o->progress(o->progress_arg, what, fraction);
}

enum { WEIGHTS_PERCENT = 60, VOCABULARY_PERCENT = 75 }; // done of the opening when these are

static void report_weights(void *arg, double fraction) {
    report(arg, "preparing the weights", fraction * WEIGHTS_PERCENT / 100);
}

logitd_status logitd_open(const logitd_options *o, logitd_engine **out, logitd_error *err) {
    *out = NULL;
    if (o->batch_tokens < 0 || o->batch_tokens > LIMIT_CTX_TOKENS || o->n_ctx < 0 || o->kv_tokens < 0 ||
        o->kv_tokens > LIMIT_KV_TOKENS)
        return error_set(err, LOGITD_EINVAL,
                         "batch tokens, context and KV tokens must be positive, a batch at most %d and the KV cache at "
                         "most %d tokens",
                         LIMIT_CTX_TOKENS, LIMIT_KV_TOKENS);
    logitd_engine *e = mem_alloc(1, sizeof *e);
    if (!e) return error_set(err, LOGITD_ENOMEM, "there is no memory for the engine");
    logitd_status status = gguf_open(o->model_path, &e->file, err);
    if (status) goto fail;
    status = open_backend(e, o, err);
    if (!status) status = model_load(e->file, e->backend, report_weights, (void *)o, &e->model, err);
    if (status) goto fail;
    report(o, "reading the vocabulary", WEIGHTS_PERCENT / 100.0);
    status = start_hash(e, err);
    if (!status) status = tokenizer_create(e->file, &e->tok, err);
    if (!status && tokenizer_n_vocab(e->tok) != e->model->hp.n_vocab)
        status = error_set(err, LOGITD_EFORMAT, "%s: the tokenizer has %d tokens and the embeddings %d", o->model_path,
                           tokenizer_n_vocab(e->tok), e->model->hp.n_vocab);
    if (status) goto fail;
    fill_info(e);
    status = plan_sizes(e, o, err);
    if (status) goto fail;
    if (!allocate(e)) {
        status = error_set(err, LOGITD_ENOMEM,
                           "there is no memory for the working buffers of %d tokens and a KV cache of %d, which takes "
                           "%.1f MB; make --kv-tokens, --ctx or --batch-tokens smaller",
                           e->info.batch_tokens, e->info.kv_tokens, kv_megabytes(e));
        goto fail;
    }
    status = reserve(e, err);
    if (status) goto fail;
    report(o, "hashing the file", VOCABULARY_PERCENT / 100.0);
    sha256_finish(e->hashing, e->sha256);
    e->hashing = NULL;
    report(o, "ready", 1.0);
    *out = e;
    return LOGITD_OK;
fail:
    logitd_close(e);
    return status;
}

void logitd_close(logitd_engine *e) {
    if (!e) return;
    const logitd_error error = {.status = LOGITD_ECANCELED, .message = "the engine was closed"};
    for (logitd_job *job = e->batcher.jobs; job; job = job->next) job_fail(job, &error);
    forward_free(e->forward);
    model_free(e->model);
    if (e->backend) e->backend->ops->destroy(e->backend);
    tokenizer_free(e->tok);
    sha256_cancel(e->hashing); // before its file goes
    gguf_close(e->file);
    arena_free(&e->strings);
    batcher_free(&e->batcher);
    void *all[] = {e->rows, e->project, e->hidden, e->scratch, e};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) mem_free(all[i]);
}

// --------------------------------------------------------------------------------------------------- the work list

logitd_status logitd_submit(logitd_engine *e, logitd_job *job, uint64_t client, logitd_error *err) {
    ASSERT(logitd_job_state(job) == LOGITD_NEW);
    if (!logitd_healthy(e, NULL)) {
        job_fail(job, &e->death);
        return error_set(err, LOGITD_EBACKEND, "%s", e->death.message);
    }
    atomic_store_explicit(&job->state, LOGITD_RUNNING, memory_order_release);
    batcher_add(&e->batcher, job, client);
    return LOGITD_OK;
}

void logitd_withdraw(logitd_engine *e, logitd_job *job, const logitd_error *why) {
    const logitd_state state = logitd_job_state(job);
    if (state == LOGITD_DONE || state == LOGITD_FAILED) return;
    if (state == LOGITD_RUNNING) batcher_remove(&e->batcher, job); // a new one was never there
    const logitd_error canceled = {.status = LOGITD_ECANCELED, .message = "the request was cancelled"};
    job_fail(job, why ? why : &canceled);
}

/// Ends a job that cannot go on. The caller no longer follows job->next.
static void end_job(logitd_engine *e, logitd_job *job, const logitd_error *error) {
    batcher_remove(&e->batcher, job);
    job_fail(job, error);
}

// ------------------------------------------------------------------------------------------------------ one step

/// Asked positions of a slice: rows n_rows_done … of its prompt. Returns how many lie in it.
static int rows_in_slice(const prompt_state *p, const batch_slice *slice) {
    int n = 0;
    while (p->n_rows_done + n < p->n_rows && p->row_position[p->n_rows_done + n] < slice->first_pos + slice->n) n++;
    return n;
}

/// Bytes of project_stats's results for one row of a job.
static size_t row_scratch_bytes(const logitd_job *job) {
    return (size_t)job->request.n_temperatures * 3 * sizeof(double) +
           (size_t)job->n_top * (sizeof(int32_t) + sizeof(float)) + (size_t)job->request.n_token_ids * sizeof(float) +
           sizeof(double); // so that each row's doubles are aligned
}

static bool grow_scratch(logitd_engine *e, size_t bytes) {
    if (e->scratch_bytes >= bytes) return true;
    mem_free(e->scratch);
    e->scratch = mem_alloc(bytes, 1);
    e->scratch_bytes = e->scratch ? bytes : 0;
    return e->scratch != NULL;
}

/// What project_stats is asked of one position. Its results lie at *at, which moves on.
static project_row plan_row(const logitd_job *job, const prompt_state *p, int position, uint8_t **at) {
    const int T = job->request.n_temperatures;
    double *sums = (double *)(void *)*at;
    float *logits = (float *)(sums + (ptrdiff_t)3 * T);
    *at += row_scratch_bytes(job) / sizeof(double) * sizeof(double);
    return (project_row){.target_id = position + 1 < p->n_tokens ? p->tokens[position + 1] : -1,
                         .n_temperatures = T,
                         .temperatures = job->request.temperatures,
                         .top_n = job->n_top,
                         .n_listed = job->request.n_token_ids,
                         .listed_ids = job->request.token_ids,
                         .sum_e = sums,
                         .sum_xe = sums + T,
                         .sum_xxe = sums + (ptrdiff_t)2 * T,
                         .top_logit = logits,
                         .top_id = (int32_t *)(logits + job->n_top),
                         .listed_logit = logits + (ptrdiff_t)2 * job->n_top};
}

/// Appends the asked rows of the batch to e->rows, of deferred jobs or of the others, which also get an entry of
/// e->project each; *at: scratch. Returns how many rows there are now.
static int plan_rows(logitd_engine *e, const token_batch *batch, bool deferred, int n, uint8_t *at) {
    const batcher *b = &e->batcher;
    for (int s = 0; s < batch->n_slices; s++) {
        const prompt_state *p = b->slice_prompt[s];
        if (b->slice_job[s]->deferred != deferred) continue;
        for (int i = 0, n_rows = rows_in_slice(p, &batch->slices[s]); i < n_rows; i++, n++) {
            const int position = p->row_position[p->n_rows_done + i];
            e->rows[n] = batch->slices[s].first_row + position - batch->slices[s].first_pos;
            if (!deferred) e->project[n] = plan_row(b->slice_job[s], p, position, &at);
        }
    }
    return n;
}

/// Scratch for the results of the batch's rows; false: no memory.
static bool plan_scratch(logitd_engine *e, const token_batch *batch) {
    const batcher *b = &e->batcher;
    size_t bytes = 0;
    for (int s = 0; s < batch->n_slices; s++)
        if (!b->slice_job[s]->deferred)
            bytes += (size_t)rows_in_slice(b->slice_prompt[s], &batch->slices[s]) * row_scratch_bytes(b->slice_job[s]);
    return grow_scratch(e, bytes);
}

static void set_not_finite(logitd_error *err, int position) {
    error_set(err, LOGITD_EFORMAT, "the model's weights gave logits that are not finite numbers, at position %d",
              position);
}

/// Moves what a slice's rows gave into its job: their statistics, unless those are deferred, and the hidden states that
/// a full one keeps. Numbers that are not finite are the job's error.
static void store_slice(logitd_engine *e, const backend_buffer *hidden, int slice, int first_row, int n_rows) {
    prompt_state *p = e->batcher.slice_prompt[slice];
    logitd_job *job = e->batcher.slice_job[slice];
    for (int i = 0; i < n_rows && !job->deferred; i++)
        if (!job_store_row(job, p, p->n_rows_done + i, &e->project[first_row + i])) {
            set_not_finite(&job->error, p->row_position[p->n_rows_done + i]);
            return;
        }
    if (p->hidden && n_rows > 0) {
        int32_t *rows = e->rows; // no longer needed as rows of the batch
        for (int i = 0; i < n_rows; i++) rows[i] = first_row + i;
        e->backend->ops->buffer_read(e->backend, hidden, rows, n_rows,
                                     p->hidden + (ptrdiff_t)p->n_rows_done * e->info.n_embd);
    }
    p->n_rows_done += n_rows;
}

/// Forward pass and statistics of a formed batch. Results are stored but not yet published.
static logitd_status run_batch(logitd_engine *e, const token_batch *batch, logitd_error *err) {
    const backend_ops *op = e->backend->ops;
    const batcher *b = &e->batcher;
    const backend_buffer *x = forward_batch(e->forward, batch), *hidden = NULL;
    if (!plan_scratch(e, batch)) return error_set(err, LOGITD_ENOMEM, "there is no memory for the results of a batch");
    const int n_project = plan_rows(e, batch, false, 0, e->scratch),
              n_rows = plan_rows(e, batch, true, n_project, NULL);
    if (n_rows > 0) hidden = forward_final_norm(e->forward, x, e->rows, n_rows);
    if (n_project > 0) {
        const logitd_status status = op->project_stats(e->backend, hidden, e->model->output, e->model->output_b,
                                                       e->model->hp.logit_softcap, n_project, e->project, err);
        if (status) return status;
    }
    const logitd_status status = op->finish(e->backend, err);
    if (status) return status;
    for (int deferred = 0, row = 0; deferred < 2; deferred++) // in plan_rows' order
        for (int s = 0; s < batch->n_slices; s++) {
            logitd_job *job = b->slice_job[s];
            const batch_slice *slice = &batch->slices[s];
            if (job->deferred != (bool)deferred) continue;
            const int n = rows_in_slice(b->slice_prompt[s], slice);
            if (job->error.status == LOGITD_OK) store_slice(e, hidden, s, row, n);
            row += n;
        }
    return LOGITD_OK;
}

/// Publishes what a batch brought, and lets go of jobs that ended. `error`: the whole batch failed.
static void conclude(logitd_engine *e, const token_batch *batch, double ms, const logitd_error *error) {
    const batcher *b = &e->batcher;
    for (int s = 0; s < batch->n_slices; s++) {
        logitd_job *job = b->slice_job[s];
        if (s > 0 && job == b->slice_job[s - 1]) continue; // a job's slices follow each other
        job_add_ms(job, ms);
        if (error || job->error.status) {
            const logitd_error why = error ? *error : job->error;
            end_job(e, job, &why);
            continue;
        }
        // Unlinked before DONE is published: from then on the job's owner may free it.
        if (job->n_left == 0) batcher_remove(&e->batcher, job);
        job_publish(job);
    }
}

/// Jobs that ask for no position at all are done without a batch.
static void publish_empty(logitd_engine *e) {
    for (logitd_job *job = e->batcher.jobs, *next; job; job = next) {
        next = job->next;
        if (job->n_left > 0) continue;
        batcher_remove(&e->batcher, job);
        job_publish(job);
    }
}

int64_t logitd_tokens_left(const logitd_engine *e) {
    int64_t n = 0;
    for (const logitd_job *job = e->batcher.jobs; job; job = job->next) n += job->n_left;
    return n;
}

int logitd_step(logitd_engine *e) {
    if (!logitd_healthy(e, NULL)) { // those that were not in the batch that failed
        while (e->batcher.jobs) end_job(e, e->batcher.jobs, &e->death);
        return 0;
    }
    publish_empty(e);
    const int64_t start = clock_us();
    const token_batch batch = batcher_form(&e->batcher);
    if (batch.n_tokens == 0) return 0;
    logitd_error error = {0};
    const logitd_status status = run_batch(e, &batch, &error);
    if (status == LOGITD_EBACKEND) {
        e->death = error;
        atomic_store_explicit(&e->dead, true, memory_order_release); // after `death`: readers see the sentence
    }
    batcher_finish(&e->batcher, &batch);
    conclude(e, &batch, (double)(clock_us() - start) / 1000.0, status ? &error : NULL);
    return batch.n_tokens;
}

// ------------------------------------------------------------------------------------------------------ full rows

bool engine_defers(const logitd_engine *e) {
    return e->backend->ops->project_logits == NULL;
}

/// Statistics and logits of rows irow … irow+n-1 of a deferred job, whose hidden states are restored.
static logitd_status project_deferred(logitd_engine *e, logitd_job *job, prompt_state *p, int irow, int n,
                                      const backend_buffer *hidden, float *const *out, logitd_error *err) {
    if (!grow_scratch(e, (size_t)n * row_scratch_bytes(job)))
        return error_set(err, LOGITD_ENOMEM, "there is no memory for the results of %d positions", n);
    uint8_t *at = e->scratch;
    for (int i = 0; i < n; i++) {
        e->project[i] = plan_row(job, p, p->positions[irow + i], &at);
        e->project[i].logits = out[i];
    }
    const logitd_status status = e->backend->ops->project_stats(
        e->backend, hidden, e->model->output, e->model->output_b, e->model->hp.logit_softcap, n, e->project, err);
    if (status) return status;
    for (int i = 0; i < n; i++) {
        const int slot = p->slot[irow + i];
        if (p->projected[slot]) continue; // asked twice, and others may be reading what it was given
        if (!job_store_row(job, p, slot, &e->project[i])) {
            set_not_finite(err, p->positions[irow + i]);
            return LOGITD_EFORMAT;
        }
        p->projected[slot] = true;
    }
    return LOGITD_OK;
}

logitd_status logitd_project_rows(logitd_engine *e, logitd_job *job, int iprompt, int irow, int n, float *const *out,
                                  logitd_error *err) {
    prompt_state *p = &job->prompts[iprompt];
    const char *why;
    ASSERT(job->request.full && n <= LIMIT_FULL_ROWS && irow >= 0 && irow + n <= logitd_job_rows_ready(job, iprompt));
    if (!logitd_healthy(e, &why)) return error_set(err, LOGITD_EBACKEND, "%s", why);
    const int64_t start = clock_us();
    for (int end = irow + n, chunk; irow < end; irow += chunk, out += chunk) {
        chunk = MIN(end - irow, e->info.batch_tokens);
        if (!job->deferred) // project_logits gives neighbours
            for (int i = 1; i < chunk; i++)
                if (out[i] != out[i - 1] + job->n_vocab) chunk = i;
        for (int i = 0; i < chunk; i++)
            memcpy(e->hidden + (ptrdiff_t)i * e->info.n_embd, p->hidden + (ptrdiff_t)p->slot[irow + i] * e->info.n_embd,
                   (size_t)e->info.n_embd * sizeof(float));
        const backend_buffer *hidden = forward_restore_hidden(e->forward, e->hidden, chunk);
        const logitd_status status =
            job->deferred ? project_deferred(e, job, p, irow, chunk, hidden, out, err)
                          : e->backend->ops->project_logits(e->backend, hidden, e->model->output, e->model->output_b,
                                                            e->model->hp.logit_softcap, chunk, out[0], err);
        if (status) return status;
    }
    job_add_ms(job, (double)(clock_us() - start) / 1000.0);
    return LOGITD_OK;
}
