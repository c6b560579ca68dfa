// Drives every kernel on every instruction set of this processor with memory blocks of exactly the right size, so that
// AddressSanitizer sees the first value read or written too far. Results are compared with plain loops in double.
//
//   cmake -S . -B build/asan -DFEWER_ASAN=ON && cmake --build build/asan && build/asan/native/fewer_driver
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <memory>
#include <vector>

#include "../abi.h"

FEWER_EXPORT int fewer_select(const char *name);
FEWER_EXPORT const char *fewer_variant(int i, int *supported);
FEWER_EXPORT int fewer_linear(const FewerWeight *, const FewerLinear *);
FEWER_EXPORT int fewer_attention(const FewerAttention *);
FEWER_EXPORT int fewer_block(const FewerBlock *);
FEWER_EXPORT int fewer_conv(const FewerWeight *, const FewerConv *);
FEWER_EXPORT int fewer_depthwise(const FewerDepthwise *);
FEWER_EXPORT int fewer_norm(const FewerNorm *);
FEWER_EXPORT int fewer_chain(const FewerChain *);
FEWER_EXPORT int fewer_merge(const FewerMerge *);
FEWER_EXPORT int fewer_integer_affine(const FewerIntegerAffine *);
FEWER_EXPORT int fewer_integer_softmax(const FewerIntegerSoftmax *);
FEWER_EXPORT int fewer_integer_norm(const FewerIntegerNorm *);

namespace {

unsigned state = 12345;
double uniform() {  // a small generator: the same cases everywhere
    state = state * 1664525u + 1013904223u;
    return (state >> 8) / 16777216.0;
}
int between(int low, int high) { return low + (int)(uniform() * (high - low + 1)); }
int log_between(int high) { return (int)exp(uniform() * log(high + 0.99)); }

// An array without slack, not even the rounding up of a vector.
template <class T> struct Exact {
    std::unique_ptr<T[]> data;
    size_t n;
    explicit Exact(size_t n) : data(new T[n]), n(n) {
        for (size_t i = 0; i < n; i++) data[i] = (T)0;
    }
    void randomise() {
        for (size_t i = 0; i < n; i++) data[i] = (T)(uniform() * 2 - 1);
    }
    T *get() { return data.get(); }
    T &operator[](size_t i) { return data[i]; }
};

uint16_t bf16(float f) {
    union { float f; uint32_t u; } v = {f};
    return (uint16_t)((v.u + 0x7fff + ((v.u >> 16) & 1)) >> 16);
}
float bf16_value(uint16_t h) {
    union { uint32_t u; float f; } v = {(uint32_t)h << 16};
    return v.f;
}

// A random packed weight and its dense copy.
struct Packed {
    FewerWeight w;
    std::vector<double> dense;
    Exact<int32_t> rowptr;
    std::unique_ptr<Exact<int32_t>> kidx, corr;
    std::unique_ptr<Exact<char>> vals;
    std::unique_ptr<Exact<float>> bias, scale;

