// The micro-kernel: MR rows of activations times one strip of 16 weight rows, over all stored blocks of the strip.
//
// It is vectorised over outputs; activations are broadcast one 32-bit lane at a time. The accumulators (MR x 16) stay
// in registers over the whole strip, so nothing but weights and activations is read.
#pragma once
#include "rows.h"

namespace FEWER_NS {

struct Strip {             // one strip of weights
    const int32_t *kidx;   // first input of each block, in units
    const void *vals;
    int32_t blocks, ku;
    const float *bias;     // 16 values each
    const float *scale;
    const int32_t *corr;
};

// A Mode says how one unit is multiplied. WSTEP: 32-bit weight lanes per row and unit (always 1); XSTEP: activation
// lanes per unit; TILE: rows of a tile, as many accumulators as leave room for weights and the broadcast. More than
// 8 rows were not faster on Zen 4 and suffer from L1 set conflicts. READS: the type of activations that the step can
// take as they lie in memory.
constexpr int READS_NOTHING = -1;
struct ModeF32 {
    static constexpr int ID = FEWER_F32, UNIT = 1, XSTEP = 1, READS = FEWER_T_F32;
    static constexpr int TILE = LANES == 16 ? 8 : LANES == 8 ? 6 : 2, WIDE = LANES == 16 ? 12 : TILE;
    typedef vf Acc;
    typedef float Scalar;
    static FEWER_INLINE vf dot(vf acc, vu w, float s) { return acc + (vf)w * s; }
    static FEWER_INLINE Acc start(const int32_t *) { return vf{}; }
    template <int MR> static FEWER_INLINE void step(Acc (&acc)[MR][NV], const uint32_t *w, const uint32_t *x, int64_t ldx) {
        vf wv[NV];
#pragma GCC unroll 16
        for (int j = 0; j < NV; j++) wv[j] = load(w + j * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            float s = *(const f32_mem *)(x + i * ldx);
#pragma GCC unroll 16
            for (int j = 0; j < NV; j++) acc[i][j] += wv[j] * s;
        }
    }
    static FEWER_INLINE vf finish(Acc a, float, vf) { return a; }
    static FEWER_INLINE float convert_row(const float *row, int64_t padded, uint32_t *dst) {
        memcpy(dst, row, padded * 4);
        return 1.0f;
    }
};

struct ModeBF16 {
    static constexpr int ID = FEWER_BF16, UNIT = 2;
    typedef vf Acc;
    static FEWER_INLINE Acc start(const int32_t *) { return vf{}; }
    static FEWER_INLINE vf finish(Acc a, float, vf) { return a; }
#if defined(__AVX512BF16__)
    static constexpr int XSTEP = 1, TILE = 8, WIDE = 12, READS = FEWER_T_BF16;
    typedef int32_t Scalar;
    static FEWER_INLINE vf dot(vf acc, vu w, int32_t s) {
        return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)w, (__m512bh)_mm512_set1_epi32(s));
    }
    template <int MR> static FEWER_INLINE void step(Acc (&acc)[MR][NV], const uint32_t *w, const uint32_t *x, int64_t ldx) {
        vu wv = load_u(w);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) acc[i][0] = dot(acc[i][0], wv, *(const i32_mem *)(x + i * ldx));
    }
    static FEWER_INLINE float convert_row(const float *row, int64_t padded, uint32_t *dst) {
        for (int64_t i = 0; i < padded; i += LANES) to_bf16((uint16_t *)dst + i, load(row + i));
        return 1.0f;
    }
