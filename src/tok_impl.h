/*
 * tok_impl.h: what the tokenizer's files share; nobody else includes it.
 *
 *   tokenizer.c   loads and checks the vocabulary, cuts the text at special tokens, gives each token its offset
 *   tok_find.c    tokens by their bytes (a hash table) and special tokens in a text (a trie)
 *   tok_merge.c   the merge loop that both models run on a word, and the cache of words seen
 *   tok_pre.c     pre-split patterns of byte-level BPE, the only user of PCRE2
 *   tok_bpe.c, tok_spm.c   the two models, as rows of `tok_model`
 *
 * A word is the piece of text that merges happen in: a match of the pre-split pattern for BPE, a stretch between two
 * bytes that no token holds side by side for SPM.
 */
#ifndef TOK_IMPL_H
#define TOK_IMPL_H

#include "tokenizer.h"
#include <string.h>

// ------------------------------------------------------------------------------------------- tokens by their bytes

/// Open addressing, a power of two of slots, at most half of them taken.
typedef struct tok_slot {
    uint32_t tag;      // other bits of the hash than those that choose the slot
    int32_t id_plus_1; // 0: empty
} tok_slot;

/// The special tokens' names as a tree; a node's children are a list of siblings.
typedef struct trie_node {
    uint32_t child, sibling; // 0: none
    int32_t token_id;        // the name that ends here, or -1
    uint8_t byte;
} trie_node;

typedef struct tok_trie {
    trie_node *nodes; // nodes[0] is unused, so that 0 says none
    size_t n, cap;
    uint32_t roots[256]; // by first byte
} tok_trie;

/// A special token found in a text.
typedef struct tok_span {
    uint32_t start, len;
    int32_t id;
} tok_span;

typedef struct span_vec {
    tok_span *data;
    size_t n, cap;
} span_vec;

/// A binary heap, smallest key first. The owner makes the room.
typedef struct tok_heap {
    uint64_t *keys;
    size_t n, cap;
} tok_heap;

// ------------------------------------------------------------------------------------------------------- the state

typedef struct tok_work tok_work;

/// A tokenizer model: a value of tokenizer.ggml.model.
typedef struct tok_model {
    const char *name;
    /// Writes the bytes that a normal token's text stands for (never more than its length). SIZE_MAX: it stands for
    /// none, so that merging cannot make it.
    size_t (*decode)(gguf_str text, uint8_t *out);
    /// Reads the model's own keys; the vocabulary is there already.
    logitd_status (*create)(tokenizer *t, const gguf_file *file, logitd_error *err);
    void (*destroy)(tokenizer *t);
    /// Appends the ids and offsets of text[start, end), which holds no special token.
    logitd_status (*encode)(const tokenizer *t, tok_work *w, uint32_t start, uint32_t end);
} tok_model;

extern const tok_model tok_bpe_model, tok_spm_model;

struct tokenizer {
    const tok_model *model;
    char name[48];
    int n_vocab;
    uint8_t *bytes;   // of all tokens, end to end
    uint32_t *starts; // [n_vocab + 1] where in `bytes` each begins
    uint8_t *kinds;   // [n_vocab] token_kind
    tok_slot *slots;  // tokens that merging can make, by their bytes
    size_t slot_mask;
    size_t longest_merged; // bytes of the longest of those
    size_t longest;        // bytes of the longest token
    uint64_t joined[1024]; // bit a << 8 | b: one of those has byte b after byte a. Elsewhere no merge can pass
    int32_t byte_ids[256]; // the token of a byte alone; -1: none
    tok_trie special;      // names of user-defined, control and unknown tokens
    int bos_id, eos_id;    // -1: none
    bool add_bos;
    struct bpe_state *bpe; // the model's own, made and freed by its create and destroy
    struct spm_state *spm;
};

static inline size_t tok_len(const tokenizer *t, int32_t id) {
    return t->starts[id + 1] - t->starts[id];
}

/// One symbol of a word; at index i it covers bytes [i, next) of the word.
typedef struct merge_symbol {
    uint32_t prev, next; // next == the word's length: none; prev of the first is unused
    int32_t id;          // -1: not a token
    uint32_t rank;       // of merging it with the next one; TOK_NO_MERGE: cannot
    int32_t merged_id;   // what that gives
} merge_symbol;

/// A word of the text and where its ids are in the output, both from the start of the work.
typedef struct word_slot {
    uint32_t word, ids_at;
    uint8_t len, n_ids;
} word_slot;

/// Working memory of one tokenizer_encode.
struct tok_work {
    const uint8_t *text;
    uint32_t n_bytes, n_spans;
    token_vec *out;
    size_t out_start; // out->n at the start
    logitd_error *err;
    merge_symbol *symbols; // [word_cap]
    tok_heap heap;         // rank << 32 | index of the left symbol
    size_t word_cap;
    word_slot *words;
    size_t word_mask;
    void *match_data;    // tok_pre.c
    uint8_t *normalized; // tok_spm.c
    size_t n_normalized;
};

logitd_status tok_no_memory(logitd_error *err);
logitd_status tok_push(tok_work *w, int32_t id); // its offset is for the model to set, at the end of a piece
/// Makes room for `need` elements of *array (malloc'ed, contents kept); false: no memory.
bool tok_grow(void **array, size_t *cap, size_t need, size_t size);

// ------------------------------------------------------------------------------------------------------ tok_find.c

