// Networks in integers (fewer/approximate): what follows a product of bytes, softmax, and LayerNorm. The integers that come out are
// those of fewer.approximate on int64 arrays, bit for bit; what is specified there is explained there.
//
// Quotients of integers are made with the reciprocal in double precision. For a < 2^50 and b >= 1, (a + 1/2) / b is at least 1/(2b)
// away from every integer, and three roundings move it by less: floor((a + 1/2) * (1 / b)) is the exact floor(a / b).
#include "rows.h"

namespace FEWER_NS {

namespace {

constexpr int PART = 512;  // numbers that are worked on at once, so that what is in between stays in cache

#if defined(__AVX512F__)
// The AVX-512 way of all that follows works on sixteen numbers, and on fewer at the end of a row, which a mask cuts off.
FEWER_INLINE __mmask16 sixteen(int left) { return left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1); }
FEWER_INLINE __m256i lower(__m512i v) { return _mm512_castsi512_si256(v); }
FEWER_INLINE __m256i upper(__m512i v) { return _mm512_extracti64x4_epi64(v, 1); }
FEWER_INLINE __m512i both(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }

// (x * multiply + add) >> shift of eight numbers in the low halves of 64 bits, limited to 32 bits.
FEWER_INLINE __m256i affine_eight(__m512i x, __m256i multiply, __m512i add, __m128i shift) {
    const __m512i product = _mm512_mul_epi32(x, _mm512_cvtepi32_epi64(multiply));
    return _mm512_cvtsepi64_epi32(_mm512_sra_epi64(_mm512_add_epi64(product, add), shift));
}
#endif

// out = (x * multiply + add) >> shift within low .. high, with a factor for each number.
void affine_part(const int32_t *x, const int32_t *multiply, const int64_t *add, int shift, int64_t low, int64_t high, int n, int32_t *out) {
#if defined(__AVX512F__)
    const __m512i least_one = _mm512_set1_epi32((int32_t)low), most_one = _mm512_set1_epi32((int32_t)high);
    const __m128i by = _mm_cvtsi32_si128(shift);
    for (int i = 0; i < n; i += 16) {
        const __mmask16 here = sixteen(n - i);
        const __m512i v = _mm512_maskz_loadu_epi32(here, x + i), m = _mm512_maskz_loadu_epi32(here, multiply + i);
        const __m512i a = _mm512_maskz_loadu_epi64((__mmask8)here, add + i), b = _mm512_maskz_loadu_epi64((__mmask8)(here >> 8), add + i + 8);
        const __m256i first = affine_eight(_mm512_cvtepi32_epi64(lower(v)), lower(m), a, by);
        const __m256i second = affine_eight(_mm512_cvtepi32_epi64(upper(v)), upper(m), b, by);
        const __m512i y = _mm512_min_epi32(_mm512_max_epi32(both(first, second), least_one), most_one);
        _mm512_mask_storeu_epi32(out + i, here, y);
    }
#else
#pragma omp simd
    for (int i = 0; i < n; i++) {
        int64_t v = ((int64_t)x[i] * multiply[i] + add[i]) >> shift;
        v = v < low ? low : v;
        out[i] = (int32_t)(v > high ? high : v);
    }
#endif
}

void affine_rows(const FewerIntegerAffine &a, int64_t first, int64_t last) {
    int32_t part[PART];
    const int64_t low = a.table ? a.low : a.residual ? INT32_MIN : -127;
    const int64_t high = a.table ? (int64_t)a.low + a.size - 1 : a.residual ? INT32_MAX : 127;
    for (int64_t row = first; row < last; row++)
        for (int at = 0; at < a.width; at += PART) {
            const int n = least(PART, a.width - at);
            const int64_t place = row * a.width + at;
            affine_part(a.x + place, a.multiply + at, a.add + at, a.shift, low, high, n, part);
            if (a.table) {
                int8_t *y = (int8_t *)a.y + place;
                const int8_t *table = a.table - a.low;
    #pragma GCC unroll 8
                for (int i = 0; i < n; i++) y[i] = table[part[i]];
            } else if (a.residual) {
                int32_t *y = (int32_t *)a.y + place;
                const int32_t *residual = a.residual + place;
#pragma omp simd
                for (int i = 0; i < n; i++) y[i] = (int32_t)((uint32_t)part[i] + (uint32_t)residual[i]);
            } else {
                int8_t *y = (int8_t *)a.y + place;
#pragma omp simd
                for (int i = 0; i < n; i++) y[i] = (int8_t)part[i];
            }
        }
}

#if defined(__AVX512F__)

// Exponentials of sixteen numbers that are `below` their largest one, by lines. With (4 below + 1/2) / halving the quarter and the
// number of halvings are one quotient: at most 120, and 1/(2 halving) > 120 * 2^-23 away from every integer, which single precision keeps.
struct Lines {
    __m512i halving, slopes, starts, reach;
    __m512 inverse;
    explicit Lines(const FewerIntegerSoftmax &a)
        : halving(_mm512_set1_epi32(a.halving)), slopes(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)a.slopes))),
          starts(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)a.intercepts))), reach(_mm512_set1_epi32(a.reach)),
          inverse(_mm512_set1_ps(1.0f / (float)a.halving)) {}
    FEWER_INLINE __m512i operator()(__m512i below) const {
        below = _mm512_min_epu32(below, reach);
        const __m512 four = _mm512_add_ps(_mm512_cvtepi32_ps(_mm512_slli_epi32(below, 2)), _mm512_set1_ps(0.5f));
        const __m512i quarters = _mm512_cvttps_epi32(_mm512_mul_ps(four, inverse)), halvings = _mm512_srli_epi32(quarters, 2);
        const __m512i past = _mm512_sub_epi32(_mm512_mullo_epi32(halvings, halving), below);  // not positive
        const __m512i slope = _mm512_permutexvar_epi32(_mm512_and_si512(quarters, _mm512_set1_epi32(3)), slopes);
        const __m512i start = _mm512_permutexvar_epi32(_mm512_and_si512(quarters, _mm512_set1_epi32(3)), starts);
        const __m512i line = _mm512_add_epi32(_mm512_srai_epi32(_mm512_mullo_epi32(slope, past), 8), start);
        const __m512i limited = _mm512_min_epi32(_mm512_max_epi32(line, _mm512_setzero_si512()), _mm512_set1_epi32(1 << 20));
        return _mm512_srlv_epi32(limited, halvings);
    }
};

