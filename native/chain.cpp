// A chain of convolutional stages (inverted residuals, and what has the same parts) in one call.
//
// A stage goes through its output in bands of a few rows. The expanded rows that the depthwise filter needs lie in a ring,
// the filtered ones in a small buffer in the format that the projection reads: the wide tensors of an inverted residual
// never reach memory. The ring is fp32 in all precisions: conversions would cost the filter more than the bytes do.
// Between the stages, where tensors are thin, activations are fp32 too.
#include "linear.h"
#include "simd.h"

namespace FEWER_NS {

namespace {

struct Sizes {  // of one stage, channels padded to 16
    int64_t in_h, in_w, in_c, hid_h, hid_w, hid_c, out_h, out_w, out_c;
};

FEWER_INLINE int64_t out_size(int64_t n, int kernel, int stride, int pad) { return (n + 2 * pad - kernel) / stride + 1; }

Sizes sizes_of(const FewerStage &s, int64_t h, int64_t w, int64_t c) {
    Sizes z = {h, w, c, h, w, c, 0, 0, s.project->out};
    if (s.expand) {
        z.hid_h = out_size(h, s.expand_kernel, s.expand_stride, s.expand_pad);
        z.hid_w = out_size(w, s.expand_kernel, s.expand_stride, s.expand_pad);
        z.hid_c = s.expand->out;
    }
    z.out_h = s.filter ? out_size(z.hid_h, s.filter_kernel, s.filter_stride, s.filter_pad) : z.hid_h;
    z.out_w = s.filter ? out_size(z.hid_w, s.filter_kernel, s.filter_stride, s.filter_pad) : z.hid_w;
    return z;
}

// ReLU and ReLU6 are bounds; other activations follow in a pass of their own. NaN passes, see vmax.
struct Bounds {
    float low, high;
    explicit Bounds(int act)
        : low(act == FEWER_RELU || act == FEWER_RELU6 ? 0.0f : -__builtin_inff()), high(act == FEWER_RELU6 ? 6.0f : __builtin_inff()) {}
};

__attribute__((noinline)) void activate_row(char *row, int64_t n, int low, int act) {
    for (int64_t i = 0; i < n; i += LANES) {
        vf v = activate(low ? from_bf16(row + 2 * i) : load(row + 4 * i), act);
        if (low) to_bf16(row + 2 * i, v);
        else store(row + 4 * i, v);
    }
}

constexpr int PIXELS = 4;  // neighbouring outputs of a filter that are computed together

// Where the outputs of a filter go: pixels of fp32 or bf16, or of int8 as the product reads them. Those are quantised
// while they are in L1.
struct Filtered {
    char *rows;
    int64_t pixel_bytes, padded;
    int32_t mode;         // of the product that reads them
    QuantiseFn quantise;  // null unless int8
    float *group, *scales;
};

// One output row of a depthwise filter, to the pixels from `pixel` on. `rows` are the K input rows, or null above and below the image. Every tap of four
// neighbouring outputs gets a pointer, to zeros outside of the image, so that the loop over channels has no edges.
template <int K, int S>
void filter_row(const FewerStage &s, const Sizes &z, const char *const *rows, const char *zeros, const Filtered &to, int64_t pixel) {
    constexpr int P = PIXELS, COLS = (P - 1) * S + K;
    const int64_t channels = z.hid_c;
    const bool low_out = to.mode == FEWER_BF16;
    const Bounds bounds(s.filter_act);
    const vf low = splat(bounds.low), high = splat(bounds.high);
    for (int64_t ox = 0; ox < z.out_w; ox += P) {
        const char *at[K][COLS];
        for (int ky = 0; ky < K; ky++)
            for (int x = 0; x < COLS; x++) {
                int64_t ix = ox * S - s.filter_pad + x;
                at[ky][x] = rows[ky] && ix >= 0 && ix < z.hid_w ? rows[ky] + ix * channels * 4 : zeros;
            }
        int count = (int)least<int64_t>(P, z.out_w - ox);
        char *y = to.quantise ? (char *)to.group : to.rows + (pixel + ox) * to.pixel_bytes;
        const int64_t step = to.quantise ? to.padded * 4 : to.pixel_bytes;
        for (int64_t c = 0; c < channels; c += LANES) {
            vf acc[P], bias = load(s.filter_bias + c);
            for (int i = 0; i < P; i++) acc[i] = bias;
#pragma GCC unroll 8
            for (int ky = 0; ky < K; ky++) {
                vf w[K];
#pragma GCC unroll 8
                for (int kx = 0; kx < K; kx++) w[kx] = load(s.filter + (ky * K + kx) * channels + c);
#pragma GCC unroll 16
                for (int x = 0; x < COLS; x++) {
                    vf v = load(at[ky][x] + c * 4);
#pragma GCC unroll 4
                    for (int i = 0; i < P; i++)
                        if (x - i * S >= 0 && x - i * S < K) acc[i] += w[x - i * S] * v;
                }
            }
#pragma GCC unroll 4
            for (int i = 0; i < P; i++) {
                if (i >= count) break;
                vf v = vmin(high, vmax(low, acc[i]));
                if (low_out) to_bf16(y + i * step + c * 2, v);
                else store(y + i * step + c * 4, v);
            }
        }
        for (int i = 0; i < count; i++) {
            if (s.filter_act != FEWER_NONE && s.filter_act != FEWER_RELU && s.filter_act != FEWER_RELU6)
                activate_row(y + i * step, channels, low_out, s.filter_act);
            if (to.quantise) to.scales[pixel + ox + i] = to.quantise(to.group + i * to.padded, to.padded, to.rows + (pixel + ox + i) * to.pixel_bytes);
        }
    }
}

typedef void (*FilterFn)(const FewerStage &, const Sizes &, const char *const *, const char *, const Filtered &, int64_t);
FilterFn filter_of(int kernel, int stride) {
    if (kernel == 3) return stride == 1 ? filter_row<3, 1> : filter_row<3, 2>;
    return stride == 1 ? filter_row<5, 1> : filter_row<5, 2>;
}

// The input of a stage: channels-last and padded, or (for a stem) an image of any strides.
struct Source {
    const float *x;
    int64_t channel, row, col;
    int32_t channels;
};

// Input row `y` of a stem as the gathering reads it: (column, channel), with columns of zeros beside it. (Not inline: among
// the many variables of stage_rows, the counters of its loops would lie in memory.)
__attribute__((noinline)) void stem_line(const FewerStage &s, const Sizes &z, const Source &in, int64_t y, int low, float *row, char *line) {
    const int64_t channels = in.channels, hop = in.col, values = (z.in_w + 2 * s.expand_pad) * channels;
    memset(row, 0, (size_t)values * 4);
    if (y >= 0 && y < z.in_h) {
        for (int64_t c = 0; c < channels; c++) {
            const float *p = in.x + y * in.row + c * in.channel;
            float *d = row + s.expand_pad * channels + c;
            for (const float *end = d + z.in_w * channels; d != end; d += channels, p += hop) *d = *p;
        }
    }
    if (!low) memcpy(line, row, (size_t)values * 4);
    else
        for (int64_t i = 0; i < values; i += LANES) to_bf16(line + 2 * i, load(row + i));
}

// The k x k neighbourhoods of output row `y` of a stem, as rows of (tap, channel), from a ring of k lines. Whole chunks
// are copied; what a chunk writes too much is overwritten by the next one, and `dst` has room for one more.
__attribute__((noinline)) void gather_row(const FewerStage &s, const Sizes &z, const char *lines, int64_t line_bytes, int64_t y, int64_t channels, int64_t bytes, char *dst) {
    constexpr int64_t CHUNK = 32;
    const int64_t k = s.expand_kernel, run = k * channels * bytes, hop = s.expand_stride * channels * bytes;
    const int64_t pixel = s.expand->in * bytes;
    for (int64_t x = 0; x < z.hid_w; x++, dst += pixel) {
        for (int64_t ky = 0, slot = y * s.expand_stride % k; ky < k; ky++, slot = slot + 1 == k ? 0 : slot + 1)
            for (int64_t i = 0; i < run; i += CHUNK) memcpy(dst + ky * run + i, lines + slot * line_bytes + x * hop + i, CHUNK);
        for (int64_t i = k * run; i < pixel; i += CHUNK) memset(dst + i, 0, CHUNK);
    }
}

// Output rows [y0, y1) of one stage and image. False when memory is exhausted.
bool stage_rows(const FewerStage &s, const Sizes &z, const Source &in, float *out, int64_t y0, int64_t y1, const Products &products) {
    if (y1 <= y0) return true;
    const int64_t row_bytes = z.hid_w * z.hid_c * 4;
    // About 64 pixels for each visit of a weight.
    const int64_t step = least(y1 - y0, most<int64_t>(1, 64 / z.out_w));
    const int64_t ring = s.filter ? (step - 1) * s.filter_stride + s.filter_kernel : 0;
    const bool stem = s.expand && s.expand_kernel > 1;
    const RowsFn run_rows = products.rows;
    Filtered filtered = {nullptr, 0, z.hid_c, s.project->mode, nullptr, nullptr, nullptr};
    char *hidden = nullptr, *zeros = nullptr;
    char *gathered = nullptr, *lines = nullptr;
    float *line = nullptr;
#if defined(__AVX512BF16__)
    const int stem_low = stem && s.expand->mode == FEWER_BF16;
#else
    const int stem_low = 0;  // without the bf16 product inputs are not rounded
#endif
    const int64_t stem_bytes = stem_low ? 2 : 4, line_values = stem ? up((z.in_w + 2 * s.expand_pad) * in.channels, 16) + 16 : 0;
    int64_t next_line = 0;  // first line, padding included, that is not yet there
    if (s.filter) {
        int64_t ring_bytes = s.expand ? ring * row_bytes : 0;
        hidden = (char *)fewer_scratch(FEWER_SLOT_HIDDEN, ring_bytes + z.hid_c * 4);
        filtered.pixel_bytes = z.hid_c * (filtered.mode == FEWER_F32 ? 4 : 2);
        if (filtered.mode == FEWER_I8) {
            filtered.quantise = products.quantise(*s.project);
            products.quantised_size(*s.project, &filtered.padded, &filtered.pixel_bytes);
            const int64_t group_values = PIXELS * filtered.padded;
            filtered.group = (float *)fewer_scratch(FEWER_SLOT_VALUES, (group_values + step * z.out_w) * 4);
            if (!filtered.group) return false;
            memset(filtered.group, 0, (size_t)group_values * 4);  // values beyond the channels stay zero
            filtered.scales = filtered.group + group_values;
        }
        filtered.rows = (char *)fewer_scratch(FEWER_SLOT_CONTEXT, step * z.out_w * filtered.pixel_bytes);
        if (!hidden || !filtered.rows) return false;
        zeros = hidden + ring_bytes;
        memset(zeros, 0, (size_t)z.hid_c * 4);
    }
    if (stem) {
        const int64_t gathered_bytes = up(z.hid_w * s.expand->in * stem_bytes + 32, 64);
        line = (float *)fewer_scratch(FEWER_SLOT_TILE, line_values * 4 + gathered_bytes + s.expand_kernel * line_values * stem_bytes);
        if (!line) return false;
        gathered = (char *)(line + line_values), lines = gathered + gathered_bytes;
    }
    FilterFn filter = !s.filter ? nullptr : filter_of(s.filter_kernel, s.filter_stride);
    int64_t next = 0;  // first expanded row that is not yet in the ring
    for (int64_t r = y0; r < y1; r += step) {
        const int64_t n = least(step, y1 - r), first = r * s.filter_stride - s.filter_pad;
        Output to = {out + r * z.out_w * z.out_c, z.out_c, FEWER_T_F32, s.project_act, nullptr, 0};
        if (s.residual) to.residual = in.x + r * z.in_w * z.in_c, to.ldr = z.in_c;
        if (!s.filter) {
            Prologue rows = {in.x + r * z.in_w * z.in_c, z.in_c, FEWER_T_F32, nullptr, nullptr, 0};
            if (!run_rows(*s.project, rows, 0, n * z.out_w, to)) return false;
            continue;
        }
        const int64_t last = least(z.hid_h, first + (n - 1) * s.filter_stride + s.filter_kernel);
        next = most(next, most<int64_t>(0, first));
        while (s.expand && next < last) {
            int64_t slot = next % ring, m = stem ? 1 : least(last - next, ring - slot);
            Prologue rows = {in.x + next * z.in_w * z.in_c, z.in_c, FEWER_T_F32, nullptr, nullptr, 0};
            if (stem) {
                const int64_t top = next * s.expand_stride, k = s.expand_kernel, line_bytes = line_values * stem_bytes;
                for (next_line = most(next_line, top); next_line < top + k; next_line++)
                    stem_line(s, z, in, next_line - s.expand_pad, stem_low, line, lines + next_line % k * line_bytes);
                gather_row(s, z, lines, line_bytes, next, in.channels, stem_bytes, gathered);
                rows.x = gathered, rows.ldx = s.expand->in, rows.type = stem_low ? FEWER_T_BF16 : FEWER_T_F32;
            }
            if (!run_rows(*s.expand, rows, 0, m * z.hid_w, {hidden + slot * row_bytes, z.hid_c, FEWER_T_F32, s.expand_act, nullptr, 0})) return false;
            next += m;
        }
        for (int64_t i = 0; i < n; i++) {
            const char *rows[5];
            for (int k = 0; k < s.filter_kernel; k++) {
                int64_t y = first + i * s.filter_stride + k;
                const char *row = s.expand ? hidden + (y < 0 ? 0 : y % ring) * row_bytes : (const char *)(in.x + (y < 0 ? 0 : y) * z.in_w * z.in_c);
                rows[k] = y < 0 || y >= z.hid_h ? nullptr : row;
            }
            filter(s, z, rows, zeros, filtered, i * z.out_w);
        }
        if (filtered.quantise) {
            products.quantised(*s.project, filtered.rows, filtered.scales, n * z.out_w, to);
            continue;
        }
        Prologue rows = {filtered.rows, z.hid_c, filtered.mode == FEWER_F32 ? FEWER_T_F32 : FEWER_T_BF16, nullptr, nullptr, 0};
        if (!run_rows(*s.project, rows, 0, n * z.out_w, to)) return false;
    }
    return true;
}

// The input of the first stage, unless that is a stem: channels-last, padded to 16 channels.
void copy_image(const FewerChain &a, const float *x, int64_t padded, float *dst) {
    for (int64_t r = 0; r < a.height; r++)
        for (int64_t c = 0; c < a.width; c++, dst += padded) {
            const float *p = x + r * a.x_row + c * a.x_col;
            if (a.x_channel == 1) memcpy(dst, p, (size_t)a.channels * 4);
            else
                for (int i = 0; i < a.channels; i++) dst[i] = p[i * a.x_channel];
            for (int64_t i = a.channels; i < padded; i++) dst[i] = 0;
        }
}

bool valid(const FewerStage &s, int64_t c) {
    const FewerWeight *first = s.expand ? s.expand : s.project;
    if (!s.project || s.project->out % 16 || (s.expand && s.expand->out % 16)) return false;
    if (s.expand && !s.filter) return false;
    if (s.filter && ((s.filter_kernel != 3 && s.filter_kernel != 5) || s.filter_stride < 1 || s.filter_stride > 2)) return false;
    if (!(s.expand && s.expand_kernel > 1) && first->in != c) return false;
    return !s.expand || s.project->in == s.expand->out;
}

}  // namespace

int chain_with(const FewerChain *chain, const Products &products) {
    const FewerChain &a = *chain;
    constexpr int MOST = 256;
    Sizes z[MOST];
    if (a.count < 1 || a.count > MOST) return FEWER_BAD_ARGUMENT;
    if (a.batch <= 0) return FEWER_OK;
    const bool stem = a.stages[0].expand && a.stages[0].expand_kernel > 1;
    int64_t h = a.height, w = a.width, c = up(a.channels, 16), space = stem ? 0 : h * w * c;
    for (int i = 0; i < a.count; i++) {
        if (!valid(a.stages[i], c) || (i && a.stages[i].expand && a.stages[i].expand_kernel > 1)) return FEWER_BAD_ARGUMENT;
        z[i] = sizes_of(a.stages[i], h, w, c);
        h = z[i].out_h, w = z[i].out_w, c = z[i].out_c;
        if (h < 1 || w < 1) return FEWER_BAD_ARGUMENT;
        if (i + 1 < a.count) space = most(space, h * w * c);
    }
    const int64_t out_values = h * w * c;
    int threads = a.threads < 1 ? 1 : a.threads, failed = 0;
    const bool images = threads == 1 || a.batch % threads == 0 || a.batch >= 4 * threads;
    // A thread carries whole images; or all threads go through a stage together, each with a band of rows.
    const int64_t together = images ? 1 : a.batch;
    float *shared[2] = {nullptr, nullptr};
    if (!images) {
        shared[0] = (float *)fewer_scratch(FEWER_SLOT_SHARED, together * space * 4 + 64);
        shared[1] = (float *)fewer_scratch(FEWER_SLOT_QKV, together * space * 4 + 64);
        if (!shared[0] || !shared[1]) return FEWER_NO_MEMORY;
    }
    const int bands = images ? 1 : (threads + a.batch - 1) / a.batch;
    const int64_t items = (int64_t)a.batch * bands;
    const int stages_at_once = images ? a.count : 1;
    for (int first = 0; first < a.count; first += stages_at_once) {
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) reduction(| : failed) schedule(static) if (threads > 1)
#endif
        for (int64_t item = 0; item < items; item++) {
            const int64_t b = item / bands, band = item % bands;
            float *buffer[2] = {shared[0], shared[1]};
            if (images) {
                buffer[0] = (float *)fewer_scratch(FEWER_SLOT_SHARED, space * 4 + 64);
                buffer[1] = (float *)fewer_scratch(FEWER_SLOT_QKV, space * 4 + 64);
                if (!buffer[0] || !buffer[1]) {
                    failed = 1;
                    continue;
                }
            } else {
                buffer[0] += b * space, buffer[1] += b * space;
            }
            for (int i = first; i < first + stages_at_once; i++) {
                Source in = {buffer[i & 1], 1, z[i].in_w * z[i].in_c, z[i].in_c, (int32_t)z[i].in_c};
                if (i == 0 && stem) in = {a.x + b * a.x_batch, a.x_channel, a.x_row, a.x_col, a.channels};
                else if (i == 0) copy_image(a, a.x + b * a.x_batch, z[0].in_c, buffer[0]);  // bands write the same values
                float *out = i + 1 < a.count ? buffer[(i + 1) & 1] : a.y + b * out_values;
                if (!stage_rows(a.stages[i], z[i], in, out, z[i].out_h * band / bands, z[i].out_h * (band + 1) / bands, products)) failed = 1;
            }
        }
        if (failed) return FEWER_NO_MEMORY;
    }
    return FEWER_OK;
}

}  // namespace FEWER_NS
