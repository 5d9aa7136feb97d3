// Modules and functions; launches.

#include <algorithm>

#include "counters.h"
#include "driver.h"

using namespace emu;

namespace {

// CUjit_option numbers of the log buffers: their values are a pointer and a size.
constexpr int JIT_INFO_LOG_SIZE = 4, JIT_ERROR_LOG = 5, JIT_ERROR_LOG_SIZE = 6;

void write_error_log(const std::string &message, unsigned n_options, const int *options, void **values) {
    char *log = nullptr;
    size_t size = 0;
    for (unsigned i = 0; i < n_options; i++) {
        if (options[i] == JIT_ERROR_LOG) log = (char *)values[i];
        if (options[i] == JIT_ERROR_LOG_SIZE) size = (unsigned)(size_t)values[i];
    }
    size_t written = 0;
    if (log && size) written = std::min(size - 1, (size_t)snprintf(log, size, "%s", message.c_str()));
    for (unsigned i = 0; i < n_options; i++) {
        if (options[i] == JIT_ERROR_LOG_SIZE) values[i] = (void *)written;
        if (options[i] == JIT_INFO_LOG_SIZE) values[i] = nullptr;
    }
}

int load_text(Driver &driver, void **out, const char *text, std::string *message) {
    try {
        auto module = load_module(text, *driver.memory);
        if (module->ptx.target_sm > driver.settings.capability) {
            unload_module(*module, *driver.memory);
            *message = "the PTX is for sm_" + std::to_string(module->ptx.target_sm) + ", and the device is sm_" +
                       std::to_string(driver.settings.capability);
            return NO_BINARY_FOR_GPU;
        }
        driver.modules.insert(module.get());
        *out = module.release();
        return SUCCESS;
    } catch (const LoadError &error) {
        *message = "PTX line " + std::to_string(error.line) + ": " + error.what();
        driver.report("load: " + *message);
        return INVALID_PTX;
    }
}

// A function's handle is its kernel's.
LoadedKernel *find_kernel(Driver &driver, void *handle) {
    for (LoadedModule *module : driver.modules)
        for (auto &[name, kernel] : module->kernels)
            if (kernel.get() == handle) return kernel.get();
    return nullptr;
}

} // namespace

EMU_API int cuModuleLoadDataEx(void **module, const void *image, unsigned n_options, int *options, void **values) {
    EMU_ENTER();
    const auto *bytes = (const unsigned char *)image;
    std::string message;
    // A cubin is an ELF file; a fat binary is a container of them. Neither can be executed here.
    if (bytes[0] == 0x7f || bytes[0] == 0x50) return NO_BINARY_FOR_GPU;
    if (bytes[0] == 0 || bytes[0] > 0x7e) return INVALID_IMAGE;
    int result = load_text(driver, module, (const char *)image, &message);
    write_error_log(message, n_options, options, values);
    return result;
}

