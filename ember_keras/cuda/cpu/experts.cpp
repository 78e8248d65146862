// The C interface of a mixture of gated perceptrons: checks, the order of its rows, scratch, the
// choice of an instruction set; and the handlers of XLA.
#include "../experts.h"

#include <sys/mman.h>

#include <cstring>
#include <initializer_list>

#include "../check.h"
#include "../xla.h"
#include "experts_call.h"
#include "isa.h"
#include "scratch.h"

namespace ember {
namespace {

constexpr int kMostThreads = 1024;
constexpr int kNoSize = 100;  // Behind the codes of ember_status.

Work find_work(int isa) { return choose(isa, EMBER_FORMS(experts_work)); }

// Whether the product of some sizes, none of them negative, is at most `most`.
bool fits(std::initializer_list<int64_t> sizes, int64_t most) {
  __int128 product = 1;
  for (const int64_t size : sizes) {
    product *= size;
    if (product > most) return false;
  }
  return true;
}

int check_sizes(const ember_experts* s) {
  if (!s) return EMBER_NULL_POINTER;
  if (s->version != EMBER_EXPERTS_VERSION) return EMBER_UNKNOWN_VERSION;
  if (s->isa < EMBER_ISA_BEST || s->isa > EMBER_ISA_AVX512) return EMBER_UNKNOWN_ISA;
  if (!find_work(s->isa)) return EMBER_ISA_NOT_AVAILABLE;
  if (s->threads < 1) return EMBER_NO_THREADS;
  if (s->tokens < 0) return EMBER_NEGATIVE_SIZE;
  for (const int64_t size : {s->slots, s->experts, s->width, s->hidden}) {
    if (size < 1) return kNoSize;
  }
  constexpr int64_t kMost = int64_t(1) << 50;  // numbers of an array
  if (!fits({s->tokens, s->slots}, INT32_MAX) || !fits({s->experts}, INT32_MAX - 1) ||
      !fits({s->width}, kMost) || !fits({s->hidden}, kMost) ||
      !fits({s->tokens + 1, s->slots, s->width}, kMost) ||
      !fits({s->tokens + 1, s->slots, 5, s->hidden + kBlock}, kMost) ||
      !fits({s->experts, s->width, 2, s->hidden}, kMost)) {
    return EMBER_SIZE_OVERFLOW;
  }
  return EMBER_OK;
}

// Rows by expert, then by token: by counting.
void sort_rows(ExpertsCall* call) {
  const ember_experts& s = call->sizes;
  const int64_t places = s.tokens * s.slots;
  int32_t* const offsets = call->offsets;
  const auto there = [&](int32_t e) { return e >= 0 && e < s.experts; };
  memset(offsets, 0, size_t(s.experts + 1) * 4);
  for (int64_t i = 0; i < places; ++i) {
    if (there(call->chosen[i])) ++offsets[call->chosen[i] + 1];
  }
  call->largest = 0;
  for (int64_t e = 0; e < s.experts; ++e) {
    if (offsets[e + 1] > call->largest) call->largest = offsets[e + 1];
    offsets[e + 1] += offsets[e];
  }
  for (int64_t i = 0; i < places; ++i) {
    const int32_t e = call->chosen[i];
    if (!there(e)) {
      call->row[i] = -1;
      continue;
    }
    const int32_t row = offsets[e]++;
    call->row[i] = row, call->place[row] = int32_t(i), call->token[row] = int32_t(i / s.slots);
  }
  for (int64_t e = s.experts; e > 0; --e) offsets[e] = offsets[e - 1];
  offsets[0] = 0;
}

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Has the system put large pages where a result is written for the first time.
void large_pages(void* from, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kLarge = 2 << 20;
  const uintptr_t first = (uintptr_t(from) + kLarge - 1) / kLarge * kLarge;
  const uintptr_t last = (uintptr_t(from) + uintptr_t(bytes)) / kLarge * kLarge;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)from, (void)bytes;
#endif
}

// Lays arrays into a block of memory, or measures it where there is none.
struct Layout {
  char* base;
  int64_t bytes = 0;
  template <class T>
  T* take(int64_t count) {
    char* const at = base ? base + bytes : nullptr;
    bytes += round_up(count * int64_t(sizeof(T)), 64);
    return reinterpret_cast<T*>(at);
  }
};

// How the rows, which are sorted, are cut, and the scratch for them.
void plan(ExpertsCall* call, int64_t threads) {
  const ember_experts& s = call->sizes;
  const int64_t rows = call->offsets[s.experts];
  call->chunk = kMostRows;
  if (threads > 1 && rows / (4 * threads) < kMostRows) {
    call->chunk = round_up(rows / (4 * threads) + 1, 48);
  }
  call->pieces = 0;
  for (int64_t e = 0; e < s.experts; ++e) {
    call->pieces += (call->offsets[e + 1] - call->offsets[e] + call->chunk - 1) / call->chunk;
  }
  call->parts = threads > 1 ? (4 * threads + s.experts - 1) / s.experts : 1;
}

int run(ExpertsCall* call) {
  const ember_experts& s = call->sizes;
  const int64_t places = s.tokens * s.slots;
  const int threads = int(s.threads < kMostThreads ? s.threads : kMostThreads);
  Layout sorted = {nullptr};
  const auto arrays = [&](Layout* at) {
    call->offsets = at->take<int32_t>(s.experts + 1);
    call->token = at->take<int32_t>(places);
    call->place = at->take<int32_t>(places);
    call->row = at->take<int32_t>(places);
  };
  arrays(&sorted);
  Scratch* const order = take_scratch(sorted.bytes);
  if (!order) return EMBER_OUT_OF_MEMORY;
  sorted = {order->base};
  arrays(&sorted);
  sort_rows(call);
  plan(call, threads);
  // A thread computes all of an expert where none has so many rows that others would wait for it.
  const bool apart = call->backward && threads > 1 && call->largest * 4 * threads > places;
  const int64_t own = call->backward ? (apart ? 0 : call->largest) : kMostRows;
  call->share = round_up(4 * (kPackedFloats + kMostRows * 16 + own * slope_floats(s.hidden)), 64);
  const auto rest = [&](Layout* at) {
    call->next = at->take<int64_t>(1);
    call->second = at->take<int64_t>(1);
    call->rows = at->take<float>(call->offsets[s.experts] * s.width);
    call->slopes = at->take<float>(apart ? places * slope_floats(s.hidden) : 0);
    call->scratch = at->take<char>(call->share * threads);
  };
  Layout measured = {nullptr};
  rest(&measured);
  Scratch* const scratch = take_scratch(measured.bytes);
  if (!scratch) {
    leave_scratch(order);
    return EMBER_OUT_OF_MEMORY;
  }
  Layout laid = {scratch->base};
  rest(&laid);
  if (!apart) call->slopes = nullptr;
  *call->next = *call->second = 0;
  run_team(threads, find_work(s.isa), call);
  leave_scratch(order);
  leave_scratch(scratch);
  return EMBER_OK;
}

int start(ExpertsCall* call, const ember_experts* sizes) {
  const int status = check_sizes(sizes);
  if (status) return status;
  const ember_experts& s = call->sizes = *sizes;
  if (!call->gate_up || !call->down) return EMBER_NULL_POINTER;
  if (call->backward ? !call->dgate_up || !call->ddown : false) return EMBER_NULL_POINTER;
  if (s.tokens > 0) {
    if (!call->x || !call->chosen || !call->weights) return EMBER_NULL_POINTER;
    if (call->backward ? !call->kept || !call->g || !call->dx || !call->dweights : !call->y) {
      return EMBER_NULL_POINTER;
    }
  }
  if (call->backward) {
    const int64_t numbers = s.experts * s.width * s.hidden;
    large_pages(call->dgate_up, 8 * numbers);
    large_pages(call->ddown, 4 * numbers);
    large_pages(call->dx, 4 * s.tokens * s.width);
  } else {
    large_pages(call->y, 4 * s.tokens * s.width);
    if (call->kept) large_pages(call->kept, 8 * s.tokens * s.slots * blocks_of(s.hidden) * kBlock);
  }
  return run(call);
}

using namespace xla;

constexpr int kFloat32 = 11, kInt32 = 4;

void* fail(const Frame* frame, const char* message) {
  ErrorArguments arguments = {sizeof(ErrorArguments), nullptr, message, kInvalidArgument};
  return frame->api->make_error(&arguments);
}

bool is(const Buffer& b, int type, std::initializer_list<int64_t> sizes) {
  if (b.type != type || b.rank != int64_t(sizes.size())) return false;
  int64_t i = 0;
  for (const int64_t size : sizes) {
    if (b.sizes[i++] != size) return false;
  }
  return true;
}

float* numbers(const Buffer& b) { return static_cast<float*>(b.data); }

// Arguments x, chosen, weights, gate_up, down, and kept, g; results y, and kept where it is wanted,
// or dx, dweights, dgate_up, ddown. The attribute is `threads`.
void* handle(Frame* frame, bool backward) {
  if (frame->extension && frame->extension->type == kMetadata) {
    Metadata* metadata = reinterpret_cast<MetadataExtension*>(frame->extension)->metadata;
    metadata->version.major = 0;
    metadata->version.minor = 1;
    return nullptr;
  }
  if (frame->stage != kExecute) return nullptr;
  const Buffers &in = frame->arguments, &out = frame->results;
  const char* wrong = "a mixture of experts: its buffers do not go together";
  // TensorFlow hands over the shapes of results as arguments as well: they are not read.
  if (in.count < (backward ? 7 : 5)) return fail(frame, wrong);
  if (backward ? out.count != 4 : out.count < 1 || out.count > 2) return fail(frame, wrong);
  const Buffer &x = in[0], &chosen = in[1], &weights = in[2], &gate_up = in[3], &down = in[4];
  if (x.rank != 2 || chosen.rank != 2 || down.rank != 3) return fail(frame, wrong);
  const int64_t n = x.sizes[0], k = chosen.sizes[1], e = down.sizes[0], f = down.sizes[1];
  const int64_t d = x.sizes[1];
  bool agree = is(x, kFloat32, {n, d}) && is(chosen, kInt32, {n, k}) &&
               is(weights, kFloat32, {n, k}) && is(gate_up, kFloat32, {e, d, 2 * f}) &&
               is(down, kFloat32, {e, f, d});
  ExpertsCall call = {};
  call.x = numbers(x), call.chosen = static_cast<int32_t*>(chosen.data);
  call.weights = numbers(weights), call.gate_up = numbers(gate_up), call.down = numbers(down);
  call.backward = backward;
  if (backward) {
    agree = agree && is(in[5], kFloat32, {n, k * 2 * blocks_of(f) * kBlock}) && is(in[6], kFloat32, {n, d}) &&
            is(out[0], kFloat32, {n, d}) && is(out[1], kFloat32, {n, k}) &&
            is(out[2], kFloat32, {e, d, 2 * f}) && is(out[3], kFloat32, {e, f, d});
    if (!agree) return fail(frame, wrong);
    call.kept = numbers(in[5]), call.g = numbers(in[6]);
    call.dx = numbers(out[0]), call.dweights = numbers(out[1]);
    call.dgate_up = numbers(out[2]), call.ddown = numbers(out[3]);
  } else {
    agree = agree && is(out[0], kFloat32, {n, d});
    if (out.count == 2) agree = agree && is(out[1], kFloat32, {n, k * 2 * blocks_of(f) * kBlock});
    if (!agree) return fail(frame, wrong);
    call.y = numbers(out[0]);
    if (out.count == 2) call.kept = numbers(out[1]);
  }
  ember_experts s = {};
  s.version = EMBER_EXPERTS_VERSION;
  s.threads = frame->attributes.number("threads");
  s.tokens = n, s.slots = k, s.experts = e, s.width = d, s.hidden = f;
  const int status = start(&call, &s);
  return status ? fail(frame, ember_experts_error(status)) : nullptr;
}

}  // namespace
}  // namespace ember

