// Transforms of 256 points in the registers of a warp, as products of matrices on tensor cores.
//
// Two times 16 points, each with even and odd ones apart: a transform of 8 complex points is one real
// matrix, (16, 16), and sums and differences join them. Numbers go in as two bfloat16 each, which have
// float32's range and together 16 bits; of the four products of a number's parts with a matrix's the
// three largest are made, and summed in float.
//
// Thread 4 g + t of a warp has rows g and g + 8 of 16, and in each the points 2 t, 2 t + 1, 2 t + 8
// and 2 t + 9: that is how mma.m16n8k16 takes numbers and leaves them. `along` transforms rows, and
// leaves the results where the points were. `across` transforms rows too, and leaves them in columns:
// rows are the results then, and points the rows that were.
#pragma once

#include "dft.h"

namespace ember {
namespace gpu {

constexpr int kBlockPoints = 256;  // of a warp's transform
constexpr int kOwn = 8;            // points of a thread

using Points = Complex[2][4];

// One of a thread's points: 2 t plus so much.
EMBER_ANYWHERE constexpr int point_of(int i) { return i % 2 + i / 2 * 8; }

// Two real numbers as pairs of bfloat16: the nearest, and what these lack.
struct Parts {
  uint32_t high, low;
};

EMBER_DEVICE Parts parts_of(Complex x) {
  const uint32_t high = pair(x);
  return {high, pair(x - of_pair(high))};
}
EMBER_DEVICE Parts flipped(Parts x, uint32_t signs) { return {x.high ^ signs, x.low ^ signs}; }

class Matrices {
 public:
  EMBER_DEVICE explicit Matrices(const Thread& thread) : thread_(thread) {
    const int g = thread.lane() / 4, t = thread.lane() % 4;
    static_for<2>([&](auto odd) {
      static_for<2>([&](auto second) {
        const Complex w = near_unit(wrapped((g & 6) + second, 2 * t + odd, 16));
        along_[odd][second] = parts_of(g & 1 ? Complex{w.im, w.re} : Complex{w.re, -w.im});
      });
      const Complex w = near_unit(wrapped(g, 2 * t + odd, 16));
      across_[odd][0] = parts_of({w.re, -w.im});
      across_[odd][1] = parts_of({w.im, w.re});
    });
    static_for<kOwn>([&](auto i) {
      turns_[i / 4][i % 4] = near_unit(wrapped(g + i / 4 * 8, 2 * t + point_of(i % 4), 256));
    });
    real_ = g & 1 ? kLower : kUpper;
    uneven_ = g & 1 ? kLower | kUpper : 0;
  }

  EMBER_DEVICE void forward(Points& v) const {
    across<false>(v);
    static_for<kOwn>([&](auto i) { v[i / 4][i % 4] = v[i / 4][i % 4] * turns_[i / 4][i % 4]; });
    along<false>(v);
  }
  EMBER_DEVICE void inverse(Points& v) const {
    across<true>(v);
    static_for<kOwn>([&](auto i) {
      v[i / 4][i % 4] = v[i / 4][i % 4] * conjugate(turns_[i / 4][i % 4]);
    });
    along<true>(v);
  }

 private:
  // a b / of in half turns, from -1 to 1
  static EMBER_DEVICE float wrapped(int a, int b, int of) {
    return float(((a * b + of / 2) & (of - 1)) - of / 2) * (2.0f / float(of));
  }

  template <bool kInverse>
  EMBER_DEVICE void along(Points& v) const {
    Complex sums[2][2][2];  // odd, row, block of results
    static_for<2>([&](auto odd) {
      Left high, low;
      static_for<4>([&](auto i) {
        const Parts parts = parts_of(v[i % 2][i / 2 * 2 + odd]);
        high.words[i] = parts.high;
        low.words[i] = parts.low;
      });
      static_for<2>([&](auto block) {
        const Parts a = kInverse ? flipped(along_[odd][block], real_) : along_[odd][block];
        const Parts b = block ? flipped(a, kLower | kUpper) : a;
        Sums s = {{0, 0, 0, 0}};
        thread_.multiply(low, {{a.high, b.high}}, s);
        thread_.multiply(high, {{a.low, b.low}}, s);
        thread_.multiply(high, {{a.high, b.high}}, s);
        sums[odd][0][block] = {s.x[0], s.x[1]};
        sums[odd][1][block] = {s.x[2], s.x[3]};
      });
    });
    static_for<4>([&](auto i) {
      constexpr int row = i / 2, block = i % 2;
      v[row][block] = sums[0][row][block] + sums[1][row][block];
      v[row][block + 2] = sums[0][row][block] - sums[1][row][block];
    });
  }

  template <bool kInverse>
  EMBER_DEVICE void across(Points& v) const {
    Complex sums[2][4];  // odd, point
    static_for<2>([&](auto odd) {
      const Parts a = flipped(across_[odd][0], kInverse ? kUpper : 0);
      const Parts b = flipped(across_[odd][1], kInverse ? kLower : 0);
      const Parts c = flipped(a, uneven_), d = flipped(b, uneven_);
      const Left high = {{a.high, b.high, c.high, d.high}}, low = {{a.low, b.low, c.low, d.low}};
      static_for<2>([&](auto row) {
        const Parts first = parts_of(v[row][odd]), second = parts_of(v[row][odd + 2]);
        Sums s = {{0, 0, 0, 0}};
        thread_.multiply(high, {{first.low, second.low}}, s);
        thread_.multiply(low, {{first.high, second.high}}, s);
        thread_.multiply(high, {{first.high, second.high}}, s);
        sums[odd][2 * row] = {s.x[0], s.x[2]};
        sums[odd][2 * row + 1] = {s.x[1], s.x[3]};
      });
    });
    static_for<4>([&](auto i) {
      v[0][i] = sums[0][i] + sums[1][i];
      v[1][i] = sums[0][i] - sums[1][i];
    });
  }

  static constexpr uint32_t kUpper = 0x80000000, kLower = 0x8000;  // signs of a pair

  const Thread& thread_;
  // Of even and odd points. Along: for the first block of 8 results and the second. Across: for real
  // and imaginary results.
  Parts along_[2][2], across_[2][2];
  Points turns_;
  uint32_t real_, uneven_;  // signs that differ in the inverse, and in the second point of a column
};

}  // namespace gpu
}  // namespace ember
