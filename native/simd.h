// Vectors of the instruction set this file is compiled for, written with GCC/Clang vector extensions.
//
// Every source that includes this header is compiled once per instruction set; FEWER_NS puts each copy in its own
// namespace. The sources use no C++ standard library: an inline library function compiled for AVX-512 could be
// the copy that the linker keeps for everybody, and it would crash an older processor.
#pragma once
#include <stdint.h>
#include <string.h>

#include "linear.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define FEWER_INLINE inline __attribute__((always_inline))

namespace FEWER_NS {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int STRIP = FEWER_STRIP;
constexpr int NV = STRIP / LANES;  // vectors in one strip

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(LANES * 4)));
typedef uint16_t vh __attribute__((vector_size(LANES * 2)));
typedef uint8_t vb __attribute__((vector_size(LANES)));
// The same types for memory of any alignment.
typedef float vf_mem __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vi_mem __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t vu_mem __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t vh_mem __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef uint8_t vb_mem __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef float f32_mem __attribute__((may_alias));
typedef int32_t i32_mem __attribute__((may_alias));

FEWER_INLINE vf load(const void *p) { return *(const vf_mem *)p; }
FEWER_INLINE vi load_i(const void *p) { return *(const vi_mem *)p; }
FEWER_INLINE vu load_u(const void *p) { return *(const vu_mem *)p; }
FEWER_INLINE void store(void *p, vf v) { *(vf_mem *)p = v; }
FEWER_INLINE vf splat(float s) { return s - vf{}; }
FEWER_INLINE vi splat_i(int32_t s) { return s - vi{}; }
#if defined(__AVX512F__)  // GCC does not find these instructions in the conditional
FEWER_INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
FEWER_INLINE vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
FEWER_INLINE vi vmax_i(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }
#else
FEWER_INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }  // b where a is NaN
FEWER_INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }  // b where a is NaN
FEWER_INLINE vi vmax_i(vi a, vi b) { return a > b ? a : b; }
#endif
FEWER_INLINE vf vabs(vf a) { return (vf)((vi)a & 0x7fffffff); }

FEWER_INLINE float sum(vf v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#endif
    float s = 0;
    for (int i = 0; i < LANES; i++) s += v[i];
    return s;
}
FEWER_INLINE float maximum(vf v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#endif
    float s = v[0];
    for (int i = 1; i < LANES; i++) s = v[i] > s ? v[i] : s;
    return s;
}

FEWER_INLINE int32_t maximum_i(vi v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32((__m512i)v);
#elif defined(__AVX2__)
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
#endif
    int32_t s = v[0];
    for (int i = 1; i < LANES; i++) s = v[i] > s ? v[i] : s;
    return s;
}

