// Picks the kernel for a size, a type and a GPU. Included after gpu.cuh or the tests' replacement for it.
#pragma once

#include "launch.h"

#include "tile.cuh"
#include "linear.cuh"
#include "int8.cuh"
#include "sixteen_bits.cuh"
#include "ampere.cuh"
#include "hopper.cuh"
#include "float32.cuh"

namespace nibble {
namespace {

template <class Tile>
int launch_tiles(void (*kernel)(Linear), int shared_bytes, const Linear& p, void* stream) {
  const dim3 blocks(static_cast<unsigned>((p.outputs + Tile::kOutputs - 1) / Tile::kOutputs),
                    static_cast<unsigned>((p.rows + Tile::kRows - 1) / Tile::kRows));
  return launch(kernel, blocks, Tile::kThreads, shared_bytes, stream, p);
}

bool is_aligned(const Linear& p) { return is_aligned(p.x) && is_aligned(p.packed); }

template <class Format, class Tile, bool kAligned>
int launch_ampere(const Linear& p, void* stream) {
  return launch_tiles<Tile>(ampere<Format, Tile, kAligned>, kStages * kStageBytes<Format, Tile>, p, stream);
}

// Few rows: small tiles, so that more of them run at once. Rows that are not aligned are slow whatever the tile.
template <class Format>
int launch_ampere(const Linear& p, void* stream) {
  if (!is_aligned(p)) return launch_ampere<Format, Tile<64, 64, 2, 2>, false>(p, stream);
  if (p.rows <= 16) return launch_ampere<Format, Tile<64, 16, 4, 1>, true>(p, stream);
  if (p.rows <= 256) return launch_ampere<Format, Tile<64, 64, 2, 2>, true>(p, stream);
  return launch_ampere<Format, Tile<128, 128, 4, 2>, true>(p, stream);
}

#ifdef NIBBLE_WITH_HOPPER
template <class Tile, bool kAligned>
int launch_hopper(const Linear& p, void* stream) {
  return launch_tiles<Tile>(hopper<Tile, kAligned>, kHopperSharedBytes<Tile>, p, stream);
}

int launch_hopper(const Linear& p, void* stream) {
  if (!is_aligned(p)) return launch_hopper<Tile<64, 64, 4, 1>, false>(p, stream);
  if (p.rows <= 16) return launch_hopper<Tile<64, 16, 4, 1>, true>(p, stream);
  if (p.rows <= 256) return launch_hopper<Tile<64, 64, 4, 1>, true>(p, stream);
  return launch_hopper<Tile<128, 128, 8, 1>, true>(p, stream);
}
#endif

Linear arguments(const void* x, int term_bytes, const float* scale, const void* packed, const float* weight_scale,
                 const float* bias, void* out, int64_t rows, int64_t outputs, int64_t terms) {
  return {{static_cast<const uint8_t*>(x), rows, terms * term_bytes},
          {static_cast<const uint8_t*>(packed), outputs, (terms + 1) / 2},
          scale, weight_scale, bias, out, rows, outputs, terms};
}

}  // namespace
}  // namespace nibble

extern "C" int nibble_cuda_linear_w4a8(const void* codes, const float* scale, const void* packed,
                                       const float* weight_scale, const float* bias, void* out, int64_t rows,
                                       int64_t outputs, int64_t terms, void* stream) {
  using namespace nibble;
  if (!rows || !outputs) return 0;
  const Linear p = arguments(codes, 1, scale, packed, weight_scale, bias, out, rows, outputs, terms);
  const int version = capability();
  if (version < 0) return -version;
#ifdef NIBBLE_WITH_HOPPER  // build.py sets it if it compiles for Hopper
  if (version == 90) return launch_hopper(p, stream);
#endif
  return launch_ampere<Int8>(p, stream);
}

extern "C" int nibble_cuda_linear_w4a16(NibbleFloat type, const void* x, const void* packed, const float* weight_scale,
                                        const float* bias, void* out, int64_t rows, int64_t outputs, int64_t terms,
                                        void* stream) {
  using namespace nibble;
  if (!rows || !outputs) return 0;
  const int term_bytes = type == kNibbleFloat32 ? 4 : 2;
  const Linear p = arguments(x, term_bytes, nullptr, packed, weight_scale, bias, out, rows, outputs, terms);
  if (type == kNibbleFloat16) return launch_ampere<SixteenBits<Half>>(p, stream);
  if (type == kNibbleBfloat16) return launch_ampere<SixteenBits<Brain>>(p, stream);
  return launch_tiles<Float32Tile>(float32, kFloat32SharedBytes, p, stream);
}

extern "C" const char* nibble_cuda_error(int error) { return nibble::error_text(error); }
