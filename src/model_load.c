/*
 * model_load.c: from a checked GGUF file to a model: hyper-parameters, RoPE, and every tensor bound with its shape
 * verified. A tensor that the architecture does not use is an error: ignoring it would give wrong numbers in silence.
 */
#include "limits.h"
#include "model.h"
#include <math.h>
#include <string.h>

// ------------------------------------------------------------------------------------------------------- keys

enum { KEY_BYTES = 128, MAX_WIDTH = 1 << 20, MAX_CONTEXT = 1 << 27 };

/// "<architecture>.<key>"
static const char *arch_key(const model_arch *arch, const char *key, char out[KEY_BYTES]) {
    snprintf(out, KEY_BYTES, "%s.%s", arch->name, key);
    return out;
}

/// An integer in [lo, hi]; absent: fallback, or an error when that is negative. The first error stays.
static int read_int(const gguf_file *file, const model_arch *arch, const char *key, int fallback, int lo, int hi,
                    logitd_error *err) {
    char name[KEY_BYTES];
    int64_t value = fallback;
    if (err->status) return lo;
    if (gguf_find(file, arch_key(arch, key, name)) < 0) {
        if (fallback >= 0) return fallback;
        error_set(err, LOGITD_EFORMAT, "%s: the key %s is missing", gguf_path(file), name);
    } else if (!gguf_int(file, name, &value)) {
        error_set(err, LOGITD_EFORMAT, "%s: the key %s is not an integer", gguf_path(file), name);
    } else if (value < lo || value > hi) {
        error_set(err, LOGITD_EFORMAT, "%s: %s is %lld; from %d to %d is allowed", gguf_path(file), name,
                  (long long)value, lo, hi);
    } else {
        return (int)value;
    }
    return lo;
}

static double read_float(const gguf_file *file, const model_arch *arch, const char *key, double fallback,
                         logitd_error *err) {
    char name[KEY_BYTES];
    double value = fallback;
    if (err->status || gguf_find(file, arch_key(arch, key, name)) < 0) return fallback;
    if (!gguf_float(file, name, &value) || !isfinite(value)) {
        error_set(err, LOGITD_EFORMAT, "%s: the key %s is not a finite number", gguf_path(file), name);
        return fallback;
    }
    return value;
}

static logitd_status unknown_arch(const gguf_file *file, gguf_str name, logitd_error *err) {
    char known[128] = "";
    for (int i = 0; i < n_model_archs; i++) {
        const size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", model_archs[i].name);
    }
    return error_set(err, LOGITD_EFORMAT, "%s: the architecture \"%s\" is not supported; supported are %s",
                     gguf_path(file), gguf_show(name).text, known);
}

