#include "ptx_parse.h"

#include <algorithm>

#include "ptx_lex.h"

namespace emu {

Type type_named(const std::string &name) {
    static const std::map<std::string, Type> types = {
        {"pred", Type::PRED},     {"b8", Type::B8},     {"b16", Type::B16},     {"b32", Type::B32},
        {"b64", Type::B64},       {"u8", Type::U8},     {"u16", Type::U16},     {"u32", Type::U32},
        {"u64", Type::U64},       {"s8", Type::S8},     {"s16", Type::S16},     {"s32", Type::S32},
        {"s64", Type::S64},       {"f16", Type::F16},   {"f16x2", Type::F16X2}, {"bf16", Type::BF16},
        {"bf16x2", Type::BF16X2}, {"tf32", Type::TF32}, {"f32", Type::F32},     {"f64", Type::F64},
    };
    auto found = types.find(name);
    return found == types.end() ? Type::NONE : found->second;
}

u32 type_bits(Type type) {
    switch (type) {
    case Type::NONE:
        return 0;
    case Type::PRED:
        return 1;
    case Type::B8:
    case Type::U8:
    case Type::S8:
        return 8;
    case Type::B16:
    case Type::U16:
    case Type::S16:
    case Type::F16:
    case Type::BF16:
        return 16;
    case Type::B64:
    case Type::U64:
    case Type::S64:
    case Type::F64:
        return 64;
    default:
        return 32;
    }
}

namespace {

constexpr u64 VARIABLE_BYTES_MAX = 1ULL << 32; // no device has more constant, shared or local memory

// A brace's names. Labels and registers of an inner scope hide those of the outer ones.
struct Scope {
    u32 parent = 0; // the function's own scope, 0, is its own parent
    std::map<std::string, u32> registers, variables, labels, branch_targets;
};

class Parser {
  public:
    explicit Parser(const std::string &text) : tokens_(ptx_lex(text)) {}

    Module run() {
        while (at().kind != TokenKind::END) top_level();
        module_.n_lines = at().line;
        for (auto &[name, function] : module_.functions) resolve_globals(*function);
        return std::move(module_);
    }

  private:
    // ---- tokens

    const Token &at(size_t ahead = 0) const { return tokens_[std::min(pos_ + ahead, tokens_.size() - 1)]; }
    const Token &take() { return tokens_[pos_ + 1 < tokens_.size() ? pos_++ : pos_]; }
    [[noreturn]] void fail(const std::string &message) const { throw LoadError(at().line, message); }
    static std::string shown(const Token &token) {
        return token.kind == TokenKind::END ? "the end" : "\"" + token.text + "\"";
    }

    bool is(const char *text) const {
        return (at().kind == TokenKind::WORD || at().kind == TokenKind::PUNCTUATION) && at().text == text;
    }
    bool accept(const char *text) {
        if (!is(text)) return false;
        take();
        return true;
    }
    void expect(const char *text) {
        if (!accept(text)) fail(std::string("expected \"") + text + "\" but found " + shown(at()));
    }
    std::string word() {
        if (at().kind != TokenKind::WORD) fail("expected a name but found " + shown(at()));
        return take().text;
    }
    u64 integer() {
        bool minus = accept("-");
        if (at().kind != TokenKind::INTEGER) fail("expected an integer but found " + shown(at()));
        u64 value = take().bits;
        return minus ? -value : value;
    }

    // ---- declarations

    void top_level() {
        while (accept(".visible") || accept(".extern") || accept(".weak") || accept(".common")) {
        }
        if (accept(".version")) {
            take();
        } else if (accept(".target")) {
            target();
        } else if (accept(".address_size")) {
            if (integer() != 64) fail("only 64-bit addresses are supported");
        } else if (accept(".file")) {
            file();
        } else if (accept(".section")) {
            section();
        } else if (is(".entry") || is(".func")) {
            function(take().text == ".entry");
        } else if (is(".global") || is(".const") || is(".shared")) {
            add_global(variable());
            expect(";");
        } else if (!accept(";")) {
            fail(shown(at()) + " is not known here");
        }
    }

    void target() {
        do {
            std::string name = word();
            if (name.rfind("sm_", 0) == 0) module_.target_sm = (u32)strtoul(name.c_str() + 3, nullptr, 10);
        } while (accept(","));
    }

    void file() {
        u32 number = (u32)integer();
        if (at().kind != TokenKind::STRING) fail("expected a file's name");
        module_.files[number] = take().text;
        while (accept(",")) integer(); // time stamp and size
    }

    void section() {
        word();
        expect("{");
        while (!accept("}")) {
            if (at().kind == TokenKind::END) fail("a .section never ends");
            take();
        }
    }

