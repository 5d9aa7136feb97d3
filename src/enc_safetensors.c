/*
 * enc_safetensors.c: see enc_safetensors.h. `kinds` is the table of a prompt's tensors; the head and the data are both
 * walks over it.
 */
#include "enc_safetensors.h"
#include "float16.h"
#include "safetensors_head.h"
#include <math.h>

#define PIECE_BYTES  (64u << 10) // appended by one call, about: as much as is sent at once, and little of a cache
#define PIECE_VALUES 4096u       // converted at once

typedef enum dim { NONE = 0, TOKENS, POSITIONS, TEMPERATURES, ENTRY_VALUES, VOCAB, TOP, LISTED } dim;
enum {
    FULL,
    TOKEN_IDS,
    OFFSETS,
    POSITION,
    LOGSUMEXP,
    ENTROPY,
    VARENTROPY,
    NEXT_LOGPROB,
    NEXT_RANK,
    TOP_ID,
    TOP_VALUE,
    LISTED_VALUE,
    N_KINDS
};
typedef enum kind_type { IDS, STATS, VALUES } kind_type; // VALUES: in the request's dtype

static const struct kind {
    const char *name; // after "prompt.{i}."; for VALUES the name in `values` is put behind it
    kind_type type;
    bool is_stat; // left out with `stats`: false
    dim dims[3];
} kinds[N_KINDS] = {
    [FULL] = {"", VALUES, false, {POSITIONS, ENTRY_VALUES, VOCAB}},
    [TOKEN_IDS] = {"tokens", IDS, false, {TOKENS}},
    [OFFSETS] = {"offsets", IDS, false, {TOKENS}},
    [POSITION] = {"positions", IDS, false, {POSITIONS}},
    [LOGSUMEXP] = {"logsumexp", STATS, true, {POSITIONS, TEMPERATURES}},
    [ENTROPY] = {"entropy", STATS, true, {POSITIONS, TEMPERATURES}},
    [VARENTROPY] = {"varentropy", STATS, true, {POSITIONS, TEMPERATURES}},
    [NEXT_LOGPROB] = {"next_logprob", STATS, true, {POSITIONS, TEMPERATURES}},
    [NEXT_RANK] = {"next_rank", IDS, true, {POSITIONS}},
    [TOP_ID] = {"top_id", IDS, false, {POSITIONS, TOP}},
    [TOP_VALUE] = {"top_", VALUES, false, {POSITIONS, ENTRY_VALUES, TOP}},
    [LISTED_VALUE] = {"listed_", VALUES, false, {POSITIONS, ENTRY_VALUES, LISTED}},
};

// ------------------------------------------------------------------------------------------------------- shapes

static uint64_t dim_size(const enc_source *s, int iprompt, dim d) {
    const logitd_request *r = &s->request->request;
    switch (d) {
    case TOKENS:
        return (uint64_t)r->prompts[iprompt].n_tokens;
    case POSITIONS:
        return (uint64_t)r->prompts[iprompt].n_positions;
    case TEMPERATURES:
        return (uint64_t)r->n_temperatures;
    case ENTRY_VALUES:
        return enc_values_of_entry(s);
    case VOCAB:
        return r->full ? (uint64_t)s->model->n_vocab : 0;
    case TOP:
        return enc_top_n(s);
    case LISTED:
        return (uint64_t)r->n_token_ids;
    case NONE:
        break;
    }
    return 1;
}

/// Values of one row: all dimensions but the first. 0: the tensor is left out.
static size_t row_values(const enc_source *s, const struct kind *k) {
    if (k->is_stat && !s->request->stats) return 0;
    if (k == &kinds[OFFSETS] && !s->request->offsets[0]) return 0;            // prompts are all of text or all of ids
    return (size_t)(dim_size(s, 0, k->dims[1]) * dim_size(s, 0, k->dims[2])); // neither depends on the prompt
}

