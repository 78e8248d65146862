// Products tap by tap: faster than transforms where a filter has few taps.
#pragma once

#include "vector.h"

namespace ember {
namespace EMBER_ISA {

constexpr int kTogether = 8;  // sums that are kept in registers

// Positions of whole sums: those past `count` are read as zeros, computed and dropped.
EMBER_INLINE int64_t whole(int64_t count) {
  return (count + kTogether - 1) / kTogether * kTogether;
}

// y_t = sum_s k_s x_(t - s) for whole(count) positions; x begins taps - 1 positions before y.
// With kReversed, y_t = sum_s k_s x_(t + s), and x begins where y does.
template <bool kReversed, class R>
void apply_taps(const Vector<R>* x, const Vector<R>* k, int64_t taps, Vector<R>* y,
                int64_t count) {
  for (int h = 0; h < kParts; ++h) {
    for (int64_t t = 0; t < count; t += kTogether) {
      Vector<R> sums[kTogether] = {};
      for (int64_t s = 0; s < taps; ++s) {
        const Vector<R> w = k[s * kParts + h];
        const Vector<R>* from = x + (t + (kReversed ? s : taps - 1 - s)) * kParts + h;
#pragma GCC unroll 8
        for (int i = 0; i < kTogether; ++i) sums[i] += w * from[i * kParts];
      }
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) y[(t + i) * kParts + h] = sums[i];
    }
  }
}

// sum_s += sum_p x_p g_(p + s) over `count` positions p.
template <class R>
void add_products(const Vector<R>* x, const Vector<R>* g, int64_t taps, Vector<R>* sum,
                  int64_t count) {
  for (int h = 0; h < kParts; ++h) {
    for (int64_t s = 0; s < taps; s += kTogether) {
      // The last sums may reach past the taps: they are computed and dropped.
      Vector<R> sums[kTogether] = {};
      for (int64_t p = 0; p < count; ++p) {
        const Vector<R> w = x[p * kParts + h];
        const Vector<R>* from = g + (p + s) * kParts + h;
#pragma GCC unroll 8
        for (int i = 0; i < kTogether; ++i) sums[i] += w * from[i * kParts];
      }
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) {
        if (s + i < taps) sum[(s + i) * kParts + h] += sums[i];
      }
    }
  }
}

}  // namespace EMBER_ISA
}  // namespace ember