    void add_global(Variable made) {
        module_.variable_index[made.name] = (u32)module_.variables.size();
        module_.variables.push_back(std::move(made));
    }

    // .space [.align N] .type name [dims] [= init]
    Variable variable() {
        static const std::map<std::string, Space> spaces = {{".global", Space::GLOBAL},
                                                            {".const", Space::CONST},
                                                            {".shared", Space::SHARED},
                                                            {".local", Space::LOCAL},
                                                            {".param", Space::PARAM}};
        Variable made;
        made.space = spaces.at(take().text);
        u64 n_elements = 1;
        Type type = Type::NONE;
        for (; at().kind == TokenKind::WORD && at().text[0] == '.'; take()) {
            const std::string &text = at().text;
            if (text == ".align") {
                take();
                made.align = (u32)at().bits;
            } else if (text == ".v2" || text == ".v4") {
                n_elements = (u64)(text[2] - '0');
            } else if (text == ".ptr") { // of a parameter: what it points to, a hint to the compiler
                while (at(1).kind == TokenKind::WORD && at(1).text[0] == '.' && at(1).text != ".align") take();
                if (at(1).text == ".align") pos_ += 2;
            } else if (type_named(text.substr(1)) != Type::NONE) {
                type = type_named(text.substr(1));
            } else {
                fail("\"" + text + "\" is not known in a declaration");
            }
        }
        if (type == Type::NONE) fail("this declaration has no type");
        u32 element_bytes = std::max(1U, type_bits(type) / 8);
        made.name = word();
        while (accept("[")) {
            n_elements *= is("]") ? 0 : integer();
            expect("]");
        }
        if (n_elements > VARIABLE_BYTES_MAX / element_bytes) fail("\"" + made.name + "\" is too large");
        made.bytes = n_elements * element_bytes;
        made.align = std::max(made.align, element_bytes);
        if ((made.align & (made.align - 1)) != 0) fail("the alignment of \"" + made.name + "\" is no power of two");
        if (accept("=")) initialiser(made, element_bytes);
        return made;
    }

    void initialiser(Variable &made, u32 element_bytes) {
        made.has_init = true;
        bool braced = accept("{");
        do {
            if (braced && is("}")) break;
            if (is("{")) { // an inner dimension; rows are whole in what nvcc writes
                initialiser(made, element_bytes);
                continue;
            }
            u64 bits = 0;
            if (at().kind == TokenKind::WORD) {
                made.pointers.emplace_back((u32)made.init.size(), pointer_name());
            } else {
                bool minus = accept("-");
                bits = take().bits;
                if (minus) bits = -bits;
            }
            for (u32 i = 0; i < element_bytes; i++) made.init.push_back((u8)(bits >> (8 * i)));
        } while (accept(","));
        if (braced) expect("}");
        if (made.bytes == 0) made.bytes = made.init.size();
        if (made.init.size() > made.bytes) fail("\"" + made.name + "\" has more initial values than elements");
    }

    std::string pointer_name() {
        std::string name = word();
        if (name != "generic") return name;
        expect("(");
        name = word();
        expect(")");
        return name;
    }

    // ---- functions

    void function(bool is_entry) {
        auto made = std::make_unique<Function>();
        function_ = made.get();
        scopes_.assign(1, {});
        statement_scopes_.clear();
        scope_ = 0;
        made->is_entry = is_entry;
        loc_ = {};
        made->n_results = parameters();
        made->loc.ptx_line = at().line;
        made->name = word();
        made->n_params = parameters();
        directives(*made);
        if (accept(";")) return; // declared only
        expect("{");
        body();
        resolve_labels();
        if (module_.functions.count(made->name)) fail("\"" + made->name + "\" is defined twice");
        module_.functions[made->name] = std::move(made);
    }

    u32 parameters() {
        u32 n = 0;
        if (!accept("(")) return 0;
        while (!accept(")")) {
            if (!is(".param")) fail("expected a .param but found " + shown(at()));
            add_variable(variable());
            n++;
            accept(",");
        }
        return n;
    }

    void directives(Function &made) {
        for (;;) {
            if (is(".maxntid") || is(".reqntid")) {
                take();
                made.max_threads = 1;
                do made.max_threads *= (u32)integer();
                while (accept(","));
            } else if (accept(".minnctapersm") || accept(".maxnreg")) {
                integer();
            } else if (!accept(".noreturn")) {
                if (at().kind == TokenKind::WORD) fail(shown(at()) + " is not known before a function's body");
                return;
            }
        }
    }

