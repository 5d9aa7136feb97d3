/*
 * gguf.c: see gguf.h. Reading order: errors, names (a hash index), the parse (header, metadata, tensors), open and
 * close, getters. How a checked value is read is gguf_value.h's.
 *
 * The parse trusts nothing: each count is held against a limit and against the bytes that are left before memory is
 * taken for it, and every value, string and array is walked once, so that the getters need no checks of the file.
 * Keys and tensor infos stay in the file; only a directory of pointers into it is kept. Does not guard against a file
 * that another program shortens while it is mapped: reading there ends the process (SIGBUS).
 */
#include "gguf.h"
#include "limits.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define KV_MIN_BYTES      13        // empty key, type, one byte of value
#define TENSOR_MIN_BYTES  32        // empty name, one dimension, type, offset
#define ALIGNMENT_DEFAULT 32        // the format's own
#define ALIGNMENT_MIN     8         // the format's own; makes every tensor's address fit for its element type
#define ALIGNMENT_MAX     (1 << 20) // against hostile files

typedef struct kv_entry {
    gguf_str key;
    gguf_value value;
} kv_entry;

/// Open addressing over the entries of one directory: slots hold entry + 1, 0 is free; at most half are taken.
typedef struct name_index {
    uint32_t *slots;
    uint32_t mask;
} name_index;

struct gguf_file {
    const uint8_t *data;
    uint64_t n_bytes;
    bool mapped; // data is ours to unmap
    const char *path;
    int version;
    kv_entry *kvs;
    int n_kv;
    gguf_tensor *tensors;
    int n_tensors;
    name_index kv_index, tensor_index;
    arena memory; // of all the above, and of this struct's path
};

// ------------------------------------------------------------------------------------------------------ errors

typedef struct parser {
    gguf_file *file;
    cursor in;
    logitd_error *err;
} parser;

/// "PATH: " and a sentence; always LOGITD_EFORMAT.
static logitd_status malformed(parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static logitd_status malformed(parser *p, const char *format, ...) {
    char sentence[400];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    return error_set(p->err, LOGITD_EFORMAT, "%s: %s", p->file->path, sentence);
}

static logitd_status out_of_memory(parser *p) {
    return error_set(p->err, LOGITD_ENOMEM, "%s: no memory for the directory of the file", p->file->path);
}

// ------------------------------------------------------------------------------------------------------- names

static uint32_t hash_bytes(const char *data, size_t n) { // FNV-1a
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < n; i++) hash = (hash ^ (uint8_t)data[i]) * 16777619u;
    return hash;
}

typedef gguf_str (*name_getter)(const gguf_file *file, int i);

static gguf_str tensor_name(const gguf_file *file, int i) {
    return file->tensors[i].name;
}

static bool index_create(name_index *index, arena *memory, uint64_t n) {
    uint32_t n_slots = 8;
    while (n_slots < 2 * n) n_slots *= 2;
    index->slots = arena_alloc(memory, n_slots, sizeof *index->slots);
    index->mask = n_slots - 1;
    return index->slots != NULL;
}

/// The slot that holds the name, or the free one where it belongs.
static uint32_t *index_slot(const gguf_file *file, const name_index *index, name_getter name_of, gguf_str name) {
    uint32_t at = hash_bytes(name.data, name.len) & index->mask;
    for (; index->slots[at]; at = (at + 1) & index->mask) {
        gguf_str other = name_of(file, (int)index->slots[at] - 1);
        if (other.len == name.len && memcmp(other.data, name.data, name.len) == 0) break;
    }
    return &index->slots[at];
}

static int index_find(const gguf_file *file, const name_index *index, name_getter name_of, const char *name) {
    return (int)*index_slot(file, index, name_of, (gguf_str){name, strlen(name)}) - 1;
}

/// False when the name of entry i is there already.
static bool index_add(const gguf_file *file, const name_index *index, name_getter name_of, int i) {
    uint32_t *slot = index_slot(file, index, name_of, name_of(file, i));
    if (*slot) return false;
    *slot = (uint32_t)i + 1;
    return true;
}

