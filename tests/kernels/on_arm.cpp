// The kernels' inner functions without torch: prints a digest of what each path makes of random inputs.
//
// Compiled for ARM it runs in an emulator, and must print what the same file prints where it is compiled for this
// machine: integers, and floats whose every step is rounded by itself, are the same bits. Other floats are compared with
// doubles here.
#include "paths.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" const char* nibble_cpu_path(int i);

namespace {

std::mt19937 generator(1);

int64_t below(int64_t count) { return static_cast<int64_t>(generator() % static_cast<uint32_t>(count)); }
float uniform() { return static_cast<float>(below(1 << 20)) / (1 << 19) - 1.0f; }

template <class T, class Make>
std::vector<T> filled(int64_t count, const Make& make) {
  std::vector<T> made(static_cast<size_t>(count));
  for (T& each : made) each = static_cast<T>(make());
  return made;
}

std::vector<float> floats(int64_t count) { return filled<float>(count, uniform); }
std::vector<int8_t> codes(int64_t count) { return filled<int8_t>(count, [] { return below(256) - 128; }); }

// FNV-1a.
template <class T>
unsigned long long digest(const std::vector<T>& values) {
  unsigned long long hash = 14695981039346656037ull;
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(T); ++i) hash = (hash ^ bytes[i]) * 1099511628211ull;
  return hash;
}

void product(const nibble::Path& path, int64_t rows, int64_t terms, int64_t outputs, bool packed) {
  const auto x = codes(rows * terms);
  const auto weight = filled<uint8_t>(outputs * (packed ? (terms + 1) / 2 : terms), [] { return below(256); });
  const auto scale = floats(rows), weight_scale = floats(outputs), bias = floats(outputs);
  std::vector<int32_t> sums(static_cast<size_t>(rows * outputs));
  std::vector<float> out(sums.size());
  nibble::Product p = {.x = x.data(),
                       .rows = rows,
                       .terms = terms,
                       .outputs = outputs,
                       .weight = weight.data(),
                       .packed = packed,
                       .scale = scale.data(),
                       .weight_scale = weight_scale.data(),
                       .bias = bias.data(),
                       .out = out.data(),
                       .sums = nullptr};
  const auto bytes = static_cast<size_t>(path.arranged_bytes(p) + 63) / 64 * 64 + 64;
  auto* arranged = static_cast<uint8_t*>(std::aligned_alloc(64, bytes));
  path.arrange(p, arranged);
  for (int64_t first = 0; first < outputs; first += path.block)
    path.product(p, arranged, first, std::min(outputs, first + path.block));
  p.sums = sums.data();
  path.product(p, arranged, 0, outputs);
  std::free(arranged);
  std::printf("product %d %d %d %d: %llx %llx\n", static_cast<int>(rows), static_cast<int>(terms),
              static_cast<int>(outputs), packed, digest(sums), digest(out));
}

void rows_of(const nibble::Path& path, int64_t rows, int64_t terms) {
  auto x = floats(rows * terms);
  for (int64_t k = 0; k < terms; ++k) x[static_cast<size_t>(k)] = static_cast<float>(below(509) - 254) / 2;  // halves
  std::vector<int8_t> found(x.size());
  std::vector<float> scale(static_cast<size_t>(rows));
  path.quantize_rows(x.data(), rows, terms, found.data(), scale.data());
  std::printf("rows %d %d: %llx %llx\n", static_cast<int>(rows), static_cast<int>(terms), digest(found), digest(scale));
}

void weights_of(const nibble::FloatSteps& steps, int64_t terms) {
  const auto packed = filled<uint8_t>((terms + 1) / 2, [] { return below(256); });
  std::vector<float> out(static_cast<size_t>(terms));
  steps.weights(packed.data(), 0.37f, terms, out.data());
  std::printf("weights %d: %llx\n", static_cast<int>(terms), digest(out));
}

void depthwise(const nibble::FloatSteps& steps, int64_t channels, int64_t width) {
  const int64_t taps = 15;
  const auto x = codes(width * channels), weight = codes(channels * taps);
  std::vector<float> out(x.size());
  const nibble::Depthwise p = {.x = x.data(),
                               .weight = weight.data(),
                               .out = out.data(),
                               .channels = channels,
                               .height = 1,
                               .width = width,
                               .out_height = 1,
                               .out_width = width,
                               .kernel = {1, taps},
                               .stride = {1, 1},
                               .padding = {0, taps / 2},
                               .dilation = {1, 1}};
  for (int64_t first = 0; first < channels; first += steps.channels) steps.depthwise(p, first);
  std::printf("depthwise %d %d: %llx\n", static_cast<int>(channels), static_cast<int>(width), digest(out));
}

