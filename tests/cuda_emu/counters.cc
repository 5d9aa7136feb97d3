#include "counters.h"

#include <cstdio>
#include <numeric>

namespace emu {

namespace {

bool has(const std::string &opcode, const char *modifier) {
    size_t n = std::char_traits<char>::length(modifier);
    for (size_t at = 0; (at = opcode.find(modifier, at)) != std::string::npos; at += n)
        if (at && opcode[at - 1] == '.' && (at + n == opcode.size() || opcode[at + n] == '.')) return true;
    return false;
}

// The first row whose name is the opcode, or a beginning of it up to a dot, wins.
struct UnitRow {
    const char *name;
    Unit unit;
};
const UnitRow UNIT_ROWS[] = {
    {"cp", Unit::async},           {"ldmatrix", Unit::load_matrix},
    {"ld.shared", Unit::shared},   {"st.shared", Unit::shared},
    {"atom.shared", Unit::shared}, {"red.shared", Unit::shared},
    {"ld.param", Unit::moves},     {"ld", Unit::global},
    {"st", Unit::global},          {"atom", Unit::global},
    {"red", Unit::global},         {"bar", Unit::barriers},
    {"barrier", Unit::barriers},   {"shfl", Unit::warp},
    {"vote", Unit::warp},          {"match", Unit::warp},
    {"redux", Unit::warp},         {"activemask", Unit::warp},
    {"ex2", Unit::special},        {"lg2", Unit::special},
    {"rcp", Unit::special},        {"rsqrt", Unit::special},
    {"sqrt", Unit::special},       {"sin", Unit::special},
    {"cos", Unit::special},        {"tanh", Unit::special},
    {"div", Unit::special},        {"mov", Unit::moves},
    {"cvta", Unit::moves},         {"bra", Unit::other},
    {"brx", Unit::other},          {"ret", Unit::other},
    {"exit", Unit::other},         {"trap", Unit::other},
    {"membar", Unit::other},       {"fence", Unit::other},
    {"prefetch", Unit::other},     {"prefetchu", Unit::other},
};

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

Unit unit_of(const std::string &opcode) {
    if (opcode.rfind("mma.", 0) == 0) return has(opcode, "s32") ? Unit::mma_integer : Unit::mma_float;
    for (const UnitRow &row : UNIT_ROWS) {
        size_t n = std::char_traits<char>::length(row.name);
        if (opcode.compare(0, n, row.name) == 0 && (opcode.size() == n || opcode[n] == '.')) return row.unit;
    }
    bool is_double = has(opcode, "f64"), is_float = is_double || has(opcode, "f32") || has(opcode, "f16");
    if (opcode.rfind("cvt.", 0) == 0 && is_float) return is_double ? Unit::convert64 : Unit::convert;
    if (has(opcode, "pred")) return Unit::other;
    return is_double ? Unit::f64 : is_float || has(opcode, "bf16") ? Unit::f32 : Unit::integer;
}

std::vector<u64> counters_of(const LoadedKernel &loaded) {
    const Traffic &t = loaded.traffic;
    const Kernel &kernel = loaded.kernel;
    const u64 launches = loaded.launches, blocks = loaded.blocks, threads = loaded.threads;
    u64 units[(size_t)Unit::NONE + 1] = {};
    for (size_t i = 0; i < kernel.code.size(); i++) units[kernel.units[i]] += kernel.executed[i];
    const u64 warp_instructions = std::accumulate(units, units + (size_t)Unit::NONE, (u64)0);
    std::vector<u64> all = {launches,
                            blocks,
                            threads,
                            warp_instructions,
                            t.thread_instructions,
                            t.global_loads,
                            t.global_load_sectors,
                            t.global_stores,
                            t.global_store_sectors,
                            t.global_sectors_ideal,
                            t.shared_requests,
                            t.shared_wavefronts,
                            t.shared_wavefronts_ideal,
                            t.async_bytes};
    all.insert(all.end(), units, units + (size_t)Unit::NONE);
    return all;
}

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
        fprintf(file, "global\t%s\t%llu\t%llu\t%llu\n", name.c_str(), (Count)(t.global_loads + t.global_stores),
                (Count)(t.global_load_sectors + t.global_store_sectors), (Count)t.global_sectors_ideal);
        fprintf(file, "shared\t%s\t%llu\t%llu\t%llu\n", name.c_str(), (Count)t.shared_requests,
                (Count)t.shared_wavefronts, (Count)t.shared_wavefronts_ideal);
        write_lines(file, module, loaded->kernel);
    }
    fclose(file);
}

} // namespace emu
