// linear_w4a8 by Hopper's matrix instruction, wgmma.m64nNk32 on int8: four warps together, sums in their registers.
//
// Its right operand is read from shared memory and cannot be unpacked on the way; its left one may come from registers.
// So the weights must be the left operand, as in ampere.cuh. (CUTLASS swaps them too, in example 55.)
// Each group of four warps has 64 outputs of the tile, and all of its rows.
#pragma once

namespace nibble {

// Rows of the tile of x have 128 bytes, as a swizzled row of the instruction's operand has. Eight of them are a period
// of the swizzle, which is that of chunk_at<128>.
constexpr int kHopperTerms = 128, kHopperWeightRowBytes = kHopperTerms / 2;

template <class Tile>
constexpr int kHopperXBytes = Tile::kRows * kHopperTerms;
template <class Tile>
constexpr int kHopperStageBytes = kHopperXBytes<Tile> + Tile::kOutputs * kHopperWeightRowBytes;
template <class Tile>
constexpr int kHopperSharedBytes = kStages * kHopperStageBytes<Tile> + 1024;

// The descriptor of the right operand (PTX ISA, matrix descriptor): its start, the bytes from eight rows to the next
// eight, and the swizzle of 128 bytes. The field in between has no meaning for a swizzled operand.
NIBBLE_DEVICE uint64_t described(const uint8_t* shared) {
  const uint64_t start = shared_address(shared) >> 4 & 0x3fff, eight_rows = 8 * kHopperTerms >> 4;
  return start | uint64_t{1} << 16 | eight_rows << 32 | uint64_t{1} << 62;
}

template <class Tile, bool kAligned>
__global__ void __launch_bounds__(Tile::kThreads, 1) hopper(Linear p) {
#ifdef NIBBLE_HOPPER
  static_assert(Tile::kWarpsAcross == 1 && Tile::kWarpsDown * 16 == Tile::kOutputs);
  // The swizzle is a function of the address, so each tile of x starts at a multiple of 1024.
  uint8_t* shared = shared_memory() + (1024 - shared_address(shared_memory()) % 1024) % 1024;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_output = static_cast<int64_t>(blockIdx.x) * Tile::kOutputs;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * Tile::kRows;

  const int tiles = static_cast<int>((p.terms + kHopperTerms - 1) / kHopperTerms);
  const auto fetch = [&](int tile) {
    uint8_t* stage = shared + tile % kStages * kHopperStageBytes<Tile>;
    const int64_t i = tile;
    if (tile < tiles) {
      copy_tile<Tile::kRows, kHopperTerms, Tile::kThreads, kAligned>(stage, p.x, first_row, i * kHopperTerms);
      copy_tile<Tile::kOutputs, kHopperWeightRowBytes, Tile::kThreads, kAligned>(
          stage + kHopperXBytes<Tile>, p.packed, first_output, i * kHopperWeightRowBytes);
    }
    commit_copies();
  };

  int32_t sums[Tile::kRows / 2] = {};  // [eight rows][4]
  for (int tile = 0; tile < kStages - 1; ++tile) fetch(tile);
  for (int tile = 0; tile < tiles; ++tile) {
    wait_copies<kStages - 2>();
    publish_to_matrix_unit();
    __syncthreads();
    fetch(tile + kStages - 1);
    const uint8_t* x = shared + tile % kStages * kHopperStageBytes<Tile>;
    uint32_t a[kHopperTerms / 32][4];
#pragma unroll
    for (int step = 0; step < kHopperTerms / 32; ++step)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        Int8::load<kHopperWeightRowBytes>(a[step], half, x + kHopperXBytes<Tile>, warp * 16 + half * 8 + lane / 4, step,
                                          lane);
    begin_multiply();
#pragma unroll
    for (int step = 0; step < kHopperTerms / 32; ++step) multiply_int8_wide(sums, a[step], described(x + step * 32));
    end_multiply();
  }

#pragma unroll
  for (int j = 0; j < Tile::kRows / 8; ++j)
#pragma unroll
    for (int s = 0; s < 4; ++s)
      Int8::store(p, first_row + j * 8 + lane % 4 * 2 + s % 2, first_output + warp * 16 + s / 2 * 8 + lane / 4,
                  sums[j * 4 + s]);
#endif
}

}  // namespace nibble
