// In place of gpu.cuh: the same functions on a CPU, so that g++ compiles the kernels and any machine can run them.
//
// Threads of a block are coroutines that take turns. What a warp does together waits until all of its lanes are there;
// the last computes for all, from the layouts of fragments in the PTX ISA (chapter 9.7), which are written down here a
// second time. A copy to shared memory happens when it is waited for, not before, and shared memory starts as noise: a
// kernel that forgets to wait gives wrong results here too.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#define NIBBLE_DEVICE inline
#define NIBBLE_HOPPER
#define __global__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1;
  dim3(unsigned across, unsigned down) : x(across), y(down) {}
};
struct uint4 {
  uint32_t x, y, z, w;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace emulated {

constexpr size_t kSharedBytes = 228 << 10, kStackBytes = 256 << 10;

struct Copy {
  uint8_t* to;
  const uint8_t* from;
  int bytes;
};

struct Thread {
  ucontext_t context;
  std::unique_ptr<uint8_t[]> stack{new uint8_t[kStackBytes]};
  std::vector<Copy> copies;                // not yet committed
  std::deque<std::vector<Copy>> groups;    // committed, not yet waited for
  int meetings = 0;                        // of its warp, so far
  bool done = false;
};

struct Meeting {
  uint32_t in[32][6];  // what each lane brings
  uint64_t address[32];
  uint32_t out[32][4];
  int arrived = 0;
};

struct Warp {
  Meeting meetings[2];  // one that lanes leave, one that others may already enter
  int finished = 0;
};

inline ucontext_t scheduler;
inline std::vector<std::unique_ptr<Thread>> threads;
inline std::vector<Warp> warps;
inline int running = 0, barrier_arrived = 0, barriers = 0, capability = 80;
inline std::function<void()> body;
inline uint8_t* shared = nullptr;

inline Thread& self() { return *threads[running]; }
inline void yield() { swapcontext(&self().context, &scheduler); }

// Each lane brings something; `compute` fills out[lane] for all of them.
template <class Bring, class Compute>
Meeting& meet(Bring bring, Compute compute) {
  Thread& thread = self();
  Warp& warp = warps[running / 32];
  const int number = thread.meetings++;
  Meeting& meeting = warp.meetings[number % 2];
  bring(meeting, running % 32);
  if (++meeting.arrived == 32) {
    compute(meeting);
    meeting.arrived = 0;
    ++warp.finished;
  } else {
    while (warp.finished <= number) yield();
  }
  return meeting;
}

inline void run_thread() {
  body();
  self().done = true;
  swapcontext(&self().context, &scheduler);
}

inline float half_value(uint16_t bits) {
  _Float16 value;
  std::memcpy(&value, &bits, 2);
  return static_cast<float>(value);
}
inline uint16_t half_bits(float value) {
  const auto half = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}
inline float brain_value(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}
inline uint16_t brain_bits(float value) {
  uint32_t wide;
  std::memcpy(&wide, &value, 4);
  return static_cast<uint16_t>((wide + 0x7fff + (wide >> 16 & 1)) >> 16);
}

inline int8_t byte_of(const uint32_t* registers, int i) { return static_cast<int8_t>(registers[i / 4] >> i % 4 * 8); }
inline uint16_t half_of(const uint32_t* registers, int i) {
  return static_cast<uint16_t>(registers[i / 2] >> i % 2 * 16);
}

}  // namespace emulated

inline struct {
  unsigned x;
} threadIdx;
inline struct {
  unsigned x, y;
} blockIdx;

inline void __syncthreads() {
  using namespace emulated;
  const int number = barriers;
  if (++barrier_arrived == static_cast<int>(threads.size())) {
    barrier_arrived = 0;
    ++barriers;
  } else {
    while (barriers == number) yield();
  }
}

inline float __int2float_rn(int32_t value) { return static_cast<float>(value); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }

namespace nibble {

inline uint8_t* shared_memory() { return emulated::shared; }
inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const uint8_t*>(pointer) - emulated::shared);
}

