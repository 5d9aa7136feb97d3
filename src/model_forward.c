/*
 * model_forward.c: the layer loop, written once over the backend's operations. Owns the working buffers and the KV
 * cache. Every line names the shape that it leaves behind; n is the number of rows (tokens) of the batch.
 */
#include "model.h"

struct forward_state {
    const model *m;
    backend *b;
    int max_tokens;
    backend_buffer *x;               // [n, n_embd] the residual stream
    backend_buffer *normed;          // [n, n_embd] what a half-block starts with
    backend_buffer *q, *attn;        // [n, n_head * head_dim]
    backend_buffer *k, *v;           // [n, n_head_kv * head_dim]
    backend_buffer *gate, *up;       // [n, n_ff]
    backend_buffer *part;            // [n, n_embd] what a half-block adds
    backend_buffer *rope, *rope_swa; // [n, n_rot] cos and sin of the rows' positions, or NULL
    backend_kv **kv;                 // [n_layer]
};

static void destroy_buffers(forward_state *s) {
    backend_buffer *all[] = {s->x, s->normed, s->q, s->attn, s->k, s->v, s->gate, s->up, s->part, s->rope, s->rope_swa};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) s->b->ops->buffer_destroy(s->b, all[i]);
}

void forward_free(forward_state *s) {
    if (!s) return;
    destroy_buffers(s);
    for (int i = 0; s->kv && i < s->m->hp.n_layer; i++) s->b->ops->kv_destroy(s->b, s->kv[i]);
    mem_free(s->kv);
    mem_free(s);
}

forward_state *forward_create(const model *m, int max_tokens, int n_kv_rows) {
    forward_state *s = mem_alloc(1, sizeof *s);
    if (!s) return NULL;
    const model_hparams *hp = &m->hp;
    const int n_q = hp->n_head * hp->head_dim, n_kv = hp->n_head_kv * hp->head_dim;
    *s = (forward_state){.m = m, .b = m->backend, .max_tokens = max_tokens};
    struct {
        backend_buffer **buf;
        int n_features;
    } plan[] = {{&s->x, hp->n_embd},
                {&s->normed, hp->n_embd},
                {&s->part, hp->n_embd},
                {&s->q, n_q},
                {&s->attn, n_q},
                {&s->k, n_kv},
                {&s->v, n_kv},
                {&s->gate, hp->n_ff},
                {&s->up, hp->n_ff},
                {&s->rope, hp->n_rot},
                {&s->rope_swa, hp->n_swa > 0 ? hp->n_rot : 0}};
    for (size_t i = 0; i < ARRAY_LEN(plan); i++) {
        if (plan[i].n_features == 0) continue;
        *plan[i].buf = s->b->ops->buffer_create(s->b, max_tokens, plan[i].n_features);
        if (!*plan[i].buf) goto no_memory;
    }
    s->kv = mem_alloc((size_t)hp->n_layer, sizeof *s->kv);
    for (int i = 0; i < hp->n_layer; i++) {
        if (s->kv) s->kv[i] = s->b->ops->kv_create(s->b, n_kv_rows, hp->n_head_kv, hp->head_dim);
        if (!s->kv || !s->kv[i]) goto no_memory;
    }
    return s;
no_memory:
    forward_free(s);
    return NULL;
}

/// Products of the same rows, at once where the device has that.
static void multiply_parts(backend *b, const backend_buffer *x, const matmul_part *parts, int n_parts, int n) {
    if (b->ops->matmul_parts) {
        b->ops->matmul_parts(b, x, parts, n_parts, n);
        return;
    }
    for (int i = 0; i < n_parts; i++) b->ops->matmul(b, x, parts[i].w, parts[i].bias, n, parts[i].out);
}

