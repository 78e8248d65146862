// The C interface of grouped products: checks, scratch, the choice of an instruction set; and the
// handlers of XLA.
#include "../grouped.h"

#include <cstdint>
#include <cstdlib>
#include <initializer_list>

#include "../check.h"
#include "../xla.h"
#include "grouped_call.h"
#include "isa.h"

namespace ember {
namespace {

constexpr int kMostThreads = 1024;
constexpr int kOffsets = 100;  // Behind the codes of ember_status.

Work find_work(int isa) { return choose(isa, EMBER_FORMS(grouped_work)); }

int check_sizes(const ember_grouped* s) {
  if (!s) return EMBER_NULL_POINTER;
  if (s->version != EMBER_GROUPED_VERSION) return EMBER_UNKNOWN_VERSION;
  if (s->isa < EMBER_ISA_BEST || s->isa > EMBER_ISA_AVX512) return EMBER_UNKNOWN_ISA;
  if (!find_work(s->isa)) return EMBER_ISA_NOT_AVAILABLE;
  if (s->threads < 1) return EMBER_NO_THREADS;
  int64_t bytes;
  for (const int64_t size : {s->rows, s->groups, s->inner, s->width}) {
    if (size < 0) return EMBER_NEGATIVE_SIZE;
  }
  if (s->rows > INT32_MAX || s->groups >= INT32_MAX) return EMBER_SIZE_OVERFLOW;
  for (const int64_t columns : {s->inner, s->width}) {
    if (__builtin_mul_overflow(s->rows, columns, &bytes) || __builtin_mul_overflow(bytes, 4, &bytes)) {
      return EMBER_SIZE_OVERFLOW;
    }
  }
  if (__builtin_mul_overflow(s->inner, s->width, &bytes) ||
      __builtin_mul_overflow(bytes, s->groups, &bytes) || __builtin_mul_overflow(bytes, 4, &bytes)) {
    return EMBER_SIZE_OVERFLOW;
  }
  return EMBER_OK;
}

// What is wrong with the offsets would be read or written past an end.
int check_offsets(const ember_grouped& s, const int32_t* offsets) {
  if (!offsets) return EMBER_NULL_POINTER;
  int64_t before = 0;
  for (int64_t e = 0; e <= s.groups; ++e) {
    if (offsets[e] < before || offsets[e] > s.rows) return kOffsets;
    before = offsets[e];
  }
  return EMBER_OK;
}

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

int run(GroupedCall* call) {
  const ember_grouped& s = call->sizes;
  const int64_t threads = s.threads < kMostThreads ? s.threads : kMostThreads;
  if (call->weights) {
    // Where there are fewer groups than it takes to keep all threads busy, matrices are cut.
    const int64_t parts = s.groups ? (4 * threads + s.groups - 1) / s.groups : 1;
    call->chunk = parts > 1 && threads > 1 ? round_up((s.inner + parts - 1) / parts, 48) : s.inner;
    call->pieces = s.groups * ((s.inner + call->chunk - 1) / call->chunk);
  } else {
    call->chunk = kMostRows;
    if (threads > 1 && s.rows / (4 * threads) < kMostRows) {
      call->chunk = round_up(s.rows / (4 * threads) + 1, 48);
    }
    call->pieces = 0;
    for (int64_t e = 0; e < s.groups; ++e) {
      call->pieces += (call->offsets[e + 1] - call->offsets[e] + call->chunk - 1) / call->chunk;
    }
  }
  call->share = 4 * kPackedFloats;
  const int64_t team = threads < call->pieces ? threads : call->pieces > 0 ? call->pieces : 1;
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, size_t(call->share * team))) return EMBER_OUT_OF_MEMORY;
  call->scratch = static_cast<char*>(memory);
  int64_t next = 0;
  call->next = &next;
  run_team(int(team), find_work(s.isa), call);
  free(memory);
  return EMBER_OK;
}

