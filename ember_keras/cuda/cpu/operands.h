// The arrays of a call as its groups of lanes see them.
#pragma once

#include "call.h"
#include "signal.h"

namespace ember {
namespace EMBER_ISA {

template <class R>
class Operands {
 public:
  explicit Operands(const Call& call) : call_(call), c_(call.conv) {}

 protected:
  static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

  Lanes<R> lanes_of(const Schedule& s, int64_t set, int64_t group, int64_t row_group) const {
    Lanes<R> lanes;
    lanes.count = 0;
    const int64_t first = set * s.filters_per_set * s.ratio + group * s.lanes;
    const int64_t end = min((set + 1) * s.filters_per_set * s.ratio, c_.width);
    const int64_t first_filter = first / s.ratio, before = first % s.ratio;
    for (int64_t b = row_group * s.packed; b < (row_group + 1) * s.packed && b < c_.batch; ++b) {
      // Short sequences are many: a division a lane would cost more than their sums.
      int64_t filter = first_filter, left = s.ratio - before;
      for (int64_t c = first; c < end && c < first + s.lanes; ++c, --left) {
        if (left == 0) ++filter, left = s.ratio;
        lanes.batch[lanes.count] = b;
        lanes.channel[lanes.count] = c;
        lanes.filter[lanes.count++] = filter;
      }
    }
    return lanes;
  }

  // A signal (batch, time, channel), its position 0 at `base`.
  Stream<R> signal(const void* base, const ember_strides& strides, const Lanes<R>& lanes) const {
    if (!base) return Stream<R>();
    return stream(c_.dtype, base, strides.time, lanes, lanes.batch, strides.batch, lanes.channel,
                  strides.channel, c_.width);
  }

  static Stream<R> stream(int dtype, const void* base, int64_t step, const Lanes<R>& lanes,
                          const int64_t* row, int64_t row_step, const int64_t* column,
                          int64_t column_step, int64_t columns) {
    const int64_t bytes = dtype == EMBER_FLOAT64 ? 8 : dtype == EMBER_FLOAT32 ? 4 : 2;
    const auto make = [&](auto type) {
      return make_stream<decltype(type), R>(base, step * bytes, lanes, row, row_step * bytes, column,
                                            column_step * bytes, columns);
    };
    if (dtype == EMBER_FLOAT16) return make_half<Half>(make);
    if (dtype == EMBER_BFLOAT16) return make_half<Brain>(make);
    return make(R());
  }
  template <class S, class F>
  static Stream<R> make_half(F make) {
    if constexpr (sizeof(R) == 4) return make(S());
    return Stream<R>();
  }

  Source<R> input(const Lanes<R>& lanes) const {
    Source<R> x;
    x.values = signal(call_.u, c_.u, lanes);
    x.gate = signal(call_.gate_in, c_.gate_in, lanes);
    x.size = c_.size;
    x.period = c_.period;
    return x;
  }
  // g times the output gate; its position i is output i.
  Source<R> cotangent(const Lanes<R>& lanes) const {
    Source<R> g;
    g.values = signal(call_.g, c_.g, lanes);
    g.gate = signal(call_.gate_out, c_.gate_out, lanes);
    g.size = c_.length;
    g.period = c_.period;
    return g;
  }

  // The factor d of each lane's skip.
  void skip_factors(const Lanes<R>& lanes, Vector<R>* d) const {
    Stream<R> s = stream(c_.filter_dtype, call_.d, 0, lanes, nullptr, 0, lanes.channel, 1, c_.width);
    s.read_run(s, d, 0, 1);
  }

  // The filters of a set, divided by the size of the transform.
  Source<R> filters_of(const Schedule& s, int64_t set) const {
    const Lanes<R> lanes = lanes_of(s, set, 0, 0);
    Source<R> k;
    k.values = stream(c_.filter_dtype, call_.k, c_.k_tap, lanes, nullptr, 0, lanes.filter,
                      c_.k_filter, c_.filters);
    k.shift = s.low;
    k.size = c_.taps;
    k.high = s.high - s.low;
    if (!s.direct) k.scale = R(1) / R(s.plan->n);
    return k;
  }

  // The lanes of an item of a set: a group of lanes, some sequences, a block.
  Lanes<R> item_lanes(const Schedule& s, int64_t set, int64_t i) const {
    return lanes_of(s, set, i / (s.row_groups * s.blocks), i / s.blocks % s.row_groups);
  }

  Source<R> block_input(const Lanes<R>& lanes, const Block& block) const {
    Source<R> x = input(lanes);
    x.shift = block.first;
    x.high = block.size;
    return x;
  }

  Source<R> item_input(const Schedule& s, int64_t set, int64_t i) const {
    return block_input(item_lanes(s, set, i), s.at(c_, i % s.blocks));
  }

  Source<R> item_cotangent(const Schedule& s, const Lanes<R>& lanes, const Block& block) const {
    Source<R> g = cotangent(lanes);
    g.shift = s.low + block.first - c_.start;
    g.low = block.low;
    g.high = block.high;
    return g;
  }

  const Call& call_;
  const ember_fft_conv& c_;
};

}  // namespace EMBER_ISA
}  // namespace ember
