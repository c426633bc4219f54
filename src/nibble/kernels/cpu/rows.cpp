// Codes of rows: as they are given, or after a float step in the same pass over memory.
#include "float_steps.h"
#include "paths.h"
#include "tensors.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

namespace {

using nibble::floats;
using nibble::Tensor;

constexpr int64_t kValuesPerThread = 1 << 15;

// x in float32, one row after the other.
Tensor as_rows(const char* op, const Tensor& given) {
  const Tensor x = nibble::in_float32(op, given);
  NIBBLE_CHECK(x.dim() > 0, op, ": a scalar has no rows; give (..., K)");
  return x;
}

// Codes int8 (..., K) and scales (..., 1), which quantize(rows of x, count, codes, scales) writes.
template <class Quantize>
std::tuple<Tensor, Tensor> quantized(const Tensor& x, const Quantize& quantize) {
  std::vector<int64_t> shape;
  for (int64_t i = 0; i < x.dim(); ++i) shape.push_back(x.size(i));
  const int64_t terms = shape.back();
  Tensor codes = nibble::empty(shape, aoti_torch_dtype_int8());
  shape.back() = 1;
  Tensor scale = nibble::empty(shape, aoti_torch_dtype_float32());
  const float* from = floats(x);
  auto* to = static_cast<int8_t*>(codes.mutable_data_ptr());
  auto* scales = static_cast<float*>(scale.mutable_data_ptr());
  const auto rows = [&](int64_t first, int64_t last) {
    quantize(from + first * terms, last - first, to + first * terms, scales + first);
  };
  const int64_t grain = std::max<int64_t>(1, kValuesPerThread / std::max<int64_t>(terms, 1));
  if (scale.numel() > grain)
    torch::stable::parallel_for(0, scale.numel(), grain, rows);
  else
    rows(0, scale.numel());
  return {codes, scale};
}

std::tuple<Tensor, Tensor> quantize_rows(const Tensor& given) {
  const Tensor x = as_rows("quantize_rows", given);
  const auto quantize = nibble::path().quantize_rows;
  return quantized(x, [quantize, terms = x.size(-1)](const float* from, int64_t rows, int8_t* codes, float* scale) {
    quantize(from, rows, terms, codes, scale);
  });
}

// Codes of the result of step(row, out) for each row; the result stays in the cache until it is quantized.
template <class Step>
std::tuple<Tensor, Tensor> quantized_after(const Tensor& x, const Step& step) {
  const auto quantize = nibble::path().quantize_rows;
  return quantized(x, [&, terms = x.size(-1)](const float* from, int64_t rows, int8_t* codes, float* scale) {
    std::vector<float> made(static_cast<size_t>(terms));
    for (int64_t row = 0; row < rows; ++row) {
      step(from + row * terms, made.data());
      quantize(made.data(), 1, terms, codes + row * terms, scale + row);
    }
  });
}

std::tuple<Tensor, Tensor> silu_quantize_rows(const Tensor& given) {
  const Tensor x = as_rows("silu_quantize_rows", given);
  const auto silu = nibble::path().steps.silu;
  return quantized_after(x, [=, terms = x.size(-1)](const float* row, float* out) { silu(row, terms, out); });
}

std::tuple<Tensor, Tensor> norm_quantize_rows(const Tensor& given, const Tensor& given_weight, const Tensor& given_bias,
                                              double eps) {
  constexpr const char* op = "norm_quantize_rows";
  const Tensor x = as_rows(op, given);
  const int64_t terms = x.size(-1);
  const Tensor weight = nibble::float_vector(op, "weight", given_weight, terms, false);
  const Tensor bias = nibble::float_vector(op, "bias", given_bias, terms, false);
  const float *gain = floats(weight), *shift = floats(bias);
  const auto norm = nibble::path().steps.norm;
  return quantized_after(
      x, [=](const float* row, float* out) { norm(row, gain, shift, static_cast<float>(eps), terms, out); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(nibble, CPU, library) {
  library.impl("quantize_rows", TORCH_BOX(&quantize_rows));
  library.impl("silu_quantize_rows", TORCH_BOX(&silu_quantize_rows));
  library.impl("norm_quantize_rows", TORCH_BOX(&norm_quantize_rows));
}
