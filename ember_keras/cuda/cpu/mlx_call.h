// What the primitive of mlx calls, and with which numbers.
#pragma once

#include <mlx/array.h>

#include <array>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "../fft_conv.h"

namespace ember_mlx {

namespace mx = mlx::core;
using Arrays = std::vector<mx::array>;

// The kernel's functions, which come as addresses.
struct Kernel {
  decltype(&ember_fft_conv_forward) forward = nullptr;
  decltype(&ember_fft_conv_backward) backward = nullptr;
  decltype(&ember_fft_conv_scratch) scratch = nullptr;
  decltype(&ember_fft_conv_error) error = nullptr;
};
inline Kernel kernel;

inline void check(int status) {
  if (status) throw std::invalid_argument(std::string("fft_conv: ") + kernel.error(status) + ".");
}

struct Room {
  void* data;
  size_t bytes;
};

// What went wrong in a thread of mlx's, where an exception would end the process.
inline std::atomic<int> failure{EMBER_OK};

// Ends a call. Of what describe() does not refuse memory alone can be missing: the results are then
// NaN, whose bits in every dtype may all be ones.
inline void finish(int status, const std::vector<Room>& results) {
  if (!status) return;
  failure = status;
  for (const Room& room : results) std::memset(room.data, 0xFF, room.bytes);
}

inline void report_failure() {
  const int status = failure.exchange(EMBER_OK);
  if (!status) return;
  throw std::runtime_error(std::string("fft_conv: ") + kernel.error(status) +
                           ", in an earlier call, whose results are NaN.");
}

enum Operand { kU, kK, kD, kGateIn, kGateOut, kG, kOperands };
constexpr int kGradients = 5;  // of all but g

// What a call does beside its arrays. Its inputs are u, k, in a backward pass g, the gates that there
// are, and last d where there is one; its outputs y, or those of the gradients that are wanted.
struct Numbers {
  int64_t start, length, skip;
  int threads;
  bool gate_in = false, gate_out = false, backward = false, skips = false;
  std::array<bool, kGradients> wanted = {};

  bool operator==(const Numbers& o) const {
    return start == o.start && length == o.length && skip == o.skip && threads == o.threads &&
           gate_in == o.gate_in && gate_out == o.gate_out && backward == o.backward &&
           skips == o.skips && wanted == o.wanted;
  }
  bool gated() const { return gate_in || gate_out; }
  int inputs() const { return 2 + backward + gate_in + gate_out + skips; }
  // Where an operand is among the inputs, or -1.
  int place(int operand) const {
    switch (operand) {
      case kU: return 0;
      case kK: return 1;
      case kG: return backward ? 2 : -1;
      case kGateIn: return gate_in ? 2 + backward : -1;
      case kGateOut: return gate_out ? 2 + backward + gate_in : -1;
      default: return skips ? inputs() - 1 : -1;
    }
  }
};

inline int dtype_of(const mx::array& x) {
  switch (x.dtype()) {
    case mx::float32: return EMBER_FLOAT32;
    case mx::float64: return EMBER_FLOAT64;
    case mx::float16: return EMBER_FLOAT16;
    case mx::bfloat16: return EMBER_BFLOAT16;
    default: throw std::invalid_argument("fft_conv: expected floating point tensors.");
  }
}

inline ember_strides strides_of(const mx::array& x) {
  return {x.strides(0), x.strides(1), x.strides(2)};
}

inline ember_strides dense(int64_t time, int64_t width) { return {time * width, width, 1}; }

// Without the strides of inputs: the arrays may have yet to be computed.
inline ember_fft_conv describe(const mx::array& u, const mx::array& k, const Numbers& n) {
  ember_fft_conv conv = {};
  conv.version = EMBER_FFT_CONV_VERSION;
  conv.dtype = dtype_of(u);
  conv.filter_dtype = dtype_of(k);
  conv.batch = u.shape(0);
  conv.size = u.shape(1);
  conv.width = u.shape(2);
  conv.taps = k.shape(0);
  conv.filters = k.shape(1);
  conv.start = n.start;
  conv.length = n.length;
  conv.skip = n.skip;
  conv.y = conv.dgate_out = dense(conv.length, conv.width);
  conv.du = conv.dgate_in = dense(conv.size, conv.width);
  conv.dk_tap = conv.filters;
  conv.dk_filter = 1;
  const int64_t bytes = kernel.scratch(&conv, n.backward, n.threads);
  check(bytes < 0 ? int(-bytes) : EMBER_OK);
  return conv;
}

}  // namespace ember_mlx
