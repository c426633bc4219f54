// A convolution with one filter for each channel: sums of products of codes, as floats. Up to 2^10 taps they are exact.
//
// Lanes are channels. The input of a vector of channels is widened once, with zeros around it.
#pragma once
#include "float_steps.h"
#include "vectors.h"

#include <algorithm>
#include <vector>

namespace nibble {
namespace {

constexpr int kPositions = 8;  // of a tile, which share a load of the filters

template <int kCount>
void positions(const Depthwise& p, const Floats* padded, const Floats* taps, int64_t row, int64_t column, float* out,
               int64_t lanes) {
  const int64_t stride = p.width + 2 * p.padding[1];
  Floats sums[kCount];
  each<kCount>(EACH(i) { sums[i] = Floats{}; });
  for (int64_t i = 0; i < p.kernel[0]; ++i) {
    const Floats* x = padded + (row * p.stride[0] + i * p.dilation[0]) * stride + column * p.stride[1];
    for (int64_t j = 0; j < p.kernel[1]; ++j) {
      const Floats tap = taps[i * p.kernel[1] + j];
      each<kCount>(EACH(at) { sums[at] += x[j * p.dilation[1] + at * p.stride[1]] * tap; });
    }
  }
  each<kCount>(EACH(i) { store(out + i * p.channels, sums[i], lanes); });
}

void depthwise(const Depthwise& p, int64_t first) {
  const int64_t lanes = std::min<int64_t>(kLanes, p.channels - first), taps = p.kernel[0] * p.kernel[1];
  const int64_t height = p.height + 2 * p.padding[0], width = p.width + 2 * p.padding[1];
  std::vector<Floats> padded(static_cast<size_t>(height * width)), filters(static_cast<size_t>(taps));
  for (int64_t lane = 0; lane < lanes; ++lane)
    for (int64_t tap = 0; tap < taps; ++tap)
      filters[static_cast<size_t>(tap)][lane] = p.weight[(first + lane) * taps + tap];
  for (int64_t row = 0; row < p.height; ++row) {
    const int8_t* x = p.x + row * p.width * p.channels + first;
    Floats* to = padded.data() + (row + p.padding[0]) * width + p.padding[1];
    for (int64_t column = 0; column < p.width; ++column) to[column] = widened(x + column * p.channels, lanes);
  }
  for (int64_t row = 0; row < p.out_height; ++row) {
    float* out = p.out + row * p.out_width * p.channels + first;
    int64_t column = 0;
    for (; column + kPositions <= p.out_width; column += kPositions)
      positions<kPositions>(p, padded.data(), filters.data(), row, column, out + column * p.channels, lanes);
    for (; column < p.out_width; ++column)
      positions<1>(p, padded.data(), filters.data(), row, column, out + column * p.channels, lanes);
  }
}

}  // namespace
}  // namespace nibble
