// AVX-512 VNNI: vpdpbusd multiplies unsigned by signed bytes and adds groups of four to 32-bit lanes.
//
// The unsigned factor is the weight plus an offset: a nibble is stored as code + 8, an int8 becomes code + 128.
// So   sum x (w + offset) = sum x w + offset sum x,   and the second term is subtracted at the end, once per row of x.
//
// In a packed row, the low halves of the bytes are the codes 0, 2, 4, ..., the high halves 1, 3, 5, ... So a row of x is
// arranged as its even terms and, `half` bytes further, its odd ones. Terms beyond K are zeros.
//
// Few rows: lanes run along K, and weights are read where they lie. More rows: sixteen lanes hold sixteen outputs, whose
// weights are transposed once into a panel of bytes, and every four terms of x are broadcast.
#include "each.h"
#include "paths.h"

#include <immintrin.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <utility>

namespace nibble {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kFewRows = 16;   // up to this many, no panel is made
constexpr int64_t kDotRows = 4;    // of a tile for few rows: 4 x 4 sums in registers
constexpr int64_t kPanelRows = 6;  // of a tile for more rows: 6 x 4 vectors of sums
constexpr int64_t kVectors = 4;    // of outputs in a panel
constexpr int64_t kBlock = kVectors * kLanes;

// As assembly, because GCC 12 copies and spills the sums around the intrinsic, at half the speed.
[[gnu::always_inline]] inline void dot(__m512i& sums, __m512i weight, __m512i x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(weight), "v"(x));
}

__m512i low_halves(__m512i bytes) { return _mm512_and_si512(bytes, _mm512_set1_epi8(15)); }
__m512i high_halves(__m512i bytes) { return low_halves(_mm512_srli_epi16(bytes, 4)); }
__m512i moved_up(__m512i bytes) { return _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)); }

// The even bytes of a, then those of b.
__m512i every_other(__m512i a, __m512i b) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(a)), _mm512_cvtepi16_epi8(b), 1);
}

__mmask64 first_bytes(int64_t count) { return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1; }
__mmask16 first_lanes(int64_t count) { return count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1; }

// Bytes from the even to the odd terms of an arranged row: whole vectors, and not a power of two of them, because a cache
// has room for few lines that lie such a distance apart.
int64_t half_bytes(const Product& p) { return ((p.weight_bytes() + 63) / 64 | 1) * 64; }

int64_t row_bytes(const Product& p) { return p.packed ? 2 * half_bytes(p) : half_bytes(p); }

// After the rows: offset x sum of each row.
const int32_t* corrections(const Product& p, const uint8_t* arranged) {
  return reinterpret_cast<const int32_t*>(arranged + p.rows * row_bytes(p));
}

int64_t arranged_bytes(const Product& p) { return p.rows * (row_bytes(p) + 4); }

void arrange(const Product& p, uint8_t* arranged) {
  const int64_t half = half_bytes(p);
  const __m512i ones = _mm512_set1_epi8(1);
  auto* correction = const_cast<int32_t*>(corrections(p, arranged));
  for (int64_t row = 0; row < p.rows; ++row) {
    const int8_t* x = p.x + row * p.terms;
    uint8_t* out = arranged + row * row_bytes(p);
    __m512i sum = _mm512_setzero_si512();
    for (int64_t k = 0; k < p.terms; k += 128) {
      const int64_t left = p.terms - k;
      const __m512i a = _mm512_maskz_loadu_epi8(first_bytes(left), x + k);
      const __m512i b = _mm512_maskz_loadu_epi8(left > 64 ? first_bytes(left - 64) : 0, x + k + 64);
      sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, ones, a), ones, b);
      if (p.packed) {
        _mm512_store_si512(out + k / 2, every_other(a, b));
        _mm512_store_si512(out + half + k / 2, every_other(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8)));
      } else {
        _mm512_store_si512(out + k, a);
        if (left > 64) _mm512_store_si512(out + k + 64, b);
      }
    }
    correction[row] = _mm512_reduce_add_epi32(sum) * (p.packed ? 8 : 128);
  }
}

