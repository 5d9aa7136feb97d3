/*
 * tok_find.c: finds tokens by their bytes. Owns the hash table of the tokens that merging can make and the trie of the
 * special tokens' names. Knows nothing of merging, patterns or files.
 */
#include "tok_impl.h"

#include <stdlib.h>

// ------------------------------------------------------------------------------------------------------ hash table

bool tok_table_create(tokenizer *t) {
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)t->n_vocab) n_slots *= 2;
    t->slots = mem_alloc(n_slots, sizeof *t->slots);
    t->slot_mask = n_slots - 1;
    return t->slots != NULL;
}

/// The slot of these bytes, or the empty one where they would go.
static tok_slot *find_slot(const tokenizer *t, const uint8_t *bytes, size_t n, uint64_t hash) {
    uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t i = hash & t->slot_mask;; i = (i + 1) & t->slot_mask) {
        tok_slot *slot = &t->slots[i];
        if (!slot->id_plus_1) return slot;
        if (slot->tag != tag) continue;
        int32_t id = slot->id_plus_1 - 1;
        if (tok_len(t, id) == n && tok_equal(t->bytes + t->starts[id], bytes, n)) return slot;
    }
}

int32_t tok_table_add(tokenizer *t, int32_t id) {
    const uint8_t *bytes = t->bytes + t->starts[id];
    size_t n = tok_len(t, id);
    uint64_t hash = tok_hash(bytes, n);
    tok_slot *slot = find_slot(t, bytes, n, hash);
    if (slot->id_plus_1) return slot->id_plus_1 - 1;
    *slot = (tok_slot){.tag = (uint32_t)(hash >> 32), .id_plus_1 = id + 1};
    t->longest_merged = MAX(t->longest_merged, n);
    for (size_t i = 1; i < n; i++) {
        unsigned bit = (unsigned)bytes[i - 1] << 8 | bytes[i];
        t->joined[bit >> 6] |= (uint64_t)1 << (bit & 63);
    }
    return -1;
}

int32_t tok_find(const tokenizer *t, const uint8_t *bytes, size_t n) {
    if (n > t->longest_merged) return -1;
    return find_slot(t, bytes, n, tok_hash(bytes, n))->id_plus_1 - 1;
}

// ------------------------------------------------------------------------------------------------------------ trie

static uint32_t trie_new_node(tok_trie *trie, uint8_t byte) {
    if (!trie->n) trie->n = 1;
    if (!tok_grow((void **)&trie->nodes, &trie->cap, trie->n + 1, sizeof *trie->nodes)) return 0;
    trie->nodes[trie->n] = (trie_node){.token_id = -1, .byte = byte};
    return (uint32_t)trie->n++;
}

static uint32_t trie_child(const tok_trie *trie, uint32_t node, uint8_t byte) {
    uint32_t child = trie->nodes[node].child;
    while (child && trie->nodes[child].byte != byte) child = trie->nodes[child].sibling;
    return child;
}

int tok_trie_add(tokenizer *t, int32_t id) {
    tok_trie *trie = &t->special;
    const uint8_t *name = t->bytes + t->starts[id];
    size_t n = tok_len(t, id);
    if (n == 0) return TRIE_ADDED; // an empty name is never in a text
    if (!trie->roots[name[0]]) trie->roots[name[0]] = trie_new_node(trie, name[0]);
    uint32_t node = trie->roots[name[0]];
    for (size_t i = 1; node && i < n; i++) {
        uint32_t child = trie_child(trie, node, name[i]);
        if (!child && (child = trie_new_node(trie, name[i]))) {
            trie->nodes[child].sibling = trie->nodes[node].child;
            trie->nodes[node].child = child;
        }
        node = child;
    }
    if (!node) return TRIE_NO_MEMORY;
    if (trie->nodes[node].token_id >= 0) return TRIE_DUPLICATE;
    trie->nodes[node].token_id = id;
    return TRIE_ADDED;
}