// The same from a table.
struct Looked {
    const uint32_t *table;
    __m512i reach;
    explicit Looked(const FewerIntegerSoftmax &a) : table(a.table), reach(_mm512_set1_epi32(a.reach)) {}
    FEWER_INLINE __m512i operator()(__m512i below) const { return _mm512_i32gather_epi32(_mm512_min_epu32(below, reach), table, 4); }
};

FEWER_INLINE __m512i whole_sum(__m512i total, __m512i v) {
    return _mm512_add_epi64(total, _mm512_add_epi64(_mm512_cvtepi32_epi64(lower(v)), _mm512_cvtepi32_epi64(upper(v))));
}

template <class Exponential>
FEWER_INLINE void softmax_row(const int32_t *x, int32_t multiply, int64_t add, int shift, int n, const Exponential &exponential, int32_t *row, uint16_t *y) {
    const __m512i m = _mm512_set1_epi64(multiply), b = _mm512_set1_epi64(add), none = _mm512_set1_epi32(INT32_MIN);
    const __m128i by = _mm_cvtsi32_si128(shift);
    __m512i most_all = none, total = _mm512_setzero_si512();
    for (int i = 0; i < n; i += 16) {
        const __mmask16 here = sixteen(n - i);
        const __m512i v = _mm512_maskz_loadu_epi32(here, x + i);
        const __m512i even = _mm512_sra_epi64(_mm512_add_epi64(_mm512_mul_epi32(v, m), b), by);
        const __m512i odd = _mm512_sra_epi64(_mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(v, 32), m), b), by);
        const __m512i logits = _mm512_mask_mov_epi32(none, here, _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA));
        most_all = _mm512_max_epi32(most_all, logits);
        _mm512_storeu_si512(row + i, logits);
    }
    const __m512i top = _mm512_set1_epi32(_mm512_reduce_max_epi32(most_all));
    for (int i = 0; i < n; i += 16) {
        const __m512i e = _mm512_maskz_mov_epi32(sixteen(n - i), exponential(_mm512_sub_epi32(top, _mm512_loadu_si512(row + i))));
        total = whole_sum(total, e);
        _mm512_storeu_si512(row + i, e);
    }
    int64_t sum = _mm512_reduce_add_epi64(total);
    if (sum <= 0) sum = 1;
    const __m512d inverse = _mm512_set1_pd(65536.0 / (double)sum), half = _mm512_set1_pd(0.5 / (double)sum);
    for (int i = 0; i < n; i += 16) {
        const __m512i e = _mm512_loadu_si512(row + i);
        const __m256i first = _mm512_cvttpd_epi32(_mm512_fmadd_pd(_mm512_cvtepi32_pd(lower(e)), inverse, half));
        const __m256i second = _mm512_cvttpd_epi32(_mm512_fmadd_pd(_mm512_cvtepi32_pd(upper(e)), inverse, half));
        _mm256_mask_storeu_epi16(y + i, sixteen(n - i), _mm512_cvtusepi32_epi16(both(first, second)));
    }
}