EMU_API int cuModuleLoadData(void **module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
EMU_API int cuModuleLoadFatBinary(void **, const void *) {
    return NO_BINARY_FOR_GPU;
}

EMU_API int cuModuleUnload(void *handle) {
    EMU_ENTER();
    auto *module = (LoadedModule *)handle;
    if (!driver.modules.count(module)) return INVALID_HANDLE;
    driver.drain_all();
    if (!driver.settings.counters.empty()) counters_append(driver.settings.counters, *module);
    driver.modules.erase(module);
    unload_module(*module, *driver.memory);
    delete module;
    return driver.sticky;
}

EMU_API int cuModuleGetFunction(void **function, void *handle, const char *name) {
    EMU_ENTER();
    auto *module = (LoadedModule *)handle;
    if (!driver.modules.count(module)) return INVALID_HANDLE;
    auto found = module->kernels.find(name);
    if (found == module->kernels.end()) return NOT_FOUND;
    *function = found->second.get();
    return SUCCESS;
}

EMU_API int cuModuleGetGlobal_v2(u64 *address, size_t *bytes, void *handle, const char *name) {
    EMU_ENTER();
    auto *module = (LoadedModule *)handle;
    if (!driver.modules.count(module)) return INVALID_HANDLE;
    auto found = module->variables.find(name);
    if (found == module->variables.end()) return NOT_FOUND;
    if (address) *address = found->second.first;
    if (bytes) *bytes = found->second.second;
    return SUCCESS;
}

EMU_API int cuModuleGetLoadingMode(int *mode) {
    *mode = 1; // eager
    return SUCCESS;
}

// ---- functions

namespace {

// CUfunction_attribute
enum FunctionAttribute : int {
    MAX_THREADS = 0,
    SHARED_BYTES,
    CONST_BYTES,
    LOCAL_BYTES,
    NUM_REGS,
    PTX_VERSION,
    BINARY_VERSION,
    CACHE_MODE,
    MAX_DYNAMIC_SHARED,
    CARVEOUT
};

u32 shared_opt_in_max() {
    return 163 * 1024;
}

} // namespace

EMU_API int cuFuncGetAttribute(int *value, int attribute, void *function) {
    EMU_ENTER();
    LoadedKernel *loaded = find_kernel(driver, function);
    if (!loaded) return INVALID_HANDLE;
    const Kernel &kernel = loaded->kernel;
    switch (attribute) {
    case MAX_THREADS:
        *value = (int)kernel.max_threads;
        return SUCCESS;
    case SHARED_BYTES:
        *value = (int)kernel.shared_declared_bytes;
        return SUCCESS;
    case CONST_BYTES:
        *value = 0;
        return SUCCESS;
    case LOCAL_BYTES:
        *value = (int)kernel.local_bytes;
        return SUCCESS;
    case NUM_REGS:
        *value = (int)std::min(kernel.n_registers, 255U);
        return SUCCESS;
    case PTX_VERSION:
    case BINARY_VERSION:
        *value = (int)driver.settings.capability;
        return SUCCESS;
    case CACHE_MODE:
        *value = 0;
        return SUCCESS;
    case MAX_DYNAMIC_SHARED:
        *value = (int)loaded->dynamic_shared_max;
        return SUCCESS;
    case CARVEOUT:
        *value = -1;
        return SUCCESS;
    default:
        return INVALID_VALUE;
    }
}

EMU_API int cuFuncSetAttribute(void *function, int attribute, int value) {
    EMU_ENTER();
    LoadedKernel *loaded = find_kernel(driver, function);
    if (!loaded) return INVALID_HANDLE;
    if (attribute == CARVEOUT) return value >= -1 && value <= 100 ? SUCCESS : INVALID_VALUE;
    if (attribute != MAX_DYNAMIC_SHARED) return INVALID_VALUE;
    if (value < 0 || (u32)value + loaded->kernel.shared_declared_bytes > shared_opt_in_max()) return INVALID_VALUE;
    loaded->dynamic_shared_max = (u32)value;
    return SUCCESS;
}

EMU_API int cuFuncSetCacheConfig(void *function, int) {
    EMU_ENTER();
    return find_kernel(driver, function) ? SUCCESS : INVALID_HANDLE;
}

EMU_API int cuFuncGetName(const char **name, void *function) {
    EMU_ENTER();
    LoadedKernel *loaded = find_kernel(driver, function);
    if (!loaded) return INVALID_HANDLE;
    *name = loaded->kernel.name.c_str();
    return SUCCESS;
}

// By threads and shared memory only: how many registers the machine code takes is not known from PTX.
EMU_API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int block_threads,
                                                        size_t dynamic_shared) {
    EMU_ENTER();
    LoadedKernel *loaded = find_kernel(driver, function);
    if (!loaded) return INVALID_HANDLE;
    if (block_threads < 1 || (u32)block_threads > loaded->kernel.max_threads) return INVALID_VALUE;
    size_t shared = loaded->kernel.shared_declared_bytes + dynamic_shared + 1024;
    *blocks = (int)std::min(
        {(size_t)32, (size_t)2048 / (((size_t)block_threads + 31) / 32 * 32), (size_t)164 * 1024 / shared});
    return SUCCESS;
}

