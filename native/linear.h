// What the sources of one instruction set use of each other.
//
// A processor with VNNI but without bf16 needs its own int8 product only, so its variant takes everything else from the
// plain AVX-512 one: FEWER_FLOATS names the namespace with the float code, by default the variant's own.
#pragma once
#include "abi.h"

#ifndef FEWER_NS
#define FEWER_NS portable
#endif
#ifndef FEWER_FLOATS
#define FEWER_FLOATS FEWER_NS
#endif

// Where the results of a product go.
struct Output {
    void *y;
    int64_t ldy;
    int32_t type, act;
    const float *residual;
    int64_t ldr;
};

// What is done to a row before the product.
struct Prologue {
    const void *x;
    int64_t ldx;
    int32_t type;
    const float *norm_weight, *norm_bias;
    float eps;
};

// One thread's products of whole rows [first, first + rows), as a chain calls them. Rows of int8 can be handed over in the
// form that the product reads: of what size they are, what makes one (the result is its scale), and their product.
typedef bool (*RowsFn)(const FewerWeight &, const Prologue &, int64_t first, int64_t rows, const Output &);
typedef float (*QuantiseFn)(const float *row, int64_t padded, void *dst);
struct Products {
    RowsFn rows;
    QuantiseFn (*quantise)(const FewerWeight &);
    void (*quantised_size)(const FewerWeight &, int64_t *padded, int64_t *bytes);
    void (*quantised)(const FewerWeight &, const void *x, const float *scales, int64_t rows, const Output &);
};

namespace FEWER_FLOATS {

// The product with `threads` threads; and one thread's product of whole rows [first, first + rows).
int product_f32(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads);
int product_bf16(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads);
bool rows_f32(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out);
bool rows_bf16(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out);
double peak_f32(int64_t steps);
double peak_bf16(int64_t steps);

int norm(const FewerNorm *a);
int merge(const FewerMerge *m);
int integer_affine(const FewerIntegerAffine *a);
int integer_softmax(const FewerIntegerSoftmax *a);
int integer_norm(const FewerIntegerNorm *a);
int attention(const FewerAttention *a);
int conv(const FewerWeight *w, const FewerConv *a);
int depthwise(const FewerDepthwise *a);

// A chain, whose products of rows are the variant's own.
int chain_with(const FewerChain *a, const Products &products);

}  // namespace FEWER_FLOATS

namespace FEWER_NS {

using namespace FEWER_FLOATS;

int product_i8(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads);
bool rows_i8(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out);
QuantiseFn quantise_i8(const FewerWeight &w);
void quantised_size_i8(const FewerWeight &w, int64_t *padded, int64_t *bytes);
void quantised_i8(const FewerWeight &w, const void *x, const float *scales, int64_t rows, const Output &out);
double peak_i8(int64_t steps);

// The same for the format that the weights say.
int run_product(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads);
bool run_rows(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, const Output &out);

int linear(const FewerWeight *w, const FewerLinear *a);
int block(const FewerBlock *a);
int chain(const FewerChain *a);
double peak(int mode, int64_t steps);

}  // namespace FEWER_NS
