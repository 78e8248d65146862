// The convolution and its gradients, for one type of numbers to compute with.
#pragma once

#include "direct.h"
#include "operands.h"
#include "transform.h"

namespace ember {
namespace EMBER_ISA {

template <class R>
class Convolution : Operands<R> {
 public:
  Convolution(const Call& call, const Team& team) : Operands<R>(call), team_(team) {}

  void run() {
    if (call_.y) forward(call_.y, c_.y, call_.gate_out, c_.gate_out);
    if (call_.du || call_.dk || call_.dgate_in) backward();
    if (call_.dd) skip_gradient();
    if (call_.dgate_out && !outputs_too()) {
      team_.wait();
      forward(call_.dgate_out, c_.dgate_out, call_.g, c_.g);
    }
  }

 private:
  using C = Complex<R>;
  using V = Vector<R>;
  using Base = Operands<R>;
  using Base::block_input, Base::c_, Base::call_, Base::cotangent, Base::filters_of, Base::input, Base::item_cotangent;
  using Base::item_input, Base::item_lanes, Base::lanes_of, Base::min, Base::signal, Base::skip_factors, Base::stream;

  // Threads and scratch of a phase.
  struct Crew {
    Team sets, rows, passes;
    C *filter, *data, *sum, *other, *tile;
  };

  Crew crew_of(const Schedule& s) const {
    const Team alone = {0, 1, nullptr};
    Crew crew = {alone, alone, alone, nullptr, nullptr, nullptr, nullptr, nullptr};
    if (s.empty) {
      crew.sets = team_;
      return crew;
    }
    // Tiles come first, then filters, then what the work on them needs.
    char* tiles = call_.scratch;
    char* filters = tiles + team_.size * s.tile_bytes;
    char* own = filters + s.array_bytes;
    switch (s.sharing) {
      case Sharing::kSets:
        crew.sets = team_;
        filters += team_.rank * s.array_bytes;
        own += (team_.size - 1) * s.array_bytes + team_.rank * s.own_bytes;
        break;
      case Sharing::kRows:
        crew.rows = team_;
        own += team_.rank * s.own_bytes;
        break;
      case Sharing::kPasses: crew.passes = team_; break;
    }
    crew.tile = reinterpret_cast<C*>(tiles + team_.rank * s.tile_bytes);
    crew.filter = reinterpret_cast<C*>(filters);
    crew.data = reinterpret_cast<C*>(own);
    crew.sum = reinterpret_cast<C*>(own + s.array_bytes);
    crew.other = reinterpret_cast<C*>(own + 2 * s.array_bytes);
    return crew;
  }

  // Whether the backward pass also makes the outputs, from the spectra that it has: where all of
  // them lie in the slots of its one block.
  bool outputs_too() const {
    const Schedule& s = call_.backward;
    if (!call_.dgate_out || !(call_.du || call_.dk || call_.dgate_in)) return false;
    if (s.empty || s.direct || s.blocks > 1 || s.parts > 1 || c_.period) return false;
    const Block block = s.at(c_, 0);
    const int64_t shift = s.low - c_.start;  // slot j is output j + shift
    return block.low + shift == 0 && block.high + shift == c_.length;
  }

  static Arrays<R> alone(C* x) { return {x, x, x, x}; }

  // The spectrum of a set's filters, or the taps themselves where no transform is made.
  void filter_spectrum(const Schedule& s, const Crew& crew, const Team& team, int64_t set) const {
    const Source<R> k = filters_of(s, set);
    if (s.direct) {
      if (team.rank == 0) k.read(reinterpret_cast<V*>(crew.filter), 0, s.high - s.low);
      return team.wait();
    }
    const Transform<R> transform = {s.plan, s.columns, crew.tile};
    transform.columns_in(team, k, crew.filter, transform.all());
    team.wait();
    const Source<R> first = item_input(s, set, 0);
    Ahead<R> ahead;
    if (!s.backward && s.array_bytes <= kNear) ahead.source = &first;
    transform.template rows<Leaf::kSpectrum>(team, alone(crew.filter), transform.all(), ahead);
    team.wait();
  }

  // Arrays up to this size are asked for ahead of time.
  static constexpr int64_t kNear = 1 << 20;