// Stores 16 sums of one row, for outputs n, n + 1, ...
[[gnu::always_inline]] inline void finish(const Product& p, __m512i sums, int32_t correction, int64_t row, int64_t n,
                                          __mmask16 lanes) {
  sums = _mm512_sub_epi32(sums, _mm512_set1_epi32(correction));
  const int64_t at = row * p.outputs + n;
  if (p.sums) {
    _mm512_mask_storeu_epi32(p.sums + at, lanes, sums);
    return;
  }
  __m512 out = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(p.scale[row]));
  out = _mm512_mul_ps(out, _mm512_maskz_loadu_ps(lanes, p.weight_scale + n));
  if (p.bias) out = _mm512_add_ps(out, _mm512_maskz_loadu_ps(lanes, p.bias + n));
  _mm512_mask_storeu_ps(p.out + at, lanes, out);
}

// ---- few rows ----

// Four vectors -> one, whose four lanes of 128 bits each hold partial sums of the four.
__m512i partial_sums(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

// Four of these -> the sixteen sums.
__m512i whole_sums(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
  const __m512i cd = _mm512_add_epi32(_mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(ab, cd, 0x88), _mm512_shuffle_i32x4(ab, cd, 0xdd));
}

// Sixteen outputs of kRows rows, four at a time.
template <int kTileRows, bool kPacked>
void dot_tile(const Product& p, const uint8_t* arranged, int64_t row, int64_t first, int64_t last) {
  const int64_t stride = row_bytes(p), half = half_bytes(p), bytes = p.weight_bytes();
  const uint8_t* x = arranged + row * stride;
  for (int64_t n = first; n < last; n += kLanes) {
    __m512i partial[kTileRows][4];
    each<4>(EACH(quarter) {
      __m512i sums[kTileRows][4];
      each<kTileRows>(EACH(m) { each<4>(EACH(i) { sums[m][i] = _mm512_setzero_si512(); }); });
      const uint8_t* weight[4];
      // Beyond the last output its row is read again, and not stored.
      each<4>(EACH(i) { weight[i] = p.weight + std::min(n + quarter * 4 + i, last - 1) * bytes; });
      const auto add = [&](int64_t at, __mmask64 mask) __attribute__((always_inline)) {
        each<4>(EACH(i) {
          const __m512i held = _mm512_maskz_loadu_epi8(mask, weight[i] + at);
          if constexpr (kPacked) {
            const __m512i low = low_halves(held), high = high_halves(held);
            each<kTileRows>(EACH(m) {
              dot(sums[m][i], low, _mm512_load_si512(x + m * stride + at));
              dot(sums[m][i], high, _mm512_load_si512(x + m * stride + half + at));
            });
          } else {
            const __m512i up = moved_up(held);
            each<kTileRows>(EACH(m) { dot(sums[m][i], up, _mm512_load_si512(x + m * stride + at)); });
          }
        });
      };
      int64_t at = 0;
      for (; at + 64 <= bytes; at += 64) add(at, ~__mmask64{0});
      if (at < bytes) add(at, first_bytes(bytes - at));
      each<kTileRows>(EACH(m) {
        partial[m][quarter] = partial_sums(sums[m][0], sums[m][1], sums[m][2], sums[m][3]);
      });
    });
    each<kTileRows>(EACH(m) {
      const __m512i sums = whole_sums(partial[m][0], partial[m][1], partial[m][2], partial[m][3]);
      finish(p, sums, corrections(p, arranged)[row + m], row + m, n, first_lanes(last - n));
    });
  }
}

// ---- more rows ----

// 16 x 16 transposed: lane j of vector i goes to lane i of vector j.
void transpose(__m512i (&v)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 4) {
    const __m512i a = _mm512_unpacklo_epi32(v[i], v[i + 1]), b = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    const __m512i c = _mm512_unpacklo_epi32(v[i + 2], v[i + 3]), d = _mm512_unpackhi_epi32(v[i + 2], v[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c), t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d), t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(t[j], t[4 + j], 0x44), b = _mm512_shuffle_i32x4(t[j], t[4 + j], 0xee);
    const __m512i c = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0x44);
    const __m512i d = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0xee);
    v[j] = _mm512_shuffle_i32x4(a, c, 0x88), v[4 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
    v[8 + j] = _mm512_shuffle_i32x4(b, d, 0x88), v[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

// The weights of outputs n ... n + 16 vectors - 1 as panel[group][vector][lane][byte], where a group is four bytes of a
// weight's row. Beyond `last` a row is zeros.
void pack_panel(const Product& p, int64_t n, int64_t last, int64_t vectors, uint8_t* panel) {
  const int64_t bytes = p.weight_bytes();
  for (int64_t vector = 0; vector < vectors; ++vector) {
    for (int64_t at = 0; at < bytes; at += 64) {
      const __mmask64 mask = first_bytes(bytes - at);
      __m512i v[16];
      for (int i = 0; i < 16; ++i) {
        const int64_t output = n + vector * kLanes + i;
        v[i] = output < last ? _mm512_maskz_loadu_epi8(mask, p.weight + output * bytes + at) : _mm512_setzero_si512();
      }
      transpose(v);
      const int64_t count = std::min<int64_t>(16, (bytes - at + 3) / 4);
      for (int i = 0; i < count; ++i)
        _mm512_store_si512(panel + ((at / 4 + i) * vectors + vector) * 64, p.packed ? v[i] : moved_up(v[i]));
    }
  }
}

template <int kTileRows, int kTileVectors, bool kPacked>
void panel_tile(const Product& p, const uint8_t* arranged, const uint8_t* panel, int64_t row, int64_t n, int64_t last) {
  const int64_t stride = row_bytes(p), half = half_bytes(p), bytes = p.weight_bytes();
  const uint8_t* x = arranged + row * stride;
  __m512i sums[kTileRows][kTileVectors];
  each<kTileRows>(EACH(m) { each<kTileVectors>(EACH(v) { sums[m][v] = _mm512_setzero_si512(); }); });
  for (int64_t at = 0; at < bytes; at += 4, panel += kTileVectors * 64) {
    // Four terms of each row and of all outputs; `of` reads the outputs' part from the panel.
    const auto add = [&](const uint8_t* four, auto of) __attribute__((always_inline)) {
      __m512i weight[kTileVectors];
      each<kTileVectors>(EACH(v) { weight[v] = of(_mm512_load_si512(panel + v * 64)); });
      each<kTileRows>(EACH(m) {
        const __m512i same = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(four + m * stride));
        each<kTileVectors>(EACH(v) { dot(sums[m][v], weight[v], same); });
      });
    };
    if constexpr (kPacked) {
      add(x + at, low_halves);
      add(x + half + at, high_halves);
    } else {
      add(x + at, std::identity());
    }
  }
  each<kTileRows>(EACH(m) {
    each<kTileVectors>(EACH(v) {
      const int64_t output = n + v * kLanes;
      finish(p, sums[m][v], corrections(p, arranged)[row + m], row + m, output, first_lanes(last - output));
    });
  });
}

template <int kTileVectors, bool kPacked>
void panel_rows(const Product& p, const uint8_t* arranged, const uint8_t* panel, int64_t n, int64_t last) {
  int64_t row = 0;
  for (; row + kPanelRows <= p.rows; row += kPanelRows)
    panel_tile<kPanelRows, kTileVectors, kPacked>(p, arranged, panel, row, n, last);
  each<kPanelRows>(EACH(m) {
    if constexpr (m > 0)
      if (p.rows - row == m) panel_tile<m, kTileVectors, kPacked>(p, arranged, panel, row, n, last);
  });
}

template <bool kPacked>
void panel_product(const Product& p, const uint8_t* arranged, int64_t first, int64_t last) {
  const std::unique_ptr<void, decltype(&std::free)> held(
      std::aligned_alloc(64, static_cast<size_t>((p.weight_bytes() + 3) / 4 * kBlock * 4)), &std::free);
  auto* panel = static_cast<uint8_t*>(held.get());
  for (int64_t n = first, vectors = 0; n < last; n += vectors * kLanes) {
    // Even panels: 9 vectors are 3 + 3 + 3.
    const int64_t left = (last - n + kLanes - 1) / kLanes, panels = (left + kVectors - 1) / kVectors;
    vectors = (left + panels - 1) / panels;
    pack_panel(p, n, last, vectors, panel);
    each<kVectors>(EACH(i) {
      if (vectors == i + 1) panel_rows<i + 1, kPacked>(p, arranged, panel, n, last);
    });
  }
}

template <bool kPacked>
void dot_product(const Product& p, const uint8_t* arranged, int64_t first, int64_t last) {
  for (int64_t n = first; n < last; n += kBlock) {
    const int64_t end = std::min(n + kBlock, last);
    int64_t row = 0;
    for (; row + kDotRows <= p.rows; row += kDotRows) dot_tile<kDotRows, kPacked>(p, arranged, row, n, end);
    each<kDotRows>(EACH(m) {
      if constexpr (m > 0)
        if (p.rows - row == m) dot_tile<m, kPacked>(p, arranged, row, n, end);
    });
  }
}

void product(const Product& p, const uint8_t* arranged, int64_t first, int64_t last) {
  const auto chosen = p.rows > kFewRows ? (p.packed ? panel_product<true> : panel_product<false>)
                                        : (p.packed ? dot_product<true> : dot_product<false>);
  chosen(p, arranged, first, last);
}

// Four vectors of numbers from -128 to 127, in order, as bytes.
__m512i as_bytes(const __m512i (&v)[4]) {
  const __m512i mixed = _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, mixed);
}

