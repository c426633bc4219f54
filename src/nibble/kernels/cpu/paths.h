// The functions that each instruction set implements; paths.cpp picks one set at run time.
#pragma once
#include "float_steps.h"

#include <cstdint>

namespace nibble {

// A product of codes: x int8 (M, K), weight (N, K) as int8 or as packed 4-bit rows (nibbles.py).
//     sums[m][n] = sum_k x[m][k] weight[n][k]
//     out[m][n]  = ((float(sums) scale[m]) weight_scale[n]) + bias[n], each step rounded to float32
struct Product {
  const int8_t* x;
  int64_t rows, terms, outputs;  // M, K, N
  const uint8_t* weight;         // N rows of K bytes, or of ceil(K / 2)
  bool packed;
  const float* scale;         // (M,)
  const float* weight_scale;  // (N,)
  const float* bias;          // (N,) or null
  float* out;                 // (M, N), or null for
  int32_t* sums;              // (M, N)

  int64_t weight_bytes() const { return packed ? (terms + 1) / 2 : terms; }  // of a row

  Product of_rows(int64_t first, int64_t last) const {
    Product part = *this;
    part.x += first * terms;
    part.rows = last - first;
    if (scale) part.scale += first;
    if (out) part.out += first * outputs;
    if (sums) part.sums += first * outputs;
    return part;
  }
};

struct Path {
  const char* name;
  // Codes and scales of `rows` rows of K floats, as in ops.quantize_rows.
  void (*quantize_rows)(const float* x, int64_t rows, int64_t terms, int8_t* codes, float* scale);
  // Bytes that `arrange` needs, aligned to 64.
  int64_t (*arranged_bytes)(const Product&);
  // x in the order in which `product` reads it.
  void (*arrange)(const Product&, uint8_t* arranged);
  // Outputs first ... last of every row; `block` outputs share the preparation of a call.
  void (*product)(const Product&, const uint8_t* arranged, int64_t first, int64_t last);
  int64_t block;
  const FloatSteps& steps;
};

extern const Path portable;
#if defined(__x86_64__)
extern const Path avx2;
extern const Path avx512_vnni;
#elif defined(__aarch64__)
extern const Path neon_dot;
#endif

// The path in use: the fastest that this machine can run, or the forced one.
const Path& path();

}  // namespace nibble
