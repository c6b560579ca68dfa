// Networks in integers (fewer/approximate): what follows a product of bytes, softmax, and LayerNorm. The integers that come out are
// those of fewer.approximate on int64 arrays, bit for bit; what is specified there is explained there.
//
// Quotients of integers are made with the reciprocal in double precision. For a < 2^50 and b >= 1, (a + 1/2) / b is at least 1/(2b)
// away from every integer, and three roundings move it by less: floor((a + 1/2) * (1 / b)) is the exact floor(a / b).
#include "rows.h"

namespace FEWER_NS {

namespace {

constexpr int PART = 512;  // numbers that are worked on at once, so that what is in between stays in cache

// out = (x * multiply + add) >> shift within low .. high, with a factor for each number.
void affine_part(const int32_t *x, const int32_t *multiply, const int64_t *add, int shift, int64_t low, int64_t high, int n, int32_t *out) {
#pragma omp simd
    for (int i = 0; i < n; i++) {
        int64_t v = ((int64_t)x[i] * multiply[i] + add[i]) >> shift;
        v = v < low ? low : v;
        out[i] = (int32_t)(v > high ? high : v);
    }
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
        const bool lines = a.halving && (LANES == 16 || !a.table);  // with shorter vectors the table is quicker
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

// The largest integer whose square is not above x >= 0.
int64_t floor_root(int64_t x) {
    int64_t root = (int64_t)__builtin_sqrt((double)x);
    while (root > 0 && root > x / root) root--;
    while ((root + 1) <= x / (root + 1)) root++;
    return root;
}

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }

constexpr int32_t LIMIT = 1 << 22;  // of what goes into a norm
constexpr int FRACTION = 10, ROOT = 8;

bool norm_rows(const FewerIntegerNorm &a, int64_t first, int64_t last) {
    const int n = a.width;
    int32_t *row = (int32_t *)fewer_scratch(FEWER_SLOT_ROWS, (int64_t)n * 4);
    if (!row) return false;
    for (int64_t r = first; r < last; r++) {
        const int32_t *x = a.x + r * n;
        if (a.powers) {
            const int32_t *powers = a.powers;
#pragma omp simd
            for (int i = 0; i < n; i++) {  // a byte for each number, with a power of two for each channel
                int64_t v = ((int64_t)x[i] + ((int64_t)1 << powers[i] >> 1)) >> powers[i];
                v = v < -127 ? -127 : v > 127 ? 127 : v;
                row[i] = (int32_t)((uint32_t)v << powers[i]);
            }
            x = row;
        }
        int64_t total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
        for (int i = 0; i < n; i++) {
            const int32_t v = x[i] < -LIMIT ? -LIMIT : x[i] > LIMIT ? LIMIT : x[i];
            row[i] = v;
            total += v;
        }
        const int32_t mean = a.centre ? (int32_t)floor_divide(2 * total + n, 2 * (int64_t)n) : 0;
#pragma omp simd reduction(+ : squares)
        for (int i = 0; i < n; i++) {
            row[i] -= mean;
            squares += (int64_t)row[i] * row[i];
        }
        int64_t deviation = floor_root(squares / n << 2 * ROOT);
        if (deviation < 1) deviation = 1;
        // round(c 2^18 / d) = floor((c 2^19 + d) / 2d); the half that keeps the floor exact is in the offset
        const double inverse = (double)(1 << (FRACTION + ROOT)) / (double)deviation, half = 0.5 + 0.25 / (double)deviation;
#pragma omp simd
        for (int i = 0; i < n; i++) row[i] = (int32_t)__builtin_floor((double)row[i] * inverse + half);
        if (a.wide) {
            affine_part(row, a.multiply, a.add, a.shift, INT32_MIN, INT32_MAX, n, a.wide + r * n);
        } else {
            int8_t *y = a.y + r * n;
            affine_part(row, a.multiply, a.add, a.shift, -127, 127, n, row);
#pragma omp simd
            for (int i = 0; i < n; i++) y[i] = (int8_t)row[i];
        }
    }
    return true;
}

bool bad_shift(int32_t shift) { return shift < 0 || shift > 62; }

}  // namespace

// Rows in as many parts as there are threads, and as they are worth; false where any part failed.
template <class Work>
static bool in_parts(int64_t rows, int width, int wanted, Work work) {
    const int threads = (int)least<int64_t>(wanted, 1 + rows * width / 65536);
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
