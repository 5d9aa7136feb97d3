#include "ptx_lex.h"

#include <cctype>
#include <cstdlib>

namespace emu {

namespace {

class Lexer {
  public:
    explicit Lexer(const std::string &text) : text_(text) {}

    std::vector<Token> run() {
        std::vector<Token> tokens;
        tokens.reserve(text_.size() / 4);
        for (;;) {
            skip_space_and_comments();
            Token token = at_end() ? Token{} : next();
            token.line = line_;
            tokens.push_back(token);
            if (token.kind == TokenKind::END) return tokens;
        }
    }

  private:
    bool at_end() const { return pos_ >= text_.size(); }
    char peek(size_t ahead = 0) const { return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : '\0'; }
    static bool is_start(char c) { return isalpha((u8)c) || c == '_' || c == '$' || c == '%'; }
    static bool is_inside(char c) { return isalnum((u8)c) || c == '_' || c == '$'; }

    void skip_space_and_comments() {
        while (!at_end()) {
            if (peek() == '\n') line_++;
            if (isspace((u8)peek())) {
                pos_++;
            } else if (peek() == '/' && peek(1) == '/') {
                while (!at_end() && peek() != '\n') pos_++;
            } else if (peek() == '/' && peek(1) == '*') {
                skip_block_comment();
            } else {
                return;
            }
        }
    }

    void skip_block_comment() {
        u32 start = line_;
        for (pos_ += 2; !(peek() == '*' && peek(1) == '/'); pos_++) {
            if (at_end()) throw LoadError(start, "a comment that starts here never ends");
            if (peek() == '\n') line_++;
        }
        pos_ += 2;
    }

    Token next() {
        char c = peek();
        if (is_start(c) || (c == '.' && is_start(peek(1)))) return word();
        if (isdigit((u8)c)) return number();
        if (c == '"') return string();
        if (strchr("{}[]()<>,;:+-@!=|&*~", c) == nullptr)
            throw LoadError(line_, std::string("the character '") + c + "' is not PTX");
        pos_++;
        return {TokenKind::PUNCTUATION, std::string(1, c), 0, line_};
    }

    Token word() {
        if (peek() == '_' && !is_inside(peek(1))) {
            pos_++;
            return {TokenKind::WORD, "_", 0, line_};
        }
        size_t start = pos_++;
        for (;;) {
            if (is_inside(peek())) {
                pos_++;
            } else if (peek() == '.' && is_inside(peek(1))) {
                pos_++;
            } else if (peek() == ':' && peek(1) == ':' && is_inside(peek(2))) {
                pos_ += 2;
            } else {
                return {TokenKind::WORD, text_.substr(start, pos_ - start), 0, line_};
            }
        }
    }

    // 12, 0x1f, 017, 0b101, each with U allowed; 0f3F800000 and 0d…: bits; 1.5: a double.
    Token number() {
        size_t start = pos_;
        char kind = (char)tolower(peek() == '0' ? peek(1) : '\0');
        if (kind == 'f' || kind == 'd') return float_bits(kind == 'f' ? 8 : 16);
        while (isalnum((u8)peek()) || peek() == '.' || ((peek() == '-' || peek() == '+') && is_exponent(start))) pos_++;
        std::string digits = text_.substr(start, pos_ - start);
        const char *begin = digits.c_str();
        char *end = nullptr;
        if (digits.find('.') != std::string::npos) {
            double value = strtod(begin, &end);
            if (*end) throw LoadError(line_, "\"" + digits + "\" is not a number");
            return {TokenKind::FLOAT64, "", bits_as<u64>(value), line_};
        }
        u64 value = kind == 'b' ? strtoull(begin + 2, &end, 2) : strtoull(begin, &end, 0);
        if (*end == 'U') end++;
        if (*end) throw LoadError(line_, "\"" + digits + "\" is not a number");
        return {TokenKind::INTEGER, digits, value, line_};
    }

    bool is_exponent(size_t start) const {
        return tolower(text_[pos_ - 1]) == 'e' && text_.compare(start, 2, "0x") != 0 &&
               text_.substr(start, pos_ - start).find('.') != std::string::npos;
    }

    Token float_bits(size_t n_digits) {
        std::string digits = text_.substr(pos_ + 2, n_digits);
        pos_ += 2 + n_digits;
        char *end = nullptr;
        u64 value = strtoull(digits.c_str(), &end, 16);
        if (*end || digits.size() != n_digits || is_inside(peek()))
            throw LoadError(line_,
                            "a floating literal needs exactly " + std::to_string(n_digits) + " hexadecimal digits");
        return {n_digits == 8 ? TokenKind::FLOAT32 : TokenKind::FLOAT64, "", value, line_};
    }

    Token string() {
        size_t start = ++pos_;
        while (peek() != '"') {
            if (at_end() || peek() == '\n') throw LoadError(line_, "a string that starts here never ends");
            pos_++;
        }
        return {TokenKind::STRING, text_.substr(start, pos_++ - start), 0, line_};
    }

    const std::string &text_;
    size_t pos_ = 0;
    u32 line_ = 1;
};

} // namespace

std::vector<Token> ptx_lex(const std::string &text) {
    return Lexer(text).run();
}

} // namespace emu
