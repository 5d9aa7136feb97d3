// json_read.c: see json_read.h. First the check of the raw text, then the tree, then the typed readers.
#include "json_read.h"
#include "float_text.h"
#include "limits.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

// --------------------------------------------------------------------------------------------------- the raw text

typedef struct scan {
    const char *text;
    size_t n, i; // text[i] is next
    int depth;
    size_t n_values;
    logitd_error *err;
} scan;

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/// The value of four hex digits at text[i], or -1.
static int hex4(const scan *s, size_t i) {
    int value = 0;
    for (size_t k = i; k < i + 4; k++) {
        char c = k < s->n ? s->text[k] : '\0';
        int digit = is_digit(c)            ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/// text[i] is the 'u' of an escape; moves past it.
static logitd_status scan_unicode_escape(scan *s) {
    size_t at = s->i - 1;
    int code = hex4(s, s->i + 1);
    if (code < 0) return error_set(s->err, LOGITD_EINVAL, "the \\u escape at byte %zu needs four hex digits", at);
    if (code == 0) {
        return error_set(
            s->err, LOGITD_EINVAL,
            "the string with \\u0000 at byte %zu holds a NUL, which a text here cannot have; leave it out, or "
            "send token ids",
            at);
    }
    s->i += 5;
    if (code < 0xD800 || code > 0xDFFF) return LOGITD_OK;
    int low =
        code < 0xDC00 && s->i + 1 < s->n && s->text[s->i] == '\\' && s->text[s->i + 1] == 'u' ? hex4(s, s->i + 2) : -1;
    if (low < 0xDC00 || low > 0xDFFF) {
        return error_set(s->err, LOGITD_EINVAL,
                         "the escape \\u%04x at byte %zu is half of a surrogate pair; write both halves",
                         (unsigned)code, at);
    }
    s->i += 6;
    return LOGITD_OK;
}

/// text[i] is the opening quote; moves past the closing one.
static logitd_status scan_string(scan *s) {
    size_t start = s->i++;
    while (s->i < s->n && s->text[s->i] != '"') {
        uint8_t c = (uint8_t)s->text[s->i];
        if (c == 0) {
            return error_set(
                s->err, LOGITD_EINVAL,
                "a string holds a NUL at byte %zu, which a text here cannot have; leave it out, or send token ids",
                s->i);
        }
        if (c < 0x20) {
            return error_set(
                s->err, LOGITD_EINVAL,
                "a string holds the control character 0x%02x at byte %zu; JSON wants it escaped (\\n, \\u%04x)", c,
                s->i, c);
        }
        s->i++;
        if (c != '\\' || s->i >= s->n) continue;
        if (s->text[s->i] == 'u') {
            logitd_status status = scan_unicode_escape(s);
            if (status) return status;
        } else if (strchr("\"\\/bfnrt", s->text[s->i]) && s->text[s->i]) {
            s->i++;
        } else {
            return error_set(s->err, LOGITD_EINVAL,
                             "the escape at byte %zu is none of JSON's (\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX)",
                             s->i - 1);
        }
    }
    if (s->i >= s->n)
        return error_set(s->err, LOGITD_EINVAL, "the string that starts at byte %zu has no closing quote", start);
    s->i++;
    return LOGITD_OK;
}

/// text[i] is '-' or a digit; moves past the number. -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
static logitd_status scan_number(scan *s) {
    const char *start = s->text + s->i, *p = start; // the NUL at text[n] ends every run of digits
    if (*p == '-') p++;
    bool valid = is_digit(*p);
    if (*p == '0') {
        p++;
    } else {
        while (is_digit(*p)) p++;
    }
    if (*p == '.') {
        valid &= is_digit(*++p);
        while (is_digit(*p)) p++;
    }
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '+' || *p == '-') p++;
        valid &= is_digit(*p);
        while (is_digit(*p)) p++;
    }
    size_t length = (size_t)(p - start);
    if (!valid || is_digit(*p))
        return error_set(s->err, LOGITD_EINVAL, "the number at byte %zu is not written as JSON writes numbers", s->i);
    if (length > 63) { // cJSON reads no longer ones
        return error_set(s->err, LOGITD_EINVAL, "the number at byte %zu has %zu characters; at most 63 are read", s->i,
                         length);
    }
    s->i += length;
    return LOGITD_OK;
}

/// One character outside strings and numbers.
static logitd_status scan_structure(scan *s) {
    char c = s->text[s->i];
    if (c == '{' || c == '[') {
        if (++s->depth > LIMIT_JSON_DEPTH) {
            return error_set(s->err, LOGITD_EINVAL, "the body nests deeper than %d levels at byte %zu",
                             LIMIT_JSON_DEPTH, s->i);
        }
    } else if (c == '}' || c == ']') {
        s->depth--;
    } else if (c == ',' && ++s->n_values > (size_t)limits.json_values) {
        return error_set(s->err, LOGITD_ETOOLARGE, "the body holds more than %lld values",
                         (long long)limits.json_values);
    } else if ((uint8_t)c < 0x20 && !(c == '\t' || c == '\n' || c == '\r')) {
        return error_set(s->err, LOGITD_EINVAL, "the byte 0x%02x at %zu does not belong in JSON", (uint8_t)c, s->i);
    }
    s->i++;
    return LOGITD_OK;
}

