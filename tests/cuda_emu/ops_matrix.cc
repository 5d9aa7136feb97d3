// Tensor cores: mma.sync and ldmatrix.
//
// Fragments (PTX ISA, "Matrix Fragments for mma.m16n8k…"): with g = lane / 4, t = lane % 4 and E elements to a
// register,
//   A: register r holds row g + 8·(r & 1), columns k = 4E·(r / 2) + E·t … + E − 1
//   B: register r holds column g,          rows    k = 4E·r + E·t … + E − 1
//   C, D: registers 0 and 1 hold row g, columns 2t and 2t + 1; registers 2 and 3 the same of row g + 8
// so 4 neighbouring lanes hold 16 bytes of a row of A, or of a column of B, in order.
//
// Sums: c + a₀b₀ + a₁b₁ + …, each product exact, rounded to f32 after every addition. Hardware adds in another order
// and drops low bits, so its results differ within K · 2⁻²³ · (|c| + Σ|ab|). Integer sums are exact, modulo 2³².

#include <cmath>

#include "access.h"
#include "decode.h"
#include "half.h"

namespace emu {

namespace {

void need_whole_warp(const Warp &warp, u32 mask) {
    if (mask != ALL_LANES || warp.first_lanes != ALL_LANES)
        throw Fault(FaultKind::CONVERGENCE, lowest_lane(mask),
                    "executes an instruction of the whole warp without all of its lanes");
}

// ---- mma: op[0…3] D, op[4…7] A, op[8…9] B, op[10…13] C

constexpr u32 M = 16, N = 8;

struct tf32 {
    u32 bits;
};

inline float to_float(tf32 value) {
    return bits_as<float>(value.bits & ~0x1fffU);
}
inline float to_float(i8 value) {
    return (float)value;
}
inline float to_float(u8 value) {
    return (float)value;
}

// A or B as rows of K numbers: of register r the eight rows of 16 bytes go to row 8·(r % ROW_BLOCKS), column 4E·(r /
// ROW_BLOCKS).
template <class T, u32 K, u32 ROW_BLOCKS> void unpack(Warp &warp, const u16 *ops, float out[ROW_BLOCKS * 8][K]) {
    constexpr u32 WIDTH = 16 / sizeof(T);
    for (u32 r = 0; r < ROW_BLOCKS * (K / WIDTH); r++) {
        const T *from = (const T *)warp.slot(ops[r]);
        for (u32 row = 0; row < 8; row++)
            for (u32 i = 0; i < WIDTH; i++)
                out[row + 8 * (r % ROW_BLOCKS)][WIDTH * (r / ROW_BLOCKS) + i] = to_float(from[row * WIDTH + i]);
    }
}

template <class TA, class TB, u32 K> void multiply(Warp &warp, const Insn &insn, float sums[M][N]) {
    float a[M][K], b[N][K], across[K][N];
    unpack<TA, K, 2>(warp, insn.op + 4, a);
    unpack<TB, K, 1>(warp, insn.op + 8, b);
    for (u32 k = 0; k < K; k++)
        for (u32 n = 0; n < N; n++) across[k][n] = b[n][k];
    for (u32 m = 0; m < M; m++)
        for (u32 k = 0; k < K; k++)
            for (u32 n = 0; n < N; n++) sums[m][n] = std::fma(a[m][k], across[k][n], sums[m][n]);
}

// The lane's element j of C and D.
constexpr u32 row_of(u32 lane, u32 j) {
    return lane / 4 + 8 * (j / 2);
}
constexpr u32 column_of(u32 lane, u32 j) {
    return lane % 4 * 2 + j % 2;
}

template <class T, u32 K> void run_mma_float(Warp &warp, const Insn &insn, u32 mask) {
    need_whole_warp(warp, mask);
    float sums[M][N];
    for (u32 j = 0; j < 4; j++)
        for (u32 i = 0; i < LANES; i++)
            sums[row_of(i, j)][column_of(i, j)] = bits_as<float>(warp.slot(insn.op[10 + j])[i]);
    multiply<T, T, K>(warp, insn, sums);
    for (u32 j = 0; j < 4; j++)
        for (u32 i = 0; i < LANES; i++) {
            float sum = sums[row_of(i, j)][column_of(i, j)];
            warp.slot(insn.op[j])[i] = sum == sum ? bits_as<u32>(sum) : 0x7fffffff;
        }
}

// Sums of at most 32 products of bytes are exact in f32. aux: saturate.
template <class TA, class TB, u32 K> void run_mma_integer(Warp &warp, const Insn &insn, u32 mask) {
    need_whole_warp(warp, mask);
    static_assert(K * 255 * 255 < 1 << 24);
    float sums[M][N] = {};
    multiply<TA, TB, K>(warp, insn, sums);
    for (u32 j = 0; j < 4; j++)
        for (u32 i = 0; i < LANES; i++) {
            i32 c = (i32)warp.slot(insn.op[10 + j])[i];
            i64 sum = (i64)c + (i64)sums[row_of(i, j)][column_of(i, j)];
            if (insn.aux) sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
            warp.slot(insn.op[j])[i] = (u32)sum;
        }
}

Handler float_handler(Type type, const std::string &shape) {
    if (type == Type::BF16)
        return shape == "m16n8k16" ? run_mma_float<bf16, 16> : shape == "m16n8k8" ? run_mma_float<bf16, 8> : nullptr;
    if (type == Type::F16)
        return shape == "m16n8k16" ? run_mma_float<f16, 16> : shape == "m16n8k8" ? run_mma_float<f16, 8> : nullptr;
    if (type == Type::TF32)
        return shape == "m16n8k8" ? run_mma_float<tf32, 8> : shape == "m16n8k4" ? run_mma_float<tf32, 4> : nullptr;
    return nullptr;
}

template <class TA, class TB> Handler integer_shape(const std::string &shape) {
    return shape == "m16n8k32"   ? run_mma_integer<TA, TB, 32>
           : shape == "m16n8k16" ? run_mma_integer<TA, TB, 16>
                                 : nullptr;
}

Handler integer_handler(Type a, Type b, const std::string &shape) {
    if (a == Type::S8 && b == Type::S8) return integer_shape<i8, i8>(shape);
    if (a == Type::S8 && b == Type::U8) return integer_shape<i8, u8>(shape);
    if (a == Type::U8 && b == Type::S8) return integer_shape<u8, i8>(shape);
    if (a == Type::U8 && b == Type::U8) return integer_shape<u8, u8>(shape);
    return nullptr;
}

void matrix_operand(Decoding &d, u32 to, size_t i, bool is_result, Type type, size_t n) {
    const Operand &operand = d.operand(i);
    if (operand.kind != OperandKind::VECTOR || operand.elements.size() != n)
        d.fail("a fragment has the wrong number of registers");
    for (u32 j = 0; j < n; j++)
        is_result ? d.result(to + j, operand.elements[j], type) : d.source(to + j, operand.elements[j], type);
}

void decode_mma(Decoding &d) {
    if (!d.accept("aligned")) d.fail("it needs .aligned");
    std::string shape = d.word();
    if (!d.accept("row") || !d.accept("col")) d.fail("it needs .row.col");
    d.insn.aux = d.accept("satfinite");
    Type to = d.type(), a = d.type(), b = d.type(), c = d.type();
    bool is_float = to == Type::F32 && c == Type::F32 && a == b && !d.insn.aux,
         is_integer = to == Type::S32 && c == Type::S32;
    d.insn.run = is_float ? float_handler(a, shape) : is_integer ? integer_handler(a, b, shape) : nullptr;
    if (!d.insn.run) d.fail("this shape and these types are not supported");
    u32 k = (u32)strtoul(shape.c_str() + 6, nullptr, 10), element_bits = a == Type::TF32 ? 32 : type_bits(a);
    d.expect_operands(4, 4);
    matrix_operand(d, 0, 0, true, to, 4);
    matrix_operand(d, 4, 1, false, Type::B32, 2 * k * element_bits / 128);
    matrix_operand(d, 8, 2, false, Type::B32, k * element_bits / 128);
    matrix_operand(d, 10, 3, false, c, 4);
}

// ---- ldmatrix: op[0] address, op[1…] results; target: how many matrices; aux bit 1: transposed

void run_ldmatrix(Warp &warp, const Insn &insn, u32 mask) {
    need_whole_warp(warp, mask);
    u64 at[LANES];
    lane_addresses(warp, insn, insn.op[0], at);
    u32 n = insn.target;
    count_access<Where::SHARED>(warp, n == 4 ? ALL_LANES : (1U << 8 * n) - 1, at, 16, false);
    u16 rows[4][8][8];
    for (u32 lane = 0; lane < 8 * n; lane++) // lane i gives the address of row i % 8 of matrix i / 8
        memcpy(rows[lane / 8][lane % 8], access_shared<16>(warp, lane, at[lane], false), 16);
    for (u32 j = 0; j < n; j++) {
        u32 *to = warp.slot(insn.op[1 + j]);
        if (!(insn.aux & 2)) {
            memcpy(to, rows[j], sizeof rows[j]);
            continue;
        }
        for (u32 i = 0; i < LANES; i++) to[i] = (u32)rows[j][i % 4 * 2 + 1][i / 4] << 16 | rows[j][i % 4 * 2][i / 4];
    }
}

void decode_ldmatrix(Decoding &d) {
    if (!d.accept("aligned") || !d.accept("m8n8")) d.fail("only .aligned.m8n8 is supported");
    u32 n = d.accept("x1") ? 1 : d.accept("x2") ? 2 : d.accept("x4") ? 4 : 0;
    if (!n) d.fail("it needs .x1, .x2 or .x4");
    bool transposed = d.accept("trans");
    if (!d.accept("shared") && !d.accept("shared::cta")) d.fail("only .shared is supported");
    if (d.type() != Type::B16) d.fail("only .b16 is supported");
    d.expect_operands(2, 2);
    matrix_operand(d, 1, 0, true, Type::B32, n);
    d.address(0, d.operand(1));
    d.insn.aux |= (u8)(transposed << 1);
    d.insn.target = n;
    d.insn.run = run_ldmatrix;
}

} // namespace

const std::vector<OpcodeRow> MATRIX_OPCODES = {{"mma.sync", decode_mma}, {"ldmatrix.sync", decode_ldmatrix}};

} // namespace emu
