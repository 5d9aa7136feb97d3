#include "grid.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <thread>

namespace emu {

namespace {

std::string place_text(const u32 at[3]) {
    char text[48];
    snprintf(text, sizeof text, "(%u, %u, %u)", at[0], at[1], at[2]);
    return text;
}

std::string source_text(const Kernel &kernel, u32 file, u32 line) {
    auto found = kernel.files->find(file);
    if (found == kernel.files->end()) return "";
    const std::string &path = found->second;
    return path.substr(path.rfind('/') + 1) + ":" + std::to_string(line);
}

Finding describe(const Block &block, u32 warp, const Fault &fault) {
    const Kernel &kernel = *block.kernel;
    const Loc &loc = kernel.locs[block.fault_at];
    std::string source = source_text(kernel, loc.file, loc.line),
                caller = source_text(kernel, loc.at_file, loc.at_line);
    if (!caller.empty()) source += ", inlined at " + caller;
    u32 thread[3];
    block.thread_index(warp * LANES + fault.lane, thread);
    return {fault.kind, std::string(fault_name(fault.kind)) + ": kernel " + kernel.name + ", PTX line " +
                            std::to_string(loc.ptx_line) + (source.empty() ? "" : " (" + source + ")") + ", block " +
                            place_text(block.index) + ", thread " + place_text(thread) + ": " + fault.what()};
}

void add_traffic(Traffic &to, const Traffic &from) {
    for (auto field : {&Traffic::thread_instructions, &Traffic::warp_instructions, &Traffic::global_loads,
                       &Traffic::global_load_sectors, &Traffic::global_stores, &Traffic::global_store_sectors,
                       &Traffic::global_sectors_ideal, &Traffic::async_bytes, &Traffic::shared_requests,
                       &Traffic::shared_wavefronts, &Traffic::shared_wavefronts_ideal})
        to.*field += from.*field;
}

} // namespace

struct Grid::State {
    std::vector<std::thread> threads;
    std::mutex mutex; // guards all below but `next`
    std::condition_variable changed;
    u64 generation = 0; // goes on with every launch
    u32 n_busy = 0;
    bool ending = false;
    const Launch *launch = nullptr;
    LoadedKernel *loaded = nullptr;
    std::optional<Finding> finding;
    std::atomic<u64> next{0};
    Block own; // of the calling thread

    void work(Block &block);
    void serve();
};

// Block i of the launch's order: a walk in steps that share no factor with the number of blocks.
static u64 shuffled(u64 i, u64 n, u64 seed) {
    u64 step = (seed * 0x9e3779b97f4a7c15 >> 16) % n;
    while (std::gcd(step, n) != 1) step++;
    return (u64)(((unsigned __int128)i * step + seed) % n);
}

void Grid::State::work(Block &block) {
    u64 n = (u64)launch->grid[0] * launch->grid[1] * launch->grid[2];
    block.traffic = {};
    block.executed.assign(loaded->kernel.code.size(), 0);
    for (u64 i; (i = next++) < n;) {
        u64 position = shuffled(i, n, launch->seed);
        const u32 index[3] = {(u32)(position % launch->grid[0]), (u32)(position / launch->grid[0] % launch->grid[1]),
                              (u32)(position / launch->grid[0] / launch->grid[1])};
        u32 warp = 0;
        try {
            block_run(block, *launch, index, &warp);
        } catch (const Fault &fault) {
            next = n;
            std::lock_guard<std::mutex> lock(mutex);
            if (!finding) finding = describe(block, warp, fault);
        }
    }
    std::lock_guard<std::mutex> lock(mutex);
    add_traffic(loaded->traffic, block.traffic);
    for (size_t i = 0; i < block.executed.size(); i++) loaded->kernel.executed[i] += block.executed[i];
}

void Grid::State::serve() {
    Block block;
    u64 seen = 0;
    for (;;) {
        {
            std::unique_lock<std::mutex> lock(mutex);
            changed.wait(lock, [&] { return ending || generation != seen; });
            if (ending) return;
            seen = generation;
        }
        work(block);
        std::lock_guard<std::mutex> lock(mutex);
        if (--n_busy == 0) changed.notify_all();
    }
}

Grid::Grid(u32 n_threads) : state_(std::make_unique<State>()) {
    for (u32 i = 1; i < n_threads; i++) state_->threads.emplace_back([this] { state_->serve(); });
}

Grid::~Grid() {
    {
        std::lock_guard<std::mutex> lock(state_->mutex);
        state_->ending = true;
    }
    state_->changed.notify_all();
    for (std::thread &thread : state_->threads) thread.join();
}

std::optional<Finding> Grid::run(const Launch &launch, LoadedKernel &loaded) {
    State &state = *state_;
    {
        std::lock_guard<std::mutex> lock(state.mutex);
        state.launch = &launch;
        state.loaded = &loaded;
        state.finding.reset();
        state.next = 0;
        state.n_busy = (u32)state.threads.size();
        state.generation++;
    }
    state.changed.notify_all();
    state.work(state.own);
    std::unique_lock<std::mutex> lock(state.mutex);
    state.changed.wait(lock, [&] { return state.n_busy == 0; });
    const u64 n_blocks = (u64)launch.grid[0] * launch.grid[1] * launch.grid[2];
    loaded.launches++;
    loaded.blocks += n_blocks;
    loaded.threads += n_blocks * launch.block[0] * launch.block[1] * launch.block[2];
    return std::move(state.finding);
}

} // namespace emu
