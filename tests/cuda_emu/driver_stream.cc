// Streams, events, graphs, and cuGetProcAddress, which must know every entry point.

#include <chrono>
#include <dlfcn.h>

#include "driver.h"

using namespace emu;

namespace {

double now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr unsigned STREAM_NON_BLOCKING = 1;

} // namespace

// ---- streams

EMU_API int cuStreamCreateWithPriority(void **out, unsigned flags, int) {
    EMU_ENTER();
    if (flags > STREAM_NON_BLOCKING) return INVALID_VALUE;
    auto *stream = new Stream;
    stream->blocking = !(flags & STREAM_NON_BLOCKING);
    driver.streams.insert(stream);
    *out = stream;
    return SUCCESS;
}

EMU_API int cuStreamCreate(void **out, unsigned flags) {
    return cuStreamCreateWithPriority(out, flags, 0);
}

EMU_API int cuStreamSynchronize(void *handle) {
    EMU_ENTER();
    Stream *stream = driver.stream(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->capture) return STREAM_CAPTURE_UNSUPPORTED;
    return driver.drain([&] { return driver.is_idle(*stream); });
}

// Work that nobody waits for is done when it is asked about, a piece at a time.
EMU_API int cuStreamQuery(void *handle) {
    EMU_ENTER();
    Stream *stream = driver.stream(handle);
    if (!stream) return INVALID_HANDLE;
    if (driver.is_idle(*stream)) return SUCCESS;
    driver.step();
    return driver.sticky ? driver.sticky : NOT_READY;
}

EMU_API int cuStreamDestroy_v2(void *handle) {
    EMU_ENTER();
    auto *stream = (Stream *)handle;
    if (!driver.streams.count(stream)) return INVALID_HANDLE;
    Result result = driver.drain([&] { return driver.is_idle(*stream); });
    driver.streams.erase(stream);
    delete stream;
    return result;
}

EMU_API int cuLaunchHostFunc(void *handle, void (*function)(void *), void *user) {
    EMU_ENTER();
    Stream *stream = driver.stream(handle);
    if (!stream) return INVALID_HANDLE;
    driver.enqueue(*stream, [function, user] {
        function(user);
        return SUCCESS;
    });
    return SUCCESS;
}

// ---- events

EMU_API int cuEventCreate(void **out, unsigned) {
    EMU_ENTER();
    auto *event = new Event;
    driver.events.insert(event);
    *out = event;
    return SUCCESS;
}

EMU_API int cuEventDestroy_v2(void *handle) {
    EMU_ENTER();
    auto *event = (Event *)handle;
    if (!driver.events.count(event)) return INVALID_HANDLE;
    Result result = driver.drain([&] { return event->completed == event->recorded; });
    driver.events.erase(event);
    delete event;
    return result;
}

EMU_API int cuEventRecord(void *handle, void *stream_handle) {
    EMU_ENTER();
    auto *event = (Event *)handle;
    Stream *stream = driver.stream(stream_handle);
    if (!driver.events.count(event) || !stream) return INVALID_HANDLE;
    event->capture = stream->capture;
    if (stream->capture) return SUCCESS; // a graph's works are in order already
    u64 number = ++event->recorded;
    driver.enqueue(*stream, [event, number] {
        event->completed = number;
        event->at_ms = now_ms();
        return SUCCESS;
    });
    return SUCCESS;
}

EMU_API int cuStreamWaitEvent(void *stream_handle, void *handle, unsigned) {
    EMU_ENTER();
    auto *event = (Event *)handle;
    Stream *stream = driver.stream(stream_handle);
    if (!driver.events.count(event) || !stream) return INVALID_HANDLE;
    if (event->capture) { // the stream joins the capture
        if (stream->capture && stream->capture != event->capture) return STREAM_CAPTURE_INVALIDATED;
        stream->capture = event->capture;
        return SUCCESS;
    }
    if (stream->capture) return SUCCESS; // what is outside was recorded before
    u64 number = event->recorded;
    driver.enqueue(
        *stream, [] { return SUCCESS; }, [event, number] { return event->completed >= number; });
    return SUCCESS;
}

EMU_API int cuEventSynchronize(void *handle) {
    EMU_ENTER();
    auto *event = (Event *)handle;
    if (!driver.events.count(event)) return INVALID_HANDLE;
    if (event->capture) return CAPTURED_EVENT;
    return driver.drain([&] { return event->completed == event->recorded; });
}