    void add_variable(Variable made) {
        scopes_[scope_].variables[made.name] = (u32)function_->variables.size();
        function_->variables.push_back(std::move(made));
    }

    void body() {
        while (!accept("}")) {
            if (at().kind == TokenKind::END) fail("a \"{\" is never closed");
            if (accept("{")) {
                inner_scope();
            } else if (at().kind == TokenKind::WORD && at(1).text == ":" && at(1).kind == TokenKind::PUNCTUATION) {
                label();
            } else if (at().kind == TokenKind::WORD && at().text[0] == '.') {
                directive();
            } else if (!accept(";")) {
                instruction();
            }
        }
    }

    void inner_scope() {
        u32 outer = scope_;
        Scope inner;
        inner.parent = outer;
        scopes_.push_back(inner);
        scope_ = (u32)scopes_.size() - 1;
        body();
        scope_ = outer;
    }

    void label() {
        std::string name = word();
        expect(":");
        if (accept(".branchtargets")) {
            scopes_[scope_].branch_targets[name] = (u32)target_names_.size();
            target_names_.push_back({scope_, {}});
            do target_names_.back().second.push_back(word());
            while (accept(","));
            expect(";");
            return;
        }
        if (!scopes_[scope_].labels.emplace(name, (u32)function_->labels.size()).second)
            fail("the label \"" + name + "\" is defined twice");
        function_->labels.push_back((u32)function_->body.size());
    }

    void directive() {
        if (accept(".loc")) {
            location();
        } else if (accept(".reg")) {
            registers();
        } else if (accept(".pragma")) { // hints to the compiler
            take();
            expect(";");
        } else if (is(".local") || is(".shared") || is(".param")) {
            add_variable(variable());
            expect(";");
        } else {
            fail(shown(at()) + " is not known in a function");
        }
    }

    // .loc file line column [, function_name label[+n], inlined_at file line column]
    void location() {
        loc_ = {};
        loc_.file = (u32)integer();
        loc_.line = (u32)integer();
        integer();
        if (!accept(",")) return;
        expect("function_name");
        word();
        if (accept("+")) integer();
        expect(",");
        expect("inlined_at");
        loc_.at_file = (u32)integer();
        loc_.at_line = (u32)integer();
        integer();
    }

    void registers() {
        std::string type_name = word();
        Type type = type_named(type_name.substr(1));
        if (type == Type::NONE) fail("registers of type \"" + type_name + "\" are not supported");
        do {
            std::string name = word();
            if (accept("<")) {
                u64 n = integer();
                expect(">");
                if (n > 1 << 20) fail("too many registers");
                for (u64 i = 0; i < n; i++) add_register(name + std::to_string(i), type);
            } else {
                add_register(name, type);
            }
        } while (accept(","));
        expect(";");
    }

    void add_register(const std::string &name, Type type) {
        scopes_[scope_].registers[name] = (u32)function_->registers.size();
        function_->registers.push_back(type);
    }

    // ---- instructions

    void instruction() {
        Statement made;
        made.loc = loc_;
        made.loc.ptx_line = at().line;
        if (accept("@")) {
            made.guarded = true;
            made.guard_negated = accept("!");
            Operand guard = named_operand();
            if (guard.kind != OperandKind::REG || function_->registers[guard.index] != Type::PRED)
                fail("a guard must be a predicate register");
            made.guard = guard.index;
        }
        made.opcode = word();
        if (made.opcode.rfind("call", 0) == 0) {
            call_operands(made);
        } else if (!is(";")) {
            do {
                made.operands.push_back(operand());
                if (accept("|")) made.operands.push_back(operand()); // setp's and shfl's second result
            } while (accept(","));
        }
        expect(";");
        function_->body.push_back(std::move(made));
        statement_scopes_.push_back(scope_);
    }

    // call [(results),] name [, (arguments)]
    void call_operands(Statement &made) {
        Operand results = argument_list();
        if (!results.elements.empty()) expect(",");
        Operand callee;
        callee.kind = OperandKind::NAME;
        callee.name = word();
        Operand arguments;
        if (accept(",")) arguments = argument_list();
        if (accept(",")) fail("calls through a pointer are not supported");
        made.operands = {results, callee, arguments};
    }

    Operand argument_list() {
        Operand list;
        list.kind = OperandKind::VECTOR;
        if (!accept("(")) return list;
        while (!accept(")")) {
            list.elements.push_back(operand());
            accept(",");
        }
        return list;
    }

