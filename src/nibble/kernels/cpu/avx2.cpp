// AVX2: the portable path, compiled for vectors of 256 bits.
#include "plain.h"

namespace nibble {

const Path avx2 = {"avx2", quantize_rows, arranged_bytes, arrange, product, 16 * kOutputs, avx2_steps};

}  // namespace nibble
