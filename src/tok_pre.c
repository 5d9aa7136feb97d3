/*
 * tok_pre.c: the pre-split patterns of byte-level BPE and the splitting itself; the only user of PCRE2.
 *
 * The patterns are those of llama.cpp (src/llama-vocab.cpp), with which files are made and ids compared; where its
 * reading of a pattern differs from the model's own, llama.cpp's stands here ('s in lower and upper ASCII letters
 * only). Repeats are possessive where backing off could not help, so a text takes linear time and no stack.
 *
 * Classes are spelled out: `a-zA-Z0-9` first, since PCRE2 looks plain ranges up in a bitmap, then the property of
 * PCRE2's own Unicode version (14 in 10.42), then what Unicode 15.1 added to it.
 */
#include "tok_impl.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define SPACE "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define LETTER                                                                                                         \
    "a-zA-Z\\p{L}\\x{1123F}\\x{11240}\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}\\x{1342F}"                   \
    "\\x{13441}-\\x{13446}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}"         \
    "\\x{2B739}\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"
#define NUMBER "0-9\\p{N}\\x{11F50}-\\x{11F59}\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}"
#define MARK                                                                                                           \
    "\\p{M}\\x{CF3}\\x{ECE}\\x{10EFD}-\\x{10EFF}\\x{11241}\\x{11F00}\\x{11F01}\\x{11F03}\\x{11F34}-\\x{11F3A}"         \
    "\\x{11F3E}-\\x{11F42}\\x{13440}\\x{13447}-\\x{13455}\\x{1E08F}\\x{1E4EC}-\\x{1E4EF}"
#define PUNCT "!-#%-*,-/:;?@\\[-\\]_{}\\p{P}\\x{11B00}-\\x{11B09}\\x{11F43}-\\x{11F4F}"
#define SYMBOL                                                                                                         \
    "$+<=>^`|~\\p{S}\\x{2FFC}-\\x{2FFF}\\x{31EF}\\x{1F6DC}\\x{1F774}-\\x{1F776}\\x{1F77B}-\\x{1F77F}\\x{1F7D9}"        \
    "\\x{1FA75}-\\x{1FA77}\\x{1FA87}\\x{1FA88}\\x{1FAAD}-\\x{1FAAF}\\x{1FABB}-\\x{1FABD}\\x{1FABF}\\x{1FACE}"          \
    "\\x{1FACF}\\x{1FADA}\\x{1FADB}\\x{1FAE8}\\x{1FAF7}\\x{1FAF8}"

// Spaces: a run leaves its last one to the word that follows.
#define SPACE_RUN  "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]++"
#define LINE_ENDS  "[" SPACE "]*[\\r\\n]++"
#define APOSTROPHE "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
#define OTHERS     " ?[^" SPACE LETTER NUMBER "]++"
#define WORD       "[^\\r\\n" LETTER NUMBER "]?[" LETTER "]++"

#define GPT2            "'(?:[sdmt]|ll|ve|re)| ?[" LETTER "]++| ?[" NUMBER "]++|" OTHERS "|" SPACE_RUN
#define LLAMA3(numbers) APOSTROPHE "|" WORD "|" numbers "|" OTHERS "[\\r\\n]*+|" LINE_ENDS "|" SPACE_RUN

// llama.cpp's stand-ins for upper and lower case: letters but a-z, letters but A-Z. (No class can be the difference of
// what 15.1 added, so these know only PCRE2's own letters.)
#define UPPER  "[^\\P{L}a-z]"
#define LOWER  "[^\\P{L}A-Z]"
#define PREFIX "[^\\r\\n" LETTER NUMBER "]?"
#define CASED(ending, numbers)                                                                                         \
    PREFIX UPPER "*" LOWER "++" ending "|" PREFIX UPPER "++" LOWER "*+" ending "|" numbers "|" OTHERS                  \
                 "[\\r\\n/]*+|" LINE_ENDS "|" SPACE_RUN

#define ASCII_PUNCT "!-/:-@\\[-`{-~"
#define HAN_KANA    "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]++"
// Of U+0800 to U+4E00 without the spaces, which a range never matches in llama.cpp.
#define HAN_HANGUL                                                                                                     \
    "[\\x{4E00}-\\x{9FA5}\\x{AC00}-\\x{D7FF}\\x{800}-\\x{167F}\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}"                  \
    "\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{4E00}]++"

#define DEEPSEEK_LETTERS                                                                                               \
    "[A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"                   \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}"             \
    "\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}"                    \
    "\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"                  \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}"                  \
    "\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}"          \
    "\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}"         \
    "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                   \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}"                    \
    "\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}"                    \
    "\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}"                   \
    "\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}"                  \
    "\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"                \
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}"        \
    "\\x{1E900}-\\x{1E943}]++"

