/*
 * util.c: see util.h. Sections in its order: assertions, errors, memory, buffer, cursor, UTF-8, clock and log, the
 * machine. Global state: how the log looks and whether a bar is on its last line; the count of memory with its ceiling.
 */
#include "util.h"

#include <malloc.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

_Noreturn void util_assert_failed(const char *condition, const char *file, int line) {
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
    abort();
}

// ------------------------------------------------------------------------------------------------------ errors

/// Length of s without a multi-byte character that its end cuts, so that a shortened text stays UTF-8.
static size_t whole_chars(const char *s, size_t n) {
    size_t start = n; // of the last character
    while (start > 0 && n - start < 3 && ((unsigned char)s[start - 1] & 0xC0) == 0x80) start--;
    if (start == 0 || (unsigned char)s[start - 1] < 0xC0) return n;
    start--;
    return utf8_char_len((const uint8_t *)s + start, n - start) ? n : start;
}

static logitd_status error_fill(logitd_error *err, logitd_status status, const char *param, const char *format,
                                va_list args) __attribute__((format(printf, 4, 0)));
static logitd_status error_fill(logitd_error *err, logitd_status status, const char *param, const char *format,
                                va_list args) {
    if (!err) return status;
    logitd_error filled = {.status = status}; // apart from *err, since the arguments may point into its message
    snprintf(filled.param, sizeof filled.param, "%s", param);
    int n = vsnprintf(filled.message, sizeof filled.message, format, args);
    if (n >= (int)sizeof filled.message) {
        filled.message[whole_chars(filled.message, sizeof filled.message - 1)] = '\0';
    }
    *err = filled;
    return status;
}

logitd_status error_set(logitd_error *err, logitd_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    error_fill(err, status, "", format, args);
    va_end(args);
    return status;
}

logitd_status error_set_param(logitd_error *err, logitd_status status, const char *param, const char *format, ...) {
    va_list args;
    va_start(args, format);
    error_fill(err, status, param, format, args);
    va_end(args);
    return status;
}

const char *error_list_choices(const char *const *names, size_t n, char *out, size_t size) {
    *out = '\0';
    for (size_t i = 0; i < n; i++) {
        const size_t used = strlen(out);
        const char *comma = i == 0 ? "" : i + 1 < n ? ", " : " or ";
        snprintf(out + used, size - used, "%s\"%s\"", comma, names[i]);
    }
    return out;
}

// ------------------------------------------------------------------------------------------------------ memory

#define ALIGNMENT 64 // a cache line, and the widest vector

static atomic_size_t held;                // what malloc gave, by its own measure
static size_t ceiling = SIZE_MAX, scarce; // bytes of `held`; set once

/// Counts what was just allocated, or frees it where it breaks the ceiling (the pages of a large block are untouched).
static void *count(void *raw) {
    if (!raw) return NULL;
    size_t bytes = malloc_usable_size(raw);
    if (atomic_fetch_add_explicit(&held, bytes, memory_order_relaxed) + bytes <= ceiling) return raw;
    atomic_fetch_sub_explicit(&held, bytes, memory_order_relaxed);
    free(raw);
    return NULL;
}

static void count_and_free(void *raw) {
    atomic_fetch_sub_explicit(&held, raw ? malloc_usable_size(raw) : 0, memory_order_relaxed);
    free(raw);
}

void *mem_alloc_plain(size_t bytes) {
    return count(malloc(bytes));
}

void mem_free_plain(void *memory) {
    count_and_free(memory);
}

size_t mem_held(void) {
    return atomic_load_explicit(&held, memory_order_relaxed);
}

void mem_set_ceiling(size_t bytes) {
    size_t now = mem_held();
    ceiling = bytes;
    scarce = bytes > now ? bytes - (bytes - now) / 8 : bytes;
}

bool mem_is_scarce(void) {
    return ceiling != SIZE_MAX && mem_held() > scarce;
}