static logitd_status check_text(const char *text, size_t n, logitd_error *err) {
    size_t valid = utf8_first_invalid(text, n);
    if (valid < n) {
        return error_set(err, LOGITD_EINVAL, "the body is not valid UTF-8 at byte %zu (0x%02x); JSON is sent as UTF-8",
                         valid, (uint8_t)text[valid]);
    }
    scan s = {.text = text, .n = n, .err = err};
    logitd_status status = LOGITD_OK;
    while (!status && s.i < n) {
        char c = text[s.i];
        status = c == '"' ? scan_string(&s) : c == '-' || is_digit(c) ? scan_number(&s) : scan_structure(&s);
    }
    return status;
}

// ------------------------------------------------------------------------------------------------------- the tree

#define MAX_MEMBERS 64 // of one object: no request has more than a dozen fields, and keys are compared pairwise

/// err->param of a fault inside `child`, the i-th of `node`, as seen from `node`.
static void place_below(const json_node *node, const json_node *child, int i, logitd_error *err) {
    char below[sizeof err->param];
    memcpy(below, err->param, sizeof below);
    if (cJSON_IsObject(node)) {
        snprintf(err->param, sizeof err->param, "%.40s%s%.22s", child->string, *below && *below != '[' ? "." : "",
                 below);
    } else {
        snprintf(err->param, sizeof err->param, "[%d]%s%.48s", i, *below && *below != '[' ? "." : "", below);
    }
}

static logitd_status check_keys(const json_node *node, logitd_error *err) {
    int n = 0;
    for (const cJSON *child = node->child; child; child = child->next, n++) {
        if (cJSON_IsObject(node)) {
            if (n >= MAX_MEMBERS)
                return error_set(err, LOGITD_EINVAL, "an object holds more than %d members", MAX_MEMBERS);
            for (const cJSON *earlier = node->child; earlier != child; earlier = earlier->next) {
                if (strcmp(earlier->string, child->string) != 0) continue;
                return error_set_param(err, LOGITD_EINVAL, child->string, "the field \"%.60s\" is given twice",
                                       child->string);
            }
        }
        if (!child->child) continue;
        logitd_status status = check_keys(child, err); // LIMIT_JSON_DEPTH bounds the recursion
        if (!status) continue;
        place_below(node, child, n, err);
        return status;
    }
    return LOGITD_OK;
}

static bool no_memory; // for cJSON since this parse began; guarded by parse_locked's mutex

static void *alloc_for_cjson(size_t bytes) {
    void *memory = mem_alloc_plain(bytes);
    no_memory |= !memory;
    return memory;
}

/// cJSON keeps the place of its last error and its allocator in globals, so one text is parsed at a time.
static cJSON *parse_locked(const char *text, size_t n, const char **end, logitd_error *err) {
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    static bool hooked;
    pthread_mutex_lock(&one_at_a_time);
    if (!hooked) cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = alloc_for_cjson, .free_fn = mem_free_plain});
    hooked = true;
    no_memory = false;
    cJSON *root = cJSON_ParseWithLengthOpts(text, n + 1, end, true);
    if (!root && no_memory) error_set(err, LOGITD_ENOMEM, "no memory to read the body; try again later");
    if (!root && !no_memory) {
        error_set(err, LOGITD_EINVAL, "the body is not valid JSON at byte %zu of %zu", MIN((size_t)(*end - text), n),
                  n);
    }
    pthread_mutex_unlock(&one_at_a_time);
    return root;
}

json_node *json_parse(const char *text, size_t n, logitd_error *err) {
    if (n == 0) {
        error_set(err, LOGITD_EINVAL, "the body is empty; send a JSON object");
        return NULL;
    }
    if (check_text(text, n, err)) return NULL;
    const char *end = text;
    cJSON *root = parse_locked(text, n, &end, err);
    if (!root) return NULL;
    char found[JSON_DESCRIBE_BYTES];
    logitd_status status = LOGITD_OK;
    if (!cJSON_IsObject(root)) {
        status = error_set(err, LOGITD_EINVAL, "the body is %s; send a JSON object", json_describe(root, found));
    }
    if (!status) status = check_keys(root, err);
    if (!status) return root;
    cJSON_Delete(root);
    return NULL;
}

void json_free(json_node *root) {
    cJSON_Delete(root);
}

bool json_is_string(const json_node *node) {
    return cJSON_IsString(node);
}

bool json_is_array(const json_node *node) {
    return cJSON_IsArray(node);
}

bool json_is_object(const json_node *node) {
    return cJSON_IsObject(node);
}

bool json_is_null(const json_node *node) {
    return cJSON_IsNull(node);
}

bool json_is_number(const json_node *node) {
    return cJSON_IsNumber(node);
}

const char *json_text(const json_node *node) {
    ASSERT(cJSON_IsString(node));
    return node->valuestring;
}