// Each stage splits the pieces of the one before; what it does not match stays a piece.
static const char *const gpt2[] = {GPT2, NULL};
static const char *const digits_gpt2[] = {"[" NUMBER "]", GPT2, NULL};
static const char *const punct_gpt2[] = {"[" PUNCT "$+<=>^~|]++", GPT2, "[" NUMBER "]++", "[0-9][0-9][0-9]", NULL};
static const char *const falcon[] = {"[" PUNCT "$+<=>^~|`]++", GPT2, "[0-9][0-9][0-9]", NULL};
static const char *const llama3[] = {LLAMA3("[" NUMBER "]{1,3}+"), NULL};
static const char *const qwen2[] = {LLAMA3("[" NUMBER "]"), NULL};
static const char *const qwen35[] = {APOSTROPHE "|" PREFIX "[" LETTER MARK "]++|[" NUMBER
                                                "]| ?[^" SPACE LETTER MARK NUMBER "]++[\\r\\n]*+|" LINE_ENDS
                                                "|" SPACE_RUN,
                                     NULL};
static const char *const seed_coder[] = {APOSTROPHE "|" WORD "|[" NUMBER "]|" OTHERS "|" LINE_ENDS "|" SPACE_RUN, NULL};
static const char *const bailing[] = {
    APOSTROPHE "|" WORD "|[" NUMBER "]|" OTHERS "[\\r\\n]*+|[" SPACE "]*[\\r\\n]|" SPACE_RUN, NULL};
static const char *const tekken[] = {CASED("", "[" NUMBER "]"), NULL};
static const char *const gpt4o[] = {CASED("(?:" APOSTROPHE ")?+", "[" NUMBER "]{1,3}+"), NULL};
static const char *const deepseek_llm[] = {
    "[\\r\\n]",
    "[" SPACE "]?" DEEPSEEK_LETTERS,
    "[" SPACE "]?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3001}\\x{3002}]++",
    "[" SPACE "]++\\z",
    HAN_HANGUL,
    "[" NUMBER "]++",
    NULL};
static const char *const deepseek_coder[] = {
    "[\\r\\n]", "[" SPACE "]?[" LETTER "]++", "[" SPACE "]?[" PUNCT "]++", HAN_HANGUL, "[" NUMBER "]", NULL};
static const char *const deepseek3[] = {"[" NUMBER "]{1,3}+", HAN_KANA,
                                        "[" ASCII_PUNCT "][A-Za-z]++|[^\\r\\n" LETTER PUNCT SYMBOL "]?[" LETTER MARK
                                        "]++| ?[" PUNCT SYMBOL "]++[\\r\\n]*+|" LINE_ENDS "|" SPACE_RUN,
                                        NULL};
static const char *const poro[] = {" ?[^(" SPACE "|.,!?…。，、।۔،)]++", NULL};
static const char *const viking[] = {" ?[^(" SPACE "|.,!?…。，、।۔،)]++", "[" NUMBER "]", NULL};

static const pre_row pre_rows[] = {
    {"default", punct_gpt2, 0},
    {"gpt-2", gpt2, 0},
    {"phi-2", gpt2, 0},
    {"mpt", gpt2, 0},
    {"olmo", gpt2, 0},
    {"jais", gpt2, 0},
    {"exaone4", gpt2, 0},
    {"trillion", gpt2, 0},
    {"smollm", digits_gpt2, 0},
    {"starcoder", digits_gpt2, 0},
    {"refact", digits_gpt2, 0},
    {"command-r", digits_gpt2, 0},
    {"codeshell", digits_gpt2, 0},
    {"exaone", digits_gpt2, 0},
    {"minerva-7b", digits_gpt2, 0},
    {"llama-bpe", llama3, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"llama3", llama3, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"falcon3", llama3, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"lfm2", llama3, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"dbrx", llama3, 0},
    {"smaug-bpe", llama3, 0},
    {"chatglm-bpe", llama3, 0},
    {"glm4", llama3, PRE_IGNORE_MERGES},
    {"qwen2", qwen2, 0},
    {"deepseek-r1-qwen", qwen2, 0},
    {"stablelm2", qwen2, 0},
    {"hunyuan", qwen2, 0},
    {"megrez", qwen2, 0},
    {"grok-2", qwen2, 0},
    {"qwen35", qwen35, 0},
    {"seed-coder", seed_coder, 0},
    {"bailingmoe", bailing, 0},
    {"tekken", tekken, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"gpt-4o", gpt4o, 0},
    {"llama4", gpt4o, 0},
    {"deepseek-llm", deepseek_llm, 0},
    {"deepseek-coder", deepseek_coder, 0},
    {"deepseek-v3", deepseek3, 0},
    {"falcon", falcon, 0},
    {"poro-chat", poro, 0},
    {"bloom", poro, 0},
    {"viking", viking, 0},
};

