// linear_w4a8 and linear_w4a16 of nibble.kernels.ops for CUDA tensors, through torch's stable ABI.
//
// The file needs neither CUDA's headers nor its libraries, so one library loads into any torch from 2.10 on, also into
// one without CUDA. The tests register it for CPU tensors, with kernels that run there.
#include "../checks.h"
#include "launch.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <dlfcn.h>

#include <algorithm>
#include <initializer_list>

#ifndef NIBBLE_KEY  // the tests set it
#define NIBBLE_LIBRARY nibble
#define NIBBLE_KEY CUDA
#endif

namespace {

using nibble::floats;
using nibble::MaybeTensor;
using nibble::ScalarType;
using nibble::Tensor;

#ifndef NIBBLE_ROWS  // fewer in the tests
#define NIBBLE_ROWS (65535 * 64)  // a grid has at most 65535 tiles downwards; those of many rows have 64 or more
#endif

// torch's stream of a device. The function is not in the stable ABI, but compiled models call it. torch loads its
// libraries privately, so it is looked up in that library.
void* current_stream(const Tensor& tensor) {
  if (!tensor.is_cuda()) return nullptr;
  using Get = int32_t (*)(int32_t, void**);
  static const Get get = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return library ? reinterpret_cast<Get>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  void* stream = nullptr;
  NIBBLE_CHECK(get && !get(tensor.get_device_index(), &stream), "nibble: torch does not say which stream to use");
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

void check_devices(const char* op, const Tensor& x, std::initializer_list<MaybeTensor> others) {
  for (const MaybeTensor& other : others)
    NIBBLE_CHECK(!other || other->device() == x.device(), op, ": tensors are on several devices");
}

// The weight of both operators, contiguous.
struct Weight {
  Tensor packed, scale;
  MaybeTensor bias;
};

Weight checked(const char* op, const Tensor& packed, const Tensor& scale, const MaybeTensor& bias) {
  const int64_t outputs = packed.size(0);
  return {nibble::dense(packed), nibble::float_vector(op, "weight_scale", scale, outputs, false),
          nibble::float_vector(op, "bias", bias, outputs)};
}

void check_packed(const char* op, const Tensor& x, const Tensor& packed) {
  NIBBLE_CHECK(packed.scalar_type() == ScalarType::Byte, op, ": packed is ", nibble::name(packed),
               ", not torch.uint8");
  nibble::check_sizes(op, x, packed, true);
}

// Calls launch(first row, rows) with as many rows at a time as fit into a grid.
template <class Launch>
void each_grid(const char* op, int64_t rows, const Launch& launch) {
  for (int64_t first = 0; first < rows; first += NIBBLE_ROWS) {
    const int error = launch(first, std::min<int64_t>(NIBBLE_ROWS, rows - first));
    NIBBLE_CHECK(!error, op, ": CUDA: ", nibble_cuda_error(error));
  }
}

Tensor linear_w4a8(const Tensor& given_codes, const Tensor& given_scale, const Tensor& packed,
                   const Tensor& weight_scale, const MaybeTensor& bias) {
  const char* op = "linear_w4a8";
  check_devices(op, given_codes, {given_scale, packed, weight_scale, bias});
  NIBBLE_CHECK(given_codes.scalar_type() == ScalarType::Char, op, ": codes are ", nibble::name(given_codes),
               ", not torch.int8");
  check_packed(op, given_codes, packed);
  const int64_t rows = given_codes.size(0), terms = given_codes.size(1), outputs = packed.size(0);
  nibble::check_terms(op, terms);
  const Tensor codes = nibble::dense(given_codes), scale = nibble::float_vector(op, "scale", given_scale, rows, true);
  const Weight weight = checked(op, packed, weight_scale, bias);
  const OnDevice guard(codes);
  Tensor out = torch::stable::new_empty(scale, {rows, outputs});
  const auto* from = static_cast<const int8_t*>(codes.const_data_ptr());
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  each_grid(op, rows, [&](int64_t first, int64_t count) {
    return nibble_cuda_linear_w4a8(from + first * terms, floats(scale) + first, weight.packed.const_data_ptr(),
                                   floats(weight.scale), floats(weight.bias), to + first * outputs, count, outputs,
                                   terms, current_stream(codes));
  });
  return out;
}

Tensor linear_w4a16(const Tensor& given_x, const Tensor& packed, const Tensor& weight_scale, const MaybeTensor& bias) {
  const char* op = "linear_w4a16";
  check_devices(op, given_x, {packed, weight_scale, bias});
  nibble::check_floating(op, given_x);
  check_packed(op, given_x, packed);
  const Weight weight = checked(op, packed, weight_scale, bias);
  const Tensor x = nibble::dense(given_x);
  const int64_t rows = x.size(0), terms = x.size(1), outputs = packed.size(0);
  const OnDevice guard(x);
  Tensor out = torch::stable::new_empty(x, {rows, outputs});
  const ScalarType type = x.scalar_type();
  const NibbleFloat kind = type == ScalarType::Half       ? kNibbleFloat16
                           : type == ScalarType::BFloat16 ? kNibbleBfloat16
                                                          : kNibbleFloat32;
  const int64_t bytes = kind == kNibbleFloat32 ? 4 : 2;
  const auto* from = static_cast<const char*>(x.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  each_grid(op, rows, [&](int64_t first, int64_t count) {
    return nibble_cuda_linear_w4a16(kind, from + first * terms * bytes, weight.packed.const_data_ptr(),
                                    floats(weight.scale), floats(weight.bias), to + first * outputs * bytes, count,
                                    outputs, terms, current_stream(x));
  });
  return out;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* nibble_cuda_sources() { return "nibble sources " NIBBLE_SOURCES; }

STABLE_TORCH_LIBRARY_IMPL(NIBBLE_LIBRARY, NIBBLE_KEY, library) {
  library.impl("linear_w4a8", TORCH_BOX(&linear_w4a8));
  library.impl("linear_w4a16", TORCH_BOX(&linear_w4a16));
}