logitd_status model_read_hparams(const gguf_file *file, const model_arch **arch_out, model_hparams *hp,
                                 logitd_error *err) {
    gguf_str name;
    logitd_error first = {0};
    if (!gguf_string(file, "general.architecture", &name))
        return error_set(err, LOGITD_EFORMAT, "%s: the key general.architecture is missing", gguf_path(file));
    const model_arch *arch = model_arch_find(name);
    if (!arch) return unknown_arch(file, name, err);
    const gguf_tensor *tok_embd = gguf_find_tensor(file, "token_embd.weight");
    if (!tok_embd || tok_embd->n_dims != 2 || tok_embd->dims[1] > LIMIT_VOCAB)
        return error_set(err, LOGITD_EFORMAT,
                         "%s: the tensor token_embd.weight [n_vocab, n_embd] is missing or has another shape",
                         gguf_path(file));

    *hp = (model_hparams){.n_vocab = (int)tok_embd->dims[1]};
    hp->n_embd = read_int(file, arch, "embedding_length", -1, 1, MAX_WIDTH, &first);
    hp->n_layer = read_int(file, arch, "block_count", -1, 1, LIMIT_LAYERS, &first);
    hp->n_ctx = read_int(file, arch, "context_length", -1, 1, MAX_CONTEXT, &first);
    hp->n_ff = read_int(file, arch, "feed_forward_length", -1, 1, MAX_WIDTH, &first);
    hp->n_head = read_int(file, arch, "attention.head_count", -1, 1, 1 << 14, &first);
    hp->n_head_kv = read_int(file, arch, "attention.head_count_kv", hp->n_head, 1, hp->n_head, &first);
    hp->head_dim = read_int(file, arch, "attention.key_length", hp->n_embd / hp->n_head, 1, 1 << 14, &first);
    const int value_dim = read_int(file, arch, "attention.value_length", hp->head_dim, 1, 1 << 14, &first);
    hp->n_rot = arch->learned_positions
                    ? 0
                    : read_int(file, arch, "rope.dimension_count", hp->head_dim, 2, hp->head_dim, &first);
    hp->n_swa = arch->swa_period ? read_int(file, arch, "attention.sliding_window", -1, 1, MAX_CONTEXT, &first) : 0;
    const int n_expert = read_int(file, arch, "expert_count", 0, 0, 1 << 20, &first);
    const char *eps = arch->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    hp->norm_eps = (float)read_float(file, arch, eps, 1e-5, &first);
    hp->attn_softcap = (float)read_float(file, arch, "attn_logit_softcapping", 0.0, &first);
    hp->logit_softcap = (float)read_float(file, arch, "final_logit_softcapping", 0.0, &first);
    // Gemma 3 27B alone scales by its width per head and has no key for it; it is told by its 62 layers.
    const bool by_width = strcmp(arch->name, "gemma3") == 0 && hp->n_layer == 62;
    const double scale = 1.0 / sqrt(by_width ? (double)hp->n_embd / hp->n_head : (double)hp->head_dim);
    hp->attn_scale = (float)read_float(file, arch, "attention.scale", scale, &first);
    hp->embd_scale = arch->scale_embd ? (float)sqrt((double)hp->n_embd) : 1.0f;

    if (!first.status && n_expert > 0)
        error_set(&first, LOGITD_EFORMAT, "%s: mixture-of-experts models are not supported (%d experts)",
                  gguf_path(file), n_expert);
    if (!first.status && (hp->n_head % hp->n_head_kv != 0 || value_dim != hp->head_dim || hp->n_rot % 2 != 0 ||
                          (int64_t)hp->n_head * hp->head_dim > MAX_WIDTH))
        error_set(&first, LOGITD_EFORMAT,
                  "%s: %d heads over %d key/value heads of width %d (values: %d, rotated: %d) do not fit together",
                  gguf_path(file), hp->n_head, hp->n_head_kv, hp->head_dim, value_dim, hp->n_rot);
    if (first.status) {
        if (err) *err = first;
        return first.status;
    }
    *arch_out = arch;
    return LOGITD_OK;
}

// ------------------------------------------------------------------------------------------------------- RoPE

/// YaRN (Peng et al. 2023, arXiv 2309.00071, section 3.2): fast pairs keep their frequency, slow ones are divided by
/// the factor, with a linear ramp between the pairs that turn beta_fast and beta_slow times over the trained context.
static void apply_yarn(double *inv_freq, int n_rot, double base, double factor, double n_ctx_trained, double beta_fast,
                       double beta_slow) {
    const double pi = 3.14159265358979323846;
    const double lo = floor(n_rot * log(n_ctx_trained / (beta_fast * 2 * pi)) / (2 * log(base)));
    const double hi = ceil(n_rot * log(n_ctx_trained / (beta_slow * 2 * pi)) / (2 * log(base)));
    const double first = MAX(lo, 0.0), last = MIN(hi, n_rot - 1.0);
    for (int i = 0; i < n_rot / 2; i++) {
        const double ramp = MIN(1.0, MAX(0.0, (i - first) / MAX(0.001, last - first)));
        inv_freq[i] *= ramp / factor + (1.0 - ramp);
    }
}

