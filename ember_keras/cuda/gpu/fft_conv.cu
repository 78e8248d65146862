// The C interface: checks, and the launches of a call.
#include "../check.h"
#include "schedule.h"

namespace ember {
namespace gpu {
namespace {

struct Call {
  ember_fft_conv conv;
  const void *u, *k, *d, *gate_in, *gate_out, *g;
  void *y, *du, *dk, *dd, *dgate_in, *dgate_out;
  Complex* scratch;
  Stream stream;
};

constexpr int kFlat = 256;  // threads of a block that has no tile

// S: of signals; K: of filters.
template <class S, class K>
class Run {
 public:
  explicit Run(const Call& call) : call_(call), c_(call.conv) {}

  bool forward(const Schedule& s, void* y, const ember_strides& strides, const void* gate,
               const ember_strides& gate_strides) const {
    Signals out;
    out.first = {y, gate, strides, gate_strides};
    skip(&out, input(), c_.skip);
    if (s.cut.empty) return blank(out, c_.length);
    return each_part(s, [&](const Part& part) {
      Items items = items_of(s, part, Kind::kInput);
      if (part.first_block == 0 && !filters(s, part)) return false;
      const Spectra spectra = spectra_of(s, part);
      if (s.one_tile()) {
        return columns(s, items, Convolve<S>{items, input(), spectra, out, Kind::kOutput});
      }
      Complex* data = array(s, s.filter_groups);
      if (!columns(s, items, Enter<S>{items, input(), 1, data})) return false;
      if (!rows(s, items, Rows<Row::kProduct>{items, data, spectra})) return false;
      items.kind = Kind::kOutput;
      return columns(s, items, Leave<S>{items, data, 1, out});
    });
  }

  bool backward(const Schedule& s) const {
    Signals out;
    out.first = {call_.du, call_.gate_in, c_.du, c_.gate_in};
    out.second = {call_.dgate_in, call_.u, c_.dgate_in, c_.u};
    skip(&out, cotangent(), -c_.skip);
    const bool signals = call_.du || call_.dgate_in;
    if (call_.dk && !blank_filters(s)) return false;
    if (s.cut.empty) return !signals || blank(out, c_.size);
    return each_part(s, [&](const Part& part) {
      if (signals && part.first_block == 0 && !filters(s, part)) return false;
      if (!gradients(s, part, out, signals)) return false;
      const bool last = part.first_block + part.blocks >= s.blocks;
      return !last || !call_.dk || filter_gradient(s, part);
    });
  }

  bool skip_gradient(const Schedule& s) const {
    const int64_t wide = (c_.width + kSkipLanes - 1) / kSkipLanes;
    Complex* sums = call_.scratch;
    const int64_t part = (c_.length + s.skip_parts - 1) / s.skip_parts;
    const SkipSums<S> all = {input(),  cotangent(),       c_.skip,   c_.batch, c_.length,
                             c_.width, int(s.skip_parts), int(part), sums};
    if (!launch(all, wide * s.skip_parts, kFlat, kFlat * sizeof(Complex), call_.stream)) return false;
    return flat(c_.width, SkipGradient<K>{sums, c_.width, int(s.skip_parts), static_cast<K*>(call_.dd)});
  }

  // Without channels or sequences.
  bool zeros() const {
    Schedule none = Schedule();
    none.cut.empty = true;
    if (call_.dk && !blank_filters(none)) return false;
    return !call_.dd || flat(c_.width, SkipGradient<K>{nullptr, c_.width, 0, static_cast<K*>(call_.dd)});
  }

 private:
  Operand input() const {
    return {call_.u, call_.gate_in, c_.u, c_.gate_in, c_.size, c_.period};
  }
  Operand cotangent() const {
    return {call_.g, call_.gate_out, c_.g, c_.gate_out, c_.length, c_.period};
  }

  void skip(Signals* out, const Operand& other, int64_t shift) const {
    if (!call_.d) return;
    out->d = call_.d;
    out->d_wide = sizeof(K) > sizeof(S);
    out->other = other;
    out->other_shift = shift;
  }

  Items items_of(const Schedule& s, const Part& part, Kind kind) const {
    return {c_, s.cut, s.shape, part, kind, 0, c_.width};
  }

  Complex* array(const Schedule& s, int64_t groups) const {
    return call_.scratch + s.skip_parts * c_.width + groups * s.shape.group_points();
  }

  template <class Body>
  bool columns(const Schedule& s, const Items& items, const Body& body) const {
    const int64_t bytes = tile_bytes(s.shape.columns.rows, s.shape.columns.lanes());
    return launch(body, items.part.items() * s.shape.tiles(), s.column_threads, bytes, call_.stream);
  }
  template <class Body>
  bool rows(const Schedule& s, const Items& items, const Body& body) const {
    const int64_t bytes = tile_bytes(s.shape.rows.rows, s.shape.channels());
    const int64_t blocks = items.part.items() * s.shape.columns.rows;
    return launch(body, blocks, s.row_threads, bytes, call_.stream);
  }
  template <class Body>
  bool flat(int64_t count, const Body& body) const {
    return launch(body, (count + kFlat - 1) / kFlat, kFlat, 0, call_.stream);
  }

  // Groups of channels outside, blocks of sequences inside: filters are transformed once.
  template <class F>
  bool each_part(const Schedule& s, F f) const {
    for (int group = 0; group < s.groups; group += s.part.groups) {
      for (int block = 0; block < s.blocks; block += s.part.blocks) {
        const Part part = {block, int(least(s.part.blocks, s.blocks - block)), group,
                           int(least(s.part.groups, s.groups - group))};
        if (!f(part)) return false;
      }
    }
    return true;
  }

