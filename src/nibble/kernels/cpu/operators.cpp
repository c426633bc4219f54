// The operators of nibble.kernels.ops for CPU tensors, through torch's stable ABI: one file serves several versions.
#include "../checks.h"
#include "paths.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace {

using nibble::dense;
using nibble::float_vector;
using nibble::MaybeTensor;
using nibble::name;
using nibble::ScalarType;
using nibble::sizes;
using nibble::Tensor;

constexpr int64_t kTermsPerThread = 1 << 20;  // products; fewer are done sooner than a thread wakes up
constexpr int64_t kRowsPerTask = 240;         // a multiple of every tile's rows

// Straight to the allocator: a call through the dispatcher takes as long as a small product.
Tensor empty(const std::vector<int64_t>& size, int32_t type) {
  std::vector<int64_t> strides(size.size(), 1);
  for (size_t i = size.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(size[i], 1);
  AtenTensorHandle made = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(size.size()), size.data(), strides.data(), type,
                                                  aoti_torch_device_type_cpu(), 0, &made));
  return Tensor(made);
}

// Every row of x against every output, shared among torch's threads.
void run(const nibble::Product& p) {
  const nibble::Path& path = nibble::path();
  if (!p.rows || !p.outputs) return;
  const auto bytes = static_cast<size_t>((path.arranged_bytes(p) + 63) / 64 * 64);
  const std::unique_ptr<void, decltype(&std::free)> held(std::aligned_alloc(64, bytes), &std::free);
  STD_TORCH_CHECK(held, "nibble: no memory for ", bytes, " bytes");
  auto* arranged = static_cast<uint8_t*>(held.get());
  const int64_t products = p.rows * p.terms * p.outputs;
  if (products <= kTermsPerThread || torch::stable::get_num_threads() == 1) {
    path.arrange(p, arranged, 0, p.rows);
    path.product(p, arranged, 0, p.rows, 0, p.outputs);
    return;
  }
  torch::stable::parallel_for(0, p.rows, 64,
                              [&](int64_t first, int64_t last) { path.arrange(p, arranged, first, last); });
  const int64_t blocks = (p.outputs + path.block - 1) / path.block;
  const int64_t row_tasks = (p.rows + kRowsPerTask - 1) / kRowsPerTask, tasks = blocks * row_tasks;
  const int64_t grain = std::max<int64_t>(1, kTermsPerThread / (products / tasks + 1));
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t n = task / row_tasks * path.block, row = task % row_tasks * kRowsPerTask;
      path.product(p, arranged, row, std::min(row + kRowsPerTask, p.rows), n, std::min(n + path.block, p.outputs));
    }
  });
}

std::tuple<Tensor, Tensor> quantize_rows(const Tensor& given) {
  const ScalarType type = given.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16,
                  "quantize_rows: type ", name(given), "; give float16, bfloat16 or float32");
  STD_TORCH_CHECK(given.dim() > 0, "quantize_rows: a scalar has no rows; give (..., K)");
  const Tensor x =
      dense(type == ScalarType::Float ? given : torch::stable::to(given, std::optional(ScalarType::Float)));
  std::vector<int64_t> shape;
  for (int64_t i = 0; i < x.dim(); ++i) shape.push_back(x.size(i));
  const int64_t terms = shape.back();
  Tensor codes = empty(shape, aoti_torch_dtype_int8());
  shape.back() = 1;
  Tensor scale = empty(shape, aoti_torch_dtype_float32());
  const auto* from = static_cast<const float*>(x.const_data_ptr());
  auto* to = static_cast<int8_t*>(codes.mutable_data_ptr());
  auto* scales = static_cast<float*>(scale.mutable_data_ptr());
  const auto rows = [&](int64_t first, int64_t last) {
    nibble::path().quantize_rows(from + first * terms, last - first, terms, to + first * terms, scales + first);
  };
  const int64_t grain = std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(terms, 1));
  if (scale.numel() > grain)
    torch::stable::parallel_for(0, scale.numel(), grain, rows);
  else
    rows(0, scale.numel());
  return {codes, scale};
}

