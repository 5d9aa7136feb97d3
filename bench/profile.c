/*
 * profile.c: see profile.h. First what is known of weights and buffers, by address; then the rows; then one wrapper for
 * each operation. A wrapper finds the profile from the backend's table, which is the profile's first member.
 */
#include "profile.h"
#include "timing.h"
#include <string.h>

/// A weight or a buffer of the backend.
typedef struct thing {
    const void *address; // NULL: a free place
    char role[32];       // of a weight: "ffn_up"
    double n_out, n_in;  // of a matrix; of a vector and of a buffer n_out is the features, n_in 1
    double bytes;        // of a weight in its file
} thing;

enum { MAX_ROWS = 64 };

struct profile {
    backend_ops ops; // first: the table that the backend shows
    const backend_ops *inner;
    backend *backend;
    thing *things; // [n_places], open addressing
    size_t n_things, n_places;
    profile_row rows[MAX_ROWS];
    int n_rows;
};

static profile *profile_of(const backend *b) {
    return (profile *)(void *)(uintptr_t)b->ops;
}

// ------------------------------------------------------------------------------------------------------ what is known

static thing *find_place(thing *things, size_t n_places, const void *address) {
    size_t i = ((uintptr_t)address >> 5) * 0x9E3779B97F4A7C15u % n_places;
    while (things[i].address && things[i].address != address) i = (i + 1) % n_places;
    return &things[i];
}

/// Half of the places stay free. Without memory for more, the thing is not remembered and counts as nothing.
static void remember(profile *p, thing t) {
    if (2 * (p->n_things + 1) > p->n_places) {
        const size_t n = MAX(256, 2 * p->n_places);
        thing *larger = mem_alloc(n, sizeof *larger);
        if (!larger) return;
        for (size_t i = 0; i < p->n_places; i++)
            if (p->things[i].address) *find_place(larger, n, p->things[i].address) = p->things[i];
        mem_free(p->things);
        p->things = larger;
        p->n_places = n;
    }
    thing *place = find_place(p->things, p->n_places, t.address);
    if (!place->address) p->n_things++;
    *place = t; // an address that was freed and given again is the new thing
}

static const thing *look_up(const profile *p, const void *address) {
    static const thing nothing = {.role = "unknown"};
    if (!p->n_places || !address) return &nothing;
    const thing *place = find_place(p->things, p->n_places, address);
    return place->address ? place : &nothing;
}

/// "blk.7.ffn_up.weight" is "ffn_up".
static void role_of(const gguf_tensor *tensor, char *out, size_t n) {
    const char *name = tensor->name.data, *end = name + tensor->name.len;
    if (tensor->name.len > 4 && memcmp(name, "blk.", 4) == 0) {
        const char *dot = memchr(name + 4, '.', (size_t)(end - name) - 4);
        if (dot) name = dot + 1;
    }
    const char *dot = memchr(name, '.', (size_t)(end - name));
    snprintf(out, n, "%.*s", (int)((dot ? dot : end) - name), name);
}

static backend_weight *weight_create(backend *b, const gguf_tensor *tensor, int first_out, int n_out, bool multiplied,
                                     logitd_error *err) {
    profile *p = profile_of(b);
    backend_weight *w = p->inner->weight_create(b, tensor, first_out, n_out, multiplied, err);
    if (!w) return NULL;
    const double n_in = tensor->n_dims == 1 ? 1.0 : (double)tensor->dims[0];
    const double all = (double)(tensor->n_dims == 1 ? tensor->dims[0] : tensor->dims[1]);
    thing t = {.address = w, .n_out = n_out, .n_in = n_in, .bytes = (double)tensor->n_bytes * n_out / all};
    role_of(tensor, t.role, sizeof t.role);
    remember(p, t);
    return w;
}

static backend_buffer *buffer_create(backend *b, int n_rows, int n_features) {
    profile *p = profile_of(b);
    backend_buffer *buf = p->inner->buffer_create(b, n_rows, n_features);
    if (buf) remember(p, (thing){.address = buf, .n_out = n_features, .n_in = 1});
    return buf;
}

/// Bytes of n rows of a buffer.
static double row_bytes(const profile *p, const backend_buffer *buf, int n) {
    return look_up(p, buf)->n_out * n * (double)sizeof(float);
}

