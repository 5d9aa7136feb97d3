// cuda_driver.c: finds the CUDA driver at run time; see cuda_driver.h. The only user of dlopen.
#include "cuda/cuda_driver.h"
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

enum { OLDEST_DRIVER = 11000 }; // CUDA 11.0, the first with devices of capability 8.0

static const struct {
    const char *name;
    size_t at; // in cuda_driver
} symbols[] = {
#define DRIVER(name, symbol, parameters) {symbol, offsetof(cuda_driver, name)},
#include "cuda/cuda_driver.def"
#undef DRIVER
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // guards the next two
static cuda_driver table;
static bool loaded;

const char *cuda_driver_error(const cuda_driver *driver, cuda_result result, char text[160]) {
    const char *name = NULL, *meaning = NULL;
    driver->GetErrorName(result, &name);
    driver->GetErrorString(result, &meaning);
    snprintf(text, 160, "%s (%s)", name ? name : "an unknown error", meaning ? meaning : "no text");
    return text;
}

/// The library stays open for the life of the process: drivers do not like to be unloaded.
static bool load(logitd_error *err) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        error_set(err, LOGITD_EINVAL, "there is no CUDA driver: libcuda.so.1 is not found or cannot be loaded");
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(symbols); i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            error_set(err, LOGITD_EINVAL, "the CUDA driver is too old: libcuda.so.1 has no %s", symbols[i].name);
            return false;
        }
        memcpy((char *)&table + symbols[i].at, &symbol, sizeof symbol);
    }
    int version = 0;
    char text[160];
    const cuda_result result = table.Init(0);
    if (result == CUDA_ERROR_NO_DEVICE) {
        error_set(err, LOGITD_EINVAL, "the CUDA driver has no device");
        return false;
    }
    if (result) {
        error_set(err, LOGITD_EINVAL, "the CUDA driver does not start: %s", cuda_driver_error(&table, result, text));
        return false;
    }
    table.DriverGetVersion(&version);
    if (version < OLDEST_DRIVER) {
        error_set(err, LOGITD_EINVAL, "the CUDA driver is too old: it is of CUDA %d.%d, and 11.0 or newer is needed",
                  version / 1000, version % 1000 / 10);
        return false;
    }
    return true;
}

const cuda_driver *cuda_driver_load(logitd_error *err) {
    pthread_mutex_lock(&lock);
    if (!loaded) loaded = load(err);
    const bool ok = loaded;
    pthread_mutex_unlock(&lock);
    return ok ? &table : NULL;
}
