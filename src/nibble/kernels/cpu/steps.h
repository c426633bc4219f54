// The steps of `FloatSteps`. Each file that includes this compiles them for another instruction set.
#pragma once
#include "attention.h"
#include "depthwise.h"
#include "row_steps.h"
#include "weight_only.h"

namespace nibble {
namespace {

constexpr FloatSteps kSteps = {norm,      silu,   largest_or_nan, relu_codes, attend,
                               depthwise, kLanes, few_rows,       weights};

}  // namespace
}  // namespace nibble
