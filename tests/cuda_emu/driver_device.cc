// cuInit, devices, contexts, error names, and finding entry points by name.

#include <cstdlib>

#include "counters.h"
#include "driver.h"

using namespace emu;

namespace {

struct Attribute {
    int number; // CUdevice_attribute
    int value;
};

// An A100's, but for what the settings say.
constexpr Attribute ATTRIBUTES[] = {
    {1, 1024}, // max threads per block
    {2, 1024},
    {3, 1024},
    {4, 64}, // max block dimensions
    {5, 2147483647},
    {6, 65535},
    {7, 65535},     // max grid dimensions
    {8, 48 * 1024}, // shared memory per block
    {9, 64 * 1024}, // constant memory
    {10, 32},       // warp size
    {12, 65536},    // registers per block
    {13, 1410000},  // clock, kHz
    {15, 1},        // concurrent copy and execution
    {16, 108},      // multiprocessors
    {18, 0},        // integrated
    {19, 1},        // can map host memory
    {20, 0},        // compute mode: default
    {31, 1},        // concurrent kernels
    {33, 0},
    {34, 0},
    {50, 0},                // PCI bus, device, domain
    {36, 1215000},          // memory clock, kHz
    {37, 5120},             // memory bus width, bits
    {38, 40 * 1024 * 1024}, // L2 bytes
    {39, 2048},             // max threads per multiprocessor
    {40, 3},                // copy engines
    {41, 1},                // unified addressing
    {75, 0},
    {76, 0},          // compute capability, from the settings
    {78, 1},          // stream priorities
    {81, 164 * 1024}, // shared memory per multiprocessor
    {82, 65536},      // registers per multiprocessor
    {83, 0},          // managed memory
    {95, 0},          // cooperative launch
    {97, 163 * 1024}, // shared memory per block, opt-in
    {106, 32},        // max blocks per multiprocessor
    {111, 1024},      // reserved shared memory per block
    {115, 0},         // memory pools
};

int capability_part(const Settings &settings, int attribute) {
    return (int)(attribute == 75 ? settings.capability / 10 : settings.capability % 10);
}

struct ErrorRow {
    int number;
    const char *name, *text;
};

constexpr ErrorRow ERRORS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {DEINITIALIZED, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {710, "CUDA_ERROR_ASSERT", "device-side assert triggered"},
    {HOST_MEMORY_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
     "part or all of the requested memory range is already mapped"},
    {715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"},
    {716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {717, "CUDA_ERROR_INVALID_ADDRESS_SPACE", "operation not supported on global/shared address space"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
};

int context_tag; // whose address is the primary context's handle
thread_local bool is_current = false;

} // namespace

// Device calls need cuInit but no context.
#define EMU_ENTER_DEVICE(device)                                                                                       \
    Driver &driver = Driver::instance();                                                                               \
    std::lock_guard<std::recursive_mutex> guard(driver.lock);                                                          \
    if (!driver.initialised) return NOT_INITIALIZED;                                                                   \
    if ((device) < 0 || (u64)(device) >= driver.settings.devices) return INVALID_DEVICE

EMU_API int cuInit(unsigned flags) {
    Driver &driver = Driver::instance();
    std::lock_guard<std::recursive_mutex> guard(driver.lock);
    return flags ? INVALID_VALUE : driver.initialise();
}

EMU_API int cuDriverGetVersion(int *version) {
    const char *text = getenv("LOGITD_EMU_DRIVER_VERSION"); // may be asked before cuInit
    *version = text ? atoi(text) : (int)Settings{}.driver_version;
    return SUCCESS;
}

EMU_API int cuGetErrorName(int error, const char **name) {
    *name = nullptr;
    for (const ErrorRow &row : ERRORS)
        if (row.number == error) *name = row.name;
    return *name ? SUCCESS : INVALID_VALUE;
}

EMU_API int cuGetErrorString(int error, const char **text) {
    *text = nullptr;
    for (const ErrorRow &row : ERRORS)
        if (row.number == error) *text = row.text;
    return *text ? SUCCESS : INVALID_VALUE;
}

EMU_API int cuDeviceGetCount(int *count) {
    EMU_ENTER_DEVICE(0);
    *count = (int)driver.settings.devices;
    return SUCCESS;
}

EMU_API int cuDeviceGet(int *device, int ordinal) {
    EMU_ENTER_DEVICE(ordinal);
    *device = ordinal;
    return SUCCESS;
}

EMU_API int cuDeviceGetName(char *name, int bytes, int device) {
    EMU_ENTER_DEVICE(device);
    if (bytes < 1) return INVALID_VALUE;
    snprintf(name, (size_t)bytes, "Emulated sm_%d", (int)driver.settings.capability);
    return SUCCESS;
}

EMU_API int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    EMU_ENTER_DEVICE(device);
    for (int i = 0; i < 16; i++) uuid[i] = (unsigned char)i;
    return SUCCESS;
}

EMU_API int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    EMU_ENTER_DEVICE(device);
    *bytes = driver.memory->capacity_bytes;
    return SUCCESS;
}

EMU_API int cuDeviceGetAttribute(int *value, int attribute, int device) {
    EMU_ENTER_DEVICE(device);
    for (const Attribute &row : ATTRIBUTES) {
        if (row.number != attribute) continue;
        *value = attribute == 75 || attribute == 76 ? capability_part(driver.settings, attribute) : row.value;
        return SUCCESS;
    }
    return INVALID_VALUE;
}

EMU_API int cuDeviceComputeCapability(int *major, int *minor, int device) {
    EMU_ENTER_DEVICE(device);
    *major = capability_part(driver.settings, 75);
    *minor = capability_part(driver.settings, 76);
    return SUCCESS;
}

// ---- contexts: only the primary one, which cuCtxCreate gives too

EMU_API int cuDevicePrimaryCtxRetain(void **context, int device) {
    EMU_ENTER_DEVICE(device);
    driver.contexts++;
    *context = &context_tag;
    return SUCCESS;
}

EMU_API int cuDevicePrimaryCtxReset_v2(int device) {
    EMU_ENTER_DEVICE(device);
    driver.reset();
    return SUCCESS;
}

EMU_API int cuDevicePrimaryCtxRelease_v2(int device) {
    EMU_ENTER_DEVICE(device);
    if (!driver.contexts) return INVALID_CONTEXT;
    if (--driver.contexts == 0) driver.reset();
    return SUCCESS;
}

EMU_API int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned) {
    EMU_ENTER_DEVICE(device);
    return SUCCESS;
}