// ------------------------------------------------------------------------------------------------------------- rows

/// Ends a timed call: waits for the work and adds it to its row.
static void add_call(profile *p, const char *op, const char *role, double start_ms, double ops, double bytes) {
    char name[sizeof p->rows[0].name];
    int i = 0;
    p->inner->finish(p->backend, NULL); // a fault is sticky: the caller's own finish reports it
    const double ms = timing_now_ms() - start_ms;
    snprintf(name, sizeof name, "%s%s%s", op, role ? " " : "", role ? role : "");
    while (i < p->n_rows && strcmp(p->rows[i].name, name) != 0) i++;
    if (i == p->n_rows) {
        ASSERT(p->n_rows < MAX_ROWS);
        memcpy(p->rows[p->n_rows++].name, name, sizeof name);
    }
    p->rows[i].n_calls++;
    p->rows[i].ms += ms;
    p->rows[i].ops += ops;
    p->rows[i].bytes += bytes;
}

int profile_rows(const profile *p, const profile_row **rows) {
    *rows = p->rows;
    return p->n_rows;
}

void profile_clear(profile *p) {
    for (int i = 0; i < p->n_rows; i++) {
        profile_row *row = &p->rows[i];
        row->n_calls = 0;
        row->ms = row->ops = row->bytes = 0.0;
    }
}

// -------------------------------------------------------------------------------------------------------- operations

static void embed(backend *b, const backend_weight *table, const int32_t *ids, int n_rows, float scale,
                  backend_buffer *out) {
    profile *p = profile_of(b);
    const thing *t = look_up(p, table);
    const double start = timing_now_ms();
    p->inner->embed(b, table, ids, n_rows, scale, out);
    const double read = t->n_out > 0 ? t->bytes / t->n_out * n_rows : 0.0;
    add_call(p, "embed", t->role, start, 0.0, read + row_bytes(p, out, n_rows));
}

static void norm(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, float eps,
                 int n_rows, int n_groups, backend_buffer *out) {
    profile *p = profile_of(b);
    const double start = timing_now_ms();
    p->inner->norm(b, x, w, bias, eps, n_rows, n_groups, out);
    add_call(p, "norm", look_up(p, w)->role, start, 0.0, row_bytes(p, x, n_rows) + row_bytes(p, out, n_rows));
}

static void add_norm(backend *b, backend_buffer *x, backend_buffer *y, const backend_weight *y_norm,
                     const backend_weight *w, const backend_weight *bias, float eps, int n_rows, backend_buffer *out) {
    profile *p = profile_of(b);
    const double start = timing_now_ms();
    p->inner->add_norm(b, x, y, y_norm, w, bias, eps, n_rows, out);
    add_call(p, "add_norm", w ? look_up(p, w)->role : NULL, start, 0.0,
             2 * row_bytes(p, x, n_rows) + row_bytes(p, y, n_rows) + (w ? row_bytes(p, out, n_rows) : 0.0));
}

static void matmul(backend *b, const backend_buffer *x, const backend_weight *w, const backend_weight *bias, int n_rows,
                   backend_buffer *out) {
    profile *p = profile_of(b);
    const thing *t = look_up(p, w);
    const double start = timing_now_ms();
    p->inner->matmul(b, x, w, bias, n_rows, out);
    add_call(p, "matmul", t->role, start, 2.0 * n_rows * t->n_out * t->n_in,
             t->bytes + row_bytes(p, x, n_rows) + row_bytes(p, out, n_rows));
}

static void rope_table(backend *b, const rope_params *rope, const token_batch *batch, backend_buffer *table) {
    profile *p = profile_of(b);
    const double start = timing_now_ms();
    p->inner->rope_table(b, rope, batch, table);
    add_call(p, "rope_table", NULL, start, 0.0, row_bytes(p, table, batch->n_tokens));
}

static void rope_kv_write(backend *b, const rope_params *rope, const backend_buffer *table, const token_batch *batch,
                          backend_buffer *q, backend_buffer *k, const backend_buffer *v, backend_kv *kv) {
    profile *p = profile_of(b);
    const int n = batch->n_tokens;
    const double start = timing_now_ms();
    p->inner->rope_kv_write(b, rope, table, batch, q, k, v, kv);
    const double turned = rope ? row_bytes(p, table, n) + 2 * row_bytes(p, q, n) : 0.0;
    add_call(p, "rope_kv_write", NULL, start, 0.0, turned + 2 * (row_bytes(p, k, n) + row_bytes(p, v, n)));
}