/// part = attention of the normed rows over what the sequence has seen: [n, n_embd]
static void attention_half(forward_state *s, const model_layer *layer, backend_kv *kv, const token_batch *batch) {
    backend *b = s->b;
    const backend_ops *op = b->ops;
    const model_hparams *hp = &s->m->hp;
    const int n = batch->n_tokens;
    const matmul_part qkv[] = {{layer->attn_q, layer->attn_q_b, s->q},
                               {layer->attn_k, layer->attn_k_b, s->k},
                               {layer->attn_v, layer->attn_v_b, s->v}};
    multiply_parts(b, s->normed, qkv, 3, n);
    if (layer->attn_q_norm) {
        op->norm(b, s->q, layer->attn_q_norm, NULL, hp->norm_eps, n, hp->n_head, s->q);
        op->norm(b, s->k, layer->attn_k_norm, NULL, hp->norm_eps, n, hp->n_head_kv, s->k);
    }
    const rope_params *rope = layer->swa ? &s->m->rope_swa : &s->m->rope;
    const backend_buffer *table = layer->swa ? s->rope_swa : s->rope;
    op->rope_kv_write(b, hp->n_rot > 0 ? rope : NULL, table, batch, s->q, s->k, s->v, kv);
    const attention_params params = {.n_head = hp->n_head,
                                     .n_head_kv = hp->n_head_kv,
                                     .head_dim = hp->head_dim,
                                     .scale = hp->attn_scale,
                                     .softcap = hp->attn_softcap,
                                     .n_swa = layer->swa ? hp->n_swa : 0};
    op->attention(b, &params, batch, s->q, kv, s->attn);
    op->matmul(b, s->attn, layer->attn_output, layer->attn_output_b, n, s->part);
}

/// part = the feed-forward part of the normed rows: [n, n_embd]
static void ffn_half(forward_state *s, const model_layer *layer, int n) {
    backend *b = s->b;
    const backend_ops *op = b->ops;
    const activation act = s->m->arch->act;
    const matmul_part up_gate[] = {{layer->ffn_up, layer->ffn_up_b, s->up}, {layer->ffn_gate, NULL, s->gate}};
    multiply_parts(b, s->normed, up_gate, layer->ffn_gate ? 2 : 1, n);
    backend_buffer *inner = s->up;
    if (layer->ffn_gate) {
        op->glu(b, act, n, s->gate, s->up);
        inner = s->gate;
    } else {
        op->glu(b, act, n, s->up, NULL);
    }
    op->matmul(b, inner, layer->ffn_down, layer->ffn_down_b, n, s->part);
}

/// x += part, and normed = what the next half-block starts with, where one follows (w): all [n, n_embd]
static void end_half(forward_state *s, const backend_weight *post_norm, const backend_weight *w,
                     const backend_weight *bias, int n) {
    s->b->ops->add_norm(s->b, s->x, s->part, post_norm, w, bias, s->m->hp.norm_eps, n, s->normed);
}

backend_buffer *forward_batch(forward_state *s, const token_batch *batch) {
    ASSERT(batch->n_tokens >= 1 && batch->n_tokens <= s->max_tokens);
    backend *b = s->b;
    const backend_ops *op = b->ops;
    const model *m = s->m;
    const int n = batch->n_tokens;

    op->embed(b, m->tok_embd, batch->tokens, n, m->hp.embd_scale, s->x);
    if (m->position_embd) {
        op->embed(b, m->position_embd, batch->positions, n, 1.0f, s->part);
        end_half(s, NULL, m->layers->attn_norm, m->layers->attn_norm_b, n);
    } else {
        op->norm(b, s->x, m->layers->attn_norm, m->layers->attn_norm_b, m->hp.norm_eps, n, 1, s->normed);
    }
    if (s->rope) op->rope_table(b, &m->rope, batch, s->rope);
    if (s->rope_swa) op->rope_table(b, &m->rope_swa, batch, s->rope_swa);

    for (int i = 0; i < m->hp.n_layer; i++) {
        const model_layer *layer = &m->layers[i], *next = i + 1 < m->hp.n_layer ? layer + 1 : NULL;
        attention_half(s, layer, s->kv[i], batch);
        end_half(s, layer->attn_post_norm, layer->ffn_norm, layer->ffn_norm_b, n);
        ffn_half(s, layer, n);
        // The final norm is of chosen rows alone: after the last layer x is only added to.
        end_half(s, layer->ffn_post_norm, next ? next->attn_norm : NULL, next ? next->attn_norm_b : NULL, n);
    }
    return s->x;
}

backend_buffer *forward_final_norm(forward_state *s, const backend_buffer *x, const int32_t *rows, int n) {
    s->b->ops->gather(s->b, x, rows, n, s->part);
    s->b->ops->norm(s->b, s->part, s->m->output_norm, s->m->output_norm_b, s->m->hp.norm_eps, n, 1, s->normed);
    return s->normed;
}

backend_buffer *forward_restore_hidden(forward_state *s, const float *hidden, int n) {
    s->b->ops->buffer_write(s->b, s->normed, hidden, n);
    return s->normed;
}
