// Floats times 4-bit weights: two codes a byte become floats in registers.
#pragma once
#include "float_steps.h"
#include "vectors.h"

#include <algorithm>
#include <vector>

namespace nibble {
namespace {

typedef uint8_t Bytes [[gnu::vector_size(kLanes)]];
typedef uint16_t Words [[gnu::vector_size(2 * kLanes)]];

struct Two {
  Codes first, second;
};

// The codes in a vector of bytes as floats, in order: the low half of each byte, then the high half.
[[gnu::always_inline]] inline void unpack(const uint8_t* from, int64_t bytes, Floats& first, Floats& second) {
  Bytes packed{};
  std::memcpy(&packed, from, bytes >= kLanes ? sizeof(packed) : static_cast<size_t>(bytes));
  const Words words = __builtin_convertvector(packed, Words);  // a word has room for both halves, a byte for each
  const Two codes = std::bit_cast<Two>((words | words << 4) & 0x0f0f);
  first = widened(codes.first) - 8.0f;
  second = widened(codes.second) - 8.0f;
}

// One row of weights, K codes times their scale.
void weights(const uint8_t* packed, float scale, int64_t terms, float* out) {
  Floats first, second;
  int64_t k = 0;
  for (; k + 2 * kLanes <= terms; k += 2 * kLanes, packed += kLanes) {
    unpack(packed, kLanes, first, second);
    store(out + k, first * scale);
    store(out + k + kLanes, second * scale);
  }
  if (k == terms) return;
  unpack(packed, (terms - k + 1) / 2, first, second);
  store(out + k, first * scale, std::min<int64_t>(kLanes, terms - k));
  if (terms - k > kLanes) store(out + k + kLanes, second * scale, terms - k - kLanes);
}

template <int kRows>
void dots(const float* x, int64_t stride, const float* weight, int64_t terms, float* out) {
  constexpr int kSums = 8 / kRows;  // for each row, so that no addition waits for the one before
  Floats sums[kRows][kSums];
  each<kRows>(EACH(r) { each<kSums>(EACH(i) { sums[r][i] = Floats{}; }); });
  int64_t k = 0;
  for (; k + kSums * kLanes <= terms; k += kSums * kLanes) {
    each<kSums>(EACH(i) {
      const Floats w = load(weight + k + i * kLanes);
      each<kRows>(EACH(r) { sums[r][i] += load(x + r * stride + k + i * kLanes) * w; });
    });
  }
  for (; k < terms; k += kLanes) {
    const int64_t lanes = std::min<int64_t>(kLanes, terms - k);
    each<kRows>(EACH(r) { sums[r][0] += load(x + r * stride + k, lanes) * load(weight + k, lanes); });
  }
  each<kRows>(EACH(r) {
    each<kSums - 1>(EACH(i) { sums[r][0] += sums[r][i + 1]; });
    out[r] = sum(sums[r][0]);
  });
}

void few_rows(const WeightOnly& p, int64_t first, int64_t last) {
  std::vector<float> weight(static_cast<size_t>(p.terms));
  const auto put = [&p](int64_t row, int64_t n, float y) {
    p.out[row * p.outputs + n] = p.bias ? y + p.bias[n] : y;
  };
  for (int64_t n = first; n < last; ++n) {
    weights(p.packed + n * ((p.terms + 1) / 2), p.weight_scale[n], p.terms, weight.data());
    int64_t row = 0;
    float found[4];
    for (; row + 4 <= p.rows; row += 4) {
      dots<4>(p.x + row * p.terms, p.terms, weight.data(), p.terms, found);
      for (int64_t r = 0; r < 4; ++r) put(row + r, n, found[r]);
    }
    for (; row < p.rows; ++row) {
      dots<1>(p.x + row * p.terms, p.terms, weight.data(), p.terms, found);
      put(row, n, found[0]);
    }
  }
}

}  // namespace
}  // namespace nibble