template <class Exponential>
bool softmax_rows_by(const FewerIntegerSoftmax &a, int64_t first, int64_t last, const Exponential &exponential) {
    const int n = a.width;
    int32_t *row = (int32_t *)fewer_scratch(FEWER_SLOT_ROWS, up(n, 16) * 4);
    if (!row) return false;
    for (int64_t r = first; r < last; r++) {
        const int64_t group = r / a.group_rows % a.groups;
        softmax_row(a.x + r * n, a.multiply[group], a.add[group], a.shift, n, exponential, row, a.y + r * n);
    }
    return true;
}

bool softmax_rows(const FewerIntegerSoftmax &a, int64_t first, int64_t last) {
    return a.halving ? softmax_rows_by(a, first, last, Lines(a)) : softmax_rows_by(a, first, last, Looked(a));
}

#else

// Exponentials of how far each number is below `top`, and their sum: halvings and lines, as fewer.approximate.exponential.table_exp.
int64_t exponentials_by_lines(const FewerIntegerSoftmax &a, int32_t top, int32_t *row, int n) {
    const int32_t halving = a.halving, reach = a.reach, second = (halving + 3) / 4, third = (2 * halving + 3) / 4, fourth = (3 * halving + 3) / 4;
    const int32_t *s = a.slopes, *c = a.intercepts;
    const int32_t s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3], c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3];
    const float inverse = 1.0f / (float)halving;
    int64_t total = 0;
    for (int at = 0; at < n; at += PART) {
        int32_t sum = 0;  // at most 2^20 for each of 512
        const int m = least(PART, n - at);
        int32_t *part = row + at;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < m; i++) {
            const int32_t below = (int32_t)least((uint32_t)top - (uint32_t)part[i], (uint32_t)reach);
            const int32_t halvings = (int32_t)(((float)below + 0.5f) * inverse), left = below - halvings * halving;
            const int32_t slope = left < third ? left < second ? s0 : s1 : left < fourth ? s2 : s3;
            const int32_t start = left < third ? left < second ? c0 : c1 : left < fourth ? c2 : c3;
            int32_t line = ((slope * -left) >> 8) + start;
            line = line < 0 ? 0 : line > 1 << 20 ? 1 << 20 : line;
            line >>= halvings;
            part[i] = line;
            sum += line;
        }
        total += sum;
    }
    return total;
}

