// The operators on raw pointers: the interface between the file for torch's dispatcher and the file for the GPU.
//
// Matrices are contiguous, on the current device; M is at most 65535 x 64. The functions return 0, or an error that
// nibble_cuda_error explains.
#pragma once

#include <cstdint>

enum NibbleFloat { kNibbleFloat32, kNibbleFloat16, kNibbleBfloat16 };

extern "C" {

// codes int8 (M, K), scale (M, 1), packed (N, ceil(K / 2)), weight_scale (N,), bias (N,) or nullptr -> out (M, N);
// K < 2^17.
int nibble_cuda_linear_w4a8(const void* codes, const float* scale, const void* packed, const float* weight_scale,
                            const float* bias, void* out, int64_t rows, int64_t outputs, int64_t terms, void* stream);

// x (M, K) and out (M, N) of type `type`; the rest as above.
int nibble_cuda_linear_w4a16(NibbleFloat type, const void* x, const void* packed, const float* weight_scale,
                             const float* bias, void* out, int64_t rows, int64_t outputs, int64_t terms, void* stream);

const char* nibble_cuda_error(int error);
}
