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
double peak_i8(int64_t steps) { return peak_of<ModeI8>(steps); }

}  // namespace FEWER_NS
