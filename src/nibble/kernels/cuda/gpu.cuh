// The GPU's instructions that the kernels use, one function each, and the launch of a kernel.
//
// The tests replace these functions by others of the same names, and run the kernels on a CPU.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace nibble {

#define NIBBLE_DEVICE __device__ __forceinline__

// Set where the matrix instructions of Hopper can be compiled: only for sm_90a.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define NIBBLE_HOPPER
#endif

NIBBLE_DEVICE uint8_t* shared_memory() {
  extern __shared__ __align__(1024) uint8_t bytes[];
  return bytes;
}

NIBBLE_DEVICE uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// ---- copies from global to shared memory, which run on while the thread computes ----

// Copies 16 bytes: reads the first `bytes` and sets the rest to zero. It bypasses L1: a block reads a tile only once.
NIBBLE_DEVICE void copy_async16(uint8_t* shared, const uint8_t* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}

// Ends a group of copies.
NIBBLE_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kLeft groups of this thread are under way.
template <int kLeft>
NIBBLE_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// ---- bytes and halves ----

// Byte i of the result is byte (selector >> 4 i) & 7 of a (0 ... 3) and b (4 ... 7).
NIBBLE_DEVICE uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) { return __byte_perm(a, b, selector); }

struct Half {  // float16
  static constexpr uint32_t kBase = 0x64006400;  // 1024: the last bit of its significand counts 1
  NIBBLE_DEVICE static uint32_t minus_base_and_8(uint32_t pair) {
    uint32_t out;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(pair), "r"(0x64086408));
    return out;
  }
  NIBBLE_DEVICE static uint16_t rounded(float value) {
    uint16_t out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(value));
    return out;
  }
};

struct Brain {  // bfloat16
  static constexpr uint32_t kBase = 0x43004300;  // 128, likewise
  NIBBLE_DEVICE static uint32_t minus_base_and_8(uint32_t pair) {
    uint32_t out;  // pair x 1 - 136: Ampere has no subtraction of bfloat16
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(pair), "r"(0x3f803f80), "r"(0xc308c308));
    return out;
  }
  NIBBLE_DEVICE static uint16_t rounded(float value) {
    uint16_t out;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(value));
    return out;
  }
};

// ---- matrix instructions of a warp (Ampere and later) ----

// Four matrices of 8 rows of 16 bytes; lane i gives the address of row i % 8 of matrix i / 8. A lane receives, of each
// matrix, bytes 4 (lane % 4) ... + 3 of row lane / 4.
NIBBLE_DEVICE void load_matrices(uint32_t (&out)[4], const uint8_t* shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(shared))
               : "memory");
}

// sums (16 x 8) += a (16 x 32) b (32 x 8)
NIBBLE_DEVICE void multiply_int8(int32_t (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// sums (16 x 8) += a (16 x 16) b (16 x 8)
#define NIBBLE_MULTIPLY_16_BITS(Type, name)                                                                        \
  NIBBLE_DEVICE void multiply(Type, float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {          \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, " \
                 "{%8, %9}, {%0, %1, %2, %3};"                                                                     \
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                  \
  }
NIBBLE_MULTIPLY_16_BITS(Half, "f16")
NIBBLE_MULTIPLY_16_BITS(Brain, "bf16")

// ---- the matrix instruction of four warps (Hopper) ----

#ifdef NIBBLE_HOPPER
// Makes this thread's writes to shared memory visible to the matrix unit, which reads it another way.
NIBBLE_DEVICE void publish_to_matrix_unit() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Needed between the last write to the registers of an operand and the instructions that read them.
NIBBLE_DEVICE void begin_multiply() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Waits until the sums are complete and the operands may be overwritten.
NIBBLE_DEVICE void end_multiply() {
  asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
}

// sums (64 x N) += a (64 x 32) b (32 x N), with b at the descriptor `b`; N is twice the number of registers.
NIBBLE_DEVICE void multiply_int8_wide(int32_t (&s)[8], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.eq.b32 accumulate, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k32.s32.s8.s8 {"
      "%0, %1, %2, %3, %4, %5, %6, %7"
      "}, {%8, %9, %10, %11}, %12, accumulate;\n}"
      : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "+r"(s[4]), "+r"(s[5]), "+r"(s[6]), "+r"(s[7])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
NIBBLE_DEVICE void multiply_int8_wide(int32_t (&s)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.eq.b32 accumulate, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, accumulate;\n}"
      : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "+r"(s[4]), "+r"(s[5]), "+r"(s[6]), "+r"(s[7]),
        "+r"(s[8]), "+r"(s[9]), "+r"(s[10]), "+r"(s[11]), "+r"(s[12]), "+r"(s[13]), "+r"(s[14]), "+r"(s[15]),
        "+r"(s[16]), "+r"(s[17]), "+r"(s[18]), "+r"(s[19]), "+r"(s[20]), "+r"(s[21]), "+r"(s[22]), "+r"(s[23]),
        "+r"(s[24]), "+r"(s[25]), "+r"(s[26]), "+r"(s[27]), "+r"(s[28]), "+r"(s[29]), "+r"(s[30]), "+r"(s[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
NIBBLE_DEVICE void multiply_int8_wide(int32_t (&s)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.eq.b32 accumulate, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, accumulate;\n}"
      : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "+r"(s[4]), "+r"(s[5]), "+r"(s[6]), "+r"(s[7]),
        "+r"(s[8]), "+r"(s[9]), "+r"(s[10]), "+r"(s[11]), "+r"(s[12]), "+r"(s[13]), "+r"(s[14]), "+r"(s[15]),
        "+r"(s[16]), "+r"(s[17]), "+r"(s[18]), "+r"(s[19]), "+r"(s[20]), "+r"(s[21]), "+r"(s[22]), "+r"(s[23]),
        "+r"(s[24]), "+r"(s[25]), "+r"(s[26]), "+r"(s[27]), "+r"(s[28]), "+r"(s[29]), "+r"(s[30]), "+r"(s[31]),
        "+r"(s[32]), "+r"(s[33]), "+r"(s[34]), "+r"(s[35]), "+r"(s[36]), "+r"(s[37]), "+r"(s[38]), "+r"(s[39]),
        "+r"(s[40]), "+r"(s[41]), "+r"(s[42]), "+r"(s[43]), "+r"(s[44]), "+r"(s[45]), "+r"(s[46]), "+r"(s[47]),
        "+r"(s[48]), "+r"(s[49]), "+r"(s[50]), "+r"(s[51]), "+r"(s[52]), "+r"(s[53]), "+r"(s[54]), "+r"(s[55]),
        "+r"(s[56]), "+r"(s[57]), "+r"(s[58]), "+r"(s[59]), "+r"(s[60]), "+r"(s[61]), "+r"(s[62]), "+r"(s[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#endif

// ---- launch ----

// Major and minor version of the current device: 80, 90. Negative: an error of CUDA.
inline int capability() {
  int device = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (!error) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (!error) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return error ? -error : major * 10 + minor;
}

template <class Arguments>
int launch(void (*kernel)(Arguments), dim3 blocks, int threads, int shared_bytes, void* stream, Arguments arguments) {
  // More than 48 KB has to be requested.
  cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (error) return error;
  kernel<<<blocks, threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments);
  return cudaGetLastError();
}

inline const char* error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace nibble
