/*
 * embed.cu: what moves rows and works element by element: embedding gather with dequantisation, gather, gated
 * activations, add. Each is bounded by memory, and small beside the products.
 */
#include "common.cuh"

/*
 * Kernel card: embed
 *   out[r][i] = (scale q + add) * factor of row ids[r]; a quantised weight has the file's exact value
 *   w packed [n_vocab_pad, k_pad] -> out [n_rows, n_in]; grid n_rows, block 128
 *   bytes 1.25 to 3.25 read and 4 written an element; not measured
 *   reference embed of src/cpu/cpu_backend.c; test embed of tests/unit/test_backend_ops.c
 */
extern "C" __global__ void __launch_bounds__(ROW_THREADS) embed(const __grid_constant__ embed_params p) {
    const int id = p.ids[blockIdx.x];
    const int64_t plane = (int64_t)p.w.n_rows_pad * p.w.k_pad;
    const signed char *limbs = p.w.limbs + (int64_t)id * p.w.k_pad;
    for (int i = threadIdx.x; i < p.n_in; i += ROW_THREADS) {
        const float2 scale = p.w.scales[(int64_t)(i / p.group) * p.w.n_rows_pad + id];
        float w;
        if (p.w_limbs == 1) { // the product is exact: a quant has at most 8 bits and a scale at most 18
            w = __fmaf_rn(scale.x, (float)limbs[i], scale.y);
        } else {
            const int q = (limbs[i] * 256 + limbs[plane + i]) * 256 + limbs[2 * plane + i];
            w = __fmul_rn(scale.x * (1.0f / 65536.0f), (float)q);
        }
        p.out[(int64_t)blockIdx.x * p.n_in + i] = __fmul_rn(w, p.scale);
    }
}

/*
 * Kernel cards: gather (x[i] = y[rows[i]]), glu (x = act(x) y), add (x += y)
 *   f32, element by element; grid ceil(n / 256), block 256; bytes 8 to 12 an element; not measured
 *   reference cpu_ops_ref.c; tests gather, glu of tests/unit/test_backend_ops.c
 */
extern "C" __global__ void __launch_bounds__(FLAT_THREADS) gather(const __grid_constant__ flat_params p) {
    const int i = blockIdx.x * FLAT_THREADS + threadIdx.x;
    if (i < p.n) p.x[i] = p.y[(int64_t)p.rows[i / p.n_features] * p.n_features + i % p.n_features];
}

extern "C" __global__ void __launch_bounds__(FLAT_THREADS) glu(const __grid_constant__ flat_params p) {
    const int i = blockIdx.x * FLAT_THREADS + threadIdx.x;
    if (i >= p.n) return;
    const float x = p.x[i];
    // GELU's 0.5 x (1 + tanh u) is x / (1 + exp(-2 u)), which does not cancel.
    const float u = p.act == 0 ? x : 2.0f * 0.797884560802865f * (x + 0.044715f * x * x * x);
    const float y = x / (1.0f + expf(-u));
    p.x[i] = p.y ? y * p.y[i] : y;
}

extern "C" __global__ void __launch_bounds__(FLAT_THREADS) add(const __grid_constant__ flat_params p) {
    const int i = blockIdx.x * FLAT_THREADS + threadIdx.x;
    if (i < p.n) p.x[i] = __fadd_rn(p.x[i], p.y[i]);
}