  template <class F>
  void each_set(const Schedule& s, const Crew& crew, F f) const {
    const int64_t last = s.sets * (crew.sets.rank + 1) / crew.sets.size;
    for (int64_t set = s.sets * crew.sets.rank / crew.sets.size; set < last; ++set) f(set);
  }

  // Neighbouring sets that go through a signal together, so that its memory is read in order.
  static constexpr int64_t kBundle = 8;

  template <class F>
  void each_bundle(const Schedule& s, const Crew& crew, F f) const {
    const int64_t last = s.sets * (crew.sets.rank + 1) / crew.sets.size;
    const int64_t bundle = min(kBundle, s.array_bytes / kLine / (s.high - s.low));  // that fit
    for (int64_t set = s.sets * crew.sets.rank / crew.sets.size; set < last; set += bundle) {
      f(set, min(last, set + bundle));
    }
  }

  // The taps of a bundle's filters; returns those of the first.
  const V* bundle_taps(const Schedule& s, const Crew& crew, int64_t first, int64_t last) const {
    const int64_t taps = s.high - s.low;
    V* k = reinterpret_cast<V*>(crew.filter);
    for (int64_t set = first; set < last; ++set) {
      filters_of(s, set).read(k + (set - first) * taps * kParts, 0, taps);
    }
    return k;
  }

  template <class F>
  void each_item(const Schedule& s, const Crew& crew, int64_t set, F f) const {
    const int64_t items = s.groups * s.row_groups * s.blocks;
    const int64_t last = items * (crew.rows.rank + 1) / crew.rows.size;
    for (int64_t i = items * crew.rows.rank / crew.rows.size; i < last; ++i) {
      const int64_t group = i / (s.row_groups * s.blocks);
      f(i, i + 1 < last, lanes_of(s, set, group, i / s.blocks % s.row_groups), i % s.blocks);
    }
  }

  // The sink's runs where nothing of the filter reaches it.
  static void write_zeros(Sink<R>& sink) {
    V zeros[kRun * kParts];
    for (int64_t slot = sink.low; slot < sink.high; slot += kRun) {
      for (V& zero : zeros) zero = V{};
      sink.write(zeros, slot, kRun);
    }
  }

  // Takes the outputs of a block: y = gate (k * x + d x).
  void set_outputs(SignalSink<R>& sink, const Schedule& s, const Block& block,
                   const Lanes<R>& lanes, void* y, const ember_strides& strides, const void* gate,
                   const ember_strides& gate_strides) const {
    sink.first = signal(y, strides, lanes);
    sink.first_gate = signal(gate, gate_strides, lanes);
    sink.low = block.low;
    sink.high = block.high;
    sink.shift = s.low + block.first - c_.start;
    if (!call_.d) return;
    sink.skips = true;
    skip_factors(lanes, sink.d);
    sink.other = input(lanes);
    sink.other.shift = c_.skip;
    sink.other.high = c_.length;
  }

  void forward(void* y, const ember_strides& strides, const void* gate,
               const ember_strides& gate_strides) const {
    const Schedule& s = call_.forward;
    const Crew crew = crew_of(s);
    if (s.direct && crew.rows.size == 1) {
      const int64_t lines = (s.high - s.low) * kParts;
      return each_bundle(s, crew, [&](int64_t first, int64_t last) {
        const V* k = bundle_taps(s, crew, first, last);
        each_item(s, crew, first, [&](int64_t i, bool, const Lanes<R>&, int64_t index) {
          const Block block = s.at(c_, index);
          for (int64_t set = first; set < last; ++set) {
            const Lanes<R> lanes = item_lanes(s, set, i);
            SignalSink<R> sink;
            set_outputs(sink, s, block, lanes, y, strides, gate, gate_strides);
            direct_forward(s, crew, block, block_input(lanes, block), sink,
                           k + (set - first) * lines);
          }
        });
      });
    }
    const Transform<R> transform = {s.plan, s.columns, crew.tile};
    each_set(s, crew, [&](int64_t set) {
      const Team& filters = crew.rows.size > 1 ? crew.rows : crew.passes;
      if (!s.empty) filter_spectrum(s, crew, filters, set);
      each_item(s, crew, set, [&](int64_t i, bool more, const Lanes<R>& lanes, int64_t index) {
        const Block block = s.at(c_, index);
        SignalSink<R> sink;
        set_outputs(sink, s, block, lanes, y, strides, gate, gate_strides);
        if (s.empty) return write_zeros(sink);
        const Source<R> x = item_input(s, set, i);
        if (s.direct) {
          sink.prefetch(block.low, block.high - block.low, true);
          if (more) item_input(s, set, i + 1).prefetch(0, s.block, true);
          return direct_forward(s, crew, block, x, sink, reinterpret_cast<V*>(crew.filter));
        }
        const int64_t next_set = set + 1 < s.sets ? set + 1 : set;
        C* data = crew.data;
        transform.columns_in(crew.passes, x, data, transform.all());
        crew.passes.wait();
        const Source<R> next = more ? item_input(s, set, i + 1) : filters_of(s, next_set);
        Ahead<R> ahead;
        if (s.array_bytes <= kNear) ahead.source = &next, ahead.sink = &sink;
        transform.template rows<Leaf::kConvolve>(crew.passes, {data, crew.filter, data, data},
                                                 transform.all(), ahead);
        crew.passes.wait();
        transform.columns_out(crew.passes, data, sink);
        crew.passes.wait();
      });
      crew.rows.wait();
    });
  }

