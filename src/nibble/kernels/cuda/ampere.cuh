// The linear layers by the matrix instructions of a warp, which Ampere and all later GPUs have.
//
// The weights are the left operand: Y^T = W X^T. So a tile has 16 outputs and only 8 rows of x, and the weights come
// from registers, where they are unpacked. Tiles of both matrices pass through a ring of kStages buffers.
#pragma once

namespace nibble {

constexpr int kStages = 4, kTileTerms = 64, kWeightRowBytes = kTileTerms / 2;

template <class Format, class Tile>
constexpr int kStageBytes = Tile::kOutputs * kWeightRowBytes + Tile::kRows * kTileTerms * Format::kTermBytes;

template <class Format, class Tile, bool kAligned>
__global__ void __launch_bounds__(Tile::kThreads, 1) ampere(Linear p) {
  constexpr int kDown = Tile::kOutputs / Tile::kWarpsDown / 16, kAcross = Tile::kRows / Tile::kWarpsAcross / 8;
  constexpr int kRowBytes = kTileTerms * Format::kTermBytes, kWeightBytes = Tile::kOutputs * kWeightRowBytes;
  uint8_t* shared = shared_memory();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_output = static_cast<int64_t>(blockIdx.x) * Tile::kOutputs;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * Tile::kRows;
  const int warp_output = warp % Tile::kWarpsDown * kDown * 16, warp_row = warp / Tile::kWarpsDown * kAcross * 8;

  const int tiles = static_cast<int>((p.terms + kTileTerms - 1) / kTileTerms);
  const auto fetch = [&](int tile) {
    uint8_t* stage = shared + tile % kStages * kStageBytes<Format, Tile>;
    const int64_t i = tile;
    if (tile < tiles) {
      copy_tile<Tile::kOutputs, kWeightRowBytes, Tile::kThreads, kAligned>(stage, p.packed, first_output,
                                                                           i * kWeightRowBytes);
      copy_tile<Tile::kRows, kRowBytes, Tile::kThreads, kAligned>(stage + kWeightBytes, p.x, first_row, i * kRowBytes);
    }
    commit_copies();  // also an empty group, so that the number of groups tells which tile has arrived
  };

  typename Format::Sum sums[kDown][kAcross][4] = {};
  for (int tile = 0; tile < kStages - 1; ++tile) fetch(tile);
  for (int tile = 0; tile < tiles; ++tile) {
    wait_copies<kStages - 2>();
    __syncthreads();  // all threads see the tile, and have finished the one before, whose buffer is filled next
    fetch(tile + kStages - 1);
    const uint8_t* weights = shared + tile % kStages * kStageBytes<Format, Tile>;
    const uint8_t* x = weights + kWeightBytes;
#pragma unroll
    for (int step = 0; step < kRowBytes / 32; ++step) {  // one instruction takes 32 bytes of x
      uint32_t a[kDown][4];
#pragma unroll
      for (int i = 0; i < kDown; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          Format::template load<kWeightRowBytes>(a[i], half, weights, warp_output + i * 16 + half * 8 + lane / 4, step,
                                                 lane);
#pragma unroll
      for (int j = 0; j < kAcross; j += 2) {
        uint32_t b[4];  // two pieces of 16 bytes of eight rows, then of the next eight
        const int row = warp_row + j * 8 + lane / 16 * 8 + lane % 8;
        load_matrices(b, x + chunk_at<kRowBytes>(row, 2 * step + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < kDown; ++i) {
          Format::multiply(sums[i][j], a[i], b[0], b[1]);
          Format::multiply(sums[i][j + 1], a[i], b[2], b[3]);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kDown; ++i)
#pragma unroll
    for (int j = 0; j < kAcross; ++j)
#pragma unroll
      for (int s = 0; s < 4; ++s)
        Format::store(p, first_row + warp_row + j * 8 + lane % 4 * 2 + s % 2,
                      first_output + warp_output + i * 16 + s / 2 * 8 + lane / 4, sums[i][j][s]);
}

}  // namespace nibble
