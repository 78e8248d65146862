// The kernels. Each is a struct of what it works on, whose call is what one thread does.
//
// Transforms that fit into one tile go through shared memory once (Convolve); larger ones are
// columns (Enter), rows (Rows), and columns again (Leave), with their points between in scratch.
#pragma once

#include "../blocks.h"
#include "signal.h"
#include "tile.h"

namespace ember {
namespace gpu {

// A transform of `points` complex points: columns.rows times rows.rows of them. A group is the
// neighbouring channels that lie side by side in a tile.
struct Shape {
  int points;
  Tile columns, rows;  // rows.rows = 1: all in one tile
  int channels_log2;   // of a group

  EMBER_ANYWHERE int channels() const { return 1 << channels_log2; }
  EMBER_ANYWHERE int tiles() const { return rows.rows << channels_log2 >> columns.lanes_log2; }
  EMBER_ANYWHERE int64_t group_points() const { return int64_t(points) << channels_log2; }
};

// The items of one launch: blocks of sequences, each in some groups.
struct Part {
  int first_block, blocks, first_group, groups;
  EMBER_ANYWHERE int64_t items() const { return int64_t(blocks) * groups; }
};

enum class Kind { kFilter, kInput, kOutput };

// The items of a launch as its threads meet them.
struct Items {
  ember_fft_conv conv;
  Blocks cut;
  Shape shape;
  Part part;
  Kind kind;
  int64_t first_channel, channels;

  // A thread's item and channel, and which column of the transform it has.
  struct At {
    int item, block, lane, column;
    int64_t channel;
    bool used;
  };

  EMBER_DEVICE At at(const Thread& thread) const {
    return at(thread, thread.index() & (shape.columns.lanes() - 1));
  }
  EMBER_DEVICE At at(const Thread& thread, int lane) const {
    const int tiles = shape.tiles();
    At a;
    a.item = thread.block() / tiles;
    a.block = part.first_block + a.item / part.groups;
    a.lane = lane & (shape.channels() - 1);
    a.column = ((thread.block() % tiles << shape.columns.lanes_log2) + lane) >> shape.channels_log2;
    a.channel = (int64_t(part.first_group + a.item % part.groups) << shape.channels_log2) + a.lane;
    a.used = a.channel < channels;
    a.channel += first_channel;
    return a;
  }

  EMBER_DEVICE int64_t batch(const At& a) const {
    return kind == Kind::kFilter ? 0 : a.block / int(cut.blocks);
  }

  // Which slots hold filters, inputs (or their gradients), outputs (or their cotangents).
  EMBER_DEVICE Window window(Kind of, const At& a) const {
    if (of == Kind::kFilter) return {cut.low, 0, int(cut.taps())};
    const Block b = cut.at(conv, a.block % int(cut.blocks));
    if (of == Kind::kInput) return {b.first, 0, int(b.size)};
    return {cut.low + b.first - conv.start, int(b.low), int(b.high)};
  }

  // Where a thread's points lie in an array of one group after the other.
  EMBER_DEVICE Complex* points(Complex* array, int item, int lane) const {
    return array + int64_t(item) * shape.group_points() + lane;
  }
};

// Spectra, and what a product makes of them: data *= filter; or, backwards, sum += data * other's
// conjugate and data *= the filter's conjugate.
struct Spectra {
  const Complex* filter = nullptr;
  const Complex* other = nullptr;
  Complex* sum = nullptr;
  int64_t ratio = 1, first_filter = 0;
  bool backward = false, fresh = false;  // fresh: the first addend of the sum
  bool returns = true;                   // whether the product is transformed back

  // Points of one thread's channel: `first` is the place of its row 0. Where 256 of a channel's numbers
  // lie side by side, `thread` is the thread's first of them.
  class Middle {
   public:
    EMBER_DEVICE Middle(const Spectra& s, const Shape& shape, int item, int64_t channel, int lane,
                        int64_t first, bool used, int thread = -1)
        : s_(s), log2_(shape.channels_log2), used_(used) {
      const int64_t f = (s.ratio == 1 ? channel : channel / s.ratio) - s.first_filter;
      const int of_group = int(f) & (shape.channels() - 1);
      const int place = thread < 0 ? of_group : of_group * kBlockPoints + thread;
      filter_ = s.filter + (f >> log2_) * shape.group_points() + (first << log2_) + place;
      place_ = int64_t(item) * shape.group_points() + (first << log2_);
      place_ += thread < 0 ? lane : lane * kBlockPoints + thread;
    }

    EMBER_DEVICE void operator()(int row, Complex (&v)[16]) const {
      static_for<16>([&](auto r) { point((row + r) << log2_, v[r]); });
    }
    EMBER_DEVICE void point(int at, Complex& x) const {
      if (s_.sum) {
        const Complex product = x * conjugate(s_.other[place_ + at]);
        s_.sum[place_ + at] = s_.fresh ? product : s_.sum[place_ + at] + product;
      }
      const Complex k = used_ ? filter_[at] : Complex{0, 0};
      x = x * (s_.backward ? conjugate(k) : k);
    }

