#include "steps.h"

namespace nibble {

const FloatSteps avx512_steps = kSteps;

}  // namespace nibble
