// A 2-D convolution of codes, for CPU tensors: without groups as a product of windows and filters, with one filter for
// each channel tap by tap.
#include "products.h"
#include "tensors.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using nibble::float_vector;
using nibble::floats;
using nibble::MaybeTensor;
using nibble::name;
using nibble::ScalarType;
using nibble::sizes;
using nibble::Tensor;
using Pair = std::vector<int64_t>;  // height, width

constexpr int64_t kWindows = 1000;       // multiplied at a time
constexpr int64_t kFewWindows = 240;     // their product stays in the cache
constexpr int64_t kExactTaps = 1 << 10;  // a float32 holds the sum of this many products of codes
constexpr int64_t kLargestStep = (1 << 15) - 1;  // sizes that are computed from steps stay far below 2^63

struct Convolution {
  const int8_t *x, *weight;  // (B, H, W, C), (N, kh, kw, C / groups)
  const float *scale, *weight_scale, *bias;  // (B,), (N,), (N,) or null
  int64_t batch, channels, height, width, outputs, kernel_height, kernel_width, out_height, out_width, groups;
  Pair stride, padding, dilation;

  int64_t positions() const { return out_height * out_width; }
  int64_t taps() const { return kernel_height * kernel_width; }
  int64_t terms() const { return taps() * (channels / groups); }
};

// The window of one position and group as a row of K codes, with zeros outside of the input.
void gather(const Convolution& p, int64_t position, int64_t group, int8_t* row) {
  const int64_t of_group = p.channels / p.groups, utterance = position / p.positions(), at = position % p.positions();
  const int64_t top = at / p.out_width * p.stride[0] - p.padding[0];
  const int64_t left = at % p.out_width * p.stride[1] - p.padding[1];
  const int64_t right = left + (p.kernel_width - 1) * p.dilation[1];
  const bool one_run = p.dilation[1] == 1 && p.groups == 1 && left >= 0 && right < p.width;
  for (int64_t i = 0; i < p.kernel_height; ++i) {
    const int64_t y = top + i * p.dilation[0];
    const bool inside = y >= 0 && y < p.height;
    const int64_t line = (utterance * p.height + y) * p.width * p.channels + group * of_group;
    if (inside && one_run) {
      std::memcpy(row, p.x + line + left * p.channels, static_cast<size_t>(p.kernel_width * of_group));
      row += p.kernel_width * of_group;
      continue;
    }
    for (int64_t x = left; x <= right; x += p.dilation[1], row += of_group) {
      if (inside && x >= 0 && x < p.width)
        std::memcpy(row, p.x + line + x * p.channels, static_cast<size_t>(of_group));
      else
        std::memset(row, 0, static_cast<size_t>(of_group));
    }
  }
}

// The memory of a product of windows.
struct Room {
  Room(const Convolution& p, int64_t windows)
      : rows(static_cast<size_t>(windows * p.terms())), scale(static_cast<size_t>(windows)) {}

  std::vector<int8_t> rows;
  std::vector<float> scale;
};

// `count` windows times the filters of a group: (count, N / groups).
void by_windows(const Convolution& p, int64_t group, int64_t begin, int64_t count, Room& room, float* out) {
  const int64_t terms = p.terms(), outputs = p.outputs / p.groups;
  torch::stable::parallel_for(0, count, 64, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      gather(p, begin + i, group, room.rows.data() + i * terms);
      room.scale[static_cast<size_t>(i)] = p.scale[(begin + i) / p.positions()];
    }
  });
  nibble::run({.x = room.rows.data(),
               .rows = count,
               .terms = terms,
               .outputs = outputs,
               .weight = reinterpret_cast<const uint8_t*>(p.weight) + group * outputs * terms,
               .packed = false,
               .scale = room.scale.data(),
               .weight_scale = p.weight_scale + group * outputs,
               .bias = p.bias ? p.bias + group * outputs : nullptr,
               .out = out,
               .sums = nullptr});
}

void by_groups(const Convolution& p, float* out) {
  const int64_t all = p.batch * p.positions(), outputs = p.outputs / p.groups, most = std::min(kWindows, all);
  Room room(p, most);
  std::vector<float> of_group(static_cast<size_t>(p.groups == 1 ? 0 : most * outputs));
  for (int64_t group = 0; group < p.groups; ++group) {
    for (int64_t begin = 0; begin < all; begin += most) {
      const int64_t count = std::min(most, all - begin);
      float* to = p.groups == 1 ? out + begin * outputs : of_group.data();
      by_windows(p, group, begin, count, room, to);
      for (int64_t i = 0; p.groups > 1 && i < count; ++i)
        std::copy_n(to + i * outputs, outputs, out + (begin + i) * p.outputs + group * outputs);
    }
  }
}

