#include "loader.h"

#include <algorithm>
#include <set>

#include "decode.h"
#include "ptx_inline.h"
#include "ptx_parse.h"

namespace emu {

namespace {

constexpr u32 SHARED_RED_ZONE = 16; // after each variable
constexpr u32 DYNAMIC_ALIGN = 128;  // of dynamic shared memory's start

u64 round_up(u64 value, u64 to) {
    return (value + to - 1) / to * to;
}

void collect_globals(const Operand &operand, std::set<u32> &found) {
    if (operand.kind == OperandKind::GLOBAL_VARIABLE) found.insert(operand.index);
    for (const Operand &element : operand.elements) collect_globals(element, found);
}

u64 place_shared(Kernel &kernel, const Variable &variable, u64 cursor) {
    u64 start = round_up(cursor, std::max(variable.align, 16U));
    if (start + variable.bytes > 1 << 20)
        throw LoadError(0, "\"" + variable.name + "\" is more shared memory than any device has");
    kernel.shared.push_back({(u32)start, (u32)variable.bytes});
    kernel.shared_declared_bytes = (u32)round_up(kernel.shared_declared_bytes, variable.align) + (u32)variable.bytes;
    return start;
}

// Static shared variables with red zones between them; extern ones start where the dynamic part does.
void lay_out_shared(KernelBuilder &builder) {
    std::set<u32> used;
    for (const Statement &statement : builder.function.body)
        for (const Operand &operand : statement.operands) collect_globals(operand, used);
    std::vector<std::pair<const Variable *, u64 *>> shared;
    for (u32 i = 0; i < builder.function.variables.size(); i++)
        if (builder.function.variables[i].space == Space::SHARED)
            shared.emplace_back(&builder.function.variables[i], &builder.variable_address[i]);
    for (u32 i : used)
        if (builder.module.variables[i].space == Space::SHARED)
            shared.emplace_back(&builder.module.variables[i], &builder.global_variable_address[i]);
    u64 cursor = 0;
    for (auto [variable, address] : shared) {
        if (variable->bytes == 0) continue;
        *address = place_shared(builder.kernel, *variable, cursor);
        cursor = *address + variable->bytes + SHARED_RED_ZONE;
    }
    builder.kernel.shared_bytes = (u32)round_up(cursor, DYNAMIC_ALIGN);
    for (auto [variable, address] : shared)
        if (variable->bytes == 0) *address = builder.kernel.shared_bytes;
}

void lay_out_frame_and_params(KernelBuilder &builder) {
    u64 frame = 0, params = 0;
    for (u32 i = 0; i < builder.function.variables.size(); i++) {
        const Variable &variable = builder.function.variables[i];
        if (variable.space == Space::LOCAL) {
            builder.variable_address[i] = round_up(frame, variable.align);
            frame = builder.variable_address[i] + variable.bytes;
        } else if (variable.space == Space::PARAM) {
            builder.variable_address[i] = round_up(params, variable.align);
            params = builder.variable_address[i] + variable.bytes;
            builder.kernel.params.push_back({(u32)builder.variable_address[i], (u32)variable.bytes});
        }
    }
    if (frame > 512 * 1024)
        throw LoadError(builder.function.loc.ptx_line, "the kernel needs more than 512 KiB of local memory a thread");
    if (params > 32764)
        throw LoadError(builder.function.loc.ptx_line, "the kernel has more than 32,764 bytes of parameters");
    builder.kernel.local_bytes = (u32)round_up(frame, 16);
    builder.kernel.param_bytes = (u32)params;
}

void build_kernel(LoadedModule &module, const Function &entry, const std::vector<u64> &addresses, Kernel &kernel) {
    Function whole = ptx_inline(module.ptx, entry);
    kernel.name = entry.name;
    kernel.files = &module.ptx.files;
    if (entry.max_threads) kernel.max_threads = std::min(entry.max_threads, 1024U);
    KernelBuilder builder = {module.ptx, whole, kernel,    std::vector<u64>(whole.variables.size(), 0), addresses, {},
                             {},         {},    NO_OPERAND};
    lay_out_frame_and_params(builder);
    lay_out_shared(builder);
    decode_function(builder);
}

// Addresses of all of the module's variables; those of shared memory are given by each kernel.
std::vector<u64> place_variables(LoadedModule &module, GlobalMemory &memory) {
    std::vector<u64> addresses;
    for (const Variable &variable : module.ptx.variables) {
        if (variable.space == Space::SHARED) {
            addresses.push_back(0);
            continue;
        }
        u64 address = memory.alloc(variable.bytes);
        if (!address) throw LoadError(0, "there is no memory for the variable \"" + variable.name + "\"");
        module.variables[variable.name] = {address, variable.bytes};
        addresses.push_back(address);
        memset(memory.bytes_at(address), 0, variable.bytes);
        memcpy(memory.bytes_at(address), variable.init.data(), variable.init.size());
        memory.mark_initialised(address, variable.bytes);
        if (variable.space == Space::CONST) memory.mark_read_only(address, variable.bytes);
    }
    for (size_t i = 0; i < addresses.size(); i++)
        for (const auto &[at, name] : module.ptx.variables[i].pointers) {
            auto found = module.ptx.variable_index.find(name);
            if (found == module.ptx.variable_index.end()) throw LoadError(0, "\"" + name + "\" is not defined");
            memcpy(memory.bytes_at(addresses[i]) + at, &addresses[found->second], 8);
        }
    return addresses;
}

} // namespace

namespace {

std::unique_ptr<LoadedModule> build_module(const std::string &text, GlobalMemory &memory) {
    auto module = std::make_unique<LoadedModule>();
    module->ptx = ptx_parse(text);
    try {
        std::vector<u64> addresses = place_variables(*module, memory);
        for (const auto &[name, function] : module->ptx.functions) {
            if (!function->is_entry) continue;
            auto loaded = std::make_unique<LoadedKernel>();
            build_kernel(*module, *function, addresses, loaded->kernel);
            module->kernels[name] = std::move(loaded);
        }
    } catch (...) {
        unload_module(*module, memory);
        throw;
    }
    module->ptx.functions.clear(); // decoded: only names of files and variables are used from here on
    return module;
}

// Of a module without variables, which is the same wherever it is loaded.
std::unique_ptr<LoadedModule> copy_module(const LoadedModule &from) {
    auto made = std::make_unique<LoadedModule>();
    made->ptx.files = from.ptx.files;
    made->ptx.target_sm = from.ptx.target_sm;
    for (const auto &[name, loaded] : from.kernels) {
        auto fresh = std::make_unique<LoadedKernel>();
        fresh->kernel = loaded->kernel;
        fresh->kernel.files = &made->ptx.files;
        made->kernels[name] = std::move(fresh);
    }
    return made;
}

} // namespace

// Tests open a backend hundreds of times in one process, each time with the same text: the latest one is kept decoded.
std::unique_ptr<LoadedModule> load_module(const std::string &text, GlobalMemory &memory) {
    static std::string latest_text;
    static std::unique_ptr<LoadedModule> latest;
    if (latest && text == latest_text) return copy_module(*latest);
    auto module = build_module(text, memory);
    if (module->variables.empty()) {
        latest = copy_module(*module);
        latest_text = text;
    }
    return module;
}

void unload_module(LoadedModule &module, GlobalMemory &memory) {
    for (const auto &[name, place] : module.variables) memory.free(place.first);
    module.variables.clear();
}

} // namespace emu
