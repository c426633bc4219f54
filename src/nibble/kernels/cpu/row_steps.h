// The steps on one row: layer norm, SiLU, ReLU and its codes.
#pragma once
#include "vectors.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nibble {
namespace {

void norm(const float* x, const float* weight, const float* bias, float eps, int64_t terms, float* out) {
  const float count = static_cast<float>(terms);
  Floats total{};
  each_vector(terms, [&](int64_t k, int64_t lanes) { total += load(x + k, lanes); });
  const float mean = sum(total) / count;
  Floats squares{};
  each_vector(terms, [&](int64_t k, int64_t lanes) {
    Floats centred = load(x + k, lanes) - mean;
    store(out + k, centred, lanes);
    centred = load(out + k, lanes);  // beyond the row zeros again
    squares += centred * centred;
  });
  const float slope = 1.0f / std::sqrt(sum(squares) / count + eps);
  each_vector(terms, [&](int64_t k, int64_t lanes) {
    store(out + k, load(out + k, lanes) * slope * load(weight + k, lanes) + load(bias + k, lanes), lanes);
  });
}

void silu(const float* x, int64_t terms, float* out) {
  each_vector(terms, [&](int64_t k, int64_t lanes) {
    const Floats value = load(x + k, lanes);
    store(out + k, value / (exp(-value) + 1.0f), lanes);
  });
}

float largest_or_nan(const float* x, int64_t count) {
  Floats most{};
  Ints unordered{};
  each_vector(count, [&](int64_t k, int64_t lanes) {
    const Floats value = load(x + k, lanes);
    most = larger(value, most);
    unordered |= value != value;
  });
  for (int i = 0; i < kLanes; ++i)
    if (unordered[i]) return std::numeric_limits<float>::quiet_NaN();
  return largest(most);
}

void relu_codes(const float* x, float scale, int64_t count, int8_t* codes) {
  each_vector(count, [&](int64_t k, int64_t lanes) {
    const Floats value = load(x + k, lanes);
    store(codes + k, rounded(larger(value, Floats{}) / scale), lanes);
  });
}

}  // namespace
}  // namespace nibble
