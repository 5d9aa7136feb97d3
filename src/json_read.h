/*
 * json_read.h: JSON requests, read strictly. The only user of cJSON. Owns the tree of one request; every reader below
 * says what it found, where, and what is allowed.
 *
 * Refused before cJSON sees the text, with the byte offset: ill-formed UTF-8, a NUL (raw or \u0000), control
 * characters, lone surrogates, numbers that JSON does not write, nesting over LIMIT_JSON_DEPTH, more than
 * limits.json_values values; and after it: a key twice in one object. So a string here never holds a NUL.
 */
#ifndef JSON_READ_H
#define JSON_READ_H

#include "util.h"

typedef struct cJSON json_node;

/// The tree of a whole text, whose top must be an object; text[n] must be '\0'. NULL: *err says why. Free: json_free.
json_node *json_parse(const char *text, size_t n, logitd_error *err);
void json_free(json_node *root);

bool json_is_string(const json_node *node);
bool json_is_array(const json_node *node);
bool json_is_object(const json_node *node);
bool json_is_null(const json_node *node);
bool json_is_number(const json_node *node);
const char *json_text(const json_node *node); // of a string

/// A member by name, or NULL.
const json_node *json_member(const json_node *object, const char *name);
/// Items of an array: for (item = json_first(array); item; item = json_next(item))
const json_node *json_first(const json_node *array);
const json_node *json_next(const json_node *item);
int json_length(const json_node *array);

/// EINVAL unless every member of `object` is one of names[n]. `path` is the object's own, "" at the top.
logitd_status json_check_members(const json_node *object, const char *path, const char *const *names, size_t n,
                                 logitd_error *err);

/// What a node holds, for messages: null, true, 1.5, the string "abc", an array, an object.
#define JSON_DESCRIBE_BYTES 96
const char *json_describe(const json_node *node, char out[JSON_DESCRIBE_BYTES]);

// Typed readers. `path` names the field in messages and in the error's param.
logitd_status json_read_bool(const json_node *node, const char *path, bool *out, logitd_error *err);
logitd_status json_read_string(const json_node *node, const char *path, const char **out, logitd_error *err);
logitd_status json_read_int(const json_node *node, const char *path, int64_t min, int64_t max, int64_t *out,
                            logitd_error *err);
logitd_status json_read_number(const json_node *node, const char *path, double min, double max, double *out,
                               logitd_error *err);

#endif
