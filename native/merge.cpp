// Merging of tokens (Bolya et al., arXiv 2210.09461): the pairs that are most alike become their mean, weighted by how many tokens
// of the image each stands for. The same as fewer/tokens/merge.py does with tensors, whose rules are explained there.
#include "rows.h"

namespace FEWER_NS {

namespace {

// Rows of the first set, and of the second, whose products are held in registers at once.
constexpr int ROWS = LANES == 16 ? 4 : 2, COLS = 4;

struct Best {
    float likeness;
    int32_t place;
};

// R rows `a` and C rows `b`, `ld` values apart: whose cosine with a row of the first is largest. That row's own length does not
// change which one it is.
template <int R, int C> void look(const float *a, const float *b, int64_t ld, int width, const float *inverse, int32_t first, Best *best) {
    vf acc[R][C] = {};
    int k = 0;
    for (; k + LANES <= width; k += LANES) {
        vf y[C];
#pragma GCC unroll 4
        for (int j = 0; j < C; j++) y[j] = load(b + j * ld + k);
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
            vf x = load(a + i * ld + k);
#pragma GCC unroll 4
            for (int j = 0; j < C; j++) acc[i][j] += x * y[j];
        }
    }
    for (int i = 0; i < R; i++)
        for (int j = 0; j < C; j++) {
            float total = sum(acc[i][j]);
            for (int l = k; l < width; l++) total += a[i * ld + l] * b[j * ld + l];
            float likeness = total * inverse[first + j];
            if (likeness > best[i].likeness) best[i] = {likeness, first + j};
        }
}

// All of the first set against all of the second.
void nearest(const float *a, int32_t firsts, const float *b, int32_t seconds, int64_t ld, int width, const float *inverse, Best *best) {
    for (int32_t i = 0; i < firsts; i++) best[i] = {-__builtin_inff(), 0};
    int32_t rows = firsts / ROWS * ROWS, cols = seconds / COLS * COLS;
    for (int32_t i = 0; i < rows; i += ROWS)
        for (int32_t j = 0; j < cols; j += COLS) look<ROWS, COLS>(a + i * ld, b + j * ld, ld, width, inverse, j, best + i);
    for (int32_t i = 0; i < firsts; i++)  // what is left at the edges
        for (int32_t j = i < rows ? cols : 0; j < seconds; j++) look<1, 1>(a + i * ld, b + j * ld, ld, width, inverse, j, best + i);
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

// y = x * factor, or y += x * factor.
template <bool ADD> void scaled(float *y, const float *x, float factor, int n) {
    int k = 0;
    for (; k + LANES <= n; k += LANES) store(y + k, ADD ? load(y + k) + load(x + k) * factor : load(x + k) * factor);
    for (; k < n; k++) y[k] = ADD ? y[k] + x[k] * factor : x[k] * factor;
}

bool one_image(const FewerMerge &m, int64_t image) {
    const int width = m.width, front = m.protect, left = m.tokens - front;
    const int firsts = (left + 1) / 2, seconds = left / 2, kept = firsts - m.count;
    const float *x = m.x + image * m.tokens * width, *sizes = m.sizes + image * m.tokens;
    const int64_t out_tokens = m.tokens - m.count;
    float *y = m.y + image * out_tokens * width, *sizes_out = m.sizes_out + image * out_tokens;
    const float *a = x + (int64_t)front * width, *b = a + width;
    const int64_t ld = 2 * (int64_t)width;
    // scratch: the best of each of the first set, inverse lengths of the second, and where each token goes
    char *memory = (char *)fewer_scratch(FEWER_SLOT_ROWS, (int64_t)seconds * 4 + firsts * (int64_t)sizeof(Best) + (int64_t)m.tokens * 4 + 64);
    if (!memory) return false;
    Best *best = (Best *)memory;
    float *inverse = (float *)(best + firsts);
    int32_t *to = (int32_t *)(inverse + seconds);
    for (int j = 0; j < seconds; j++) inverse[j] = inverse_length(b + j * ld, width);
    nearest(a, firsts, b, seconds, ld, width, inverse, best);
    for (int i = 0; i < firsts; i++) {
        float likeness = best[i].likeness * inverse_length(a + i * ld, width);
        best[i].likeness = likeness == likeness ? likeness : -__builtin_inff();  // NaN is like nothing
    }

    for (int i = 0; i < front; i++) to[i] = i;
    for (int j = 0; j < seconds; j++) to[front + 2 * j + 1] = front + kept + j;
    memcpy(y, x, (size_t)front * width * 4);
    memcpy(sizes_out, sizes, (size_t)front * 4);
    float *merged = y + (int64_t)(front + kept) * width, *total = sizes_out + front + kept;
    for (int j = 0; j < seconds; j++) {
        float size = sizes[front + 2 * j + 1];
        total[j] = size;
        scaled<false>(merged + (int64_t)j * width, b + j * ld, size, width);
    }
    int stay = front;
    for (int i = 0; i < firsts; i++) {
        int before = 0;  // how many are more alike; of equal ones the first ones go
        for (int o = 0; o < firsts; o++) before += best[o].likeness > best[i].likeness || (best[o].likeness == best[i].likeness && o < i);
        const float *row = a + i * ld;
        float size = sizes[front + 2 * i];
        if (before < m.count) {
            int32_t place = best[i].place;
            to[front + 2 * i] = front + kept + place;
            total[place] += size;
            scaled<true>(merged + (int64_t)place * width, row, size, width);
        } else {
            to[front + 2 * i] = stay;
            sizes_out[stay] = size;
            memcpy(y + (int64_t)stay * width, row, (size_t)width * 4);
            stay++;
        }
    }
    for (int j = 0; j < seconds; j++) {
        float *row = merged + (int64_t)j * width;
        scaled<false>(row, row, 1.0f / total[j], width);
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
