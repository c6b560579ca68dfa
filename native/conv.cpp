// Convolution without im2col, and dense depthwise convolution; channels-last.
//
// A k x k convolution is the micro-kernel of the linear layer over a padded image: the "row" of an output pixel starts
// at its upper left input pixel, and a block of inputs (dy, dx, channels) lies at a fixed distance from there. So the
// stored block indices are turned into distances once per call, and neighbouring output pixels are a tile.
#include "product.h"

namespace FEWER_NS {

namespace {

struct Image {  // the padded, converted input of one image
    uint32_t *lanes;
    int64_t row_values;  // padded values of a row, a multiple of 16
    int64_t row_lanes, pixel_lanes;
    int64_t rows;
};

// Row `r` of the padded image: zeros outside, channels padded with zeros.
template <class Mode> void convert_image_row(const FewerConv &a, const Image &image, int64_t b, int64_t r, float *row) {
    int64_t y = r - a.pad_h;
    memset(row, 0, (size_t)image.row_values * 4);
    if (y >= 0 && y < a.height) {
        const float *src = a.x + b * a.x_batch + y * a.x_row;
        float *dst = row + (int64_t)a.pad_w * a.channels_padded;
        if (a.x_channel == 1) {
            for (int x = 0; x < a.width; x++) memcpy(dst + (int64_t)x * a.channels_padded, src + x * a.x_col, (size_t)a.channels * 4);
        } else {
            for (int c = 0; c < a.channels; c++)
                for (int x = 0; x < a.width; x++) dst[(int64_t)x * a.channels_padded + c] = src[c * a.x_channel + x * a.x_col];
        }
    }
    Mode::convert_row(row, image.row_values, image.lanes + r * image.row_lanes);
}

// Output rows [y0, y1) of one image times strips [s0, s1).
template <class Mode>
void conv_rows(const FewerWeight &w, const FewerConv &a, const Image &image, int64_t b, int64_t y0, int64_t y1, int64_t s0, int64_t s1) {
    alignas(64) float scratch[TILE_MAX * STRIP];
    Output out = {a.y, w.out, FEWER_T_F32, a.act, a.residual, w.out};
    FinishFn finish = finish_of(a.act, FEWER_T_F32);
    Tiles tiles(a.out_w, tile_rows<Mode>());
    int64_t ldx = a.stride_w * image.pixel_lanes;
    int64_t chunk = most<int64_t>(1, 64 / a.out_w);  // about 64 pixels for each visit of a strip
    for (int64_t c = y0; c < y1; c += chunk)
        for (int64_t s = s0; s < s1; s++) {
            Strip strip = strip_of(w, s);
            int cols = (int)least<int64_t>(STRIP, w.out - s * STRIP);
            for (int64_t y = c; y < least(y1, c + chunk); y++) {
                const uint32_t *x = image.lanes + y * a.stride_h * image.row_lanes;
                int64_t pixel = (b * a.out_h + y) * a.out_w, done = 0;
                for (int64_t t = 0; t < tiles.count; done += tiles.height(t), t++) {
                    int mr = tiles.height(t);
                    tile_of<Mode>(mr)(strip, x + done * ldx, ldx, w.bias, scratch, STRIP, nullptr, 0);
                    finish(scratch, STRIP, mr, cols, out, pixel + done, s * STRIP);
                }
            }
        }
}

template <class Mode> int run_conv(const FewerWeight &stored, const FewerConv &a) {
    Image image;
    image.rows = (int64_t)a.height + 2 * a.pad_h;
    image.row_values = up(((int64_t)a.width + 2 * a.pad_w) * a.channels_padded, 16);
    image.row_lanes = image.row_values / Mode::UNIT * Mode::XSTEP;
    image.pixel_lanes = a.channels_padded / Mode::UNIT * Mode::XSTEP;
    int32_t blocks = stored.rowptr[stored.strips], pixel_units = a.channels_padded / Mode::UNIT;
    int64_t image_bytes = (image.rows * image.row_lanes + 64) * 4;
    image.lanes = (uint32_t *)fewer_scratch(FEWER_SLOT_SHARED, image_bytes + (int64_t)blocks * 4);
    if (!image.lanes) return FEWER_NO_MEMORY;
    int32_t *distance = (int32_t *)((char *)image.lanes + image_bytes);
    for (int32_t i = 0; i < blocks; i++) {
        int32_t unit = stored.kidx[i], tap = unit / pixel_units, channel = unit % pixel_units;
        int64_t dy = (int64_t)(tap / a.kernel_w) * a.dilation_h, dx = (int64_t)(tap % a.kernel_w) * a.dilation_w;
        distance[i] = (int32_t)(dy * (image.row_values / Mode::UNIT) + dx * pixel_units + channel);
    }
    FewerWeight w = stored;
    w.kidx = distance;

    int64_t work = (int64_t)blocks * w.ku * Mode::UNIT * STRIP * a.out_h * a.out_w;
    int threads = (int)least<int64_t>(a.threads, 1 + work / 200000), failed = 0;
    Grid grid(a.out_h, w.strips, threads, 1);
#ifdef _OPENMP
#pragma omp parallel num_threads(grid.tokens * grid.strips) reduction(| : failed) if (threads > 1)
#endif
    {
#ifdef _OPENMP
        int me = omp_get_thread_num(), team = omp_get_num_threads();
#else
        int me = 0, team = 1;
#endif
        float *row = (float *)fewer_scratch(FEWER_SLOT_ROWS, image.row_values * 4);
        if (!row) failed = 1;
        for (int64_t b = 0; b < a.batch; b++) {
            for (int64_t r = image.rows * me / team; row && r < image.rows * (me + 1) / team; r++)
                convert_image_row<Mode>(a, image, b, r, row);
#ifdef _OPENMP
#pragma omp barrier
#endif
            for (int part = me; part < grid.tokens * grid.strips; part += team) {
                int64_t ti = part / grid.strips, si = part % grid.strips;
                conv_rows<Mode>(w, a, image, b, (int64_t)a.out_h * ti / grid.tokens, (int64_t)a.out_h * (ti + 1) / grid.tokens,
                                strip_cut(w, si, grid.strips), strip_cut(w, si + 1, grid.strips));
            }
#ifdef _OPENMP
#pragma omp barrier
#endif
        }
    }
    return failed ? FEWER_NO_MEMORY : FEWER_OK;
}

// PIXELS neighbouring output pixels, one vector of channels, taps [ky0, ky1) x [kx0, kx1). `x` is the input pixel under
// tap (0, 0) of the first output pixel; it may lie outside of the image, the taps used do not.
template <int PIXELS>
FEWER_INLINE void depthwise_tile(const FewerDepthwise &a, const float *x, int64_t c, int ky0, int ky1, int kx0, int kx1, float *y) {
    vf acc[PIXELS];
    vf bias = load(a.bias + c);
    for (int i = 0; i < PIXELS; i++) acc[i] = bias;
    int64_t step = (int64_t)a.stride_w * a.channels;
    for (int ky = ky0; ky < ky1; ky++)
        for (int kx = kx0; kx < kx1; kx++) {
            vf w = load(a.weight + (int64_t)(ky * a.kernel_w + kx) * a.channels + c);
            const float *p = x + ((int64_t)ky * a.width + kx) * a.channels + c;
            for (int i = 0; i < PIXELS; i++) acc[i] += w * load(p + i * step);
        }
    for (int i = 0; i < PIXELS; i++) store(y + (int64_t)i * a.channels + c, activate(acc[i], a.act));
}

// The channels that do not fill a vector.
void depthwise_rest(const FewerDepthwise &a, const float *x, int64_t c, int ky0, int ky1, int kx0, int kx1, float *y) {
    for (; c < a.channels; c++) {
        float s = a.bias[c];
        for (int ky = ky0; ky < ky1; ky++)
            for (int kx = kx0; kx < kx1; kx++)
                s += a.weight[(int64_t)(ky * a.kernel_w + kx) * a.channels + c] * x[((int64_t)ky * a.width + kx) * a.channels + c];
        y[c] = activate(splat(s), a.act)[0];
    }
}

void depthwise_row(const FewerDepthwise &a, int64_t b, int64_t oy) {
    const int64_t vectors = a.channels / LANES * LANES;
    int64_t iy = oy * a.stride_h - a.pad_h;
    int ky0 = (int)most<int64_t>(0, -iy), ky1 = (int)least<int64_t>(a.kernel_h, a.height - iy);
    const float *image = a.x + b * a.height * a.width * a.channels;
    float *out = a.y + (b * a.out_h + oy) * a.out_w * a.channels;
    for (int64_t ox = 0; ox < a.out_w;) {
        int64_t ix = ox * a.stride_w - a.pad_w;
        const float *x = image + (iy * a.width + ix) * a.channels;
        float *y = out + ox * a.channels;
        int kx0 = (int)most<int64_t>(0, -ix), kx1 = (int)least<int64_t>(a.kernel_w, a.width - ix);
        bool four = kx0 == 0 && ox + 4 <= a.out_w && ix + 3 * a.stride_w + a.kernel_w <= a.width;
        for (int64_t c = 0; c < vectors; c += LANES) {
            if (four) depthwise_tile<4>(a, x, c, ky0, ky1, 0, a.kernel_w, y);
            else depthwise_tile<1>(a, x, c, ky0, ky1, kx0, kx1, y);
        }
        for (int i = 0; vectors < a.channels && i < (four ? 4 : 1); i++)
            depthwise_rest(a, x + (int64_t)i * a.stride_w * a.channels, vectors, ky0, ky1, kx0, kx1, y + (int64_t)i * a.channels);
        ox += four ? 4 : 1;
    }
}

}  // namespace

int conv(const FewerWeight *w, const FewerConv *a) {
    if (a->batch <= 0 || a->out_h <= 0 || a->out_w <= 0) return FEWER_OK;
    switch (w->mode) {
        case FEWER_F32: return run_conv<ModeF32>(*w, *a);
        case FEWER_BF16: return run_conv<ModeBF16>(*w, *a);
        default: return FEWER_BAD_ARGUMENT;  // int8 would need one scale for all pixels that a tap can reach
    }
}

int depthwise(const FewerDepthwise *a) {
    int64_t rows = (int64_t)a->batch * a->out_h;
    int threads = (int)least<int64_t>(a->threads, 1 + rows * a->out_w * a->channels * a->kernel_h * a->kernel_w / 100000);
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
#endif
    for (int64_t r = 0; r < rows; r++) depthwise_row(*a, r / a->out_h, r % a->out_h);
    return FEWER_OK;
}

}  // namespace FEWER_NS
