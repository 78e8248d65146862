// Transforms of a block's tile: rows (points of a transform) times lanes (transforms side by side).
//
// Forward, x^n - w^2 is split until all factors are linear (decimation in frequency); the inverse
// joins them again. Each pass takes R points a stride apart into registers and puts them back where
// they were, so that threads meet between passes alone, and nothing is ever sorted.
#pragma once

#include "tensor.h"

namespace ember {
namespace gpu {

// A tile of `rows` = first * 16^more points, more > 0. Where a transform is larger than its tile, the tile
// holds every `step`-th of its points, and its strides are as many times as long.
struct Tile {
  int rows, first, more;
  int lanes_log2;
  int step;

  EMBER_ANYWHERE int lanes() const { return 1 << lanes_log2; }
};

// A row of padding after 16 rows keeps what a warp reads in different banks of shared memory.
EMBER_ANYWHERE int padded(int row) { return row + (row >> 4); }

// Where tensor cores transform, a warp reads 4 rows of 4 columns, each the second one after the last:
// more padding, and lanes and rows exchanged by a row's bits, keep those apart.
EMBER_ANYWHERE int far_padded(int row) { return row + (row >> 4) + (row >> 8); }

EMBER_ANYWHERE int64_t tile_bytes(int rows, int lanes, bool tensor) {
  const int all = tensor ? (far_padded(rows - 1) | 1) + 1 : padded(rows - 1) + 1;
  return int64_t(all) * lanes * int64_t(sizeof(Complex));
}

// exp(2 pi i e / of), e < of
EMBER_DEVICE Complex root(int e, int of) {
  const int near = 2 * e > of ? e - of : e;
  return unit(float(near) * (2.0f / float(of)));
}

// The lane of a thread: its column of the tile, and its offset in units of the transform's points.
// Twisted transforms have the roots of i where others have those of 1, which costs their first pass
// other factors. With tensor cores, all passes but the first and those of stride 1 that are not in the
// middle are matrix products, for which a warp's threads share its columns in another way; a thread's
// columns are then of product_lane().
template <bool kTwisted, bool kTensor = false>
class Lane {
 public:
  EMBER_DEVICE Lane(const Thread& thread, const Tile& tile, int offset)
      : thread_(thread), tile_(tile), offset_(offset) {
    lane_ = thread.index() & (tile.lanes() - 1);
    exchanged_ = tile.lanes_log2 > 2 ? 12 : tile.lanes_log2 == 2 ? 4 : 0;
  }

  EMBER_DEVICE Complex get(int row) const { return thread_.get(place(row)); }
  EMBER_DEVICE void set(int row, Complex x) const { thread_.set(place(row), x); }

  EMBER_DEVICE int product_lane() const {
    const int warp = thread_.index() / kWarp;
    return ((thread_.index() >> 2 & 7) + 8 * warp) & (tile_.lanes() - 1);
  }
  EMBER_DEVICE void barrier() const { thread_.barrier(); }

  // Calls f(butterfly) for those of this thread.
  template <class F>
  EMBER_DEVICE void each(int radix, F f) const {
    const int together = thread_.count() >> tile_.lanes_log2;
    const int count = tile_.rows / radix;
    for (int i = thread_.index() >> tile_.lanes_log2; i < count; i += together) f(i);
  }

  // One pass: splits each block of R * stride rows into R, or joins them.
  template <int R, bool kInverse, bool kTwist, class Load, class Store>
  EMBER_DEVICE void pass(int stride, Load load, Store store) const {
    each(R, [&](int i) {
      const int inner = i & (stride - 1);  // strides are powers of 16
      const int row = (i - inner) * R + inner;
      const int t = inner * tile_.step + offset_, length = R * stride * tile_.step;
      Complex v[R];
      static_for<R>([&](auto r) { v[r] = load(row + r * stride); });
      const bool turns = length > R || kTwist;
      if constexpr (kInverse) {
        if (turns) turn<R, true, kTwist>(v, t, length);
        Dft<R, true>::run(v);
        if constexpr (kTwist) {
          static_for<R>([&](auto r) { v[r] = turned<decltype(r)::value, 4 * R, true>(v[r]); });
        }
      } else {
        if constexpr (kTwist) {
          static_for<R>([&](auto r) { v[r] = turned<decltype(r)::value, 4 * R, false>(v[r]); });
        }
        Dft<R, false>::run(v);
        if (turns) turn<R, false, kTwist>(v, t, length);
      }
      static_for<R>([&](auto r) { store(row + r * stride, v[r]); });
    });
  }

