// The measured peak of the dot product of one number format.
#pragma once
#include "micro.h"

namespace FEWER_NS {

// One dense tile over and over, with weights and activations in L1: what the inner loop can do when memory costs nothing.
template <class Mode> static double peak_of(int64_t steps) {
    constexpr int UNITS = 128, LDX = UNITS * Mode::XSTEP + 16;
    alignas(64) static uint32_t w[2 * UNITS * STRIP], x[TILE_MAX * LDX];
    alignas(64) static const float zeros[2 * STRIP] = {};
    alignas(64) float out[TILE_MAX * 2 * STRIP];
    const int height = tile_rows<Mode>(), strips = height > Mode::TILE ? 2 : 1;
    static const int32_t start[1] = {0};
    Strip strip = {start, w, 1, UNITS, zeros, zeros, (const int32_t *)zeros};
    int64_t done = 0;
    for (; done < steps; done += UNITS) {
        tile_of<Mode>(strips == 2 ? PAIR : height)(strip, x, LDX, zeros, out, 2 * STRIP, nullptr, 0);
        __asm__ volatile("" ::"r"(out) : "memory");  // the result counts as used
    }
    return 2.0 * (double)done * height * strips * STRIP * Mode::UNIT;
}

}  // namespace FEWER_NS
