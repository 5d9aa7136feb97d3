// PTX text → kernels that can be launched, and the module's variables in the device's memory.
#pragma once

#include <memory>

#include "machine.h"

namespace emu {

// What was counted for a kernel since it was loaded.
struct LoadedKernel {
    Kernel kernel;
    u64 launches = 0, blocks = 0, threads = 0;
    Traffic traffic;
    u32 dynamic_shared_max = 48 * 1024; // cuFuncSetAttribute raises it
};

struct LoadedModule {
    Module ptx;
    std::map<std::string, std::unique_ptr<LoadedKernel>> kernels;
    std::map<std::string, std::pair<u64, u64>> variables; // address, bytes
};

// Throws LoadError. The variables' memory is the device's and goes with unload_module.
std::unique_ptr<LoadedModule> load_module(const std::string &text, GlobalMemory &memory);
void unload_module(LoadedModule &module, GlobalMemory &memory);

} // namespace emu
