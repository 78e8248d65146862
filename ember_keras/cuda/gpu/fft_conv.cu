// The C interface: checks of a call, and which types it has.
#include "../check.h"
#include "run.h"

namespace ember {
namespace gpu {
namespace {

// Calls f with a Run of the call's types.
template <class F>
int typed(const Call& call, F f) {
  const bool wide = call.conv.filter_dtype == EMBER_FLOAT32;
  bool done = false;
  switch (call.conv.dtype) {
    case EMBER_FLOAT32: done = f(Run<float, float>(call)); break;
    case EMBER_FLOAT16: done = wide ? f(Run<Half, float>(call)) : f(Run<Half, Half>(call)); break;
    case EMBER_BFLOAT16: done = wide ? f(Run<Brain, float>(call)) : f(Run<Brain, Brain>(call)); break;
    default: return EMBER_UNKNOWN_DTYPE;
  }
  return done ? EMBER_OK : EMBER_CARD_FAILED;
}

int check_call(const ember_fft_conv* conv, const ember_card* card) {
  if (!conv || !card) return EMBER_NULL_POINTER;
  if (conv->dtype == EMBER_FLOAT64) return EMBER_UNKNOWN_DTYPE;
  return check(*conv);
}

bool aligned(const void* p, int dtype) {
  return reinterpret_cast<uintptr_t>(p) % (dtype == EMBER_FLOAT32 ? 4 : 2) == 0;
}

int check_pointers(const Call& call, int64_t bytes, int64_t scratch_bytes) {
  const ember_fft_conv& c = call.conv;
  for (const void* p : {call.u, call.gate_in, call.gate_out, call.g, static_cast<const void*>(call.y),
                        static_cast<const void*>(call.du), static_cast<const void*>(call.dgate_in),
                        static_cast<const void*>(call.dgate_out)}) {
    if (!aligned(p, c.dtype)) return EMBER_MISALIGNED;
  }
  for (const void* p : {call.k, call.d, static_cast<const void*>(call.dk), static_cast<const void*>(call.dd)}) {
    if (!aligned(p, c.filter_dtype)) return EMBER_MISALIGNED;
  }
  if (reinterpret_cast<uintptr_t>(call.scratch) % sizeof(Complex)) return EMBER_MISALIGNED;
  return bytes > (call.scratch ? scratch_bytes : 0) ? EMBER_SCRATCH_TOO_SMALL : EMBER_OK;
}

// Positions that a period counts more than once, counted once.
ember_fft_conv reduced(ember_fft_conv c) {
  if (!c.period) return c;
  c.start %= c.period;
  c.skip %= c.period;
  if (c.skip < 0) c.skip += c.period;
  return c;
}

// The number of the current card.
bool current(int* index) {
#if EMBER_ON_CARD
  return went_well(cudaGetDevice(index));
#else
  *index = 0;
  return true;
#endif
}

bool nothing(const ember_fft_conv& c) { return c.batch == 0 || c.width == 0; }

// The gradient of the output gate is a forward pass.
int schedules(const ember_fft_conv& c, const ember_card& card, bool backward, int wanted,
              Schedule* forward, Schedule* back, int64_t* bytes) {
  int status = make_schedule(c, card, false, wanted, forward);
  if (!status && backward) status = make_schedule(c, card, true, wanted, back);
  if (status) return status;
  *bytes = forward->scratch_bytes(c.width);
  if (backward) *bytes = most(*bytes, back->scratch_bytes(c.width));
  return EMBER_OK;
}

}  // namespace
}  // namespace gpu
}  // namespace ember

using namespace ember;
using namespace ember::gpu;

