/*
 * cpu_vec.h: the few vector operations that the kernels need, for one instruction set. Included by cpu_kernels_simd.h
 * after CPU_LANES is set. Arithmetic, comparison and selection are the compiler's own vector extensions; only what they
 * lack (fused multiply-add, lane masks) is spelled out for each instruction set.
 */
#include <math.h>
#include <string.h>
#if defined(__AVX2__)
#    include <immintrin.h>
#elif defined(__aarch64__)
#    include <arm_neon.h>
#endif

typedef float vf __attribute__((vector_size(4 * CPU_LANES), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * CPU_LANES), may_alias));
typedef double vd __attribute__((vector_size(8 * CPU_LANES), aligned(8 * CPU_LANES < 64 ? 8 * CPU_LANES : 64),
                                 may_alias)); // as memory is aligned

typedef float vf_anywhere __attribute__((vector_size(4 * CPU_LANES), aligned(4), may_alias));
typedef int32_t vi_anywhere __attribute__((vector_size(4 * CPU_LANES), aligned(4), may_alias));

static inline vf vf_load(const float *p) { // aligned to a vector
    return *(const vf *)p;
}
static inline void vf_store(float *p, vf x) {
    *(vf *)p = x;
}
static inline vf vf_load_anywhere(const float *p) {
    return (vf) * (const vf_anywhere *)p;
}
static inline void vf_store_anywhere(float *p, vf x) {
    *(vf_anywhere *)p = (vf_anywhere)x;
}
static inline vi vi_load_anywhere(const void *p) {
    return (vi) * (const vi_anywhere *)p;
}
static inline vf vf_set(float x) {
    return x - (vf){0};
}
static inline vi vi_set(int32_t x) {
    return x - (vi){0};
}

/// a * b + c
static inline vf vf_fma(vf a, vf b, vf c) {
#if defined(__AVX512F__) && CPU_LANES == 16
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && CPU_LANES == 8
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__) && CPU_LANES == 4
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c; // two roundings: the portable level is its own machine
#endif
}

static inline vf vf_select(vi mask, vf yes, vf no) {
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}
static inline vf vf_max(vf a, vf b) {
    return vf_select(a < b, b, a);
} // a where either is NaN

/// One bit a lane.
static inline uint32_t vi_mask(vi x) {
#if defined(__AVX512F__) && CPU_LANES == 16
    return _mm512_movepi32_mask((__m512i)x);
#elif defined(__AVX2__) && CPU_LANES == 8
    return (uint32_t)_mm256_movemask_ps((__m256)x);
#else
    uint32_t mask = 0;
    for (int i = 0; i < CPU_LANES; i++) mask |= (uint32_t)(x[i] & 1) << i;
    return mask;
#endif
}

/// exp(x) within 2 ulp for x in [-87.3, 88.3]; 0 below, exp(88.3) above; NaN stays NaN.
/// x = n ln 2 + r, |r| <= ln 2 / 2; polynomial of Cephes expf.
static inline vf vf_exp(vf x) {
    const vf lo = vf_set(-87.3f), hi = vf_set(88.3f);
    vf y = vf_select(x < lo, lo, x);
    y = vf_select(y > hi, hi, y);
    const vf magic = vf_set(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer
    vf n = (y * 1.44269504f + magic) - magic;
    vf r = vf_fma(n, vf_set(-0.693359375f), y);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_fma(p, r * r, r) + 1.0f;
    vi exponent = (__builtin_convertvector(n, vi) + 127) << 23;
    return vf_select(x < lo, vf_set(0.0f), p * (vf)exponent);
}

/// tanh(x) to 1e-7 absolute.
static inline vf vf_tanh(vf x) {
    const vi sign = (vi)x & vi_set((int32_t)0x80000000);
    vf e = vf_exp((vf)((vi)x & vi_set(0x7fffffff)) * -2.0f);
    return (vf)((vi)((1.0f - e) / (1.0f + e)) | sign);
}
