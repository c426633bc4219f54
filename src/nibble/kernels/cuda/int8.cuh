// linear_w4a8: how nibbles become operands of the int8 instructions, and how a sum becomes a result.
//
// Of an operand of 16 rows, a lane of a warp holds pieces of row lane / 4 and of row lane / 4 + 8 (PTX ISA, matrix
// fragments of mma.m16n8k32). wgmma takes the same pieces from each of its four warps.
#pragma once

namespace nibble {

struct Int8 {
  using Sum = int32_t;
  static constexpr int kTermBytes = 1;

  // Eight codes as bytes that hold 16 x code: the high half of a byte stays where it is, as in QQQ (arXiv 2406.09904),
  // and flipping its sign bit subtracts the 8 that is stored with a code. The sums are 16 times too large: K < 2^17.
  //
  // Takes two bytes for terms k ... k + 3 and, above them, two for terms k + 16 ... k + 19.
  NIBBLE_DEVICE static void unpack(uint32_t bytes, uint32_t& first, uint32_t& second) {
    const uint32_t even = ((bytes << 4) & 0xf0f0f0f0) ^ 0x80808080, odd = (bytes & 0xf0f0f0f0) ^ 0x80808080;
    first = permute_bytes(even, odd, 0x5140);
    second = permute_bytes(even, odd, 0x7362);
  }

  // Registers a[half] and a[2 + half]: of weight row `row`, terms 32 step ... + 31 of a tile with rows of kBytes.
  template <int kBytes>
  NIBBLE_DEVICE static void load(uint32_t (&a)[4], int half, const uint8_t* weights, int row, int step, int lane) {
    const uint8_t* at = weights + chunk_at<kBytes>(row, step) + lane % 4 * 2;
    const uint32_t low = *reinterpret_cast<const uint16_t*>(at), high = *reinterpret_cast<const uint16_t*>(at + 8);
    unpack(low | high << 16, a[half], a[2 + half]);
  }

  NIBBLE_DEVICE static void multiply(Sum (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    multiply_int8(sums, a, b0, b1);
  }

  // Each step rounded as the reference rounds it.
  NIBBLE_DEVICE static void store(const Linear& p, int64_t row, int64_t output, Sum sum) {
    if (row >= p.rows || output >= p.outputs) return;
    float value = __fmul_rn(__fmul_rn(__int2float_rn(sum >> 4), p.scale[row]), p.weight_scale[output]);
    if (p.bias) value = __fadd_rn(value, p.bias[output]);
    static_cast<float*>(p.out)[row * p.outputs + output] = value;
  }
};

}  // namespace nibble
