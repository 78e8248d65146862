// The launches of a call.
#pragma once

#include "schedule.h"

namespace ember {
namespace gpu {

struct Call {
  ember_fft_conv conv;
  const void *u, *k, *d, *gate_in, *gate_out, *g;
  void *y, *du, *dk, *dd, *dgate_in, *dgate_out;
  Complex* scratch;
  Stream stream;
};

constexpr int kFlat = 256;  // threads of a block that has no tile

// S: of signals; K: of filters.
template <class S, class K>
class Run {
 public:
  explicit Run(const Call& call) : call_(call), c_(call.conv) {}

  bool forward(const Schedule& s, void* y, const ember_strides& strides, const void* gate,
               const ember_strides& gate_strides) const {
    Signals out;
    out.first = {y, gate, strides, gate_strides};
    skip(&out, input(), c_.skip);
    if (s.cut.empty) return blank(out, c_.length);
    return each_part(s, [&](const Part& part) {
      Items items = items_of(s, part, Kind::kInput);
      if (part.first_block == 0 && !filters(s, part)) return false;
      const Spectra spectra = spectra_of(s, part);
      if (s.one_tile()) {
        return convolve(s, items, input(), spectra, out, Kind::kOutput);
      }
      Complex* data = array(s, s.filter_groups);
      if (!columns(s, items, Enter<S>{items, input(), 1, data})) return false;
      if (!rows(s, items, Rows<Row::kProduct>{items, data, spectra})) return false;
      items.kind = Kind::kOutput;
      return columns(s, items, Leave<S>{items, data, 1, out});
    });
  }

  bool backward(const Schedule& s) const {
    Signals out;
    out.first = {call_.du, call_.gate_in, c_.du, c_.gate_in};
    out.second = {call_.dgate_in, call_.u, c_.dgate_in, c_.u};
    skip(&out, cotangent(), -c_.skip);
    const bool signals = call_.du || call_.dgate_in;
    if (call_.dk && !blank_filters(s)) return false;
    if (s.cut.empty) return !signals || blank(out, c_.size);
    return each_part(s, [&](const Part& part) {
      if (signals && part.first_block == 0 && !filters(s, part)) return false;
      if (!gradients(s, part, out, signals)) return false;
      const bool last = part.first_block + part.blocks >= s.blocks;
      return !last || !call_.dk || filter_gradient(s, part);
    });
  }

  bool skip_gradient(const Schedule& s) const {
    const int64_t wide = (c_.width + kSkipLanes - 1) / kSkipLanes;
    Complex* sums = call_.scratch;
    const int64_t part = (c_.length + s.skip_parts - 1) / s.skip_parts;
    const SkipSums<S> all = {input(),  cotangent(),       c_.skip,   c_.batch, c_.length,
                             c_.width, int(s.skip_parts), int(part), sums};
    if (!launch(all, wide * s.skip_parts, kFlat, kFlat * sizeof(Complex), call_.stream)) return false;
    return flat(c_.width, SkipGradient<K>{sums, c_.width, int(s.skip_parts), static_cast<K*>(call_.dd)});
  }

  // Without channels or sequences.
  bool zeros() const {
    Schedule none = Schedule();
    none.cut.empty = true;
    if (call_.dk && !blank_filters(none)) return false;
    return !call_.dd || flat(c_.width, SkipGradient<K>{nullptr, c_.width, 0, static_cast<K*>(call_.dd)});
  }

 private:
  static constexpr bool kNarrow = sizeof(S) == 2;

  Operand input() const {
    return {call_.u, call_.gate_in, c_.u, c_.gate_in, c_.size, c_.period};
  }
  Operand cotangent() const {
    return {call_.g, call_.gate_out, c_.g, c_.gate_out, c_.length, c_.period};
  }

  void skip(Signals* out, const Operand& other, int64_t shift) const {
    if (!call_.d) return;
    out->d = call_.d;
    out->d_wide = sizeof(K) > sizeof(S);
    out->other = other;
    out->other_shift = shift;
  }

  Items items_of(const Schedule& s, const Part& part, Kind kind) const {
    return {c_, s.cut, s.shape, part, kind, 0, c_.width};
  }

  Complex* array(const Schedule& s, int64_t groups) const {
    return call_.scratch + s.skip_parts * c_.width + groups * s.shape.group_points();
  }

  template <class Body>
  bool columns(const Schedule& s, const Items& items, const Body& body) const {
    const int64_t blocks = items.part.items() * s.shape.tiles();
    return launch(body, blocks, s.column_threads, s.column_bytes(), call_.stream);
  }
  template <class Body>
  bool rows(const Schedule& s, const Items& items, const Body& body) const {
    const int64_t blocks = items.part.items() * s.shape.columns.rows;
    return launch(body, blocks, s.row_threads, s.row_bytes(), call_.stream);
  }

  // With tensor cores where the schedule says so.
  bool convolve(const Schedule& s, const Items& items, const Operand& x, const Spectra& spectra,
                const Signals& out, Kind results) const {
    if constexpr (kNarrow) {
      if (s.tensor) return columns(s, items, Convolve<S, true>{items, x, spectra, out, results});
    }
    return columns(s, items, Convolve<S>{items, x, spectra, out, results});
  }
  template <class X>
  bool enter(const Schedule& s, const Items& items, const Operand& x, float scale, Complex* to) const {
    if constexpr (kNarrow) {
      if (s.tensor) return columns(s, items, Enter<X, true>{items, x, scale, to});
    }
    return columns(s, items, Enter<X>{items, x, scale, to});
  }
  template <class X>
  bool leave(const Schedule& s, const Items& items, const Complex* from, float scale,
             const Signals& out) const {
    if constexpr (kNarrow) {
      if (s.tensor) return columns(s, items, Leave<X, true>{items, from, scale, out});
    }
    return columns(s, items, Leave<X>{items, from, scale, out});
  }

