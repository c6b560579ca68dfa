// The C ABI of the fewer native library: plain structs of pointers and integers, filled from Python through ctypes.
//
// One rule holds for every pointer: the caller owns the memory and has checked it. The library allocates only scratch
// memory that is private to a thread, and it never keeps a pointer after a call returns.
#pragma once
#include <stdint.h>

#if defined(__GNUC__)
#define FEWER_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define FEWER_EXPORT extern "C"
#endif

// Number format of the stored weights; also the arithmetic of the product.
enum FewerMode : int32_t { FEWER_F32 = 0, FEWER_BF16 = 1, FEWER_I8 = 2 };
// Number format of activations in memory.
enum FewerType : int32_t { FEWER_T_F32 = 0, FEWER_T_BF16 = 1 };
enum FewerAct : int32_t {
    FEWER_NONE = 0, FEWER_GELU = 1, FEWER_RELU = 2, FEWER_SILU = 3, FEWER_RELU6 = 4, FEWER_GELU_TANH = 5
};
enum FewerStatus : int32_t { FEWER_OK = 0, FEWER_BAD_ARGUMENT = 1, FEWER_NO_MEMORY = 2 };

// Rows of weights in one strip. Fixed, so that a packed file is the same for every instruction set:
// one 16-lane vector on AVX-512, two 8-lane vectors on AVX2, four 4-lane vectors elsewhere.
#define FEWER_STRIP 16

// A packed block-sparse weight matrix of shape (out, in). See docs/kernels.md for the format.
struct FewerWeight {
    int32_t mode;           // FewerMode
    int32_t out, in;
    int32_t strips;         // ceil(out / 16)
    int32_t ku;             // width of a block in units (a unit = 1 fp32, 2 bf16 or 4 int8 inputs = 32 bits)
    const int32_t *rowptr;  // [strips + 1] first block of each strip
    const int32_t *kidx;    // [blocks] first input of each block, in units
    const void *vals;       // [blocks][ku][16 rows][unit]
    const float *bias;      // [strips * 16]; zeros where there is none
    const float *scale;     // [strips * 16] int8 only: weight = stored * scale
    const int32_t *corr;    // [strips * 16] int8 only: 128 * sum of the stored weights of a row
    // int8 only. 1: in every unit and row, the weights of inputs (0, 1), and of (2, 3), sum up to at most 128 in either sign.
    int32_t narrow;
};

// y = act(norm(x) W^T + bias) + residual, over `tokens` rows.
struct FewerLinear {
    const void *x;          // [tokens] rows of `in` values, `ldx` values apart
    int64_t ldx;
    int32_t xtype;
    int32_t act;
    const float *ln_weight, *ln_bias;  // both null: no LayerNorm before the product
    float ln_eps;
    int32_t ytype;
    void *y;
    int64_t ldy;
    const float *residual;  // null, or [tokens] rows of `out` values, `ldr` values apart
    int64_t ldr;
    int64_t tokens;
    int32_t threads;
};

// out = softmax(scale * Q K^T + key_bias) V for each batch entry and head. Rows are tokens; a head's values are contiguous.
struct FewerAttention {
    const void *q, *k, *v;
    int64_t q_batch, q_token, q_head;  // strides in values
    int64_t k_batch, k_token, k_head;
    int64_t v_batch, v_token, v_head;
    void *out;
    int64_t o_batch, o_token, o_head;
    int32_t xtype, ytype;
    int32_t mode;           // FEWER_F32 or FEWER_BF16: the arithmetic of the two products
    int32_t batch, heads, queries, keys, dim;
    float scale;
    int32_t threads;
    const float *key_bias;  // null, or a number for each key, the same for all heads and queries
    int64_t bias_batch;     // stride in values
};

// A whole pre-norm transformer block: x + proj(attention(norm1(x))), then + fc2(act(fc1(norm2(.)))).
struct FewerBlock {
    const FewerWeight *qkv, *proj, *fc1, *fc2;
    const float *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias;
    float eps1, eps2;
    int32_t act;
    int32_t heads;
    int32_t batch, tokens;  // x and y: contiguous fp32 [batch, tokens, width]
    const float *x;
    float *y;
    int32_t mode;           // arithmetic of attention; also the format of activations between the layers
    float scale;            // of the attention logits
    int32_t threads;
    const float *key_bias;  // null, or contiguous [batch, tokens]: added to the logits of each key
};

// 2-D convolution with a packed weight of shape (out, kernel_h * kernel_w * channels_padded), channels-last.
struct FewerConv {
    const float *x;         // fp32 input; strides in values for batch, channel, row, column
    int64_t x_batch, x_channel, x_row, x_col;
    float *y;               // fp32 channels-last output [batch, out_h, out_w, out]
    const float *residual;  // null, or the layout of y
    int32_t batch, channels, channels_padded, height, width;
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    int32_t out_h, out_w;
    int32_t act;
    int32_t threads;
};

// Dense depthwise convolution, fp32, channels-last in and out, weight [kernel_h, kernel_w, channels].
struct FewerDepthwise {
    const float *x, *weight, *bias;
    float *y;
    int32_t batch, channels, height, width;
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    int32_t out_h, out_w;
    int32_t act;
    int32_t threads;
};

// One stage of a convolutional chain: [expand 1x1, or k x k for a stem] -> [depthwise filter] -> project 1x1 [+ input].
// All channel counts are padded with zeros to multiples of 16, in the weights too.
struct FewerStage {
    const FewerWeight *expand;          // null: the filter or the projection reads the input itself
    const float *filter, *filter_bias;  // null, or [kernel * kernel][channels] and [channels]
    const FewerWeight *project;
    int32_t expand_kernel, expand_stride, expand_pad;
    int32_t filter_kernel, filter_stride, filter_pad;  // kernel 3 or 5, stride 1 or 2
    int32_t expand_act, filter_act, project_act;
    int32_t residual;                   // whether the input of the stage is added to its output
};