  // All passes forward. `load` gives the tile's rows, `store` takes them.
  template <class Load, class Store>
  EMBER_DEVICE void forward(Load load, Store store) const {
    inward(load);
    barrier();
    pass<16, false, false>(1, from(), store);
  }

  template <class Load, class Store>
  EMBER_DEVICE void inverse(Load load, Store store) const {
    pass<16, true, false>(1, load, to());
    barrier();
    outward(store);
  }

  // Forward, `middle` on the spectrum, and back. `middle` takes a row and its 16 points; with tensor
  // cores, a row and its point. The last pass forward and the
  // first one back do not leave the registers.
  template <class Load, class Middle, class Store>
  EMBER_DEVICE void round_trip(Load load, Middle middle, bool returns, Store store) const {
    inward(load);
    barrier();
    if constexpr (kTensor) {
      product_middle(middle, returns);
    } else {
      each(16, [&](int i) {
        Complex v[16];
        static_for<16>([&](auto r) { v[r] = get(16 * i + r); });
        Dft<16, false>::run(v);
        middle(16 * i, v);
        if (!returns) return;
        Dft<16, true>::run(v);
        static_for<16>([&](auto r) { set(16 * i + r, v[r]); });
      });
    }
    if (!returns) return;
    barrier();
    outward(store);
  }

 private:
  struct From {
    const Lane& lane;
    EMBER_DEVICE Complex operator()(int row) const { return lane.get(row); }
  };
  struct To {
    const Lane& lane;
    EMBER_DEVICE void operator()(int row, Complex x) const { lane.set(row, x); }
  };
  EMBER_DEVICE From from() const { return {*this}; }
  EMBER_DEVICE To to() const { return {*this}; }

  EMBER_DEVICE int place(int row) const {
    return kTensor ? far_place(far_padded(row), lane_) : (padded(row) << tile_.lanes_log2) + lane_;
  }
  EMBER_DEVICE int far_place(int row, int lane) const {
    return ((row << tile_.lanes_log2) + lane) ^ (((row & 2) << 2 | (row & 4)) & exchanged_);
  }

  // One of a thread's columns in a product: its butterfly, and where its points lie.
  struct Column {
    int inner, row;
    int places[4];
  };

  EMBER_DEVICE Column column_of(int set, int column, int stride) const {
    // Of the 16 columns two of each lane, or more where the tile has fewer than 8 lanes.
    const int n = thread_.index() >> 2 & 7, log2 = tile_.lanes_log2, apart = far_padded(stride);
    const int i = log2 < 3 ? (kColumns * set + 8 * column + n) >> log2 : 2 * (set >> (log2 - 3)) + column;
    Column c;
    c.inner = i & (stride - 1);
    c.row = (i - c.inner) * 16 + c.inner;
    const int first = far_padded(c.row) + 2 * (thread_.index() & 3) * apart;
    const int far = 8 * apart << tile_.lanes_log2;  // as many rows as keep the row's last bits
    static_for<2>([&](auto r) {
      c.places[r] = far_place(first + r * apart, product_lane());
      c.places[r + 2] = c.places[r] + far;
    });
    return c;
  }

  // Calls f(set) for the sets of columns of this warp.
  template <class F>
  EMBER_DEVICE void each_set(F f) const {
    const int sets = (tile_.rows << tile_.lanes_log2) / (16 * kColumns);
    for (int set = thread_.index() / kWarp; set < sets; set += thread_.count() / kWarp) f(set);
  }

  EMBER_DEVICE void get(const Column (&columns)[2], Complex (&v)[2][4]) const {
    static_for<8>([&](auto i) { v[i & 1][i >> 1] = thread_.get(columns[i & 1].places[i >> 1]); });
  }
  EMBER_DEVICE void set(const Column (&columns)[2], const Complex (&v)[2][4]) const {
    static_for<8>([&](auto i) { thread_.set(columns[i & 1].places[i >> 1], v[i & 1][i >> 1]); });
  }

