// linear_w4a16 for float16 and bfloat16: a code becomes a float of x's type, which holds it exactly; its scale is
// applied to the sum. Fragments as in the PTX ISA, mma.m16n8k16.
#pragma once

namespace nibble {

template <class Float>
struct SixteenBits {
  using Sum = float;
  static constexpr int kTermBytes = 2;

  // One byte -> its two codes. What is stored is code + 8; base + nibble is exact, since the base's last bit counts 1.
  NIBBLE_DEVICE static uint32_t unpack(uint32_t byte) {
    return Float::minus_base_and_8(((byte | byte << 12) & 0x000f000f) | Float::kBase);
  }

  // Registers a[half] and a[2 + half]: of weight row `row`, terms 16 step ... + 15 of a tile with rows of kBytes.
  template <int kBytes>
  NIBBLE_DEVICE static void load(uint32_t (&a)[4], int half, const uint8_t* weights, int row, int step, int lane) {
    const uint8_t* at = weights + chunk_at<kBytes>(row, step / 2) + step % 2 * 8 + lane % 4;
    a[half] = unpack(at[0]);
    a[2 + half] = unpack(at[4]);
  }

  NIBBLE_DEVICE static void multiply(Sum (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    nibble::multiply(Float{}, sums, a, b0, b1);
  }

  NIBBLE_DEVICE static void store(const Linear& p, int64_t row, int64_t output, Sum sum) {
    if (row >= p.rows || output >= p.outputs) return;
    float value = sum * p.weight_scale[output];
    if (p.bias) value += p.bias[output];
    static_cast<uint16_t*>(p.out)[row * p.outputs + output] = Float::rounded(value);
  }
};

}  // namespace nibble