// ------------------------------------------------------------------------------------------------------ header

static logitd_status parse_header(parser *p, uint64_t *n_tensors, uint64_t *n_kv) {
    const uint8_t *magic = cursor_take(&p->in, 4);
    if (!magic) return malformed(p, "not a GGUF file: it has only %" PRIu64 " bytes", p->file->n_bytes);
    if (memcmp(magic, "GGUF", 4) != 0) {
        return malformed(p, "not a GGUF file: it begins with the bytes %02x %02x %02x %02x, not with \"GGUF\"",
                         magic[0], magic[1], magic[2], magic[3]);
    }
    uint32_t version = cursor_u32(&p->in);
    if (!p->in.failed && version != 0 && (version & 0xFFFF) == 0) {
        return malformed(p, "a big-endian GGUF file; only little-endian ones are supported");
    }
    if (!p->in.failed && version != 2 && version != 3) {
        return malformed(p, "GGUF version %u is not supported; versions 2 and 3 are", version);
    }
    *n_tensors = cursor_u64(&p->in);
    *n_kv = cursor_u64(&p->in);
    if (p->in.failed) return malformed(p, "truncated: the file ends inside its 24-byte header");
    p->file->version = (int)version;
    return LOGITD_OK;
}

/// A count of the header against its limit and the bytes that are left.
static logitd_status check_count(parser *p, const char *what, uint64_t n, uint64_t limit, uint64_t min_bytes) {
    uint64_t left = (uint64_t)(p->in.end - p->in.p);
    if (n > limit) {
        return malformed(p, "the header says %" PRIu64 " %s; at most %" PRIu64 " are supported", n, what, limit);
    }
    if (n > left / min_bytes) {
        return malformed(p, "truncated: the header says %" PRIu64 " %s, but %" PRIu64 " bytes are left at byte %zu", n,
                         what, left, cursor_offset(&p->in));
    }
    return LOGITD_OK;
}

/// `what` says in a message where the string stands.
static logitd_status parse_string(parser *p, const char *what, gguf_str *out) {
    size_t at = cursor_offset(&p->in);
    uint64_t n = cursor_u64(&p->in);
    if (p->in.failed) return malformed(p, "truncated: the file ends inside %s at byte %zu", what, at);
    if (n > LIMIT_STRING_BYTES) {
        return malformed(p, "%s at byte %zu has %" PRIu64 " bytes; at most %u are supported", what, at, n,
                         LIMIT_STRING_BYTES);
    }
    out->data = (const char *)cursor_take(&p->in, n);
    out->len = n;
    if (p->in.failed) {
        return malformed(p, "truncated: %s at byte %zu has %" PRIu64 " bytes, past the end of the file", what, at, n);
    }
    return LOGITD_OK;
}

// ---------------------------------------------------------------------------------------------------- metadata

/// Walks the elements of a value, whose `data` is where they begin. `key` is for messages.
static logitd_status parse_elements(parser *p, gguf_str key, gguf_value *v) {
    size_t at = cursor_offset(&p->in);
    uint64_t left = (uint64_t)(p->in.end - p->in.p);
    unsigned n_bytes = gguf_type_bytes(v->element);
    if (v->n > left / (n_bytes ? n_bytes : 8)) {
        return malformed(
            p, "truncated: the value of '%s' (%s, %" PRIu64 " of them) at byte %zu runs past the end of the file",
            gguf_show(key).text, gguf_type_name(v->element), v->n, at);
    }
    logitd_status status = LOGITD_OK;
    if (v->element == GGUF_STRING) {
        char what[96];
        gguf_str ignored;
        snprintf(what, sizeof what, "a string of '%s'", gguf_show(key).text);
        for (uint64_t i = 0; i < v->n && !status; i++) status = parse_string(p, what, &ignored);
    } else {
        cursor_take(&p->in, v->n * n_bytes);
    }
    for (uint64_t i = 0; v->element == GGUF_BOOL && i < v->n; i++) {
        if (v->data[i] > 1) {
            return malformed(p, "a bool of '%s' at byte %" PRIu64 " is %u; it must be 0 or 1", gguf_show(key).text,
                             (at + i), v->data[i]);
        }
    }
    v->n_bytes = cursor_offset(&p->in) - at;
    return status;
}