// The same from a table.
int64_t exponentials_by_table(const FewerIntegerSoftmax &a, int32_t top, int32_t *row, int n) {
    const uint32_t *table = a.table;
    const int32_t reach = a.reach;
    int64_t total = 0;
#pragma omp simd reduction(+ : total)
    for (int i = 0; i < n; i++) {
        const int32_t below = (int32_t)least((uint32_t)top - (uint32_t)row[i], (uint32_t)reach);
        row[i] = (int32_t)table[below];
        total += row[i];
    }
    return total;
}

int32_t largest(const int32_t *x, int n) {
    int32_t top = x[0];
#pragma omp simd reduction(max : top)
    for (int i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

bool softmax_rows(const FewerIntegerSoftmax &a, int64_t first, int64_t last) {
    const int n = a.width, padded = (int)up(n, 16);  // whole vectors: what is beyond the row repeats its first number
    int32_t *row = (int32_t *)fewer_scratch(FEWER_SLOT_ROWS, (int64_t)padded * 6);
    if (!row) return false;
    uint16_t *made = (uint16_t *)(row + padded);
    for (int64_t r = first; r < last; r++) {
        const int64_t group = r / a.group_rows % a.groups;
        const int32_t multiply = a.multiply[group];
        const int64_t add = a.add[group];
        const int32_t *x = a.x + r * n;
        const int shift = a.shift;
        memcpy(row, x, (size_t)n * 4);
        for (int i = n; i < padded; i++) row[i] = x[0];
#pragma omp simd
        for (int i = 0; i < padded; i++) row[i] = (int32_t)(((int64_t)row[i] * multiply + add) >> shift);
        const int32_t top = largest(row, padded);
        const bool lines = a.halving && !a.table;  // with shorter vectors the table is quicker
        int64_t total = lines ? exponentials_by_lines(a, top, row, padded) : exponentials_by_table(a, top, row, padded);
        total -= (int64_t)(padded - n) * row[0];
        if (total <= 0) total = 1;
        const double inverse = 65536.0 / (double)total, half = 0.5 / (double)total;
#pragma omp simd
        for (int i = 0; i < padded; i++) {
            const int32_t p = (int32_t)((double)row[i] * inverse + half);
            made[i] = (uint16_t)(p > 65535 ? 65535 : p);
        }
        memcpy(a.y + r * n, made, (size_t)n * 2);
    }
    return true;
}

#endif

// The largest integer whose square is not above 0 <= x <= 2^62.
int64_t floor_root(int64_t x) {
    int64_t root = (int64_t)__builtin_sqrt((double)x);
    while (root * root > x) root--;
    while ((root + 1) * (root + 1) <= x) root++;
    return root;
}

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }

constexpr int32_t LIMIT = 1 << 22;  // of what goes into a norm
constexpr int FRACTION = 10, ROOT = 8;

// What goes into a norm: limited, and with powers a byte for each number, times a power of two for each channel.
int64_t norm_entered(const int32_t *x, const int32_t *powers, int n, int32_t *row, int64_t *squares) {
#if defined(__AVX512F__)
    __m512i total = _mm512_setzero_si512(), even = total, odd = total;
    for (int i = 0; i < n; i += 16) {
        const __mmask16 here = sixteen(n - i);
        __m512i v = _mm512_maskz_loadu_epi32(here, x + i);
        if (powers) {
            const __m512i power = _mm512_maskz_loadu_epi32(here, powers + i), one = _mm512_set1_epi32(1);
            const __m512i behind = _mm512_and_si512(_mm512_srlv_epi32(v, _mm512_sub_epi32(power, one)), one);  // 0 for a power of 0
            v = _mm512_add_epi32(_mm512_srav_epi32(v, power), behind);
            v = _mm512_sllv_epi32(_mm512_min_epi32(_mm512_max_epi32(v, _mm512_set1_epi32(-127)), _mm512_set1_epi32(127)), power);
        }
        v = _mm512_min_epi32(_mm512_max_epi32(v, _mm512_set1_epi32(-LIMIT)), _mm512_set1_epi32(LIMIT));
        _mm512_storeu_si512(row + i, v);
        total = whole_sum(total, v);
        const __m512i second = _mm512_srli_epi64(v, 32);
        even = _mm512_add_epi64(even, _mm512_mul_epi32(v, v)), odd = _mm512_add_epi64(odd, _mm512_mul_epi32(second, second));
    }
    *squares = _mm512_reduce_add_epi64(_mm512_add_epi64(even, odd));
    return _mm512_reduce_add_epi64(total);
#else
    int64_t total = 0, all = 0;
    if (powers) {
#pragma omp simd
        for (int i = 0; i < n; i++) {
            int64_t v = ((int64_t)x[i] + ((int64_t)1 << powers[i] >> 1)) >> powers[i];
            v = v < -127 ? -127 : v > 127 ? 127 : v;
            row[i] = (int32_t)((uint32_t)v << powers[i]);
        }
        x = row;
    }
#pragma omp simd reduction(+ : total, all)
    for (int i = 0; i < n; i++) {
        const int32_t v = x[i] < -LIMIT ? -LIMIT : x[i] > LIMIT ? LIMIT : x[i];
        row[i] = v;
        total += v;
        all += (int64_t)v * v;
    }
    *squares = all;
    return total;
#endif
}

#if defined(__AVX512F__)
// Eight normalised numbers at the scale of the next layer.
FEWER_INLINE __m256i normal_eight(__m256i v, __m256i mean, __m512d inverse, __m512d half, __m256i multiply, __m512i add, __m128i shift) {
    const __m512d part = _mm512_fmadd_pd(_mm512_cvtepi32_pd(_mm256_sub_epi32(v, mean)), inverse, half);
    return affine_eight(_mm512_cvt_roundpd_epi64(part, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), multiply, add, shift);
}
#endif

// round((v - mean) 2^18 / d) = floor(((v - mean) 2^19 + d) / 2d), then the affine part; the half that keeps the floor exact is in `half`
void norm_left(const FewerIntegerNorm &a, int32_t mean, double inverse, double half, int32_t *row, int64_t at) {
    const int n = a.width;
#if defined(__AVX512F__)
    const __m512d inverses = _mm512_set1_pd(inverse), halves = _mm512_set1_pd(half);
    const __m256i means = _mm256_set1_epi32(mean);
    const __m128i by = _mm_cvtsi32_si128(a.shift);
    for (int i = 0; i < n; i += 16) {
        const __mmask16 here = sixteen(n - i);
        const __m512i v = _mm512_loadu_si512(row + i), m = _mm512_maskz_loadu_epi32(here, a.multiply + i);
        const __m512i b = _mm512_maskz_loadu_epi64((__mmask8)here, a.add + i), c = _mm512_maskz_loadu_epi64((__mmask8)(here >> 8), a.add + i + 8);
        const __m256i first = normal_eight(lower(v), means, inverses, halves, lower(m), b, by);
        const __m256i second = normal_eight(upper(v), means, inverses, halves, upper(m), c, by);
        const __m512i y = both(first, second);
        if (a.wide)
            _mm512_mask_storeu_epi32(a.wide + at + i, here, y);
        else
            _mm_mask_storeu_epi8(a.y + at + i, here, _mm_max_epi8(_mm512_cvtsepi32_epi8(y), _mm_set1_epi8(-127)));
    }
#else
#pragma omp simd
    for (int i = 0; i < n; i++) row[i] = (int32_t)__builtin_floor((double)(row[i] - mean) * inverse + half);
    if (a.wide) {
        affine_part(row, a.multiply, a.add, a.shift, INT32_MIN, INT32_MAX, n, a.wide + at);
    } else {
        int8_t *y = a.y + at;
        affine_part(row, a.multiply, a.add, a.shift, -127, 127, n, row);
#pragma omp simd
        for (int i = 0; i < n; i++) y[i] = (int8_t)row[i];
    }
#endif
}

bool norm_rows(const FewerIntegerNorm &a, int64_t first, int64_t last) {
    const int n = a.width;
    int32_t *row = (int32_t *)fewer_scratch(FEWER_SLOT_ROWS, up(n, 16) * 4);
    if (!row) return false;
    for (int64_t r = first; r < last; r++) {
        int64_t squares;
        const int64_t total = norm_entered(a.x + r * n, a.powers, n, row, &squares);
        const int64_t mean = a.centre ? floor_divide(2 * total + n, 2 * (int64_t)n) : 0;
        squares += mean * (n * mean - 2 * total);  // of what is left without the mean; all of it fits into 63 bits
        int64_t deviation = floor_root(squares / n << 2 * ROOT);
        if (deviation < 1) deviation = 1;
        norm_left(a, (int32_t)mean, (double)(1 << (FRACTION + ROOT)) / (double)deviation, 0.5 + 0.25 / (double)deviation, row, r * n);
    }
    return true;
}

bool bad_shift(int32_t shift) { return shift < 0 || shift > 62; }

}  // namespace