   private:
    const Spectra& s_;
    const Complex* filter_;
    int64_t place_;
    int log2_;
    bool used_;
  };
};

// Signals or filters into spectra, or into columns of larger transforms.
template <class S, bool kTensor = false>
struct Enter {
  static constexpr bool kProducts = kTensor;
  Items items;
  Operand x;
  float scale;
  Complex* out;

  EMBER_DEVICE void operator()(const Thread& thread) const {
    const Items::At at = items.at(thread);
    const Shape& shape = items.shape;
    const Reader<S> read(x, items.window(items.kind, at), items.batch(at), at.channel, at.used);
    const Lane<true, kTensor> lane(thread, shape.columns, at.column);
    const int step = shape.columns.step, log2 = shape.channels_log2;
    const auto load = [&](int row) {
      const int j = row * step + at.column;
      return Complex{scale * read(j), scale * read(j + shape.points)};
    };
    if constexpr (kTensor) {
      Complex* const points = items.points(out, at.item, thread.lane());
      lane.forward(load, [&](int number, Complex x) { points[number] = x; });
    } else {
      Complex* const points = items.points(out, at.item, at.lane);
      lane.forward(load, [&](int row, Complex x) {
        points[int64_t(row * step + at.column) << log2] = x;
      });
    }
  }
};

// Columns, or whole spectra, into signals or filters.
template <class S, bool kTensor = false>
struct Leave {
  static constexpr bool kProducts = kTensor;
  Items items;
  const Complex* in;
  float scale;
  Signals out;

  EMBER_DEVICE void operator()(const Thread& thread) const {
    const Items::At at = items.at(thread);
    const Shape& shape = items.shape;
    const Writer<S> write(out, items.window(items.kind, at), items.batch(at), at.channel, at.used);
    const Lane<true, kTensor> lane(thread, shape.columns, at.column);
    const int step = shape.columns.step, log2 = shape.channels_log2;
    const auto keep = [&](int row, Complex x) {
      const int j = row * step + at.column;
      write(j, scale * x.re);
      write(j + shape.points, scale * x.im);
    };
    Complex* const array = const_cast<Complex*>(in);
    if constexpr (kTensor) {
      const Complex* const points = items.points(array, at.item, thread.lane());
      lane.inverse([&](int number) { return points[number]; }, keep);
    } else {
      const Complex* const points = items.points(array, at.item, at.lane);
      lane.inverse([&](int row) { return points[int64_t(row * step + at.column) << log2]; }, keep);
    }
  }
};

enum class Row { kSpectrum, kProduct, kInverse };

// Rows of larger transforms, in place.
template <Row kRow>
struct Rows {
  Items items;
  Complex* data;
  Spectra spectra;

  EMBER_DEVICE void operator()(const Thread& thread) const {
    const Shape& shape = items.shape;
    const int item = thread.block() / shape.columns.rows;
    const int first = thread.block() % shape.columns.rows * shape.rows.rows;
    const int channel = thread.index() & (shape.channels() - 1);
    Complex* const points =
        items.points(data, item, channel) + (int64_t(first) << shape.channels_log2);
    const auto load = [&](int row) { return points[int64_t(row) << shape.channels_log2]; };
    const auto keep = [&](int row, Complex x) { points[int64_t(row) << shape.channels_log2] = x; };
    const Lane<false> lane(thread, shape.rows, 0);
    if constexpr (kRow == Row::kSpectrum) {
      lane.forward(load, keep);
    } else if constexpr (kRow == Row::kInverse) {
      lane.inverse(load, keep);
    } else {
      const int group = items.part.first_group + item % items.part.groups;
      const int64_t c = (int64_t(group) << shape.channels_log2) + channel;
      const Spectra::Middle middle(spectra, shape, item, c, channel, first, c < items.channels);
      lane.round_trip(load, middle, spectra.returns, keep);
    }
  }
};

// A convolution, or the gradients, in one tile.
template <class S, bool kTensor = false>
struct Convolve {
  static constexpr bool kProducts = kTensor;
  Items items;  // of what is read
  Operand x;
  Spectra spectra;
  Signals out;
  Kind results;