EMU_API int cuEventQuery(void *handle) {
    EMU_ENTER();
    auto *event = (Event *)handle;
    if (!driver.events.count(event)) return INVALID_HANDLE;
    if (event->completed == event->recorded) return SUCCESS;
    driver.step();
    return driver.sticky ? driver.sticky : NOT_READY;
}

// The host's time: says how long the emulation took, nothing about a GPU.
EMU_API int cuEventElapsedTime(float *ms, void *first, void *last) {
    EMU_ENTER();
    auto *from = (Event *)first, *to = (Event *)last;
    if (!driver.events.count(from) || !driver.events.count(to) || !from->recorded || !to->recorded)
        return INVALID_HANDLE;
    if (from->completed != from->recorded || to->completed != to->recorded) return NOT_READY;
    *ms = (float)(to->at_ms - from->at_ms);
    return SUCCESS;
}

// ---- graphs: captured, and launched as one piece after another

EMU_API int cuStreamBeginCapture_v2(void *handle, int) {
    EMU_ENTER();
    Stream *stream = driver.stream(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->is_default || stream->capture) return STREAM_CAPTURE_UNSUPPORTED;
    stream->capture = new Graph;
    return SUCCESS;
}

EMU_API int cuStreamEndCapture(void *handle, void **out) {
    EMU_ENTER();
    Stream *stream = driver.stream(handle);
    if (!stream) return INVALID_HANDLE;
    if (!stream->capture) return STREAM_CAPTURE_INVALIDATED;
    Graph *graph = stream->capture;
    for (Stream *each : driver.streams)
        if (each->capture == graph) each->capture = nullptr;
    for (Event *each : driver.events)
        if (each->capture == graph) each->capture = nullptr;
    driver.graphs.insert(graph);
    *out = graph;
    return SUCCESS;
}

EMU_API int cuStreamIsCapturing(void *handle, int *status) {
    EMU_ENTER();
    Stream *stream = driver.stream(handle);
    if (!stream) return INVALID_HANDLE;
    *status = stream->capture ? 1 : 0;
    return SUCCESS;
}

EMU_API int cuGraphInstantiateWithFlags(void **out, void *handle, unsigned long long) {
    EMU_ENTER();
    if (!driver.graphs.count((Graph *)handle)) return INVALID_HANDLE;
    auto *executable = new Graph(*(Graph *)handle);
    driver.graphs.insert(executable);
    *out = executable;
    return SUCCESS;
}

EMU_API int cuGraphLaunch(void *handle, void *stream_handle) {
    EMU_ENTER();
    auto *graph = (Graph *)handle;
    Stream *stream = driver.stream(stream_handle);
    if (!driver.graphs.count(graph) || !stream) return INVALID_HANDLE;
    for (const Work &work : graph->works) driver.enqueue(*stream, work.run, work.ready);
    return SUCCESS;
}

EMU_API int cuGraphUpload(void *handle, void *) {
    EMU_ENTER();
    return driver.graphs.count((Graph *)handle) ? SUCCESS : INVALID_HANDLE;
}

EMU_API int cuGraphDestroy(void *handle) {
    EMU_ENTER();
    auto *graph = (Graph *)handle;
    if (!driver.graphs.erase(graph)) return INVALID_HANDLE;
    delete graph;
    return SUCCESS;
}

EMU_API int cuGraphExecDestroy(void *handle) {
    return cuGraphDestroy(handle);
}

EMU_API int cuGraphGetNodes(void *handle, void **, size_t *n) {
    EMU_ENTER();
    if (!driver.graphs.count((Graph *)handle)) return INVALID_HANDLE;
    *n = ((Graph *)handle)->works.size();
    return SUCCESS;
}

// ---- entry points by name

// The latest version first: "cuMemAlloc" is cuMemAlloc_v2, as cuda.h maps it.
EMU_API int cuGetProcAddress_v2(const char *name, void **out, int, unsigned long long, int *status) {
    Dl_info self;
    *out = nullptr;
    if (dladdr((void *)&cuGetProcAddress_v2, &self)) {
        if (void *library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD)) {
            for (const char *suffix : {"_v3", "_v2", ""})
                if (!*out) *out = dlsym(library, (std::string(name) + suffix).c_str());
            dlclose(library);
        }
    }
    if (status) *status = *out ? 0 : 1;
    return *out ? SUCCESS : NOT_FOUND;
}

EMU_API int cuGetProcAddress(const char *name, void **out, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, out, version, flags, nullptr);
}
