// Loops whose counter is a constant, so that what it indexes stays in registers.
#pragma once
#include <utility>

namespace nibble {
namespace {

template <int N>
using Count = std::integral_constant<int, N>;

// f(0), ... f(n - 1).
template <int N, class F>
[[gnu::always_inline]] inline void each(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) { (f(Count<I>{}), ...); }
  (std::make_integer_sequence<int, N>{});
}
#define EACH(i) [&](auto i) __attribute__((always_inline))

}  // namespace
}  // namespace nibble
