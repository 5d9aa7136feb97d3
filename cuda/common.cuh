/*
 * common.cuh: the few instructions that C++ has no words for, and reductions over a warp and a block, written once.
 * Every reduction has a fixed shape, so its bits do not depend on timing.
 */
#ifndef CUDA_COMMON_CUH
#define CUDA_COMMON_CUH

#include "params.h"
#include <stdint.h>

constexpr unsigned FULL_WARP = 0xffffffffu;
constexpr int WARP = 32;

// ------------------------------------------------------------------------------------------------ shared memory

__device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/// 16 bytes from global to shared memory, past the registers and L1. Both aligned to 16.
__device__ __forceinline__ void copy16_async(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits until at most N of this thread's latest groups are under way.
template <int N> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/// Four 8 x 16-byte matrices; lanes 8 i … 8 i + 7 give the rows of matrix i; each lane gets 4 bytes of each:
/// row lane / 4, bytes 4 (lane % 4) …
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// The same of two matrices; lanes 0 … 15 give their rows.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/// d[16 x 8] += a[16 x 32] b[32 x 8], int8 with exact int32 sums. Lane l holds d of rows l / 4 and l / 4 + 8, columns
/// 2 (l % 4) and the next.
__device__ __forceinline__ void mma_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// The same of 16 inputs: the registers of one half of the 32.
__device__ __forceinline__ void mma_s8(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t b) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(b));
}
/// d[16 x 8] += a[16 x 16] b[16 x 8], bf16 with sums in f32.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// a b + c of two bf16 each, rounded once.
__device__ __forceinline__ uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
/// Two floats rounded to bf16, to nearest even.
__device__ __forceinline__ uint32_t to_bf16x2(float low, float high) {
    uint32_t d;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
    return d;
}

// --------------------------------------------------------------------------------------------------- reductions

/// Over aligned runs of N lanes; every lane gets the result. op must be commutative.
template <int N, typename T, typename Op> __device__ __forceinline__ T lanes_reduce(T x, Op op) {
#pragma unroll
    for (int step = 1; step < N; step *= 2) x = op(x, __shfl_xor_sync(FULL_WARP, x, step));
    return x;
}

/// Over a block of N_WARPS warps; every thread gets the result. `scratch` holds N_WARPS values.
template <int N_WARPS, typename T, typename Op> __device__ __forceinline__ T block_reduce(T x, T *scratch, Op op) {
    x = lanes_reduce<WARP>(x, op);
    __syncthreads(); // scratch may still be read by an earlier reduction
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads(); // all warps' values are there
    x = scratch[0];
    for (int i = 1; i < N_WARPS; i++) x = op(x, scratch[i]);
    return x;
}

struct op_add {
    template <typename T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct op_max {
    template <typename T> __device__ T operator()(T a, T b) const { return a > b ? a : b; }
};

#endif