static inline uint64_t tok_hash_mix(uint64_t h, uint64_t part) {
    h = (h ^ part) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

static inline uint64_t tok_hash(const uint8_t *p, size_t n) {
    uint64_t h = n * 0x9E3779B97F4A7C15u, part = 0;
    if (n >= 8) {
        for (size_t i = 0; i < n - 8; i += 8) {
            memcpy(&part, p + i, 8);
            h = tok_hash_mix(h, part);
        }
        memcpy(&part, p + n - 8, 8); // the last part may overlap the one before
    } else if (n >= 4) {
        uint32_t head, tail;
        memcpy(&head, p, 4);
        memcpy(&tail, p + n - 4, 4);
        part = (uint64_t)head << 32 | tail;
    } else if (n > 0) {
        part = (uint64_t)p[0] << 16 | (uint64_t)p[n / 2] << 8 | p[n - 1];
    }
    h = tok_hash_mix(h, part);
    return tok_hash_mix(h, h >> 29);
}

/// memcmp(a, b, n) == 0, for short n without a call.
static inline bool tok_equal(const uint8_t *a, const uint8_t *b, size_t n) {
    if (n > 16) return memcmp(a, b, n) == 0;
    uint64_t a_head = 0, a_tail = 0, b_head = 0, b_tail = 0;
    if (n >= 8) {
        memcpy(&a_head, a, 8), memcpy(&a_tail, a + n - 8, 8);
        memcpy(&b_head, b, 8), memcpy(&b_tail, b + n - 8, 8);
        return a_head == b_head && a_tail == b_tail;
    }
    if (n >= 4) {
        memcpy(&a_head, a, 4), memcpy(&a_tail, a + n - 4, 4);
        memcpy(&b_head, b, 4), memcpy(&b_tail, b + n - 4, 4);
        return a_head == b_head && a_tail == b_tail;
    }
    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i]) return false;
    }
    return true;
}

static inline void tok_heap_push(tok_heap *heap, uint64_t key) {
    size_t i = heap->n++;
    for (; i && heap->keys[(i - 1) / 2] > key; i = (i - 1) / 2) heap->keys[i] = heap->keys[(i - 1) / 2];
    heap->keys[i] = key;
}

static inline uint64_t tok_heap_pop(tok_heap *heap) {
    uint64_t *keys = heap->keys, top = keys[0], last = keys[--heap->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < heap->n; i = child) {
        if (child + 1 < heap->n && keys[child + 1] < keys[child]) child++;
        if (keys[child] >= last) break;
        keys[i] = keys[child];
    }
    keys[i] = last;
    return top;
}

bool tok_table_create(tokenizer *t);                                  // for n_vocab tokens
int32_t tok_table_add(tokenizer *t, int32_t id);                      // the token that has these bytes already, or -1
int32_t tok_find(const tokenizer *t, const uint8_t *bytes, size_t n); // or -1

enum { TRIE_ADDED, TRIE_DUPLICATE, TRIE_NO_MEMORY };
int tok_trie_add(tokenizer *t, int32_t id);
/// The special tokens of text[0, n), in order: where candidates overlap, the longer one wins, then the earlier one.
/// special: control and unknown tokens too, else only user-defined ones. The caller frees out->data.
logitd_status tok_find_special(const tokenizer *t, const uint8_t *text, uint32_t n, bool special, span_vec *out,
                               logitd_error *err);

// ----------------------------------------------------------------------------------------------------- tok_merge.c

#define TOK_NO_MERGE UINT32_MAX

typedef struct tok_pair {
    uint32_t rank; // lower ranks merge first; TOK_NO_MERGE: the two do not merge
    int32_t id;    // of the merged token
} tok_pair;

/// What symbols[left] and its successor symbols[right] of a word merge into.
typedef tok_pair (*tok_pair_fn)(const tokenizer *t, const uint8_t *word, const merge_symbol *symbols, uint32_t left,
                                uint32_t right);
typedef logitd_status (*tok_word_fn)(const tokenizer *t, tok_work *w, const uint8_t *word, uint32_t n);

/// Room for a word of n bytes in w->symbols.
logitd_status tok_reserve_word(tok_work *w, uint32_t n);
/// Merges the n bytes' worth of linked w->symbols until no pair merges: always the lowest rank, then the leftmost.
void tok_merge(const tokenizer *t, tok_work *w, const uint8_t *word, uint32_t n, tok_pair_fn find);
/// Runs `encode` on a word, or repeats the ids of the same word seen before. All words of a work lie in the 4 GiB from
/// `base` on, and stay there until its end.
logitd_status tok_encode_word(const tokenizer *t, tok_work *w, const uint8_t *base, uint32_t word, uint32_t n,
                              tok_word_fn encode);

// ------------------------------------------------------------------------------------------------------- tok_pre.c

/// A value of tokenizer.ggml.pre.
typedef struct pre_row {
    const char *name;
    const char *const *stages; // patterns, NULL-terminated; each splits the pieces of the one before
    unsigned flags;
} pre_row;

enum { PRE_IGNORE_MERGES = 1, PRE_ADD_BOS = 2 };

typedef struct pre_split pre_split;
/// The row of a name, or NULL and *err lists the names.
const pre_row *pre_find(gguf_str name, logitd_error *err);
logitd_status pre_create(const pre_row *row, pre_split **out, logitd_error *err);
void pre_free(pre_split *split);
/// Calls `encode` on each word of text[start, end). Linear in the length.
logitd_status pre_split_words(const pre_split *split, const tokenizer *t, tok_work *w, uint32_t start, uint32_t end,
                              tok_word_fn encode);
void pre_work_free(tok_work *w);

#endif
