// The driver API's state: one device, its memory, modules, streams and what is queued on them.
//
// Work that the API calls asynchronous really is: it is queued, and done when somebody waits, in an order that the seed
// picks among those that streams and events allow. A host that reads a result without waiting gets old bytes.
//
// One lock guards everything; work runs under it, on the thread that waits. An error in a kernel is sticky, as on
// hardware: until the context is reset, every call that could meet it returns it.
#pragma once

#include <deque>
#include <functional>
#include <mutex>
#include <set>

#include "grid.h"
#include "settings.h"

namespace emu {

// CUresult, the ones that are used here.
enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    DEINITIALIZED = 4,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_PTX = 218,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_OUT_OF_RESOURCES = 701,
    HOST_MEMORY_ALREADY_REGISTERED = 712,
    NOT_SUPPORTED = 801,
    STREAM_CAPTURE_UNSUPPORTED = 900,
    STREAM_CAPTURE_INVALIDATED = 901,
    CAPTURED_EVENT = 907,
};

struct Event {
    u64 recorded = 0, completed = 0; // how often
    double at_ms = 0;                // when it last completed
    struct Graph *capture = nullptr; // recorded in a capture
};

// Something a stream does. `ready` says whether it may begin, besides being the first of its stream.
struct Work {
    std::function<Result()> run;
    std::function<bool()> ready;
    u64 number = 0; // in the order of queueing, over all streams
};

struct Graph {
    std::vector<Work> works; // in an order that keeps all dependencies
};

struct Stream {
    std::deque<Work> queue;
    Graph *capture = nullptr;
    bool is_default = false;
    bool blocking = true; // waits for the default stream, and the other way round
};

class Driver {
  public:
    static Driver &instance();

    // Call these under `lock`.
    std::recursive_mutex lock;
    bool initialised = false;
    u32 contexts = 0; // how often the primary context is retained
    Settings settings;
    Result sticky = SUCCESS;
    std::unique_ptr<GlobalMemory> memory;
    std::unique_ptr<Grid> grid;
    std::set<LoadedModule *> modules;
    std::set<Stream *> streams; // without the default one
    std::set<Event *> events;
    std::set<Graph *> graphs;
    std::map<u64, u64> pinned; // host memory that the device may use: start, bytes
    std::set<u64> registered;  // of those: what the host allocated itself
    Stream default_stream;
    u64 n_launches = 0;
    std::string last_finding;

    Result initialise();
    void reset();                 // the primary context goes: queues, modules, memory, error
    Stream *stream(void *handle); // null: no such stream
    void enqueue(Stream &stream, std::function<Result()> run, std::function<bool()> ready = {});
    // Does queued work until `until` holds, or nothing is left. Returns the sticky error.
    Result drain(const std::function<bool()> &until);
    Result drain_all();
    bool is_idle(const Stream &stream) const { return stream.queue.empty(); }
    bool step(); // one piece of queued work; false: none is ready
    void report(const std::string &finding);
    void write_counters();
    bool is_pinned(u64 address, u64 bytes) const;

  private:
    bool may_begin(const Stream &stream) const;
    std::minstd_rand random_;
    u64 next_number_ = 0;
};

// What every entry point begins with: the lock, and an error if there is no context or it is broken.
#define EMU_ENTER()                                                                                                    \
    Driver &driver = Driver::instance();                                                                               \
    std::lock_guard<std::recursive_mutex> guard(driver.lock);                                                          \
    if (!driver.initialised) return NOT_INITIALIZED;                                                                   \
    if (!driver.contexts) return INVALID_CONTEXT;                                                                      \
    if (driver.sticky) return driver.sticky

#define EMU_API extern "C" __attribute__((visibility("default")))

} // namespace emu