void near(const char* name, int64_t size, double error) {
  std::printf("%s %d: %s\n", name, static_cast<int>(size), error < 1e-5 ? "near" : "far");
}

void norm_and_silu(const nibble::FloatSteps& steps, int64_t terms) {
  const auto x = floats(terms), weight = floats(terms), bias = floats(terms);
  std::vector<float> out(x.size());
  steps.silu(x.data(), terms, out.data());
  double error = 0, mean = 0, squares = 0;
  for (size_t k = 0; k < x.size(); ++k) error = std::max(error, std::abs(out[k] - x[k] / (1 + std::exp(-double{x[k]}))));
  near("silu", terms, error);
  for (const float each : x) mean += each / static_cast<double>(terms);
  for (const float each : x) squares += (each - mean) * (each - mean) / static_cast<double>(terms);
  steps.norm(x.data(), weight.data(), bias.data(), 1e-5f, terms, out.data());
  error = 0;
  for (size_t k = 0; k < x.size(); ++k)
    error = std::max(error, std::abs(out[k] - ((x[k] - mean) / std::sqrt(squares + 1e-5) * weight[k] + bias[k])));
  near("norm", terms, error);
}

void attention(const nibble::FloatSteps& steps, int64_t queries, int64_t keys, int64_t width) {
  const auto query = floats(queries * width), key = floats(keys * width), value = floats(keys * width);
  const auto positions = floats((keys + queries) * width), u = floats(width), v = floats(width);
  const bool* visible = static_cast<bool*>(std::calloc(static_cast<size_t>(keys), 1));
  for (int64_t j = 0; j < keys; ++j) const_cast<bool*>(visible)[j] = j % 5 != 4;
  std::vector<float> out(query.size());
  steps.attend({.query = query.data(),
                .key = key.data(),
                .value = value.data(),
                .positions = positions.data(),
                .content_bias = u.data(),
                .position_bias = v.data(),
                .visible = visible,
                .out = out.data(),
                .batch = 1,
                .heads = 1,
                .width = width,
                .queries = queries,
                .keys = keys},
               0, 0);
  double worst = 0;
  for (int64_t i = 0; i < queries; ++i) {
    std::vector<double> expected(static_cast<size_t>(width));
    double total = 0;
    for (int64_t j = 0; j < keys; ++j) {
      double score = 0;
      for (int64_t k = 0; k < width; ++k) {
        const double q = query[static_cast<size_t>(i * width + k)];
        score += (q + u[static_cast<size_t>(k)]) * key[static_cast<size_t>(j * width + k)];
        score += (q + v[static_cast<size_t>(k)]) * positions[static_cast<size_t>((queries - 1 - i + j) * width + k)];
      }
      const double weight = visible[j] ? std::exp(score / std::sqrt(static_cast<double>(width))) : 0;
      total += weight;
      for (int64_t k = 0; k < width; ++k) expected[static_cast<size_t>(k)] += weight * value[static_cast<size_t>(j * width + k)];
    }
    for (int64_t k = 0; k < width; ++k)
      worst = std::max(worst, std::abs(expected[static_cast<size_t>(k)] / total - out[static_cast<size_t>(i * width + k)]));
  }
  near("attention", queries, worst);
}

void all(const nibble::Path& path) {
  generator.seed(1);
  std::printf("path %s\n", path.name);
  for (const int64_t rows : {1, 3, 4, 5, 13})
    for (const int64_t terms : {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 300})
      for (const int64_t outputs : {1, 3, 4, 5, 70})
        for (const bool packed : {false, true}) product(path, rows, terms, outputs, packed);
  product(path, 2, 70'001, 5, false);
  product(path, 2, 70'001, 5, true);
  for (const int64_t terms : {1, 3, 4, 5, 16, 67, 300}) {
    rows_of(path, 5, terms);
    weights_of(path.steps, terms);
    norm_and_silu(path.steps, terms);
  }
  for (const int64_t channels : {2, 4, 7, 32}) depthwise(path.steps, channels, 23);
  for (const int64_t queries : {1, 6, 7, 20}) attention(path.steps, queries, queries + 3, 12);
}

}  // namespace

int main() {
  all(nibble::portable);
#if defined(__aarch64__)
  std::printf("fastest %s\n", nibble_cpu_path(0));
  if (nibble_cpu_path(1)) all(nibble::neon_dot);
#endif
}
