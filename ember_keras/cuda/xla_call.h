// The convolution that a frame of XLA asks for, whichever machine computes it.
//
// Forward, a frame has the arguments u, k, d, gate_in, gate_out and the result y; backward, the
// arguments u, k, g, d, gate_in, gate_out and the results du, dk, dd, dgate_in, dgate_out. Attributes
// say which of d and the gates are there; those that are not have no gradients either. Buffers are dense and in row-major order, and may
// have leading axes of a vmap: one call of the kernel for each of their entries, where an axis of 1
// is shared.
#pragma once

#include "fft_conv.h"
#include "xla.h"

namespace ember {
namespace xla {

constexpr int64_t kMostAxes = 16;

inline void* error(const Frame* frame, const char* message, int code = kInvalidArgument) {
  ErrorArguments arguments = {sizeof(ErrorArguments), nullptr, message, code};
  return frame->api->make_error(&arguments);
}

inline int dtype_of(const Buffer& buffer) {
  switch (buffer.type) {
    case 11: return EMBER_FLOAT32;
    case 12: return EMBER_FLOAT64;
    case 10: return EMBER_FLOAT16;
    case 16: return EMBER_BFLOAT16;
    default: return -1;
  }
}

inline int64_t width_of(int dtype) {
  return dtype == EMBER_FLOAT64 ? 8 : dtype == EMBER_FLOAT32 ? 4 : 2;
}

enum Name {
  kU, kK, kD, kGateIn, kGateOut, kG, kY, kDu, kDk, kDd, kDgateIn, kDgateOut, kNames
};

class Call {
 public:
  ember_fft_conv conv = {};
  int64_t entries = 1;  // of the leading axes

  // Null, or what is wrong with the frame.
  const char* read(const Frame& frame, bool backward) {
    const Buffers &in = frame.arguments, &out = frame.results;
    const bool skips = frame.attributes.number("skips") != 0;
    const bool gates_in = frame.attributes.number("gates_in") != 0;
    const bool gates_out = frame.attributes.number("gates_out") != 0;
    const int more = skips + gates_in + gates_out;
    if (in.count != 2 + backward + more || out.count != (backward ? 2 + more : 1)) {
      return "fft_conv: another number of buffers than its attributes say";
    }
    const Buffer &u = in[0], &k = in[1], &y = backward ? in[2] : out[0];
    conv.version = EMBER_FFT_CONV_VERSION;
    conv.dtype = dtype_of(u);
    conv.filter_dtype = dtype_of(k);
    if (conv.dtype < 0 || conv.filter_dtype < 0 || u.rank < 3 || k.rank < 2 || y.rank < 3) {
      return "fft_conv: expected floating point u (B, T, D) and k (taps, F)";
    }
    conv.batch = u.sizes[u.rank - 3];
    conv.size = u.sizes[u.rank - 2];
    conv.width = u.sizes[u.rank - 1];
    conv.taps = k.sizes[k.rank - 2];
    conv.filters = k.sizes[k.rank - 1];
    conv.start = frame.attributes.number("start");
    conv.length = y.sizes[y.rank - 2];
    conv.skip = frame.attributes.number("skip");
    conv.u = conv.du = {conv.size * conv.width, conv.width, 1};
    conv.gate_in = conv.dgate_in = conv.u;
    conv.y = conv.g = {conv.length * conv.width, conv.width, 1};
    conv.gate_out = conv.dgate_out = conv.y;
    conv.k_tap = conv.dk_tap = conv.filters;
    conv.k_filter = conv.dk_filter = 1;

    axes_ = u.rank - 3;
    if (axes_ > kMostAxes) return "fft_conv: too many leading axes";
    for (int64_t i = 0; i < axes_; ++i) shape_[i] = 1;
    const int64_t signal[] = {conv.batch, conv.size, conv.width};
    const int64_t output[] = {conv.batch, conv.length, conv.width};
    const int64_t filter[] = {conv.taps, conv.filters};
    const int s = conv.dtype, f = conv.filter_dtype;
    bool together = add(kU, u, signal, s) && add(kK, k, filter, f) &&
                    add(backward ? kG : kY, y, output, s);
    if (backward) together = together && add(kDu, out[0], signal, s) && add(kDk, out[1], filter, f);
    int next = 2;
    const auto pair = [&](bool there, Name name, Name gradient, const int64_t* sizes, int64_t own,
                          int dtype) {
      if (!there) return;
      together = together && add(name, in[next + backward], sizes, own, dtype);
      if (backward) together = together && add(gradient, out[next], sizes, own, dtype);
      ++next;
    };
    pair(skips, kD, kDd, &conv.width, 1, f);
    pair(gates_in, kGateIn, kDgateIn, signal, 3, s);
    pair(gates_out, kGateOut, kDgateOut, output, 3, s);
    if (!together) return "fft_conv: its buffers do not go together";
    for (int64_t i = 0; i < axes_; ++i) entries *= shape_[i];
    return nullptr;
  }

  // Where an entry of an array begins; null where the call has no such array.
  void* at(Name name, int64_t index) const {
    const Array& array = arrays_[name];
    if (!array.buffer) return nullptr;
    const Buffer& b = *array.buffer;
    int64_t offset = 0, stride = array.bytes;
    for (int64_t i = axes_ - 1; i >= 0; --i) {
      const int64_t place = index % shape_[i];
      index /= shape_[i];
      if (b.sizes[i] != 1) offset += place * stride;
      stride *= b.sizes[i];
    }
    return static_cast<char*>(b.data) + offset;
  }

 private:
  struct Array {
    const Buffer* buffer;
    int64_t bytes;  // of one entry
  };

  template <size_t N>
  bool add(Name name, const Buffer& b, const int64_t (&sizes)[N], int dtype) {
    return add(name, b, sizes, int64_t(N), dtype);
  }

  // Whether a buffer has these sizes behind its leading axes. Each buffer has the same number of
  // those; where one has more entries, all are walked.
  bool add(Name name, const Buffer& b, const int64_t* sizes, int64_t own, int dtype) {
    if (b.rank - own != axes_ || dtype_of(b) != dtype) return false;
    int64_t bytes = width_of(dtype);
    for (int64_t i = 0; i < own; ++i) {
      if (b.sizes[axes_ + i] != sizes[i]) return false;
      bytes *= sizes[i];
    }
    for (int64_t i = 0; i < axes_; ++i) {
      if (b.sizes[i] != 1 && shape_[i] != 1 && b.sizes[i] != shape_[i]) return false;
      if (b.sizes[i] != 1) shape_[i] = b.sizes[i];
    }
    arrays_[name] = {&b, bytes};
    return true;
  }

  int64_t axes_ = 0, shape_[kMostAxes];
  Array arrays_[kNames] = {};
};

// Answers a frame: `run(call)` starts what a Call asks for, and returns null or an error.
template <class Run>
void* handle(Frame* frame, bool backward, Run run) {
  if (frame->extension && frame->extension->type == kMetadata) {
    // XLA only asks which version of the interface the handler was written for.
    Metadata* metadata = reinterpret_cast<MetadataExtension*>(frame->extension)->metadata;
    metadata->version.major = 0;
    metadata->version.minor = 1;
    return nullptr;
  }
  if (frame->stage != kExecute) return nullptr;
  Call call;
  if (const char* wrong = call.read(*frame, backward)) return error(frame, wrong);
  return run(call);
}

}  // namespace xla
}  // namespace ember
