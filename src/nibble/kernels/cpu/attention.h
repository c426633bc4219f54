// Attention with relative positions, six queries at a time:
//     score of query i and key j = ((q_i + u) k_j + (q_i + v) p_{i-j}) / sqrt(W)
//
// Keys and positions are transposed once for each head, into panels with one column for each lane of a vector. Then
// each score is a sum over broadcast elements of a query. Only the positions that a group of queries needs are
// multiplied.
#pragma once
#include "float_steps.h"
#include "vectors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace nibble {
namespace {

constexpr int kQueries = 6;                         // of a tile
constexpr int kVectors = kRegisters == 32 ? 4 : 2;  // of columns in a tile: 6 x 4 or 6 x 2 sums in registers

int64_t rounded_up(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// out[r][v] = sum_k a[r][k] b[v][k], with V vectors of columns.
template <int R, int V>
void tile(const float* a, int64_t a_stride, const float* b, int64_t b_vector, int64_t b_term, int64_t terms, float* out,
          int64_t out_stride) {
  Floats sums[R][V];
  each<R>(EACH(r) { each<V>(EACH(v) { sums[r][v] = Floats{}; }); });
  for (int64_t k = 0; k < terms; ++k) {
    Floats columns[V];
    each<V>(EACH(v) { columns[v] = load(b + v * b_vector + k * b_term); });
    each<R>(EACH(r) {
      const float element = a[r * a_stride + k];
      each<V>(EACH(v) { sums[r][v] += columns[v] * element; });
    });
  }
  each<R>(EACH(r) { each<V>(EACH(v) { store(out + r * out_stride + v * kLanes, sums[r][v]); }); });
}

// As `tile`, for up to six rows and any number of vectors.
void product(int64_t rows, const float* a, int64_t a_stride, const float* b, int64_t b_vector, int64_t b_term,
             int64_t terms, int64_t vectors, float* out, int64_t out_stride) {
  for (int64_t first = 0; first < vectors; first += kVectors) {
    const int64_t count = std::min<int64_t>(kVectors, vectors - first);
    each<kQueries>(EACH(r) {
      each<kVectors>(EACH(v) {
        if (rows == r + 1 && count == v + 1)
          tile<r + 1, v + 1>(a, a_stride, b + first * b_vector, b_vector, b_term, terms, out + first * kLanes,
                             out_stride);
      });
    });
  }
}

// Rows (count, W), `stride` apart -> panels (W, kLanes) of `kLanes` rows each; zeros after the last row.
void transpose(const float* rows, int64_t stride, int64_t count, int64_t width, float* panels) {
  for (int64_t first = 0; first < count; first += kLanes, panels += width * kLanes) {
    const int64_t lanes = std::min<int64_t>(kLanes, count - first);
    if (lanes < kLanes) std::fill_n(panels, width * kLanes, 0.0f);
    for (int64_t k = 0; k < width; ++k)
      for (int64_t lane = 0; lane < lanes; ++lane) panels[k * kLanes + lane] = rows[(first + lane) * stride + k];
  }
}

// Scores plus their position part, -infinity for hidden keys -> e^(score - largest); returns their sum.
float exponentials(float* scores, const float* by_position, const float* hidden, int64_t keys) {
  Floats most = Floats{} - std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < keys; j += kLanes) {
    const Floats score = load(scores + j) + load(by_position + j) + load(hidden + j);
    store(scores + j, score);
    most = larger(most, score);
  }
  const float highest = largest(most);
  Floats total{};
  for (int64_t j = 0; j < keys; j += kLanes) {
    const Floats weight = exp(load(scores + j) - highest);
    store(scores + j, weight);
    total += weight;
  }
  return sum(total);
}

void attend(const Attention& p, int64_t utterance, int64_t head) {
  const int64_t stride = p.heads * p.width, width = rounded_up(p.width), keys = rounded_up(p.keys);
  const int64_t distances = p.keys + p.queries, columns = keys + 2 * kLanes;
  const float* query = p.query + utterance * p.queries * stride + head * p.width;
  const float* value = p.value + utterance * p.keys * stride + head * p.width;
  float* out = p.out + utterance * p.queries * stride + head * p.width;
  const float scale = 1.0f / std::sqrt(static_cast<float>(p.width));

  std::vector<float> key_panels(static_cast<size_t>(keys * p.width)), values(static_cast<size_t>(p.keys * width));
  std::vector<float> position_panels(static_cast<size_t>((rounded_up(distances) + 2 * kLanes) * p.width));
  transpose(p.key + utterance * p.keys * stride + head * p.width, stride, p.keys, p.width, key_panels.data());
  transpose(p.positions + head * p.width, stride, distances, p.width, position_panels.data());
  for (int64_t j = 0; j < p.keys; ++j) std::copy_n(value + j * stride, p.width, values.data() + j * width);
  std::vector<float> hidden(static_cast<size_t>(keys), -std::numeric_limits<float>::infinity());
  for (int64_t j = 0; j < p.keys; ++j)
    if (p.visible[utterance * p.keys + j]) hidden[static_cast<size_t>(j)] = 0.0f;

  std::vector<float> by_content(static_cast<size_t>(kQueries * p.width)), by_position = by_content;
  std::vector<float> scores(static_cast<size_t>(kQueries * keys));
  std::vector<float> position_scores(static_cast<size_t>(kQueries * columns));
  std::vector<float> attended(static_cast<size_t>(kQueries * width));
  for (int64_t first = 0; first < p.queries; first += kQueries) {
    const int64_t rows = std::min<int64_t>(kQueries, p.queries - first);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < p.width; ++k) {
        const float element = query[(first + r) * stride + k];
        by_content[static_cast<size_t>(r * p.width + k)] = (element + p.content_bias[head * p.width + k]) * scale;
        by_position[static_cast<size_t>(r * p.width + k)] = (element + p.position_bias[head * p.width + k]) * scale;
      }
    }
    product(rows, by_content.data(), p.width, key_panels.data(), p.width * kLanes, kLanes, p.width, keys / kLanes,
            scores.data(), keys);
    // Key j of query i is at position T - 1 - i + j.
    const int64_t lowest = p.queries - first - rows, panel = lowest / kLanes;
    const int64_t last = lowest + rows - 1 + keys;
    product(rows, by_position.data(), p.width, position_panels.data() + panel * p.width * kLanes, p.width * kLanes,
            kLanes, p.width, (last + kLanes - 1) / kLanes - panel, position_scores.data(), columns);
    float totals[kQueries];
    for (int64_t r = 0; r < rows; ++r)
      totals[r] = exponentials(scores.data() + r * keys,
                               position_scores.data() + r * columns + (p.queries - 1 - first - r) - panel * kLanes,
                               hidden.data(), keys);
    product(rows, scores.data(), keys, values.data(), kLanes, width, p.keys, width / kLanes, attended.data(), width);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t k = 0; k < p.width; ++k)
        out[(first + r) * stride + k] = attended[static_cast<size_t>(r * width + k)] / totals[r];
  }
}

}  // namespace
}  // namespace nibble
