#include "attention.h"
#include "depthwise.h"
#include "row_steps.h"
#include "weight_only.h"

namespace nibble {

const FloatSteps portable_steps = {norm,      silu,   largest_or_nan, relu_codes, attend,
                                 depthwise, kLanes, few_rows,       weights};

}  // namespace nibble
