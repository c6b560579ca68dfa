// The driver of one sparse product over a range of tokens and strips: prepared rows -> tiles -> epilogue.
#pragma once
#include "linear.h"
#include "micro.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace FEWER_NS {

FEWER_INLINE Strip strip_of(const FewerWeight &w, int64_t s) {
    int64_t first = w.rowptr[s];
    int64_t block_bytes = (int64_t)w.ku * STRIP * 4;
    Strip strip;
    strip.kidx = w.kidx + first;
    strip.vals = (const char *)w.vals + first * block_bytes;
    strip.blocks = w.rowptr[s + 1] - w.rowptr[s];
    strip.ku = w.ku;
    strip.bias = w.bias + s * STRIP;
    strip.scale = w.scale ? w.scale + s * STRIP : w.bias;  // not read for float weights
    strip.corr = w.corr ? w.corr + s * STRIP : (const int32_t *)w.bias;
    return strip;
}

// Whether strip s and the one behind it are whole and keep the same blocks. Those of a dense weight do.
FEWER_INLINE bool is_pair(const FewerWeight &w, int64_t s, int64_t end) {
    if (s + 1 >= end || (s + 2) * STRIP > w.out) return false;
    int64_t first = w.rowptr[s], second = w.rowptr[s + 1], count = second - first;
    return w.rowptr[s + 2] - second == count && memcmp(w.kidx + first, w.kidx + second, (size_t)count * 4) == 0;
}

// Inputs of a row as the blocks see them: the last block may reach beyond `in`.
FEWER_INLINE int64_t padded_inputs(const FewerWeight &w, int unit) { return up(up(w.in, (int64_t)w.ku * unit), 16); }

// Activation, residual and conversion of a finished tile: `cols` columns of `rows` rows, from scratch to the output.
// The switch over activations stands outside of the loops. Not static: the sources of a variant share one copy.
template <int ACT> void finish_tile(const float *t, int64_t ldt, int rows, int cols, const Output &out, int64_t row, int64_t col) {
    for (int i = 0; i < rows; i++, t += ldt) {
        const float *r = out.residual ? out.residual + (row + i) * out.ldr + col : nullptr;
        int64_t at = (row + i) * out.ldy + col;
        if (cols == STRIP) {
            for (int j = 0; j < STRIP; j += LANES) {
                vf v = activate(load(t + j), ACT);
                if (r) v += load(r + j);
                if (out.type == FEWER_T_F32) store((float *)out.y + at + j, v);
                else to_bf16((uint16_t *)out.y + at + j, v);
            }
        } else {
            float buffer[STRIP];
            for (int j = 0; j < STRIP; j += LANES) store(buffer + j, activate(load(t + j), ACT));
            for (int j = 0; j < cols; j++) {
                float v = buffer[j] + (r ? r[j] : 0.0f);
                if (out.type == FEWER_T_F32) ((float *)out.y)[at + j] = v;
                else ((uint16_t *)out.y)[at + j] = to_bf16_one(v);
            }
        }
    }
}

typedef void (*FinishFn)(const float *, int64_t, int, int, const Output &, int64_t, int64_t);
FEWER_INLINE FinishFn finish_of(int act, int type) {
    switch (act) {
        case FEWER_GELU: return type == FEWER_T_BF16 ? finish_tile<GELU_SHORT> : finish_tile<FEWER_GELU>;
        case FEWER_RELU: return finish_tile<FEWER_RELU>;
        case FEWER_SILU: return finish_tile<FEWER_SILU>;
        case FEWER_RELU6: return finish_tile<FEWER_RELU6>;
        case FEWER_GELU_TANH: return finish_tile<FEWER_GELU_TANH>;
        default: return finish_tile<FEWER_NONE>;
    }
}

