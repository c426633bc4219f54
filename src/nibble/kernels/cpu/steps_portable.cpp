#include "steps.h"

namespace nibble {

const FloatSteps portable_steps = kSteps;

}  // namespace nibble
