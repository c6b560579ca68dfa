// The int8 product of one instruction set.
#include "linear.h"
#include "peak.h"
#include "product.h"

namespace FEWER_NS {

// One function template for both ways in which weights can be multiplied.
#define FEWER_BY_WEIGHT(w, call) ((w).narrow ? call<ModeI8Narrow> : call<ModeI8>)

int product_i8(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads) {
    return FEWER_BY_WEIGHT(w, product)(w, p, rows, out, threads);
}
bool rows_i8(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out) {
    return FEWER_BY_WEIGHT(w, rows_times_strips)(w, p, first, rows, 0, w.strips, out);
}

template <class Mode> static float convert_row(const float *row, int64_t padded, void *dst) {
    return Mode::convert_row(row, padded, (uint32_t *)dst);
}
QuantiseFn quantise_i8(const FewerWeight &w) { return FEWER_BY_WEIGHT(w, convert_row); }

void quantised_size_i8(const FewerWeight &w, int64_t *padded, int64_t *bytes) {
    *padded = padded_inputs(w, ModeI8::UNIT);
    *bytes = FEWER_BY_WEIGHT(w, row_lanes)(w) * 4;
}

template <class Mode> static void multiply_all(const FewerWeight &w, const void *x, const float *scales, int64_t rows, const Output &out) {
    const int64_t lanes = row_lanes<Mode>(w), chunk = chunk_rows<Mode>(lanes);
    for (int64_t r = 0; r < rows; r += chunk)
        multiply<Mode>(w, (const uint32_t *)x + r * lanes, lanes, scales + r, r, least(chunk, rows - r), 0, w.strips, out);
}
void quantised_i8(const FewerWeight &w, const void *x, const float *scales, int64_t rows, const Output &out) {
    FEWER_BY_WEIGHT(w, multiply_all)(w, x, scales, rows, out);
}

double peak_i8(int64_t steps) { return peak_of<ModeI8Narrow>(steps); }

}  // namespace FEWER_NS
