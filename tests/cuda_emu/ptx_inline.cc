#include "ptx_inline.h"

#include <algorithm>

namespace emu {

namespace {

constexpr size_t STATEMENTS_MAX = 1 << 20;
constexpr u32 DEPTH_MAX = 32;

class Inliner {
  public:
    explicit Inliner(const Module &module) : module_(module) {}

    Function run(const Function &entry) {
        made_ = entry;
        made_.body.clear();
        std::fill(made_.labels.begin(), made_.labels.end(), 0U);
        Frame frame;
        frame.is_entry = true;
        for (u32 i = 0; i < entry.variables.size(); i++) frame.variables.push_back(i);
        // Space .param means a kernel's parameter from here on; those of calls are in the frame.
        for (u32 i = entry.n_params; i < made_.variables.size(); i++)
            if (made_.variables[i].space == Space::PARAM) made_.variables[i].space = Space::LOCAL;
        append(entry, frame, 0);
        return std::move(made_);
    }

  private:
    // How a function's numbers become the result's.
    struct Frame {
        bool is_entry = false;
        u32 first_register = 0, first_label = 0, first_targets = 0;
        u32 end_label = 0; // where ret goes
        std::vector<u32> variables;
    };

    void append(const Function &from, const Frame &frame, u32 depth) {
        if (depth > DEPTH_MAX)
            throw LoadError(from.loc.ptx_line, "calls nest deeper than 32: recursion is not supported");
        std::vector<u32> position; // by statement of `from`
        for (const Statement &statement : from.body) {
            position.push_back((u32)made_.body.size());
            if (made_.body.size() > STATEMENTS_MAX)
                throw LoadError(statement.loc.ptx_line, "the kernel with all its calls is too large");
            const Function *callee = callee_of(statement);
            if (callee)
                call(*callee, statement, frame, depth);
            else
                made_.body.push_back(translated(statement, frame));
        }
        position.push_back((u32)made_.body.size());
        for (size_t i = 0; i < from.labels.size(); i++) made_.labels[frame.first_label + i] = position[from.labels[i]];
    }

    const Function *callee_of(const Statement &statement) const {
        if (statement.opcode.rfind("call", 0) != 0) return nullptr;
        auto found = module_.functions.find(statement.operands[1].name);
        return found == module_.functions.end() ? nullptr : found->second.get();
    }

    void call(const Function &callee, const Statement &statement, const Frame &outer, u32 depth) {
        if (statement.guarded) throw LoadError(statement.loc.ptx_line, "a guarded call is not supported");
        Frame inner;
        inner.first_register = (u32)made_.registers.size();
        made_.registers.insert(made_.registers.end(), callee.registers.begin(), callee.registers.end());
        inner.first_targets = (u32)made_.branch_targets.size();
        inner.first_label = (u32)made_.labels.size();
        made_.labels.resize(made_.labels.size() + callee.labels.size() + 1);
        inner.end_label = (u32)made_.labels.size() - 1;
        for (auto targets : callee.branch_targets) {
            for (u32 &label : targets) label += inner.first_label;
            made_.branch_targets.push_back(targets);
        }
        bind_variables(callee, statement, outer, inner);
        append(callee, inner, depth + 1);
        made_.labels[inner.end_label] = (u32)made_.body.size();
    }

    // Parameters are the caller's variables; the callee's own are new.
    void bind_variables(const Function &callee, const Statement &statement, const Frame &outer, Frame &inner) {
        std::vector<Operand> actual = statement.operands[0].elements;
        actual.insert(actual.end(), statement.operands[2].elements.begin(), statement.operands[2].elements.end());
        u32 n_formal = callee.n_results + callee.n_params;
        if (actual.size() != n_formal)
            throw LoadError(statement.loc.ptx_line, "the call has another number of arguments than the function");
        for (u32 i = 0; i < callee.variables.size(); i++) {
            if (i < n_formal) {
                if (actual[i].kind != OperandKind::VARIABLE)
                    throw LoadError(statement.loc.ptx_line, "an argument must be a .param variable");
                inner.variables.push_back(outer.variables[actual[i].index]);
                continue;
            }
            Variable own = callee.variables[i];
            if (own.space == Space::PARAM) own.space = Space::LOCAL;
            inner.variables.push_back((u32)made_.variables.size());
            made_.variables.push_back(own);
        }
    }

    Statement translated(Statement statement, const Frame &frame) const {
        statement.guard += frame.first_register;
        for (Operand &operand : statement.operands) translate(operand, frame, statement);
        bool is_return = statement.opcode == "ret" || statement.opcode == "ret.uni";
        if (is_return && !frame.is_entry) {
            Operand end;
            end.kind = OperandKind::LABEL;
            end.index = frame.end_label;
            statement.opcode = "bra";
            statement.operands = {end};
        }
        return statement;
    }

    static void translate(Operand &operand, const Frame &frame, const Statement &statement) {
        for (Operand &element : operand.elements) translate(element, frame, statement);
        if (operand.kind == OperandKind::REG) operand.index += frame.first_register;
        if (operand.kind == OperandKind::VARIABLE) operand.index = frame.variables[operand.index];
        if (operand.kind == OperandKind::LABEL)
            operand.index += statement.opcode.rfind("brx", 0) == 0 ? frame.first_targets : frame.first_label;
    }

    const Module &module_;
    Function made_;
};

} // namespace

Function ptx_inline(const Module &module, const Function &entry) {
    return Inliner(module).run(entry);
}

} // namespace emu