  EMBER_DEVICE void operator()(const Thread& thread) const {
    const Items::At at = items.at(thread);
    const Shape& shape = items.shape;
    const Lane<true, kTensor> lane(thread, shape.columns, 0);
    const Reader<S> read(x, items.window(items.kind, at), items.batch(at), at.channel, at.used);
    const Writer<S> write(out, items.window(results, at), items.batch(at), at.channel, at.used);
    const auto load = [&](int row) { return Complex{read(row), read(row + shape.points)}; };
    const auto keep = [&](int row, Complex x) {
      write(row, x.re);
      write(row + shape.points, x.im);
    };
    if constexpr (kTensor) {
      const auto middle = [&](int of) {
        const Items::At own = items.at(thread, of);
        return Spectra::Middle(spectra, shape, own.item, own.channel, of, 0, own.used, thread.lane());
      };
      lane.round_trip(load, middle, spectra.returns, keep);
    } else {
      const Spectra::Middle middle(spectra, shape, at.item, at.channel, at.lane, 0, at.used);
      lane.round_trip(load, middle, spectra.returns, keep);
    }
  }
};

// Where nothing is convolved: skips alone, or zeros.
template <class S>
struct Blank {
  Signals out;
  int64_t first, length, sequences, channels;

  EMBER_DEVICE void operator()(const Thread& thread) const {
    const int64_t i = int64_t(thread.block()) * thread.count() + thread.index();
    if (i >= sequences * length * channels) return;
    const int64_t slot = first + i / channels % length;
    const Writer<S> write(out, {slot, 0, 1}, i / channels / length, i % channels, true);
    write(0, 0);
  }
};

// The sums of channels that share a filter, and of the blocks that were summed side by side.
struct Gather {
  Shape shape;
  Part part;  // the sums: an item is a group of channels
  const Complex* sums;
  Complex* out;
  int64_t filters, ratio;
  int side_log2;  // of how many numbers of one channel lie side by side

  EMBER_ANYWHERE static int blocks_of(const Shape& shape, int threads) {
    return int((shape.group_points() + threads - 1) / threads);
  }

  EMBER_DEVICE void operator()(const Thread& thread) const {
    const int blocks = blocks_of(shape, thread.count()), group = thread.block() / blocks;
    const int i = thread.block() % blocks * thread.count() + thread.index();
    const int log2 = shape.channels_log2, mask = shape.channels() - 1;
    const int lane = i >> side_log2 & mask, rest = i - (lane << side_log2);
    const int64_t f = (int64_t(group) << log2) + lane;
    if (f >= filters || i >= shape.group_points()) return;
    Complex sum = {0, 0};
    for (int b = 0; b < part.blocks; ++b) {
      for (int64_t c = f * ratio; c < (f + 1) * ratio; ++c) {
        const int64_t item = int64_t(b) * part.groups + (c >> log2);
        sum = sum + sums[item * shape.group_points() + rest + ((c & mask) << side_log2)];
      }
    }
    out[group * shape.group_points() + i] = sum;
  }
};

// dd: sums of the cotangent times the input, in double. Each block has 32 channels and a part of the
// positions; its sums are two floats each, the second what the first lacks.
constexpr int kSkipLanes = 32;

EMBER_DEVICE Complex split(double x) {
  const float high = float(x);
  return {high, float(x - double(high))};
}

template <class S>
struct SkipSums {
  Operand x, g;
  int64_t shift, sequences, length, channels;
  int parts, part_length;
  Complex* out;  // (parts, channels)

  EMBER_DEVICE void operator()(const Thread& thread) const {
    const int lane = thread.index() % kSkipLanes, worker = thread.index() / kSkipLanes;
    const int64_t channel = int64_t(thread.block() / parts) * kSkipLanes + lane;
    const int part = thread.block() % parts;
    const bool used = channel < channels;
    const int64_t first = int64_t(part) * part_length;
    const int count = int(least(part_length, length - first));
    double sum = 0;
    for (int64_t b = 0; b < sequences; ++b) {
      const Reader<S> read_x(x, {shift + first, 0, count}, b, channel, used);
      const Reader<S> read_g(g, {first, 0, count}, b, channel, used);
      for (int t = worker; t < count; t += thread.count() / kSkipLanes) {
        sum += double(read_x(t)) * double(read_g(t));
      }
    }
    thread.set(thread.index(), split(sum));
    for (int half = thread.count() / 2; half >= kSkipLanes; half /= 2) {
      thread.barrier();
      if (thread.index() >= half) continue;
      const Complex a = thread.get(thread.index()), b = thread.get(thread.index() + half);
      thread.set(thread.index(), split(double(a.re) + a.im + b.re + b.im));
    }
    if (worker == 0 && used) out[part * channels + channel] = thread.get(lane);
  }
};

template <class S>
struct SkipGradient {
  const Complex* sums;
  int64_t channels;
  int parts;
  S* out;

  EMBER_DEVICE void operator()(const Thread& thread) const {
    const int64_t channel = int64_t(thread.block()) * thread.count() + thread.index();
    if (channel >= channels) return;
    double sum = 0;
    for (int p = 0; p < parts; ++p) {
      const Complex x = sums[p * channels + channel];
      sum += double(x.re) + x.im;
    }
    store(out + channel, float(sum));
  }
};

}  // namespace gpu
}  // namespace ember
