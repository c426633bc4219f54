// linear_w4a16 for x of float32: plain multiply-adds, since the matrix instructions would round x to fewer bits.
//
// 16 x 16 threads compute a tile of 64 outputs x 64 rows, 4 x 4 each, from 16 terms at a time.
#pragma once

namespace nibble {

using Float32Tile = Tile<64, 64, 4, 2>;

__global__ void __launch_bounds__(Float32Tile::kThreads) float32(Linear p) {
  constexpr int kTerms = 16, kSide = 64, kEach = 4, kAcross = kSide / kEach;
  auto* x = reinterpret_cast<float(*)[kSide]>(shared_memory());  // [term][row]
  auto* weight = x + kTerms;                                     // [term][output]
  const int64_t first_output = static_cast<int64_t>(blockIdx.x) * kSide;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kSide;
  const int column = threadIdx.x % kAcross, line = threadIdx.x / kAcross;

  float sums[kEach][kEach] = {};
  for (int64_t start = 0; start < p.terms; start += kTerms) {
    for (int i = threadIdx.x; i < kTerms * kSide; i += Float32Tile::kThreads) {
      const int term = i % kTerms, r = i / kTerms;
      const int64_t k = start + term, row = first_row + r, output = first_output + r;
      x[term][r] = k < p.terms && row < p.rows ? reinterpret_cast<const float*>(p.x.data)[row * p.terms + k] : 0.0f;
      const int byte = k < p.terms && output < p.outputs ? p.packed.data[output * p.packed.row_bytes + k / 2] : 0;
      weight[term][r] = static_cast<float>((k % 2 ? byte >> 4 : byte & 15) - 8);
    }
    __syncthreads();
#pragma unroll
    for (int term = 0; term < kTerms; ++term)
#pragma unroll
      for (int i = 0; i < kEach; ++i)
#pragma unroll
        for (int j = 0; j < kEach; ++j)
          sums[i][j] += x[term][line + i * kAcross] * weight[term][column + j * kAcross];
    __syncthreads();
  }

#pragma unroll
  for (int i = 0; i < kEach; ++i)
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int64_t row = first_row + line + i * kAcross, output = first_output + column + j * kAcross;
      if (row >= p.rows || output >= p.outputs) continue;
      float value = sums[i][j] * p.weight_scale[output];
      if (p.bias) value += p.bias[output];
      static_cast<float*>(p.out)[row * p.outputs + output] = value;
    }
}

constexpr int kFloat32SharedBytes = 2 * 16 * 64 * 4;

}  // namespace nibble