static logitd_status apply_scaling(const gguf_file *file, const model_arch *arch, const model_hparams *hp, double base,
                                   rope_params *rope, double *inv_freq, logitd_error *err) {
    logitd_error first = {0};
    char name[KEY_BYTES];
    gguf_str kind = {"linear", 6}; // by a factor that may be 1
    gguf_string(file, arch_key(arch, "rope.scaling.type", name), &kind);
    const double factor =
        read_float(file, arch, "rope.scaling.factor", read_float(file, arch, "rope.scale_linear", 1.0, &first), &first);
    const double attn_factor = read_float(file, arch, "rope.scaling.attn_factor", 1.0, &first);
    const int n_trained =
        read_int(file, arch, "rope.scaling.original_context_length", hp->n_ctx, 1, MAX_CONTEXT, &first);
    const double beta_fast = read_float(file, arch, "rope.scaling.yarn_beta_fast", 32.0, &first);
    const double beta_slow = read_float(file, arch, "rope.scaling.yarn_beta_slow", 1.0, &first);
    if (!first.status && (factor <= 0.0 || beta_fast <= 0.0 || beta_slow <= 0.0))
        error_set(&first, LOGITD_EFORMAT, "%s: the RoPE scaling factor %g must be positive", gguf_path(file), factor);
    if (!first.status) {
        if (gguf_str_is(kind, "yarn")) {
            apply_yarn(inv_freq, hp->n_rot, base, factor, n_trained, beta_fast, beta_slow);
            rope->magnitude = attn_factor * (factor > 1.0 ? 1.0 + 0.1 * log(factor) : 1.0);
        } else if (gguf_str_is(kind, "linear")) {
            for (int i = 0; i < hp->n_rot / 2; i++) inv_freq[i] /= factor;
        } else if (!gguf_str_is(kind, "none")) {
            error_set(&first, LOGITD_EFORMAT,
                      "%s: RoPE scaling \"%s\" is not supported; supported are none, linear, yarn, and llama3 by its "
                      "rope_freqs tensor",
                      gguf_path(file), gguf_show(kind).text);
        }
    }
    if (first.status && err) *err = first;
    return first.status;
}

logitd_status model_read_rope(const gguf_file *file, const model_arch *arch, const model_hparams *hp, bool swa,
                              arena *memory, rope_params *out, logitd_error *err) {
    logitd_error first = {0};
    double base = read_float(file, arch, "rope.freq_base", 10000.0, &first);
    if (swa) base = read_float(file, arch, "rope.freq_base_swa", arch->rope_base_swa, &first);
    if (!first.status && base <= 1.0)
        error_set(&first, LOGITD_EFORMAT, "%s: the RoPE base is %g; it must be more than 1", gguf_path(file), base);
    if (first.status) {
        if (err) *err = first;
        return first.status;
    }
    const int n_pairs = hp->n_rot / 2;
    double *inv_freq = arena_alloc(memory, (size_t)MAX(n_pairs, 1), sizeof *inv_freq);
    if (!inv_freq) return error_set(err, LOGITD_ENOMEM, "there is no memory for the model");
    *out = (rope_params){.n_rot = hp->n_rot, .neox = arch->rope_neox, .inv_freq = inv_freq, .magnitude = 1.0};
    for (int i = 0; i < n_pairs; i++) inv_freq[i] = pow(base, -2.0 * i / hp->n_rot);
    if (swa) return LOGITD_OK; // scaling is for the layers that see everything

    // Llama 3: the converter stores its division of the slow frequencies as one factor a pair
    const gguf_tensor *factors = gguf_find_tensor(file, "rope_freqs.weight");
    if (factors) {
        if (factors->n_dims != 1 || factors->dims[0] != n_pairs || factors->type->block_weights != 1)
            return error_set(err, LOGITD_EFORMAT, "%s: rope_freqs.weight must hold %d factors", gguf_path(file),
                             n_pairs);
        for (int i = 0; i < n_pairs; i++) {
            float factor;
            factors->type->dequantize((const uint8_t *)factors->data + i * factors->type->block_bytes, &factor, 1);
            if (!(factor > 0.0f))
                return error_set(err, LOGITD_EFORMAT, "%s: rope_freqs.weight[%d] is %g; it must be positive",
                                 gguf_path(file), i, (double)factor);
            inv_freq[i] /= (double)factor;
        }
    }
    return apply_scaling(file, arch, hp, base, out, inv_freq, err);
}

// ------------------------------------------------------------------------------------------------------ tensors

/// A width that depends on the hyper-parameters.
typedef enum dim { DIM_ONE, DIM_EMBD, DIM_Q, DIM_KV, DIM_HEAD, DIM_FF, DIM_VOCAB, DIM_CTX } dim;
/// When a tensor must be there.
typedef enum need { ALWAYS, OPTIONAL, SPLIT_QKV, QK_NORM, POST_NORM, GATED, LAYER_NORM, POSITIONS } need;

typedef struct tensor_row {
    const char *name;
    size_t field;    // offset in model_layer or in model
    dim n_out, n_in; // n_in DIM_ONE: a vector
    need need;
} tensor_row;

