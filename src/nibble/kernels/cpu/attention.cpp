// Attention with relative positions, for CPU tensors.
#include "float_steps.h"
#include "paths.h"
#include "tensors.h"

#include <torch/csrc/stable/library.h>

namespace {

using nibble::dense;
using nibble::floats;
using nibble::name;
using nibble::ScalarType;
using nibble::sizes;
using nibble::Tensor;

// A tensor that must have these sizes and this type, contiguous.
Tensor checked(const char* label, const Tensor& tensor, ScalarType type, const std::vector<int64_t>& size) {
  bool fits = tensor.scalar_type() == type && tensor.dim() == static_cast<int64_t>(size.size());
  std::string text;
  for (size_t i = 0; i < size.size(); ++i) {
    fits = fits && tensor.size(static_cast<int64_t>(i)) == size[i];
    text += (i ? ", " : "") + std::to_string(size[i]);
  }
  NIBBLE_CHECK(fits, "relative_attention: ", label, " is ", name(tensor), " ", sizes(tensor), "; give ",
               type == ScalarType::Bool ? "torch.bool (" : "torch.float32 (", text, size.size() == 1 ? ",)" : ")");
  return dense(tensor);
}

Tensor relative_attention(const Tensor& given_query, const Tensor& given_key, const Tensor& given_value,
                          const Tensor& given_positions, const Tensor& given_content_bias,
                          const Tensor& given_position_bias, const Tensor& given_visible, int64_t heads) {
  NIBBLE_CHECK(given_query.dim() == 3 && given_key.dim() == 3, "relative_attention: sizes ", sizes(given_query),
               " and ", sizes(given_key), "; give (B, T, D) and (B, S, D)");
  const int64_t batch = given_query.size(0), queries = given_query.size(1), width = given_query.size(2);
  const int64_t keys = given_key.size(1);
  NIBBLE_CHECK(heads > 0 && width > 0 && width % heads == 0, "relative_attention: ", heads,
               " heads do not divide D = ", width);
  NIBBLE_CHECK(queries <= keys, "relative_attention: ", queries, " queries of ", keys,
               " frames; give at most one a frame");
  const auto kFloat = ScalarType::Float;
  const Tensor query = checked("query", given_query, kFloat, {batch, queries, width});
  const Tensor key = checked("key", given_key, kFloat, {batch, keys, width});
  const Tensor value = checked("value", given_value, kFloat, {batch, keys, width});
  const Tensor positions = checked("positions", given_positions, kFloat, {keys + queries, width});
  const Tensor content_bias = checked("content_bias", given_content_bias, kFloat, {width});
  const Tensor position_bias = checked("position_bias", given_position_bias, kFloat, {width});
  const Tensor visible = checked("visible", given_visible, ScalarType::Bool, {batch, keys});
  Tensor out = nibble::empty({batch, queries, width}, aoti_torch_dtype_float32());
  const nibble::Attention p = {.query = floats(query),
                               .key = floats(key),
                               .value = floats(value),
                               .positions = floats(positions),
                               .content_bias = floats(content_bias),
                               .position_bias = floats(position_bias),
                               .visible = static_cast<const bool*>(visible.const_data_ptr()),
                               .out = static_cast<float*>(out.mutable_data_ptr()),
                               .batch = batch,
                               .heads = heads,
                               .width = width / heads,
                               .queries = queries,
                               .keys = keys};
  const auto attend = nibble::path().steps.attend;
  torch::stable::parallel_for(0, batch * heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t each = first; each < last; ++each) attend(p, each / heads, each % heads);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(nibble, CPU, library) {
  library.impl("relative_attention", TORCH_BOX(&relative_attention));
}