  template <class Body>
  bool flat(int64_t count, const Body& body) const {
    return launch(body, (count + kFlat - 1) / kFlat, kFlat, 0, call_.stream);
  }

  // Groups of channels outside, blocks of sequences inside: filters are transformed once.
  template <class F>
  bool each_part(const Schedule& s, F f) const {
    for (int group = 0; group < s.groups; group += s.part.groups) {
      for (int block = 0; block < s.blocks; block += s.part.blocks) {
        const Part part = {block, int(least(s.part.blocks, s.blocks - block)), group,
                           int(least(s.part.groups, s.groups - group))};
        if (!f(part)) return false;
      }
    }
    return true;
  }

  int64_t first_filter(const Schedule& s, const Part& part) const {
    return (int64_t(part.first_group) << s.shape.channels_log2) / s.ratio;
  }
  int64_t filter_count(const Schedule& s, const Part& part) const {
    const int64_t end = int64_t(part.first_group + part.groups) << s.shape.channels_log2;
    return (least(end, c_.width) + s.ratio - 1) / s.ratio - first_filter(s, part);
  }

  Items filter_items(const Schedule& s, const Part& part) const {
    Items items = items_of(s, part, Kind::kFilter);
    items.channels = filter_count(s, part);
    items.first_channel = first_filter(s, part);
    items.part = {0, 1, 0, int((items.channels + s.shape.channels() - 1) >> s.shape.channels_log2)};
    return items;
  }

  bool filters(const Schedule& s, const Part& part) const {
    Operand k;
    k.values = call_.k;
    k.strides = {0, c_.k_tap, c_.k_filter};
    k.size = c_.taps;
    Complex* spectrum = array(s, 0);
    const Items items = filter_items(s, part);
    const float scale = 1.0f / float(s.shape.points);
    if (!enter<K>(s, items, k, scale, spectrum)) return false;
    return s.one_tile() || rows(s, items, Rows<Row::kSpectrum>{items, spectrum, Spectra()});
  }

  Spectra spectra_of(const Schedule& s, const Part& part) const {
    Spectra spectra;
    spectra.filter = array(s, 0);
    spectra.ratio = s.ratio;
    spectra.first_filter = first_filter(s, part);
    return spectra;
  }

  bool gradients(const Schedule& s, const Part& part, const Signals& out, bool signals) const {
    Items items = items_of(s, part, Kind::kInput);
    Spectra spectra = spectra_of(s, part);
    spectra.backward = true;
    spectra.fresh = part.first_block == 0;
    spectra.returns = signals;
    const int64_t all = s.part.items();
    Complex* data = array(s, s.filter_groups);
    if (call_.dk) {
      Complex* other = array(s, s.filter_groups + (s.data ? all : 0));
      spectra.other = other;
      spectra.sum = other + all * s.shape.group_points();
      if (!enter<S>(s, items, input(), 1, other)) return false;
      if (!s.one_tile() && !rows(s, items, Rows<Row::kSpectrum>{items, other, Spectra()})) return false;
    }
    items.kind = Kind::kOutput;
    if (s.one_tile()) {
      return convolve(s, items, cotangent(), spectra, out, Kind::kInput);
    }
    if (!columns(s, items, Enter<S>{items, cotangent(), 1, data})) return false;
    if (!rows(s, items, Rows<Row::kProduct>{items, data, spectra})) return false;
    if (!signals) return true;
    items.kind = Kind::kInput;
    return columns(s, items, Leave<S>{items, data, 1, out});
  }

  // From the sums of spectra to the gradient of the part's filters.
  bool filter_gradient(const Schedule& s, const Part& part) const {
    const int64_t all = s.part.items();
    Part summed = part;
    summed.blocks = int(least(s.part.blocks, s.blocks));
    const Items items = filter_items(s, part);
    Complex* spectrum = array(s, 0);
    const Complex* sums = array(s, s.filter_groups + (s.data ? 2 : 1) * all);
    const int side_log2 = s.tensor ? 8 : 0;
    const Gather gather = {s.shape, summed, sums, spectrum, items.channels, s.ratio, side_log2};
    const int64_t blocks = items.part.items() * Gather::blocks_of(s.shape, kFlat);
    if (!launch(gather, blocks, kFlat, 0, call_.stream)) return false;
    if (!s.one_tile() && !rows(s, items, Rows<Row::kInverse>{items, spectrum, Spectra()})) return false;
    Signals out;
    out.first = {call_.dk, nullptr, {0, c_.dk_tap, c_.dk_filter}, {0, 0, 0}};
    return leave<K>(s, items, spectrum, 1.0f / float(s.shape.points), out);
  }

  bool blank(const Signals& out, int64_t length) const {
    return flat(c_.batch * length * c_.width, Blank<S>{out, 0, length, c_.batch, c_.width});
  }

  // Taps that reach no output.
  bool blank_filters(const Schedule& s) const {
    Signals out;
    out.first = {call_.dk, nullptr, {0, c_.dk_tap, c_.dk_filter}, {0, 0, 0}};
    const int64_t low = s.cut.low, high = s.cut.high, above = c_.taps - high;
    return flat(low * c_.filters, Blank<K>{out, 0, low, 1, c_.filters}) &&
           flat(above * c_.filters, Blank<K>{out, high, above, 1, c_.filters});
  }

  const Call& call_;
  const ember_fft_conv& c_;
};

}  // namespace gpu
}  // namespace ember