#else
    // No bf16 product: weights are widened in registers, activations stay fp32 (the two of a unit side by side).
    static constexpr int XSTEP = 2, READS = READS_NOTHING;
    static constexpr int TILE = LANES == 16 ? 8 : LANES == 8 ? 5 : 2, WIDE = TILE;
    template <int MR> static FEWER_INLINE void step(Acc (&acc)[MR][NV], const uint32_t *w, const uint32_t *x, int64_t ldx) {
#pragma GCC unroll 16
        for (int half = 0; half < 2; half++) {
            vf wv[NV];
#pragma GCC unroll 16
            for (int j = 0; j < NV; j++) {
                vu u = load_u(w + j * LANES);
                wv[j] = half ? (vf)(u & 0xffff0000u) : (vf)(u << 16);
            }
#pragma GCC unroll 16
            for (int i = 0; i < MR; i++) {
                float s = *(const f32_mem *)(x + i * ldx + half);
#pragma GCC unroll 16
                for (int j = 0; j < NV; j++) acc[i][j] += wv[j] * s;
            }
        }
    }
    static FEWER_INLINE float convert_row(const float *row, int64_t padded, uint32_t *dst) {
        memcpy(dst, row, padded * 4);
        return 1.0f;
    }
#endif
};

// Activations are quantised per row to [-127, 127] and stored with 128 added (the dot product of VNNI takes unsigned by
// signed); starting the accumulators at -128 * sum(w) removes it again, so the sums are exact integers.
#if defined(__AVX2__)
struct IntegerSums {
    static constexpr int ID = FEWER_I8, UNIT = 4, READS = READS_NOTHING;
    typedef vi Acc;
    static FEWER_INLINE Acc start(const int32_t *corr) { return -load_i(corr); }
    static FEWER_INLINE vf finish(Acc a, float sx, vf sw) { return __builtin_convertvector(a, vf) * (sw * sx); }
};
// The four activations of a unit in one lane.
struct ByteLanes : IntegerSums {
    static constexpr int XSTEP = 1;
    static FEWER_INLINE float convert_row(const float *row, int64_t padded, uint32_t *dst) {
        float inverse, s = row_scale(row_peak(row, padded), &inverse);
        quantise_row(row, padded, inverse, (uint8_t *)dst);
        return s;
    }
};
#endif

#if defined(__AVX512VNNI__)
struct ModeI8 : ByteLanes {
    static constexpr int TILE = 8, WIDE = 12;
    typedef int32_t Scalar;
    static FEWER_INLINE vi dot(vi acc, vu w, int32_t s) {
        return (vi)_mm512_dpbusd_epi32((__m512i)acc, _mm512_set1_epi32(s), (__m512i)w);
    }
    template <int MR> static FEWER_INLINE void step(Acc (&acc)[MR][NV], const uint32_t *w, const uint32_t *x, int64_t ldx) {
        vu wv = load_u(w);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) acc[i][0] = dot(acc[i][0], wv, *(const i32_mem *)(x + i * ldx));
    }
};
typedef ModeI8 ModeI8Narrow;
#elif defined(__AVX2__)
typedef int16_t v16 __attribute__((vector_size(LANES * 4)));
#if defined(__AVX512F__)
FEWER_INLINE vi add_pairs(v16 a, v16 b) { return (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b); }
FEWER_INLINE v16 byte_pairs(vi x, vu w) { return (v16)_mm512_maddubs_epi16((__m512i)x, (__m512i)w); }
#else
FEWER_INLINE vi add_pairs(v16 a, v16 b) { return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
FEWER_INLINE v16 byte_pairs(vi x, vu w) { return (v16)_mm256_maddubs_epi16((__m256i)x, (__m256i)w); }
#endif

// Without VNNI, the fast way: pmaddubsw multiplies bytes and adds up pairs of products in 16 bits. It saturates there, but
// not where the weights of a pair add up to at most 128 in either sign, as 255 * 128 < 2^15 (FewerWeight.narrow). Adding up
// two units before they are widened would save a quarter of the multiplications, but was not faster: of 64 levels few per
// cent of these sums do not fit, and a branch for them costs what they save.
struct ModeI8Narrow : ByteLanes {
    static constexpr int TILE = LANES == 16 ? 8 : 5, WIDE = TILE;
    template <int MR> static FEWER_INLINE void step(Acc (&acc)[MR][NV], const uint32_t *w, const uint32_t *x, int64_t ldx) {
        const v16 ones = (v16)splat_i(0x00010001);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            vi s = splat_i(*(const i32_mem *)(x + i * ldx));
#pragma GCC unroll 16
            for (int j = 0; j < NV; j++) acc[i][j] += add_pairs(byte_pairs(s, load_u(w + j * LANES)), ones);
        }
    }
};