static logitd_status parse_type(parser *p, gguf_str key, const char *what, gguf_value_type *out) {
    size_t at = cursor_offset(&p->in);
    uint32_t type = cursor_u32(&p->in);
    if (p->in.failed) return malformed(p, "truncated: the file ends inside %s of '%s'", what, gguf_show(key).text);
    if (type >= GGUF_N_TYPES) {
        return malformed(p, "%s of '%s' at byte %zu is %u; GGUF has types 0 to 12", what, gguf_show(key).text, at,
                         type);
    }
    *out = (gguf_value_type)type;
    return LOGITD_OK;
}

static logitd_status parse_kv(parser *p, kv_entry *kv) {
    gguf_value *v = &kv->value;
    logitd_status status = parse_string(p, "a metadata key", &kv->key);
    if (status) return status;
    if (kv->key.len == 0) return malformed(p, "an empty metadata key before byte %zu", cursor_offset(&p->in));
    if ((status = parse_type(p, kv->key, "the type", &v->type))) return status;
    v->element = v->type;
    v->n = 1;
    if (v->type == GGUF_ARRAY) {
        if ((status = parse_type(p, kv->key, "the element type", &v->element))) return status;
        if (v->element == GGUF_ARRAY) {
            return malformed(p, "'%s' is an array of arrays, which is not supported", gguf_show(kv->key).text);
        }
        v->n = cursor_u64(&p->in);
        if (p->in.failed) return malformed(p, "truncated: the file ends inside array '%s'", gguf_show(kv->key).text);
    }
    v->data = p->in.p;
    return parse_elements(p, kv->key, v);
}

static logitd_status parse_metadata(parser *p, uint64_t n) {
    gguf_file *file = p->file;
    logitd_status status = check_count(p, "metadata entries", n, LIMIT_METADATA, KV_MIN_BYTES);
    if (status) return status;
    file->kvs = arena_alloc(&file->memory, n, sizeof *file->kvs);
    if (!file->kvs || !index_create(&file->kv_index, &file->memory, n)) return out_of_memory(p);
    for (; file->n_kv < (int)n; file->n_kv++) {
        if ((status = parse_kv(p, &file->kvs[file->n_kv]))) return status;
        if (!index_add(file, &file->kv_index, gguf_kv_key, file->n_kv)) {
            return malformed(p, "metadata key '%s' occurs twice", gguf_show(file->kvs[file->n_kv].key).text);
        }
    }
    return LOGITD_OK;
}

// ----------------------------------------------------------------------------------------------------- tensors

static logitd_status unsupported_type(parser *p, gguf_str tensor, uint32_t id) {
    buffer supported = {0};
    for (int i = 0; i < n_quant_types; i++) buffer_printf(&supported, "%s%s", i ? ", " : "", quant_types[i].name);
    const char *name = quant_name(id);
    logitd_status status =
        malformed(p, "tensor '%s' has type %s (number %u), which is not supported; supported: %s",
                  gguf_show(tensor).text, name ? name : "unknown", id, supported.data ? supported.data : "");
    buffer_free(&supported);
    return status;
}

