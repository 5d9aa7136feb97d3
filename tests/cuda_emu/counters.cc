#include "counters.h"

#include <cstdio>

namespace emu {

namespace {

void write_lines(FILE *file, const LoadedModule &module, const Kernel &kernel) {
    for (size_t i = 0; i < kernel.code.size(); i++) {
        if (!kernel.is_statement[i]) continue;
        const Loc &loc = kernel.locs[i];
        auto found = module.ptx.files.find(loc.file);
        std::string source = found == module.ptx.files.end() ? "-" : found->second + ":" + std::to_string(loc.line);
        fprintf(file, "line\t%s\t%u\t%s\t%llu\n", kernel.name.c_str(), loc.ptx_line, source.c_str(),
                (unsigned long long)kernel.executed[i]);
    }
}

} // namespace

void counters_append(const std::string &path, const LoadedModule &module) {
    FILE *file = fopen(path.c_str(), "a");
    if (!file) {
        fprintf(stderr, "cuda_emu: cannot write %s\n", path.c_str());
        return;
    }
    for (const auto &[name, loaded] : module.kernels) {
        const Traffic &t = loaded->traffic;
        using Count = unsigned long long;
        fprintf(file, "kernel\t%s\t%llu\t%llu\t%llu\t%u\t%u\n", name.c_str(), (Count)loaded->launches,
                (Count)t.warp_instructions, (Count)t.thread_instructions, loaded->kernel.n_registers,
                loaded->kernel.shared_declared_bytes);
        fprintf(file, "global\t%s\t%llu\t%llu\t%llu\n", name.c_str(), (Count)t.global_requests, (Count)t.global_sectors,
                (Count)t.global_sectors_ideal);
        fprintf(file, "shared\t%s\t%llu\t%llu\t%llu\n", name.c_str(), (Count)t.shared_requests,
                (Count)t.shared_wavefronts, (Count)t.shared_wavefronts_ideal);
        write_lines(file, module, loaded->kernel);
    }
    fclose(file);
}

} // namespace emu