  void backward() const {
    const Schedule& s = call_.backward;
    const Crew crew = crew_of(s);
    const bool signals = call_.du || call_.dgate_in, outputs = outputs_too();
    if (s.direct && crew.rows.size == 1) {
      const int64_t lines = (s.high - s.low) * kParts;
      return each_bundle(s, crew, [&](int64_t first, int64_t last) {
        const V* k = bundle_taps(s, crew, first, last);
        V* sums = reinterpret_cast<V*>(crew.sum);
        if (call_.dk) memset(sums, 0, (last - first) * lines * sizeof(V));
        each_item(s, crew, first, [&](int64_t i, bool, const Lanes<R>&, int64_t index) {
          for (int64_t set = first; set < last; ++set) {
            const Lanes<R> lanes = item_lanes(s, set, i);
            const Block block = s.at(c_, index);
            SignalSink<R> sink;
            set_gradients(sink, lanes, block);
            direct_backward(s, crew, lanes, block, sink, signals, k + (set - first) * lines,
                            sums + (set - first) * lines);
          }
        });
        for (int64_t set = first; call_.dk && set < last; ++set) {
          filter_gradient(s, crew, crew.passes, set, sums + (set - first) * lines);
        }
      });
    }
    each_set(s, crew, [&](int64_t set) {
      const Team& filters = crew.rows.size > 1 ? crew.rows : crew.passes;
      if (!s.empty && (signals || outputs)) filter_spectrum(s, crew, filters, set);
      if (!s.empty && call_.dk) {
        Team rows = crew.passes;
        clear(rows, s, crew.sum);
        crew.passes.wait();
      }
      each_item(s, crew, set, [&](int64_t i, bool more, const Lanes<R>& lanes, int64_t index) {
        const bool ahead = (call_.dk || outputs) && more;
        const Source<R> next = ahead ? item_input(s, set, i + 1) : Source<R>();
        backward_item(s, crew, lanes, s.at(c_, index), next, signals, outputs);
      });
      crew.rows.wait();
      if (call_.dk) filter_gradient(s, crew, filters, set, crew.sum);
    });
  }

  static void write_all(Sink<R>& sink, V* x, int64_t slot, int64_t count) {
    for (int64_t i = 0; i < count; i += kRun) {
      sink.write(x + i * kParts, slot + i, min(kRun, count - i));
    }
  }

  void direct_forward(const Schedule& s, const Crew& crew, const Block& block, const Source<R>& x,
                      Sink<R>& sink, const V* k) const {
    const int64_t taps = s.high - s.low, count = block.high - block.low;
    V* in = reinterpret_cast<V*>(crew.data);
    V* out = in + (whole(count) + taps) * kParts;
    x.read(in, block.low - taps + 1, whole(count) + taps - 1);
    apply_taps<false, R>(in, k, taps, out, count);
    write_all(sink, out, block.low, count);
  }

