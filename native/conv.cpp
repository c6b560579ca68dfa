#include "linear.h"

namespace FEWER_NS {
int conv(const FewerWeight *, const FewerConv *) { return FEWER_BAD_ARGUMENT; }
int depthwise(const FewerDepthwise *) { return FEWER_BAD_ARGUMENT; }
}  // namespace FEWER_NS