/// Sets the tensor's n_bytes from its dims and type.
static logitd_status measure_tensor(parser *p, gguf_tensor *tensor) {
    uint64_t n_weights = 1, n_bytes;
    for (int i = 0; i < tensor->n_dims; i++) {
        if (tensor->dims[i] < 1) {
            return malformed(p, "dimension %d of tensor '%s' is %" PRIu64 "; it must be from 1 to 2^63 - 1", i,
                             gguf_show(tensor->name).text, (uint64_t)tensor->dims[i]);
        }
        if (__builtin_mul_overflow(n_weights, (uint64_t)tensor->dims[i], &n_weights) || n_weights > INT64_MAX) {
            return malformed(p, "the dimensions of tensor '%s' multiply to more than 2^63 weights",
                             gguf_show(tensor->name).text);
        }
    }
    const quant_type *type = tensor->type;
    if (tensor->dims[0] % type->block_weights != 0) {
        return malformed(p,
                         "a row of tensor '%s' has %" PRId64 " weights, which is no multiple of the %d in a %s block",
                         gguf_show(tensor->name).text, tensor->dims[0], type->block_weights, type->name);
    }
    uint64_t n_blocks = n_weights / (uint64_t)type->block_weights;
    if (__builtin_mul_overflow(n_blocks, (uint64_t)type->block_bytes, &n_bytes)) {
        return malformed(p, "tensor '%s' has more than 2^64 bytes", gguf_show(tensor->name).text);
    }
    tensor->n_bytes = n_bytes;
    return LOGITD_OK;
}

/// Reads one tensor info; its offset, whose origin is not known yet, goes to *offset.
static logitd_status parse_tensor(parser *p, gguf_tensor *tensor, uint64_t *offset) {
    logitd_status status = parse_string(p, "a tensor name", &tensor->name);
    if (status) return status;
    if (tensor->name.len == 0) return malformed(p, "an empty tensor name before byte %zu", cursor_offset(&p->in));
    uint32_t n_dims = cursor_u32(&p->in);
    if (!p->in.failed && (n_dims < 1 || n_dims > 4)) {
        return malformed(p, "tensor '%s' has %u dimensions; 1 to 4 are supported", gguf_show(tensor->name).text,
                         n_dims);
    }
    for (uint32_t i = 0; i < 4; i++) tensor->dims[i] = i < n_dims ? (int64_t)cursor_u64(&p->in) : 1;
    uint32_t type_id = cursor_u32(&p->in);
    *offset = cursor_u64(&p->in);
    if (p->in.failed)
        return malformed(p, "truncated: the file ends inside the info of tensor '%s'", gguf_show(tensor->name).text);
    tensor->n_dims = (int)n_dims;
    tensor->type = quant_find(type_id);
    if (!tensor->type) return unsupported_type(p, tensor->name, type_id);
    return measure_tensor(p, tensor);
}

/// Points a tensor at its data: `offset` counts from `data_start`.
static logitd_status place_tensor(parser *p, gguf_tensor *tensor, uint64_t data_start, uint64_t offset,
                                  uint64_t alignment) {
    uint64_t n_data = p->file->n_bytes > data_start ? p->file->n_bytes - data_start : 0;
    if (offset % alignment != 0) {
        return malformed(p, "the offset %" PRIu64 " of tensor '%s' is no multiple of the alignment %" PRIu64, offset,
                         gguf_show(tensor->name).text, alignment);
    }
    if (offset > n_data || tensor->n_bytes > n_data - offset) {
        return malformed(p,
                         "truncated or damaged: tensor '%s' has %" PRIu64 " bytes at offset %" PRIu64
                         " of the data, which has %" PRIu64 " bytes",
                         gguf_show(tensor->name).text, tensor->n_bytes, offset, n_data);
    }
    tensor->data = p->file->data + data_start + offset;
    return LOGITD_OK;
}

static logitd_status find_alignment(parser *p, uint64_t *out) {
    int64_t alignment = ALIGNMENT_DEFAULT;
    int i = gguf_find(p->file, "general.alignment");
    bool valid = i < 0 || (gguf_int(p->file, "general.alignment", &alignment) && alignment >= ALIGNMENT_MIN &&
                           alignment <= ALIGNMENT_MAX && (alignment & (alignment - 1)) == 0);
    if (!valid) {
        buffer text = {0};
        gguf_kv_text(p->file, i, &text);
        logitd_status status = malformed(p, "general.alignment is %s; it must be a power of two from %d to %d",
                                         text.data ? text.data : "wrong", ALIGNMENT_MIN, ALIGNMENT_MAX);
        buffer_free(&text);
        return status;
    }
    *out = (uint64_t)alignment;
    return LOGITD_OK;
}