  void direct_backward(const Schedule& s, const Crew& crew, const Lanes<R>& lanes,
                       const Block& block, Sink<R>& sink, bool signals, const V* k, V* sums) const {
    const int64_t taps = s.high - s.low, count = block.size;
    V* in = reinterpret_cast<V*>(crew.data);
    V* out = in + (count + taps + kTogether) * kParts;
    item_cotangent(s, lanes, block).read(in, 0, count + taps + kTogether);
    if (call_.dk) {
      V* x = reinterpret_cast<V*>(crew.other);
      block_input(lanes, block).read(x, 0, count);
      add_products<R>(x, in, taps, sums, count);
    }
    if (!signals) return;
    apply_taps<true, R>(in, k, taps, out, count);
    write_all(sink, out, 0, count);
  }

  static void clear(const Team& team, const Schedule& s, C* x) {
    const int64_t bytes = s.array_bytes / 64;
    const int64_t first = bytes * team.rank / team.size * 64;
    const int64_t last = bytes * (team.rank + 1) / team.size * 64;
    memset(reinterpret_cast<char*>(x) + first, 0, last - first);
  }

  void set_gradients(SignalSink<R>& sink, const Lanes<R>& lanes, const Block& block) const {
    sink.first = signal(call_.du, c_.du, lanes);
    sink.first_gate = signal(call_.gate_in, c_.gate_in, lanes);
    sink.second = signal(call_.dgate_in, c_.dgate_in, lanes);
    sink.second_gate = signal(call_.u, c_.u, lanes);
    sink.low = 0;
    sink.high = block.size;
    sink.shift = block.first;
    if (!call_.d) return;
    sink.skips = true;
    skip_factors(lanes, sink.d);
    sink.other = cotangent(lanes);
    sink.other.shift = -c_.skip;
    sink.other.high = c_.size;
  }

  // `next` is what the next item reads first, or nothing.
  void backward_item(const Schedule& s, const Crew& crew, const Lanes<R>& lanes, const Block& block,
                     const Source<R>& next, bool signals, bool outputs) const {
    SignalSink<R> sink;
    set_gradients(sink, lanes, block);
    if (s.empty) {
      if (signals) write_zeros(sink);
      return;
    }
    if (s.direct) {
      return direct_backward(s, crew, lanes, block, sink, signals, reinterpret_cast<V*>(crew.filter),
                             reinterpret_cast<V*>(crew.sum));
    }
    const Transform<R> transform = {s.plan, s.columns, crew.tile};
    const Team& team = crew.passes;
    C *data = crew.data, *other = crew.other, *sum = crew.sum;
    const Source<R> g = item_cotangent(s, lanes, block);
    Ahead<R> first, second;
    if (s.array_bytes <= kNear) {
      first.source = &g;
      if (next.values) second.source = &next;
      if (signals) second.sink = &sink;
    }
    const Source<R> x = block_input(lanes, block);
    for (int64_t i = 0; i < s.parts; ++i) {
      const Rows part = s.part(i);
      if (call_.dk || outputs) {
        transform.columns_in(team, x, other, part);
        team.wait();
        transform.template rows<Leaf::kSpectrum>(team, alone(other), part, i ? Ahead<R>() : first);
      }
      if (i == 0) {
        transform.columns_in(team, g, data, transform.all());
        team.wait();
      }
      const int64_t at = part.first * s.plan->pitch * kParts;
      const Arrays<R> arrays = {data + at, crew.filter + at, other, sum + at};
      if (call_.dk && signals) {
        transform.template rows<Leaf::kBackward>(team, arrays, part, second);
      } else if (call_.dk) {
        transform.template rows<Leaf::kSum>(team, arrays, part, second);
      } else if (signals) {
        transform.template rows<Leaf::kCorrelate>(team, arrays, part, second);
      }
      if (outputs) {
        transform.template rows<Leaf::kProduct>(team, {other, crew.filter, other, other}, part);
      }
      team.wait();
    }
    if (signals) transform.columns_out(team, data, sink);
    team.wait();
    if (!outputs) return;
    SignalSink<R> gate;
    set_outputs(gate, s, block, lanes, call_.dgate_out, c_.dgate_out, call_.g, c_.g);
    transform.columns_out(team, other, gate);
    team.wait();
  }

