// Preparation of activation rows: optional LayerNorm, then conversion into the form the micro-kernel reads.
//
// The micro-kernel broadcasts one 32-bit lane of a row at a time. How many lanes one unit of inputs takes
// (Mode::XSTEP) depends on what the processor can multiply: see micro.h.
#pragma once
#include "simd.h"

namespace FEWER_NS {

// A scratch row is padded by a cache line, and never a multiple of 2048 bytes long: rows a multiple of 4096 bytes
// apart fall into the same L1 sets, and a tile of eight of them then evicts itself (measured: 4 times slower).
FEWER_INLINE int64_t padded_lanes(int64_t lanes) {
    int64_t n = up(lanes, 16) + 16;
    return n % 512 == 0 ? n + 16 : n;
}

// Copies `n` values of either type into floats, zero from n to `padded`.
FEWER_INLINE void load_row(const void *src, int type, int64_t n, int64_t padded, float *dst) {
    int64_t i = 0;
    if (type == FEWER_T_F32) {
        memcpy(dst, src, n * 4);
        i = n;
    } else {
        const uint16_t *h = (const uint16_t *)src;
        for (; i + LANES <= n; i += LANES) store(dst + i, from_bf16(h + i));
        for (; i < n; i++) dst[i] = from_bf16_one(h[i]);
    }
    for (; i < padded; i++) dst[i] = 0;
}

// y = (x - mean) / sqrt(variance + eps) * weight + bias, two passes over a row that is in L1.
FEWER_INLINE void norm_row(const float *x, int n, const float *weight, const float *bias, float eps, float *y) {
    int whole = n / LANES * LANES;
    vf s0 = {}, s1 = {};
    int i = 0;
    for (; i + 2 * LANES <= whole; i += 2 * LANES) { s0 += load(x + i); s1 += load(x + i + LANES); }
    for (; i < whole; i += LANES) s0 += load(x + i);
    float total = sum(s0 + s1);
    for (; i < n; i++) total += x[i];
    float mean = total / n;
    vf q0 = {}, q1 = {};
    for (i = 0; i + 2 * LANES <= whole; i += 2 * LANES) {
        vf a = load(x + i) - mean, b = load(x + i + LANES) - mean;
        q0 += a * a;
        q1 += b * b;
    }
    for (; i < whole; i += LANES) { vf a = load(x + i) - mean; q0 += a * a; }
    float variance = sum(q0 + q1);
    for (; i < n; i++) variance += (x[i] - mean) * (x[i] - mean);
    float inverse = 1.0f / __builtin_sqrtf(variance / n + eps);
    for (i = 0; i < whole; i += LANES) store(y + i, (load(x + i) - mean) * inverse * load(weight + i) + load(bias + i));
    for (; i < n; i++) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

// The largest magnitude of a row; NaN when any value is NaN or infinite, because such a row has no int8 scale.
// Magnitudes of floats are in the order of their bits, and those of infinity and NaN are the largest.
FEWER_INLINE float row_peak(const float *x, int64_t padded) {
    vi a = {}, b = {};
    int64_t i = 0;
    for (; i + 2 * LANES <= padded; i += 2 * LANES) {
        a = vmax_i(load_i(x + i) & 0x7fffffff, a);
        b = vmax_i(load_i(x + i + LANES) & 0x7fffffff, b);
    }
    for (; i < padded; i += LANES) a = vmax_i(load_i(x + i) & 0x7fffffff, a);
    int32_t bits = maximum_i(vmax_i(a, b));
    float peak;
    memcpy(&peak, &bits, 4);
    return bits < 0x7f800000 ? peak : __builtin_nanf("");
}

// x * inverse rounded to the nearest integer (ties to even) plus `offset`, in the low bits of each lane. The magic
// number is 1.5 * 2^23: added to a float it leaves the integer in the low bits of the mantissa.
FEWER_INLINE vi quantise(vf x, float inverse, int offset) { return (vi)(x * inverse + (12582912.0f + offset)); }

// The low 8 bits of each lane.
FEWER_INLINE void store_bytes(void *p, vi v) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v));
#else
    *(vb_mem *)p = __builtin_convertvector((vu)v & 255u, vb);
#endif
}

// n values (a multiple of 16) as bytes: x * inverse rounded, plus 128.
FEWER_INLINE void quantise_row(const float *x, int64_t n, float inverse, uint8_t *dst) {
    int64_t i = 0;
#if defined(__AVX2__) && !defined(__AVX512F__)
    // Packs four vectors at once; the two halves of a register are packed apart, and come back into order at the end.
    const __m256i magic = _mm256_set1_epi32(0x4b400000), order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    auto integers = [&](int64_t at) { return _mm256_sub_epi32((__m256i)quantise(load(x + at), inverse, 128), magic); };
    for (; i + 32 <= n; i += 32) {
        __m256i low = _mm256_packus_epi32(integers(i), integers(i + 8)), high = _mm256_packus_epi32(integers(i + 16), integers(i + 24));
        _mm256_storeu_si256((__m256i *)(dst + i), _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order));
    }
    if (i < n) {  // the last 16
        __m256i low = _mm256_packus_epi32(integers(i), integers(i + 8));
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, low), order);
        _mm_storeu_si128((__m128i *)(dst + i), _mm256_castsi256_si128(bytes));
    }
#else
    for (; i < n; i += LANES) store_bytes(dst + i, quantise(load(x + i), inverse, 128));
#endif
}

// The scale of an int8 row, and its inverse. A row of zeros has scale 1; a poisoned row has scale NaN, so that all its
// outputs are NaN, and inverse 0, so that the integers stay defined.
FEWER_INLINE float row_scale(float peak, float *inverse) {
    if (!(peak == peak)) { *inverse = 0; return peak; }
    if (peak < 1e-30f) { *inverse = 0; return 1.0f; }
    *inverse = 127.0f / peak;
    return peak / 127.0f;
}

}  // namespace FEWER_NS