void *mem_alloc(size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || __builtin_add_overflow(bytes, 2 * ALIGNMENT, &bytes)) return NULL;
    char *raw =
        count(calloc(1, bytes)); // zero pages come from the kernel untouched: a large cache costs nothing until used
    if (!raw) return NULL;
    char *aligned = raw + ALIGNMENT + (ALIGNMENT - (uintptr_t)raw % ALIGNMENT);
    memcpy(aligned - sizeof raw, &raw, sizeof raw); // what mem_free hands back
    return aligned;
}

void mem_advise_huge(void *memory, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)memory + page - 1) / page * page,
                    end = ((uintptr_t)memory + bytes) / page * page;
    if (end > first) (void)madvise((char *)memory + (first - (uintptr_t)memory), end - first, MADV_HUGEPAGE);
}

void mem_free(void *memory) {
    if (!memory) return;
    char *raw;
    memcpy(&raw, (char *)memory - sizeof raw, sizeof raw);
    count_and_free(raw);
}

struct arena_block {
    struct arena_block *next;
    size_t used, cap; // bytes after the header
};

#define ARENA_HEADER ALIGNMENT // sizeof(struct arena_block), rounded up
#define ARENA_BLOCK  (64u << 10)
_Static_assert(sizeof(struct arena_block) <= ARENA_HEADER, "the first allocation of a block is aligned");

void *arena_alloc(arena *a, size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX - 4 * ALIGNMENT) return NULL;
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct arena_block *block = a->head;
    if (!block || block->cap - block->used < bytes) {
        size_t cap = MAX(bytes, ARENA_BLOCK - ARENA_HEADER);
        block = mem_alloc(1, ARENA_HEADER + cap);
        if (!block) return NULL;
        block->cap = cap;
        block->next = a->head;
        a->head = block;
    }
    void *memory = (char *)block + ARENA_HEADER + block->used;
    block->used += bytes;
    return memory;
}

char *arena_strdup(arena *a, const char *text) {
    size_t n = strlen(text) + 1;
    char *copy = arena_alloc(a, n, 1);
    return copy ? memcpy(copy, text, n) : NULL;
}

void arena_free(arena *a) {
    while (a->head) {
        struct arena_block *next = a->head->next;
        mem_free(a->head);
        a->head = next;
    }
}

// ------------------------------------------------------------------------------------------------------ buffer

