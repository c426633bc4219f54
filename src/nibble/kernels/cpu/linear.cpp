// The products of nibble.kernels.ops for CPU tensors, through torch's stable ABI: one file serves several versions.
#include "products.h"
#include "tensors.h"

#include <torch/csrc/stable/library.h>


namespace {

using nibble::dense;
using nibble::empty;
using nibble::float_vector;
using nibble::floats;
using nibble::MaybeTensor;
using nibble::name;
using nibble::ScalarType;
using nibble::sizes;
using nibble::Tensor;

Tensor linear(const char* op, const Tensor& given_codes, const Tensor& given_scale, const Tensor& given_weight,
              const Tensor& given_weight_scale, const MaybeTensor& given_bias, bool packed) {
  NIBBLE_CHECK(given_codes.scalar_type() == ScalarType::Char, op, ": codes are ", name(given_codes),
               ", not torch.int8");
  NIBBLE_CHECK(given_weight.scalar_type() == (packed ? ScalarType::Byte : ScalarType::Char), op,
               packed ? ": packed is " : ": weight is ", name(given_weight), ", not torch.",
               packed ? "uint8" : "int8");
  nibble::check_sizes(op, given_codes, given_weight, packed);
  nibble::check_terms(op, given_codes.size(1));
  const int64_t rows = given_codes.size(0), outputs = given_weight.size(0);
  const Tensor codes = dense(given_codes), weight = dense(given_weight);
  const Tensor scale = float_vector(op, "scale", given_scale, rows, true);
  const Tensor weight_scale = float_vector(op, "weight_scale", given_weight_scale, outputs, false);
  const MaybeTensor bias = float_vector(op, "bias", given_bias, outputs);
  Tensor out = empty({rows, outputs}, aoti_torch_dtype_float32());
  nibble::run({.x = static_cast<const int8_t*>(codes.const_data_ptr()),
               .rows = rows,
               .terms = codes.size(1),
               .outputs = outputs,
               .weight = static_cast<const uint8_t*>(weight.const_data_ptr()),
               .packed = packed,
               .scale = floats(scale),
               .weight_scale = floats(weight_scale),
               .bias = floats(bias),
               .out = static_cast<float*>(out.mutable_data_ptr()),
               .sums = nullptr});
  return out;
}

Tensor linear_w8a8(const Tensor& codes, const Tensor& scale, const Tensor& weight, const Tensor& weight_scale,
                   const MaybeTensor& bias, ScalarType type) {
  nibble::check_result("linear_w8a8", type);
  return nibble::in_type(linear("linear_w8a8", codes, scale, weight, weight_scale, bias, false), type);
}

Tensor linear_w4a8(const Tensor& codes, const Tensor& scale, const Tensor& packed, const Tensor& weight_scale,
                   const MaybeTensor& bias) {
  return linear("linear_w4a8", codes, scale, packed, weight_scale, bias, true);
}

Tensor int_matmul(const Tensor& given_x, const Tensor& given_weight) {
  NIBBLE_CHECK(given_x.scalar_type() == ScalarType::Char && given_weight.scalar_type() == ScalarType::Char,
               "int_matmul: types ", name(given_x), " and ", name(given_weight), "; both must be torch.int8");
  NIBBLE_CHECK(given_x.dim() == 2 && given_weight.dim() == 2 && given_x.size(1) == given_weight.size(1),
               "int_matmul: sizes ", sizes(given_x), " and ", sizes(given_weight), "; give (M, K) and (N, K)");
  nibble::check_terms("int_matmul", given_x.size(1));
  const Tensor x = dense(given_x), weight = dense(given_weight);
  Tensor out = empty({x.size(0), weight.size(0)}, aoti_torch_dtype_int32());
  nibble::run({.x = static_cast<const int8_t*>(x.const_data_ptr()),
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
  library.impl("linear_w8a8", TORCH_BOX(&linear_w8a8));
  library.impl("linear_w4a8", TORCH_BOX(&linear_w4a8));
  library.impl("int_matmul", TORCH_BOX(&int_matmul));
}
