// ARM with the dot-product extension (Armv8.2 and later): sdot adds groups of four products of signed bytes.
//
// In a packed row, the low halves of 16 bytes are the codes 0, 2, ... 30, the high halves 1, 3, ... 31. So x is arranged
// in chunks of 32: first the even terms, then the odd ones. Terms beyond K are zeros.
#include "paths.h"

#include <arm_neon.h>

#include <algorithm>
#include <cstring>

namespace nibble {
namespace {

constexpr int64_t kOutputs = 4;  // of a tile
constexpr int64_t kRows = 4;

int64_t row_bytes(const Product& p) { return (p.terms + 31) / 32 * 32; }

int64_t arranged_bytes(const Product& p) { return p.rows * row_bytes(p); }

void arrange(const Product& p, uint8_t* arranged) {
  for (int64_t row = 0; row < p.rows; ++row) {
    auto* out = reinterpret_cast<int8_t*>(arranged + row * row_bytes(p));
    for (int64_t k = 0; k < p.terms; k += 32) {
      int8_t chunk[32] = {};
      std::memcpy(chunk, p.x + row * p.terms + k, static_cast<size_t>(std::min<int64_t>(32, p.terms - k)));
      const int8x16_t a = vld1q_s8(chunk), b = vld1q_s8(chunk + 16);
      vst1q_s8(out + k, p.packed ? vuzp1q_s8(a, b) : a);
      vst1q_s8(out + k + 16, p.packed ? vuzp2q_s8(a, b) : b);
    }
  }
}

// 32 codes of a weight's row from byte `at` on, in the order of x; beyond the row, bytes are read as zeros.
template <bool kPacked>
int8x16x2_t codes(const Product& p, const uint8_t* row, int64_t at) {
  constexpr int64_t kBytes = kPacked ? 16 : 32;
  uint8_t copy[32] = {};
  const uint8_t* held = row + at;
  if (const int64_t left = p.weight_bytes() - at; left < kBytes) {
    std::memcpy(copy, held, static_cast<size_t>(left));
    held = copy;
  }
  if constexpr (!kPacked) return {vreinterpretq_s8_u8(vld1q_u8(held)), vreinterpretq_s8_u8(vld1q_u8(held + 16))};
  const uint8x16_t halves = vld1q_u8(held);
  const int8x16_t eight = vdupq_n_s8(8);
  return {vsubq_s8(vreinterpretq_s8_u8(vandq_u8(halves, vdupq_n_u8(15))), eight),
          vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(halves, 4)), eight)};
}

template <int kTileRows, bool kPacked>
void tile(const Product& p, const uint8_t* arranged, int64_t row, int64_t n, int64_t last) {
  int32x4_t sums[kTileRows][kOutputs];
  for (auto& of_row : sums)
    for (auto& sum : of_row) sum = vdupq_n_s32(0);
  const auto* x = reinterpret_cast<const int8_t*>(arranged) + row * row_bytes(p);
  for (int64_t k = 0; k < p.terms; k += 32) {
    for (int64_t i = 0; i < kOutputs; ++i) {
      // Beyond the last output its row is read again, and not stored.
      const uint8_t* weight = p.weight + std::min(n + i, last - 1) * p.weight_bytes();
      const int8x16x2_t w = codes<kPacked>(p, weight, kPacked ? k / 2 : k);
      for (int m = 0; m < kTileRows; ++m) {
        const int8_t* xm = x + m * row_bytes(p) + k;
        sums[m][i] = vdotq_s32(vdotq_s32(sums[m][i], w.val[0], vld1q_s8(xm)), w.val[1], vld1q_s8(xm + 16));
      }
    }
  }
  for (int m = 0; m < kTileRows; ++m) {
    for (int64_t i = 0; i < std::min(kOutputs, last - n); ++i) {
      const int32_t sum = vaddvq_s32(sums[m][i]);
      const int64_t at = (row + m) * p.outputs + n + i;
      if (p.sums) {
        p.sums[at] = sum;
        continue;
      }
      const float out = static_cast<float>(sum) * p.scale[row + m] * p.weight_scale[n + i];
      p.out[at] = p.bias ? out + p.bias[n + i] : out;
    }
  }
}

template <bool kPacked>
void tiles(const Product& p, const uint8_t* arranged, int64_t first, int64_t last) {
  for (int64_t n = first; n < last; n += kOutputs) {
    int64_t row = 0;
    for (; row + kRows <= p.rows; row += kRows) tile<kRows, kPacked>(p, arranged, row, n, last);
    for (; row < p.rows; ++row) tile<1, kPacked>(p, arranged, row, n, last);
  }
}

void product(const Product& p, const uint8_t* arranged, int64_t first, int64_t last) {
  (p.packed ? tiles<true> : tiles<false>)(p, arranged, first, last);
}

}  // namespace

// Rows are quantized by the portable path: every 64-bit ARM has the vectors that it is compiled for.
const Path neon_dot = {"neon_dot", portable.quantize_rows, arranged_bytes, arrange, product, 64, portable_steps};

}  // namespace nibble
