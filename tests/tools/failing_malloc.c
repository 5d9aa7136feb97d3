/*
 * failing_malloc.c: linked into a logitd of its own (logitd_no_memory), whose every allocation, the libraries' too,
 * then passes here: they are counted, and the test makes the one it names fail. The test and this talk through a file
 * that both map, named by LOGITD_TEST_ALLOC; without it nothing fails. The layout is known to test_server_no_memory.py.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef UNDER_ASAN // itself it is not instrumented, since it runs before the sanitizer begins
#    define REAL(name) __interceptor_##name
#else
#    define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t n);
void *REAL(calloc)(size_t n, size_t size);
void *REAL(realloc)(void *memory, size_t n);
void *REAL(memalign)(size_t alignment, size_t n);
void REAL(free)(void *memory);

typedef struct control {
    _Atomic int64_t countdown; // n: the nth allocation from now fails; 0: none
    _Atomic int64_t for_good;  // … and all after it
    _Atomic int64_t n_live;    // allocations not freed, relative to some beginning
    _Atomic int64_t n_failed;
    _Atomic int64_t in_library; // the last failure was libmicrohttpd's own
} control;

static control *shared;

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("LOGITD_TEST_ALLOC");
    const int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) shared = mapped;
}

static int fails(const void *caller) {
    if (!shared || atomic_load(&shared->countdown) <= 0) return 0;
    const int64_t left = atomic_fetch_sub(&shared->countdown, 1);
    if (left > 1) return 0;
    if (left == 1 && atomic_load(&shared->for_good)) atomic_store(&shared->countdown, 1);
    if (left < 1) return 0; // two threads at once
    Dl_info where;
    atomic_store(&shared->in_library, dladdr(caller, &where) && strstr(where.dli_fname, "libmicrohttpd"));
    atomic_fetch_add(&shared->n_failed, 1);
    errno = ENOMEM;
    return 1;
}

static void *count(void *memory) {
    if (memory && shared) atomic_fetch_add(&shared->n_live, 1);
    return memory;
}

void *malloc(size_t n) {
    return fails(__builtin_return_address(0)) ? NULL : count(REAL(malloc)(n));
}

void *calloc(size_t n, size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : count(REAL(calloc)(n, size));
}

void *realloc(void *memory, size_t n) {
    if (fails(__builtin_return_address(0))) return NULL;
    return memory ? REAL(realloc)(memory, n) : count(REAL(realloc)(NULL, n));
}

void *aligned_alloc(size_t alignment, size_t n) {
    return fails(__builtin_return_address(0)) ? NULL : count(REAL(memalign)(alignment, n));
}

void *memalign(size_t alignment, size_t n) {
    return fails(__builtin_return_address(0)) ? NULL : count(REAL(memalign)(alignment, n));
}

int posix_memalign(void **out, size_t alignment, size_t n) {
    if (fails(__builtin_return_address(0))) return ENOMEM;
    *out = count(REAL(memalign)(alignment, n));
    return *out ? 0 : ENOMEM;
}

void free(void *memory) {
    if (memory && shared) atomic_fetch_sub(&shared->n_live, 1);
    REAL(free)(memory);
}
