// The fp32 and bf16 products of one instruction set, and LayerNorm.
#include "linear.h"
#include "peak.h"
#include "product.h"

namespace FEWER_NS {

int product_f32(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads) {
    return product<ModeF32>(w, p, rows, out, threads);
}
int product_bf16(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads) {
    return product<ModeBF16>(w, p, rows, out, threads);
}
bool rows_f32(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out) {
    return rows_times_strips<ModeF32>(w, p, first, rows, 0, w.strips, out);
}
bool rows_bf16(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out) {
    return rows_times_strips<ModeBF16>(w, p, first, rows, 0, w.strips, out);
}
double peak_f32(int64_t steps) { return peak_of<ModeF32>(steps); }
double peak_bf16(int64_t steps) { return peak_of<ModeBF16>(steps); }

static bool norm_rows(const FewerNorm &a, int64_t first, int64_t last) {
    int64_t padded = up(a.width, 16);
    float *row = (float *)fewer_scratch(FEWER_SLOT_NORM, padded * 4);
    if (!row) return false;
    for (int64_t t = first; t < last; t++) {
        load_row(a.x + t * a.width, FEWER_T_F32, a.width, padded, row);
        if (a.residual) {
#pragma omp simd
            for (int i = 0; i < a.width; i++) row[i] += a.residual[t * a.width + i];
        }
        if (a.sum) memcpy(a.sum + t * a.width, row, (size_t)a.width * 4);
        norm_row(row, a.width, a.weight, a.bias, a.eps, row);
        if (a.ytype == 0) {
            memcpy((float *)a.y + t * a.width, row, (size_t)a.width * 4);
        } else if (a.ytype == 1) {
#pragma omp simd
            for (int i = 0; i < a.width; i++) ((uint16_t *)a.y)[t * a.width + i] = to_bf16_one(row[i]);
        } else {
            float inverse, s = row_scale(row_peak(row, padded), &inverse);
            a.scale[t] = s;
            int8_t bytes[LANES];
            for (int64_t i = 0; i < a.width; i += LANES) {
                store_bytes(bytes, quantise(load(row + i), inverse, 0));
                memcpy((int8_t *)a.y + t * a.width + i, bytes, (size_t)least<int64_t>(LANES, a.width - i));
            }
        }
    }
    return true;
}

int norm(const FewerNorm *a) {
    int threads = (int)least<int64_t>(a->threads, 1 + a->tokens * a->width / 65536);
    int failed = 0;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) reduction(| : failed) schedule(static)
#endif
    for (int part = 0; part < threads; part++)
        if (!norm_rows(*a, a->tokens * part / threads, a->tokens * (part + 1) / threads)) failed = 1;
    return failed ? FEWER_NO_MEMORY : FEWER_OK;
}

}  // namespace FEWER_NS