  // From the sum of spectra to the gradient of a set's filters.
  void filter_gradient(const Schedule& s, const Crew& crew, const Team& team, int64_t set,
                       void* sums) const {
    const Lanes<R> lanes = lanes_of(s, set, 0, 0);
    Lanes<R> filters;
    filters.count = int(lanes.filter[lanes.count - 1] - lanes.filter[0]) + 1;
    for (int l = 0; l < filters.count; ++l) filters.filter[l] = lanes.filter[0] + l;
    FilterSink<R> sink;
    sink.lanes = lanes;
    sink.shared = lanes.count > filters.count;
    sink.out = stream(c_.filter_dtype, call_.dk, c_.dk_tap, filters, nullptr, 0, filters.filter,
                      c_.dk_filter, c_.filters);
    V zeros[kParts] = {};
    if (team.rank == 0) {
      for (int64_t i = 0; i < s.low; ++i) sink.out.write_run(sink.out, zeros, i, 1);
      for (int64_t i = s.high; i < c_.taps; ++i) sink.out.write_run(sink.out, zeros, i, 1);
    }
    if (s.empty) return;
    C* sum = static_cast<C*>(sums);
    if (crew.rows.size > 1) {
      // Each thread has a sum of its own: the first one's takes the others in their order.
      const int64_t count = s.array_bytes / int64_t(sizeof(C));
      const int64_t own = s.own_bytes / int64_t(sizeof(C));
      C* first = sum - crew.rows.rank * own;
      const int64_t begin = count * team.rank / team.size;
      const int64_t end = count * (team.rank + 1) / team.size;
      for (int r = 1; r < crew.rows.size; ++r) {
        const C* more = first + r * own;
        for (int64_t i = begin; i < end; ++i) first[i] = first[i] + more[i];
      }
      sum = first;
      team.wait();
    }
    sink.out.base += s.low * sink.out.step;
    sink.low = 0;
    sink.high = s.high - s.low;
    if (s.direct) {
      if (team.rank == 0) write_all(sink, reinterpret_cast<V*>(sum), 0, sink.high);
      return team.wait();
    }
    sink.scale = R(1) / R(s.plan->n);
    const Transform<R> transform = {s.plan, s.columns, crew.tile};
    transform.template rows<Leaf::kInverse>(team, alone(sum), transform.all());
    team.wait();
    transform.columns_out(team, sum, sink);
    team.wait();
  }

  // dd: sums of the cotangent times x, in double.
  void skip_gradient() const {
    const Schedule& s = call_.backward;
    const int64_t groups = s.sets * s.groups;
    const int64_t last = groups * (team_.rank + 1) / team_.size;
    for (int64_t i = groups * team_.rank / team_.size; i < last; ++i) {
      double sums[kLanes<R>] = {};
      for (int64_t row = 0; row < s.row_groups; ++row) {
        const Lanes<R> lanes = lanes_of(s, i / s.groups, i % s.groups, row);
        Source<R> x = input(lanes), g = cotangent(lanes);
        x.shift = c_.skip;
        x.high = g.high = c_.length;
        for (int64_t t = 0; t < c_.length; t += kRun) {
          V a[kRun * kParts], b[kRun * kParts], sum[kParts] = {};
          const int64_t run = min(kRun, c_.length - t);
          x.read(a, t, run);
          g.read(b, t, run);
          for (int64_t j = 0; j < run * kParts; ++j) sum[j % kParts] += a[j] * b[j];
          for (int l = 0; l < lanes.count; ++l) {
            sums[lanes.channel[l] - lanes.channel[0]] += double(get_lane<R>(sum, l));
          }
        }
      }
      const Lanes<R> lanes = lanes_of(s, i / s.groups, i % s.groups, 0);
      Lanes<R> channels = lanes;
      channels.count = int(lanes.channel[lanes.count - 1] - lanes.channel[0]) + 1;
      V result[kParts] = {};
      for (int l = 0; l < channels.count; ++l) set_lane<R>(result, l, R(sums[l]));
      Stream<R> out = stream(c_.filter_dtype, call_.dd, 0, channels, nullptr, 0, channels.channel,
                             1, c_.width);
      out.write_run(out, result, 0, 1);
    }
  }

  const Team& team_;
};

}  // namespace EMBER_ISA
}  // namespace ember
