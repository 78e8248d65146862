#include "check.h"

#include <initializer_list>

namespace ember {
namespace {

constexpr int64_t kMost = int64_t(1) << 40;  // of any size or position

// Whether every element of an array lies within an int64 of bytes from its first.
bool reaches(const ember_fft_conv& c, const ember_strides& s, int64_t time) {
  const auto far = [](int64_t stride, int64_t count) {
    const __int128 x = __int128(stride) * (count > 0 ? count : 1);
    return x < 0 ? -x : x;
  };
  const __int128 all = far(s.batch, c.batch) + far(s.time, time) + far(s.channel, c.width);
  return all < (int64_t(1) << 59);
}

}  // namespace

int check(const ember_fft_conv& c) {
  if (c.version != EMBER_FFT_CONV_VERSION) return EMBER_UNKNOWN_VERSION;
  if (c.dtype < EMBER_FLOAT32 || c.dtype > EMBER_BFLOAT16) return EMBER_UNKNOWN_DTYPE;
  const bool half = c.dtype == EMBER_FLOAT16 || c.dtype == EMBER_BFLOAT16;
  if (c.filter_dtype != c.dtype && !(half && c.filter_dtype == EMBER_FLOAT32)) {
    return EMBER_UNKNOWN_DTYPE;
  }
  const int64_t sizes[] = {c.batch, c.width, c.filters, c.size, c.taps, c.start, c.length, c.period};
  __int128 points = 1;
  for (const int64_t size : sizes) {
    if (size < 0) return EMBER_NEGATIVE_SIZE;
    if (size > kMost) return EMBER_SIZE_OVERFLOW;
  }
  if (c.skip > kMost || c.skip < -kMost) return EMBER_SIZE_OVERFLOW;
  const int64_t longest = c.size > c.length ? c.size : c.length;
  points = __int128(c.batch) * c.width;
  if (points > kMost || points * longest > (int64_t(1) << 59)) return EMBER_SIZE_OVERFLOW;
  if (c.filters == 0 ? c.width != 0 : c.width % c.filters != 0) {
    return EMBER_FILTERS_DO_NOT_DIVIDE_WIDTH;
  }
  if (c.taps == 0) return EMBER_NO_TAPS;
  if (c.period && (c.size > c.period || c.taps > c.period || c.length > c.period)) {
    return EMBER_PERIOD_TOO_SHORT;
  }
  const ember_strides filters[] = {{0, c.k_tap, c.k_filter}, {0, c.dk_tap, c.dk_filter}};
  for (const ember_strides& s : filters) {
    if (!reaches(c, s, c.taps)) return EMBER_SIZE_OVERFLOW;
  }
  for (const ember_strides* s : {&c.u, &c.gate_in, &c.du, &c.dgate_in}) {
    if (!reaches(c, *s, c.size)) return EMBER_SIZE_OVERFLOW;
  }
  for (const ember_strides* s : {&c.y, &c.gate_out, &c.g, &c.dgate_out}) {
    if (!reaches(c, *s, c.length)) return EMBER_SIZE_OVERFLOW;
  }
  return EMBER_OK;
}

const char* describe(int status) {
  switch (status) {
    case EMBER_OK: return "all went well";
    case EMBER_NULL_POINTER: return "a pointer that is needed is null";
    case EMBER_NEGATIVE_SIZE: return "a size is negative";
    case EMBER_SIZE_OVERFLOW: return "the sizes or strides are too large";
    case EMBER_UNKNOWN_DTYPE: return "a dtype is unknown, or those of signal and filter do not go together";
    case EMBER_FILTERS_DO_NOT_DIVIDE_WIDTH: return "the number of filters does not divide the width";
    case EMBER_NO_TAPS: return "the filter has no taps";
    case EMBER_PERIOD_TOO_SHORT: return "the period is shorter than the signal, the filter or the window";
    case EMBER_UNKNOWN_ISA: return "the instruction set is unknown";
    case EMBER_ISA_NOT_AVAILABLE: return "this machine or this build lacks the instruction set";
    case EMBER_OUT_OF_MEMORY: return "there is no memory for the scratch";
    case EMBER_SCRATCH_TOO_SMALL:
      return "the scratch is smaller than ember_fft_conv_scratch asks, or begins between multiples of "
             "64 bytes";
    case EMBER_UNKNOWN_PASS: return "the pass is neither forward nor backward";
    case EMBER_NO_THREADS: return "the number of threads is below 1";
    case EMBER_UNKNOWN_VERSION: return "the caller was made for another version of this library";
    case EMBER_MISALIGNED: return "a pointer is not aligned to its elements";
    case EMBER_CARD_FAILED: return "the graphics card refused a kernel";
    default: return "an unknown error code";
  }
}

}  // namespace ember
