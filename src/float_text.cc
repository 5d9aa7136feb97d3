// float_text.cc: see float_text.h.
#include "float_text.h"
#include <charconv>
#include <cmath>
#include <cstring>

namespace {

template <typename Real> size_t shortest(Real value, char *out, size_t cap) {
    if (!std::isfinite(value)) {
        std::memcpy(out, "null", 4);
        return 4;
    }
    return static_cast<size_t>(std::to_chars(out, out + cap, value).ptr - out);
}

} // namespace

size_t float_text(float value, char *out) {
    return shortest(value, out, FLOAT_TEXT_BYTES);
}

size_t double_text(double value, char *out) {
    return shortest(value, out, DOUBLE_TEXT_BYTES);
}
