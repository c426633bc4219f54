#include "products.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

namespace nibble {
namespace {

constexpr int64_t kTermsPerThread = 1 << 20;  // products; fewer take less time than a thread needs to wake up
constexpr int64_t kSlabRows = 360;            // at most; they stay in the cache
constexpr int64_t kTileRows = 12;             // a multiple of every tile's rows

int64_t divide_up(int64_t count, int64_t by) { return (count + by - 1) / by; }

// Memory of this thread, kept from one product to the next.
uint8_t* scratch(int64_t bytes) {
  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  thread_local std::vector<Line> lines;
  const auto count = static_cast<size_t>(divide_up(bytes, 64));
  if (lines.size() < count) lines = std::vector<Line>(count);
  return reinterpret_cast<uint8_t*>(lines.data());
}

}  // namespace

// A task is a slab of rows and a block of outputs. A thread arranges the slabs of its own tasks, so that threads wait
// for each other only once.
void run(const Product& p) {
  const Path& path = nibble::path();
  if (!p.rows || !p.outputs) return;
  // Slabs of one size, except the last: each thread gets the same work.
  const int64_t even = divide_up(p.rows, divide_up(p.rows, kSlabRows));
  const int64_t slab_rows = divide_up(even, kTileRows) * kTileRows;
  const int64_t slabs = divide_up(p.rows, slab_rows), blocks = divide_up(p.outputs, path.block), tasks = slabs * blocks;
  const auto work = [&](int64_t task, int64_t last) {
    while (task < last) {
      const int64_t slab = task / blocks, begins = slab * blocks, end = std::min(last, begins + blocks);
      const Product rows = p.of_rows(slab * slab_rows, std::min(p.rows, (slab + 1) * slab_rows));
      uint8_t* arranged = scratch(path.arranged_bytes(rows));
      path.arrange(rows, arranged);
      path.product(rows, arranged, (task - begins) * path.block, std::min(p.outputs, (end - begins) * path.block));
      task = end;
    }
  };
  const int64_t products = p.rows * p.terms * p.outputs;
  if (products <= kTermsPerThread)
    work(0, tasks);
  else
    torch::stable::parallel_for(0, tasks, std::max<int64_t>(1, kTermsPerThread / (products / tasks + 1)), work);
}

}  // namespace nibble
