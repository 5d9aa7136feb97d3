/*
 * model_arch.c: the architectures, a row each. Everything that differs between families is a flag here and a branch in
 * model_load.c or model_forward.c.
 */
#include "model.h"

const model_arch model_archs[] = {
    // Llama 1-3, SmolLM2, Mistral: the converter interleaves the halves of each rotated head
    {.name = "llama", .act = ACT_SILU},
    {.name = "gemma3",
     .rope_neox = true,
     .qk_norm = true,
     .post_norm = true,
     .scale_embd = true,
     .swa_period = 6,
     .rope_base_swa = 10000.0,
     .act = ACT_GELU_TANH},
    {.name = "qwen2", .rope_neox = true, .act = ACT_SILU},
    {.name = "qwen3", .rope_neox = true, .qk_norm = true, .act = ACT_SILU},
    {.name = "gpt2",
     .layer_norm = true,
     .learned_positions = true,
     .fused_qkv = true,
     .plain_ffn = true,
     .act = ACT_GELU_TANH},
};
const int n_model_archs = ARRAY_LEN(model_archs);

const model_arch *model_arch_find(gguf_str name) {
    for (int i = 0; i < n_model_archs; i++)
        if (gguf_str_is(name, model_archs[i].name)) return &model_archs[i];
    return NULL;
}
