#include "attention.h"
#include "depthwise.h"
#include "row_steps.h"

namespace nibble {

const FloatSteps avx2_steps = {norm, silu, largest_or_nan, relu_codes, attend, depthwise, kLanes};

}  // namespace nibble
