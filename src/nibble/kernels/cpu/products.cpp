#include "products.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace nibble {
namespace {

constexpr int64_t kTermsPerThread = 1 << 20;  // products; fewer are done sooner than a thread wakes up
constexpr int64_t kRowsPerTask = 240;         // a multiple of every tile's rows

}  // namespace

void run(const Product& p) {
  const Path& path = nibble::path();
  if (!p.rows || !p.outputs) return;
  const auto bytes = static_cast<size_t>((path.arranged_bytes(p) + 63) / 64 * 64);
  const std::unique_ptr<void, decltype(&std::free)> held(std::aligned_alloc(64, bytes), &std::free);
  STD_TORCH_CHECK(held, "nibble: no memory for ", bytes, " bytes");
  auto* arranged = static_cast<uint8_t*>(held.get());
  const int64_t products = p.rows * p.terms * p.outputs;
  if (products <= kTermsPerThread || torch::stable::get_num_threads() == 1) {
    path.arrange(p, arranged, 0, p.rows);
    path.product(p, arranged, 0, p.rows, 0, p.outputs);
    return;
  }
  torch::stable::parallel_for(0, p.rows, 64,
                              [&](int64_t first, int64_t last) { path.arrange(p, arranged, first, last); });
  const int64_t blocks = (p.outputs + path.block - 1) / path.block;
  const int64_t row_tasks = (p.rows + kRowsPerTask - 1) / kRowsPerTask, tasks = blocks * row_tasks;
  const int64_t grain = std::max<int64_t>(1, kTermsPerThread / (products / tasks + 1));
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t n = task / row_tasks * path.block, row = task % row_tasks * kRowsPerTask;
      path.product(p, arranged, row, std::min(row + kRowsPerTask, p.rows), n, std::min(n + path.block, p.outputs));
    }
  });
}

}  // namespace nibble