  // A pass in the tile, as matrix products.
  template <bool kInverse>
  EMBER_DEVICE void product_pass(int stride) const {
    const Matrices<kInverse> matrices(thread_);
    const float angle = 0.125f / float(stride * tile_.step);  // of a point, in half turns
    const int q = 2 * (thread_.index() & 3);
    Complex turns[2][4] = {};
    int turned[2] = {-1, -1};
    each_set([&](int set) {
      const Column columns[2] = {column_of(set, 0, stride), column_of(set, 1, stride)};
      static_for<2>([&](auto c) {
        const int t = columns[c].inner * tile_.step + offset_;
        if (t == turned[c]) return;
        turned[c] = t;
        static_for<4>([&](auto r) {
          // Less than two half turns; one is taken away and comes back as the sign.
          const Complex w = near_unit(float((q + r % 2 + r / 2 * 8) * t) * angle - 1.0f);
          turns[c][r] = {-w.re, kInverse ? w.im : -w.im};
        });
      });
      Complex v[2][4];
      get(columns, v);
      if constexpr (kInverse) static_for<8>([&](auto i) { turn(v, turns, i); });
      matrices.run(thread_, v);
      if constexpr (!kInverse) static_for<8>([&](auto i) { turn(v, turns, i); });
      this->set(columns, v);
    });
  }
  EMBER_DEVICE static void turn(Complex (&v)[2][4], const Complex (&turns)[2][4], int i) {
    v[i & 1][i >> 1] = v[i & 1][i >> 1] * turns[i & 1][i >> 1];
  }

  template <class Middle>
  EMBER_DEVICE void product_middle(Middle middle, bool returns) const {
    const Matrices<false> forward(thread_);
    const Matrices<true> back(thread_);
    const int first = 2 * (thread_.index() & 3);
    each_set([&](int set) {
      const Column columns[2] = {column_of(set, 0, 1), column_of(set, 1, 1)};
      Complex v[2][4];
      get(columns, v);
      forward.run(thread_, v);
      static_for<8>([&](auto i) {
        constexpr int column = i & 1, r = i >> 1;
        middle(columns[column].row + first + r % 2 + r / 2 * 8, v[column][r]);
      });
      if (!returns) return;
      back.run(thread_, v);
      this->set(columns, v);
    });
  }

  template <bool kInverse>
  EMBER_DEVICE void inner_pass(int stride) const {
    if constexpr (kTensor) {
      product_pass<kInverse>(stride);
    } else {
      pass<16, kInverse, false>(stride, from(), to());
    }
  }

  // All passes but those of stride 1.
  template <class Load>
  EMBER_DEVICE void inward(Load load) const {
    int stride = tile_.rows / tile_.first;
    first<false>(stride, load, to());
    for (stride /= 16; stride > 1; stride /= 16) {
      barrier();
      inner_pass<false>(stride);
    }
  }
  template <class Store>
  EMBER_DEVICE void outward(Store store) const {
    const int widest = tile_.rows / tile_.first;
    for (int stride = 16; stride < widest; stride *= 16) {
      inner_pass<true>(stride);
      barrier();
    }
    first<true>(widest, from(), store);
  }

  // Multiplies by the factors w^q, or w^(q + 1/4), w = exp(2 pi i t / length).
  template <int R, bool kConjugate, bool kTwist>
  EMBER_DEVICE static void turn(Complex (&v)[R], int t, int length) {
    const auto power = [&](int e) {
      const Complex w = root(e, 4 * length);
      return kConjugate ? conjugate(w) : w;
    };
    const Complex w = power(4 * t);
    const Complex square = w * w;
    const Complex low[4] = {{1, 0}, w, square, square * w};
    Complex high = {1, 0}, leap = {1, 0};
    if constexpr (kTwist) high = power(t);
    if constexpr (R > 4) {
      int e = 4 * t;
      if (e >= 2 * length) e -= 2 * length;
      if (e >= length) e -= length;
      leap = power(4 * e);
    }
    static_for<R>([&](auto at) {
      constexpr int q = decltype(at)::value;
      if constexpr (q == 4 && !kTwist) high = leap;
      if constexpr (q % 4 == 0 && q > (kTwist ? 0 : 4)) high = high * leap;
      if constexpr (!kTwist && q < 4) {
        if constexpr (q > 0) v[q] = v[q] * low[q];
      } else if constexpr (q % 4 == 0) {
        v[q] = v[q] * high;
      } else {
        v[q] = v[q] * (high * low[q % 4]);
      }
    });
  }

  template <bool kInverse, class Load, class Store>
  EMBER_DEVICE void first(int stride, Load load, Store store) const {
    switch (tile_.first) {
      case 2: return pass<2, kInverse, kTwisted>(stride, load, store);
      case 3: return pass<3, kInverse, kTwisted>(stride, load, store);
      case 4: return pass<4, kInverse, kTwisted>(stride, load, store);
      case 6: return pass<6, kInverse, kTwisted>(stride, load, store);
      case 8: return pass<8, kInverse, kTwisted>(stride, load, store);
      case 12: return pass<12, kInverse, kTwisted>(stride, load, store);
      default: return pass<16, kInverse, kTwisted>(stride, load, store);
    }
  }

  const Thread& thread_;
  const Tile& tile_;
  int offset_;
  int lane_;
  int exchanged_;
};

}  // namespace gpu
}  // namespace ember
