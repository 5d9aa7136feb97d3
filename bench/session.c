// session.c: see session.h.
#include "session.h"
#include <string.h>

int32_t session_token(int n_vocab, int position) {
    return (int32_t)(((int64_t)position * 7919 + 1000) % n_vocab);
}

// ---------------------------------------------------------------------------------------------------------- opening

/// Room for the results of max_rows rows with as many temperatures and entries as there can be.
static bool allocate(session *s, const session_options *o) {
    const size_t n = (size_t)o->max_tokens, n_rows = (size_t)o->max_rows;
    s->max_rows = o->max_rows;
    s->tokens = arena_alloc(&s->memory, n, sizeof(int32_t));
    s->positions = arena_alloc(&s->memory, n, sizeof(int32_t));
    s->slices = arena_alloc(&s->memory, n, sizeof(batch_slice));
    s->rows = arena_alloc(&s->memory, n_rows, sizeof(project_row));
    double *sums = arena_alloc(&s->memory, n_rows * 3 * SESSION_TEMPERATURES, sizeof(double));
    int32_t *ids = arena_alloc(&s->memory, n_rows * SESSION_TOP_N, sizeof(int32_t));
    float *logits = arena_alloc(&s->memory, n_rows * SESSION_TOP_N, sizeof(float));
    double *temperatures = arena_alloc(&s->memory, SESSION_TEMPERATURES, sizeof(double));
    if (!s->tokens || !s->positions || !s->slices || !s->rows || !sums || !ids || !logits || !temperatures)
        return false;
    for (int t = 0; t < SESSION_TEMPERATURES; t++) temperatures[t] = t == 0 ? 1.0 : 0.1 + 0.1 * t;
    for (size_t i = 0; i < n_rows; i++) {
        double *of_row = sums + i * 3 * SESSION_TEMPERATURES;
        s->rows[i] = (project_row){.temperatures = temperatures,
                                   .sum_e = of_row,
                                   .sum_xe = of_row + SESSION_TEMPERATURES,
                                   .sum_xxe = of_row + (ptrdiff_t)2 * SESSION_TEMPERATURES,
                                   .top_id = ids + i * SESSION_TOP_N,
                                   .top_logit = logits + i * SESSION_TOP_N};
    }
    return true;
}

logitd_status session_open(const session_options *o, session *s, logitd_error *err) {
    memset(s, 0, sizeof *s);
    logitd_status status = gguf_open(o->model_path, &s->file, err);
    if (!status) status = cpu_backend_create(&o->backend, &s->backend, err);
    if (!status && o->profiled && !(s->profile = profile_attach(s->backend)))
        status = error_set(err, LOGITD_ENOMEM, "there is no memory for a profile");
    if (!status) status = model_load(s->file, s->backend, NULL, NULL, &s->model, err);
    if (!status) s->forward = forward_create(s->model, o->max_tokens, o->n_kv_rows);
    if (!status && (!s->forward || !allocate(s, o)))
        status = error_set(err, LOGITD_ENOMEM, "there is no memory for batches of %d tokens and %d rows of KV cache",
                           o->max_tokens, o->n_kv_rows);
    if (status) session_close(s);
    return status;
}

void session_close(session *s) {
    forward_free(s->forward);
    model_free(s->model);
    profile_detach(s->profile);
    if (s->backend) s->backend->ops->destroy(s->backend);
    gguf_close(s->file);
    arena_free(&s->memory);
    memset(s, 0, sizeof *s);
}

// ------------------------------------------------------------------------------------------------------------- work

token_batch session_batch(session *s, int n_sequences, int n, int first_pos, int n_kv) {
    int row = 0;
    for (int i = 0; i < n_sequences; i++) {
        s->slices[i] = (batch_slice){.first_row = row, .n = n, .first_pos = first_pos, .kv_first = i * n_kv};
        for (int k = 0; k < n; k++, row++) {
            s->positions[row] = first_pos + k;
            s->tokens[row] = session_token(s->model->hp.n_vocab, first_pos + k + i);
        }
    }
    return (token_batch){
        .n_tokens = row, .tokens = s->tokens, .positions = s->positions, .slices = s->slices, .n_slices = n_sequences};
}

void session_forward(session *s, const token_batch *batch) {
    s->x = forward_batch(s->forward, batch);
    s->n_tokens = batch->n_tokens;
}

const backend_buffer *session_hidden(session *s, int n) {
    int32_t *rows = s->tokens; // no longer needed as tokens of the batch
    ASSERT(n <= s->n_tokens);
    for (int i = 0; i < n; i++) rows[i] = s->n_tokens - n + i;
    return forward_final_norm(s->forward, s->x, rows, n);
}

logitd_status session_project(session *s, const backend_buffer *hidden, int n, int n_temperatures, int top_n,
                              logitd_error *err) {
    const model *m = s->model;
    ASSERT(n <= s->max_rows && n_temperatures <= SESSION_TEMPERATURES && top_n <= SESSION_TOP_N);
    for (int i = 0; i < n; i++) {
        s->rows[i].target_id = session_token(m->hp.n_vocab, i + 1);
        s->rows[i].n_temperatures = n_temperatures;
        s->rows[i].top_n = MIN(top_n, m->hp.n_vocab);
    }
    const backend_ops *op = s->backend->ops;
    return op->project_stats(s->backend, hidden, m->output, m->output_b, m->hp.logit_softcap, n, s->rows, err);
}

// --------------------------------------------------------------------------------------------------------- counting

double session_weight_bytes(const gguf_file *file) {
    const gguf_tensor *input = gguf_find_tensor(file, "token_embd.weight");
    const bool tied = !gguf_find_tensor(file, "output.weight");
    double bytes = 0.0;
    for (int i = 0; i < gguf_n_tensors(file); i++) {
        const gguf_tensor *t = gguf_tensor_at(file, i);
        if (t != input || tied) bytes += (double)t->n_bytes;
    }
    return bytes;
}

double session_kv_bytes(const session *s, int n) {
    const model_hparams *hp = &s->model->hp;
    return 2.0 * hp->n_layer * hp->n_head_kv * hp->head_dim * n * (double)sizeof(float);
}

/// Keys that n tokens see, themselves included; window > 0: each at most that many.
static double count_keys(int n, int window) {
    const double full = MIN(n, window > 0 ? window : n); // tokens that see everything before them
    return full * (full + 1) / 2 + (n - full) * full;
}

double session_ops(const model_arch *arch, const model_hparams *hp, int n, int n_rows) {
    const double q = (double)hp->n_head * hp->head_dim, kv = (double)hp->n_head_kv * hp->head_dim;
    const double weights = hp->n_embd * (2 * q + 2 * kv + (arch->plain_ffn ? 2.0 : 3.0) * hp->n_ff);
    double ops = 2.0 * n_rows * (double)hp->n_embd * hp->n_vocab;
    for (int i = 0; i < hp->n_layer; i++) {
        const bool windowed = arch->swa_period > 0 && (i + 1) % arch->swa_period != 0;
        ops += 2.0 * n * weights + 4.0 * count_keys(n, windowed ? hp->n_swa : 0) * q;
    }
    return ops;
}
