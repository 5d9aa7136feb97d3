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

#if defined(__FMA__) || defined(__aarch64__)
#    define VF_FMA_FUSED true
#else
#    define VF_FMA_FUSED false
#endif

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

/// Byte i (a constant) of each lane, as a number from 0 to 255.
static inline __attribute__((always_inline)) vi vi_byte(vi x, int i) {
#if defined(__AVX2__) && CPU_LANES == 8
    if (i == 1 || i == 2) {                                // a shuffle is one operation, a shift and a mask are two
        const vi zero_above = vi_set((int32_t)0xffffff00); // such indices give zero
        const vi first_of_lane = {0, 4, 8, 12, 0, 4, 8, 12};
        return (vi)_mm256_shuffle_epi8((__m256i)x, (__m256i)(zero_above | (first_of_lane + i)));
    }
#endif
    typedef uint32_t unsigned_vi __attribute__((vector_size(4 * CPU_LANES)));
    const vi from = (vi)((unsigned_vi)x >> 8 * i), low = from & vi_set(255);
    return i == 3 ? from : low;
}

#if (defined(__AVX512BW__) && CPU_LANES == 16) || (defined(__AVX2__) && CPU_LANES == 8)
typedef int16_t vh __attribute__((vector_size(4 * CPU_LANES), may_alias)); // two a lane

static inline vh vh_set(int x) {
    return (int16_t)x - (vh){0};
}
/// Bytes 0 and 2, and bytes 1 and 3, of each lane as numbers from 0 to 255.
static inline vh pair_even(vi bytes) {
    return (vh)(bytes & vi_set(0x00ff00ff));
}
static inline vh pair_odd(vi bytes) {
    typedef uint16_t unsigned_vh __attribute__((vector_size(4 * CPU_LANES)));
    return (vh)((unsigned_vh)bytes >> 8);
}
/// The sum of a lane's two products of 16-bit numbers.
static inline vi vi_multiply_pairs(vi a, vi b) {
#    if CPU_LANES == 16
    return (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#    else
    return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#    endif
}
/// To the nearest whole number, ties to even.
static inline vi vi_round(vf x) {
#    if CPU_LANES == 16
    return (vi)_mm512_cvtps_epi32((__m512)x);
#    else
    return (vi)_mm256_cvtps_epi32((__m256)x);
#    endif
}
#endif

static inline vf vf_select(vi mask, vf yes, vf no) {
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}
/// The larger; a where either is NaN.
static inline vf vf_max(vf a, vf b) {
#if defined(__AVX512F__) && CPU_LANES == 16
    return (vf)_mm512_max_ps((__m512)b, (__m512)a);
#elif defined(__AVX2__) && CPU_LANES == 8
    return (vf)_mm256_max_ps((__m256)b, (__m256)a);
#else
    return vf_select(a < b, b, a);
#endif
}

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

#define EXP2_FLOOR   (-126.0f) // there and below, 2^x counts as 0
#define EXP2_AT_ONCE 4         // vectors: as many as registers allow
#define LOG2_E       1.44269504f
#define LN_2         0.69314718055994530942

/// 2^x within 2 ulp for x in [EXP2_FLOOR, 0], 0 at the floor; NaN stays NaN. The softmax's own exponential, of n (a
/// constant) vectors step by step side by side: one takes 40 cycles from end to end, and a scheduler's 64 operations
/// hold hardly three that stand one after the other.
static inline __attribute__((always_inline)) void vf_exp2_floored(int n, const vf *x, vf *power) {
    vf sum[EXP2_AT_ONCE], r[EXP2_AT_ONCE], p[EXP2_AT_ONCE];
#define EACH for (int j = 0; j < n; j++)
#if defined(__AVX512F__) && CPU_LANES == 16
    // x = n + r, n a multiple of 1/32, |r| <= 1/64. 2^frac(n) from a table, 2^r = 1 + c1 r + c2 r^2 with c1 raised a
    // little above ln 2, which takes up most of the cubic term (error 5e-8).
    // An entry lacks i << 18, which the sum's own bits i bring when they are moved to the exponent.
    static const uint32_t table[32] __attribute__((aligned(64))) = {
        // bits of 2^(i / 32), less i << 18
        0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3, 0x3f78f4f0,
        0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6,
        0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
        0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3};
    const __m512i low = _mm512_load_si512(table), high = _mm512_load_si512(table + 16);
    const vf magic = vf_set(393216.0f); // 1.5 * 2^18: the sum's low mantissa bits count 32nds
    __m512i fraction[EXP2_AT_ONCE];
    EACH sum[j] = x[j] + magic;
    EACH r[j] = x[j] - (sum[j] - magic);
    EACH fraction[j] = _mm512_permutex2var_epi32(low, (__m512i)sum[j], high);
    EACH p[j] = vf_fma(r[j], vf_set(0.240226507f), vf_set(0.693157345f));
    EACH sum[j] = (vf)_mm512_add_epi32(fraction[j], _mm512_slli_epi32((__m512i)sum[j], 18));
    EACH p[j] = vf_fma(p[j], r[j], vf_set(1.0f));
    EACH power[j] = (vf)_mm512_maskz_mul_ps(_mm512_cmp_ps_mask((__m512)x[j], _mm512_set1_ps(EXP2_FLOOR), _CMP_NLE_UQ),
                                            (__m512)p[j], (__m512)sum[j]);
#else
    const vf magic = vf_set(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer
    EACH sum[j] = x[j] + magic;
    EACH r[j] = x[j] - (sum[j] - magic);
    // |r| <= 1/2: minimax of degree 5, as in Cephes exp2f
    EACH p[j] = vf_fma(r[j], vf_set(1.33336498402e-3f), vf_set(9.61793571794e-3f));
    EACH p[j] = vf_fma(p[j], r[j], vf_set(5.55036533e-2f));
    EACH p[j] = vf_fma(p[j], r[j], vf_set(2.4022651e-1f));
    EACH p[j] = vf_fma(p[j], r[j], vf_set(6.931472e-1f));
    EACH p[j] = vf_fma(p[j], r[j], vf_set(1.0f));
    EACH power[j] = (vf)(((vi)p[j] + ((vi)sum[j] << 23)) & ~(x[j] <= EXP2_FLOOR));
#endif
#undef EACH
}

/// tanh(x) to 1e-7 absolute.
static inline vf vf_tanh(vf x) {
    const vi sign = (vi)x & vi_set((int32_t)0x80000000);
    vf e = vf_exp((vf)((vi)x & vi_set(0x7fffffff)) * -2.0f);
    return (vf)((vi)((1.0f - e) / (1.0f + e)) | sign);
}