bool buffer_reserve(buffer *b, size_t extra) {
    if (b->failed) return false;
    size_t need; // with the NUL
    if (__builtin_add_overflow(b->len, extra, &need) || __builtin_add_overflow(need, 1, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->cap) return true;
    size_t cap = MAX(need, MAX((size_t)256, b->cap <= SIZE_MAX / 2 ? b->cap * 2 : need));
    char *data = count(malloc(cap));
    if (!data) {
        b->failed = true;
        return false;
    }
    if (b->data) memcpy(data, b->data, b->len + 1);
    if (!b->data) data[0] = '\0';
    count_and_free(b->data);
    b->data = data;
    b->cap = cap;
    return true;
}

void buffer_append(buffer *b, const void *bytes, size_t n) {
    if (!buffer_reserve(b, n)) return;
    if (n) memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void buffer_puts(buffer *b, const char *text) {
    buffer_append(b, text, strlen(text));
}

void buffer_printf(buffer *b, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    ASSERT(n >= 0);
    if (buffer_reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
        b->len += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

void buffer_free(buffer *b) {
    count_and_free(b->data);
    *b = (buffer){0};
}

// ------------------------------------------------------------------------------------------------------ cursor

cursor cursor_make(const void *data, size_t n) {
    const uint8_t *p = data;
    return (cursor){.p = p, .end = n ? p + n : p, .start = p};
}

const uint8_t *cursor_take(cursor *c, uint64_t n) {
    if (c->failed || n > (uint64_t)(c->end - c->p)) {
        c->failed = true;
        return NULL;
    }
    const uint8_t *taken = c->p;
    if (n) c->p += n; // NULL + 0 of an empty cursor is undefined
    return taken;
}

/// Little-endian value of the next n_bytes (at most 8).
static uint64_t take_le(cursor *c, int n_bytes) {
    const uint8_t *bytes = cursor_take(c, (uint64_t)n_bytes);
    uint64_t value = 0;
    for (int i = 0; bytes && i < n_bytes; i++) value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

uint8_t cursor_u8(cursor *c) {
    return (uint8_t)take_le(c, 1);
}

uint16_t cursor_u16(cursor *c) {
    return (uint16_t)take_le(c, 2);
}

uint32_t cursor_u32(cursor *c) {
    return (uint32_t)take_le(c, 4);
}

uint64_t cursor_u64(cursor *c) {
    return take_le(c, 8);
}

float cursor_f32(cursor *c) {
    uint32_t bits = cursor_u32(c);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

double cursor_f64(cursor *c) {
    uint64_t bits = cursor_u64(c);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

size_t cursor_offset(const cursor *c) {
    return (size_t)(c->p - c->start);
}

// ------------------------------------------------------------------------------------------------------- UTF-8

/// Unicode 15, table 3-7. Length of the longest prefix of s that begins a well-formed character (at least 1, so that a
/// caller moves on); *whole says whether it is one.
static int utf8_prefix(const uint8_t *s, size_t n, bool *whole) {
    uint8_t first = s[0];
    *whole = first < 0x80;
    if (first < 0xC2 || first > 0xF4) return 1;
    int len = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;  // of the second byte: no overlong form,
    uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF; // no surrogate, nothing above U+10FFFF
    for (int i = 1; i < len; i++) {
        if ((size_t)i >= n || s[i] < low || s[i] > high) return i;
        low = 0x80;
        high = 0xBF;
    }
    *whole = true;
    return len;
}

int utf8_char_len(const uint8_t *s, size_t n) {
    bool whole = false;
    int len = n ? utf8_prefix(s, n, &whole) : 0;
    return whole ? len : 0;
}

size_t utf8_first_invalid(const void *text, size_t n) {
    const uint8_t *s = text;
    size_t i = 0;
    while (i < n) {
        int len = utf8_char_len(s + i, n - i);
        if (!len) break;
        i += (size_t)len;
    }
    return i;
}

void utf8_append_lossy(buffer *out, const void *bytes, size_t n) {
    const uint8_t *s = bytes;
    for (size_t i = 0; i < n;) {
        bool whole;
        int len = utf8_prefix(s + i, n - i, &whole);
        if (whole)
            buffer_append(out, s + i, (size_t)len);
        else
            buffer_puts(out, "\xEF\xBF\xBD");
        i += (size_t)len;
    }
}

// ----------------------------------------------------------------------------------------------- clock and log

int64_t clock_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

log_level log_threshold = LOG_INFO;
bool log_as_json;
static atomic_bool bar_there; // on the last line

void log_over_bar(bool there) {
    atomic_store_explicit(&bar_there, there, memory_order_relaxed);
}

/// The inside of a JSON string of a plain line.
static void escape(const char *text, char *out, size_t size) {
    size_t n = 0;
    for (const unsigned char *c = (const unsigned char *)text; *c && n + 8 < size; c++) {
        if (*c == '"' || *c == '\\') {
            out[n++] = '\\';
            out[n++] = (char)*c;
        } else {
            out[n++] = (char)*c;
        }
    }
    out[whole_chars(out, n)] = '\0';
}

void log_members(log_level level, const char *text, const char *members) {
    static const char *const names[] = {"error", "warning", "info", "debug"};
    if (level > log_threshold) return;
    struct timespec now;
    struct tm fields;
    char date[32];
    clock_gettime(CLOCK_REALTIME, &now);
    const char *clear = atomic_exchange_explicit(&bar_there, false, memory_order_relaxed) ? "\r\033[K" : "";
    // one call each, so that lines of several threads do not mix
    if (log_as_json) {
        char escaped[2048];
        gmtime_r(&now.tv_sec, &fields);
        strftime(date, sizeof date, "%FT%T", &fields);
        escape(text, escaped, sizeof escaped);
        fprintf(stderr, "%s{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"message\":\"%s\"%s%s}\n", clear, date,
                now.tv_nsec / 1000000, names[level], escaped, *members ? "," : "", members);
        return;
    }
    localtime_r(&now.tv_sec, &fields);
    strftime(date, sizeof date, "%F %T", &fields);
    fprintf(stderr, "%s%s.%03ld %s: %s\n", clear, date, now.tv_nsec / 1000000, names[level], text);
}

/// Makes one line of UTF-8 of a text: names and paths from files and people may hold anything, and the end may be cut.
static void make_plain(char *text) {
    const size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        const int len = utf8_char_len((const uint8_t *)text + i, n - i);
        if (len == 0) text[i] = '?';
        if ((uint8_t)text[i] < ' ' || text[i] == 0x7F) text[i] = ' ';
        i += (size_t)MAX(len, 1);
    }
}

void log_line(log_level level, const char *format, ...) {
    if (level > log_threshold) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    make_plain(text);
    log_members(level, text, "");
}

// ------------------------------------------------------------------------------------------------- the machine

uint64_t util_random(void) {
    uint64_t bits;
    return getrandom(&bits, sizeof bits, 0) == (ssize_t)sizeof bits ? bits : (uint64_t)clock_us();
}

int util_cpu_count(void) {
    // the kernel refuses a set smaller than its own (EINVAL): double it until it is accepted
    for (size_t n_cpus = 1024; n_cpus <= 1u << 20; n_cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(n_cpus);
        if (!set) break;
        size_t bytes = CPU_ALLOC_SIZE(n_cpus);
        int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0) return count;
    }
    return 1;
}

/// The number at the start of a small file of the kernel's, or `otherwise`.
static uint64_t read_number(const char *path, uint64_t otherwise) {
    FILE *file = fopen(path, "r");
    unsigned long long value;
    bool found = file && fscanf(file, "%llu", &value) == 1; // NOLINT(cert-err34-c): the kernel wrote it
    if (file) fclose(file);
    return found ? value : otherwise;
}

/// The least of *least and a file's numbers over `group`, which is cut down on the way, and every group above it.
static void least_of_groups(const char *mount, char *group, const char *name, uint64_t *least) {
    for (;;) {
        char path[8192];
        snprintf(path, sizeof path, "%s%s/%s", mount, group, name);
        const uint64_t limit = read_number(path, UINT64_MAX); // "max" is no number
        *least = MIN(*least, limit);
        char *slash = strrchr(group, '/');
        if (!slash) return;
        *slash = '\0';
    }
}

uint64_t util_cgroup_bytes(const char *membership, const char *mount) {
    uint64_t least = UINT64_MAX;
    char line[4096], memory_mount[4096];
    FILE *file = fopen(membership, "r");
    snprintf(memory_mount, sizeof memory_mount, "%s/memory", mount);
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0'; // ID:CONTROLLERS:GROUP; version 2 names no controllers
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *group++ = '\0';
        if (!controllers[1]) {
            least_of_groups(mount, group, "memory.max", &least);
        } else if (strstr(controllers, "memory")) {
            least_of_groups(memory_mount, group, "memory.limit_in_bytes", &least);
        }
    }
    if (file) fclose(file);
    return least;
}

uint64_t util_machine_bytes(void) {
    const uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t limit = util_cgroup_bytes("/proc/self/cgroup", "/sys/fs/cgroup");
    return MIN(bytes, limit);
}

uint64_t util_resident_bytes(void) {
    unsigned long long total, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%llu %llu", &total, &resident) != 2) resident = 0; // NOLINT(cert-err34-c)
    if (file) fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

bool util_same_file(const char *a, const char *b) {
    struct stat of_a, of_b;
    return stat(a, &of_a) == 0 && stat(b, &of_b) == 0 && S_ISREG(of_a.st_mode) && of_a.st_dev == of_b.st_dev &&
           of_a.st_ino == of_b.st_ino;
}