// For all other weights: 16-bit products by pmaddwd, which cannot saturate here. The four activations of a unit are stored
// as two lanes of 16-bit pairs, inputs (0, 2) and (1, 3), to match the cheap way of splitting weights.
struct ModeI8 : IntegerSums {
    static constexpr int XSTEP = 2, TILE = LANES == 16 ? 8 : 4, WIDE = TILE;
    template <int MR> static FEWER_INLINE void step(Acc (&acc)[MR][NV], const uint32_t *w, const uint32_t *x, int64_t ldx) {
#pragma GCC unroll 16
        for (int half = 0; half < 2; half++) {
            v16 wv[NV];
#pragma GCC unroll 16
            for (int j = 0; j < NV; j++) {
                v16 u = (v16)load_u(w + j * LANES);
                wv[j] = half ? u >> 8 : (u << 8) >> 8;
            }
#pragma GCC unroll 16
            for (int i = 0; i < MR; i++) {
                v16 s = (v16)splat_i(*(const i32_mem *)(x + i * ldx + half));
#pragma GCC unroll 16
                for (int j = 0; j < NV; j++) acc[i][j] += add_pairs(s, wv[j]);
            }
        }
    }
    static FEWER_INLINE float convert_row(const float *row, int64_t padded, uint32_t *dst) {
        float inverse, s = row_scale(row_peak(row, padded), &inverse);
        uint8_t bytes[LANES];
        uint16_t *d = (uint16_t *)dst;
        for (int64_t i = 0; i < padded; i += LANES) {
            store_bytes(bytes, quantise(load(row + i), inverse, 128));
            for (int k = 0; k < LANES; k += 4, d += 4) {
                d[0] = bytes[k], d[1] = bytes[k + 2], d[2] = bytes[k + 1], d[3] = bytes[k + 3];
            }
        }
        return s;
    }
};
#else
// Portable: the integers as floats. Sums above 2^24 round in the last bit, far below the quantisation error.
struct ModeI8 {
    static constexpr int ID = FEWER_I8, UNIT = 4, READS = READS_NOTHING, XSTEP = 4, TILE = 2, WIDE = TILE;
    typedef vf Acc;
    static FEWER_INLINE Acc start(const int32_t *) { return vf{}; }
    static FEWER_INLINE vf finish(Acc a, float sx, vf sw) { return a * (sw * sx); }
    template <int MR> static FEWER_INLINE void step(Acc (&acc)[MR][NV], const uint32_t *w, const uint32_t *x, int64_t ldx) {
#pragma GCC unroll 16
        for (int part = 0; part < 4; part++) {
            vf wv[NV];
#pragma GCC unroll 16
            for (int j = 0; j < NV; j++) {
                vi u = (vi)(load_u(w + j * LANES) << (24 - 8 * part));
                wv[j] = __builtin_convertvector(u >> 24, vf);
            }
#pragma GCC unroll 16
            for (int i = 0; i < MR; i++) {
                float s = *(const f32_mem *)(x + i * ldx + part);
#pragma GCC unroll 16
                for (int j = 0; j < NV; j++) acc[i][j] += wv[j] * s;
            }
        }
    }
    static FEWER_INLINE float convert_row(const float *row, int64_t padded, uint32_t *dst) {
        float inverse, s = row_scale(row_peak(row, padded), &inverse);
        for (int64_t i = 0; i < padded; i += LANES)
            store(dst + i, __builtin_convertvector(quantise(load(row + i), inverse, 0) - 0x4B400000, vf));
        return s;
    }
};
typedef ModeI8 ModeI8Narrow;
#endif