// ---- launches

namespace {

// CU_LAUNCH_PARAM_…
void *const PARAM_END = nullptr, *const PARAM_BUFFER = (void *)1, *const PARAM_SIZE = (void *)2;

bool gather_params(const Kernel &kernel, void **params, void **extra, std::vector<u8> *out) {
    out->assign(kernel.param_bytes, 0);
    if (params) {
        for (size_t i = 0; i < kernel.params.size(); i++)
            memcpy(out->data() + kernel.params[i].start, params[i], kernel.params[i].bytes);
        return true;
    }
    const void *buffer = nullptr;
    size_t bytes = 0;
    for (; extra && *extra != PARAM_END; extra += 2) {
        if (extra[0] == PARAM_BUFFER) buffer = extra[1];
        if (extra[0] == PARAM_SIZE) bytes = *(const size_t *)extra[1];
    }
    if (bytes < kernel.param_bytes || (kernel.param_bytes && !buffer)) return kernel.param_bytes == 0;
    if (buffer) memcpy(out->data(), buffer, kernel.param_bytes);
    return true;
}

Result run_launch(Launch &launch, LoadedKernel &loaded) {
    Driver &driver = Driver::instance();
    driver.n_launches++;
    if (driver.n_launches == driver.settings.fail_launch) {
        driver.report(std::string(fault_name(FaultKind::INJECTED)) + ": kernel " + loaded.kernel.name + ", launch " +
                      std::to_string(driver.n_launches));
        return (Result)fault_result(FaultKind::INJECTED);
    }
    launch.seed = driver.settings.seed * 0x10001 + driver.n_launches;
    launch.steps_max = driver.settings.steps_max;
    launch.count_traffic = driver.settings.traffic != 0;
    launch.memory = driver.memory.get();
    launch.pinned = &driver.pinned;
    auto finding = driver.grid->run(launch, loaded);
    if (!finding) return SUCCESS;
    driver.report(finding->text);
    return (Result)fault_result(finding->kind);
}

} // namespace

EMU_API int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                           unsigned shared_bytes, void *stream_handle, void **params, void **extra) {
    EMU_ENTER();
    LoadedKernel *loaded = find_kernel(driver, function);
    Stream *stream = driver.stream(stream_handle);
    if (!loaded || !stream) return INVALID_HANDLE;
    u64 n_threads = (u64)bx * by * bz;
    if (!gx || !gy || !gz || gx > 0x7fffffff || gy > 65535 || gz > 65535 || !n_threads || bz > 64) return INVALID_VALUE;
    if (n_threads > 1024 || n_threads > loaded->kernel.max_threads)
        return n_threads > 1024 ? INVALID_VALUE : LAUNCH_OUT_OF_RESOURCES;
    if (shared_bytes > loaded->dynamic_shared_max ||
        loaded->kernel.shared_declared_bytes + shared_bytes > shared_opt_in_max())
        return INVALID_VALUE;
    auto launch = std::make_shared<Launch>();
    launch->kernel = &loaded->kernel;
    const u32 grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    std::copy_n(grid, 3, launch->grid);
    std::copy_n(block, 3, launch->block);
    launch->dynamic_shared_bytes = shared_bytes;
    if (!gather_params(loaded->kernel, params, extra, &launch->params)) return INVALID_VALUE;
    driver.enqueue(*stream, [launch, loaded] { return run_launch(*launch, *loaded); });
    return SUCCESS;
}

// CUlaunchConfig
struct LaunchConfig {
    unsigned grid[3], block[3], shared_bytes;
    void *stream;
    void *attributes;
    unsigned n_attributes;
};

// Launch attributes (clusters, overlap of dependent launches) are not supported.
EMU_API int cuLaunchKernelEx(const LaunchConfig *config, void *function, void **params, void **extra) {
    if (config->n_attributes) return NOT_SUPPORTED;
    return cuLaunchKernel(function, config->grid[0], config->grid[1], config->grid[2], config->block[0],
                          config->block[1], config->block[2], config->shared_bytes, config->stream, params, extra);
}
