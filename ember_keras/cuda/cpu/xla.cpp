// The kernel as a custom call of XLA: two handlers, for the forward and the backward pass.
#include "../xla_call.h"

namespace {

using namespace ember::xla;

void* forward(Frame* frame) {
  return handle(frame, false, [&](const Call& call) -> void* {
    const int threads = int(frame->attributes.number("threads"));
    for (int64_t i = 0; i < call.entries; ++i) {
      const int status =
          ember_fft_conv_forward(&call.conv, call.at(kU, i), call.at(kK, i), call.at(kD, i),
                                 call.at(kGateIn, i), call.at(kGateOut, i), call.at(kY, i),
                                 nullptr, 0, threads);
      if (status) return error(frame, ember_fft_conv_error(status));
    }
    return nullptr;
  });
}

void* backward(Frame* frame) {
  return handle(frame, true, [&](const Call& call) -> void* {
    const int threads = int(frame->attributes.number("threads"));
    for (int64_t i = 0; i < call.entries; ++i) {
      const int status = ember_fft_conv_backward(
          &call.conv, call.at(kU, i), call.at(kK, i), call.at(kD, i), call.at(kGateIn, i),
          call.at(kGateOut, i), call.at(kG, i), call.at(kDu, i), call.at(kDk, i), call.at(kDd, i),
          call.at(kDgateIn, i), call.at(kDgateOut, i), nullptr, 0, threads);
      if (status) return error(frame, ember_fft_conv_error(status));
    }
    return nullptr;
  });
}

}  // namespace

extern "C" {

EMBER_API void* ember_fft_conv_xla_forward(Frame* frame) { return forward(frame); }

EMBER_API void* ember_fft_conv_xla_backward(Frame* frame) { return backward(frame); }

}  // extern "C"
