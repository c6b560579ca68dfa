// The table of one instruction set.
#include "linear.h"

#define FEWER_PASTE2(a, b) a##b
#define FEWER_PASTE(a, b) FEWER_PASTE2(a, b)
#define FEWER_QUOTE2(a) #a
#define FEWER_QUOTE(a) FEWER_QUOTE2(a)

extern "C" const FewerTable *FEWER_PASTE(fewer_table_, FEWER_NS)() {
    static const FewerTable table = {FEWER_QUOTE(FEWER_NS), FEWER_NS::linear, FEWER_NS::attention, FEWER_NS::block,
                                     FEWER_NS::conv, FEWER_NS::depthwise, FEWER_NS::norm, FEWER_NS::chain,
                                     FEWER_NS::merge, FEWER_NS::integer_affine, FEWER_NS::integer_softmax,
                                     FEWER_NS::integer_norm, FEWER_NS::peak};
    return &table;
}