static bool is_half(const enc_source *s, const struct kind *k) {
    return k->type == VALUES && s->request->dtype == DTYPE_FLOAT16;
}

static void put_tensor(const enc_source *s, int iprompt, const struct kind *k, safetensors_head *h) {
    char name[64];
    uint64_t dims[3];
    int n_dims = 0;
    snprintf(name, sizeof name, "prompt.%d.%s%s", iprompt, k->name, k->type == VALUES ? enc_values_name(s) : "");
    for (size_t i = 0; i < ARRAY_LEN(k->dims); i++) {
        bool is_there =
            k->dims[i] != NONE && !(k->dims[i] == ENTRY_VALUES && s->request->request.values == LOGITD_LOGIT);
        if (is_there) dims[n_dims++] = dim_size(s, iprompt, k->dims[i]);
    }
    tensor_type type = k->type == IDS ? TENSOR_I32 : is_half(s, k) ? TENSOR_F16 : TENSOR_F32;
    safetensors_put_tensor(h, name, type, dims, n_dims);
}

/// Appends the head; returns the bytes of data that belong behind it.
static uint64_t put_head(const enc_source *s, buffer *out) {
    static const struct {
        const char *key;
        void (*put)(const enc_source *s, buffer *out);
    } metadata[] = {{"model", enc_put_model},
                    {"numerics", enc_put_numerics},
                    {"temperatures", enc_put_temperatures},
                    {"usage", enc_put_usage}};
    safetensors_head h = {0};
    buffer text = {0};
    for (size_t i = 0; i < ARRAY_LEN(metadata); i++) {
        text.len = 0;
        metadata[i].put(s, &text);
        safetensors_put_metadata(&h, metadata[i].key, &text);
    }
    buffer_free(&text);
    for (int i = 0; i < s->request->request.n_prompts; i++) {
        for (int k = 0; k < N_KINDS; k++) {
            if (row_values(s, &kinds[k])) put_tensor(s, i, &kinds[k], &h);
        }
    }
    safetensors_put_head(&h, out);
    return h.data_bytes;
}

uint64_t enc_safetensors_bytes(const enc_source *source) {
    buffer head = {0};
    uint64_t n = put_head(source, &head);
    n = head.failed ? 0 : n + head.len;
    buffer_free(&head);
    return n;
}

// --------------------------------------------------------------------------------------------------------- data

/// Where a row keeps the values of a tensor.
static const void *row_data(const logitd_row *row, int kind) {
    switch (kind) {
    case POSITION:
        return &row->position;
    case LOGSUMEXP:
        return row->logsumexp;
    case ENTROPY:
        return row->entropy;
    case VARENTROPY:
        return row->varentropy;
    case NEXT_LOGPROB:
        return row->next_logprob;
    case NEXT_RANK:
        return &row->next_rank;
    case TOP_ID:
        return row->top_id;
    case TOP_VALUE:
        return row->top_value;
    default:
        ASSERT(kind == LISTED_VALUE);
        return row->listed_value;
    }
}

static void put_halves(const float *values, size_t n, buffer *out) {
    uint16_t halves[PIECE_VALUES];
    for (size_t i = 0; i < n; i += PIECE_VALUES) {
        size_t count = MIN(PIECE_VALUES, n - i);
        float16_from(values + i, count, halves);
        buffer_append(out, halves, count * sizeof *halves);
    }
}