EMU_API int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    EMU_ENTER_DEVICE(device);
    *flags = 0;
    *active = driver.contexts > 0;
    return SUCCESS;
}

EMU_API int cuCtxCreate_v2(void **context, unsigned, int device) {
    is_current = true;
    return cuDevicePrimaryCtxRetain(context, device);
}

EMU_API int cuCtxDestroy_v2(void *context) {
    return context == &context_tag ? cuDevicePrimaryCtxRelease_v2(0) : INVALID_CONTEXT;
}

EMU_API int cuCtxSetCurrent(void *context) {
    EMU_ENTER_DEVICE(0);
    if (context && context != &context_tag) return INVALID_CONTEXT;
    is_current = context != nullptr;
    return SUCCESS;
}

EMU_API int cuCtxPushCurrent_v2(void *context) {
    return cuCtxSetCurrent(context);
}

EMU_API int cuCtxPopCurrent_v2(void **context) {
    if (context) *context = is_current ? &context_tag : nullptr;
    return cuCtxSetCurrent(nullptr);
}

EMU_API int cuCtxGetCurrent(void **context) {
    EMU_ENTER_DEVICE(0);
    *context = is_current ? &context_tag : nullptr;
    return SUCCESS;
}

EMU_API int cuCtxGetDevice(int *device) {
    EMU_ENTER_DEVICE(0);
    *device = 0;
    return is_current ? SUCCESS : INVALID_CONTEXT;
}

EMU_API int cuCtxSynchronize() {
    EMU_ENTER();
    return driver.drain_all();
}

EMU_API int cuCtxSetLimit(int, size_t) {
    EMU_ENTER();
    return SUCCESS;
}

EMU_API int cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    EMU_ENTER();
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return SUCCESS;
}

// ---- for tests, beside the driver API

// The latest finding, or "".
EMU_API const char *emu_last_finding() {
    return Driver::instance().last_finding.c_str();
}

// Changes a setting by the end of its variable's name: "SEED", "STEPS", "FAIL_LAUNCH" (counted from now), "TRAFFIC",
// "MEMORY_MB" (not less than what is used).
// Not 0: there is no such setting.
EMU_API int emu_set(const char *name, unsigned long long value) {
    Driver &driver = Driver::instance();
    std::lock_guard<std::recursive_mutex> guard(driver.lock);
    Settings &settings = driver.settings;
    if (!strcmp(name, "SEED")) return settings.seed = value, SUCCESS;
    if (!strcmp(name, "STEPS")) return settings.steps_max = value, SUCCESS;
    if (!strcmp(name, "FAIL_LAUNCH")) return settings.fail_launch = value ? driver.n_launches + value : 0, SUCCESS;
    if (!strcmp(name, "TRAFFIC")) return settings.traffic = value, SUCCESS;
    if (!strcmp(name, "MEMORY_MB")) return driver.memory->capacity_bytes = value << 20, SUCCESS;
    return INVALID_VALUE;
}

// The counts of a kernel, in the order of counts.def; see counters.h.
EMU_API int cuda_emu_counters(const char *kernel, unsigned long long *counts, int n) {
    Driver &driver = Driver::instance();
    std::lock_guard<std::recursive_mutex> guard(driver.lock);
    for (const LoadedModule *module : driver.modules) {
        auto found = module->kernels.find(kernel);
        if (found == module->kernels.end()) continue;
        const std::vector<u64> all = counters_of(*found->second);
        if (n != (int)all.size()) return INVALID_VALUE;
        std::copy(all.begin(), all.end(), counts);
        return SUCCESS;
    }
    return NOT_FOUND;
}