// One filter for each channel.
void by_channels(const Convolution& p, float* to) {
  const nibble::FloatSteps& steps = nibble::path().steps;
  const int64_t blocks = (p.channels + steps.channels - 1) / steps.channels, frames = p.positions();
  torch::stable::parallel_for(0, p.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t utterance = task / blocks, first = task % blocks * steps.channels;
      float* out = to + utterance * frames * p.channels;
      steps.depthwise({.x = p.x + utterance * p.height * p.width * p.channels,
                       .weight = p.weight,
                       .out = out,
                       .channels = p.channels,
                       .height = p.height,
                       .width = p.width,
                       .out_height = p.out_height,
                       .out_width = p.out_width,
                       .kernel = {p.kernel_height, p.kernel_width},
                       .stride = {p.stride[0], p.stride[1]},
                       .padding = {p.padding[0], p.padding[1]},
                       .dilation = {p.dilation[0], p.dilation[1]}},
                      first);
      for (int64_t at = 0; at < frames; ++at) {
        for (int64_t c = first; c < std::min(first + steps.channels, p.channels); ++c) {
          const float y = out[at * p.channels + c] * p.scale[utterance] * p.weight_scale[c];
          out[at * p.channels + c] = p.bias ? y + p.bias[c] : y;
        }
      }
    }
  });
}

int64_t out_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

// A stride, padding or dilation.
void check_steps(const char* op, const char* label, const Pair& steps, int64_t least) {
  bool fits = steps.size() == 2;
  std::string text;
  for (const int64_t step : steps) {
    fits = fits && least <= step && step <= kLargestStep;
    text += (text.empty() ? "" : ", ") + std::to_string(step);
  }
  NIBBLE_CHECK(fits, op, ": ", label, " is [", text, "]; give two numbers, of height and width, ", least, " to ",
               kLargestStep);
}

// The tensors and the steps of a convolution.
struct Given {
  Tensor codes, scale, weight, weight_scale;
  MaybeTensor bias;
  Convolution p;
};

Given checked(const char* op, const Tensor& given_codes, const Tensor& given_scale, const Tensor& given_weight,
              const Tensor& given_weight_scale, const MaybeTensor& given_bias, Pair stride, Pair padding, Pair dilation,
              int64_t groups) {
  NIBBLE_CHECK(given_codes.scalar_type() == ScalarType::Char && given_weight.scalar_type() == ScalarType::Char, op,
               ": types ", name(given_codes), " and ", name(given_weight), "; both must be torch.int8");
  NIBBLE_CHECK(given_codes.dim() == 4 && given_weight.dim() == 4 && groups > 0 &&
                   given_codes.size(1) % groups == 0 && given_codes.size(1) / groups == given_weight.size(1) &&
                   given_weight.size(0) % groups == 0,
               op, ": sizes ", sizes(given_codes), " and ", sizes(given_weight), " with ", groups,
               " groups do not fit");
  NIBBLE_CHECK(given_weight.numel() > 0, op, ": filters of ", sizes(given_weight), " are empty");
  nibble::check_terms(op, given_weight.size(1) * given_weight.size(2) * given_weight.size(3));
  check_steps(op, "stride", stride, 1);
  check_steps(op, "padding", padding, 0);
  check_steps(op, "dilation", dilation, 1);
  const int64_t out_height = out_size(given_codes.size(2), given_weight.size(2), stride[0], padding[0], dilation[0]);
  const int64_t out_width = out_size(given_codes.size(3), given_weight.size(3), stride[1], padding[1], dilation[1]);
  NIBBLE_CHECK(out_height > 0 && out_width > 0, op, ": filters of ", sizes(given_weight),
               " are larger than an input of ", sizes(given_codes), " with its padding");
  constexpr auto kChannelsLast = torch::headeronly::MemoryFormat::ChannelsLast;
  const int64_t batch = given_codes.size(0), outputs = given_weight.size(0);
  Given given = {.codes = torch::stable::contiguous(given_codes, kChannelsLast),
                 .scale = float_vector(op, "scale", given_scale, batch, false),
                 .weight = torch::stable::contiguous(given_weight, kChannelsLast),
                 .weight_scale = float_vector(op, "weight_scale", given_weight_scale, outputs, false),
                 .bias = float_vector(op, "bias", given_bias, outputs),
                 .p = {}};
  const Tensor &codes = given.codes, &weight = given.weight;
  given.p = {.x = static_cast<const int8_t*>(codes.const_data_ptr()),
             .weight = static_cast<const int8_t*>(weight.const_data_ptr()),
             .scale = floats(given.scale),
             .weight_scale = floats(given.weight_scale),
             .bias = floats(given.bias),
             .batch = batch,
             .channels = codes.size(1),
             .height = codes.size(2),
             .width = codes.size(3),
             .outputs = outputs,
             .kernel_height = weight.size(2),
             .kernel_width = weight.size(3),
             .out_height = out_height,
             .out_width = out_width,
             .groups = groups,
             .stride = stride,
             .padding = padding,
             .dilation = dilation};
  return given;
}

