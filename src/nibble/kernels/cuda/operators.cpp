// linear_w4a8 and linear_w4a16 of nibble.kernels.ops for CUDA tensors, through torch's stable ABI.
//
// The file needs neither CUDA's headers nor its libraries, so one library loads into any torch from 2.10 on, also into
// one without CUDA. The tests register it for CPU tensors, with kernels that run there.
#include "../checks.h"
#include "launch.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <dlfcn.h>

#ifndef NIBBLE_KEY  // which the tests set
#define NIBBLE_LIBRARY nibble
#define NIBBLE_KEY CUDA
#endif

namespace {

using nibble::floats;
using nibble::MaybeTensor;
using nibble::ScalarType;
using nibble::Tensor;

constexpr int64_t kRows = 65535 * 64;  // a grid has at most 65535 tiles downwards; those of many rows have 64 or more

// torch's stream of a device. The function is no part of the stable ABI, but of what compiled models call; and since
// torch loads its libraries privately, it is looked up in the very one.
void* current_stream(const Tensor& tensor) {
  if (!tensor.is_cuda()) return nullptr;
  using Get = int32_t (*)(int32_t, void**);
  static const Get get = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return library ? reinterpret_cast<Get>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  void* stream = nullptr;
  STD_TORCH_CHECK(get && !get(tensor.get_device_index(), &stream), "nibble: torch does not say which stream to use");
  return stream;
}

// Makes the tensor's device the current one.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& tensor) {
    if (tensor.is_cuda()) guard_.emplace(tensor.get_device_index());
  }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
};

const void* at(const Tensor& tensor) { return tensor.const_data_ptr(); }

// What both operators have after x.
struct Weight {
  Tensor packed, scale;
  MaybeTensor bias;
};

Weight checked(const char* op, const Tensor& x, const Tensor& packed, const Tensor& scale, const MaybeTensor& bias) {
  STD_TORCH_CHECK(packed.scalar_type() == ScalarType::Byte, op, ": packed is ", nibble::name(packed),
                  ", not torch.uint8");
  nibble::check_sizes(op, x, packed, true);
  STD_TORCH_CHECK(x.size(0) <= kRows, op, ": ", x.size(0), " rows; give at most ", kRows, " at a time");
  const int64_t outputs = packed.size(0);
  Weight weight{nibble::dense(packed), nibble::float_vector(op, "weight_scale", scale, outputs, false),
                nibble::float_vector(op, "bias", bias, outputs)};
  for (const Tensor& tensor : {weight.packed, weight.scale, weight.bias.value_or(weight.packed)})
    STD_TORCH_CHECK(tensor.device() == x.device(), op, ": tensors are on several devices");
  return weight;
}

void check_launch(const char* op, int error) {
  STD_TORCH_CHECK(!error, op, ": CUDA: ", nibble_cuda_error(error));
}

Tensor linear_w4a8(const Tensor& given_codes, const Tensor& given_scale, const Tensor& packed,
                   const Tensor& weight_scale, const MaybeTensor& bias) {
  const char* op = "linear_w4a8";
  STD_TORCH_CHECK(given_codes.scalar_type() == ScalarType::Char, op, ": codes are ", nibble::name(given_codes),
                  ", not torch.int8");
  const Weight weight = checked(op, given_codes, packed, weight_scale, bias);
  const int64_t rows = given_codes.size(0), terms = given_codes.size(1), outputs = packed.size(0);
  STD_TORCH_CHECK(terms < nibble_cuda_int8_terms(), op, ": K = ", terms, "; give less than ", nibble_cuda_int8_terms());
  const Tensor codes = nibble::dense(given_codes), scale = nibble::float_vector(op, "scale", given_scale, rows, true);
  STD_TORCH_CHECK(scale.device() == codes.device(), op, ": tensors are on several devices");
  const OnDevice guard(codes);
  Tensor out = torch::stable::new_empty(scale, {rows, outputs});
  check_launch(op, nibble_cuda_linear_w4a8(at(codes), floats(scale),
                                           at(weight.packed), floats(weight.scale), floats(weight.bias),
                                           out.mutable_data_ptr(), rows, outputs, terms,
                                           current_stream(codes)));
  return out;
}

Tensor linear_w4a16(const Tensor& given_x, const Tensor& packed, const Tensor& weight_scale, const MaybeTensor& bias) {
  const char* op = "linear_w4a16";
  const ScalarType type = given_x.scalar_type();
  nibble::check_floating(op, given_x);
  const Weight weight = checked(op, given_x, packed, weight_scale, bias);
  const Tensor x = nibble::dense(given_x);
  const int64_t rows = x.size(0), terms = x.size(1), outputs = packed.size(0);
  const OnDevice guard(x);
  Tensor out = torch::stable::new_empty(x, {rows, outputs});
  const NibbleFloat kind = type == ScalarType::Half       ? kNibbleFloat16
                           : type == ScalarType::BFloat16 ? kNibbleBfloat16
                                                          : kNibbleFloat32;
  check_launch(op, nibble_cuda_linear_w4a16(kind, at(x), at(weight.packed),
                                            floats(weight.scale), floats(weight.bias),
                                            out.mutable_data_ptr(), rows, outputs, terms, current_stream(x)));
  return out;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* nibble_cuda_sources() { return "nibble sources " NIBBLE_SOURCES; }

STABLE_TORCH_LIBRARY_IMPL(NIBBLE_LIBRARY, NIBBLE_KEY, library) {
  library.impl("linear_w4a8", TORCH_BOX(&linear_w4a8));
  library.impl("linear_w4a16", TORCH_BOX(&linear_w4a16));
}
