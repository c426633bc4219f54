// Vectors of floats in the compiler's own terms, as wide as the instruction set that a file is compiled for. Everything
// has internal linkage, so that no function of one set ends up in another.
#pragma once
#include "each.h"

#include <bit>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace nibble {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kRegisters = 16;
#else
constexpr int kLanes = 4, kRegisters = 16;
#endif
typedef float Floats [[gnu::vector_size(4 * kLanes)]];
typedef int32_t Ints [[gnu::vector_size(4 * kLanes)]];
typedef int8_t Codes [[gnu::vector_size(kLanes)]];

// Added to a float below 2^22, it leaves the nearest integer, half to even, in the low bits.
constexpr float kShift = 12582912.0f;

[[gnu::always_inline]] inline Floats load(const float* from) {
  Floats x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

[[gnu::always_inline]] inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof(x)); }

// The first lanes, with zeros after them.
[[gnu::always_inline]] inline Floats load(const float* from, int64_t lanes) {
  if (lanes == kLanes) return load(from);
  Floats x{};
  std::memcpy(&x, from, static_cast<size_t>(lanes) * sizeof(float));
  return x;
}

[[gnu::always_inline]] inline void store(float* to, Floats x, int64_t lanes) {
  if (lanes == kLanes) return store(to, x);
  std::memcpy(to, &x, static_cast<size_t>(lanes) * sizeof(float));
}

// By intrinsics, because GCC 12 often takes the conversions of the language lane by lane.
[[gnu::always_inline]] inline Floats widened(Codes codes) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(std::bit_cast<__m128i>(codes)));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(std::bit_cast<int64_t>(codes))));
#else
  return __builtin_convertvector(__builtin_convertvector(codes, Ints), Floats);
#endif
}

// Codes of the first lanes as floats, with zeros after them.
[[gnu::always_inline]] inline Floats widened(const int8_t* from, int64_t lanes) {
  Codes codes{};
  std::memcpy(&codes, from, lanes == kLanes ? sizeof(codes) : static_cast<size_t>(lanes));
  return widened(codes);
}

[[gnu::always_inline]] inline void store(int8_t* to, Ints codes, int64_t lanes) {
  const Codes narrow = __builtin_convertvector(codes, Codes);
  std::memcpy(to, &narrow, lanes == kLanes ? sizeof(narrow) : static_cast<size_t>(lanes));
}

// Floats between 0 and 2^22 rounded half to even; at most 127.
[[gnu::always_inline]] inline Ints rounded(Floats x) {
  const Ints code = std::bit_cast<Ints>(x + kShift) - std::bit_cast<int32_t>(kShift);
  return code > 127 ? Ints{} + 127 : code;
}

// f(k, lanes) for each vector of a row; the last may be shorter.
template <class F>
[[gnu::always_inline]] inline void each_vector(int64_t terms, F&& f) {
  int64_t k = 0;
  for (; k + kLanes <= terms; k += kLanes) f(k, int64_t{kLanes});
  if (k < terms) f(k, terms - k);
}

[[gnu::always_inline]] inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

inline float sum(Floats x) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += x[i];
  return total;
}

inline float largest(Floats x) {
  float found = x[0];
  for (int i = 1; i < kLanes; ++i) found = x[i] > found ? x[i] : found;
  return found;
}

// e^x to about one unit in the last place; 0 below -87, as large as a float of 2^127 above 88; NaN stays.
[[gnu::always_inline]] inline Floats exp(Floats given) {
  constexpr float kLowest = -87.0f, kHighest = 88.0f;
  const Floats x = given > kHighest ? Floats{} + kHighest : given < kLowest ? Floats{} + kLowest : given;
  const Floats shifted = x * 1.44269504f + kShift;
  const Floats n = shifted - kShift;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // x - n ln 2, in two parts
  Floats series = Floats{} + 1.0f / 720;  // Taylor's; the next term is below 2^-23 of the whole
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const Ints power = (std::bit_cast<Ints>(shifted) - std::bit_cast<int32_t>(kShift) + 127) << 23;
  return given < kLowest ? Floats{} : series * std::bit_cast<Floats>(power);
}

}  // namespace
}  // namespace nibble