// The epilogue that a tile can do in registers, or -1.
FEWER_INLINE int epilogue_of(const Output &out, int mode) {
    if (out.type == FEWER_T_F32 && out.act == FEWER_NONE) return out.residual ? ADD : PLAIN;
    if (out.type == FEWER_T_F32 && out.act == FEWER_RELU6 && !out.residual) return RELU6;
    if (mode == FEWER_F32 || out.type != FEWER_T_BF16 || out.residual) return -1;
    return out.act == FEWER_NONE ? LOW : out.act == FEWER_GELU ? GELU_LOW : -1;
}

// Prepared rows [row0, row0 + rows) times strips [s0, s1). A strip's weights stay in L1 or L2 over all tiles of the rows.
template <class Mode>
static void multiply(const FewerWeight &w, const uint32_t *x, int64_t ldx, const float *sx, int64_t row0, int64_t rows,
                     int64_t s0, int64_t s1, const Output &out) {
    alignas(64) float scratch[TILE_MAX * 2 * STRIP];
    Tiles tiles(rows, tile_rows<Mode>());
    FinishFn finish = finish_of(out.act, out.type);
    int direct = EPILOGUES<Mode> ? epilogue_of(out, Mode::ID) : -1;
    int64_t bytes = out.type == FEWER_T_F32 ? 4 : 2;
    // `height` rows from r on times strip s, or times it and the next one for PAIR
    auto run = [&](int height, int64_t s, int64_t r) {
        int64_t row = row0 + r, col = s * STRIP;
        int cols = (int)least<int64_t>(STRIP, w.out - col);
        if (direct >= 0 && cols == STRIP) {  // from registers to the output
            const float *residual = out.residual ? out.residual + row * out.ldr + col : nullptr;
            char *y = (char *)out.y + (row * out.ldy + col) * bytes;
            tile_of<Mode>(height, direct)(strip_of(w, s), x + r * ldx, ldx, sx + r, y, out.ldy, residual, out.ldr);
            return;
        }
        tile_of<Mode>(height)(strip_of(w, s), x + r * ldx, ldx, sx + r, scratch, 2 * STRIP, nullptr, 0);
        int rows = height == PAIR ? Mode::WIDE : height;
        finish(scratch, 2 * STRIP, rows, cols, out, row, col);
        if (height == PAIR) finish(scratch + STRIP, 2 * STRIP, rows, STRIP, out, row, col + STRIP);
    };
    for (int64_t s = s0; s < s1; s++) {
        bool pair = tiles.full && is_pair(w, s, s1);
        int64_t r = 0, t = 0;
        if (pair)
            for (; t < tiles.full; t++, r += tiles.high) run(PAIR, s, r);
        for (; t < tiles.count; r += tiles.height(t), t++) {
            run(tiles.height(t), s, r);
            if (pair) run(tiles.height(t), s + 1, r);
        }
        s += pair;
    }
}

// Prepares rows [first, first + rows) into dst; sx receives their scales. False when memory is exhausted.
template <class Mode>
static bool prepare(const Prologue &p, int64_t first, int64_t rows, int64_t inputs, int64_t padded, uint32_t *dst, int64_t ldd, float *sx) {
    float *row = (float *)fewer_scratch(FEWER_SLOT_NORM, padded * 4);
    if (!row) return false;
    int64_t bytes = p.type == FEWER_T_F32 ? 4 : 2;
    for (int64_t i = 0; i < rows; i++) {
        const char *src = (const char *)p.x + (first + i) * p.ldx * bytes;
        if (p.type == Mode::READS && !p.norm_weight) {  // only a stride or a ragged end was in the way
            memcpy(dst + i * ldd, src, inputs * bytes);
            memset((char *)(dst + i * ldd) + inputs * bytes, 0, (padded - inputs) * bytes);
            sx[i] = 1.0f;
            continue;
        }
        if (p.type == FEWER_T_F32 && inputs == padded) {  // convert from where the row is
            if (p.norm_weight) norm_row((const float *)src, (int)inputs, p.norm_weight, p.norm_bias, p.eps, row);
            sx[i] = Mode::convert_row(p.norm_weight ? row : (const float *)src, padded, dst + i * ldd);
            continue;
        }
        load_row(src, p.type, inputs, padded, row);
        if (p.norm_weight) norm_row(row, (int)inputs, p.norm_weight, p.norm_bias, p.eps, row);
        sx[i] = Mode::convert_row(row, padded, dst + i * ldd);
    }
    return true;
}

