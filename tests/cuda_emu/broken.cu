// Kernels that are wrong on purpose, one mistake each; tests/test_emu_findings.py expects the emulated GPU to name it.
// "finds: KIND" stands on the line that must be named; where the order of threads decides, on each that may be. Each is
// launched with 2 blocks of 64 threads, 128 floats in `data` that are initialised, and 128 in `out` that are not.

#include <stdint.h>

__device__ static uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

extern "C" __global__ void missing_barrier(const float *data, float *out) {
    __shared__ float tile[64];
    tile[threadIdx.x] = 0;
    __syncthreads();
    tile[threadIdx.x] = data[threadIdx.x];     // finds: shared-memory race
    out[threadIdx.x] = tile[63 - threadIdx.x]; // finds: shared-memory race
}

extern "C" __global__ void missing_second_barrier(const float *data, float *out) {
    __shared__ float tile[64];
    float sum = 0;
#pragma unroll 1
    for (int i = 0; i < 2; i++) {
        tile[threadIdx.x] = data[threadIdx.x + 64 * i]; // finds: shared-memory race
        __syncthreads();
        sum += tile[63 - threadIdx.x]; // finds: shared-memory race
    }
    out[threadIdx.x] = sum;
}

extern "C" __global__ void missing_syncwarp(const float *data, float *out) {
    __shared__ float tile[64];
    tile[threadIdx.x] = data[threadIdx.x];
    out[threadIdx.x] = tile[threadIdx.x ^ 1]; // finds: shared-memory race
}

// All lanes read one place that another lane wrote.
extern "C" __global__ void broadcast_without_syncwarp(const float *data, float *out) {
    __shared__ float lanes[64];
    lanes[threadIdx.x] = data[threadIdx.x];
    out[threadIdx.x] = lanes[threadIdx.x / 32 * 32 + 7]; // finds: shared-memory race
}

// Side by side over all lanes, but for the last, past what was written.
extern "C" __global__ void row_with_one_hole(const float *data, float *out) {
    __shared__ float row[64];
    if (threadIdx.x != 63) row[threadIdx.x] = data[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = row[threadIdx.x]; // finds: uninitialised read
}

extern "C" __global__ void two_writers(const float *data, float *out) {
    __shared__ float cell;
    cell = data[threadIdx.x]; // finds: shared-memory race
    __syncthreads();
    out[threadIdx.x] = cell;
}

extern "C" __global__ void tail_off_by_one(const float *data, float *out) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i <= 127) out[i] = data[i + 1]; // finds: out of bounds
}

extern "C" __global__ void out_of_bounds_store(const float *data, float *out) {
    out[(blockIdx.x * blockDim.x + threadIdx.x) * 2] = data[threadIdx.x]; // finds: out of bounds
}

extern "C" __global__ void wrong_shuffle_mask(const float *data, float *out) {
    float v = data[threadIdx.x];
    v += __shfl_xor_sync(0x0000ffff, v, 1); // finds: lanes of the mask are missing
    out[threadIdx.x] = v;
}

extern "C" __global__ void shuffle_in_a_branch(const float *data, float *out) {
    float v = data[threadIdx.x];
    if (threadIdx.x % 32 < 16) v += __shfl_down_sync(0xffffffff, v, 4); // finds: lanes of the mask are missing
    out[threadIdx.x] = v;
}

extern "C" __global__ void misaligned_vector_load(const float *data, float *out) {
    float4 v = *(const float4 *)(data + 1 + 4 * (threadIdx.x % 16)); // finds: misaligned address
    out[threadIdx.x] = v.x + v.y + v.z + v.w;
}

extern "C" __global__ void uninitialised_shared_read(const float *data, float *out) {
    __shared__ float tile[65];
    tile[threadIdx.x] = data[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x + 1]; // finds: uninitialised read
}

extern "C" __global__ void uninitialised_global_read(const float *data, float *out) {
    out[threadIdx.x] = out[threadIdx.x + 64] + data[0]; // finds: uninitialised read
}

extern "C" __global__ void past_a_shared_array(const float *data, float *out) {
    __shared__ float tile[64];
    __shared__ float other[64];
    other[threadIdx.x] = tile[threadIdx.x] = data[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x + 1] + other[threadIdx.x]; // finds: out of bounds
}

extern "C" __global__ void barrier_in_a_branch(const float *data, float *out) {
    if (threadIdx.x % 32 != 7) __syncthreads(); // finds: barrier not reached by all threads
    out[threadIdx.x] = data[threadIdx.x];
}

extern "C" __global__ void barrier_after_return(const float *data, float *out) {
    if (threadIdx.x >= 50) return;
    out[threadIdx.x] = data[threadIdx.x];
    __syncthreads(); // finds: barrier not reached by all threads
    out[threadIdx.x + 64] = out[threadIdx.x];
}

extern "C" __global__ void barrier_of_one_warp(const float *data, float *out) {
    if (threadIdx.x < 32) __syncthreads(); // finds: barrier not reached by all threads
    out[threadIdx.x] = data[threadIdx.x];
}

extern "C" __global__ void read_before_wait(const float *data, float *out) {
    __shared__ float tile[256];
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(tile + threadIdx.x)),
                 "l"(data + threadIdx.x));
    asm volatile("cp.async.commit_group;");
    out[threadIdx.x] = tile[threadIdx.x]; // finds: read before cp.async wait
    asm volatile("cp.async.wait_group 0;");
}

extern "C" __global__ void waits_for_one_group_too_few(const float *data, float *out) {
    __shared__ float tile[128];
    for (int i = 0; i < 2; i++) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(tile + 64 * i + threadIdx.x)),
                     "l"(data + threadIdx.x));
        asm volatile("cp.async.commit_group;");
    }
    asm volatile("cp.async.wait_group 1;");
    out[threadIdx.x] = tile[64 + threadIdx.x]; // finds: read before cp.async wait
}

extern "C" __global__ void async_wait_without_barrier(const float *data, float *out) {
    __shared__ float tile[64];
    tile[threadIdx.x] = 0;
    __syncthreads();
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(tile + threadIdx.x)),
                 "l"(data + threadIdx.x)); // finds: shared-memory race
    asm volatile("cp.async.wait_all;");
    out[threadIdx.x] = tile[63 - threadIdx.x]; // finds: shared-memory race, read before cp.async wait
}

extern "C" __global__ void endless_loop(const float *data, float *out) {
    while (*(const volatile float *)data >= 0) // finds: step limit
        ;
    out[0] = 1;
}
