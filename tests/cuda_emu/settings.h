// What the emulated machine is: read from the environment at cuInit, as a table of names (settings.cc).
#pragma once

#include <string>

#include "types.h"

namespace emu {

struct Settings {
    u64 seed = 1;               // order of blocks, warps, branches and streams
    u64 threads = 0;            // host threads that run blocks; 0: one a core
    u64 memory_mb = 8192;       // of the device
    u64 capability = 80;        // compute capability × 10
    u64 devices = 1;            // 0: none, as on a machine with a driver but no GPU
    u64 driver_version = 13000; // 1000 × major + 10 × minor
    u64 steps_max = 1ULL << 32; // instructions of one warp in one launch
    u64 fail_launch = 0;        // the n-th launch, from 1, fails as a broken device would; 0: none
    u64 traffic = 0;            // 1: count memory transactions (about half the speed)
    std::string report;         // a file that findings are appended to, beside stderr
    std::string counters;       // a file that counts are written to when the program ends
};

// Throws std::runtime_error when a value is no number.
Settings settings_from_environment();

} // namespace emu