Tensor conv2d_w8a8(const Tensor& codes, const Tensor& scale, const Tensor& weight, const Tensor& weight_scale,
                   const MaybeTensor& bias, Pair stride, Pair padding, Pair dilation, int64_t groups,
                   ScalarType type) {
  nibble::check_result("conv2d_w8a8", type);
  const Given given =
      checked("conv2d_w8a8", codes, scale, weight, weight_scale, bias, stride, padding, dilation, groups);
  const Convolution& p = given.p;
  Tensor out = nibble::empty_channels_last(p.batch, p.outputs, p.out_height, p.out_width, aoti_torch_dtype_float32());
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  if (p.batch) {
    if (groups == p.channels && groups == p.outputs && groups > 1 && p.taps() <= kExactTaps)
      by_channels(p, to);
    else
      by_groups(p, to);
  }
  return nibble::in_type(out, type);
}

// f(first window, windows, float (windows, N)) for all windows of an utterance, among torch's threads.
template <class F>
void each_block(const Convolution& p, int64_t utterance, const F& f) {
  const int64_t blocks = (p.positions() + kFewWindows - 1) / kFewWindows;
  torch::stable::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
    Room room(p, kFewWindows);
    std::vector<float> out(static_cast<size_t>(kFewWindows * p.outputs));
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * kFewWindows, count = std::min(kFewWindows, p.positions() - begin);
      by_windows(p, 0, utterance * p.positions() + begin, count, room, out.data());
      f(begin, count, out.data());
    }
  });
}

// The product of windows is computed twice, for the largest value and for codes: with few taps, that takes less time
// than writing the floats to memory and reading them.
std::tuple<Tensor, Tensor> conv2d_relu_quantize(const Tensor& codes, const Tensor& scale, const Tensor& weight,
                                                const Tensor& weight_scale, const MaybeTensor& bias, Pair stride,
                                                const Tensor& given_heights) {
  const Given given =
      checked("conv2d_relu_quantize", codes, scale, weight, weight_scale, bias, stride, {0, 0}, {1, 1}, 1);
  const Convolution& p = given.p;
  NIBBLE_CHECK(given_heights.scalar_type() == ScalarType::Long && given_heights.dim() == 1 &&
                   given_heights.size(0) == p.batch,
               "conv2d_relu_quantize: heights is ", name(given_heights), " ", sizes(given_heights),
               "; give torch.int64 (", p.batch, ",)");
  const Tensor held_heights = nibble::dense(given_heights);
  const auto* heights = static_cast<const int64_t*>(held_heights.const_data_ptr());
  Tensor out = nibble::empty_channels_last(p.batch, p.outputs, p.out_height, p.out_width, aoti_torch_dtype_int8());
  Tensor out_scale = nibble::empty({p.batch}, aoti_torch_dtype_float32());
  auto* scales = static_cast<float*>(out_scale.mutable_data_ptr());
  const nibble::FloatSteps& steps = nibble::path().steps;
  for (int64_t utterance = 0; utterance < p.batch; ++utterance) {
    const int64_t real = std::clamp<int64_t>(heights[utterance], 0, p.out_height) * p.out_width;
    std::mutex mutex;
    float largest = 0;
    each_block(p, utterance, [&](int64_t begin, int64_t count, const float* values) {
      const float found = steps.largest(values, std::clamp<int64_t>(real - begin, 0, count) * p.outputs);
      const std::lock_guard lock(mutex);
      if (!(found <= largest)) largest = found;  // NaN stays
    });
    const float step = largest == 0 ? 1 : largest / 127;
    scales[utterance] = step;
    auto* to = static_cast<int8_t*>(out.mutable_data_ptr()) + utterance * p.positions() * p.outputs;
    each_block(p, utterance, [&](int64_t begin, int64_t count, const float* values) {
      const int64_t inside = std::clamp<int64_t>(real - begin, 0, count) * p.outputs;
      steps.relu_codes(values, step, inside, to + begin * p.outputs);
      std::fill_n(to + begin * p.outputs + inside, count * p.outputs - inside, int8_t{0});
    });
  }
  return {out, out_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(nibble, CPU, library) {
  library.impl("conv2d_w8a8", TORCH_BOX(&conv2d_w8a8));
  library.impl("conv2d_relu_quantize", TORCH_BOX(&conv2d_relu_quantize));
}
