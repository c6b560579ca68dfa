// Entry points of the linear layer and of LayerNorm, and the measured peak of the dot product.
#include "linear.h"

namespace FEWER_NS {

int run_product(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads) {
    switch (w.mode) {
        case FEWER_F32: return product<ModeF32>(w, p, rows, out, threads);
        case FEWER_BF16: return product<ModeBF16>(w, p, rows, out, threads);
        case FEWER_I8: return product<ModeI8>(w, p, rows, out, threads);
        default: return FEWER_BAD_ARGUMENT;
    }
}

bool run_rows(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out) {
    switch (w.mode) {
        case FEWER_F32: return rows_times_strips<ModeF32>(w, p, first, rows, 0, w.strips, out);
        case FEWER_BF16: return rows_times_strips<ModeBF16>(w, p, first, rows, 0, w.strips, out);
        default: return rows_times_strips<ModeI8>(w, p, first, rows, 0, w.strips, out);
    }
}

int linear(const FewerWeight *w, const FewerLinear *a) {
    if (a->tokens <= 0) return FEWER_OK;
    Prologue p = {a->x, a->ldx, a->xtype, a->ln_weight, a->ln_bias, a->ln_eps};
    Output out = {a->y, a->ldy, a->ytype, a->act, a->residual, a->ldr};
    return run_product(*w, p, a->tokens, out, a->threads);
}

static bool norm_rows(const FewerNorm &a, int64_t first, int64_t last) {
    int64_t padded = up(a.width, 16);
    float *row = (float *)fewer_scratch(FEWER_SLOT_NORM, padded * 4);
    if (!row) return false;
    for (int64_t t = first; t < last; t++) {
        load_row(a.x + t * a.width, FEWER_T_F32, a.width, padded, row);
        if (a.residual)
            for (int i = 0; i < a.width; i++) row[i] += a.residual[t * a.width + i];
        if (a.sum) memcpy(a.sum + t * a.width, row, (size_t)a.width * 4);
        norm_row(row, a.width, a.weight, a.bias, a.eps, row);
        if (a.ytype == 0) {
            memcpy((float *)a.y + t * a.width, row, (size_t)a.width * 4);
        } else if (a.ytype == 1) {
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

// One dense tile over and over, with weights and activations in L1: what the inner loop can do when memory costs nothing.
template <class Mode> static double peak_of(int64_t steps) {
    constexpr int UNITS = 128, LDX = UNITS * Mode::XSTEP + 16;
    alignas(64) static uint32_t w[UNITS * STRIP], x[TILE_MAX * LDX];
    alignas(64) static const float zeros[STRIP] = {};
    alignas(64) float out[TILE_MAX * STRIP];
    static const int32_t start[1] = {0};
    Strip strip = {start, w, 1, UNITS, zeros, zeros, (const int32_t *)zeros};
    int64_t done = 0;
    for (; done < steps; done += UNITS) {
        tile_of<Mode>(Mode::TILE)(strip, x, LDX, zeros, out, STRIP, nullptr, 0);
        __asm__ volatile("" ::"r"(out) : "memory");  // the result counts as used
    }
    return 2.0 * (double)done * Mode::TILE * STRIP * Mode::UNIT;
}

double peak(int mode, int64_t steps) {
    return mode == FEWER_F32 ? peak_of<ModeF32>(steps) : mode == FEWER_BF16 ? peak_of<ModeBF16>(steps) : peak_of<ModeI8>(steps);
}

}  // namespace FEWER_NS
