// Copies a tile of a matrix from global to shared memory.
//
// It is stored in chunks of 16 bytes, rows one after the other. Eight rows that are read at once would be in the same
// banks, so the chunks of each row are exchanged, by a rule that differs from row to row.
#pragma once

namespace nibble {

constexpr int kChunk = 16;  // bytes

// The place of chunk `chunk` of row `row`, for rows of kBytes = 32, 64 or 128 bytes: eight successive rows have a given
// chunk in eight different places modulo 128 bytes.
template <int kBytes>
NIBBLE_DEVICE int chunk_at(int row, int chunk) {
  constexpr int kChunks = kBytes / kChunk, kRowsOfBanks = 128 / kBytes;
  return row * kBytes + (chunk ^ (row / kRowsOfBanks % kChunks)) * kChunk;
}

// A matrix of bytes in global memory.
struct Bytes {
  const uint8_t* data;
  int64_t rows, row_bytes;
};

// kRows rows from `row` on, each kBytes from `byte` on; zeros outside of the matrix.
//
// kAligned: rows start at multiples of 16 bytes, and copies run asynchronously. Otherwise bytes are fetched one by one,
// which is slow but works for any size.
template <int kRows, int kBytes, int kThreads, bool kAligned>
NIBBLE_DEVICE void copy_tile(uint8_t* shared, const Bytes& from, int64_t row, int64_t byte) {
  constexpr int kChunks = kBytes / kChunk;
  for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
    const int r = i / kChunks, c = i % kChunks;
    const int64_t at = byte + c * kChunk, left = from.row_bytes - at;
    const int held = row + r >= from.rows || left <= 0 ? 0 : left < kChunk ? static_cast<int>(left) : kChunk;
    const uint8_t* source = held ? from.data + (row + r) * from.row_bytes + at : from.data;
    uint8_t* target = shared + chunk_at<kBytes>(r, c);
    if constexpr (kAligned) {
      copy_async16(target, source, held);
    } else {
      uint32_t words[4] = {};
#pragma unroll
      for (int b = 0; b < kChunk; ++b)
        if (b < held) words[b / 4] |= static_cast<uint32_t>(source[b]) << b % 4 * 8;
      *reinterpret_cast<uint4*>(target) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

inline bool is_aligned(const Bytes& bytes) {
  return bytes.row_bytes % kChunk == 0 && reinterpret_cast<uintptr_t>(bytes.data) % kChunk == 0;
}

}  // namespace nibble