template <class Mode> FEWER_INLINE int64_t row_lanes(const FewerWeight &w) {
    return padded_lanes(padded_inputs(w, Mode::UNIT) / Mode::UNIT * Mode::XSTEP);
}

// Rows of a chunk: at most eight tiles, so that the lines of the output stay in L2 too, and at most 512 KB of prepared
// activations, half of a usual L2. Fewer rows would read all weights from L3 more often.
template <class Mode> FEWER_INLINE int64_t chunk_rows(int64_t lanes) {
    const int64_t height = tile_rows<Mode>();
    return most<int64_t>(1, least<int64_t>(8, 524288 / (lanes * 4) / height)) * height;
}

// Rows of the type that the step takes are read where they are, unless a block reaches beyond the row, or the stride is
// a bad one or no whole number of lanes. Many bf16 rows are copied all the same: the strips of a sparse weight touch
// them here and there, which is slower than one sweep when the rows are not in L2.
template <class Mode> FEWER_INLINE bool readable(const FewerWeight &w, const Prologue &p, int64_t rows) {
    constexpr int PER_LANE = Mode::READS == FEWER_T_BF16 ? 2 : 1;
    if (Mode::READS == FEWER_T_BF16 && rows * w.in * 2 > 786432) return false;
    return p.type == Mode::READS && !p.norm_weight && w.in % (w.ku * Mode::UNIT) == 0 && p.ldx % PER_LANE == 0 &&
           p.ldx / PER_LANE % 1024 != 0;
}

// One thread's share, when it owns whole rows: prepare a chunk, multiply it with strips [s0, s1), go on.
template <class Mode>
static bool rows_times_strips(const FewerWeight &w, const Prologue &p, int64_t first, int64_t rows, int64_t s0, int64_t s1, const Output &out) {
    if (rows <= 0) return true;
    if (readable<Mode>(w, p, rows)) {
        int64_t lanes = w.in / Mode::UNIT, ldx = p.ldx / (Mode::READS == FEWER_T_BF16 ? 2 : 1), chunk = chunk_rows<Mode>(lanes);
        for (int64_t r = 0; r < rows; r += chunk)
            multiply<Mode>(w, (const uint32_t *)p.x + (first + r) * ldx, ldx, w.bias, first + r, least(chunk, rows - r), s0, s1, out);
        return true;
    }
    int64_t lanes = row_lanes<Mode>(w), padded = padded_inputs(w, Mode::UNIT);
    int64_t chunk = least(rows, chunk_rows<Mode>(lanes));
    uint32_t *x = (uint32_t *)fewer_scratch(FEWER_SLOT_ROWS, chunk * lanes * 4);
    float *sx = (float *)fewer_scratch(FEWER_SLOT_SCALE, (chunk + 16) * 4);
    if (!x || !sx) return false;
    for (int64_t r = 0; r < rows; r += chunk) {
        int64_t n = least(chunk, rows - r);
        if (!prepare<Mode>(p, first + r, n, w.in, padded, x, lanes, sx)) return false;
        multiply<Mode>(w, x, lanes, sx, first + r, n, s0, s1, out);
    }
    return true;
}

// First strip of part `i` of `n`: strips are cut so that every part has about the same work, counted in stored blocks
// plus a fixed cost per strip (pruned rows are not balanced).
FEWER_INLINE int64_t strip_cut(const FewerWeight &w, int64_t i, int64_t n) {
    if (i >= n) return w.strips;
    const int64_t fixed = 4;
    double target = (double)(w.rowptr[w.strips] + fixed * w.strips) * i / n;
    int64_t low = 0, high = w.strips;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if ((double)(w.rowptr[mid] + fixed * mid) < target) low = mid + 1;
        else high = mid;
    }
    return low;
}