static const tensor_row layer_tensors[] = {
    {"attn_norm.weight", offsetof(model_layer, attn_norm), DIM_EMBD, DIM_ONE, ALWAYS},
    {"attn_norm.bias", offsetof(model_layer, attn_norm_b), DIM_EMBD, DIM_ONE, LAYER_NORM},
    {"attn_q.weight", offsetof(model_layer, attn_q), DIM_Q, DIM_EMBD, SPLIT_QKV},
    {"attn_q.bias", offsetof(model_layer, attn_q_b), DIM_Q, DIM_ONE, OPTIONAL},
    {"attn_k.weight", offsetof(model_layer, attn_k), DIM_KV, DIM_EMBD, SPLIT_QKV},
    {"attn_k.bias", offsetof(model_layer, attn_k_b), DIM_KV, DIM_ONE, OPTIONAL},
    {"attn_v.weight", offsetof(model_layer, attn_v), DIM_KV, DIM_EMBD, SPLIT_QKV},
    {"attn_v.bias", offsetof(model_layer, attn_v_b), DIM_KV, DIM_ONE, OPTIONAL},
    {"attn_q_norm.weight", offsetof(model_layer, attn_q_norm), DIM_HEAD, DIM_ONE, QK_NORM},
    {"attn_k_norm.weight", offsetof(model_layer, attn_k_norm), DIM_HEAD, DIM_ONE, QK_NORM},
    {"attn_output.weight", offsetof(model_layer, attn_output), DIM_EMBD, DIM_Q, ALWAYS},
    {"attn_output.bias", offsetof(model_layer, attn_output_b), DIM_EMBD, DIM_ONE, OPTIONAL},
    {"post_attention_norm.weight", offsetof(model_layer, attn_post_norm), DIM_EMBD, DIM_ONE, POST_NORM},
    {"ffn_norm.weight", offsetof(model_layer, ffn_norm), DIM_EMBD, DIM_ONE, ALWAYS},
    {"ffn_norm.bias", offsetof(model_layer, ffn_norm_b), DIM_EMBD, DIM_ONE, LAYER_NORM},
    {"ffn_gate.weight", offsetof(model_layer, ffn_gate), DIM_FF, DIM_EMBD, GATED},
    {"ffn_up.weight", offsetof(model_layer, ffn_up), DIM_FF, DIM_EMBD, ALWAYS},
    {"ffn_up.bias", offsetof(model_layer, ffn_up_b), DIM_FF, DIM_ONE, OPTIONAL},
    {"ffn_down.weight", offsetof(model_layer, ffn_down), DIM_EMBD, DIM_FF, ALWAYS},
    {"ffn_down.bias", offsetof(model_layer, ffn_down_b), DIM_EMBD, DIM_ONE, OPTIONAL},
    {"post_ffw_norm.weight", offsetof(model_layer, ffn_post_norm), DIM_EMBD, DIM_ONE, POST_NORM},
};

static const tensor_row model_tensors[] = {
    {"token_embd.weight", offsetof(model, tok_embd), DIM_VOCAB, DIM_EMBD, ALWAYS},
    {"position_embd.weight", offsetof(model, position_embd), DIM_CTX, DIM_EMBD, POSITIONS},
    {"output_norm.weight", offsetof(model, output_norm), DIM_EMBD, DIM_ONE, ALWAYS},
    {"output_norm.bias", offsetof(model, output_norm_b), DIM_EMBD, DIM_ONE, LAYER_NORM},
    {"output.weight", offsetof(model, output), DIM_VOCAB, DIM_EMBD, OPTIONAL},
    {"output.bias", offsetof(model, output_b), DIM_VOCAB, DIM_ONE, OPTIONAL},
};

typedef struct loader {
    const gguf_file *file;
    model *m;
    bool *bound; // [n_tensors]
    void (*progress)(void *arg, double fraction);
    void *progress_arg;
    uint64_t n_bytes, n_bytes_ready; // of all tensors
    logitd_error *err;
} loader;

static int width(const model_hparams *hp, dim d) {
    switch (d) {
    case DIM_ONE:
        return 1;
    case DIM_EMBD:
        return hp->n_embd;
    case DIM_Q:
        return hp->n_head * hp->head_dim;
    case DIM_KV:
        return hp->n_head_kv * hp->head_dim;
    case DIM_HEAD:
        return hp->head_dim;
    case DIM_FF:
        return hp->n_ff;
    case DIM_VOCAB:
        return hp->n_vocab;
    case DIM_CTX:
        return hp->n_ctx;
    }
    return 0;
}

typedef enum presence { ABSENT, MAY_BE, MUST_BE } presence;

