// The transform of 16 points as a product of matrices on tensor cores: a warp transforms 16 columns
// at once, in registers.
//
// Sums and differences of the points 8 apart leave two transforms of 8 complex points, each of which
// is one real matrix, (16, 16). Numbers go in as two bfloat16 each, which have float32's range and
// together 16 bits; of the four products of a number's parts with a matrix's, three are made, summed
// in float32.
//
// Thread t of the four that share a column has its points 2t, 2t + 1, 2t + 8 and 2t + 9, before the
// transform and after it: that is where mma.m16n8k16 wants and leaves them. With n of the group of
// four, columns n and n + 8 of the 16 are its own.
#pragma once

#include "dft.h"

namespace ember {
namespace gpu {

constexpr int kColumns = 16;  // that a warp transforms at once

// Two real numbers as pairs of bfloat16: their leading bits, and what these lack.
struct Parts {
  uint32_t high, low;
};

EMBER_DEVICE Parts parts_of(Complex x) {
  const Complex high = {leading(x.re), leading(x.im)};
  return {pair(high), pair(x - high)};
}

// A thread's part of the matrices. Of both of its numbers in each, the second, or both in the second
// half of the results, differ from others by a sign.
template <bool kInverse>
class Matrices {
 public:
  EMBER_DEVICE explicit Matrices(const Thread& thread) {
    const int n = thread.index() >> 2 & 7, t = thread.index() & 3;
    static_for<4>([&](auto i) {
      constexpr int odd = i & 1, second = i >> 1;
      const int point = 2 * (kInverse ? n >> 1 : t) + second;
      const int of = 2 * (kInverse ? t : n >> 1) + odd;
      Complex w = near_unit(float(((point * of + 8) & 15) - 8) * 0.125f);
      if (kInverse) w = conjugate(w);
      entries_[odd][second] = parts_of(n & 1 ? Complex{w.im, w.re} : Complex{w.re, -w.im});
    });
  }

  // Transforms a thread's points of both of its columns. All threads of a warp call it.
  EMBER_DEVICE void run(const Thread& thread, Complex (&v)[2][4]) const {
    Complex out[2][2][2];  // odd, column, block
    static_for<2>([&](auto odd) {
      Left high, low;
      static_for<4>([&](auto i) {
        constexpr int column = i & 1, half = i >> 1;
        const Complex* const x = v[column];
        const Parts parts = parts_of(kInverse ? x[2 * half + odd]
                                     : odd    ? x[half] - x[half + 2]
                                              : x[half] + x[half + 2]);
        high.words[i] = parts.high;
        low.words[i] = parts.low;
      });
      static_for<2>([&](auto block) {
        Sums sums = {{0, 0, 0, 0}};
        const Parts first = entries_[odd][kInverse ? block : 0];
        Parts second = entries_[odd][kInverse ? block : 1];
        if (block) second = {second.high ^ kSigns, second.low ^ kSigns};
        thread.multiply(low, {{first.high, second.high}}, sums);
        thread.multiply(high, {{first.low, second.low}}, sums);
        thread.multiply(high, {{first.high, second.high}}, sums);
        static_for<2>([&](auto column) {
          out[odd][column][block] = {sums.x[2 * column], sums.x[2 * column + 1]};
        });
      });
    });
    static_for<4>([&](auto i) {
      constexpr int column = i & 1, block = i >> 1;
      const Complex even = out[0][column][block], odd = out[1][column][block];
      v[column][kInverse ? block : 2 * block] = kInverse ? even + odd : even;
      v[column][kInverse ? block + 2 : 2 * block + 1] = kInverse ? even - odd : odd;
    });
  }

 private:
  static constexpr uint32_t kSigns = 0x80008000;
  Parts entries_[2][2];  // odd; second point, or of the inverse second block of 8 results
};

}  // namespace gpu
}  // namespace ember