    Packed(int mode, int out, int in, int ku, double keep) : dense((size_t)out * in), rowptr((size_t)(out + 15) / 16 + 1) {
        const int unit = mode == FEWER_F32 ? 1 : mode == FEWER_BF16 ? 2 : 4, strips = (out + 15) / 16, width = ku * unit;
        const int narrow = mode == FEWER_I8 && uniform() < 0.7, top = narrow ? 64 : 127;
        std::vector<int32_t> index;
        std::vector<char> bytes;
        std::vector<int32_t> correction(strips * 16);
        for (int s = 0; s < strips; s++) {
            for (int k = 0; k < (in + width - 1) / width; k++) {
                if (uniform() >= keep) continue;
                index.push_back(k * ku);
                for (int u = 0; u < ku; u++)
                    for (int r = 0; r < 16; r++)
                        for (int i = 0; i < unit; i++) {
                            int row = s * 16 + r, col = k * width + u * unit + i;
                            bool inside = row < out && col < in;
                            float value = inside ? (float)(uniform() * 2 - 1) : 0.0f;
                            if (mode == FEWER_F32) append(bytes, value);
                            if (mode == FEWER_BF16) append(bytes, bf16(value)), value = bf16_value(bf16(value));
                            if (mode == FEWER_I8) {
                                int8_t q = (int8_t)lrintf(value * top);
                                append(bytes, q);
                                correction[row] += 128 * q;
                                value = q / (float)top;
                            }
                            if (inside) dense[(size_t)row * in + col] = value;
                        }
            }
            rowptr[s + 1] = (int32_t)index.size();
        }
        kidx = copy(index);
        vals = copy(bytes);
        corr = copy(correction);
        bias.reset(new Exact<float>(strips * 16));
        scale.reset(new Exact<float>(strips * 16));
        for (int r = 0; r < strips * 16; r++) (*bias)[r] = r < out ? (float)uniform() : 0.0f, (*scale)[r] = 1 / (float)top;
        w = {mode, out, in, strips, ku, rowptr.get(), kidx->get(), vals->get(), bias->get(),
             mode == FEWER_I8 ? scale->get() : nullptr, mode == FEWER_I8 ? corr->get() : nullptr, narrow};
    }
    template <class T> static void append(std::vector<char> &bytes, T v) {
        const char *p = (const char *)&v;
        bytes.insert(bytes.end(), p, p + sizeof v);
    }
    template <class T> static std::unique_ptr<Exact<T>> copy(const std::vector<T> &v) {
        std::unique_ptr<Exact<T>> e(new Exact<T>(v.size()));
        for (size_t i = 0; i < v.size(); i++) (*e)[i] = v[i];
        return e;
    }
};

int failures = 0;
void expect(bool ok, const char *what) {
    if (!ok) printf("FAILED: %s\n", what), failures++;
}
double tolerance(int mode, int in) { return mode == FEWER_F32 ? 1e-5 * (in + 10) : mode == FEWER_BF16 ? 0.01 * sqrt(in) + 0.02 : 0.02 * sqrt(in) + 0.02; }

void linear(int mode) {
    const int tokens = log_between(70), in = log_between(300), out = log_between(200), unit = mode == FEWER_F32 ? 1 : mode == FEWER_BF16 ? 2 : 4;
    const int ku = 1 << between(0, 4), gap = between(0, 5);
    Packed p(mode, out, in, ku, uniform() < 0.2 ? 0.0 : uniform());
    const size_t ldx = in + gap;
    Exact<float> x((tokens - 1) * ldx + in), y((size_t)tokens * out), residual((size_t)tokens * out);
    Exact<uint16_t> low((size_t)tokens * out);
    x.randomise(), residual.randomise();
    bool half = uniform() < 0.3;
    FewerLinear a = {};
    a.x = x.get(), a.ldx = (int64_t)ldx, a.y = half ? (void *)low.get() : (void *)y.get(), a.ytype = half, a.ldy = out;
    a.residual = residual.get(), a.ldr = out, a.tokens = tokens, a.threads = between(1, 4), a.act = FEWER_RELU;
    expect(fewer_linear(&p.w, &a) == 0, "linear: status");
    for (int t = 0; t < tokens; t++)
        for (int o = 0; o < out; o++) {
            double s = (*p.bias)[o];
            for (int i = 0; i < in; i++) s += p.dense[(size_t)o * in + i] * x[t * ldx + i];
            s = (s > 0 ? s : 0) + residual[(size_t)t * out + o];
            double got = half ? bf16_value(low[(size_t)t * out + o]) : y[(size_t)t * out + o];
            if (fabs(got - s) > tolerance(mode, in) + (half ? 0.01 * fabs(s) : 0)) {
                printf("linear mode %d unit %d ku %d: %d x %d -> %d at (%d, %d): %g, not %g\n", mode, unit, ku, tokens, in, out, t, o, got, s);
                failures++;
                return;
            }
        }
}

void attention(int mode) {
    const int heads = between(1, 3), dim = between(1, 40), queries = between(1, 40), keys = between(1, 50);
    const bool half = uniform() < 0.5;
    const size_t nq = (size_t)queries * heads * dim, nk = (size_t)keys * heads * dim;
    Exact<float> q(nq), k(nk), v(nk), y(nq);
    Exact<uint16_t> hq(nq), hk(nk), hv(nk), hy(nq);
    q.randomise(), k.randomise(), v.randomise();
    for (size_t i = 0; i < nq; i++) hq[i] = bf16(q[i]), q[i] = bf16_value(hq[i]);
    for (size_t i = 0; i < nk; i++) hk[i] = bf16(k[i]), k[i] = bf16_value(hk[i]), hv[i] = bf16(v[i]), v[i] = bf16_value(hv[i]);
    FewerAttention a = {};
    a.q = half ? (void *)hq.get() : q.get(), a.k = half ? (void *)hk.get() : k.get(), a.v = half ? (void *)hv.get() : v.get();
    a.out = half ? (void *)hy.get() : y.get();
    a.q_token = a.k_token = a.v_token = a.o_token = heads * dim;
    a.q_head = a.k_head = a.v_head = a.o_head = dim;
    a.xtype = a.ytype = half, a.mode = mode, a.batch = 1, a.heads = heads, a.queries = queries, a.keys = keys, a.dim = dim;
    a.scale = 1 / sqrtf((float)dim), a.threads = between(1, 3);
    const bool biased = uniform() < 0.5;
    Exact<float> bias(keys);
    bias.randomise();
    if (biased) a.key_bias = bias.get(), a.bias_batch = keys;
    expect(fewer_attention(&a) == 0, "attention: status");
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < queries; i++) {
            std::vector<double> weight(keys);
            double total = 0, first = 0;
            for (int j = 0; j < keys; j++) {
                double s = 0;
                for (int d = 0; d < dim; d++) s += (double)q[((size_t)i * heads + h) * dim + d] * k[((size_t)j * heads + h) * dim + d];
                total += weight[j] = exp(s * a.scale + (biased ? bias[j] : 0));
            }
            for (int j = 0; j < keys; j++) first += weight[j] / total * v[((size_t)j * heads + h) * dim];
            size_t at = ((size_t)i * heads + h) * dim;
            double got = half ? bf16_value(hy[at]) : y[at];
            if (fabs(got - first) > (half || mode ? 0.02 : 1e-5)) return expect(false, "attention: value");
        }
}

