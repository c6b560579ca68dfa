// Choice of the instruction set at run time, per-thread scratch, and the exported C functions.
// This file is compiled for the baseline processor.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#if defined(FEWER_X86)
#include <cpuid.h>
#endif

extern "C" const FewerTable *fewer_table_portable();
#if defined(FEWER_X86)
extern "C" const FewerTable *fewer_table_avx2();
extern "C" const FewerTable *fewer_table_avx512();
extern "C" const FewerTable *fewer_table_avx512_vnni();
extern "C" const FewerTable *fewer_table_avx512_bf16();
#endif

namespace {

struct Variant {
    const char *name;
    const FewerTable *(*table)();
    bool (*supported)();
};

bool always() { return true; }
#if defined(FEWER_X86)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
}
bool has_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
bool has_bf16() { return has_vnni() && __builtin_cpu_supports("avx512bf16"); }
#endif

// Ways of the first data cache: of the kinds that cpuid lists, in the leaf of Intel or that of AMD. 0 where it does not say.
int ways_of_l1() {
#if defined(FEWER_X86)
    const unsigned leaves[] = {0x4u, 0x8000001du};
    for (unsigned leaf : leaves)
        for (unsigned i = 0; i < 8; i++) {
            unsigned a, b, c, d;
            if (!__get_cpuid_count(leaf, i, &a, &b, &c, &d) || (a & 31) == 0) break;
            bool data = (a & 31) == 1 || (a & 31) == 3;
            if (data && (a >> 5 & 7) == 1) return (int)(b >> 22) + 1;
        }
#endif
    return 0;
}

// Best first.
const Variant VARIANTS[] = {
#if defined(FEWER_X86)
    {"avx512_bf16", fewer_table_avx512_bf16, has_bf16},
    {"avx512_vnni", fewer_table_avx512_vnni, has_vnni},
    {"avx512", fewer_table_avx512, has_avx512},
    {"avx2", fewer_table_avx2, has_avx2},
#endif
    {"portable", fewer_table_portable, always},
};

const FewerTable *active = nullptr;

struct Scratch {
    void *memory[FEWER_SLOTS] = {};
    int64_t size[FEWER_SLOTS] = {};
    ~Scratch() {
        for (void *p : memory) free(p);
    }
};
thread_local Scratch scratch;

}  // namespace

extern "C" {
__attribute__((visibility("default"))) int fewer_wide_tiles = ways_of_l1() >= 12;
}

void *fewer_scratch(int slot, int64_t bytes) {
    Scratch &s = scratch;
    if (bytes > s.size[slot]) {
        free(s.memory[slot]);
        s.size[slot] = 0;
        void *p = nullptr;
#if defined(FEWER_EXACT_SCRATCH)  // for AddressSanitizer: no slack that would hide an overflow
        int64_t want = bytes;
#else
        int64_t want = (bytes + bytes / 4 + 4095) / 4096 * 4096;
#endif
        if (posix_memalign(&p, 4096, (size_t)want) != 0) p = nullptr;
        s.memory[slot] = p;
        if (p) s.size[slot] = want;
    }
    return s.memory[slot];
}

// Selects an instruction set by name, the best one for a null name. 0: done; 1: unknown name; 2: not on this processor.
FEWER_EXPORT int fewer_select(const char *name) {
#if defined(FEWER_X86)
    __builtin_cpu_init();
#endif
    for (const Variant &v : VARIANTS) {
        bool match = name ? strcmp(name, v.name) == 0 : v.supported();
        if (!match) continue;
        if (!v.supported()) return 2;
        active = v.table();
        return 0;
    }
    return 1;
}

// The i-th variant's name, null past the end; *supported says whether this processor has it.
FEWER_EXPORT const char *fewer_variant(int i, int *supported) {
    if (i < 0 || i >= (int)(sizeof VARIANTS / sizeof *VARIANTS)) return nullptr;
    *supported = VARIANTS[i].supported();
    return VARIANTS[i].name;
}

FEWER_EXPORT const char *fewer_active() { return active ? active->name : nullptr; }
FEWER_EXPORT int fewer_abi_version() { return 6; }
FEWER_EXPORT int fewer_openmp() {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}

FEWER_EXPORT int fewer_linear(const FewerWeight *w, const FewerLinear *a) { return active->linear(w, a); }
FEWER_EXPORT int fewer_attention(const FewerAttention *a) { return active->attention(a); }
FEWER_EXPORT int fewer_block(const FewerBlock *a) { return active->block(a); }
FEWER_EXPORT int fewer_conv(const FewerWeight *w, const FewerConv *a) { return active->conv(w, a); }
FEWER_EXPORT int fewer_depthwise(const FewerDepthwise *a) { return active->depthwise(a); }
FEWER_EXPORT int fewer_norm(const FewerNorm *a) { return active->norm(a); }
FEWER_EXPORT int fewer_chain(const FewerChain *a) { return active->chain(a); }
FEWER_EXPORT int fewer_merge(const FewerMerge *m) { return active->merge(m); }
FEWER_EXPORT int fewer_integer_affine(const FewerIntegerAffine *a) { return active->integer_affine(a); }
FEWER_EXPORT int fewer_integer_softmax(const FewerIntegerSoftmax *a) { return active->integer_softmax(a); }
FEWER_EXPORT int fewer_integer_norm(const FewerIntegerNorm *a) { return active->integer_norm(a); }
FEWER_EXPORT double fewer_peak(int mode, int64_t steps) { return active->peak(mode, steps); }
