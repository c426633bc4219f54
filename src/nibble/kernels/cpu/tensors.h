// Conversions of the tensors that operators are given, and new tensors.
#pragma once
#include "../checks.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace nibble {

// A float tensor of 16 or 32 bits as float32, contiguous.
inline Tensor in_float32(const char* op, const Tensor& x) {
  check_floating(op, x);
  return dense(x.scalar_type() == ScalarType::Float ? x : torch::stable::to(x, std::optional(ScalarType::Float)));
}

// A float32 result in the type that was asked for.
inline Tensor in_type(const Tensor& out, ScalarType type) {
  return type == ScalarType::Float ? out : torch::stable::to(out, std::optional(type));
}

// Straight from the allocator: a call through the dispatcher takes as long as a small product.
inline Tensor empty_strided(const std::vector<int64_t>& size, const std::vector<int64_t>& strides, int32_t type) {
  AtenTensorHandle made = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(size.size()), size.data(), strides.data(), type,
                                                  aoti_torch_device_type_cpu(), 0, &made));
  return Tensor(made);
}

inline Tensor empty(const std::vector<int64_t>& size, int32_t type) {
  std::vector<int64_t> strides(size.size(), 1);
  for (size_t i = size.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(size[i], 1);
  return empty_strided(size, strides, type);
}

// (B, C, H, W), in memory (B, H, W, C).
inline Tensor empty_channels_last(int64_t batch, int64_t channels, int64_t height, int64_t width, int32_t type) {
  return empty_strided({batch, channels, height, width},
                       {height * width * channels, 1, width * channels, channels}, type);
}

}  // namespace nibble
