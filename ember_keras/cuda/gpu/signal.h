// Where a transform's numbers come from and go to, as one thread sees it: one channel of a sequence.
#pragma once

#include "../fft_conv.h"
#include "grid.h"

namespace ember {
namespace gpu {

// A signal (batch, time, channel), or a filter (1, taps, filters), perhaps times a gate. With a
// period, positions are taken modulo it.
struct Operand {
  const void* values = nullptr;
  const void* gate = nullptr;
  ember_strides strides = {0, 0, 0}, gate_strides = {0, 0, 0};
  int64_t size = 0, period = 0;
};

// Slots low .. high - 1 of a transform are used; slot j is position j + shift of an array. With a
// period, |shift| is at most twice the period.
struct Window {
  int64_t shift;
  int low, high;
};

template <class S>
EMBER_DEVICE const S* start_of(const void* p, const ember_strides& s, int64_t batch, int64_t channel,
                               int64_t time) {
  if (!p) return nullptr;
  return static_cast<const S*>(p) + (batch * s.batch + channel * s.channel + time * s.time);
}

template <class S>
class Reader {
 public:
  EMBER_DEVICE Reader(const Operand& x, const Window& w, int64_t batch, int64_t channel, bool used)
      : step_(x.strides.time), gate_step_(x.gate_strides.time), period_(int(x.period)) {
    const int64_t first = period_ ? 0 : w.shift;  // the position that the pointers point to
    values_ = start_of<S>(x.values, x.strides, batch, channel, first);
    gate_ = start_of<S>(x.gate, x.gate_strides, batch, channel, first);
    low_ = w.low;
    int64_t high = w.high;
    if (period_) {
      shift_ = int(w.shift);
      size_ = int(x.size);
    } else {
      if (-w.shift > low_) low_ = int(-w.shift < high ? -w.shift : high);
      if (x.size - w.shift < high) high = x.size - w.shift;
    }
    slots_ = used && high > low_ ? unsigned(high - low_) : 0;
  }

  EMBER_DEVICE float operator()(int slot) const {
    if (unsigned(slot - low_) >= slots_) return 0;
    int i = slot;
    if (period_) {
      i += shift_;
      i += i < -period_ ? 2 * period_ : i < 0 ? period_ : 0;
      i -= i >= 2 * period_ ? 2 * period_ : 0;
      i -= i >= period_ ? period_ : 0;
      if (i >= size_) return 0;
    }
    const float x = load(values_ + i * step_);
    return gate_ ? x * load(gate_ + i * gate_step_) : x;
  }

 private:
  const S *values_, *gate_;
  int64_t step_, gate_step_;
  int low_, period_, shift_ = 0, size_ = 0;
  unsigned slots_;
};

struct Result {
  void* values = nullptr;
  const void* gate = nullptr;
  ember_strides strides = {0, 0, 0}, gate_strides = {0, 0, 0};
};

// first = first.gate (x + d other), second = second.gate (x + d other): an output, or gradients.
// `other` is at position i + other_shift, where the results are at i.
struct Signals {
  Result first, second;
  Operand other;
  int64_t other_shift = 0;
  const void* d = nullptr;
  int d_wide = 0;  // d is float beside 16-bit signals
};

template <class S>
class Place {
 public:
  EMBER_DEVICE Place(const Result& x, int64_t shift, int64_t batch, int64_t channel)
      : values_(const_cast<S*>(start_of<S>(x.values, x.strides, batch, channel, shift))),
        gate_(start_of<S>(x.gate, x.gate_strides, batch, channel, shift)),
        step_(x.strides.time),
        gate_step_(x.gate_strides.time) {}

  EMBER_DEVICE void put(int slot, float x) const {
    if (values_) store(values_ + slot * step_, gate_ ? x * load(gate_ + slot * gate_step_) : x);
  }

 private:
  S* values_;
  const S* gate_;
  int64_t step_, gate_step_;
};

template <class S>
class Writer {
 public:
  EMBER_DEVICE Writer(const Signals& out, const Window& w, int64_t batch, int64_t channel, bool used)
      : first_(out.first, w.shift, batch, channel),
        second_(out.second, w.shift, batch, channel),
        other_(out.other, {w.shift + out.other_shift, w.low, w.high}, batch, channel, used && out.d),
        low_(w.low),
        slots_(used && w.high > w.low ? unsigned(w.high - w.low) : 0) {
    if (!out.d || !used) return;
    d_ = out.d_wide ? load(static_cast<const float*>(out.d) + channel)
                    : load(static_cast<const S*>(out.d) + channel);
  }

  EMBER_DEVICE void operator()(int slot, float x) const {
    if (unsigned(slot - low_) >= slots_) return;
    if (d_ != 0) x += d_ * other_(slot);
    first_.put(slot, x);
    second_.put(slot, x);
  }

 private:
  Place<S> first_, second_;
  Reader<S> other_;
  int low_;
  unsigned slots_;
  float d_ = 0;
};

}  // namespace gpu
}  // namespace ember