static presence expected(const model_arch *arch, need when) {
    switch (when) {
    case ALWAYS:
        return MUST_BE;
    case OPTIONAL:
        return MAY_BE;
    case SPLIT_QKV:
        return arch->fused_qkv ? ABSENT : MUST_BE;
    case QK_NORM:
        return arch->qk_norm ? MUST_BE : ABSENT;
    case POST_NORM:
        return arch->post_norm ? MUST_BE : ABSENT;
    case GATED:
        return arch->plain_ffn ? ABSENT : MUST_BE;
    case LAYER_NORM:
        return arch->layer_norm ? MUST_BE : ABSENT;
    case POSITIONS:
        return arch->learned_positions ? MUST_BE : ABSENT;
    }
    return ABSENT;
}

/// Embeddings are only looked up, unless the tokens' is the output matrix too.
static bool is_multiplied(const loader *l, const gguf_tensor *t) {
    if (t == gguf_find_tensor(l->file, "position_embd.weight")) return false;
    return t != gguf_find_tensor(l->file, "token_embd.weight") || !gguf_find_tensor(l->file, "output.weight");
}

/// Binds rows first … first+n_out-1 of a tensor that must be [total_out, n_in], or of a vector [total_out]. NULL with a
/// sentence on any mismatch.
static backend_weight *bind(loader *l, const gguf_tensor *t, bool vector, int total_out, int n_in, int first,
                            int n_out) {
    const bool fits = vector ? t->n_dims == 1 && t->dims[0] == total_out
                             : t->n_dims == 2 && t->dims[0] == n_in && t->dims[1] == total_out;
    if (!fits) {
        error_set(l->err, LOGITD_EFORMAT, "%s: the tensor %s is [%lld, %lld]; the model's sizes ask for [%d, %d]",
                  gguf_path(l->file), gguf_show(t->name).text, (long long)(vector ? t->dims[0] : t->dims[1]),
                  (long long)(vector ? t->dims[1] : t->dims[0]), total_out, n_in);
        return NULL;
    }
    backend *b = l->m->backend;
    backend_weight *w = b->ops->weight_create(b, t, first, n_out, is_multiplied(l, t), l->err);
    if (!w) return NULL;
    l->m->weights[l->m->n_weights++] = w;
    l->n_bytes_ready += t->n_bytes / (uint64_t)total_out * (uint64_t)n_out;
    if (l->progress) l->progress(l->progress_arg, (double)l->n_bytes_ready / (double)l->n_bytes);
    return w;
}

static const gguf_tensor *find_tensor(loader *l, const char *name) {
    const gguf_tensor *t = gguf_find_tensor(l->file, name);
    if (t) l->bound[t - gguf_tensor_at(l->file, 0)] = true;
    return t;
}

/// Binds a row of a table into the struct at `base`; `prefix` is "blk.3." or "".
static bool bind_row(loader *l, const tensor_row *row, const char *prefix, void *base) {
    char name[KEY_BYTES];
    const presence wanted = expected(l->m->arch, row->need);
    if (wanted == ABSENT) return true;
    snprintf(name, sizeof name, "%s%s", prefix, row->name);
    const gguf_tensor *t = find_tensor(l, name);
    if (!t) {
        if (wanted == MAY_BE) return true;
        error_set(l->err, LOGITD_EFORMAT, "%s: the tensor %s is missing", gguf_path(l->file), name);
        return false;
    }
    const int n_out = width(&l->m->hp, row->n_out);
    backend_weight *w = bind(l, t, row->n_in == DIM_ONE, n_out, width(&l->m->hp, row->n_in), 0, n_out);
    *(backend_weight **)((char *)base + row->field) = w;
    return w != NULL;
}

/// attn_qkv holds the rows of q, then k, then v.
static bool bind_fused_qkv(loader *l, const char *prefix, model_layer *layer) {
    const int n_q = width(&l->m->hp, DIM_Q), n_kv = width(&l->m->hp, DIM_KV), n = n_q + 2 * n_kv;
    for (int is_bias = 0; is_bias < 2; is_bias++) {
        char name[KEY_BYTES];
        snprintf(name, sizeof name, "%sattn_qkv.%s", prefix, is_bias ? "bias" : "weight");
        const gguf_tensor *t = find_tensor(l, name);
        if (!t && is_bias) return true;
        if (!t) {
            error_set(l->err, LOGITD_EFORMAT, "%s: the tensor %s is missing", gguf_path(l->file), name);
            return false;
        }
        const int n_in = is_bias ? 1 : l->m->hp.n_embd;
        backend_weight *q = bind(l, t, is_bias, n, n_in, 0, n_q);
        backend_weight *k = q ? bind(l, t, is_bias, n, n_in, n_q, n_kv) : NULL;
        backend_weight *v = k ? bind(l, t, is_bias, n, n_in, n_q + n_kv, n_kv) : NULL;
        if (!v) return false;
        *(is_bias ? &layer->attn_q_b : &layer->attn_q) = q;
        *(is_bias ? &layer->attn_k_b : &layer->attn_k) = k;
        *(is_bias ? &layer->attn_v_b : &layer->attn_v) = v;
    }
    return true;
}

