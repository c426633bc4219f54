#include "steps.h"

namespace nibble {

const FloatSteps avx2_steps = kSteps;

}  // namespace nibble
