// A linear layer with float activations and 4-bit weights, for CPU tensors.
#include "paths.h"
#include "tensors.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>

namespace {

using nibble::dense;
using nibble::float_vector;
using nibble::floats;
using nibble::MaybeTensor;
using nibble::name;
using nibble::ScalarType;
using nibble::Tensor;

constexpr int64_t kFewRows = 8;  // with more, weights are unpacked once for a product of floats
constexpr int64_t kWeightsPerThread = 1 << 18;

Tensor linear_w4a16(const Tensor& given, const Tensor& given_packed, const Tensor& given_weight_scale,
                    const MaybeTensor& given_bias) {
  constexpr const char* op = "linear_w4a16";
  const Tensor x = nibble::in_float32(op, given);
  NIBBLE_CHECK(given_packed.scalar_type() == ScalarType::Byte, op, ": packed is ", name(given_packed),
               ", not torch.uint8");
  nibble::check_sizes(op, x, given_packed, true);
  const int64_t rows = x.size(0), terms = x.size(1), outputs = given_packed.size(0), bytes = (terms + 1) / 2;
  const Tensor packed = dense(given_packed);
  const Tensor weight_scale = float_vector(op, "weight_scale", given_weight_scale, outputs, false);
  const MaybeTensor bias = float_vector(op, "bias", given_bias, outputs);
  const auto* codes = static_cast<const uint8_t*>(packed.const_data_ptr());
  const float *scales = floats(weight_scale), *shift = floats(bias);
  const nibble::FloatSteps& steps = nibble::path().steps;
  const int64_t grain = std::max<int64_t>(1, kWeightsPerThread / std::max<int64_t>(terms, 1));
  Tensor out = nibble::empty({rows <= kFewRows ? rows : outputs, rows <= kFewRows ? outputs : terms},
                             aoti_torch_dtype_float32());
  if (rows <= kFewRows) {
    const nibble::WeightOnly p = {.x = floats(x),
                                  .packed = codes,
                                  .weight_scale = scales,
                                  .bias = shift,
                                  .out = static_cast<float*>(out.mutable_data_ptr()),
                                  .rows = rows,
                                  .terms = terms,
                                  .outputs = outputs};
    torch::stable::parallel_for(0, outputs, grain,
                                [&](int64_t first, int64_t last) { steps.few_rows(p, first, last); });
  } else {
    auto* weight = static_cast<float*>(out.mutable_data_ptr());
    torch::stable::parallel_for(0, outputs, grain, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) steps.weights(codes + n * bytes, scales[n], terms, weight + n * terms);
    });
    out = torch::stable::matmul(x, torch::stable::transpose(out, 0, 1));
    auto* y = static_cast<float*>(out.mutable_data_ptr());
    for (int64_t row = 0; shift && row < rows; ++row)
      for (int64_t n = 0; n < outputs; ++n) y[row * outputs + n] += shift[n];
  }
  const ScalarType type = given.scalar_type();
  return type == ScalarType::Float ? out : torch::stable::to(out, std::optional(type));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(nibble, CPU, library) { library.impl("linear_w4a16", TORCH_BOX(&linear_w4a16)); }
