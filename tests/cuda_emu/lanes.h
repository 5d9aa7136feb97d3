// Handlers made from a function of one lane: written for the compiler's vectoriser, with lanes side by side in a slot.
//
// The function is also evaluated for lanes that are off, whose result is dropped: it must be defined for any bits.
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>

#include "machine.h"

namespace emu {

// What a lane of a slot is stored as: 8 bytes for 64-bit types, else 4 with the value's bits zero-extended.
template <class T> using Stored = std::conditional_t<sizeof(T) == 8, u64, u32>;
template <u32 BYTES>
using Bits =
    std::conditional_t<BYTES == 8, u64, std::conditional_t<BYTES == 4, u32, std::conditional_t<BYTES == 2, u16, u8>>>;

template <class T> inline T from_lane(Stored<T> stored) {
    return bits_as<T>((Bits<sizeof(T)>)stored);
}
template <class T> inline Stored<T> to_lane(T value) {
    return (Stored<T>)bits_as<Bits<sizeof(T)>>(value);
}

template <class T> inline Stored<T> *lanes_of(Warp &warp, u16 op) {
    return (Stored<T> *)warp.slot(op);
}

// op[0] = F(op[1], op[2], …), D and S being the types of result and sources.
template <class F, class D, class... S, size_t... I>
inline void lanewise_over(Warp &warp, const Insn &insn, u32 mask, std::index_sequence<I...>) {
    auto *to = lanes_of<D>(warp, insn.op[0]);
    std::tuple<Stored<S> *...> from(lanes_of<S>(warp, insn.op[1 + I])...);
    if (mask == ALL_LANES) {
#pragma GCC ivdep
        for (u32 i = 0; i < LANES; i++) to[i] = to_lane<D>(F{}(from_lane<S>(std::get<I>(from)[i])...));
    } else {
#pragma GCC ivdep
        for (u32 i = 0; i < LANES; i++) {
            Stored<D> result = to_lane<D>(F{}(from_lane<S>(std::get<I>(from)[i])...));
            to[i] = mask >> i & 1 ? result : to[i];
        }
    }
}

template <class F, class D, class... S> void lanewise(Warp &warp, const Insn &insn, u32 mask) {
    lanewise_over<F, D, S...>(warp, insn, mask, std::index_sequence_for<S...>{});
}

// use<D, S...>(insn, f): the handler that computes f(S...) → D lane by lane. f captures nothing.
template <class D, class... S, class F> inline void use(Insn &insn, F) {
    insn.run = &lanewise<F, D, S...>;
}

// The same for a few lanes only, when the function is long or must not run on lanes that are off.
template <class F, class D, class... S, size_t... I>
inline void each_lane_over(Warp &warp, const Insn &insn, u32 mask, std::index_sequence<I...>) {
    auto *to = lanes_of<D>(warp, insn.op[0]);
    std::tuple<Stored<S> *...> from(lanes_of<S>(warp, insn.op[1 + I])...);
    for (; mask; mask &= mask - 1) {
        u32 i = (u32)__builtin_ctz(mask);
        to[i] = to_lane<D>(F{}(from_lane<S>(std::get<I>(from)[i])...));
    }
}

template <class F, class D, class... S> void each_lane(Warp &warp, const Insn &insn, u32 mask) {
    each_lane_over<F, D, S...>(warp, insn, mask, std::index_sequence_for<S...>{});
}

template <class D, class... S, class F> inline void use_each(Insn &insn, F) {
    insn.run = &each_lane<F, D, S...>;
}

inline void set_predicate(Warp &warp, u16 predicate, u32 mask, u32 value) {
    if (predicate != NO_OPERAND) warp.predicates[predicate] = (warp.predicates[predicate] & ~mask) | (value & mask);
}

inline u32 lowest_lane(u32 mask) {
    return (u32)__builtin_ctz(mask);
}

} // namespace emu