extern "C" {

int ember_experts_forward(const ember_experts* sizes, const float* x, const int32_t* chosen,
                          const float* weights, const float* gate_up, const float* down, float* y,
                          float* kept) {
  ember::ExpertsCall call = {};
  call.x = x, call.chosen = chosen, call.weights = weights;
  call.gate_up = gate_up, call.down = down, call.y = y, call.kept = kept;
  return ember::start(&call, sizes);
}

int ember_experts_backward(const ember_experts* sizes, const float* x, const int32_t* chosen,
                           const float* weights, const float* gate_up, const float* down,
                           const float* kept, const float* g, float* dx, float* dweights,
                           float* dgate_up, float* ddown) {
  ember::ExpertsCall call = {};
  call.x = x, call.chosen = chosen, call.weights = weights;
  call.gate_up = gate_up, call.down = down, call.kept = const_cast<float*>(kept), call.g = g;
  call.dx = dx, call.dweights = dweights, call.dgate_up = dgate_up, call.ddown = ddown;
  call.backward = true;
  return ember::start(&call, sizes);
}

const char* ember_experts_error(int status) {
  if (status == ember::kNoSize) return "a number of slots, experts or columns is below 1";
  return ember::describe(status);
}

int ember_experts_version(void) { return EMBER_EXPERTS_VERSION; }

EMBER_API void* ember_experts_xla_forward(ember::xla::Frame* frame) {
  return ember::handle(frame, false);
}

EMBER_API void* ember_experts_xla_backward(ember::xla::Frame* frame) {
  return ember::handle(frame, true);
}

}  // extern "C"