static logitd_status parse_tensors(parser *p, uint64_t n) {
    gguf_file *file = p->file;
    uint64_t alignment = ALIGNMENT_DEFAULT;
    logitd_status status = find_alignment(p, &alignment);
    if (status || (status = check_count(p, "tensors", n, LIMIT_TENSORS, TENSOR_MIN_BYTES))) return status;
    file->tensors = arena_alloc(&file->memory, n, sizeof *file->tensors);
    uint64_t *offsets = arena_alloc(&file->memory, n, sizeof *offsets);
    if (!file->tensors || !offsets || !index_create(&file->tensor_index, &file->memory, n)) return out_of_memory(p);
    for (; file->n_tensors < (int)n; file->n_tensors++) {
        int i = file->n_tensors;
        if ((status = parse_tensor(p, &file->tensors[i], &offsets[i]))) return status;
        if (!index_add(file, &file->tensor_index, tensor_name, i)) {
            return malformed(p, "tensor name '%s' occurs twice", gguf_show(file->tensors[i].name).text);
        }
    }
    uint64_t data_start = (cursor_offset(&p->in) + alignment - 1) / alignment * alignment;
    for (int i = 0; i < file->n_tensors; i++) {
        if ((status = place_tensor(p, &file->tensors[i], data_start, offsets[i], alignment))) return status;
    }
    return LOGITD_OK;
}

// ---------------------------------------------------------------------------------------------- open and close

static logitd_status parse_file(gguf_file *file, logitd_error *err) {
    parser p = {.file = file, .in = cursor_make(file->data, file->n_bytes), .err = err};
    uint64_t n_tensors = 0, n_kv = 0;
    logitd_status status = parse_header(&p, &n_tensors, &n_kv);
    if (!status) status = parse_metadata(&p, n_kv);
    if (!status) status = parse_tensors(&p, n_tensors);
    return status;
}

/// Takes the mapping over, also when it fails.
static logitd_status open_bytes(const char *path, const void *data, uint64_t n_bytes, bool mapped, gguf_file **out,
                                logitd_error *err) {
    gguf_file *file = mem_alloc(1, sizeof *file);
    if (!file) {
        if (mapped) munmap((void *)(uintptr_t)data, n_bytes);
        return error_set(err, LOGITD_ENOMEM, "%s: no memory", path);
    }
    *file = (gguf_file){.data = data, .n_bytes = n_bytes, .mapped = mapped};
    file->path = arena_strdup(&file->memory, path);
    logitd_status status = file->path ? parse_file(file, err) : error_set(err, LOGITD_ENOMEM, "%s: no memory", path);
    if (status) {
        gguf_close(file);
        return status;
    }
    *out = file;
    return LOGITD_OK;
}

logitd_status gguf_open_memory(const void *data, size_t n_bytes, gguf_file **out, logitd_error *err) {
    *out = NULL;
    return open_bytes("(memory)", data, n_bytes, false, out, err);
}

logitd_status gguf_open(const char *path, gguf_file **out, logitd_error *err) {
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // non-blocking: a pipe without a writer is refused below
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        error_set(err, LOGITD_EIO, "%s: cannot be opened: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return LOGITD_EIO;
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        close(fd);
        return error_set(err, LOGITD_EFORMAT, "%s: not a GGUF file but %s", path,
                         S_ISREG(st.st_mode) ? "an empty one" : "a folder or a device");
    }
    uint64_t n_bytes = (uint64_t)st.st_size;
    void *data = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    int map_errno = errno;
    close(fd); // the mapping stays
    if (data == MAP_FAILED) {
        return error_set(err, LOGITD_EIO, "%s: cannot be mapped: %s", path, strerror(map_errno));
    }
    return open_bytes(path, data, n_bytes, true, out, err);
}

