/*
 * tok_merge.c: the merge loop of both models, and the cache of words. A word of n bytes takes O(n log n): its symbols
 * are a linked list, and a heap holds, for each symbol that merges with the next one, the rank of that merge.
 */
#include "tok_impl.h"

#include <stdlib.h>

#define CACHED_WORD_BYTES 64 // and no more ids; longer words seldom come twice

logitd_status tok_reserve_word(tok_work *w, uint32_t n) {
    if (n <= w->word_cap) return LOGITD_OK;
    size_t cap = MAX((size_t)n, 256);
    free(w->symbols);
    free(w->heap.keys);
    // A merge takes one entry from the heap and puts at most two back, and there are fewer merges than bytes.
    w->symbols = malloc(cap * sizeof *w->symbols);
    w->heap.keys = malloc(cap * 2 * sizeof *w->heap.keys);
    w->word_cap = w->symbols && w->heap.keys ? cap : 0;
    return w->word_cap ? LOGITD_OK : tok_no_memory(w->err);
}

/// Looks up what the pair that starts at `left` merges into. Entries of the heap with another rank are out of date now.
static inline void update(const tokenizer *t, tok_work *w, const uint8_t *word, uint32_t n, uint32_t left,
                          tok_pair_fn find) {
    merge_symbol *s = &w->symbols[left];
    tok_pair pair = s->next < n ? find(t, word, w->symbols, left, s->next) : (tok_pair){TOK_NO_MERGE, -1};
    s->rank = pair.rank;
    s->merged_id = pair.id;
    if (pair.rank != TOK_NO_MERGE) tok_heap_push(&w->heap, (uint64_t)pair.rank << 32 | left);
}

void tok_merge(const tokenizer *t, tok_work *w, const uint8_t *word, uint32_t n, tok_pair_fn find) {
    merge_symbol *symbols = w->symbols;
    w->heap.n = 0;
    for (uint32_t i = 0; i < n; i = symbols[i].next) update(t, w, word, n, i, find);
    while (w->heap.n) {
        uint64_t key = tok_heap_pop(&w->heap);
        uint32_t left = (uint32_t)key, right = symbols[left].next;
        if (symbols[left].rank != (uint32_t)(key >> 32)) continue;
        symbols[left].id = symbols[left].merged_id;
        symbols[left].next = symbols[right].next;
        symbols[right].rank = TOK_NO_MERGE; // it is no more
        if (symbols[left].next < n) symbols[symbols[left].next].prev = left;
        update(t, w, word, n, left, find);
        if (left > 0) update(t, w, word, n, symbols[left].prev, find);
    }
}

// ----------------------------------------------------------------------------------------------------- word cache

/// A table of a power of two of words for a text of n bytes; without memory there is no cache.
static void cache_create(tok_work *w) {
    size_t n_slots = 64;
    while (n_slots < 16384 && n_slots < w->n_bytes / 8) n_slots *= 2;
    w->words = mem_alloc(n_slots, sizeof *w->words);
    w->word_mask = n_slots - 1;
}

logitd_status tok_encode_word(const tokenizer *t, tok_work *w, const uint8_t *base, uint32_t word, uint32_t n,
                              tok_word_fn encode) {
    token_vec *out = w->out;
    if (!w->words) cache_create(w);
    if (n > CACHED_WORD_BYTES || !w->words) return encode(t, w, base + word, n);
    word_slot *slot = &w->words[tok_hash(base + word, n) & w->word_mask];
    logitd_status status = LOGITD_OK;
    if (slot->len == n && tok_equal(base + slot->word, base + word, n)) {
        size_t at = w->out_start + slot->ids_at;
        for (size_t i = 0; i < slot->n_ids && !status; i++) status = tok_push(w, out->ids[at + i]);
        return status;
    }
    size_t first = out->n;
    status = encode(t, w, base + word, n);
    *slot = (word_slot){word, (uint32_t)(first - w->out_start), (uint8_t)n, (uint8_t)(out->n - first)};
    return status;
}