void block(int mode) {
    const int heads = between(1, 3), width = heads * between(1, 20), hidden = between(1, 90), batch = between(1, 3), tokens = between(1, 60);
    Packed qkv(mode, 3 * width, width, 2, 0.5), proj(mode, width, width, 1, 0.5), fc1(mode, hidden, width, 4, 0.5), fc2(mode, width, hidden, 1, 0.5);
    Exact<float> ones(width), zeros(width), x((size_t)batch * tokens * width), y(x.n), again(x.n);
    for (int i = 0; i < width; i++) ones[i] = 1;
    x.randomise();
    FewerBlock a = {&qkv.w, &proj.w, &fc1.w, &fc2.w, ones.get(), zeros.get(), ones.get(), zeros.get(), 1e-6f, 1e-6f, FEWER_GELU, heads,
                    batch, tokens, x.get(), y.get(), mode == FEWER_F32 ? FEWER_F32 : FEWER_BF16, 0.3f, 1};
    expect(fewer_block(&a) == 0, "block: status");
    a.y = again.get(), a.threads = between(2, 5);
    expect(fewer_block(&a) == 0, "block: status with threads");
    for (size_t i = 0; i < x.n; i++)
        if (fabs(y[i] - again[i]) > 1e-4 * (1 + fabs(y[i]))) return expect(false, "block: threads change the result");
}