inline void copy_async16(uint8_t* to, const uint8_t* from, int bytes) {
  emulated::self().copies.push_back({to, from, bytes});
}
inline void commit_copies() {
  emulated::self().groups.push_back(std::move(emulated::self().copies));
  emulated::self().copies.clear();
}
template <int kLeft>
void wait_copies() {
  auto& groups = emulated::self().groups;
  for (; groups.size() > kLeft; groups.pop_front())
    for (const auto& copy : groups.front()) {
      std::memset(copy.to, 0, 16);
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
}

inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<uint32_t>(both >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
  return out;
}

struct Half {
  static constexpr uint32_t kBase = 0x64006400;
  static uint32_t minus_base_and_8(uint32_t pair) {
    const auto low = emulated::half_bits(emulated::half_value(static_cast<uint16_t>(pair)) - 1032);
    return emulated::half_bits(emulated::half_value(static_cast<uint16_t>(pair >> 16)) - 1032) << 16 | low;
  }
  static uint16_t rounded(float value) { return emulated::half_bits(value); }
  static float value(uint16_t bits) { return emulated::half_value(bits); }
};

struct Brain {
  static constexpr uint32_t kBase = 0x43004300;
  static uint32_t minus_base_and_8(uint32_t pair) {
    const auto low = emulated::brain_bits(emulated::brain_value(static_cast<uint16_t>(pair)) - 136);
    return emulated::brain_bits(emulated::brain_value(static_cast<uint16_t>(pair >> 16)) - 136) << 16 | low;
  }
  static uint16_t rounded(float value) { return emulated::brain_bits(value); }
  static float value(uint16_t bits) { return emulated::brain_value(bits); }
};

inline void load_matrices(uint32_t (&out)[4], const uint8_t* row) {
  using namespace emulated;
  const Meeting& meeting = meet([&](Meeting& m, int lane) { m.address[lane] = reinterpret_cast<uint64_t>(row); },
                                [](Meeting& m) {
                                  for (int lane = 0; lane < 32; ++lane)
                                    for (int i = 0; i < 4; ++i) {
                                      const auto* from = reinterpret_cast<const uint8_t*>(m.address[i * 8 + lane / 4]);
                                      std::memcpy(&m.out[lane][i], from + lane % 4 * 4, 4);
                                    }
                                });
  std::memcpy(out, meeting.out[running % 32], sizeof out);
}

// Element (row, k) of a left operand of 16 rows lies in byte `byte` of lane `lane`; of 32 columns, int8.
inline int8_t left_int8(const emulated::Meeting& m, int row, int k) {
  return emulated::byte_of(m.in[row % 8 * 4 + k % 16 / 4], k / 16 * 8 + row / 8 * 4 + k % 4);
}

inline void multiply_int8(int32_t (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  using namespace emulated;
  const Meeting& meeting = meet(
      [&](Meeting& m, int lane) {
        std::copy(a, a + 4, m.in[lane]);
        m.in[lane][4] = b0, m.in[lane][5] = b1;
      },
      [](Meeting& m) {
        for (int row = 0; row < 16; ++row)
          for (int column = 0; column < 8; ++column) {
            int32_t sum = 0;
            for (int k = 0; k < 32; ++k)
              sum += left_int8(m, row, k) * byte_of(m.in[column * 4 + k % 16 / 4] + 4, k / 16 * 4 + k % 4);
            m.out[row % 8 * 4 + column / 2][row / 8 * 2 + column % 2] = static_cast<uint32_t>(sum);
          }
      });
  for (int i = 0; i < 4; ++i) sums[i] += static_cast<int32_t>(meeting.out[running % 32][i]);
}

template <class Type>
void multiply(Type, float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  using namespace emulated;
  const Meeting& meeting = meet(
      [&](Meeting& m, int lane) {
        std::copy(a, a + 4, m.in[lane]);
        m.in[lane][4] = b0, m.in[lane][5] = b1;
      },
      [](Meeting& m) {
        for (int row = 0; row < 16; ++row)
          for (int column = 0; column < 8; ++column) {
            float sum = 0;
            for (int k = 0; k < 16; ++k)
              sum += Type::value(half_of(m.in[row % 8 * 4 + k % 8 / 2], k / 8 * 4 + row / 8 * 2 + k % 2)) *
                     Type::value(half_of(m.in[column * 4 + k % 8 / 2] + 4, k / 8 * 2 + k % 2));
            std::memcpy(&m.out[row % 8 * 4 + column / 2][row / 8 * 2 + column % 2], &sum, 4);
          }
      });
  for (int i = 0; i < 4; ++i) {
    float sum;
    std::memcpy(&sum, &meeting.out[running % 32][i], 4);
    sums[i] += sum;
  }
}

// wgmma. The right operand is read at once; a real one may read it until end_multiply.
inline void publish_to_matrix_unit() {}
inline void begin_multiply() {}
inline void end_multiply() {}

template <int kSums>
void multiply_int8_wide(int32_t (&sums)[kSums], const uint32_t (&a)[4], uint64_t described) {
  using namespace emulated;
  const uint64_t start = (described & 0x3fff) << 4, eight_rows = (described >> 32 & 0x3fff) << 4;
  const bool swizzled = described >> 62 == 1;
  const Meeting& meeting = meet([&](Meeting& m, int lane) { std::copy(a, a + 4, m.in[lane]); }, [](Meeting&) {});
  const int lane = running % 32;
  for (int i = 0; i < kSums; ++i) {
    const int row = i % 4 / 2 * 8 + lane / 4, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    for (int k = 0; k < 32; ++k) {
      uint64_t address = start + column / 8 * eight_rows + column % 8 * 128 + k;
      if (swizzled) address ^= (address >> 7 & 7) << 4;
      sums[i] += left_int8(meeting, row, k) * static_cast<int8_t>(shared[address]);
    }
  }
}

inline int capability() { return emulated::capability; }
inline const char* error_text(int) { return "none is possible"; }

template <class Arguments>
int launch(void (*kernel)(Arguments), dim3 blocks, int count, int shared_bytes, void*, Arguments arguments) {
  using namespace emulated;
  static std::vector<uint8_t> memory(kSharedBytes + 2048);
  shared = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(memory.data()) + 1023) / 1024 * 1024);
  body = [&] { kernel(arguments); };
  for (unsigned block = 0; block < blocks.x * blocks.y; ++block) {
    std::memset(shared, 0xa5, shared_bytes);
    threads.clear();
    warps.assign((count + 31) / 32, {});
    barrier_arrived = 0;
    for (int i = 0; i < count; ++i) {
      threads.push_back(std::make_unique<Thread>());
      Thread& thread = *threads.back();
      getcontext(&thread.context);
      thread.context.uc_stack = {thread.stack.get(), 0, kStackBytes};
      thread.context.uc_link = nullptr;
      makecontext(&thread.context, run_thread, 0);
    }
    for (bool left = true; left;) {
      left = false;
      for (running = 0; running < count; ++running) {
        if (self().done) continue;
        threadIdx.x = running, blockIdx.x = block % blocks.x, blockIdx.y = block / blocks.x;
        swapcontext(&scheduler, &self().context);
        left = left || !self().done;
      }
    }
  }
  return 0;
}

}  // namespace nibble