template <class T> FEWER_INLINE T least(T a, T b) { return a < b ? a : b; }
template <class T> FEWER_INLINE T most(T a, T b) { return a > b ? a : b; }
FEWER_INLINE int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// --- bfloat16 ---------------------------------------------------------------------------------------------------
FEWER_INLINE vf from_bf16(const void *p) {
    return (vf)(__builtin_convertvector(*(const vh_mem *)p, vu) << 16);
}
FEWER_INLINE float from_bf16_one(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
// Round to nearest even. Adding the rounding constant to a NaN could carry into the sign or give infinity,
// so a NaN keeps its upper half with the quiet bit set.
FEWER_INLINE void to_bf16(void *p, vf v) {
#if defined(__AVX512BF16__)
    __m256bh h = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &h, 32);
#else
    vu u = (vu)v;
    vu rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    vu nan = (u >> 16) | 0x40;
    vu is_nan = (vu)(v != v);
    *(vh_mem *)p = __builtin_convertvector((is_nan & nan) | (~is_nan & rounded), vh);
#endif
}
FEWER_INLINE uint16_t to_bf16_one(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if (f != f) return (uint16_t)((u >> 16) | 0x40);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

// --- functions ---------------------------------------------------------------------------------------------------
// exp for x <= 88, relative error about 2e-7: 2^n times a polynomial on [-ln2/2, ln2/2]. NaN passes through,
// because the comparison that clamps is false for it.
FEWER_INLINE vf vexp(vf x) {
    x = x > 88.0f ? splat(88.0f) : x;
    x = x < -87.0f ? splat(-87.0f) : x;
    const float magic = 12582912.0f;  // adding it rounds to an integer held in the low mantissa bits
    vf t = x * 1.44269504f + magic;
    vf n = t - magic;
    vf r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    vf p = 1.38888889e-3f * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    vi e = ((vi)t + 127) << 23;  // the low bits of t are n; everything above the 8 exponent bits is shifted out
    return p * (vf)e;
}

// 2^x for -126 <= x <= 126, relative error below 1e-7 (minimax polynomial fitted here). Smaller x give 2^-126; NaN passes.
FEWER_INLINE vf vexp2(vf x) {
    x = vmax(splat(-126.0f), x);
    const float magic = 12582912.0f;
    vf t = x + magic;
    vf r = x - (t - magic);
    vf p = 1.3276457e-3f * r + 9.6755475e-3f;
    p = p * r + 5.5507135e-2f;
    p = p * r + 2.4022120e-1f;
    p = p * r + 6.9314694e-1f;
    p = p * r + 1.0000001f;
    return (vf)((vi)p + ((vi)t << 23));  // the integer part goes straight into the exponent
}

// erf by the rational approximation of Eigen and XLA on [-4, 4]; absolute error below 3e-7.
FEWER_INLINE vf verf(vf x) {
    x = x > 4.0f ? splat(4.0f) : x;
    x = x < -4.0f ? splat(-4.0f) : x;
    vf s = x * x;
    vf p = -2.72614225801306e-10f * s + 2.77068142495902e-08f;
    p = p * s - 2.10102402082508e-06f;
    p = p * s - 5.69250639462346e-05f;
    p = p * s - 7.34990630326855e-04f;
    p = p * s - 2.95459980854025e-03f;
    p = p * s - 1.60960333262415e-02f;
    vf q = -1.45660718464996e-05f * s - 2.13374055278905e-04f;
    q = q * s - 1.68282697438203e-03f;
    q = q * s - 7.37332916720468e-03f;
    q = q * s - 1.42647390514189e-02f;
    return x * p / q;
}
FEWER_INLINE vf gelu(vf x) { return 0.5f * x * (1.0f + verf(x * 0.70710678f)); }
// GELU for results that are rounded to bf16: the normal distribution function as an odd polynomial on [-4, 4], fitted here
// (weighted minimax, then scaled to end at exactly 1 and 0); absolute error below 2.5e-4.
FEWER_INLINE vf gelu_short(vf x) {
    vf c = x > 4.0f ? splat(4.0f) : x;
    c = c < -4.0f ? splat(-4.0f) : c;
    vf s = c * c;
    vf p = 2.277915624e-08f * s - 1.598473963e-06f;
    p = p * s + 4.795252047e-05f;
    p = p * s - 8.139764490e-04f;
    p = p * s + 8.772059144e-03f;
    p = p * s - 6.457105911e-02f;
    p = p * s + 3.978715686e-01f;
    return x * (0.5f + c * p);
}
FEWER_INLINE vf sigmoid(vf x) { return 1.0f / (1.0f + vexp(-x)); }
constexpr int GELU_SHORT = 100;  // chosen by the epilogue, not by the caller
FEWER_INLINE vf activate(vf x, int act) {
    switch (act) {
        case FEWER_GELU: return gelu(x);
        case GELU_SHORT: return gelu_short(x);
        case FEWER_RELU: return x < 0.0f ? vf{} : x;
        case FEWER_SILU: return x * sigmoid(x);
        case FEWER_RELU6: { vf c = x < 0.0f ? vf{} : x; return c > 6.0f ? splat(6.0f) : c; }
        case FEWER_GELU_TANH: return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
        default: return x;
    }
}

}  // namespace FEWER_NS