void convolution(int mode) {
    const int unit = mode == FEWER_F32 ? 1 : 2, ku = 1 << between(0, 2), channels = between(1, 20), padded = (channels + ku * unit - 1) / (ku * unit) * ku * unit;
    const int kernel = between(1, 3), stride = between(1, 2), pad = between(0, 2), height = between(3, 12), width = between(3, 12), out = between(1, 40);
    Packed p(mode, out, kernel * kernel * padded, ku, 0.6);
    FewerConv a = {};
    const int oh = (height + 2 * pad - kernel) / stride + 1, ow = (width + 2 * pad - kernel) / stride + 1;
    Exact<float> x((size_t)height * width * channels), y((size_t)oh * ow * out);
    x.randomise();
    const bool last = uniform() < 0.5;
    a.x = x.get(), a.y = y.get();
    a.x_channel = last ? 1 : height * width, a.x_row = last ? width * channels : width, a.x_col = last ? channels : 1;
    a.batch = 1, a.channels = channels, a.channels_padded = padded, a.height = height, a.width = width;
    a.kernel_h = a.kernel_w = kernel, a.stride_h = a.stride_w = stride, a.pad_h = a.pad_w = pad, a.dilation_h = a.dilation_w = 1;
    a.out_h = oh, a.out_w = ow, a.threads = between(1, 3);
    expect(fewer_conv(&p.w, &a) == 0, "conv: status");
    for (int r = 0; r < oh; r++)
        for (int c = 0; c < ow; c++) {
            double s = (*p.bias)[0];
            for (int i = 0; i < kernel; i++)
                for (int j = 0; j < kernel; j++)
                    for (int ch = 0; ch < channels; ch++) {
                        int iy = r * stride - pad + i, ix = c * stride - pad + j;
                        if (iy < 0 || ix < 0 || iy >= height || ix >= width) continue;
                        s += p.dense[(size_t)(i * kernel + j) * padded + ch] * x[iy * a.x_row + ix * a.x_col + ch * a.x_channel];
                    }
            if (fabs(y[((size_t)r * ow + c) * out] - s) > tolerance(mode, kernel * kernel * channels)) return expect(false, "conv: value");
        }
}

// Two inverted residuals, the first with or without a stem: one thread against several, and the first value against loops.
void chain(int mode) {
    const int unit = mode == FEWER_F32 ? 1 : mode == FEWER_BF16 ? 2 : 4, most = 16 / unit;
    const bool stem = uniform() < 0.5, last = uniform() < 0.5;
    const int channels = between(1, stem ? 4 : 40), in = stem ? 32 : (channels + 15) / 16 * 16, hidden = 16 * between(1, 3), out = 16 * between(1, 3);
    const int kernel = uniform() < 0.5 ? 3 : 5, stride = between(1, 2), batch = between(1, 3), height = between(1, 20), width = between(1, 20);
    const int ku = 1 << between(0, 2);
    Packed expand(mode == FEWER_I8 && stem ? FEWER_BF16 : mode, hidden, in, ku < most ? ku : most, 0.6), project(mode, out, hidden, ku < most ? ku : most, 0.6);
    Packed again(mode, hidden, out, 1, 0.6), back(mode, out, hidden, 1, 0.6), end(mode, 16, out, 1, 0.6);
    Exact<float> filter((size_t)kernel * kernel * hidden), bias(hidden);
    filter.randomise(), bias.randomise();
    FewerStage s[3] = {};
    s[0].expand = &expand.w, s[0].filter = filter.get(), s[0].filter_bias = bias.get(), s[0].project = &project.w;
    s[0].expand_kernel = stem ? 3 : 1, s[0].expand_stride = stem ? 2 : 1, s[0].expand_pad = stem ? 1 : 0;
    if (stem && channels * 9 > 32) return;
    s[0].filter_kernel = kernel, s[0].filter_stride = stride, s[0].filter_pad = kernel / 2;
    s[0].expand_act = FEWER_RELU6, s[0].filter_act = FEWER_SILU;
    s[1] = s[0];
    s[1].expand = &again.w, s[1].project = &back.w, s[1].filter_stride = 1, s[1].residual = 1, s[1].filter_act = FEWER_RELU;
    s[1].expand_kernel = s[1].expand_stride = 1, s[1].expand_pad = 0;
    s[2].project = &end.w, s[2].expand_kernel = s[2].expand_stride = 1, s[2].project_act = FEWER_RELU6;
    const int count = between(1, 3);
    int rows = height, cols = width;
    if (stem) rows = (rows - 1) / 2 + 1, cols = (cols - 1) / 2 + 1;
    rows = (rows - 1) / stride + 1, cols = (cols - 1) / stride + 1;
    Exact<float> x((size_t)batch * channels * height * width), y((size_t)batch * rows * cols * (count == 3 ? 16 : out)), other(y.n);
    x.randomise();
    FewerChain a = {};
    a.stages = s, a.count = count, a.x = x.get(), a.y = y.get(), a.batch = batch, a.channels = channels, a.height = height, a.width = width;
    a.x_batch = channels * height * width, a.x_channel = last ? 1 : height * width, a.x_row = last ? width * channels : width, a.x_col = last ? channels : 1;
    a.threads = 1;
    expect(fewer_chain(&a) == 0, "chain: status");
    a.y = other.get(), a.threads = between(2, 5);
    expect(fewer_chain(&a) == 0, "chain: status with threads");
    for (size_t i = 0; i < y.n; i++)
        if (!(fabs(y[i] - other[i]) <= 1e-3 * (1 + fabs(y[i])))) return expect(false, "chain: threads change the result");
    s[0].project = nullptr;
    expect(fewer_chain(&a) == FEWER_BAD_ARGUMENT, "chain: a stage without a projection is refused");
}

