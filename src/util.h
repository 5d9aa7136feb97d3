/*
 * util.h: what every other file may lean on: assertions, the error struct, an arena, a growing byte buffer, a bounded
 * cursor over untrusted bytes, the clock, the log, UTF-8. Knows nothing of models or HTTP. No function here exits.
 */
#ifndef UTIL_H
#define UTIL_H

#include "logitd/logitd.h"
#include <stdarg.h>
#include <stdio.h>

// ------------------------------------------------------------------------------------------------- assertions

/// A programmer's mistake: prints the place and aborts. On in release builds.
#define ASSERT(condition) ((condition) ? (void)0 : util_assert_failed(#condition, __FILE__, __LINE__))
_Noreturn void util_assert_failed(const char *condition, const char *file, int line);

#define ARRAY_LEN(array) (sizeof(array) / sizeof((array)[0]))
#define MIN(a, b)        ((a) < (b) ? (a) : (b))
#define MAX(a, b)        ((a) > (b) ? (a) : (b))

// ------------------------------------------------------------------------------------------------------ errors

/// Fills *err (which may be NULL) with a formatted sentence and returns `status`.
logitd_status error_set(logitd_error *err, logitd_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/// The same, naming the request field at fault.
logitd_status error_set_param(logitd_error *err, logitd_status status, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/// Writes names[n] as a sentence says what is allowed, `"a", "b" or "c"`; what does not fit is cut. Returns `out`.
const char *error_list_choices(const char *const *names, size_t n, char *out, size_t size);

// ------------------------------------------------------------------------------------------------------ memory

/// Zeroed, 64-byte aligned; NULL when there is no memory or n * size overflows. Freed with mem_free.
void *mem_alloc(size_t n, size_t size);
void mem_free(void *memory);
/// Asks for huge pages under memory that is large and much read. A hint: nothing is promised.
void mem_advise_huge(void *memory, size_t bytes);
/// As malloc and free, counted: for libraries that take such a pair.
void *mem_alloc_plain(size_t bytes);
void mem_free_plain(void *memory);

/// Bytes that all functions of this section hold now, buffers included; the libraries' own memory is not seen.
size_t mem_held(void);
/// Allocations that would hold more than this fail from now on, as if the machine had no more. At first there is no
/// ceiling.
void mem_set_ceiling(size_t bytes);
/// Whether less than an eighth of what was free when the ceiling was set is left: the time to refuse new work.
bool mem_is_scarce(void);

/// A chain of blocks freed at once: one for each request. Memory is zeroed and 64-byte aligned.
typedef struct arena {
    struct arena_block *head;
} arena;
void *arena_alloc(arena *a, size_t n, size_t size); // NULL: no memory
char *arena_strdup(arena *a, const char *text);     // NULL: no memory
void arena_free(arena *a);

/// Growing bytes. After a failed allocation `failed` stays set and appends do nothing, so that a writer checks once at
/// the end. data is NUL-terminated whenever it is not NULL.
typedef struct buffer {
    char *data;
    size_t len, cap;
    bool failed;
} buffer;
bool buffer_reserve(buffer *b, size_t extra); // room for `extra` more bytes
/// n bytes were written behind data[len], into room that was reserved.
static inline void buffer_grew(buffer *b, size_t n) {
    b->len += n;
    b->data[b->len] = '\0';
}
void buffer_append(buffer *b, const void *bytes, size_t n);
void buffer_puts(buffer *b, const char *text);
void buffer_printf(buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buffer_free(buffer *b);

// --------------------------------------------------------------------------------------- reading untrusted bytes

/// A reader over [p, end). A read past the end sets `failed` and gives zero; check `failed` after a group of reads.
typedef struct cursor {
    const uint8_t *p, *end, *start;
    bool failed;
} cursor;
cursor cursor_make(const void *data, size_t n);
const uint8_t *cursor_take(cursor *c, uint64_t n); // n bytes, or NULL and failed
uint8_t cursor_u8(cursor *c);
uint16_t cursor_u16(cursor *c);
uint32_t cursor_u32(cursor *c);
uint64_t cursor_u64(cursor *c);
float cursor_f32(cursor *c);
double cursor_f64(cursor *c);
size_t cursor_offset(const cursor *c); // bytes read so far

// ------------------------------------------------------------------------------------------------------- UTF-8

/// Length in bytes (1–4) of the well-formed UTF-8 character at s[0 … n-1], or 0 (Unicode 15, table 3-7).
int utf8_char_len(const uint8_t *s, size_t n);
/// Offset of the first byte that is not well-formed UTF-8, or n.
size_t utf8_first_invalid(const void *text, size_t n);
/// Appends bytes as valid UTF-8, with U+FFFD for each maximal ill-formed part, as Python's errors="replace".
void utf8_append_lossy(buffer *out, const void *bytes, size_t n);

// ----------------------------------------------------------------------------------------------- clock and log

int64_t clock_us(void); // monotonic
typedef enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG } log_level;
extern log_level log_threshold; // set once at start
extern bool log_as_json;        // set once at start: lines are objects of "time", "level", "message", …
/// One line on stderr: time, level, text.
void log_line(log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/// The same of a text; as JSON with further members (`"a":1,"b":"c"`), as text without them.
void log_members(log_level level, const char *text, const char *members);
/// Whether the last line of stderr is a progress bar, whose place the next line of the log then takes.
void log_over_bar(bool there);

/// Random bits of the system; should it have none, the clock's.
uint64_t util_random(void);

/// Processors that this process may run on, at least 1.
int util_cpu_count(void);

/// Memory that this process may use: the machine's, or the limit of its control group if that is less.
uint64_t util_machine_bytes(void);
/// The least memory limit of the control groups that the file `membership` (/proc/self/cgroup) names and of those above
/// them, below `mount` (/sys/fs/cgroup; cgroups(7)). UINT64_MAX: none.
uint64_t util_cgroup_bytes(const char *membership, const char *mount);
/// Memory of this process that is in RAM now, the mapped files included (RSS).
uint64_t util_resident_bytes(void);

/// Whether two paths lead to one regular file: what is written by one of them then destroys what is read by the other.
bool util_same_file(const char *a, const char *b);

#endif
