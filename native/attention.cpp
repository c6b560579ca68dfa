// Fused attention: softmax(scale * Q K^T + bias) V without the score matrix leaving the cache.
//
// Both products are the micro-kernel of the linear layer with one dense block per strip: for Q K^T the "weights" are
// sixteen keys, for P V they are sixteen columns of V. Keys and values of a head are packed into that layout once.
#include "product.h"

namespace FEWER_NS {

namespace {

typedef uint32_t v4 __attribute__((vector_size(16)));
typedef uint32_t v4_mem __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__)
#define FEWER_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FEWER_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, v4{__VA_ARGS__})
#endif

// dst[k][16] = src[16][k] for k < lanes; lanes is a multiple of 4.
FEWER_INLINE void transpose16(const uint32_t *src, int64_t lds, int64_t lanes, uint32_t *dst) {
    for (int64_t k = 0; k < lanes; k += 4)
        for (int j = 0; j < STRIP; j += 4) {
            const uint32_t *p = src + j * lds + k;
            v4 a = *(const v4_mem *)p, b = *(const v4_mem *)(p + lds), c = *(const v4_mem *)(p + 2 * lds), d = *(const v4_mem *)(p + 3 * lds);
            v4 ab0 = FEWER_SHUFFLE(a, b, 0, 4, 1, 5), ab1 = FEWER_SHUFFLE(a, b, 2, 6, 3, 7);
            v4 cd0 = FEWER_SHUFFLE(c, d, 0, 4, 1, 5), cd1 = FEWER_SHUFFLE(c, d, 2, 6, 3, 7);
            uint32_t *q = dst + k * STRIP + j;
            *(v4_mem *)q = FEWER_SHUFFLE(ab0, cd0, 0, 1, 4, 5);
            *(v4_mem *)(q + STRIP) = FEWER_SHUFFLE(ab0, cd0, 2, 3, 6, 7);
            *(v4_mem *)(q + 2 * STRIP) = FEWER_SHUFFLE(ab1, cd1, 0, 1, 4, 5);
            *(v4_mem *)(q + 3 * STRIP) = FEWER_SHUFFLE(ab1, cd1, 2, 3, 6, 7);
        }
}

FEWER_INLINE const char *at(const void *p, int type, int64_t index) {
    return (const char *)p + index * (type == FEWER_T_F32 ? 4 : 2);
}

// Weight lanes of one row of `padded` values: fp32 as it is, bf16 two to a lane.
template <class Mode> FEWER_INLINE void weight_row(const float *row, int64_t padded, uint32_t *dst) {
    if (Mode::UNIT == 1) memcpy(dst, row, padded * 4);
    else
        for (int64_t i = 0; i < padded; i += LANES) to_bf16((uint16_t *)dst + i, load(row + i));
}

// [key strips][dim / unit][16][unit]. Keys that are stored as the product reads them are transposed where they lie.
template <class Mode> void pack_keys(const FewerAttention &a, const char *k, int64_t dim, int64_t strips, float *row, uint32_t *lanes, uint32_t *dst) {
    int64_t wl = dim / Mode::UNIT;
    constexpr int64_t BYTES = 4 / Mode::UNIT;
    bool in_place = dim == a.dim && a.xtype == (Mode::UNIT == 1 ? FEWER_T_F32 : FEWER_T_BF16) && a.k_token % Mode::UNIT == 0;
    for (int64_t s = 0; s < strips; s++) {
        if (in_place && (s + 1) * STRIP <= a.keys) {
            transpose16((const uint32_t *)(k + s * STRIP * a.k_token * BYTES), a.k_token / Mode::UNIT, wl, dst + s * wl * STRIP);
            continue;
        }
        for (int j = 0; j < STRIP; j++) {
            int64_t key = s * STRIP + j;
            load_row(at(k, a.xtype, key * a.k_token), a.xtype, key < a.keys ? a.dim : 0, dim, row);
            weight_row<Mode>(row, dim, lanes + j * wl);
        }
        transpose16(lanes, wl, wl, dst + s * wl * STRIP);
    }
}

// [dim strips][keys / unit][16][unit]; `rows` holds UNIT rows of `dim` floats.
template <class Mode> void pack_values(const FewerAttention &a, const char *v, int64_t dim, int64_t keys, float *rows, uint32_t *dst) {
    int64_t units = keys / Mode::UNIT;
    for (int64_t u = 0; u < units; u++) {
        for (int r = 0; r < Mode::UNIT; r++) {
            int64_t key = u * Mode::UNIT + r;
            load_row(at(v, a.xtype, key * a.v_token), a.xtype, key < a.keys ? a.dim : 0, dim, rows + r * dim);
        }
        for (int64_t s = 0; s < dim / STRIP; s++) {
            uint32_t *d = dst + (s * units + u) * STRIP;
            if (Mode::UNIT == 1) memcpy(d, rows + s * STRIP, STRIP * 4);
            else
                for (int j = 0; j < STRIP; j++)
                    d[j] = to_bf16_one(rows[s * STRIP + j]) | (uint32_t)to_bf16_one(rows[dim + s * STRIP + j]) << 16;
        }
    }
}

// Values already in bf16: two rows interleaved, a vector at a time.
void pack_values_bf16(const FewerAttention &a, const char *v, int64_t keys, uint32_t *dst) {
    int64_t units = keys / 2;
    static const uint16_t zeros[256] = {};
    for (int64_t u = 0; u < units; u++) {
        const uint16_t *r0 = 2 * u < a.keys ? (const uint16_t *)v + 2 * u * a.v_token : nullptr;
        const uint16_t *r1 = 2 * u + 1 < a.keys ? (const uint16_t *)v + (2 * u + 1) * a.v_token : nullptr;
        for (int64_t s = 0; s < a.dim / STRIP; s++)
            for (int j = 0; j < STRIP; j += LANES) {
                vu lo = __builtin_convertvector(*(const vh_mem *)(r0 ? r0 + s * STRIP + j : zeros), vu);
                vu hi = __builtin_convertvector(*(const vh_mem *)(r1 ? r1 + s * STRIP + j : zeros), vu);
                *(vu_mem *)(dst + (s * units + u) * STRIP + j) = lo | (hi << 16);
            }
    }
}

// Turns a row of scores into 2^(factor * (score - max)); returns the sum. `p` receives the result in the form in which
// the second product reads it: bf16 where it multiplies bf16, otherwise floats. Padding up to `padded` becomes 2^-126,
// which meets zero rows of V.
template <bool BF16> FEWER_INLINE float softmax_row(float *s, int64_t keys, int64_t padded, float factor, uint32_t *p) {
    for (int64_t i = keys; i < padded; i++) s[i] = -3e38f;
    vf peak = load(s);
    for (int64_t i = LANES; i < padded; i += LANES) peak = vmax(load(s + i), peak);
    float shift = -maximum(peak) * factor;
    vf total = {};
    for (int64_t i = 0; i < padded; i += LANES) {
        vf e = vexp2(load(s + i) * factor + shift);
        if (BF16) to_bf16((uint16_t *)p + i, e);
        else store(p + i, e);
        total += e;
    }
    return sum(total);
}

struct Head {  // one packed head and the scratch of a group of queries
    uint32_t *keys, *values, *q, *p;
    float *scores, *row;
    int64_t dim, padded_keys, ldq, lds, ldp;
    int type;  // in which the product reads activations
};

template <class Mode> void queries(const FewerAttention &a, const Head &h, int b, int head, int64_t first, int64_t count) {
    static const float zeros[2 * STRIP] = {};
    static const int32_t start[1] = {0};
    alignas(64) float tile_out[TILE_MAX * 2 * STRIP];
    float inverse[2 * TILE_MAX];
    Tiles tiles(count, tile_rows<Mode>());
    // Queries that are stored as the product reads them need no copy, unless their stride is a bad one (see rows.h).
    const char *source = at(a.q, a.xtype, b * a.q_batch + first * a.q_token + head * a.q_head);
    bool in_place = h.dim == a.dim && a.xtype == (Mode::UNIT == 1 || Mode::XSTEP == 1 ? h.type : -1) &&
                    a.q_token % Mode::UNIT == 0 && a.q_token / Mode::UNIT % 1024 != 0;
    const uint32_t *q = in_place ? (const uint32_t *)source : h.q;
    int64_t ldq = in_place ? a.q_token / Mode::UNIT : h.ldq;
    for (int64_t i = 0; i < count && !in_place; i++) {
        load_row(source + i * a.q_token * (a.xtype == FEWER_T_F32 ? 4 : 2), a.xtype, a.dim, h.dim, h.row);
        Mode::convert_row(h.row, h.dim, h.q + i * h.ldq);
    }
    Strip strip = {start, nullptr, 1, (int32_t)(h.dim / Mode::UNIT), zeros, zeros, (const int32_t *)zeros};
    // one or two strips by one tile: all are dense, so that any two make a pair
    auto multiply = [&](const uint32_t *weights, int64_t s, int strips, int64_t t, int64_t r, const uint32_t *rows, int64_t ld, float *to, int64_t ldo) {
        int height = tiles.height(t);
        for (int j = 0; j < strips; j++) {
            bool pair = strips == 2 && t < tiles.full;
            strip.vals = weights + (s + j) * strip.ku * STRIP;
            tile_of<Mode>(pair ? PAIR : height)(strip, rows + r * ld, ld, zeros, to + j * STRIP, ldo, nullptr, 0);
            if (pair) break;
        }
    };
    auto strips_at = [&](int64_t s, int64_t count) { return tiles.full && s + 1 < count ? 2 : 1; };
    for (int64_t s = 0, n, count = h.padded_keys / STRIP; s < count; s += n) {
        n = strips_at(s, count);
        int64_t r = 0;
        for (int64_t t = 0; t < tiles.count; r += tiles.height(t), t++)
            multiply(h.keys, s, (int)n, t, r, q, ldq, h.scores + r * h.lds + s * STRIP, h.lds);
    }
    if (a.key_bias) {  // the scores are scaled when they are exponentiated
        const float *bias = a.key_bias + b * a.bias_batch, inverse_scale = 1 / a.scale;
        for (int64_t i = 0; i < count; i++) {
            float *s = h.scores + i * h.lds;
            for (int64_t k = 0; k < a.keys; k++) s[k] += bias[k] * inverse_scale;
        }
    }
    constexpr bool BF16 = Mode::UNIT == 2 && Mode::XSTEP == 1;
    uint32_t *p = BF16 ? h.p : (uint32_t *)h.scores;
    int64_t ldp = BF16 ? h.ldp : h.lds;
    for (int64_t i = 0; i < count; i++)
        inverse[i] = 1.0f / softmax_row<BF16>(h.scores + i * h.lds, a.keys, h.padded_keys, a.scale * 1.44269504f, p + i * ldp);
    strip.ku = (int32_t)(h.padded_keys / Mode::UNIT);
    for (int64_t s = 0, n, count = h.dim / STRIP; s < count; s += n) {
        n = strips_at(s, count);
        int64_t r = 0;
        for (int64_t t = 0; t < tiles.count; r += tiles.height(t), t++) {
            multiply(h.values, s, (int)n, t, r, p, ldp, tile_out, 2 * STRIP);
            for (int i = 0; i < tiles.height(t); i++) {
                int64_t o = b * a.o_batch + (first + r + i) * a.o_token + head * a.o_head + s * STRIP;
                int cols = (int)least<int64_t>(n * STRIP, a.dim - s * STRIP);
                for (int j = 0; j < n * STRIP; j += LANES) {
                    vf v = load(tile_out + i * 2 * STRIP + j) * inverse[r + i];
                    if (j + LANES <= cols && a.ytype == FEWER_T_F32) store((float *)a.out + o + j, v);
                    else if (j + LANES <= cols) to_bf16((uint16_t *)a.out + o + j, v);
                    else
                        for (int l = 0; l < LANES && j + l < cols; l++) {
                            if (a.ytype == FEWER_T_F32) ((float *)a.out)[o + j + l] = v[l];
                            else ((uint16_t *)a.out)[o + j + l] = to_bf16_one(v[l]);
                        }
                }
            }
        }
    }
}

// Head `head` of batch entry `b`, queries [first, last).
template <class Mode> bool one_head(const FewerAttention &a, int b, int head, int64_t first, int64_t last) {
    if (last <= first) return true;
    const int64_t GROUP = 2 * tile_rows<Mode>();
    Head h;
    h.dim = up(a.dim, 16);
    h.type = Mode::UNIT == 1 ? FEWER_T_F32 : FEWER_T_BF16;
    h.padded_keys = up(a.keys, 16);
    h.ldq = padded_lanes(h.dim / Mode::UNIT * Mode::XSTEP);
    h.lds = padded_lanes(h.padded_keys);
    h.ldp = padded_lanes(h.padded_keys / Mode::UNIT * Mode::XSTEP);
    int64_t packed = h.padded_keys * h.dim / Mode::UNIT;
    h.keys = (uint32_t *)fewer_scratch(FEWER_SLOT_KEYS, packed * 4);
    h.values = (uint32_t *)fewer_scratch(FEWER_SLOT_VALUES, packed * 4);
    h.row = (float *)fewer_scratch(FEWER_SLOT_NORM, h.dim * 8);
    h.q = (uint32_t *)fewer_scratch(FEWER_SLOT_ROWS, most<int64_t>(GROUP * h.ldq, STRIP * h.dim) * 4);
    h.scores = (float *)fewer_scratch(FEWER_SLOT_TILE, GROUP * (h.lds + h.ldp) * 4);
    if (!h.keys || !h.values || !h.row || !h.q || !h.scores) return false;
    h.p = (uint32_t *)(h.scores + GROUP * h.lds);
    const char *k = at(a.k, a.xtype, b * a.k_batch + head * a.k_head), *v = at(a.v, a.xtype, b * a.v_batch + head * a.v_head);
    pack_keys<Mode>(a, k, h.dim, h.padded_keys / STRIP, h.row, h.q, h.keys);
    if (Mode::UNIT == 2 && a.xtype == FEWER_T_BF16 && a.dim % STRIP == 0) pack_values_bf16(a, v, h.padded_keys, h.values);
    else pack_values<Mode>(a, v, h.dim, h.padded_keys, h.row, h.values);
    for (int64_t q = first; q < last; q += GROUP) queries<Mode>(a, h, b, head, q, least<int64_t>(GROUP, last - q));
    return true;
}

template <class Mode> int run(const FewerAttention &a) {
    int heads = a.batch * a.heads;
    int64_t work = (int64_t)heads * a.queries * a.keys * a.dim;
    int threads = (int)least<int64_t>(a.threads, 1 + work / 100000);
    // Heads are the natural share of a thread; their queries are split too when heads do not divide evenly.
    int splits = 1;
    while (splits < 8 && a.queries / (2 * splits) >= 2 * tile_rows<Mode>()) {
        int items = heads * splits, rounds = (items + threads - 1) / threads;
        if ((double)items / (rounds * threads) > 0.9) break;
        splits *= 2;
    }
    int items = heads * splits, failed = 0;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) reduction(| : failed) schedule(static) if (threads > 1)
#endif
    for (int i = 0; i < items; i++) {
        int split = i % splits, head = i / splits % a.heads, b = i / splits / a.heads;
        int64_t first = (int64_t)a.queries * split / splits, last = (int64_t)a.queries * (split + 1) / splits;
        if (!one_head<Mode>(a, b, head, first, last)) failed = 1;
    }
    return failed ? FEWER_NO_MEMORY : FEWER_OK;
}

}  // namespace

int attention(const FewerAttention *a) {
    if (a->batch <= 0 || a->heads <= 0 || a->queries <= 0 || a->keys <= 0 || a->dim <= 0) return FEWER_OK;
    return a->mode == FEWER_BF16 ? run<ModeBF16>(*a) : run<ModeF32>(*a);
}

}  // namespace FEWER_NS