// What a tile does with its results before they leave the registers. The common cases of a transformer block; all others
// go through scratch (finish_tile in product.h).
enum Epilogue { PLAIN, ADD, LOW, GELU_LOW, RELU6 };  // fp32; fp32 plus residual; bf16; bf16 of GELU; ReLU6

// out[i][0..15] = epilogue(sums_i + bias), dequantised. Rows of `out` are `ldo` values apart, of `residual` `ldr`.
template <class Mode, int MR, int E>
FEWER_INLINE void finish_sums(const typename Mode::Acc (&acc)[MR][NV], const float *scales, const float *biases, const float *sx,
                              void *out, int64_t ldo, const float *residual, int64_t ldr) {
    vf scale[NV], bias[NV];
#pragma GCC unroll 16
    for (int j = 0; j < NV; j++) scale[j] = load(scales + j * LANES), bias[j] = load(biases + j * LANES);
    alignas(64) float sums[E == GELU_LOW ? MR * STRIP : 1];  // a long function is not written out once for each sum
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 16
        for (int j = 0; j < NV; j++) {
            vf v = Mode::finish(acc[i][j], sx[i], scale[j]) + bias[j];
            int64_t at = i * ldo + j * LANES;
            if (E == ADD) v += load(residual + i * ldr + j * LANES);
            if (E == RELU6) v = vmin(splat(6.0f), vmax(vf{}, v));
            if (E == GELU_LOW) store(sums + i * STRIP + j * LANES, v);
            else if (E == LOW) to_bf16((uint16_t *)out + at, v);
            else store((float *)out + at, v);
        }
    if (E == GELU_LOW)
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < STRIP; j += LANES) to_bf16((uint16_t *)out + i * ldo + j, gelu_short(load(sums + i * STRIP + j)));
}

// One strip times MR rows.
template <class Mode, int MR, int E>
__attribute__((noinline)) void tile(const Strip &strip, const uint32_t *x, int64_t ldx, const float *sx, void *out, int64_t ldo,
                                    const float *residual, int64_t ldr) {
    typename Mode::Acc acc[MR][NV];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 16
        for (int j = 0; j < NV; j++) acc[i][j] = Mode::start(strip.corr + j * LANES);
    const uint32_t *w = (const uint32_t *)strip.vals;
    const int32_t ku = strip.ku;
    for (int32_t b = 0; b < strip.blocks; b++) {
        const uint32_t *xp = x + (int64_t)strip.kidx[b] * Mode::XSTEP;
        for (int32_t k = 0; k < ku; k++, w += STRIP, xp += Mode::XSTEP) Mode::template step<MR>(acc, w, xp, ldx);
    }
    finish_sums<Mode, MR, E>(acc, strip.scale, strip.bias, sx, out, ldo, residual, ldr);
}

// A strip and the one behind it, which keeps the same blocks, times Mode::WIDE rows: what is loaded of the activations serves
// both, so that loads no longer are what the products wait for.
template <class Mode, int E>
__attribute__((noinline)) void tile_pair(const Strip &strip, const uint32_t *x, int64_t ldx, const float *sx, void *out, int64_t ldo,
                                         const float *residual, int64_t ldr) {
    constexpr int MR = Mode::WIDE;
    if constexpr (MR > Mode::TILE) {
        typename Mode::Acc acc[2][MR][NV];
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) acc[0][i][0] = Mode::start(strip.corr), acc[1][i][0] = Mode::start(strip.corr + STRIP);
        const int32_t ku = strip.ku;
        const uint32_t *w = (const uint32_t *)strip.vals, *v = w + (int64_t)strip.blocks * ku * STRIP;
        for (int32_t b = 0; b < strip.blocks; b++) {
            const uint32_t *xp = x + strip.kidx[b];
            for (int32_t k = 0; k < ku; k++, w += STRIP, v += STRIP, xp++) {
                vu first = load_u(w), second = load_u(v);
#pragma GCC unroll 16
                for (int i = 0; i < MR; i++) {
                    typename Mode::Scalar s;
                    memcpy(&s, xp + i * ldx, 4);
                    acc[0][i][0] = Mode::dot(acc[0][i][0], first, s);
                    acc[1][i][0] = Mode::dot(acc[1][i][0], second, s);
                }
            }
        }
        constexpr int BYTES = E == LOW || E == GELU_LOW ? 2 : 4;
        finish_sums<Mode, MR, E>(acc[0], strip.scale, strip.bias, sx, out, ldo, residual, ldr);
        finish_sums<Mode, MR, E>(acc[1], strip.scale + STRIP, strip.bias + STRIP, sx, (char *)out + STRIP * BYTES, ldo,
                                 E == ADD ? residual + STRIP : residual, ldr);
    }
}