/// Keys that the row at this position sees.
static double visible_keys(const attention_params *params, int position) {
    return params->n_swa > 0 ? MIN(position + 1, params->n_swa) : position + 1;
}

double profile_attention_ops(const attention_params *params, const token_batch *batch) {
    double keys = 0.0;
    for (int i = 0; i < batch->n_tokens; i++) keys += visible_keys(params, batch->positions[i]);
    return 4.0 * keys * params->n_head * params->head_dim;
}

/// Each slice reads its keys and values once.
static double attention_bytes(const attention_params *params, const token_batch *batch) {
    double keys = 0.0;
    for (int s = 0; s < batch->n_slices; s++) {
        const batch_slice *slice = &batch->slices[s];
        keys += MIN(slice->first_pos + slice->n, visible_keys(params, slice->first_pos) + slice->n - 1);
    }
    return 2.0 * keys * params->n_head_kv * params->head_dim * (double)sizeof(float);
}

static void attention(backend *b, const attention_params *params, const token_batch *batch, const backend_buffer *q,
                      const backend_kv *kv, backend_buffer *out) {
    profile *p = profile_of(b);
    const double start = timing_now_ms();
    p->inner->attention(b, params, batch, q, kv, out);
    add_call(p, "attention", params->n_swa > 0 ? "window" : "full", start, profile_attention_ops(params, batch),
             attention_bytes(params, batch) + row_bytes(p, q, batch->n_tokens) + row_bytes(p, out, batch->n_tokens));
}

static void glu(backend *b, activation act, int n_rows, backend_buffer *gate, const backend_buffer *up) {
    profile *p = profile_of(b);
    const double start = timing_now_ms();
    p->inner->glu(b, act, n_rows, gate, up);
    add_call(p, "glu", NULL, start, 0.0, 2 * row_bytes(p, gate, n_rows) + row_bytes(p, up, n_rows));
}

static void gather(backend *b, const backend_buffer *x, const int32_t *rows, int n, backend_buffer *out) {
    profile *p = profile_of(b);
    const double start = timing_now_ms();
    p->inner->gather(b, x, rows, n, out);
    add_call(p, "gather", NULL, start, 0.0, 2 * row_bytes(p, out, n));
}

static logitd_status project_stats(backend *b, const backend_buffer *hidden, const backend_weight *output,
                                   const backend_weight *output_bias, float softcap, int n_rows, project_row *rows,
                                   logitd_error *err) {
    profile *p = profile_of(b);
    const thing *t = look_up(p, output);
    const double start = timing_now_ms();
    const logitd_status status = p->inner->project_stats(b, hidden, output, output_bias, softcap, n_rows, rows, err);
    add_call(p, "project_stats", NULL, start, 2.0 * n_rows * t->n_out * t->n_in,
             t->bytes + row_bytes(p, hidden, n_rows));
    return status;
}

// ------------------------------------------------------------------------------------------------------------ ends

profile *profile_attach(backend *b) {
    profile *p = mem_alloc(1, sizeof *p);
    if (!p) return NULL;
    p->inner = b->ops;
    p->backend = b;
    p->ops = *b->ops; // what is not named here goes straight to the backend
    p->ops.weight_create = weight_create;
    p->ops.buffer_create = buffer_create;
    p->ops.embed = embed;
    p->ops.norm = norm;
    p->ops.add_norm = add_norm;
    p->ops.matmul = matmul;
    p->ops.matmul_parts = NULL; // each weight has a row of its own
    p->ops.rope_table = rope_table;
    p->ops.rope_kv_write = rope_kv_write;
    p->ops.attention = attention;
    p->ops.glu = glu;
    p->ops.gather = gather;
    p->ops.project_stats = project_stats;
    b->ops = &p->ops;
    return p;
}

void profile_detach(profile *p) {
    if (!p) return;
    p->backend->ops = p->inner;
    mem_free(p->things);
    mem_free(p);
}