/// The longest special token of at most `limit` bytes that text begins with, or -1.
static int32_t trie_longest(const tokenizer *t, const uint8_t *text, size_t limit, bool special) {
    const tok_trie *trie = &t->special;
    int32_t found = -1;
    uint32_t node = limit ? trie->roots[text[0]] : 0;
    for (size_t i = 1; node; i++) {
        int32_t id = trie->nodes[node].token_id;
        if (id >= 0 && (special || t->kinds[id] == TOKEN_USER_DEFINED)) found = id;
        node = i < limit ? trie_child(trie, node, text[i]) : 0;
    }
    return found;
}

// --------------------------------------------------------------------------------------------- specials in a text

static bool span_push(span_vec *v, tok_span span) {
    if (!tok_grow((void **)&v->data, &v->cap, v->n + 1, sizeof *v->data)) return false;
    v->data[v->n++] = span;
    return true;
}

/// A stretch of text in which candidates overlap, and what became of each byte.
typedef struct cluster {
    int32_t *owner; // [bytes] the id of the token that starts here, TAKEN inside one, FREE
    size_t owner_cap;
    tok_heap heap; // ~length << 32 | start: the longest, then the leftmost candidate comes first
} cluster;

enum { FREE = -1, TAKEN = -2 };

/// Settles text[0, n), where each start of a candidate is in the heap with its longest one. Longer ones are settled
/// first, so one that overlaps a settled token either starts inside it or ends inside it: two bytes tell.
static void cluster_settle(cluster *c, const tokenizer *t, const uint8_t *text, bool special) {
    while (c->heap.n) {
        uint64_t key = tok_heap_pop(&c->heap);
        uint32_t start = (uint32_t)key, len = ~(uint32_t)(key >> 32);
        if (c->owner[start] != FREE) continue;
        if (c->owner[start + len - 1] != FREE) { // try the next shorter one that starts here
            int32_t shorter = trie_longest(t, text + start, len - 1, special);
            if (shorter >= 0) tok_heap_push(&c->heap, (uint64_t) ~(uint32_t)tok_len(t, shorter) << 32 | start);
            continue;
        }
        c->owner[start] = trie_longest(t, text + start, len, special);
        for (uint32_t i = 1; i < len; i++) c->owner[start + i] = TAKEN;
    }
}

/// Finds the cluster that starts with a candidate at `start`, settles it and appends its tokens. Returns its end, or 0
/// when there is no memory.
static uint32_t cluster_run(cluster *c, const tokenizer *t, const uint8_t *text, uint32_t start, uint32_t n,
                            int32_t first, bool special, span_vec *out) {
    uint32_t end = start + (uint32_t)tok_len(t, first);
    c->heap.n = 0;
    for (uint32_t at = start; at < end; at++) {
        int32_t id = trie_longest(t, text + at, n - at, special);
        if (id < 0) continue;
        uint32_t len = (uint32_t)tok_len(t, id);
        end = MAX(end, at + len);
        if (!tok_grow((void **)&c->heap.keys, &c->heap.cap, c->heap.n + 1, sizeof *c->heap.keys)) return 0;
        tok_heap_push(&c->heap, (uint64_t)~len << 32 | (at - start));
    }
    if (c->heap.n == 1) return span_push(out, (tok_span){start, end - start, first}) ? end : 0;
    if (!tok_grow((void **)&c->owner, &c->owner_cap, end - start, sizeof *c->owner)) return 0;
    for (uint32_t i = 0; i < end - start; i++) c->owner[i] = FREE;
    cluster_settle(c, t, text + start, special);
    for (uint32_t i = 0; i < end - start; i++) {
        int32_t id = c->owner[i];
        if (id >= 0 && !span_push(out, (tok_span){start + i, (uint32_t)tok_len(t, id), id})) return 0;
    }
    return end;
}

logitd_status tok_find_special(const tokenizer *t, const uint8_t *text, uint32_t n, bool special, span_vec *out,
                               logitd_error *err) {
    cluster c = {0};
    logitd_status status = LOGITD_OK;
    for (uint32_t at = 0; at < n && status == LOGITD_OK;) {
        int32_t id = t->special.roots[text[at]] ? trie_longest(t, text + at, n - at, special) : -1;
        if (id < 0) {
            at++;
            continue;
        }
        at = cluster_run(&c, t, text, at, n, id, special, out);
        if (!at) status = tok_no_memory(err);
    }
    free(c.owner);
    free(c.heap.keys);
    return status;
}
