// Picks the path: the fastest that this machine can run, decided once, unless a test forces another.
#include "paths.h"

#include <atomic>
#include <cstring>
#include <vector>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace nibble {
namespace {

// Fastest first.
std::vector<const Path*> find() {
  std::vector<const Path*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
    found.push_back(&avx512_vnni);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2);
#elif defined(__aarch64__)
  constexpr unsigned long kDotProduct = 1ul << 20;  // HWCAP_ASIMDDP of Linux
  if (getauxval(AT_HWCAP) & kDotProduct) found.push_back(&neon_dot);
#endif
  found.push_back(&portable);
  return found;
}

const std::vector<const Path*>& runnable() {
  static const std::vector<const Path*> found = find();
  return found;
}

std::atomic<const Path*> forced = nullptr;

}  // namespace

const Path& path() {
  const Path* chosen = forced.load(std::memory_order_relaxed);
  return chosen ? *chosen : *runnable().front();
}

}  // namespace nibble

#pragma GCC visibility push(default)
extern "C" {

// The name of the i-th path that this machine can run, fastest first; null beyond the last.
const char* nibble_cpu_path(int i) {
  const auto& found = nibble::runnable();
  return i < static_cast<int>(found.size()) ? found[static_cast<size_t>(i)]->name : nullptr;
}

// For tests: use this path from now on, or again the fastest if null. Returns 0, or 1 if it cannot run here.
int nibble_cpu_force(const char* name) {
  if (!name) {
    nibble::forced = nullptr;
    return 0;
  }
  for (const nibble::Path* path : nibble::runnable()) {
    if (!std::strcmp(path->name, name)) {
      nibble::forced = path;
      return 0;
    }
  }
  return 1;
}

// A digest of the sources that the library was built from.
const char* nibble_cpu_sources() { return "nibble sources " NIBBLE_SOURCES; }
}
