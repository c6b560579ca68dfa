// The int8 product of one instruction set.
#include "linear.h"
#include "peak.h"
#include "product.h"

namespace FEWER_NS {

int product_i8(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads) {
    return product<ModeI8>(w, p, rows, out, threads);
}
bool rows_i8(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out) {
    return rows_times_strips<ModeI8>(w, p, first, rows, 0, w.strips, out);
}
float quantise_i8(const float *row, int64_t padded, void *dst) { return ModeI8::convert_row(row, padded, (uint32_t *)dst); }
void quantised_size_i8(const FewerWeight &w, int64_t *padded, int64_t *bytes) {
    *padded = padded_inputs(w, ModeI8::UNIT);
    *bytes = row_lanes<ModeI8>(w) * 4;
}
void quantised_i8(const FewerWeight &w, const void *x, const float *scales, int64_t rows, const Output &out) {
    const int64_t lanes = row_lanes<ModeI8>(w), chunk = chunk_rows<ModeI8>(lanes);
    for (int64_t r = 0; r < rows; r += chunk)
        multiply<ModeI8>(w, (const uint32_t *)x + r * lanes, lanes, scales + r, r, least(chunk, rows - r), 0, w.strips, out);
}
double peak_i8(int64_t steps) { return peak_of<ModeI8>(steps); }

}  // namespace FEWER_NS
