// PTX text → tokens. A word keeps its dots: "ld.global.u32", "%tid.x", ".reg" and "L2::128B" are one token each.
#pragma once

#include <string>
#include <vector>

#include "types.h"

namespace emu {

enum class TokenKind : u8 { WORD, INTEGER, FLOAT32, FLOAT64, STRING, PUNCTUATION, END };

struct Token {
    TokenKind kind = TokenKind::END;
    std::string text; // WORD, STRING (without quotes), PUNCTUATION (one character)
    u64 bits = 0;     // INTEGER, FLOAT32, FLOAT64
    u32 line = 0;
};

// The last token is END. Throws LoadError at a character or number that PTX does not have.
std::vector<Token> ptx_lex(const std::string &text);

} // namespace emu