static bool bind_layers(loader *l) {
    model *m = l->m;
    for (int i = 0; i < m->hp.n_layer; i++) {
        char prefix[32];
        model_layer *layer = &m->layers[i];
        snprintf(prefix, sizeof prefix, "blk.%d.", i);
        layer->swa = m->arch->swa_period > 0 && (i + 1) % m->arch->swa_period != 0;
        for (size_t r = 0; r < ARRAY_LEN(layer_tensors); r++)
            if (!bind_row(l, &layer_tensors[r], prefix, layer)) return false;
        if (m->arch->fused_qkv && !bind_fused_qkv(l, prefix, layer)) return false;
    }
    return true;
}

static bool bind_all(loader *l) {
    model *m = l->m;
    for (size_t r = 0; r < ARRAY_LEN(model_tensors); r++)
        if (!bind_row(l, &model_tensors[r], "", m)) return false;
    if (!m->output) m->output = m->tok_embd;
    if (!bind_layers(l)) return false;
    find_tensor(l, "rope_freqs.weight"); // read by model_read_rope
    for (int i = 0; i < gguf_n_tensors(l->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(l->file, i);
        for (int d = 0; d < t->n_dims; d++) ASSERT(t->dims[d] >= 1);
        m->n_params += (uint64_t)(t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3]);
        if (l->bound[i]) continue;
        error_set(l->err, LOGITD_EFORMAT, "%s: the tensor %s is not part of the architecture %s as it is known here",
                  gguf_path(l->file), gguf_show(t->name).text, m->arch->name);
        return false;
    }
    return true;
}

// --------------------------------------------------------------------------------------------------- life cycle

logitd_status model_load(const gguf_file *file, backend *b, void (*progress)(void *arg, double fraction),
                         void *progress_arg, model **out, logitd_error *err) {
    *out = NULL;
    model *m = mem_alloc(1, sizeof *m);
    if (!m) return error_set(err, LOGITD_ENOMEM, "there is no memory for the model");
    m->backend = b;
    const size_t n_tensors = (size_t)gguf_n_tensors(file);
    loader l = {.file = file, .m = m, .progress = progress, .progress_arg = progress_arg, .err = err};
    for (size_t i = 0; i < n_tensors; i++) l.n_bytes += gguf_tensor_at(file, (int)i)->n_bytes;
    logitd_status status = model_read_hparams(file, &m->arch, &m->hp, err);
    if (status) goto fail;
    status = model_read_rope(file, m->arch, &m->hp, false, &m->memory, &m->rope, err);
    if (!status) status = model_read_rope(file, m->arch, &m->hp, m->hp.n_swa > 0, &m->memory, &m->rope_swa, err);
    if (status) goto fail;
    m->layers = arena_alloc(&m->memory, (size_t)m->hp.n_layer, sizeof *m->layers);
    m->weights = arena_alloc(&m->memory, 3 * n_tensors, sizeof(backend_weight *)); // a fused tensor makes three
    l.bound = arena_alloc(&m->memory, n_tensors, sizeof *l.bound);
    if (!m->layers || !m->weights || !l.bound) {
        status = error_set(err, LOGITD_ENOMEM, "there is no memory for the model");
        goto fail;
    }
    if (!bind_all(&l)) {
        status = err && err->status ? err->status : LOGITD_EFORMAT;
        goto fail;
    }
    *out = m;
    return LOGITD_OK;
fail:
    model_free(m);
    return status;
}

void model_free(model *m) {
    if (!m) return;
    for (int i = 0; m->weights && i < m->n_weights; i++) m->backend->ops->weight_destroy(m->backend, m->weights[i]);
    arena_free(&m->memory);
    mem_free(m);
}