// Rows in as many parts as there are threads, and as they are worth; false where any part failed.
template <class Work>
static bool in_parts(int64_t rows, int width, int wanted, Work work) {
    const int threads = (int)least<int64_t>(wanted, 1 + rows * width / 65536);
    if (threads == 1) return work(0, rows);
    int failed = 0;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) reduction(| : failed) schedule(static)
#endif
    for (int part = 0; part < threads; part++)
        if (!work(rows * part / threads, rows * (part + 1) / threads)) failed = 1;
    return !failed;
}

int integer_affine(const FewerIntegerAffine *a) {
    if (a->rows <= 0) return FEWER_OK;
    if (a->width <= 0 || a->threads < 1 || bad_shift(a->shift) || !a->x || !a->y || !a->multiply || !a->add) return FEWER_BAD_ARGUMENT;
    if (a->table && (a->residual || a->size < 1 || (int64_t)a->low + a->size > INT32_MAX)) return FEWER_BAD_ARGUMENT;
    in_parts(a->rows, a->width, a->threads, [a](int64_t from, int64_t to) { return affine_rows(*a, from, to), true; });
    return FEWER_OK;
}

int integer_softmax(const FewerIntegerSoftmax *a) {
    if (a->rows <= 0) return FEWER_OK;
    if (a->width <= 0 || a->width > 1 << 20 || a->threads < 1 || bad_shift(a->shift) || a->groups < 1 || a->group_rows < 1 || a->reach < 0)
        return FEWER_BAD_ARGUMENT;
    if (!a->x || !a->y || !a->multiply || !a->add || (!a->table && !a->halving)) return FEWER_BAD_ARGUMENT;
    if (a->halving && (a->halving < 4 || a->halving > 1 << 15 || a->reach > 30 * a->halving || !a->slopes || !a->intercepts)) return FEWER_BAD_ARGUMENT;
    const bool done = in_parts(a->rows, a->width, a->threads, [a](int64_t from, int64_t to) { return softmax_rows(*a, from, to); });
    return done ? FEWER_OK : FEWER_NO_MEMORY;
}

int integer_norm(const FewerIntegerNorm *a) {
    if (a->rows <= 0) return FEWER_OK;
    if (a->width <= 0 || a->width > 1 << 16 || a->threads < 1 || bad_shift(a->shift)) return FEWER_BAD_ARGUMENT;
    if (!a->x || !a->multiply || !a->add || !a->y == !a->wide) return FEWER_BAD_ARGUMENT;
    for (int i = 0; a->powers && i < a->width; i++)
        if (a->powers[i] < 0 || a->powers[i] > 15) return FEWER_BAD_ARGUMENT;
    const bool done = in_parts(a->rows, a->width, a->threads, [a](int64_t from, int64_t to) { return norm_rows(*a, from, to); });
    return done ? FEWER_OK : FEWER_NO_MEMORY;
}

}  // namespace FEWER_NS
