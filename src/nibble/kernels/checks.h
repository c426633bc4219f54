// The argument checks of the compiled operators. nibble.kernels.checks and nibble.kernels.operators make the same
// checks in the same words; a test compares them.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

namespace nibble {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

constexpr int64_t kMostTerms = (1 << 17) - 1;  // an int32 holds a sum of this many products, whatever the codes are

// Raises RuntimeError with a text of these parts. STD_TORCH_CHECK would add the path of a source file to it.
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}
#define NIBBLE_CHECK(holds, ...) \
  if (!(holds)) nibble::refuse(__VA_ARGS__)

inline std::string name(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Byte: return "torch.uint8";
    case ScalarType::Bool: return "torch.bool";
    case ScalarType::Char: return "torch.int8";
    case ScalarType::Short: return "torch.int16";
    case ScalarType::Int: return "torch.int32";
    case ScalarType::Long: return "torch.int64";
    case ScalarType::UInt16: return "torch.uint16";
    case ScalarType::UInt32: return "torch.uint32";
    case ScalarType::UInt64: return "torch.uint64";
    case ScalarType::Half: return "torch.float16";
    case ScalarType::BFloat16: return "torch.bfloat16";
    case ScalarType::Float: return "torch.float32";
    case ScalarType::Double: return "torch.float64";
    case ScalarType::Float8_e4m3fn: return "torch.float8_e4m3fn";
    case ScalarType::Float8_e5m2: return "torch.float8_e5m2";
    case ScalarType::ComplexFloat: return "torch.complex64";
    case ScalarType::ComplexDouble: return "torch.complex128";
    default: return "another type";
  }
}

inline std::string sizes(const Tensor& tensor) {
  std::string text = "(";
  for (int64_t i = 0; i < tensor.dim(); ++i) text += (i ? ", " : "") + std::to_string(tensor.size(i));
  return text + (tensor.dim() == 1 ? ",)" : ")");
}

inline Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// A float32 tensor of (length, 1) or (length,), contiguous.
inline Tensor float_vector(const char* op, const char* label, const Tensor& tensor, int64_t length, bool column) {
  const bool fits = tensor.scalar_type() == ScalarType::Float && tensor.dim() == (column ? 2 : 1) &&
                    tensor.size(0) == length && (!column || tensor.size(1) == 1);
  NIBBLE_CHECK(fits, op, ": ", label, " is ", name(tensor), " ", sizes(tensor), "; give torch.float32 (", length,
               column ? ", 1)" : ",)");
  return dense(tensor);
}

inline MaybeTensor float_vector(const char* op, const char* label, const MaybeTensor& tensor, int64_t length) {
  return tensor ? MaybeTensor(float_vector(op, label, *tensor, length, false)) : std::nullopt;
}

inline const float* floats(const Tensor& tensor) { return static_cast<const float*>(tensor.const_data_ptr()); }
inline const float* floats(const MaybeTensor& tensor) { return tensor ? floats(*tensor) : nullptr; }

inline void check_floating(const char* op, const Tensor& x) {
  const ScalarType type = x.scalar_type();
  NIBBLE_CHECK(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16, op, ": type ",
               name(x), "; give float16, bfloat16 or float32");
}

inline void check_result(const char* op, ScalarType type) {
  NIBBLE_CHECK(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16, op,
               ": ask for a result in float16, bfloat16 or float32");
}

// x (M, K) and a weight (N, K), or (N, ceil(K / 2)) with two codes in a byte.
inline void check_sizes(const char* op, const Tensor& x, const Tensor& weight, bool packed) {
  NIBBLE_CHECK(x.dim() == 2 && weight.dim() == 2 &&
                   weight.size(1) == (packed ? (x.size(1) + 1) / 2 : x.size(1)),
               op, ": sizes ", sizes(x), " and ", sizes(weight), "; give (M, K) and (N, ",
               packed ? "ceil(K / 2))" : "K)");
}

inline void check_terms(const char* op, int64_t terms) {
  NIBBLE_CHECK(terms <= kMostTerms, op, ": K = ", terms, "; give at most ", kMostTerms, ", or int32 may overflow");
}

}  // namespace nibble