void gguf_close(gguf_file *file) {
    if (!file) return;
    if (file->mapped) munmap((void *)(uintptr_t)file->data, file->n_bytes);
    arena_free(&file->memory);
    mem_free(file);
}

// ----------------------------------------------------------------------------------------------------- getters

const char *gguf_path(const gguf_file *file) {
    return file->path;
}

const void *gguf_data(const gguf_file *file, uint64_t *n_bytes) {
    *n_bytes = file->n_bytes;
    return file->data;
}

int gguf_version(const gguf_file *file) {
    return file->version;
}

int gguf_n_kv(const gguf_file *file) {
    return file->n_kv;
}

gguf_str gguf_kv_key(const gguf_file *file, int i) {
    return file->kvs[i].key;
}

int gguf_find(const gguf_file *file, const char *key) {
    return index_find(file, &file->kv_index, gguf_kv_key, key);
}

gguf_value_type gguf_kv_type(const gguf_file *file, int i) {
    return file->kvs[i].value.type;
}

void gguf_kv_text(const gguf_file *file, int i, buffer *out) {
    gguf_value_text(&file->kvs[i].value, out);
}

/// The value of a key if it is a scalar (or an array), else NULL.
static const gguf_value *find_value(const gguf_file *file, const char *key, bool array) {
    int i = gguf_find(file, key);
    return i >= 0 && (file->kvs[i].value.type == GGUF_ARRAY) == array ? &file->kvs[i].value : NULL;
}

bool gguf_int(const gguf_file *file, const char *key, int64_t *out) {
    const gguf_value *v = find_value(file, key, false);
    return v && gguf_value_int(v, 0, out);
}

bool gguf_float(const gguf_file *file, const char *key, double *out) {
    const gguf_value *v = find_value(file, key, false);
    return v && gguf_value_float(v, 0, out);
}

bool gguf_bool(const gguf_file *file, const char *key, bool *out) {
    const gguf_value *v = find_value(file, key, false);
    if (!v || v->type != GGUF_BOOL) return false;
    *out = v->data[0] != 0;
    return true;
}

bool gguf_string(const gguf_file *file, const char *key, gguf_str *out) {
    const gguf_value *v = find_value(file, key, false);
    if (!v || v->type != GGUF_STRING) return false;
    gguf_value_strings(v, out);
    return true;
}

bool gguf_array(const gguf_file *file, const char *key, gguf_value_type *type, uint64_t *n) {
    const gguf_value *v = find_value(file, key, true);
    if (!v) return false;
    *type = v->element;
    *n = v->n;
    return true;
}

/// The array at index kv if it has an element i, else NULL.
static const gguf_value *array_with(const gguf_file *file, int kv, uint64_t i) {
    const gguf_value *v = kv >= 0 ? &file->kvs[kv].value : NULL;
    return v && v->type == GGUF_ARRAY && i < v->n ? v : NULL;
}

bool gguf_array_int(const gguf_file *file, int kv, uint64_t i, int64_t *out) {
    const gguf_value *v = array_with(file, kv, i);
    return v && gguf_value_int(v, i, out);
}

bool gguf_array_float(const gguf_file *file, int kv, uint64_t i, double *out) {
    const gguf_value *v = array_with(file, kv, i);
    return v && gguf_value_float(v, i, out);
}

bool gguf_array_strings(const gguf_file *file, const char *key, gguf_str *out, uint64_t n) {
    const gguf_value *v = find_value(file, key, true);
    if (!v || v->element != GGUF_STRING || v->n != n) return false;
    gguf_value_strings(v, out);
    return true;
}

int gguf_n_tensors(const gguf_file *file) {
    return file->n_tensors;
}

const gguf_tensor *gguf_tensor_at(const gguf_file *file, int i) {
    return &file->tensors[i];
}

const gguf_tensor *gguf_find_tensor(const gguf_file *file, const char *name) {
    int i = index_find(file, &file->tensor_index, tensor_name, name);
    return i < 0 ? NULL : &file->tensors[i];
}
