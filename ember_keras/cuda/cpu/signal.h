// Where a transform's real numbers come from and go to: runs of positions of a group of lanes.
#pragma once

#include "vector.h"

namespace ember {
namespace EMBER_ISA {

constexpr int kRun = 16;  // positions that are read or written at once, at most

// Which sequence, channel and filter each lane of a group belongs to.
template <class R>
struct Lanes {
  int count;
  int64_t batch[kLanes<R>], channel[kLanes<R>], filter[kLanes<R>];
};

// One strided array as a group of lanes sees it.
template <class R>
struct Stream {
  char* base = nullptr;
  int64_t step = 0;    // bytes from one position to the next
  int count = 0;       // lanes in use; the others read as 0
  bool wide = false;   // lanes are neighbours, and as many as a vector can be read
  int64_t offset[kLanes<R>];  // bytes

  void (*read_run)(const Stream&, Vector<R>*, int64_t, int64_t) = nullptr;
  void (*multiply_run)(const Stream&, Vector<R>*, int64_t, int64_t) = nullptr;
  void (*write_run)(const Stream&, const Vector<R>*, int64_t, int64_t) = nullptr;

  explicit operator bool() const { return base != nullptr; }
};

// A position's line as single lanes.
template <class R>
EMBER_INLINE R get_lane(const Vector<R>* line, int l) {
  return line[l / kWidth<R>][l % kWidth<R>];
}
template <class R>
EMBER_INLINE void set_lane(Vector<R>* line, int l, R x) {
  line[l / kWidth<R>][l % kWidth<R>] = x;
}

template <class S, class R>
void gather(const Stream<R>& s, Vector<R>* line, int64_t i) {
  for (int h = 0; h < kParts; ++h) line[h] = Vector<R>{};
  for (int l = 0; l < s.count; ++l) {
    set_lane<R>(line, l, Storage<S, R>::load_one(s.base + s.offset[l] + i * s.step));
  }
}

template <class S, class R>
void stream_read(const Stream<R>& s, Vector<R>* out, int64_t first, int64_t count) {
  if (!s.wide) {
    for (int64_t i = 0; i < count; ++i) gather<S, R>(s, out + i * kParts, first + i);
    return;
  }
  constexpr int64_t kPart = kWidth<R> * int64_t(sizeof(S));
  const char* p = s.base + s.offset[0] + first * s.step;
  for (int64_t i = 0; i < count; ++i) {
    for (int h = 0; h < kParts; ++h) {
      out[i * kParts + h] = Storage<S, R>::load(p + i * s.step + h * kPart);
    }
  }
  if (s.count == kLanes<R>) return;
  for (int64_t i = 0; i < count; ++i) {
    for (int l = s.count; l < kLanes<R>; ++l) set_lane<R>(out + i * kParts, l, R(0));
  }
}

template <class S, class R>
void stream_multiply(const Stream<R>& s, Vector<R>* x, int64_t first, int64_t count) {
  if (!s.wide || s.count < kLanes<R>) {
    for (int64_t i = 0; i < count; ++i) {
      Vector<R> line[kParts];
      gather<S, R>(s, line, first + i);
      for (int h = 0; h < kParts; ++h) x[i * kParts + h] *= line[h];
    }
    return;
  }
  constexpr int64_t kPart = kWidth<R> * int64_t(sizeof(S));
  const char* p = s.base + s.offset[0] + first * s.step;
  for (int64_t i = 0; i < count; ++i) {
    for (int h = 0; h < kParts; ++h) {
      x[i * kParts + h] *= Storage<S, R>::load(p + i * s.step + h * kPart);
    }
  }
}

template <class S, class R>
void stream_write(const Stream<R>& s, const Vector<R>* x, int64_t first, int64_t count) {
  char* p = s.base + first * s.step;
  if (s.wide && s.count == kLanes<R>) {
    constexpr int64_t kPart = kWidth<R> * int64_t(sizeof(S));
    p += s.offset[0];
    for (int64_t i = 0; i < count; ++i) {
      for (int h = 0; h < kParts; ++h) {
        Storage<S, R>::store(p + i * s.step + h * kPart, x[i * kParts + h]);
      }
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i, p += s.step) {
    for (int l = 0; l < s.count; ++l) {
      Storage<S, R>::store_one(p + s.offset[l], get_lane<R>(x + i * kParts, l));
    }
  }
}

// Asks for lines that are read or written soon: the processor does not foresee such strides.
template <class R>
EMBER_INLINE void stream_prefetch(const Stream<R>& s, int64_t first, int64_t count, bool far) {
  const char* p = s.base + s.offset[0] + first * s.step;
  // Lanes that begin inside a line of cache end in the next one.
  const int64_t end = reinterpret_cast<uintptr_t>(p) % kLine ? kLine - 1 : 0;
  for (int64_t i = 0; i < count; ++i, p += s.step) {
    if (far) {
      __builtin_prefetch(p, 0, 2);
      if (end) __builtin_prefetch(p + end, 0, 2);
    } else {
      __builtin_prefetch(p, 0, 3);
      if (end) __builtin_prefetch(p + end, 0, 3);
    }
  }
}

// An array with strides in bytes; `row` and `column` are what lanes differ in.
template <class S, class R>
Stream<R> make_stream(const void* base, int64_t step, const Lanes<R>& lanes, const int64_t* row,
                      int64_t row_step, const int64_t* column, int64_t column_step,
                      int64_t columns) {
  Stream<R> s;
  s.base = static_cast<char*>(const_cast<void*>(base));
  s.step = step;
  s.count = lanes.count;
  s.wide = lanes.count == kLanes<R> || column[0] + kLanes<R> <= columns;
  for (int l = 0; l < lanes.count; ++l) {
    s.offset[l] = (row ? row[l] * row_step : 0) + column[l] * column_step;
    if (s.offset[l] != s.offset[0] + l * int64_t(sizeof(S))) s.wide = false;
  }
  if (column_step != int64_t(sizeof(S))) s.wide = false;
  s.read_run = stream_read<S, R>;
  s.multiply_run = stream_multiply<S, R>;
  s.write_run = stream_write<S, R>;
  return s;
}

// A product of two arrays, or one of them, that lies somewhere in a transform's slots: slot j holds
// position j + shift, 0 outside `size` positions from `origin` on. With a period, positions are
// taken modulo it.
template <class R>
struct Source {
  Stream<R> values, gate;
  int64_t shift = 0, origin = 0, size = 0, period = 0;
  int64_t low = 0, high = 0;  // slots in use; those outside are 0
  R scale = 1;

  int64_t last_slot() const { return high - 1; }

  void read(Vector<R>* out, int64_t slot, int64_t count) const {
    while (count > 0) {
      int64_t i = slot + shift - origin, run = count;
      if (period) i = (i % period + period) % period;
      bool inside = true;
      if (slot < low || slot >= high) {
        inside = false;
        if (slot < low && low - slot < run) run = low - slot;
      } else if (i < 0 || i >= size) {
        inside = false;
        const int64_t next = i < 0 ? -i : period ? period - i : run;
        if (next < run) run = next;
      } else {
        if (size - i < run) run = size - i;
        if (high - slot < run) run = high - slot;
      }
      if (inside) {
        values.read_run(values, out, i, run);
        if (gate) gate.multiply_run(gate, out, i, run);
        if (scale != R(1)) {
          for (int64_t j = 0; j < run * kParts; ++j) out[j] *= scale;
        }
      } else {
        for (int64_t j = 0; j < run * kParts; ++j) out[j] = Vector<R>{};
      }
      out += run * kParts, slot += run, count -= run;
    }
  }

  void prefetch(int64_t slot, int64_t count, bool far = false) const {
    const int64_t i = slot + shift - origin;
    if (slot < low || slot + count > high || i < 0 || i + count > size) return;
    stream_prefetch(values, i, count, far);
    if (gate) stream_prefetch(gate, i, count, far);
  }
};

// Takes runs of a transform's slots. Slots outside low .. high - 1 are not wanted.
template <class R>
struct Sink {
  int64_t low = 0, high = 0;
  int64_t last_slot() const { return high - 1; }

  void write(Vector<R>* x, int64_t slot, int64_t count) {
    const int64_t from = slot < low ? low - slot : 0;
    const int64_t to = high - slot < count ? high - slot : count;
    if (from < to) emit(x + from * kParts, slot + from, to - from);
  }
  virtual void prefetch(int64_t slot, int64_t count, bool far = false) const = 0;

 protected:
  virtual void emit(Vector<R>* x, int64_t slot, int64_t count) = 0;
  ~Sink() = default;
};

// first = first_gate (x + d other), second = second_gate (x + d other): an output, or gradients.
template <class R>
struct SignalSink final : Sink<R> {
  Stream<R> first, first_gate, second, second_gate;
  int64_t shift = 0;  // slot j is position j + shift of the arrays
  bool skips = false;
  Vector<R> d[kParts];
  Source<R> other;  // its slot j belongs to position j

  void prefetch(int64_t slot, int64_t count, bool far) const override {
    if (slot < this->low || slot + count > this->high) return;
    const int64_t i = slot + shift;
    if (skips) other.prefetch(i, count, far);
    if (first) stream_prefetch(first, i, count, far);
    if (first_gate) stream_prefetch(first_gate, i, count, far);
    if (second) stream_prefetch(second, i, count, far);
    if (second_gate) stream_prefetch(second_gate, i, count, far);
  }

 protected:
  void emit(Vector<R>* x, int64_t slot, int64_t count) override {
    const int64_t i = slot + shift;
    if (skips) {
      Vector<R> o[kRun * kParts];
      other.read(o, i, count);
      for (int64_t j = 0; j < count * kParts; ++j) x[j] += d[j % kParts] * o[j];
    }
    if (second) {
      Vector<R> y[kRun * kParts];
      for (int64_t j = 0; j < count * kParts; ++j) y[j] = x[j];
      if (second_gate) second_gate.multiply_run(second_gate, y, i, count);
      second.write_run(second, y, i, count);
    }
    if (!first) return;
    if (first_gate) first_gate.multiply_run(first_gate, x, i, count);
    first.write_run(first, x, i, count);
  }
};

// The gradient of a filter: lanes that share one are summed.
template <class R>
struct FilterSink final : Sink<R> {
  Lanes<R> lanes;
  Stream<R> out;  // its lane l is the l-th filter of the group
  R scale = 1;
  bool shared = false;

  void prefetch(int64_t, int64_t, bool) const override {}

 protected:
  void emit(Vector<R>* x, int64_t slot, int64_t count) override {
    for (int64_t j = 0; j < count; ++j) {
      Vector<R>* line = x + j * kParts;
      for (int h = 0; h < kParts; ++h) line[h] *= scale;
      if (!shared) continue;
      R sums[kLanes<R>] = {};
      for (int l = 0; l < lanes.count; ++l) {
        sums[lanes.filter[l] - lanes.filter[0]] += get_lane<R>(line, l);
      }
      memcpy(line, sums, sizeof sums);
    }
    out.write_run(out, x, slot, count);
  }
};

}  // namespace EMBER_ISA
}  // namespace ember