const json_node *json_member(const json_node *object, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

const json_node *json_first(const json_node *array) {
    return array->child;
}

const json_node *json_next(const json_node *item) {
    return item->next;
}

int json_length(const json_node *array) {
    return cJSON_GetArraySize(array);
}

/// Letters that two names share in order from the start and from the end, for "did you mean".
static size_t likeness(const char *a, const char *b) {
    size_t na = strlen(a), nb = strlen(b), shorter = MIN(na, nb), head = 0, tail = 0;
    while (head < shorter && a[head] == b[head]) head++;
    while (tail < shorter - head && a[na - 1 - tail] == b[nb - 1 - tail]) tail++;
    return head + tail;
}

logitd_status json_check_members(const json_node *object, const char *path, const char *const *names, size_t n,
                                 logitd_error *err) {
    for (const cJSON *member = object->child; member; member = member->next) {
        size_t best = 0, likest = 0;
        bool known = false;
        for (size_t i = 0; i < n && !known; i++) {
            known = strcmp(member->string, names[i]) == 0;
            size_t like = likeness(member->string, names[i]);
            if (2 * like <= strlen(names[i]) || like <= likest) continue;
            likest = like;
            best = i;
        }
        if (known) continue;
        char allowed[256] = "", param[64], near[64] = "";
        for (size_t i = 0; i < n; i++) {
            size_t used = strlen(allowed);
            snprintf(allowed + used, sizeof allowed - used, "%s%s", i ? ", " : "", names[i]);
        }
        if (likest) snprintf(near, sizeof near, " (did you mean %s?)", names[best]);
        snprintf(param, sizeof param, "%s%s%.40s", path, *path ? "." : "", member->string);
        return error_set_param(err, LOGITD_EINVAL, param, "the field \"%s\" is unknown%s; the fields are %s", param,
                               near, allowed);
    }
    return LOGITD_OK;
}

// --------------------------------------------------------------------------------------------------- typed readers

const char *json_describe(const json_node *node, char out[JSON_DESCRIBE_BYTES]) {
    if (cJSON_IsNumber(node) && isinf(node->valuedouble)) {
        snprintf(out, JSON_DESCRIBE_BYTES, "a number beyond what float64 holds");
    } else if (cJSON_IsNumber(node)) {
        out[double_text(node->valuedouble, out)] = '\0';
    } else if (cJSON_IsString(node)) {
        size_t n = strlen(node->valuestring), cut = MIN(n, (size_t)40);
        while (cut < n && cut > 0 && ((uint8_t)node->valuestring[cut] & 0xC0) == 0x80) cut--; // keep characters whole
        snprintf(out, JSON_DESCRIBE_BYTES, "the string \"%.*s%s\"", (int)cut, node->valuestring, cut < n ? "…" : "");
    } else {
        const char *what = cJSON_IsNull(node)    ? "null"
                           : cJSON_IsTrue(node)  ? "true"
                           : cJSON_IsFalse(node) ? "false"
                           : cJSON_IsArray(node) ? "an array"
                                                 : "an object";
        snprintf(out, JSON_DESCRIBE_BYTES, "%s", what);
    }
    return out;
}

logitd_status json_read_bool(const json_node *node, const char *path, bool *out, logitd_error *err) {
    char found[JSON_DESCRIBE_BYTES];
    if (!cJSON_IsBool(node)) {
        return error_set_param(err, LOGITD_EINVAL, path, "%s is %s; it must be true or false", path,
                               json_describe(node, found));
    }
    *out = cJSON_IsTrue(node);
    return LOGITD_OK;
}

logitd_status json_read_string(const json_node *node, const char *path, const char **out, logitd_error *err) {
    char found[JSON_DESCRIBE_BYTES];
    if (!cJSON_IsString(node)) {
        return error_set_param(err, LOGITD_EINVAL, path, "%s is %s; it must be a string", path,
                               json_describe(node, found));
    }
    *out = node->valuestring;
    return LOGITD_OK;
}

logitd_status json_read_int(const json_node *node, const char *path, int64_t min, int64_t max, int64_t *out,
                            logitd_error *err) {
    char found[JSON_DESCRIBE_BYTES];
    double value = cJSON_IsNumber(node) ? node->valuedouble : NAN;
    if (!(value >= (double)min && value <= (double)max) || value != floor(value)) {
        return error_set_param(err, LOGITD_EINVAL, path, "%s is %s; it must be an integer from %lld to %lld", path,
                               json_describe(node, found), (long long)min, (long long)max);
    }
    *out = (int64_t)value;
    return LOGITD_OK;
}

logitd_status json_read_number(const json_node *node, const char *path, double min, double max, double *out,
                               logitd_error *err) {
    char found[JSON_DESCRIBE_BYTES];
    double value = cJSON_IsNumber(node) ? node->valuedouble : NAN;
    if (!(value >= min && value <= max)) {
        return error_set_param(err, LOGITD_EINVAL, path, "%s is %s; it must be a number from %g to %g", path,
                               json_describe(node, found), min, max);
    }
    *out = value;
    return LOGITD_OK;
}