typedef void (*TileFn)(const Strip &, const uint32_t *, int64_t, const float *, void *, int64_t, const float *, int64_t);
constexpr int TILE_MAX = 12;

// Tiles of up to 8 rows, or of all of Mode::WIDE; a PAIR of strips has the latter only.
constexpr int PAIR = -1;
template <class Mode, int E = PLAIN> FEWER_INLINE TileFn tile_of(int rows) {
#define FEWER_TILE(n) tile<Mode, (Mode::WIDE >= n ? n : 1), E>
    static const TileFn table[] = {FEWER_TILE(1), FEWER_TILE(2), FEWER_TILE(3), FEWER_TILE(4),
                                   FEWER_TILE(5), FEWER_TILE(6), FEWER_TILE(7), FEWER_TILE(8)};
#undef FEWER_TILE
    if constexpr (Mode::WIDE > 8) {
        if (rows == PAIR) return tile_pair<Mode, E>;
        if (rows > 8) return tile<Mode, Mode::WIDE, E>;
    }
    return table[rows - 1];
}

// Modes that are seldom used have no tiles with an epilogue: each has a copy for every height, and the library is small.
template <class Mode> constexpr bool EPILOGUES = true;
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
template <> constexpr bool EPILOGUES<ModeI8> = false;
#endif

// The tile with an epilogue; the bf16 ones exist where activations between layers are bf16.
template <class Mode> FEWER_INLINE TileFn tile_of(int rows, int epilogue) {
    if constexpr (!EPILOGUES<Mode>) return tile_of<Mode>(rows);
    constexpr bool HAS_LOW = Mode::ID != FEWER_F32;
    switch (epilogue) {
        case ADD: return tile_of<Mode, ADD>(rows);
        case LOW: return tile_of<Mode, HAS_LOW ? LOW : PLAIN>(rows);
        case RELU6: return tile_of<Mode, RELU6>(rows);
        case GELU_LOW: return tile_of<Mode, HAS_LOW ? GELU_LOW : PLAIN>(rows);
        default: return tile_of<Mode>(rows);
    }
}

// Rows of a tile on this processor.
template <class Mode> FEWER_INLINE int tile_rows() { return Mode::WIDE > Mode::TILE && fewer_wide_tiles ? Mode::WIDE : Mode::TILE; }

// Cuts `rows` into tiles. Up to a height of 8 they are ceil(rows / height) of almost equal height, so that 197 rows leave no small
// remainder; of higher tiles there is but one size, and what is left over makes one or two others.
struct Tiles {
    int64_t count, full, low, extra;
    int high;
    Tiles(int64_t rows, int height) : high(height) {
        full = height > 8 ? rows / height : 0;
        int64_t left = rows - full * height, most = height > 8 ? 8 : height, parts = (left + most - 1) / most;
        count = full + parts;
        low = parts ? left / parts : 0;
        extra = full + (parts ? left % parts : 0);
    }
    int height(int64_t i) const { return i < full ? high : (int)(low + (i < extra)); }
};

}  // namespace FEWER_NS