int start(const ember_grouped* sizes, const float* x, const float* w, const int32_t* offsets,
          float* y, bool weights) {
  int status = check_sizes(sizes);
  if (!status) status = check_offsets(*sizes, offsets);
  if (status) return status;
  const ember_grouped& s = *sizes;
  const int64_t written = weights ? s.groups * s.inner * s.width : s.rows * s.width;
  if (written == 0) return EMBER_OK;
  const bool reads = weights ? s.rows > 0 : s.rows > 0 && s.inner > 0;
  if (!y || (reads && !x) || (!w && (weights ? s.rows > 0 : s.groups > 0 && s.inner > 0))) {
    return EMBER_NULL_POINTER;
  }
  if (s.inner == 0) {  // Sums of nothing.
    for (int64_t i = 0; i < written; ++i) y[i] = 0;
    return EMBER_OK;
  }
  GroupedCall call = {};
  call.sizes = s;
  call.x = x, call.w = w, call.offsets = offsets, call.y = y, call.weights = weights;
  return run(&call);
}

using namespace xla;

constexpr int kFloat32 = 11, kInt32 = 4;

void* fail(const Frame* frame, const char* message) {
  ErrorArguments arguments = {sizeof(ErrorArguments), nullptr, message, kInvalidArgument};
  return frame->api->make_error(&arguments);
}

bool is(const Buffer& b, int type, int64_t rank) { return b.type == type && b.rank == rank; }

// Arguments x, w or g, offsets; the result y or dw. The attributes are `transposed` and `threads`.
void* handle(Frame* frame, bool weights) {
  if (frame->extension && frame->extension->type == kMetadata) {
    Metadata* metadata = reinterpret_cast<MetadataExtension*>(frame->extension)->metadata;
    metadata->version.major = 0;
    metadata->version.minor = 1;
    return nullptr;
  }
  if (frame->stage != kExecute) return nullptr;
  const Buffers &in = frame->arguments, &out = frame->results;
  const char* wrong = "grouped_matmul: its buffers do not go together";
  // TensorFlow hands over the shapes of results as arguments as well: they are not read.
  if (in.count < 3 || out.count != 1) return fail(frame, wrong);
  const Buffer &x = in[0], &w = in[1], &offsets = in[2], &y = out[0];
  if (!is(x, kFloat32, 2) || !is(w, kFloat32, weights ? 2 : 3) || !is(offsets, kInt32, 1) ||
      !is(y, kFloat32, weights ? 3 : 2)) {
    return fail(frame, wrong);
  }
  ember_grouped s = {};
  s.version = EMBER_GROUPED_VERSION;
  s.transposed = int32_t(frame->attributes.number("transposed"));
  s.threads = int32_t(frame->attributes.number("threads"));
  s.rows = x.sizes[0], s.inner = x.sizes[1];
  s.groups = offsets.sizes[0] - 1;
  s.width = weights ? w.sizes[1] : y.sizes[1];
  const int64_t a = s.transposed ? s.width : s.inner, b = s.transposed ? s.inner : s.width;
  const bool agree =
      weights ? w.sizes[0] == s.rows && y.sizes[0] == s.groups && y.sizes[1] == s.inner &&
                    y.sizes[2] == s.width
              : w.sizes[0] == s.groups && w.sizes[1] == a && w.sizes[2] == b && y.sizes[0] == s.rows;
  if (s.groups < 0 || !agree) return fail(frame, wrong);
  const int status = start(&s, static_cast<float*>(x.data), static_cast<float*>(w.data),
                           static_cast<int32_t*>(offsets.data), static_cast<float*>(y.data), weights);
  return status ? fail(frame, ember_grouped_error(status)) : nullptr;
}

}  // namespace
}  // namespace ember

extern "C" {

int ember_grouped_rows(const ember_grouped* call, const float* x, const float* w,
                       const int32_t* offsets, float* y) {
  return ember::start(call, x, w, offsets, y, false);
}

int ember_grouped_weights(const ember_grouped* call, const float* x, const float* g,
                          const int32_t* offsets, float* dw) {
  return ember::start(call, x, g, offsets, dw, true);
}

const char* ember_grouped_error(int status) {
  if (status == ember::kOffsets) {
    return "the offsets decrease, or lie outside of 0 and the number of rows";
  }
  return ember::describe(status);
}

int ember_grouped_version(void) { return EMBER_GROUPED_VERSION; }

EMBER_API void* ember_grouped_xla_rows(ember::xla::Frame* frame) {
  return ember::handle(frame, false);
}

EMBER_API void* ember_grouped_xla_weights(ember::xla::Frame* frame) {
  return ember::handle(frame, true);
}

}  // extern "C"
