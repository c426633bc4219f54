// Preloaded before torch: autograd then asks no accelerator for its streams, as in a torch that is built for CPUs.
#include <c10/core/DeviceType.h>
#include <optional>

namespace at::accelerator {
std::optional<c10::DeviceType> getAccelerator(bool) { return std::nullopt; }
bool isAccelerator(c10::DeviceType) { return false; }
}  // namespace at::accelerator
