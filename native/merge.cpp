// Merging of tokens (Bolya et al., arXiv 2210.09461): the pairs that are most alike become their mean, weighted by how many tokens
// of the image each stands for. The same as fewer/tokens/merge.py does with tensors, whose rules are explained there.
#include "rows.h"

namespace FEWER_NS {

namespace {

// Rows of the first set times rows of the second that are held in registers at once.
constexpr int ROWS = LANES == 16 ? 4 : 2, COLS = 4;

// dots[R][COLS]: rows `a` with rows `b`, which are `lda` and `ldb` values apart.
template <int R, int C> FEWER_INLINE void dot_products(const float *a, int64_t lda, const float *b, int64_t ldb, int width, float (&dots)[ROWS][COLS]) {
    vf acc[R][C] = {};
    int k = 0;
    for (; k + LANES <= width; k += LANES) {
        vf y[C];
#pragma GCC unroll 4
        for (int j = 0; j < C; j++) y[j] = load(b + j * ldb + k);
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
            vf x = load(a + i * lda + k);
#pragma GCC unroll 4
            for (int j = 0; j < C; j++) acc[i][j] += x * y[j];
        }
    }
    for (int i = 0; i < R; i++)
        for (int j = 0; j < C; j++) {
            float total = sum(acc[i][j]);
            for (int l = k; l < width; l++) total += a[i * lda + l] * b[j * ldb + l];
            dots[i][j] = total;
        }
}

struct Best {
    float likeness;
    int32_t place;
};

template <int R, int C> FEWER_INLINE void look(const float *a, int64_t lda, const float *b, int64_t ldb, int width, const float *inverse, int32_t first, Best *best) {
    float dots[ROWS][COLS];
    dot_products<R, C>(a, lda, b, ldb, width, dots);
    for (int i = 0; i < R; i++)
        for (int j = 0; j < C; j++) {
            float likeness = dots[i][j] * inverse[first + j];
            if (likeness > best[i].likeness) best[i] = {likeness, first + j};
        }
}

// Rows [0, R) of the first set against all of the second: whose cosine is largest. The row's own length does not change that.
template <int R> FEWER_INLINE void nearest(const float *a, const float *b, int64_t ld, int width, int32_t others, const float *inverse, Best *best) {
    for (int i = 0; i < R; i++) best[i] = {-__builtin_inff(), 0};
    int32_t j = 0;
    for (; j + COLS <= others; j += COLS) look<R, COLS>(a, ld, b + j * ld, ld, width, inverse, j, best);
    for (; j < others; j++) look<R, 1>(a, ld, b + j * ld, ld, width, inverse, j, best);
}

float inverse_length(const float *x, int width) {
    vf squares = {};
    int k = 0;
    for (; k + LANES <= width; k += LANES) {
        vf v = load(x + k);
        squares += v * v;
    }
    float total = sum(squares);
    for (; k < width; k++) total += x[k] * x[k];
    float length = __builtin_sqrtf(total);
    return 1.0f / (length > 1e-12f ? length : 1e-12f);
}

bool one_image(const FewerMerge &m, int64_t image) {
    const int width = m.width, front = m.protect, left = m.tokens - front;
    const int firsts = (left + 1) / 2, seconds = left / 2, kept = firsts - m.count;
    const float *x = m.x + image * m.tokens * width, *sizes = m.sizes + image * m.tokens;
    const int64_t out_tokens = m.tokens - m.count;
    float *y = m.y + image * out_tokens * width, *sizes_out = m.sizes_out + image * out_tokens;
    const float *a = x + (int64_t)front * width, *b = a + width;
    const int64_t ld = 2 * (int64_t)width;
    // scratch: lengths of the second set, the best of each of the first, its size, and where each token goes
    char *memory = (char *)fewer_scratch(FEWER_SLOT_ROWS, (int64_t)seconds * 4 + (firsts + ROWS) * (int64_t)sizeof(Best) + (int64_t)m.tokens * 4 + 64);
    if (!memory) return false;
    Best *best = (Best *)memory;
    float *inverse = (float *)(best + firsts + ROWS);
    int32_t *to = (int32_t *)(inverse + seconds);
    for (int j = 0; j < seconds; j++) inverse[j] = inverse_length(b + j * ld, width);
    int i = 0;
    for (; i + ROWS <= firsts; i += ROWS) nearest<ROWS>(a + i * ld, b, ld, width, seconds, inverse, best + i);
    for (; i < firsts; i++) nearest<1>(a + i * ld, b, ld, width, seconds, inverse, best + i);
    for (i = 0; i < firsts; i++) {
        float likeness = best[i].likeness * inverse_length(a + i * ld, width);
        best[i].likeness = likeness == likeness ? likeness : -__builtin_inff();  // NaN is like nothing
    }

    for (i = 0; i < front; i++) to[i] = i;
    for (int j = 0; j < seconds; j++) to[front + 2 * j + 1] = front + kept + j;
    memcpy(y, x, (size_t)front * width * 4);
    memcpy(sizes_out, sizes, (size_t)front * 4);
    float *merged = y + (int64_t)(front + kept) * width, *total = sizes_out + front + kept;
    for (int j = 0; j < seconds; j++) {
        float size = sizes[front + 2 * j + 1];
        total[j] = size;
        for (int k = 0; k < width; k++) merged[(int64_t)j * width + k] = b[j * ld + k] * size;
    }
    int stay = front;
    for (i = 0; i < firsts; i++) {
        int before = 0;  // how many are more alike; of equal ones the first ones go
        for (int o = 0; o < firsts; o++) before += best[o].likeness > best[i].likeness || (best[o].likeness == best[i].likeness && o < i);
        const float *row = a + i * ld;
        float size = sizes[front + 2 * i];
        if (before < m.count) {
            int32_t place = best[i].place;
            to[front + 2 * i] = front + kept + place;
            total[place] += size;
            float *sum_of = merged + (int64_t)place * width;
            for (int k = 0; k < width; k++) sum_of[k] += row[k] * size;
        } else {
            to[front + 2 * i] = stay;
            sizes_out[stay] = size;
            memcpy(y + (int64_t)stay * width, row, (size_t)width * 4);
            stay++;
        }
    }
    for (int j = 0; j < seconds; j++) {
        float share = 1.0f / total[j];
        for (int k = 0; k < width; k++) merged[(int64_t)j * width + k] *= share;
    }
    for (int t = 0; t < m.image; t++) m.origin_out[image * m.image + t] = to[m.origin[image * m.image + t]];
    return true;
}

}  // namespace

int merge(const FewerMerge *m) {
    const int left = m->tokens - m->protect;
    if (m->batch <= 0) return FEWER_OK;
    if (m->width <= 0 || m->protect < 0 || m->count < 0 || left < 0 || m->count > left / 2) return FEWER_BAD_ARGUMENT;
    for (int64_t t = 0; t < (int64_t)m->batch * m->image; t++)
        if (m->origin[t] < 0 || m->origin[t] >= m->tokens) return FEWER_BAD_ARGUMENT;
    int failed = 0;
#ifdef _OPENMP
#pragma omp parallel for num_threads(m->threads) reduction(| : failed) schedule(static) if (m->threads > 1 && m->batch > 1)
#endif
    for (int i = 0; i < m->batch; i++)
        if (!one_image(*m, i)) failed = 1;
    return failed ? FEWER_NO_MEMORY : FEWER_OK;
}

}  // namespace FEWER_NS