template <class Quotient>
void codes_of(const float* x, int64_t terms, int8_t* codes, Quotient quotient) {
  const auto sixty_four = [&](int64_t k, int64_t left) __attribute__((always_inline)) {
    __m512i code[4];
    // The conversion rounds half to even.
    each<4>(EACH(i) {
      code[i] = _mm512_cvtps_epi32(quotient(_mm512_maskz_loadu_ps(first_lanes(left - 16 * i), x + k + 16 * i)));
    });
    _mm512_mask_storeu_epi8(codes + k, first_bytes(left), _mm512_max_epi8(as_bytes(code), _mm512_set1_epi8(-127)));
  };
  int64_t k = 0;
  for (; k + 64 <= terms; k += 64) sixty_four(k, 64);
  if (k < terms) sixty_four(k, terms - k);
}

void quantize_rows(const float* x, int64_t rows, int64_t terms, int8_t* codes, float* scale) {
  const __m512 no_sign = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff));
  for (int64_t row = 0; row < rows; ++row, x += terms, codes += terms) {
    __m512i largest = _mm512_setzero_si512();
    // Compared as integers: without their sign, NaN is above infinity, which is above all numbers.
    for (int64_t k = 0; k < terms; k += 16) {
      const __m512 part = _mm512_and_ps(_mm512_maskz_loadu_ps(first_lanes(terms - k), x + k), no_sign);
      largest = _mm512_max_epi32(largest, _mm512_castps_si512(part));
    }
    const int32_t bits = _mm512_reduce_max_epi32(largest);
    float step = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(bits))) / 127.0f;
    if (step == 0.0f) step = 1.0f;
    scale[row] = step;
    const __m512 divisor = _mm512_set1_ps(step), inverse = _mm512_set1_ps(1.0f / step);
    if (step < 0x1p-100f) {  // remainders might underflow
      codes_of(x, terms, codes, [&](__m512 part) { return _mm512_div_ps(part, divisor); });
    } else {
      // A division takes longer. The remainder of a guess corrects it, to within 2^-45 before the last
      // rounding; a test goes through all quotients that lie as close to where a code changes.
      codes_of(x, terms, codes, [&](__m512 part) {
        const __m512 guess = _mm512_mul_ps(part, inverse);
        return _mm512_fmadd_ps(_mm512_fnmadd_ps(guess, divisor, part), inverse, guess);
      });
    }
  }
}

}  // namespace

const Path avx512_vnni = {"avx512_vnni", quantize_rows, arranged_bytes, arrange, product, kBlock, avx512_steps};

}  // namespace nibble