  int64_t first_filter(const Schedule& s, const Part& part) const {
    return (int64_t(part.first_group) << s.shape.channels_log2) / s.ratio;
  }
  int64_t filter_count(const Schedule& s, const Part& part) const {
    const int64_t end = int64_t(part.first_group + part.groups) << s.shape.channels_log2;
    return (least(end, c_.width) + s.ratio - 1) / s.ratio - first_filter(s, part);
  }

  Items filter_items(const Schedule& s, const Part& part) const {
    Items items = items_of(s, part, Kind::kFilter);
    items.channels = filter_count(s, part);
    items.first_channel = first_filter(s, part);
    items.part = {0, 1, 0, int((items.channels + s.shape.channels() - 1) >> s.shape.channels_log2)};
    return items;
  }

  bool filters(const Schedule& s, const Part& part) const {
    Operand k;
    k.values = call_.k;
    k.strides = {0, c_.k_tap, c_.k_filter};
    k.size = c_.taps;
    Complex* spectrum = array(s, 0);
    const Items items = filter_items(s, part);
    const float scale = 1.0f / float(s.shape.points);
    if (!columns(s, items, Enter<K>{items, k, scale, spectrum})) return false;
    return s.one_tile() || rows(s, items, Rows<Row::kSpectrum>{items, spectrum, Spectra()});
  }

  Spectra spectra_of(const Schedule& s, const Part& part) const {
    Spectra spectra;
    spectra.filter = array(s, 0);
    spectra.ratio = s.ratio;
    spectra.first_filter = first_filter(s, part);
    return spectra;
  }

  bool gradients(const Schedule& s, const Part& part, const Signals& out, bool signals) const {
    Items items = items_of(s, part, Kind::kInput);
    Spectra spectra = spectra_of(s, part);
    spectra.backward = true;
    spectra.fresh = part.first_block == 0;
    spectra.returns = signals;
    const int64_t all = s.part.items();
    Complex* data = array(s, s.filter_groups);
    if (call_.dk) {
      Complex* other = array(s, s.filter_groups + (s.data ? all : 0));
      spectra.other = other;
      spectra.sum = other + all * s.shape.group_points();
      if (!columns(s, items, Enter<S>{items, input(), 1, other})) return false;
      if (!s.one_tile() && !rows(s, items, Rows<Row::kSpectrum>{items, other, Spectra()})) return false;
    }
    items.kind = Kind::kOutput;
    if (s.one_tile()) {
      return columns(s, items, Convolve<S>{items, cotangent(), spectra, out, Kind::kInput});
    }
    if (!columns(s, items, Enter<S>{items, cotangent(), 1, data})) return false;
    if (!rows(s, items, Rows<Row::kProduct>{items, data, spectra})) return false;
    if (!signals) return true;
    items.kind = Kind::kInput;
    return columns(s, items, Leave<S>{items, data, 1, out});
  }

  // From the sums of spectra to the gradient of the part's filters.
  bool filter_gradient(const Schedule& s, const Part& part) const {
    const int64_t all = s.part.items();
    Part summed = part;
    summed.blocks = int(least(s.part.blocks, s.blocks));
    const Items items = filter_items(s, part);
    Complex* spectrum = array(s, 0);
    const Complex* sums = array(s, s.filter_groups + (s.data ? 2 : 1) * all);
    const Gather gather = {s.shape, summed, sums, spectrum, items.channels, s.ratio};
    const int64_t blocks = items.part.items() * Gather::blocks_of(s.shape, kFlat);
    if (!launch(gather, blocks, kFlat, 0, call_.stream)) return false;
    if (!s.one_tile() && !rows(s, items, Rows<Row::kInverse>{items, spectrum, Spectra()})) return false;
    Signals out;
    out.first = {call_.dk, nullptr, {0, c_.dk_tap, c_.dk_filter}, {0, 0, 0}};
    return columns(s, items, Leave<K>{items, spectrum, 1.0f / float(s.shape.points), out});
  }

  bool blank(const Signals& out, int64_t length) const {
    return flat(c_.batch * length * c_.width, Blank<S>{out, 0, length, c_.batch, c_.width});
  }

  // Taps that reach no output.
  bool blank_filters(const Schedule& s) const {
    Signals out;
    out.first = {call_.dk, nullptr, {0, c_.dk_tap, c_.dk_filter}, {0, 0, 0}};
    const int64_t low = s.cut.low, high = s.cut.high, above = c_.taps - high;
    return flat(low * c_.filters, Blank<K>{out, 0, low, 1, c_.filters}) &&
           flat(above * c_.filters, Blank<K>{out, high, above, 1, c_.filters});
  }

  const Call& call_;
  const ember_fft_conv& c_;
};

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
  return cudaGetDevice(index) == cudaSuccess;
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
  plan->shared_bytes = tile_bytes(s.shape.columns.rows, s.shape.columns.lanes());
  if (!s.one_tile()) {
    plan->shared_bytes = most(plan->shared_bytes, tile_bytes(s.shape.rows.rows, s.shape.channels()));
  }
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
  if (status == EMBER_CARD_FAILED) return cudaGetErrorString(cudaPeekAtLastError());
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
  int shared = 0, processors = 0, cache = 0;
  if (cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index) != cudaSuccess ||
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, index) != cudaSuccess ||
      cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, index) != cudaSuccess) {
    return EMBER_CARD_FAILED;
  }
  *card = {shared, processors, cache};
#else
  *card = {48 * 1024, 4 + index, 1 << 20};
#endif
  return EMBER_OK;
}

#if !EMBER_ON_CARD
// Runs this thread's calls with blocks, and threads in them, from the last to the first.
EMBER_API void ember_gpu_twin_backwards(int yes) { backwards = yes != 0; }
#endif

}  // extern "C"