void others() {
    const int channels = between(1, 40), height = between(3, 9), width = between(3, 12), stride = between(1, 2);
    FewerDepthwise d = {};
    d.batch = 2, d.channels = channels, d.height = height, d.width = width, d.kernel_h = d.kernel_w = 3;
    d.stride_h = d.stride_w = stride, d.pad_h = d.pad_w = 1, d.out_h = (height - 1) / stride + 1, d.out_w = (width - 1) / stride + 1;
    Exact<float> x((size_t)2 * height * width * channels), weight((size_t)9 * channels), bias(channels), y((size_t)2 * d.out_h * d.out_w * channels);
    x.randomise(), weight.randomise();
    d.x = x.get(), d.weight = weight.get(), d.bias = bias.get(), d.y = y.get(), d.threads = 1;
    expect(fewer_depthwise(&d) == 0, "depthwise: status");
    const int rows = between(1, 9), n = between(1, 70);
    Exact<float> a((size_t)rows * n), r((size_t)rows * n), s((size_t)rows * n), one(n), zero(n), f((size_t)rows * n), scale(rows);
    Exact<uint16_t> h((size_t)rows * n);
    Exact<int8_t> b((size_t)rows * n);
    a.randomise(), r.randomise();
    for (int type = 0; type < 3; type++) {
        void *out = type == 0 ? (void *)f.get() : type == 1 ? (void *)h.get() : (void *)b.get();
        FewerNorm norm = {a.get(), r.get(), s.get(), one.get(), zero.get(), 1e-5f, type, out, scale.get(), rows, n, 1};
        expect(fewer_norm(&norm) == 0, "norm: status");
    }
}