// Stages that follow each other. Between stages activations are fp32, channels-last; inside they are rows in cache.
struct FewerChain {
    const FewerStage *stages;
    int32_t count;
    const float *x;                     // strides in values for batch, channel, row, column
    int64_t x_batch, x_channel, x_row, x_col;
    float *y;                           // contiguous [batch, rows, columns, padded channels of the last stage]
    int32_t batch, channels, height, width;
    int32_t threads;
};

// Row-wise LayerNorm of fp32 rows with an optional residual added first: s = x + residual, y = norm(s).
struct FewerNorm {
    const float *x;
    const float *residual;  // null, or rows like x
    float *sum;             // null, or receives x + residual
    const float *weight, *bias;
    float eps;
    int32_t ytype;          // 0 fp32, 1 bf16, 2 int8 (signed, symmetric, per-row scale)
    void *y;
    float *scale;           // [tokens] for int8
    int64_t tokens;
    int32_t width;
    int32_t threads;
};

// Tokens of which the `count` pairs that are most alike become one (fewer/tokens/merge.py).
struct FewerMerge {
    const float *x;         // [batch, tokens, width]
    const float *sizes;     // [batch, tokens]: how many tokens of the image each stands for
    const int64_t *origin;  // [batch, image]: which of the tokens holds each token of the image
    float *y;               // [batch, tokens - count, width]
    float *sizes_out;       // [batch, tokens - count]
    int64_t *origin_out;    // [batch, image]
    int32_t batch, tokens, width, image;
    int32_t count;          // at most half of the tokens that are not protected
    int32_t protect;        // tokens in front that are left alone
    int32_t threads;
};

// Integers of a product of bytes, brought to another scale: v = (x * multiply + add) >> shift, with a factor for each column. Then
// bytes within -127 .. 127; or table[v], with v cut off at the table's ends; or v + residual.
struct FewerIntegerAffine {
    const int32_t *x;           // [rows, width]
    const int32_t *multiply;    // [width]
    const int64_t *add;         // [width]
    int32_t shift;
    const int8_t *table;        // null, or the results for low, low + 1, ...
    int32_t low, size;
    const int32_t *residual;    // null, or [rows, width]
    void *y;                    // [rows, width]: int32 with a residual, else int8
    int64_t rows;
    int32_t width;
    int32_t threads;
};

// Softmax of integers: logits v = (x * multiply + add) >> shift, then exponentials of how far v is below the largest of its row. They
// come from a table, or from four lines: ((slope * -r) >> 8) + intercept for r of 0 .. halving - 1, halved for every whole halving.
struct FewerIntegerSoftmax {
    const int32_t *x;           // [rows, width]
    const int32_t *multiply;    // [groups]; row r takes entry (r / group_rows) % groups
    const int64_t *add;         // [groups]
    int32_t shift;
    int32_t groups;
    int64_t group_rows;
    const uint32_t *table;      // null, or [reach + 1], below 2^31
    int32_t reach;              // what is farther below is taken as so far
    int32_t halving;            // 0, or how far below an exponential is half as large: the lines are used
    const int32_t *slopes, *intercepts;  // [4] of the lines
    uint16_t *y;                // [rows, width]: probabilities in 16 bits
    int64_t rows;
    int32_t width;
    int32_t threads;
};

// LayerNorm (RMSNorm where `centre` is 0) of integers with 10 bits behind the point, then (v * multiply + add) >> shift.
struct FewerIntegerNorm {
    const int32_t *x;           // [rows, width]
    const int32_t *powers;      // null, or [width]: x is first rounded to a byte times 2^powers, 0 to 15
    int32_t centre;
    const int32_t *multiply;    // [width]
    const int64_t *add;         // [width]
    int32_t shift;
    int8_t *y;                  // one of both is null: bytes within -127 .. 127,
    int32_t *wide;              // or all of it
    int64_t rows;
    int32_t width;
    int32_t threads;
};

// What one instruction set offers; each variant of the sources fills one table.
struct FewerTable {
    const char *name;
    int (*linear)(const FewerWeight *, const FewerLinear *);
    int (*attention)(const FewerAttention *);
    int (*block)(const FewerBlock *);
    int (*conv)(const FewerWeight *, const FewerConv *);
    int (*depthwise)(const FewerDepthwise *);
    int (*norm)(const FewerNorm *);
    int (*chain)(const FewerChain *);
    int (*merge)(const FewerMerge *);
    int (*integer_affine)(const FewerIntegerAffine *);
    int (*integer_softmax)(const FewerIntegerSoftmax *);
    int (*integer_norm)(const FewerIntegerNorm *);
    double (*peak)(int mode, int64_t steps);  // runs one tile in L1 over and over; returns operations done
};

extern "C" int fewer_wide_tiles;  // whether tiles have more rows than eight, and strips go in pairs (dispatch.cpp)

// Thread-private scratch that grows and is kept between calls; slot separates uses that live at the same time.
enum { FEWER_SLOT_ROWS, FEWER_SLOT_TILE, FEWER_SLOT_HIDDEN, FEWER_SLOT_KEYS, FEWER_SLOT_VALUES, FEWER_SLOT_SHARED,
       FEWER_SLOT_QKV, FEWER_SLOT_CONTEXT, FEWER_SLOT_SCALE, FEWER_SLOT_NORM, FEWER_SLOT_SUM, FEWER_SLOTS };
void *fewer_scratch(int slot, int64_t bytes);  // 64-byte aligned; null when memory is exhausted