Tensor linear(const char* op, const Tensor& given_codes, const Tensor& given_scale, const Tensor& given_weight,
              const Tensor& given_weight_scale, const MaybeTensor& given_bias, bool packed) {
  STD_TORCH_CHECK(given_codes.scalar_type() == ScalarType::Char, op, ": codes are ", name(given_codes),
                  ", not torch.int8");
  STD_TORCH_CHECK(given_weight.scalar_type() == (packed ? ScalarType::Byte : ScalarType::Char), op,
                  packed ? ": packed is " : ": weight is ", name(given_weight), ", not torch.",
                  packed ? "uint8" : "int8");
  nibble::check_sizes(op, given_codes, given_weight, packed);
  const int64_t rows = given_codes.size(0), outputs = given_weight.size(0);
  const Tensor codes = dense(given_codes), weight = dense(given_weight);
  const Tensor scale = float_vector(op, "scale", given_scale, rows, true);
  const Tensor weight_scale = float_vector(op, "weight_scale", given_weight_scale, outputs, false);
  const MaybeTensor bias =
      given_bias ? MaybeTensor(float_vector(op, "bias", *given_bias, outputs, false)) : std::nullopt;
  Tensor out = empty({rows, outputs}, aoti_torch_dtype_float32());
  run({.x = static_cast<const int8_t*>(codes.const_data_ptr()),
       .rows = rows,
       .terms = codes.size(1),
       .outputs = outputs,
       .weight = static_cast<const uint8_t*>(weight.const_data_ptr()),
       .packed = packed,
       .scale = static_cast<const float*>(scale.const_data_ptr()),
       .weight_scale = static_cast<const float*>(weight_scale.const_data_ptr()),
       .bias = bias ? static_cast<const float*>(bias->const_data_ptr()) : nullptr,
       .out = static_cast<float*>(out.mutable_data_ptr()),
       .sums = nullptr});
  return out;
}

Tensor linear_w8a8(const Tensor& codes, const Tensor& scale, const Tensor& weight, const Tensor& weight_scale,
                   const MaybeTensor& bias) {
  return linear("linear_w8a8", codes, scale, weight, weight_scale, bias, false);
}

Tensor linear_w4a8(const Tensor& codes, const Tensor& scale, const Tensor& packed, const Tensor& weight_scale,
                   const MaybeTensor& bias) {
  return linear("linear_w4a8", codes, scale, packed, weight_scale, bias, true);
}

Tensor int_matmul(const Tensor& given_x, const Tensor& given_weight) {
  STD_TORCH_CHECK(given_x.scalar_type() == ScalarType::Char && given_weight.scalar_type() == ScalarType::Char,
                  "int_matmul: types ", name(given_x), " and ", name(given_weight), "; both must be torch.int8");
  STD_TORCH_CHECK(given_x.dim() == 2 && given_weight.dim() == 2 && given_x.size(1) == given_weight.size(1),
                  "int_matmul: sizes ", sizes(given_x), " and ", sizes(given_weight), "; give (M, K) and (N, K)");
  const Tensor x = dense(given_x), weight = dense(given_weight);
  Tensor out = empty({x.size(0), weight.size(0)}, aoti_torch_dtype_int32());
  run({.x = static_cast<const int8_t*>(x.const_data_ptr()),
       .rows = x.size(0),
       .terms = x.size(1),
       .outputs = weight.size(0),
       .weight = static_cast<const uint8_t*>(weight.const_data_ptr()),
       .packed = false,
       .scale = nullptr,
       .weight_scale = nullptr,
       .bias = nullptr,
       .out = nullptr,
       .sums = static_cast<int32_t*>(out.mutable_data_ptr())});
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(nibble, CPU, library) {
  library.impl("quantize_rows", TORCH_BOX(&quantize_rows));
  library.impl("linear_w8a8", TORCH_BOX(&linear_w8a8));
  library.impl("linear_w4a8", TORCH_BOX(&linear_w4a8));
  library.impl("int_matmul", TORCH_BOX(&int_matmul));
}
