#include "driver.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "counters.h"

namespace emu {

Driver &Driver::instance() {
    // Never destroyed: the program may call until its very end.
    static Driver *driver = [] {
        auto *made = new Driver;
        made->default_stream.is_default = true;
        return made;
    }();
    return *driver;
}

Result Driver::initialise() {
    if (initialised) return SUCCESS;
    try {
        settings = settings_from_environment();
        memory = std::make_unique<GlobalMemory>();
    } catch (const std::runtime_error &error) {
        fprintf(stderr, "cuda_emu: %s\n", error.what());
        return INVALID_VALUE;
    }
    if (settings.devices == 0) return NO_DEVICE;
    memory->capacity_bytes = settings.memory_mb << 20;
    random_.seed((u32)settings.seed + 1);
    u32 n_threads = settings.threads ? (u32)settings.threads : std::max(1U, std::thread::hardware_concurrency());
    grid = std::make_unique<Grid>(n_threads);
    initialised = true;
    if (!settings.counters.empty())
        atexit([] {
            Driver &driver = instance();
            std::lock_guard<std::recursive_mutex> guard(driver.lock);
            driver.write_counters();
        });
    return SUCCESS;
}

void Driver::reset() {
    write_counters();
    for (Stream *each : streams) delete each;
    for (Event *each : events) delete each;
    for (Graph *each : graphs) delete each;
    for (LoadedModule *each : modules) delete each;
    for (auto [start, bytes] : pinned)
        if (!registered.count(start)) ::free((void *)start);
    streams.clear();
    events.clear();
    graphs.clear();
    modules.clear();
    pinned.clear();
    registered.clear();
    default_stream.queue.clear();
    memory->reset();
    sticky = SUCCESS;
    contexts = 0;
}

Stream *Driver::stream(void *handle) {
    // 1 and 2 are the handles of the legacy and the per-thread default stream; there is only the former here.
    if (handle == nullptr || handle == (void *)1 || handle == (void *)2) return &default_stream;
    auto *found = (Stream *)handle;
    return streams.count(found) ? found : nullptr;
}

constexpr size_t QUEUED_MAX = 1024; // as hardware, a stream takes so much and then makes the host wait

void Driver::enqueue(Stream &to, std::function<Result()> run, std::function<bool()> ready) {
    Work work = {std::move(run), std::move(ready), next_number_++};
    if (to.capture) {
        to.capture->works.push_back(std::move(work));
        return;
    }
    to.queue.push_back(std::move(work));
    if (to.queue.size() > QUEUED_MAX) drain([&] { return to.queue.size() <= QUEUED_MAX; });
}

// The default stream begins nothing while an earlier piece waits in a blocking stream, and the other way round.
bool Driver::may_begin(const Stream &stream) const {
    const Work &work = stream.queue.front();
    if (work.ready && !work.ready()) return false;
    auto is_earlier = [&](const Stream &other) {
        return !other.queue.empty() && other.queue.front().number < work.number;
    };
    if (!stream.is_default) return !(stream.blocking && is_earlier(default_stream));
    return std::none_of(streams.begin(), streams.end(),
                        [&](const Stream *other) { return other->blocking && is_earlier(*other); });
}

bool Driver::step() {
    std::vector<Stream *> ready;
    if (!default_stream.queue.empty() && may_begin(default_stream)) ready.push_back(&default_stream);
    for (Stream *each : streams)
        if (!each->queue.empty() && may_begin(*each)) ready.push_back(each);
    if (ready.empty()) return false;
    Stream *chosen = ready[random_() / 7 % ready.size()];
    Work work = std::move(chosen->queue.front());
    chosen->queue.pop_front();
    if (!sticky) sticky = work.run(); // a broken device does nothing more
    return true;
}

Result Driver::drain(const std::function<bool()> &until) {
    while (!until() && step()) {
    }
    return sticky;
}

Result Driver::drain_all() {
    return drain([] { return false; });
}

void Driver::report(const std::string &finding) {
    last_finding = finding;
    fprintf(stderr, "cuda_emu: %s\n", finding.c_str());
    if (settings.report.empty()) return;
    if (FILE *file = fopen(settings.report.c_str(), "a")) {
        fprintf(file, "%s\n", finding.c_str());
        fclose(file);
    }
}

void Driver::write_counters() {
    if (settings.counters.empty()) return;
    for (LoadedModule *module : modules) counters_append(settings.counters, *module);
}

bool Driver::is_pinned(u64 address, u64 bytes) const {
    auto after = pinned.upper_bound(address);
    if (after == pinned.begin()) return false;
    auto [start, size] = *std::prev(after);
    return address - start <= size && bytes <= size - (address - start);
}

} // namespace emu
