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

// Where tensor cores transform, one lane follows the other, with two rows of padding after 16, and as
// many between lanes as keep what a warp reads apart.
EMBER_ANYWHERE int far_padded(int row) { return row + (row >> 4) * 2; }
EMBER_ANYWHERE int pitch_of(int rows, int lanes) {
  const int all = far_padded(rows), apart = lanes > 16 ? 1 : 16 / lanes;
  return all + ((apart - all) & 15);
}

EMBER_ANYWHERE int64_t tile_bytes(int rows, int lanes, bool tensor) {
  const int each = tensor ? pitch_of(rows, lanes) : padded(rows - 1) + 1;
  return int64_t(each) * lanes * int64_t(sizeof(Complex));
}

// exp(2 pi i e / of), e < of
EMBER_DEVICE Complex root(int e, int of) {
  const int near = 2 * e > of ? e - of : e;
  return unit(float(near) * (2.0f / float(of)));
}

// The lane of a thread: its column of the tile, and its offset in units of the transform's points.
// Twisted transforms have the roots of i where others have those of 1, which costs their first pass
// other factors. With tensor cores, warps make the passes of strides 16 and 1 in registers, one lane's
// 256 points after the other's; spectra are in their threads' order then, 256 numbers of a lane side
// by side.
template <bool kTwisted, bool kTensor = false>
class Lane {
 public:
  EMBER_DEVICE Lane(const Thread& thread, const Tile& tile, int offset)
      : thread_(thread), tile_(tile), offset_(offset) {
    lane_ = thread.index() & (tile.lanes() - 1);
    if constexpr (kTensor) lane_ *= pitch_of(tile.rows, tile.lanes());
  }

  EMBER_DEVICE Complex get(int row) const { return thread_.get(place(row)); }
  EMBER_DEVICE void set(int row, Complex x) const { thread_.set(place(row), x); }
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

  // All passes forward. `load` gives the tile's rows, `store` takes them; with tensor cores it takes
  // a spectrum's number, 0 for the first of this thread's.
  template <class Load, class Store>
  EMBER_DEVICE void forward(Load load, Store store) const {
    inward(load);
    barrier();
    if constexpr (kTensor) {
      const Matrices matrices(thread_);
      each_block([&](int lane, int block, int at) {
        Points v;
        get(at, v);
        matrices.forward(v);
        static_for<kOwn>([&](auto i) { store(number(i, lane, block), v[i / 4][i % 4]); });
      });
    } else {
      pass<16, false, false>(1, from(), store);
    }
  }

  template <class Load, class Store>
  EMBER_DEVICE void inverse(Load load, Store store) const {
    if constexpr (kTensor) {
      const Matrices matrices(thread_);
      each_block([&](int lane, int block, int at) {
        Points v;
        static_for<kOwn>([&](auto i) { v[i / 4][i % 4] = load(number(i, lane, block)); });
        matrices.inverse(v);
        set(at, v);
      });
    } else {
      pass<16, true, false>(1, load, to());
    }
    barrier();
    outward(store);
  }

  // Forward, `middle` on the spectrum, and back. `middle` takes a row and its 16 points; with tensor
  // cores, a lane, and makes of it what takes the points of its numbers. The last pass forward and the
  // first one back do not leave the registers.
  template <class Load, class Middle, class Store>
  EMBER_DEVICE void round_trip(Load load, Middle middle, bool returns, Store store) const {
    inward(load);
    barrier();
    if constexpr (kTensor) {
      const Matrices matrices(thread_);
      each_block([&](int lane, int block, int at) {
        Points v;
        get(at, v);
        matrices.forward(v);
        const auto own = middle(lane);
        static_for<kOwn>([&](auto i) { own.point(number(i, 0, block), v[i / 4][i % 4]); });
        if (!returns) return;
        matrices.inverse(v);
        set(at, v);
      });
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
    return kTensor ? lane_ + far_padded(row) : (padded(row) << tile_.lanes_log2) + lane_;
  }

  // Calls f(lane, block, place) for the blocks of 256 points of this thread's warp.
  template <class F>
  EMBER_DEVICE void each_block(F f) const {
    const int count = (tile_.rows / kBlockPoints) << tile_.lanes_log2, warps = thread_.count() / kWarp;
    const int g = thread_.lane() / 4, t = thread_.lane() % 4;
    const int pitch = pitch_of(tile_.rows, tile_.lanes());
    for (int i = thread_.index() / kWarp; i < count; i += warps) {
      const int lane = i & (tile_.lanes() - 1), block = i >> tile_.lanes_log2;
      const int row = kBlockPoints * block + 32 * t;
      f(lane, block, lane * pitch + far_padded(row) + g);
    }
  }
  EMBER_DEVICE int number(int i, int lane, int block) const {
    return ((block << tile_.lanes_log2) + lane) * kBlockPoints + kWarp * i;
  }

  // Points r 16 + s of a block, s = g and g + 8.
  EMBER_DEVICE void get(int at, Points& v) const {
    static_for<kOwn>([&](auto i) {
      v[i / 4][i % 4] = thread_.get(at + far_padded(16 * point_of(i % 4)) + i / 4 * 8);
    });
  }
  EMBER_DEVICE void set(int at, const Points& v) const {
    static_for<kOwn>([&](auto i) {
      thread_.set(at + far_padded(16 * point_of(i % 4)) + i / 4 * 8, v[i / 4][i % 4]);
    });
  }

  // All passes but those of stride 1, and of stride 16 with tensor cores.
  static constexpr int kLeastStride = kTensor ? 256 : 16;
  template <class Load>
  EMBER_DEVICE void inward(Load load) const {
    int stride = tile_.rows / tile_.first;
    first<false>(stride, load, to());
    for (stride /= 16; stride >= kLeastStride; stride /= 16) {
      barrier();
      pass<16, false, false>(stride, from(), to());
    }
  }
  template <class Store>
  EMBER_DEVICE void outward(Store store) const {
    const int widest = tile_.rows / tile_.first;
    for (int stride = kLeastStride; stride < widest; stride *= 16) {
      pass<16, true, false>(stride, from(), to());
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
};

}  // namespace gpu
}  // namespace ember