/// Stretches of a full row, one temperature after another, until the row or the piece ends.
static enc_step put_full_row(enc_safetensors *e, size_t n_values, size_t end, buffer *out) {
    const enc_source *s = e->source;
    const size_t n_vocab = (size_t)s->model->n_vocab;
    const bool half = is_half(s, &kinds[FULL]);
    const float *logits;
    enc_step step = s->full_row(s->arg, e->iprompt, e->irow, &logits, &e->error);
    if (step != ENC_MORE) return step;
    while (e->ivalue < n_values && out->len < end) {
        const size_t column = e->ivalue % n_vocab, n = MIN(PIECE_VALUES, n_vocab - column);
        if (!buffer_reserve(out, n * sizeof(float))) break;
        ASSERT(half || out->len % sizeof(float) == 0); // the head is padded, and no tensor before it has halves
        float singles[PIECE_VALUES], *values = half ? singles : (float *)(void *)(out->data + out->len);
        logitd_row_values(s->job, e->iprompt, e->irow, (int)(e->ivalue / n_vocab), logits + column, n, values);
        if (half) {
            put_halves(values, n, out);
        } else {
            buffer_grew(out, n * sizeof *values);
        }
        e->ivalue += n;
    }
    if (e->ivalue < n_values) return ENC_MORE;
    e->ivalue = 0;
    e->irow++;
    return ENC_MORE;
}

/// One row of a tensor, as far as it fits; moves on when it is complete.
static enc_step put_row(enc_safetensors *e, size_t n_values, size_t end, buffer *out) {
    if (e->itensor == FULL) return put_full_row(e, n_values, end, out);
    logitd_row row = logitd_job_row(e->source->job, e->iprompt, e->irow);
    const void *data = row_data(&row, e->itensor);
    if (is_half(e->source, &kinds[e->itensor])) {
        put_halves(data, n_values, out);
    } else {
        buffer_append(out, data, n_values * sizeof(float)); // floats and ids: 4 bytes
    }
    e->irow++;
    return ENC_MORE;
}

/// Rows of a tensor as they are ready, until the piece is full. ENC_END: the tensor is complete.
static enc_step put_rows(enc_safetensors *e, size_t n_values, buffer *out) {
    const int n_rows = e->source->request->request.prompts[e->iprompt].n_positions;
    const size_t end = out->len + PIECE_BYTES;
    while (e->irow < n_rows && out->len < end && !out->failed) {
        enc_step step = enc_row_ready(e->source, e->iprompt, e->irow, &e->error);
        if (step == ENC_MORE) step = put_row(e, n_values, end, out);
        if (step != ENC_MORE) return step;
    }
    return e->irow < n_rows ? ENC_MORE : ENC_END;
}

static enc_step next_piece(enc_safetensors *e, buffer *out) {
    const enc_source *s = e->source;
    const logitd_request *r = &s->request->request;
    if (!e->begun) {
        enc_step step = enc_may_begin(s, false, &e->error);
        if (step != ENC_MORE) return step;
        put_head(s, out);
        e->begun = true;
        return ENC_MORE;
    }
    if (e->iprompt == r->n_prompts) return ENC_END;
    const size_t n_values = row_values(s, &kinds[e->itensor]);
    if (n_values && (e->itensor == TOKEN_IDS || e->itensor == OFFSETS)) {
        const logitd_prompt *p = &r->prompts[e->iprompt];
        const void *data = p->tokens;
        if (e->itensor == OFFSETS) data = s->request->offsets[e->iprompt]; // UINT32_MAX is read as -1
        buffer_append(out, data, (size_t)p->n_tokens * sizeof *p->tokens);
    } else if (n_values) {
        enc_step step = put_rows(e, n_values, out);
        if (step != ENC_END) return step;
    }
    e->irow = 0;
    if (++e->itensor == N_KINDS) {
        e->itensor = 0;
        e->iprompt++;
    }
    return e->iprompt == r->n_prompts ? ENC_END : ENC_MORE;
}

enc_safetensors enc_safetensors_start(const enc_source *source) {
    return (enc_safetensors){.source = source};
}

enc_step enc_safetensors_next(enc_safetensors *e, buffer *out) {
    enc_step step = next_piece(e, out);
    if (!out->failed) return step;
    error_set(&e->error, LOGITD_ENOMEM, "no memory for the reply; ask for fewer positions or entries");
    return ENC_FAILED;
}
