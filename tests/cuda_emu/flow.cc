#include "flow.h"

#include <algorithm>

namespace emu {

namespace {

bool starts_with(const std::string &text, const char *prefix) {
    return text.rfind(prefix, 0) == 0;
}
bool is_branch(const Statement &statement) {
    return starts_with(statement.opcode, "bra") || starts_with(statement.opcode, "brx");
}
bool is_exit(const Statement &statement) {
    return statement.opcode == "ret" || statement.opcode == "exit" || starts_with(statement.opcode, "ret.");
}

std::vector<u32> targets_of(const Function &function, const Statement &statement) {
    std::vector<u32> targets;
    if (starts_with(statement.opcode, "brx"))
        for (u32 label : function.branch_targets[statement.operands.at(1).index])
            targets.push_back(function.labels[label]);
    else
        targets.push_back(function.labels[statement.operands.at(0).index]);
    return targets;
}

void split_into_blocks(Flow &flow, const Function &function) {
    u32 n = (u32)function.body.size();
    std::vector<bool> leads(n + 1, false);
    leads[0] = true;
    for (u32 i = 0; i < n; i++) {
        const Statement &statement = function.body[i];
        if (!is_branch(statement) && !is_exit(statement)) continue;
        leads[i + 1] = true;
        if (is_branch(statement))
            for (u32 target : targets_of(function, statement)) {
                if (target >= n)
                    throw LoadError(statement.loc.ptx_line,
                                    "a branch leads to the end of the function, where no ret is");
                leads[target] = true;
            }
    }
    for (u32 i = 0; i < n; i++) {
        if (leads[i]) flow.blocks.push_back({i, i, {}, false, NOWHERE, false});
        flow.blocks.back().last = i;
        flow.block_of.push_back((u32)flow.blocks.size() - 1);
    }
}

void connect_blocks(Flow &flow, const Function &function) {
    for (u32 b = 0; b < flow.blocks.size(); b++) {
        Flow::BasicBlock &block = flow.blocks[b];
        const Statement &last = function.body[block.last];
        if (is_branch(last))
            for (u32 target : targets_of(function, last)) block.next.push_back(flow.block_of[target]);
        if (is_exit(last)) block.falls_out = true;
        if (last.guarded || (!is_branch(last) && !is_exit(last) && last.opcode != "trap")) {
            if (b + 1 == flow.blocks.size())
                throw LoadError(last.loc.ptx_line, "the function's end can be reached without a ret");
            block.next.push_back(b + 1);
        }
    }
}

// Immediate post-dominators (Cooper, Harvey, Kennedy: A Simple, Fast Dominance Algorithm), with all exits joined in one
// node. An early way out, as of `if (i >= n) return`, is left out of the graph: lanes that exit are no reason for the
// others to go their ways apart. The way out of a loop is not early, and what else the exit can be reached by stays.
class PostDominators {
  public:
    explicit PostDominators(Flow &flow, const Function &function) : flow_(flow), exit_((u32)flow.blocks.size()) {
        std::vector<bool> keeps_all(exit_, false);
        connect(function, keeps_all);
        visit();
        bool changed = false;
        for (u32 b = 0; b < exit_; b++)
            if (number_[b] == NOWHERE) keeps_all[b] = changed = true;
        if (!changed) return;
        connect(function, keeps_all);
        visit();
    }

    void run() {
        std::vector<u32> meets(exit_ + 1, NOWHERE);
        meets[exit_] = exit_;
        for (bool changed = true; changed;) {
            changed = false;
            for (auto b = order_.rbegin() + 1; b < order_.rend(); ++b) {
                u32 found = NOWHERE;
                for (u32 to : next_[*b])
                    if (meets[to] != NOWHERE) found = found == NOWHERE ? to : common(meets, found, to);
                changed |= meets[*b] != found;
                meets[*b] = found;
            }
        }
        for (u32 b = 0; b < exit_; b++) flow_.blocks[b].meets = meets[b] == exit_ ? NOWHERE : meets[b];
    }

  private:
    bool is_only_exit(const Function &function, u32 b) const {
        const Flow::BasicBlock &block = flow_.blocks[b];
        return block.first == block.last && is_exit(function.body[block.last]) && !function.body[block.last].guarded;
    }