    Operand operand() {
        if (accept("{")) {
            Operand made;
            made.kind = OperandKind::VECTOR;
            do made.elements.push_back(operand());
            while (accept(","));
            expect("}");
            return made;
        }
        if (accept("[")) {
            Operand made = is_literal() ? literal() : named_operand();
            if (made.kind == OperandKind::IMM) made.offset = (i64)made.imm;
            made.in_brackets = true;
            if (accept("+")) made.offset += (i64)integer();
            expect("]");
            return made;
        }
        if (accept("!")) {
            Operand made = named_operand();
            made.negated = true;
            return made;
        }
        if (is_literal()) return literal();
        Operand made = named_operand();
        if ((made.kind == OperandKind::VARIABLE || made.kind == OperandKind::NAME) && accept("+"))
            made.offset = (i64)integer();
        return made;
    }

    bool is_literal() const {
        return is("-") || at().kind == TokenKind::INTEGER || at().kind == TokenKind::FLOAT32 ||
               at().kind == TokenKind::FLOAT64;
    }

    Operand literal() {
        Operand made;
        made.kind = OperandKind::IMM;
        bool minus = accept("-");
        const Token &token = take();
        made.imm = token.bits;
        switch (token.kind) {
        case TokenKind::INTEGER:
            if (minus) made.imm = -made.imm;
            break;
        case TokenKind::FLOAT32:
            made.imm_type = Type::F32;
            if (minus) made.imm ^= 1U << 31;
            break;
        case TokenKind::FLOAT64:
            made.imm_type = Type::F64;
            if (minus) made.imm ^= 1ULL << 63;
            break;
        default:
            fail("expected a number after \"-\"");
        }
        return made;
    }

    Operand named_operand() {
        Operand made;
        made.name = word();
        if (made.name == "_") return made;
        for (u32 scope = scope_;; scope = scopes_[scope].parent) {
            if (find(scopes_[scope].registers, made, OperandKind::REG)) return made;
            if (find(scopes_[scope].variables, made, OperandKind::VARIABLE)) return made;
            if (scope == 0) break;
        }
        made.kind = made.name[0] == '%' ? OperandKind::SPECIAL : OperandKind::NAME; // a label or a module's variable
        return made;
    }

    static bool find(const std::map<std::string, u32> &names, Operand &made, OperandKind kind) {
        auto found = names.find(made.name);
        if (found == names.end()) return false;
        made.kind = kind;
        made.index = found->second;
        return true;
    }

    // ---- names that may be used before they are defined

    void resolve_labels() {
        for (size_t i = 0; i < function_->body.size(); i++) {
            Statement &statement = function_->body[i];
            bool is_branch = statement.opcode.rfind("bra", 0) == 0, is_table = statement.opcode.rfind("brx", 0) == 0;
            for (Operand &operand : statement.operands) {
                if (operand.kind != OperandKind::NAME || !(is_branch || is_table)) continue;
                operand.kind = OperandKind::LABEL;
                auto names = is_branch ? &Scope::labels : &Scope::branch_targets;
                operand.index = lookup(names, operand.name, statement_scopes_[i], statement.loc.ptx_line);
            }
        }
        for (auto &[scope, names] : target_names_) {
            std::vector<u32> targets;
            for (auto &name : names) targets.push_back(lookup(&Scope::labels, name, scope, function_->loc.ptx_line));
            function_->branch_targets.push_back(targets);
        }
        target_names_.clear();
    }

    u32 lookup(std::map<std::string, u32> Scope::*names, const std::string &name, u32 scope, u32 line) const {
        for (;; scope = scopes_[scope].parent) {
            auto found = (scopes_[scope].*names).find(name);
            if (found != (scopes_[scope].*names).end()) return found->second;
            if (scope == 0) throw LoadError(line, "there is no label \"" + name + "\"");
        }
    }

    void resolve_globals(Function &function) {
        for (Statement &statement : function.body)
            for (Operand &operand : statement.operands) {
                if (operand.kind != OperandKind::NAME || statement.opcode.rfind("call", 0) == 0) continue;
                auto found = module_.variable_index.find(operand.name);
                if (found == module_.variable_index.end())
                    throw LoadError(statement.loc.ptx_line, "\"" + operand.name + "\" is not defined");
                operand.kind = OperandKind::GLOBAL_VARIABLE;
                operand.index = found->second;
            }
    }

    std::vector<Token> tokens_;
    size_t pos_ = 0;
    Module module_;
    Function *function_ = nullptr;
    std::vector<Scope> scopes_;
    std::vector<u32> statement_scopes_; // beside function_->body
    std::vector<std::pair<u32, std::vector<std::string>>> target_names_;
    u32 scope_ = 0;
    Loc loc_;
};

} // namespace

Module ptx_parse(const std::string &text) {
    return Parser(text).run();
}

} // namespace emu
