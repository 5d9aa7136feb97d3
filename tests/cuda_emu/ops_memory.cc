// ld and st.

#include "access.h"
#include "decode.h"

namespace emu {

namespace {

// ---- the data of all lanes, side by side: [LANES][BYTES], of elements T

// In the order of lanes without gaps, in global memory, and allowed: where it starts; else null.
template <u32 BYTES> u8 *contiguous(Warp &warp, u32 mask, const u64 at[LANES], bool is_write) {
    if (mask != ALL_LANES) return nullptr;
    u64 start = at[0], apart = 0;
    for (u32 i = 0; i < LANES; i++) apart |= at[i] ^ (start + i * BYTES);
    u64 offset = start - GLOBAL_BASE;
    if (apart || offset % BYTES || offset > GLOBAL_SPAN - LANES * BYTES) return nullptr;
    u8 *shadow = warp.block->global_shadow + offset;
    u8 keep = is_write ? WRITE_KEEP : READ_KEEP, want = is_write ? WRITE_WANT : READ_WANT, bad = 0;
    for (u32 i = 0; i < LANES * BYTES; i++) bad |= (u8)((shadow[i] & keep) ^ want);
    if (bad) return nullptr;
    if (is_write) memset(shadow, SHADOW_ALLOCATED | SHADOW_INITIALISED, LANES * BYTES);
    return warp.block->global_bytes + offset;
}

// How many lanes from `lane` on, of those in the mask, use the next BYTES each of shared memory, within it and aligned;
// at least 1.
template <u32 BYTES> u32 row_length(const SharedMemory &shared, u32 mask, const u64 at[LANES], u32 lane) {
    u32 n = 1;
    while (lane + n < LANES && (mask >> (lane + n) & 1) && at[lane + n] == at[lane] + n * BYTES) n++;
    return at[lane] % BYTES == 0 && at[lane] <= shared.size() && n * BYTES <= shared.size() - at[lane] ? n : 1;
}

template <u32 BYTES> void load_shared(Warp &warp, u32 mask, const u64 at[LANES], u8 *to) {
    SharedMemory &shared = warp.block->shared;
    for (u32 lane = 0, n; lane < LANES; lane += n) {
        n = 1;
        if (!(mask >> lane & 1)) continue;
        n = row_length<BYTES>(shared, mask, at, lane);
        if (n > 1) {
            shared.note_read_row<BYTES>(warp, lane, n, (u32)at[lane]);
            memcpy(to + lane * BYTES, shared.at((u32)at[lane]), n * BYTES);
            continue;
        }
        const u8 *from = access_shared<BYTES>(warp, lane, at[lane], false);
        memcpy(to + lane * BYTES, from, BYTES);
        // More lanes at the same place: the second makes several readers of one, and a third would change nothing.
        for (u32 same = 0; lane + n < LANES && (mask >> (lane + n) & 1) && at[lane + n] == at[lane]; n++, same++) {
            if (same == 0) shared.note_read<BYTES>(warp, lane + n, (u32)at[lane]);
            memcpy(to + (lane + n) * BYTES, from, BYTES);
        }
    }
}

template <u32 BYTES> void store_shared(Warp &warp, u32 mask, const u64 at[LANES], const u8 *from) {
    SharedMemory &shared = warp.block->shared;
    for (u32 lane = 0, n; lane < LANES; lane += n) {
        n = 1;
        if (!(mask >> lane & 1)) continue;
        n = row_length<BYTES>(shared, mask, at, lane);
        if (n > 1)
            shared.note_write_row<BYTES>(warp, lane, n, (u32)at[lane]);
        else
            access_shared<BYTES>(warp, lane, at[lane], true);
        memcpy(shared.at((u32)at[lane]), from + lane * BYTES, n * BYTES);
    }
}

// T: the type in memory; R: the register's, to which sub-words are extended, by their sign or with zeros. op[0]: the
// address, op[1…V]: the registers.
template <Where W, class T, class R, u32 V> void run_load(Warp &warp, const Insn &insn, u32 mask) {
    constexpr u32 BYTES = sizeof(T) * V;
    u64 at[LANES];
    lane_addresses(warp, insn, insn.op[0], at);
    count_access<W>(warp, mask, at, BYTES, false);
    alignas(64) T gathered[LANES * V];
    const u8 *from = W == Where::GLOBAL ? contiguous<BYTES>(warp, mask, at, false) : nullptr;
    if constexpr (W == Where::SHARED) {
        load_shared<BYTES>(warp, mask, at, (u8 *)gathered);
        from = (const u8 *)gathered;
    }
    if (!from) {
        for (u32 rest = mask; rest; rest &= rest - 1) {
            u32 i = lowest_lane(rest);
            memcpy(gathered + i * V, access_at<W, BYTES>(warp, i, at[i], false), BYTES);
        }
        from = (const u8 *)gathered;
    }
    for (u32 j = 0; j < V; j++) {
        if (insn.op[1 + j] == NO_OPERAND) continue;
        auto *to = lanes_of<R>(warp, insn.op[1 + j]);
        for (u32 i = 0; i < LANES; i++) {
            T value;
            memcpy(&value, from + (i * V + j) * sizeof(T), sizeof(T));
            to[i] = mask >> i & 1 ? (Stored<R>)(R)value : to[i];
        }
    }
}

template <Where W, class T, class R, u32 V> void run_store(Warp &warp, const Insn &insn, u32 mask) {
    constexpr u32 BYTES = sizeof(T) * V;
    u64 at[LANES];
    lane_addresses(warp, insn, insn.op[0], at);
    count_access<W>(warp, mask, at, BYTES, true);
    alignas(64) T values[LANES * V];
    for (u32 j = 0; j < V; j++) {
        const auto *from = lanes_of<R>(warp, insn.op[1 + j]);
        for (u32 i = 0; i < LANES; i++) values[i * V + j] = (T)from[i];
    }
    if (W == Where::GLOBAL) {
        if (u8 *to = contiguous<BYTES>(warp, mask, at, true)) {
            memcpy(to, values, sizeof values);
            return;
        }
    }
    if constexpr (W == Where::SHARED) {
        store_shared<BYTES>(warp, mask, at, (const u8 *)values);
        return;
    }
    for (u32 rest = mask; rest; rest &= rest - 1) {
        u32 i = lowest_lane(rest);
        memcpy(access_at<W, BYTES>(warp, i, at[i], true), values + i * V, BYTES);
    }
}

template <bool LOAD, Where W, class T, u32 V> Handler by_register(u32 register_bits) {
    if constexpr (sizeof(T) == 8) return LOAD ? run_load<W, T, u64, V> : run_store<W, T, u64, V>;
    if (register_bits == 64) return LOAD ? run_load<W, T, u64, V> : run_store<W, T, u64, V>;
    if (register_bits == 16) return LOAD ? run_load<W, T, u16, V> : run_store<W, T, u16, V>;
    return LOAD ? run_load<W, T, u32, V> : run_store<W, T, u32, V>;
}

template <bool LOAD, Where W, class T> Handler by_vector(u32 n, u32 register_bits) {
    if (n == 1) return by_register<LOAD, W, T, 1>(register_bits);
    if (n == 2) return by_register<LOAD, W, T, 2>(register_bits);
    if constexpr (sizeof(T) <= 4) return by_register<LOAD, W, T, 4>(register_bits);
    return nullptr;
}

template <bool LOAD, Where W> Handler by_type(Type type, u32 n, u32 register_bits) {
    bool is_signed = LOAD && (type == Type::S8 || type == Type::S16 || type == Type::S32);
    switch (type_bits(type)) {
    case 8:
        return is_signed ? by_vector<LOAD, W, i8>(n, register_bits) : by_vector<LOAD, W, u8>(n, register_bits);
    case 16:
        return is_signed ? by_vector<LOAD, W, i16>(n, register_bits) : by_vector<LOAD, W, u16>(n, register_bits);
    case 32:
        return is_signed ? by_vector<LOAD, W, i32>(n, register_bits) : by_vector<LOAD, W, u32>(n, register_bits);
    case 64:
        return by_vector<LOAD, W, u64>(n, register_bits);
    default:
        return nullptr;
    }
}

Where space_of(Decoding &d, const Operand &address) {
    if (d.accept("global") || d.accept("const")) return Where::GLOBAL;
    if (d.accept("shared") || d.accept("shared::cta")) return Where::SHARED;
    if (d.accept("local")) return Where::LOCAL;
    if (d.accept("param") || d.accept("param::entry") || d.accept("param::func")) {
        // Parameters of calls live in the caller's frame once calls are inlined.
        bool is_frame =
            address.kind == OperandKind::VARIABLE && d.builder.function.variables[address.index].space != Space::PARAM;
        return is_frame ? Where::LOCAL : Where::PARAM;
    }
    return Where::GENERIC;
}

void skip_hints(Decoding &d) {
    d.skip_any({"nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt", "L1::evict_normal", "L1::evict_unchanged",
                "L1::evict_first", "L1::evict_last", "L1::no_allocate", "L2::evict_normal", "L2::evict_first",
                "L2::evict_last", "L2::64B", "L2::128B", "L2::256B"});
}

template <bool LOAD> void decode_access(Decoding &d) {
    d.skip_any({"weak", "volatile", "relaxed", "acquire", "release", "cta", "gpu", "sys", "cluster"});
    d.expect_operands(2, 2);
    const Operand &address = d.operand(LOAD ? 1 : 0), &values = d.operand(LOAD ? 0 : 1);
    Where where = space_of(d, address);
    skip_hints(d);
    u32 n = d.accept("v2") ? 2 : d.accept("v4") ? 4 : 1;
    Type type = d.type();
    d.address(0, address);
    if ((n > 1) != (values.kind == OperandKind::VECTOR) || (n > 1 && values.elements.size() != n))
        d.fail("it has the wrong number of registers");
    u32 bits = 0;
    for (u32 j = 0; j < n; j++) {
        const Operand &value = n > 1 ? values.elements[j] : values;
        if (LOAD && value.kind == OperandKind::SINK) {
            d.insn.op[1 + j] = NO_OPERAND;
            continue;
        }
        u32 own = LOAD ? d.wide_result(1 + j, value, type) : d.wide_source(1 + j, value, type);
        if (bits && own != bits && (own == 64 || bits == 64)) d.fail("its registers have different widths");
        bits = own;
    }
    switch (where) {
    case Where::GLOBAL:
        d.insn.run = by_type<LOAD, Where::GLOBAL>(type, n, bits);
        break;
    case Where::SHARED:
        d.insn.run = by_type<LOAD, Where::SHARED>(type, n, bits);
        break;
    case Where::LOCAL:
        d.insn.run = by_type<LOAD, Where::LOCAL>(type, n, bits);
        break;
    case Where::GENERIC:
        d.insn.run = by_type<LOAD, Where::GENERIC>(type, n, bits);
        break;
    case Where::PARAM:
        if constexpr (LOAD) d.insn.run = by_type<true, Where::PARAM>(type, n, bits);
        break;
    }
}

void run_hint(Warp &, const Insn &, u32) {}

void decode_prefetch(Decoding &d) {
    while (!d.done()) d.word();
    d.insn.run = run_hint;
}

} // namespace

const std::vector<OpcodeRow> MEMORY_OPCODES = {
    {"ld", decode_access<true>},   {"ldu", decode_access<true>},   {"st", decode_access<false>},
    {"prefetch", decode_prefetch}, {"prefetchu", decode_prefetch},
};

} // namespace emu