// Sums over all tokens of value times size stay, every token of the image is held, and tokens in front are left alone.
void merge() {
    int batch = between(1, 3), protect = between(0, 3), tokens = protect + between(1, 40), width = log_between(70), image = between(1, 60);
    int count = between(0, (tokens - protect) / 2), left = tokens - count;
    Exact<float> x((size_t)batch * tokens * width), sizes((size_t)batch * tokens), y((size_t)batch * left * width), total((size_t)batch * left);
    Exact<int64_t> origin((size_t)batch * image), placed((size_t)batch * image);
    x.randomise();
    for (size_t i = 0; i < sizes.n; i++) sizes[i] = (float)between(1, 4);
    for (size_t i = 0; i < origin.n; i++) origin[i] = between(0, tokens - 1);
    FewerMerge a = {x.get(), sizes.get(), origin.get(), y.get(), total.get(), placed.get(), batch, tokens, width, image, count, protect, between(1, 3)};
    expect(fewer_merge(&a) == 0, "merge: status");
    for (int b = 0; b < batch; b++) {
        for (int k = 0; k < width; k++) {
            double before = 0, after = 0;
            for (int t = 0; t < tokens; t++) before += (double)x[((size_t)b * tokens + t) * width + k] * sizes[(size_t)b * tokens + t];
            for (int t = 0; t < left; t++) after += (double)y[((size_t)b * left + t) * width + k] * total[(size_t)b * left + t];
            if (!(fabs(before - after) <= 1e-4 * (1 + fabs(before)))) return expect(false, "merge: sums");
        }
        for (int i = 0; i < image; i++)
            if (placed[(size_t)b * image + i] < 0 || placed[(size_t)b * image + i] >= left) return expect(false, "merge: a token is lost");
        for (int i = 0; i < protect * width; i++)
            if (y[(size_t)b * left * width + i] != x[(size_t)b * tokens * width + i]) return expect(false, "merge: a protected token has changed");
    }
    a.count = (tokens - protect) / 2 + 1;
    expect(fewer_merge(&a) == FEWER_BAD_ARGUMENT, "merge: more than there are pairs");
}

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
int64_t within(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

// Kernels of integers against their definitions in 64 bits: every number has to be the same.
void integers() {
    const int rows = between(1, 9), width = log_between(700), shift = between(0, 30), threads = between(1, 3), size = log_between(500), low = between(-300, 300);
    const size_t n = (size_t)rows * width;
    Exact<int32_t> x(n), multiply(width), residual(n), wide(n), powers(width);
    Exact<int64_t> add(width);
    Exact<int8_t> table(size), bytes(n);
    for (size_t i = 0; i < n; i++) x[i] = between(-(1 << 22) - 5, (1 << 22) + 5), residual[i] = between(-(1 << 22), 1 << 22);
    for (int i = 0; i < width; i++) multiply[i] = between(-(1 << 23), 1 << 23) >> between(0, 23), add[i] = (int64_t)between(-(1 << 29), 1 << 29) * (1 << between(0, 5)), powers[i] = between(0, 15);
    for (int i = 0; i < size; i++) table[i] = (int8_t)between(-127, 127);
    for (int way = 0; way < 3; way++) {
        FewerIntegerAffine a = {x.get(), multiply.get(), add.get(), shift, way == 1 ? table.get() : nullptr, low, size, way == 2 ? residual.get() : nullptr, way == 2 ? (void *)wide.get() : (void *)bytes.get(), rows, width, threads};
        expect(fewer_integer_affine(&a) == 0, "affine: status");
        for (size_t i = 0; i < n; i++) {
            int64_t v = ((int64_t)x[i] * multiply[i % width] + add[i % width]) >> shift;
            if (way == 0 && bytes[i] != within(v, -127, 127)) return expect(false, "affine: bytes");
            if (way == 1 && bytes[i] != table[within(v, low, low + size - 1) - low]) return expect(false, "affine: table");
            if (way == 2 && wide[i] != (int32_t)(uint32_t)(within(v, INT32_MIN, INT32_MAX) + residual[i])) return expect(false, "affine: residual");
        }
        a.shift = 63;
        expect(fewer_integer_affine(&a) == FEWER_BAD_ARGUMENT, "affine: a shift out of range is refused");
    }
    const int groups = between(1, 3), group_rows = between(1, 3), reach = log_between(3000), halving = between(4, 900);
    Exact<int32_t> factor(groups), slopes(4), intercepts(4);
    Exact<int64_t> offset(groups);
    Exact<uint32_t> exponential(reach + 1);
    Exact<uint16_t> p(n);
    for (int i = 0; i < groups; i++) factor[i] = between(1, 1 << 12), offset[i] = between(-4096, 4096);
    for (int i = 0; i <= reach; i++) exponential[i] = (uint32_t)((1 << between(0, 26)) * (i != reach) + (i == 0));
    for (int i = 0; i < 4; i++) slopes[i] = (1 << 20) / halving * (200 - 20 * i), intercepts[i] = (1 << 20) - i * 1000;
    for (int lines = 0; lines < 2; lines++) {
        FewerIntegerSoftmax a = {x.get(), factor.get(), offset.get(), 20, groups, group_rows, lines ? nullptr : exponential.get(), lines ? 30 * halving : reach, lines ? halving : 0, slopes.get(), intercepts.get(), p.get(), rows, width, threads};
        expect(fewer_integer_softmax(&a) == 0, "softmax: status");
        for (int r = 0; r < rows; r++) {
            const int g = r / group_rows % groups;
            std::vector<int64_t> e(width);
            int64_t top = INT64_MIN, total = 0;
            for (int i = 0; i < width; i++) e[i] = ((int64_t)x[(size_t)r * width + i] * factor[g] + offset[g]) >> 20, top = e[i] > top ? e[i] : top;
            for (int i = 0; i < width; i++) {
                int64_t below = within(top - e[i], 0, a.reach), left = below % halving, k = left * 4 / halving;
                e[i] = lines ? within(((slopes[k] * -left) >> 8) + intercepts[k], 0, 1 << 20) >> (below / halving) : exponential[below];
                total += e[i];
            }
            for (int i = 0; i < width; i++)
                if (p[(size_t)r * width + i] != within((e[i] << 16) / total, 0, 65535)) return expect(false, lines ? "softmax: lines" : "softmax: table");
        }
        a.reach = -1;
        expect(fewer_integer_softmax(&a) == FEWER_BAD_ARGUMENT, "softmax: a reach below nothing is refused");
    }
    for (int way = 0; way < 4; way++) {
        FewerIntegerNorm a = {x.get(), way & 1 ? powers.get() : nullptr, way != 3, multiply.get(), add.get(), shift, way & 2 ? nullptr : bytes.get(), way & 2 ? wide.get() : nullptr, rows, width, threads};
        expect(fewer_integer_norm(&a) == 0, "norm: status");
        for (int r = 0; r < rows; r++) {
            std::vector<int64_t> v(width);
            int64_t total = 0, squares = 0;
            for (int i = 0; i < width; i++) {
                int64_t unit = (int64_t)1 << powers[i];
                v[i] = x[(size_t)r * width + i];
                if (way & 1) v[i] = within(floor_divide(2 * v[i] + unit, 2 * unit), -127, 127) * unit;
                v[i] = within(v[i], -(1 << 22), 1 << 22), total += v[i];
            }
            const int64_t mean = a.centre ? floor_divide(2 * total + width, 2 * width) : 0;
            for (int i = 0; i < width; i++) v[i] -= mean, squares += v[i] * v[i];
            int64_t square = squares / width << 16, d = (int64_t)sqrtl((long double)square);
            while (d * d > square) d--;
            while ((d + 1) * (d + 1) <= square) d++;
            if (d < 1) d = 1;
            for (int i = 0; i < width; i++) {
                int64_t y = floor_divide(v[i] * (1 << 19) + d, 2 * d);
                y = (y * multiply[i] + add[i]) >> shift;
                int64_t got = way & 2 ? wide[(size_t)r * width + i] : bytes[(size_t)r * width + i];
                if (got != (way & 2 ? within(y, INT32_MIN, INT32_MAX) : within(y, -127, 127))) return expect(false, "norm: a number");
            }
        }
        a.y = bytes.get(), a.wide = wide.get();
        expect(fewer_integer_norm(&a) == FEWER_BAD_ARGUMENT, "norm: two results are refused");
    }
}

}  // namespace

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 60;
    int supported;
    for (int i = 0; const char *name = fewer_variant(i, &supported); i++) {
        if (!supported || fewer_select(name) != 0) {
            printf("%s: not on this processor\n", name);
            continue;
        }
        for (int round = 0; round < rounds; round++) {
            for (int mode = 0; mode < 3; mode++) linear(mode), block(mode), chain(mode);
            for (int mode = 0; mode < 2; mode++) attention(mode), convolution(mode);
            others(), merge(), integers();
        }
        printf("%s: %d rounds, %d failures\n", name, rounds, failures);
    }
    expect(fewer_select("mmx") == 1, "an unknown instruction set is refused");
    return failures != 0;
}
