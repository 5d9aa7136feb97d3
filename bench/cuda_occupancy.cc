// cuda_occupancy.cc: the toolkit's occupancy calculator, which needs no device; see cuda_gpus.h. C++, since the
// header's functions are inline in a way that C does not have.
#if __has_include(<cuda_occupancy.h>)
#    define HAVE_OCCUPANCY 1
#    pragma GCC diagnostic push
#    pragma GCC diagnostic ignored "-Wextra"
#    include <cuda_occupancy.h>
#    pragma GCC diagnostic pop
#else
#    define HAVE_OCCUPANCY 0
#endif

extern "C" {
#include "cuda_gpus.h"
}

#if HAVE_OCCUPANCY
static const char *limit_name(unsigned factors) {
    if (factors & OCC_LIMIT_REGISTERS) return "registers";
    if (factors & OCC_LIMIT_SHARED_MEMORY) return "shared memory";
    if (factors & OCC_LIMIT_WARPS) return "threads";
    return "blocks";
}

bool cuda_occupancy_of(const cuda_gpu *gpu, const cuda_resource *resource, int threads, int dynamic_shared_bytes,
                       cuda_occupancy *out) {
    cudaOccDeviceProp device;
    device.computeMajor = gpu->capability / 10;
    device.computeMinor = gpu->capability % 10;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = gpu->max_threads;
    device.regsPerBlock = device.regsPerMultiprocessor = gpu->n_regs_k * 1024;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 * 1024;
    device.sharedMemPerMultiprocessor = (size_t)gpu->shared_kb * 1024;
    device.numSms = gpu->n_sm;
    device.sharedMemPerBlockOptin = (size_t)gpu->shared_block_kb * 1024;
    device.reservedSharedMemPerBlock = 1024;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = threads;
    kernel.numRegs = resource->registers;
    kernel.sharedSizeBytes = (size_t)resource->static_shared_bytes;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = device.sharedMemPerBlockOptin - kernel.sharedSizeBytes;
    kernel.numBlockBarriers = 1;
    cudaOccDeviceState state;
    cudaOccResult result;
    *out = {0, "cuda_occupancy.h does not know the device"};
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads,
                                                (size_t)dynamic_shared_bytes) == CUDA_OCC_SUCCESS)
        *out = {result.activeBlocksPerMultiprocessor, limit_name(result.limitingFactors)};
    return true;
}
#else
bool cuda_occupancy_of(const cuda_gpu *, const cuda_resource *, int, int, cuda_occupancy *) {
    return false;
}
#endif
