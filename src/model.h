/*
 * model.h: a transformer as data: hyper-parameters, weights with their shapes, and a table row for each architecture.
 * model_arch.c holds the table, model_load.c binds a GGUF file to it, model_forward.c is the layer loop.
 */
#ifndef MODEL_H
#define MODEL_H

#include "backend.h"

/// One architecture: what differs between families, as flags. Tensor names are GGUF's own. Biases are used where the
/// file has them.
typedef struct model_arch {
    const char *name;       // general.architecture, and the prefix of its keys
    bool rope_neox;         // pairs (i, i + n_rot/2), else (2i, 2i+1)
    bool layer_norm;        // mean and bias, else RMS norm
    bool learned_positions; // position_embd instead of RoPE
    bool fused_qkv;         // attn_qkv [(n_head + 2 n_head_kv) * head_dim, n_embd]
    bool qk_norm;           // RMS norm of each head's query and key
    bool post_norm;         // norms after attention and after the feed-forward part, before the residual add
    bool plain_ffn;         // down(act(up)), else down(act(gate) * up)
    bool scale_embd;        // embeddings times sqrt(n_embd)
    int swa_period;         // > 0: of each swa_period layers the last sees everything, the others n_swa positions
    double rope_base_swa;   // RoPE base of the sliding-window layers; 0: no such layers
    activation act;
} model_arch;

const model_arch *model_arch_find(gguf_str name); // or NULL
extern const model_arch model_archs[];
extern const int n_model_archs;

typedef struct model_hparams {
    int n_vocab;   // tokens of the vocabulary
    int n_ctx;     // positions that the model was made for
    int n_embd;    // width of the residual stream
    int n_layer;   // transformer blocks
    int n_head;    // query heads
    int n_head_kv; // key/value heads; divides n_head
    int head_dim;  // width of a head
    int n_ff;      // width of the feed-forward part
    int n_rot;     // rotated dimensions of a head
    int n_swa;     // sliding window in positions; 0: none
    float norm_eps;
    float attn_scale;    // scores are multiplied by it
    float attn_softcap;  // 0: none
    float logit_softcap; // 0: none
    float embd_scale;
} model_hparams;

/// Weights of one block. Matrices are [n_out, n_in] as in the file; NULL where the architecture has none.
typedef struct model_layer {
    bool swa;                                       // a sliding-window layer
    backend_weight *attn_norm, *attn_norm_b;        // [n_embd]
    backend_weight *attn_q, *attn_q_b;              // [n_head * head_dim, n_embd], [n_head * head_dim]
    backend_weight *attn_k, *attn_k_b;              // [n_head_kv * head_dim, n_embd], [n_head_kv * head_dim]
    backend_weight *attn_v, *attn_v_b;              // [n_head_kv * head_dim, n_embd], [n_head_kv * head_dim]
    backend_weight *attn_q_norm, *attn_k_norm;      // [head_dim]
    backend_weight *attn_output, *attn_output_b;    // [n_embd, n_head * head_dim], [n_embd]
    backend_weight *attn_post_norm, *ffn_post_norm; // [n_embd]
    backend_weight *ffn_norm, *ffn_norm_b;          // [n_embd]
    backend_weight *ffn_gate;                       // [n_ff, n_embd]
    backend_weight *ffn_up, *ffn_up_b;              // [n_ff, n_embd], [n_ff]
    backend_weight *ffn_down, *ffn_down_b;          // [n_embd, n_ff], [n_embd]
} model_layer;

typedef struct model {
    const model_arch *arch;
    model_hparams hp;
    backend_weight *tok_embd;                    // [n_vocab, n_embd]
    backend_weight *position_embd;               // [n_ctx, n_embd] or NULL
    backend_weight *output_norm, *output_norm_b; // [n_embd]
    backend_weight *output;                      // [n_vocab, n_embd]; tok_embd itself when tied
    backend_weight *output_b;                    // [n_vocab] or NULL
    model_layer *layers;                         // [n_layer]
    rope_params rope, rope_swa;                  // of full and of sliding-window layers
    uint64_t n_params;                           // elements of all tensors in the file
    // owned
    backend *backend;
    backend_weight **weights; // [n_weights] all of the above, for freeing
    int n_weights;
    arena memory;
} model;

/// Checks the file's keys and tensors against the architecture and binds the weights. The file and the backend must
/// outlive the model. Errors: EFORMAT with a sentence that names the key or tensor, ENOMEM.
/// `progress` (may be NULL) is called with the share of the weights that are ready, rising to 1.
logitd_status model_load(const gguf_file *file, backend *b, void (*progress)(void *arg, double fraction),
                         void *progress_arg, model **out, logitd_error *err);
void model_free(model *m);

/// The architecture and hyper-parameters alone (no tensors).
logitd_status model_read_hparams(const gguf_file *file, const model_arch **arch, model_hparams *hp, logitd_error *err);
/// inv_freq[n_rot/2] and magnitude of the model's RoPE, with its scaling kind applied.
logitd_status model_read_rope(const gguf_file *file, const model_arch *arch, const model_hparams *hp, bool swa,
                              arena *memory, rope_params *out, logitd_error *err);

/// Working buffers for batches of up to max_tokens rows, and the KV cache of all layers.
typedef struct forward_state forward_state;
forward_state *forward_create(const model *m, int max_tokens, int n_kv_rows); // NULL: no memory
void forward_free(forward_state *s);

/// One pass of all layers over a batch. Keys and values of its rows are left in the cache. Returns the residual stream
/// [n_tokens, n_embd] before the final norm; it is valid until the next call.
backend_buffer *forward_batch(forward_state *s, const token_batch *batch);
/// Final norm of the chosen rows of that stream: a buffer [n, n_embd], valid until the next call.
backend_buffer *forward_final_norm(forward_state *s, const backend_buffer *x, const int32_t *rows, int n);
/// Puts n kept rows (row-major, after the final norm) where a projection can read them.
backend_buffer *forward_restore_hidden(forward_state *s, const float *hidden, int n);

#endif