extern "C" {

int64_t ember_gpu_fft_conv_scratch(const ember_fft_conv* conv, const ember_card* card, int pass,
                                   int wanted) {
  int status = check_call(conv, card);
  if (!status && pass != EMBER_FORWARD && pass != EMBER_BACKWARD) status = EMBER_UNKNOWN_PASS;
  if (status) return -status;
  if (nothing(*conv)) return 0;
  Schedule forward, backward;
  int64_t bytes = 0;
  status = schedules(reduced(*conv), *card, pass == EMBER_BACKWARD, wanted, &forward, &backward, &bytes);
  return status ? -status : bytes;
}

int ember_gpu_fft_conv_plan(const ember_fft_conv* conv, const ember_card* card, int pass, int wanted,
                            ember_gpu_plan* plan) {
  int status = check_call(conv, card);
  if (!status && pass != EMBER_FORWARD && pass != EMBER_BACKWARD) status = EMBER_UNKNOWN_PASS;
  if (!status && !plan) status = EMBER_NULL_POINTER;
  if (status) return status;
  *plan = ember_gpu_plan();
  if (nothing(*conv)) return EMBER_OK;
  Schedule s;
  status = make_schedule(reduced(*conv), *card, pass == EMBER_BACKWARD, wanted, &s);
  if (status || s.cut.empty) return status;
  const int64_t groups = (s.groups + s.part.groups - 1) / s.part.groups;
  const int64_t parts = groups * ((s.blocks + s.part.blocks - 1) / s.part.blocks);
  plan->points = s.shape.points;
  plan->columns = s.shape.columns.rows;
  plan->channels = s.shape.channels();
  plan->blocks = s.cut.blocks;
  plan->items = s.part.items();
  plan->launches = s.one_tile() ? groups + parts : 2 * groups + 3 * parts;
  plan->shared_bytes = s.column_bytes();
  if (!s.one_tile()) plan->shared_bytes = most(plan->shared_bytes, s.row_bytes());
  plan->tensor = s.tensor;
  return EMBER_OK;
}

int ember_gpu_fft_conv_forward(const ember_fft_conv* conv, const ember_card* card, const void* u,
                               const void* k, const void* d, const void* gate_in,
                               const void* gate_out, void* y, void* scratch, int64_t scratch_bytes,
                               void* stream) {
  int status = check_call(conv, card);
  if (status || nothing(*conv) || conv->length == 0) return status;
  Call call = {};
  call.conv = reduced(*conv);
  call.u = u, call.k = k, call.d = d, call.gate_in = gate_in, call.gate_out = gate_out, call.y = y;
  call.scratch = static_cast<Complex*>(scratch);
  call.stream = static_cast<Stream>(stream);
  Schedule s, none;
  int64_t bytes = 0;
  status = schedules(call.conv, *card, false, 0, &s, &none, &bytes);
  if (!status && ((!u && conv->size) || !k || !y)) status = EMBER_NULL_POINTER;
  if (!status) status = check_pointers(call, bytes, scratch_bytes);
  if (status) return status;
  return typed(call, [&](const auto& run) {
    return run.forward(s, y, conv->y, gate_out, conv->gate_out);
  });
}

int ember_gpu_fft_conv_backward(const ember_fft_conv* conv, const ember_card* card, const void* u,
                                const void* k, const void* d, const void* gate_in,
                                const void* gate_out, const void* g, void* du, void* dk, void* dd,
                                void* dgate_in, void* dgate_out, void* scratch,
                                int64_t scratch_bytes, void* stream) {
  int status = check_call(conv, card);
  if (status) return status;
  Call call = {reduced(*conv), u, k, d, gate_in, gate_out, g, nullptr, du, dk, dd, dgate_in, dgate_out,
               static_cast<Complex*>(scratch), static_cast<Stream>(stream)};
  if (nothing(*conv)) return typed(call, [](const auto& run) { return run.zeros(); });
  const int wanted = dk ? EMBER_WANT_SIGNALS | EMBER_WANT_FILTERS : EMBER_WANT_SIGNALS;
  Schedule forward, backward;
  int64_t bytes = 0;
  status = schedules(call.conv, *card, true, wanted, &forward, &backward, &bytes);
  if (!status && ((!u && conv->size) || !k || (!g && conv->length))) status = EMBER_NULL_POINTER;
  if (!status) status = check_pointers(call, bytes, scratch_bytes);
  if (status) return status;
  return typed(call, [&](const auto& run) {
    if ((du || dk || dgate_in) && !run.backward(backward)) return false;
    if (dd && !run.skip_gradient(backward)) return false;
    return !dgate_out || run.forward(forward, dgate_out, conv->dgate_out, g, conv->g);
  });
}

const char* ember_gpu_error(int status) {
#if EMBER_ON_CARD
  if (status == EMBER_CARD_FAILED) return cudaGetErrorString(failure);
#else
  if (status == EMBER_CARD_FAILED) {
    static thread_local char said[sizeof fault];
    memcpy(said, fault, sizeof fault);
    fault[0] = 0;
    return said;
  }
#endif
  return describe(status);
}

int ember_gpu_version(void) { return EMBER_FFT_CONV_VERSION; }

int ember_gpu_card(int index, ember_card* card) {
  if (!card) return EMBER_NULL_POINTER;
  if (index == EMBER_CURRENT_CARD && !current(&index)) return EMBER_CARD_FAILED;
#if EMBER_ON_CARD
  int shared = 0, processors = 0, cache = 0, major = 0, minor = 0;
  if (!went_well(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index)) ||
      !went_well(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, index)) ||
      !went_well(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, index)) ||
      !went_well(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index)) ||
      !went_well(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index))) {
    return EMBER_CARD_FAILED;
  }
  const bool tensor = (major == 8 || major == 9) && minor == 0;
  *card = {shared, processors, cache, tensor};
#else
  *card = {48 * 1024, 4 + index, 1 << 20, 0};
#endif
  return EMBER_OK;
}

#if !EMBER_ON_CARD
// Runs this thread's calls with blocks, and threads in them, from the last to the first.
EMBER_API void ember_gpu_twin_backwards(int yes) { backwards = yes != 0; }
#endif

}  // extern "C"
