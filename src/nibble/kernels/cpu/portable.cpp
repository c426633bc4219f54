// Any machine.
#include "plain.h"

namespace nibble {

const Path portable = {"portable", quantize_rows, arranged_bytes, arrange, product, 16 * kOutputs, portable_steps};

}  // namespace nibble
