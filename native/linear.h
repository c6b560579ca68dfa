// What the other sources of one instruction set use from linear.cpp.
#pragma once
#include "product.h"

namespace FEWER_NS {

// The product with `threads` threads; and one thread's product of whole rows [first, first + rows).
int run_product(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads);
bool run_rows(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out);

int linear(const FewerWeight *w, const FewerLinear *a);
int norm(const FewerNorm *a);
int attention(const FewerAttention *a);
int block(const FewerBlock *a);
int conv(const FewerWeight *w, const FewerConv *a);
int depthwise(const FewerDepthwise *a);
double peak(int mode, int64_t steps);

}  // namespace FEWER_NS
