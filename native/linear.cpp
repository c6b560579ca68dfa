// Entry points that choose by the number format of the weights.
#include "linear.h"

namespace FEWER_NS {

int run_product(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads) {
    switch (w.mode) {
        case FEWER_F32: return product_f32(w, p, rows, out, threads);
        case FEWER_BF16: return product_bf16(w, p, rows, out, threads);
        case FEWER_I8: return product_i8(w, p, rows, out, threads);
        default: return FEWER_BAD_ARGUMENT;
    }
}

bool run_rows(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out) {
    switch (w.mode) {
        case FEWER_F32: return rows_f32(w, p, first, rows, out);
        case FEWER_BF16: return rows_bf16(w, p, first, rows, out);
        default: return rows_i8(w, p, first, rows, out);
    }
}

int linear(const FewerWeight *w, const FewerLinear *a) {
    if (a->tokens <= 0) return FEWER_OK;
    Prologue p = {a->x, a->ldx, a->xtype, a->ln_weight, a->ln_bias, a->ln_eps};
    Output out = {a->y, a->ldy, a->ytype, a->act, a->residual, a->ldr};
    return run_product(*w, p, a->tokens, out, a->threads);
}

int chain(const FewerChain *a) { return chain_with(a, {run_rows, quantise_i8, quantised_size_i8, quantised_i8}); }

double peak(int mode, int64_t steps) {
    return mode == FEWER_F32 ? peak_f32(steps) : mode == FEWER_BF16 ? peak_bf16(steps) : peak_i8(steps);
}

}  // namespace FEWER_NS