    void connect(const Function &function, const std::vector<bool> &keeps_all) {
        next_.assign(exit_ + 1, {});
        previous_.assign(exit_ + 1, {});
        for (u32 b = 0; b < exit_; b++) {
            const std::vector<u32> &all = flow_.blocks[b].next;
            bool goes_on =
                std::any_of(all.begin(), all.end(), [&](u32 to) { return to > b && !is_only_exit(function, to); });
            for (u32 to : all)
                if (keeps_all[b] || !goes_on || !is_only_exit(function, to)) next_[b].push_back(to);
            if (all.empty()) next_[b].push_back(exit_);
            for (u32 to : next_[b]) previous_[to].push_back(b);
        }
    }

    // Post-order of the reversed graph, without recursion: a function may have thousands of blocks.
    void visit() {
        number_.assign(exit_ + 1, NOWHERE);
        order_.clear();
        std::vector<std::pair<u32, size_t>> stack = {{exit_, 0}};
        std::vector<bool> seen(exit_ + 1, false);
        seen[exit_] = true;
        while (!stack.empty()) {
            auto &[b, i] = stack.back();
            if (i < previous_[b].size()) {
                u32 from = previous_[b][i++];
                if (!seen[from]) {
                    seen[from] = true;
                    stack.push_back({from, 0});
                }
            } else {
                number_[b] = (u32)order_.size();
                order_.push_back(b);
                stack.pop_back();
            }
        }
    }

    u32 common(const std::vector<u32> &meets, u32 a, u32 b) const {
        while (a != b) {
            while (number_[a] < number_[b]) a = meets[a];
            while (number_[b] < number_[a]) b = meets[b];
        }
        return a;
    }

    Flow &flow_;
    u32 exit_;
    std::vector<std::vector<u32>> next_, previous_;
    std::vector<u32> number_, order_;
};

void mark_meetings(Flow &flow, const Function &function) {
    for (Flow::BasicBlock &block : flow.blocks) {
        const Statement &last = function.body[block.last];
        if (is_branch(last) && block.next.size() > 1 && block.meets != NOWHERE)
            flow.blocks[block.meets].is_meeting = true;
    }
}

// A mark: if this is where the current path meets the others, go on with the next that waits.
void run_mark(Warp &warp, const Insn &, u32) {
    if (warp.pc - 1 == warp.reconverge) warp_pop(warp);
}

} // namespace

Flow flow_analyse(const Function &function) {
    Flow flow;
    if (function.body.empty()) throw LoadError(function.loc.ptx_line, "the function is empty");
    split_into_blocks(flow, function);
    connect_blocks(flow, function);
    PostDominators(flow, function).run();
    mark_meetings(flow, function);
    for (const Flow::BasicBlock &block : flow.blocks) {
        flow.start.push_back(flow.code_size);
        flow.code_size += block.is_meeting;
        for (u32 i = block.first; i <= block.last; i++) flow.position.push_back(flow.code_size++);
    }
    return flow;
}

void flow_place_marks(const Flow &flow, Kernel &kernel) {
    for (u32 b = 0; b < flow.blocks.size(); b++)
        if (flow.blocks[b].is_meeting) kernel.code[flow.start[b]].run = run_mark;
}

void flow_resolve_branches(const Flow &flow, const Function &function, Kernel &kernel) {
    auto place = [&](u32 label) { return flow.start[flow.block_of[function.labels[label]]]; };
    for (const auto &labels : function.branch_targets) {
        kernel.branch_tables.emplace_back();
        for (u32 label : labels) kernel.branch_tables.back().push_back(place(label));
    }
    for (u32 i = 0; i < function.body.size(); i++) {
        const Statement &statement = function.body[i];
        if (!is_branch(statement)) continue;
        Insn &insn = kernel.code[flow.position[i]];
        if (starts_with(statement.opcode, "bra")) insn.target = place(insn.target);
        u32 meets = flow.blocks[flow.block_of[i]].meets;
        if (meets != NOWHERE && flow.blocks[meets].is_meeting) insn.reconverge = flow.start[meets];
    }
}

// ---- slots

namespace {

struct LiveRange {
    u32 reg, from = NOWHERE, to = 0; // places in the code, both included
    bool is_wide;
    void include(u32 at) {
        from = std::min(from, at);
        to = std::max(to, at);
    }
};

using Bits = std::vector<bool>;

// By block: registers that are live at its start.
std::vector<Bits> live_at_start(const Flow &flow, const KernelBuilder &builder, const std::vector<u32> &block_at) {
    size_t n_registers = builder.function.registers.size(), n_blocks = flow.blocks.size();
    std::vector<Bits> used(n_blocks, Bits(n_registers)), defined = used;
    // Uses come in the order of the code; within an instruction sources are read before the result is written.
    for (size_t i = 0; i < builder.uses.size();) {
        size_t end = i;
        while (end < builder.uses.size() && builder.uses[end].insn == builder.uses[i].insn) end++;
        u32 block = block_at[builder.uses[i].insn];
        bool is_guarded = builder.kernel.code[builder.uses[i].insn].guard != NO_GUARD;
        for (size_t j = i; j < end; j++)
            if (!builder.uses[j].is_definition && !defined[block][builder.uses[j].reg])
                used[block][builder.uses[j].reg] = true;
        for (size_t j = i; j < end; j++)
            if (builder.uses[j].is_definition && !is_guarded) defined[block][builder.uses[j].reg] = true;
        i = end;
    }
    std::vector<Bits> live = used;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t b = n_blocks; b-- > 0;)
            for (u32 to : flow.blocks[b].next)
                for (size_t r = 0; r < n_registers; r++)
                    if (live[to][r] && !defined[b][r] && !live[b][r]) live[b][r] = changed = true;
    }
    return live;
}

