// The arguments of all kernels.
#pragma once

namespace nibble {

struct Linear {
  Bytes x;       // (M, K): int8 codes, or floats
  Bytes packed;  // (N, ceil(K / 2)) of two codes each
  const float* scale;         // (M,) of linear_w4a8
  const float* weight_scale;  // (N,)
  const float* bias;          // (N,) or nullptr
  void* out;                  // (M, N)
  int64_t rows, outputs, terms;
};

// A tile of outputs x rows, shared by warps as kWarpsDown x kWarpsAcross.
template <int kOutputs_, int kRows_, int kWarpsDown_, int kWarpsAcross_>
struct Tile {
  static constexpr int kOutputs = kOutputs_, kRows = kRows_, kWarpsDown = kWarpsDown_, kWarpsAcross = kWarpsAcross_;
  static constexpr int kThreads = 32 * kWarpsDown * kWarpsAcross;
};

}  // namespace nibble
