// The path that the compiler vectorises by itself. Each file that includes this is compiled for another instruction set:
// everything here has internal linkage, so that no function of one ends up in the other.
//
// x is widened to 16 bits once, the weights of four outputs at a time: since SSE2, x86 has an instruction for sums of
// 16-bit products (pmaddwd).
#pragma once
#include "paths.h"

#include <algorithm>
#include <bit>
#include <memory>

namespace nibble {
namespace {

constexpr int64_t kOutputs = 4;  // of a tile

int64_t arranged_bytes(const Product& p) { return p.rows * p.terms * 2; }

void arrange(const Product& p, uint8_t* arranged) {
  auto* x = reinterpret_cast<int16_t*>(arranged);
  for (int64_t i = 0; i < p.rows * p.terms; ++i) x[i] = p.x[i];
}

void unpack(const Product& p, int64_t output, int16_t* weight) {
  const uint8_t* row = p.weight + output * p.weight_bytes();
  if (!p.packed) {
    for (int64_t k = 0; k < p.terms; ++k) weight[k] = static_cast<int8_t>(row[k]);
    return;
  }
  for (int64_t k = 0; k + 1 < p.terms; k += 2) {
    weight[k] = static_cast<int16_t>((row[k / 2] & 15) - 8);
    weight[k + 1] = static_cast<int16_t>((row[k / 2] >> 4) - 8);
  }
  if (p.terms % 2) weight[p.terms - 1] = static_cast<int16_t>((row[p.terms / 2] & 15) - 8);
}

void finish(const Product& p, int64_t row, int64_t n, int32_t sum) {
  const int64_t at = row * p.outputs + n;
  if (p.sums) {
    p.sums[at] = sum;
    return;
  }
  const float out = static_cast<float>(sum) * p.scale[row] * p.weight_scale[n];
  p.out[at] = p.bias ? out + p.bias[n] : out;
}

// One row of x and four outputs, so that a load of x serves four products.
void tile(const Product& p, const int16_t* x, const int16_t* weight, int64_t row, int64_t n, int64_t outputs) {
  const int16_t *w0 = weight, *w1 = w0 + p.terms, *w2 = w1 + p.terms, *w3 = w2 + p.terms;
  int32_t sums[kOutputs] = {};
  for (int64_t k = 0; k < p.terms; ++k) {
    sums[0] += int32_t{x[k]} * w0[k];
    sums[1] += int32_t{x[k]} * w1[k];
    sums[2] += int32_t{x[k]} * w2[k];
    sums[3] += int32_t{x[k]} * w3[k];
  }
  for (int64_t i = 0; i < outputs; ++i) finish(p, row, n + i, sums[i]);
}

void product(const Product& p, const uint8_t* arranged, int64_t first, int64_t last) {
  const auto* x = reinterpret_cast<const int16_t*>(arranged);
  const auto weight = std::make_unique<int16_t[]>(static_cast<size_t>(kOutputs * p.terms));
  for (int64_t n = first; n < last; n += kOutputs) {
    const int64_t outputs = std::min(kOutputs, last - n);
    for (int64_t i = 0; i < outputs; ++i) unpack(p, n + i, weight.get() + i * p.terms);
    for (int64_t row = 0; row < p.rows; ++row) tile(p, x + row * p.terms, weight.get(), row, n, outputs);
  }
}

void quantize_rows(const float* x, int64_t rows, int64_t terms, int8_t* codes, float* scale) {
  // Added to a float below 2^22, this leaves the nearest integer, half to even, in the lowest bits.
  constexpr float kShift = 12582912.0f;
  for (int64_t row = 0; row < rows; ++row, x += terms, codes += terms) {
    // Compared as integers: without their sign, NaN is above infinity, which is above all numbers.
    int32_t largest = 0;
    for (int64_t k = 0; k < terms; ++k) largest = std::max(largest, std::bit_cast<int32_t>(x[k]) & 0x7fffffff);
    float step = std::bit_cast<float>(largest) / 127.0f;
    if (step == 0.0f) step = 1.0f;
    scale[row] = step;
    for (int64_t k = 0; k < terms; ++k) {
      const int32_t code = std::bit_cast<int32_t>(x[k] / step + kShift) - std::bit_cast<int32_t>(kShift);
      codes[k] = static_cast<int8_t>(std::clamp(code, -127, 127));
    }
  }
}

}  // namespace
}  // namespace nibble