const pre_row *pre_find(gguf_str name, logitd_error *err) {
    for (size_t i = 0; i < ARRAY_LEN(pre_rows); i++) {
        if (gguf_str_is(name, pre_rows[i].name)) return &pre_rows[i];
    }
    buffer names = {0};
    for (size_t i = 0; i < ARRAY_LEN(pre_rows); i++) buffer_printf(&names, i ? ", %s" : "%s", pre_rows[i].name);
    error_set(err, LOGITD_EFORMAT, "tokenizer.ggml.pre is \"%s\"; supported: %s", gguf_show(name).text,
              names.data ? names.data : "");
    buffer_free(&names);
    return NULL;
}

// --------------------------------------------------------------------------------------------------------- compile

#define MAX_STAGES 8

struct pre_split {
    pcre2_code *stages[MAX_STAGES];
    int n_stages;
};

static logitd_status pcre_failed(logitd_error *err, logitd_status status, const char *what, int code) {
    PCRE2_UCHAR message[128] = "";
    pcre2_get_error_message(code, message, sizeof message);
    return error_set(err, status, "%s: %s", what, (const char *)message);
}

logitd_status pre_create(const pre_row *row, pre_split **out, logitd_error *err) {
    pre_split *split = *out = mem_alloc(1, sizeof *split);
    if (!split) return tok_no_memory(err);
    for (; row->stages[split->n_stages]; split->n_stages++) {
        ASSERT(split->n_stages < MAX_STAGES);
        int code;
        PCRE2_SIZE at;
        pcre2_code *stage =
            pcre2_compile((PCRE2_SPTR)row->stages[split->n_stages], PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
        if (!stage) return pcre_failed(err, LOGITD_EFORMAT, "PCRE2 refused a pre-split pattern", code);
        pcre2_jit_compile(stage, PCRE2_JIT_COMPLETE); // where it cannot, pcre2_match interprets
        split->stages[split->n_stages] = stage;
    }
    return LOGITD_OK;
}

void pre_free(pre_split *split) {
    if (!split) return;
    for (int i = 0; i < split->n_stages; i++) pcre2_code_free(split->stages[i]);
    mem_free(split);
}

// ----------------------------------------------------------------------------------------------------------- split

typedef struct pre_run {
    const pre_split *split;
    const tokenizer *t;
    tok_work *w;
    tok_word_fn encode;
} pre_run;

/// Splits the piece text[start, end) by the stages from `stage` on. A piece's end is the end of the text to a pattern.
static logitd_status run_stage(const pre_run *run, int stage, uint32_t start, uint32_t end) {
    tok_work *w = run->w;
    if (start == end) return LOGITD_OK;
    if (stage == run->split->n_stages) return tok_encode_word(run->t, w, w->text, start, end - start, run->encode);
    logitd_status status = LOGITD_OK;
    while (start < end && !status) {
        int rc = pcre2_match(run->split->stages[stage], w->text, end, start, PCRE2_NO_UTF_CHECK, w->match_data, NULL);
        if (rc == PCRE2_ERROR_NOMATCH) return run_stage(run, stage + 1, start, end);
        if (rc < 0) return pcre_failed(w->err, LOGITD_ETOOLARGE, "the text cannot be split into words", rc);
        const PCRE2_SIZE *match = pcre2_get_ovector_pointer(w->match_data);
        uint32_t from = (uint32_t)match[0], to = (uint32_t)match[1];
        ASSERT(to > from); // no pattern matches nothing
        status = run_stage(run, stage + 1, start, from);
        if (!status) status = run_stage(run, stage + 1, from, to);
        start = to;
    }
    return status;
}

logitd_status pre_split_words(const pre_split *split, const tokenizer *t, tok_work *w, uint32_t start, uint32_t end,
                              tok_word_fn encode) {
    if (!w->match_data) w->match_data = pcre2_match_data_create(1, NULL);
    if (!w->match_data) return tok_no_memory(w->err);
    return run_stage(&(pre_run){split, t, w, encode}, 0, start, end);
}

void pre_work_free(tok_work *w) {
    pcre2_match_data_free(w->match_data);
}