// How `threads` are laid out over tokens x strips. Whole rows need no barrier, so tokens are split first; strips are
// split when there are too few tiles to go round.
struct Grid {
    int tokens, strips;
    Grid(int64_t rows, int64_t strip_count, int threads, int tile_height) : tokens(1), strips(1) {
        int64_t tiles = most<int64_t>(1, (rows + tile_height - 1) / tile_height);
        double best = 1e300;
        for (int a = 1; a <= threads; a++) {
            int b = threads / a;
            // Slowest part, in tiles; the second term is the cost of a barrier and of shared preparation.
            double cost = (double)((tiles + a - 1) / a) * (double)((strip_count + b - 1) / b) + (b > 1 ? 0.02 * tiles * strip_count / threads : 0);
            if (cost < best) best = cost, tokens = a, strips = b;
        }
    }
};

// The whole product with `threads` threads.
template <class Mode> static int product(const FewerWeight &w, const Prologue &p, int64_t rows, const Output &out, int threads) {
    int64_t lanes = row_lanes<Mode>(w), padded = padded_inputs(w, Mode::UNIT);
    // A thread must be worth its start (a few microseconds): about 200,000 multiply-adds.
    int64_t work = (int64_t)w.rowptr[w.strips] * w.ku * Mode::UNIT * STRIP * rows;
    threads = (int)least<int64_t>(threads, 1 + work / 200000);
    if (threads <= 1) return rows_times_strips<Mode>(w, p, 0, rows, 0, w.strips, out) ? FEWER_OK : FEWER_NO_MEMORY;

    Grid grid(rows, w.strips, threads, tile_rows<Mode>());
    int failed = 0;
    bool shared = grid.strips > 1 && !readable<Mode>(w, p, rows);
    uint32_t *x = nullptr;
    float *sx = nullptr;
    if (shared) {  // several threads read the same rows: prepare them once
        x = (uint32_t *)fewer_scratch(FEWER_SLOT_SHARED, rows * lanes * 4 + (rows + 16) * 4);
        if (!x) return FEWER_NO_MEMORY;
        sx = (float *)(x + rows * lanes);
    }
#ifdef _OPENMP
#pragma omp parallel num_threads(grid.tokens * grid.strips) reduction(| : failed)
#endif
    {
#ifdef _OPENMP
        int me = omp_get_thread_num(), team = omp_get_num_threads();
#else
        int me = 0, team = 1;
#endif
        int parts = grid.tokens * grid.strips;
        if (shared) {
            int64_t a = rows * me / team, b = rows * (me + 1) / team;
            if (b > a && !prepare<Mode>(p, a, b - a, w.in, padded, x + a * lanes, lanes, sx + a)) failed = 1;
#ifdef _OPENMP
#pragma omp barrier
#endif
        }
        for (int part = me; part < parts; part += team) {  // the team may be smaller than asked for
            int64_t ti = part / grid.strips, si = part % grid.strips;
            int64_t r0 = rows * ti / grid.tokens, r1 = rows * (ti + 1) / grid.tokens;
            int64_t s0 = strip_cut(w, si, grid.strips), s1 = strip_cut(w, si + 1, grid.strips);
            if (r1 <= r0 || s1 <= s0) continue;
            if (!shared) {
                if (!rows_times_strips<Mode>(w, p, r0, r1 - r0, s0, s1, out)) failed = 1;
            } else {
                int64_t chunk = chunk_rows<Mode>(lanes);
                for (int64_t r = r0; r < r1; r += chunk)
                    multiply<Mode>(w, x + r * lanes, lanes, sx + r, r, least(chunk, r1 - r), s0, s1, out);
            }
        }
    }
    return failed ? FEWER_NO_MEMORY : FEWER_OK;
}

}  // namespace FEWER_NS
