// A whole pre-norm transformer block in one call: norm, qkv, attention, projection, norm, two-layer perceptron.
//
// Between the layers activations stay in the format of `mode` (bf16 for the low precisions), and from the projection on
// a thread carries a few dozen tokens through to the end of the block, so that the wide hidden layer never leaves L2.
#include "rows.h"

namespace FEWER_NS {

namespace {

struct Buffers {
    char *qkv, *context;
    int type;
    int64_t bytes;  // of one value
};

FEWER_INLINE FewerAttention attention_of(const FewerBlock &a, const Buffers &b, int64_t first, int batch, int threads) {
    int64_t width = a.proj->in, dim = width / a.heads, token = 3 * width;
    FewerAttention t = {};
    t.q = b.qkv;
    t.k = b.qkv + width * b.bytes;
    t.v = b.qkv + 2 * width * b.bytes;
    t.q_batch = t.k_batch = t.v_batch = (int64_t)a.tokens * token;
    t.q_token = t.k_token = t.v_token = token;
    t.q_head = t.k_head = t.v_head = t.o_head = dim;
    t.out = b.context;
    t.o_batch = (int64_t)a.tokens * width;
    t.o_token = width;
    t.xtype = t.ytype = b.type;
    t.mode = a.mode;
    t.batch = batch;
    t.heads = a.heads;
    t.queries = t.keys = a.tokens;
    t.dim = (int32_t)dim;
    t.scale = a.scale;
    t.threads = threads;
    t.key_bias = a.key_bias ? a.key_bias + first * a.tokens : nullptr;
    t.bias_batch = a.tokens;
    return t;
}

// Rows [first, last) of everything after attention: y = x + proj(context); y += fc2(act(fc1(norm2(y)))).
bool after_attention(const FewerBlock &a, const Buffers &b, const float *x, float *y, int64_t first, int64_t last) {
    const int64_t CHUNK = 48;
    int64_t in = a.proj->in, width = a.qkv->in, hidden = a.fc1->out, ldh = padded_lanes(hidden);
    char *h = (char *)fewer_scratch(FEWER_SLOT_HIDDEN, CHUNK * ldh * b.bytes);
    if (!h) return false;
    for (int64_t r = first; r < last; r += CHUNK) {
        int64_t n = least(CHUNK, last - r);
        const float *xr = x + r * width;
        float *yr = y + r * width;
        Prologue context = {b.context + r * in * b.bytes, in, b.type, nullptr, nullptr, 0};
        Prologue normed = {yr, width, FEWER_T_F32, a.norm2_weight, a.norm2_bias, a.eps2};
        Prologue inner = {h, ldh, b.type, nullptr, nullptr, 0};
        if (!run_rows(*a.proj, context, 0, n, {yr, width, FEWER_T_F32, FEWER_NONE, xr, width}) ||
            !run_rows(*a.fc1, normed, 0, n, {h, ldh, b.type, a.act, nullptr, 0}) ||
            !run_rows(*a.fc2, inner, 0, n, {yr, width, FEWER_T_F32, FEWER_NONE, yr, width}))
            return false;
    }
    return true;
}

FEWER_INLINE bool get_buffers(const FewerBlock &a, int64_t rows, Buffers *b) {
    b->type = a.mode == FEWER_F32 ? FEWER_T_F32 : FEWER_T_BF16;
    b->bytes = b->type == FEWER_T_F32 ? 4 : 2;
    // 64 spare values: vector loads of the last row may not run past the end.
    b->qkv = (char *)fewer_scratch(FEWER_SLOT_QKV, (rows * a.qkv->out + 64) * b->bytes);
    b->context = (char *)fewer_scratch(FEWER_SLOT_CONTEXT, (rows * a.proj->in + 64) * b->bytes);
    return b->qkv && b->context;
}

// One thread carries whole images: no barrier, and the qkv buffer of one image stays in L2.
bool one_image(const FewerBlock &a, int64_t image) {
    Buffers b;
    if (!get_buffers(a, a.tokens, &b)) return false;
    int64_t offset = image * a.tokens * a.qkv->in;
    Prologue normed = {a.x + offset, a.qkv->in, FEWER_T_F32, a.norm1_weight, a.norm1_bias, a.eps1};
    if (!run_rows(*a.qkv, normed, 0, a.tokens, {b.qkv, a.qkv->out, b.type, FEWER_NONE, nullptr, 0})) return false;
    FewerAttention t = attention_of(a, b, image, 1, 1);
    return attention(&t) == FEWER_OK && after_attention(a, b, a.x + offset, a.y + offset, 0, a.tokens);
}

// All threads work on all images together.
int together(const FewerBlock &a) {
    int64_t rows = (int64_t)a.batch * a.tokens, width = a.qkv->in;
    Buffers b;
    if (!get_buffers(a, rows, &b)) return FEWER_NO_MEMORY;
    Prologue normed = {a.x, width, FEWER_T_F32, a.norm1_weight, a.norm1_bias, a.eps1};
    int status = run_product(*a.qkv, normed, rows, {b.qkv, a.qkv->out, b.type, FEWER_NONE, nullptr, 0}, a.threads);
    if (status) return status;
    FewerAttention t = attention_of(a, b, 0, a.batch, a.threads);
    if ((status = attention(&t))) return status;
    if (rows / a.threads >= 24) {
        int failed = 0;
#ifdef _OPENMP
#pragma omp parallel for num_threads(a.threads) reduction(| : failed) schedule(static)
#endif
        for (int i = 0; i < a.threads; i++)
            if (!after_attention(a, b, a.x, a.y, rows * i / a.threads, rows * (i + 1) / a.threads)) failed = 1;
        return failed ? FEWER_NO_MEMORY : FEWER_OK;
    }
    // Few rows for many threads: one layer at a time, each split over its strips too.
    int64_t hidden = a.fc1->out, in = a.proj->in, ldh = padded_lanes(hidden);
    char *h = (char *)fewer_scratch(FEWER_SLOT_HIDDEN, rows * ldh * b.bytes);
    if (!h) return FEWER_NO_MEMORY;
    Prologue context = {b.context, in, b.type, nullptr, nullptr, 0};
    Prologue normed2 = {a.y, width, FEWER_T_F32, a.norm2_weight, a.norm2_bias, a.eps2};
    Prologue inner = {h, ldh, b.type, nullptr, nullptr, 0};
    if ((status = run_product(*a.proj, context, rows, {a.y, width, FEWER_T_F32, FEWER_NONE, a.x, width}, a.threads))) return status;
    if ((status = run_product(*a.fc1, normed2, rows, {h, ldh, b.type, a.act, nullptr, 0}, a.threads))) return status;
    return run_product(*a.fc2, inner, rows, {a.y, width, FEWER_T_F32, FEWER_NONE, a.y, width}, a.threads);
}

}  // namespace

int block(const FewerBlock *a) {
    if (a->batch <= 0 || a->tokens <= 0) return FEWER_OK;
    if (a->heads <= 0 || a->proj->in % a->heads || a->qkv->out != 3 * a->proj->in) return FEWER_BAD_ARGUMENT;
    bool images = a->threads <= 1 || a->batch % a->threads == 0 || a->batch >= 4 * a->threads;
    if (!images) return together(*a);
    int failed = 0;
#ifdef _OPENMP
#pragma omp parallel for num_threads(a->threads) reduction(| : failed) schedule(static) if (a->threads > 1)
#endif
    for (int i = 0; i < a->batch; i++)
        if (!one_image(*a, i)) failed = 1;
    return failed ? FEWER_NO_MEMORY : FEWER_OK;
}

}  // namespace FEWER_NS
