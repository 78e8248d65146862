// The kernel as a custom call of XLA on a graphics card, which XLA has made the current one.
//
// Launches go to XLA's stream and scratch is XLA's memory; nothing waits. Scratch is given back when
// all is launched: whoever gets it next is behind these launches on the stream. A CUDA graph that
// captured them would go on using it, so the handlers do not claim to be compatible with XLA's
// command buffers, and XLA keeps them out of those.
#include "../xla_call.h"
#include "fft_conv_gpu.h"

namespace {

using namespace ember::xla;

constexpr size_t kAlignment = 16;  // the most that XLA grants

void* failure(const Frame* frame, int status) {
  return error(frame, ember_gpu_error(status),
               status == EMBER_CARD_FAILED ? kInternal : kInvalidArgument);
}

// Starts each entry by launch(entry, card, scratch, bytes, stream), which returns a status.
template <class Launch>
void* with_card(const Frame* frame, const Call& call, int pass, int wanted, Launch launch) {
  const Api& api = *frame->api;
  StreamArguments stream = {sizeof(StreamArguments), nullptr, frame->context, nullptr};
  if (void* failed = api.get_stream(&stream)) return failed;
  ember_card card;
  int status = ember_gpu_card(EMBER_CURRENT_CARD, &card);
  if (status) return failure(frame, status);
  const int64_t bytes = ember_gpu_fft_conv_scratch(&call.conv, &card, pass, wanted);
  if (bytes < 0) return failure(frame, int(-bytes));
  AllocateArguments memory = {sizeof(AllocateArguments), nullptr, frame->context, size_t(bytes),
                              kAlignment, nullptr};
  if (bytes) {
    if (void* failed = api.allocate(&memory)) return failed;
  }
  // One entry after the other on one stream: they may share the scratch.
  for (int64_t i = 0; i < call.entries && !status; ++i) {
    status = launch(i, card, memory.data, bytes, stream.stream);
  }
  if (bytes) {
    FreeArguments given = {sizeof(FreeArguments), nullptr, frame->context, size_t(bytes), memory.data};
    if (void* failed = api.free(&given)) return failed;
  }
  return status ? failure(frame, status) : nullptr;
}

void* forward(Frame* frame) {
  return handle(frame, false, [&](const Call& call) {
    return with_card(
        frame, call, EMBER_FORWARD, EMBER_WANT_SIGNALS,
        [&](int64_t i, const ember_card& card, void* scratch, int64_t bytes, void* stream) {
          return ember_gpu_fft_conv_forward(&call.conv, &card, call.at(kU, i), call.at(kK, i),
                                            call.at(kD, i), call.at(kGateIn, i),
                                            call.at(kGateOut, i), call.at(kY, i), scratch, bytes,
                                            stream);
        });
  });
}

void* backward(Frame* frame) {
  return handle(frame, true, [&](const Call& call) {
    return with_card(
        frame, call, EMBER_BACKWARD, EMBER_WANT_SIGNALS | EMBER_WANT_FILTERS,
        [&](int64_t i, const ember_card& card, void* scratch, int64_t bytes, void* stream) {
          return ember_gpu_fft_conv_backward(
              &call.conv, &card, call.at(kU, i), call.at(kK, i), call.at(kD, i),
              call.at(kGateIn, i), call.at(kGateOut, i), call.at(kG, i), call.at(kDu, i),
              call.at(kDk, i), call.at(kDd, i), call.at(kDgateIn, i), call.at(kDgateOut, i),
              scratch, bytes, stream);
        });
  });
}

}  // namespace

extern "C" {

EMBER_API void* ember_gpu_fft_conv_xla_forward(Frame* frame) { return forward(frame); }

EMBER_API void* ember_gpu_fft_conv_xla_backward(Frame* frame) { return backward(frame); }

}  // extern "C"
