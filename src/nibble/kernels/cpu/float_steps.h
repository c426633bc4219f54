// The float steps: layer norm, SiLU, attention with relative positions, depthwise convolutions, and products of floats
// and 4-bit weights.
#pragma once
#include <cstdint>

namespace nibble {

// Attention of B utterances with H heads of width W, as in ops.relative_attention; everything is contiguous.
struct Attention {
  const float* query;          // (B, T, H W)
  const float* key;            // (B, S, H W)
  const float* value;          // (B, S, H W)
  const float* positions;      // (S + T, H W): by distance, from S - 1 to -T
  const float* content_bias;   // (H W,)
  const float* position_bias;  // (H W,)
  const bool* visible;         // (B, S)
  float* out;                  // (B, T, H W)
  int64_t batch, heads, width, queries, keys;
};

// A convolution of one utterance with one filter for each channel.
struct Depthwise {
  const int8_t* x;       // (H, W, C)
  const int8_t* weight;  // (C, kh, kw), kh kw <= 2^10
  float* out;            // (H', W', C): sums of products of codes
  int64_t channels, height, width, out_height, out_width;
  int64_t kernel[2], stride[2], padding[2], dilation[2];
};

// x (M, K) times weights (N, K) = codes x scale, from packed rows of ceil(K / 2) bytes.
struct WeightOnly {
  const float* x;
  const uint8_t* packed;
  const float* weight_scale;  // (N,)
  const float* bias;          // (N,) or null
  float* out;                 // (M, N)
  int64_t rows, terms, outputs;
};

struct FloatSteps {
  // A layer norm of one row of K floats.
  void (*norm)(const float* x, const float* weight, const float* bias, float eps, int64_t terms, float* out);
  // x / (1 + e^-x) of one row.
  void (*silu)(const float* x, int64_t terms, float* out);
  // The largest of 0 and x, or NaN if x has any.
  float (*largest)(const float* x, int64_t count);
  // Codes of ReLU(x) with a scale.
  void (*relu_codes)(const float* x, float scale, int64_t count, int8_t* codes);
  // One head of one utterance.
  void (*attend)(const Attention&, int64_t utterance, int64_t head);
  // `count` channels from the first on, or those that are left.
  void (*depthwise)(const Depthwise&, int64_t first);
  int64_t channels;
  // Outputs first ... last of all rows.
  void (*few_rows)(const WeightOnly&, int64_t first, int64_t last);
  // K weights of one output.
  void (*weights)(const uint8_t* packed, float scale, int64_t terms, float* out);
};

extern const FloatSteps portable_steps;
#if defined(__x86_64__)
extern const FloatSteps avx2_steps;
extern const FloatSteps avx512_steps;
#endif

}  // namespace nibble
