// The kernel as a custom call of XLA: two handlers, for the forward and the backward pass.
//
// Buffers are dense and in row-major order, and may have leading axes of a vmap: one call of the
// kernel for each of their entries, where an axis of 1 is shared.
#include "../fft_conv.h"
#include "../xla.h"

namespace {

using namespace ember::xla;

int dtype_of(const Buffer& buffer) {
  switch (buffer.type) {
    case 11: return EMBER_FLOAT32;
    case 12: return EMBER_FLOAT64;
    case 10: return EMBER_FLOAT16;
    case 16: return EMBER_BFLOAT16;
    default: return -1;
  }
}

int64_t width_of(int dtype) {
  return dtype == EMBER_FLOAT64 ? 8 : dtype == EMBER_FLOAT32 ? 4 : 2;
}

// Where an entry of the leading axes begins in a buffer, of which some axes may be shared.
char* entry(const Buffer& b, int64_t own, const int64_t* shape, int64_t axes, int64_t index) {
  int64_t size = 1;
  for (int64_t i = b.rank - own; i < b.rank; ++i) size *= b.sizes[i];
  int64_t offset = 0, stride = size;
  for (int64_t i = axes - 1; i >= 0; --i) {
    const int64_t at = index % shape[i];
    index /= shape[i];
    if (b.sizes[i] != 1) offset += at * stride;
    stride *= b.sizes[i];
  }
  return static_cast<char*>(b.data) + offset * width_of(dtype_of(b));
}

constexpr int64_t kMostAxes = 16;

void* error(const Frame* frame, const char* message) {
  ErrorArguments arguments = {sizeof(ErrorArguments), nullptr, message, kInvalidArgument};
  return frame->api->make_error(&arguments);
}

// True where XLA only asks which version of the interface the handler was written for.
bool answered(Frame* frame) {
  if (!frame->extension || frame->extension->type != kMetadata) return false;
  Metadata* metadata = reinterpret_cast<MetadataExtension*>(frame->extension)->metadata;
  metadata->version.major = 0;
  metadata->version.minor = 1;
  return true;
}

ember_strides dense(const Buffer& b) {
  const int64_t channels = b.sizes[b.rank - 1];
  return {b.sizes[b.rank - 2] * channels, channels, 1};
}

void* run(Frame* frame, bool backward) {
  if (answered(frame)) return nullptr;
  if (frame->stage != kExecute) return nullptr;
  const Buffers &in = frame->arguments, &out = frame->results;
  const bool skips = frame->attributes.number("skips") != 0;
  if (in.count != 2 + backward + skips || out.count != (backward ? 2 + skips : 1)) {
    return error(frame, "fft_conv: another number of buffers than its attributes say");
  }
  const Buffer &u = in[0], &k = in[1];
  const Buffer& y = backward ? in[2] : out[0];
  ember_fft_conv conv = {};
  conv.version = EMBER_FFT_CONV_VERSION;
  conv.dtype = dtype_of(u);
  conv.filter_dtype = dtype_of(k);
  if (conv.dtype < 0 || conv.filter_dtype < 0 || u.rank < 3 || k.rank < 2 || y.rank < 3) {
    return error(frame, "fft_conv: expected floating point u (B, T, D) and k (taps, F)");
  }
  conv.batch = u.sizes[u.rank - 3];
  conv.size = u.sizes[u.rank - 2];
  conv.width = u.sizes[u.rank - 1];
  conv.taps = k.sizes[k.rank - 2];
  conv.filters = k.sizes[k.rank - 1];
  conv.start = frame->attributes.number("start");
  conv.length = y.sizes[y.rank - 2];
  conv.skip = frame->attributes.number("skip");
  conv.u = conv.du = dense(u);
  conv.y = conv.g = dense(y);
  conv.k_tap = conv.dk_tap = conv.filters;
  conv.k_filter = conv.dk_filter = 1;
  const int threads = int(frame->attributes.number("threads"));

  // Each buffer has the same number of leading axes; where one has more entries, all are walked.
  const int64_t axes = u.rank - 3;
  if (axes > kMostAxes) return error(frame, "fft_conv: too many leading axes");
  int64_t shape[kMostAxes], entries = 1;
  for (int64_t i = 0; i < axes; ++i) shape[i] = 1;
  const auto covers = [&](const Buffer& b, int64_t own) {
    if (b.rank - own != axes) return false;
    for (int64_t i = 0; i < axes; ++i) {
      if (b.sizes[i] != 1 && shape[i] != 1 && b.sizes[i] != shape[i]) return false;
      if (b.sizes[i] != 1) shape[i] = b.sizes[i];
    }
    return true;
  };
  bool together = covers(u, 3) && covers(k, 2) && covers(y, 3) && covers(out[0], 3);
  if (skips) together = together && covers(in[2 + backward], 1);
  if (backward) together = together && covers(out[1], 2) && (!skips || covers(out[2], 1));
  if (!together) {
    return error(frame, "fft_conv: the leading axes of its buffers do not go together");
  }
  for (int64_t i = 0; i < axes; ++i) entries *= shape[i];
  for (int64_t i = 0; i < entries; ++i) {
    const auto at = [&](const Buffer& b, int64_t own) { return entry(b, own, shape, axes, i); };
    int status;
    if (backward) {
      status = ember_fft_conv_backward(
          &conv, at(u, 3), at(k, 2), skips ? at(in[3], 1) : nullptr, nullptr, nullptr, at(y, 3),
          at(out[0], 3), at(out[1], 2), skips ? at(out[2], 1) : nullptr, nullptr, nullptr, nullptr,
          0, threads);
    } else {
      status = ember_fft_conv_forward(&conv, at(u, 3), at(k, 2), skips ? at(in[2], 1) : nullptr,
                                      nullptr, nullptr, at(y, 3), nullptr, 0, threads);
    }
    if (status) return error(frame, ember_fft_conv_error(status));
  }
  return nullptr;
}

}  // namespace

extern "C" {

EMBER_API void* ember_fft_conv_xla_forward(Frame* frame) { return run(frame, false); }

EMBER_API void* ember_fft_conv_xla_backward(Frame* frame) { return run(frame, true); }

}  // extern "C"