std::vector<LiveRange> live_ranges(const Flow &flow, const KernelBuilder &builder) {
    std::vector<u32> block_at(flow.code_size, 0);
    for (u32 i = 0; i < flow.position.size(); i++) block_at[flow.position[i]] = flow.block_of[i];
    std::vector<Bits> live = live_at_start(flow, builder, block_at);
    std::vector<LiveRange> ranges;
    for (u32 r = 0; r < builder.function.registers.size(); r++)
        ranges.push_back({r, NOWHERE, 0, type_bits(builder.function.registers[r]) == 64});
    for (const RegisterUse &use : builder.uses) ranges[use.reg].include(use.insn);
    for (u32 b = 0; b < flow.blocks.size(); b++) {
        u32 end = flow.position[flow.blocks[b].last];
        for (u32 r = 0; r < ranges.size(); r++) {
            if (live[b][r]) ranges[r].include(flow.start[b]);
            for (u32 to : flow.blocks[b].next)
                if (live[to][r]) ranges[r].include(end);
        }
    }
    ranges.erase(
        std::remove_if(ranges.begin(), ranges.end(), [](const LiveRange &range) { return range.from == NOWHERE; }),
        ranges.end());
    std::sort(ranges.begin(), ranges.end(), [](const LiveRange &a, const LiveRange &b) { return a.from < b.from; });
    return ranges;
}

} // namespace

void flow_assign_slots(const Flow &flow, KernelBuilder &builder) {
    Kernel &kernel = builder.kernel;
    u32 first = (u32)kernel.specials.size();
    std::vector<i64> busy_until;
    std::vector<u16> slot_of(builder.function.registers.size(), 0);
    for (const LiveRange &range : live_ranges(flow, builder)) {
        size_t s = 0;
        auto is_free = [&](size_t slot) { return slot >= busy_until.size() || busy_until[slot] < (i64)range.from; };
        while (!is_free(s) || (range.is_wide && !is_free(s + 1))) s++;
        if (busy_until.size() < s + 1 + range.is_wide) busy_until.resize(s + 1 + range.is_wide, -1);
        busy_until[s] = range.to;
        if (range.is_wide) busy_until[s + 1] = range.to;
        slot_of[range.reg] = (u16)(first + s);
    }
    kernel.n_registers = (u32)busy_until.size();
    kernel.n_slots = first + kernel.n_registers;
    if (kernel.n_slots >= CONSTANT_FILE)
        throw LoadError(builder.function.loc.ptx_line, "too many registers live at once");
    for (const RegisterUse &use : builder.uses) kernel.code[use.insn].op[use.operand] = slot_of[use.reg];
}

} // namespace emu
