// Fourier transforms of real signals modulo x^(2n) + 1, one signal a lane, and what is done between.
//
// The forward transform is decimated in frequency and the inverse one in time, so spectra stay in
// the order that the recursion leaves and nothing is ever permuted. A real signal folds to complex
// numbers u_j + i u_(j+n) modulo x^n - i: no packing of two signals, no pass to take them apart.
#pragma once

#include "butterfly.h"
#include "plan.h"
#include "signal.h"
#include "threads.h"

namespace ember {
namespace EMBER_ISA {

// What happens to a polynomial modulo x^m - w at the last level.
enum class Leaf {
  kSpectrum,   // x becomes its spectrum
  kConvolve,   // x becomes its product with the filter
  kCorrelate,  // x becomes its product with the conjugate of the filter
  kBackward,   // kCorrelate, and before it kSum
  kSum,        // its product with the conjugate of `other` is added to `sum`; x is lost
  kProduct,    // x is a spectrum and becomes the coefficients of its product with the filter
  kInverse,    // x is a spectrum and becomes the coefficients
};
constexpr bool goes_forward(Leaf leaf) { return leaf != Leaf::kInverse && leaf != Leaf::kProduct; }
constexpr bool goes_back(Leaf leaf) { return leaf != Leaf::kSpectrum && leaf != Leaf::kSum; }

// Arrays of a transform's size that are walked through together.
template <class R>
struct Arrays {
  Complex<R>* x;
  const Complex<R>* filter;
  const Complex<R>* other;
  Complex<R>* sum;
  // From position i on, or from vector i on.
  EMBER_INLINE Arrays at(int64_t i) const { return vector(i * kParts); }
  EMBER_INLINE Arrays vector(int64_t i) const { return {x + i, filter + i, other + i, sum + i}; }
};

template <int N, Leaf kLeaf, class R>
EMBER_INLINE void leaf(Arrays<R> in, const R* w) {
  Complex<R> a[N];
#pragma GCC unroll 8
  for (int s = 0; s < N; ++s) a[s] = in.x[s * kParts];
  if (goes_forward(kLeaf)) split<N, R>(a, w);
#pragma GCC unroll 8
  for (int s = 0; s < N; ++s) {
    const int i = s * kParts;
    if (kLeaf == Leaf::kBackward || kLeaf == Leaf::kSum) {
      in.sum[i] = in.sum[i] + times_conjugate(a[s], in.other[i]);
    }
    if (kLeaf == Leaf::kConvolve || kLeaf == Leaf::kProduct) a[s] = a[s] * in.filter[i];
    if (kLeaf == Leaf::kCorrelate || kLeaf == Leaf::kBackward) {
      a[s] = times_conjugate(a[s], in.filter[i]);
    }
  }
  if (goes_back(kLeaf)) join<N, R>(a, w);
  if (kLeaf == Leaf::kSum) return;
#pragma GCC unroll 8
  for (int s = 0; s < N; ++s) in.x[s * kParts] = a[s];
}

template <int N, Leaf kLeaf, class R>
void leaves(Arrays<R> in, int64_t count, const R* w) {
  for (int64_t c = 0; c < count; ++c, in = in.at(N), w += 2 * (N - 1)) {
    for (int h = 0; h < kParts; ++h) leaf<N, kLeaf, R>(in.vector(h), w);
  }
}

// Calls f(Radix<radix>()).
template <int N>
struct Radix {
  static constexpr int value = N;
};
template <class F>
EMBER_INLINE void with_radix(int radix, F f) {
  switch (radix) {
    case 2: return f(Radix<2>());
    case 3: return f(Radix<3>());
    case 4: return f(Radix<4>());
    case 5: return f(Radix<5>());
    default: return f(Radix<8>());
  }
}

enum class Pass { kSplit, kSplitReal, kJoin, kJoinReal };

// One level of one polynomial; a real pass reads or writes real numbers. Lengths are in positions.
template <Pass kPass, class R>
void pass(int radix, const void* in, int64_t in_leg, void* out, int64_t out_leg, int64_t count,
          const R* w) {
  in_leg *= kParts, out_leg *= kParts, count *= kParts;
  with_radix(radix, [=](auto n) {
    constexpr int N = decltype(n)::value;
    const auto* c = static_cast<const Complex<R>*>(in);
    auto* to = static_cast<Complex<R>*>(out);
    if (kPass == Pass::kSplit) split_pass<N, R>(c, in_leg, to, out_leg, count, w);
    if (kPass == Pass::kSplitReal) {
      split_real_pass<N, R>(static_cast<const Vector<R>*>(in), in_leg, to, out_leg, count, w);
    }
    if (kPass == Pass::kJoin) join_pass<N, R>(c, in_leg, to, out_leg, count, w);
    if (kPass == Pass::kJoinReal) {
      join_real_pass<N, R>(c, in_leg, static_cast<Vector<R>*>(out), out_leg, count, w);
    }
  });
}

// What is asked for while rows are computed, when memory would be idle: the signal that is read
// next, and where this one's result goes. Position by position, as the rows advance.
template <class R>
struct Ahead {
  const Source<R>* source = nullptr;
  const Sink<R>* sink = nullptr;

  EMBER_INLINE void step(const Plan* plan, int64_t first, int64_t count) const {
    for (int64_t slot = first; slot < first + count; slot += kRun) {
      if (source) {
        source->prefetch(slot, kRun, true);
        if (source->last_slot() >= plan->n) source->prefetch(slot + plan->n, kRun, true);
      }
      if (sink) {
        sink->prefetch(slot, kRun, true);
        if (sink->last_slot() >= plan->n) sink->prefetch(slot + plan->n, kRun, true);
      }
    }
  }
};

template <class R>
struct Transform {
  const Plan* plan;
  int64_t columns;   // neighbouring ones that are transformed together
  Complex<R>* tile;  // one thread's own

  const R* twiddles(int level, int64_t index) const {
    const R* w = static_cast<const R*>(plan->twiddles[level]);
    return w + 2 * (plan->radix[level] - 1) * index;
  }

  Rows all() const { return {0, plan->n1}; }

  // The levels above the rows, from a signal to some of the rows; `data` is the first of these.
  void columns_in(const Team& team, const Source<R>& source, Complex<R>* data,
                  const Rows& part) const {
    const int64_t strips = plan->n2 / columns;
    const int64_t first = strips * team.rank / team.size;
    const int64_t last = strips * (team.rank + 1) / team.size;
    const bool real = source.last_slot() < plan->n;
    for (int64_t strip = first; strip < last; ++strip) {
      const int64_t column = strip * columns;
      if (plan->top == 1) {
        prefetch_level(source, real, strip + kSteps, 0, 1);
        if (part.last - part.first == plan->n1) {
          read_level(source, real, column, 0, 1, data + column * kParts, plan->pitch);
        } else {
          Complex<R> rows[8 * kRun * kParts];
          read_level(source, real, column, 0, 1, rows, columns);
          copy_rows(rows, part, 0, plan->n1, column, data);
        }
        continue;
      }
      const int64_t below = plan->n1 / plan->radix[0], wide = columns;
      for (int64_t i = 0; i < below; ++i) {
        prefetch_level(source, real, strip, i + kSteps, below);
        read_level(source, real, column, i, below, tile + i * wide * kParts, below * wide);
      }
      int64_t rows = below;
      for (int l = 1; l < plan->top; ++l) {
        const int radix = plan->radix[l];
        const int64_t leg = rows / radix * wide;
        for (int64_t c = part.first / rows; c * rows < part.last; ++c) {
          Complex<R>* x = tile + c * rows * wide * kParts;
          const bool whole = part.first <= c * rows && (c + 1) * rows <= part.last;
          if (l + 1 == plan->top && whole) {
            Complex<R>* to = data + ((c * radix - part.first) * plan->pitch + column) * kParts;
            pass<Pass::kSplit, R>(radix, x, leg, to, plan->pitch, wide, twiddles(l, c));
          } else {
            pass<Pass::kSplit, R>(radix, x, leg, x, leg, leg, twiddles(l, c));
            if (l + 1 == plan->top) copy_rows(tile, part, c * rows, (c + 1) * rows, column, data);
          }
        }
        rows /= radix;
      }
    }
  }

  // The way back, from `data` to a signal.
  void columns_out(const Team& team, const Complex<R>* data, Sink<R>& sink) const {
    const int64_t strips = plan->n2 / columns;
    const int64_t first = strips * team.rank / team.size;
    const int64_t last = strips * (team.rank + 1) / team.size;
    const bool real = sink.last_slot() < plan->n;
    for (int64_t strip = first; strip < last; ++strip) {
      const int64_t column = strip * columns;
      if (plan->top == 1) {
        prefetch_level(sink, real, strip + kSteps, 0, 1);
        write_level(sink, real, column, 0, 1, data + column * kParts, plan->pitch);
        continue;
      }
      const int64_t wide = columns;
      int64_t rows = 1, polynomials = plan->n1;
      for (int l = plan->top - 1; l > 0; --l) {
        const int radix = plan->radix[l];
        const int64_t leg = rows * wide;
        rows *= radix, polynomials /= radix;
        for (int64_t c = 0; c < polynomials; ++c) {
          Complex<R>* x = tile + c * rows * wide * kParts;
          if (l + 1 < plan->top) {
            pass<Pass::kJoin, R>(radix, x, leg, x, leg, leg, twiddles(l, c));
          } else {
            const Complex<R>* from = data + (c * radix * plan->pitch + column) * kParts;
            pass<Pass::kJoin, R>(radix, from, plan->pitch, x, leg, wide, twiddles(l, c));
          }
        }
      }
      for (int64_t i = 0; i < rows; ++i) {
        prefetch_level(sink, real, strip, i + kSteps, rows);
        write_level(sink, real, column, i, rows, tile + i * wide * kParts, rows * wide);
      }
    }
  }

  // The levels inside some rows, there, at the last level, and back; `arrays` are at the first.
  template <Leaf kLeaf>
  void rows(const Team& team, Arrays<R> arrays, const Rows& part,
            const Ahead<R>& ahead = Ahead<R>()) const {
    const int64_t count = part.last - part.first;
    const int64_t last = count * (team.rank + 1) / team.size;
    for (int64_t i = count * team.rank / team.size; i < last; ++i) {
      row<kLeaf>(arrays.at(i * plan->pitch), plan->n2, plan->top, part.first + i, ahead);
    }
  }

 private:
  static constexpr int64_t kAhead = 64;  // positions
  static constexpr bool kFar = true;      // into the second level of cache
  static constexpr int64_t kSteps = 4;   // by which a level asks ahead

  template <Leaf kLeaf>
  void row(Arrays<R> arrays, int64_t size, int level, int64_t index, const Ahead<R>& ahead) const {
    if (size == kAhead || (size < kAhead && level == plan->top)) {
      ahead.step(plan, index * size, size);
    }
    const auto last = [=](int64_t count, const R* w) {
      return [=](auto n) { leaves<decltype(n)::value, kLeaf, R>(arrays, count, w); };
    };
    const int radix = plan->radix[level];
    if (level + 1 == plan->levels) {
      return with_radix(radix, last(1, twiddles(level, index)));
    }
    const R* w = twiddles(level, index);
    const int64_t leg = size / radix;
    if (goes_forward(kLeaf)) {
      pass<Pass::kSplit, R>(radix, arrays.x, leg, arrays.x, leg, leg, w);
    }
    if (level + 2 == plan->levels) {
      with_radix(plan->radix[level + 1], last(radix, twiddles(level + 1, index * radix)));
    } else {
      for (int q = 0; q < radix; ++q) {
        row<kLeaf>(arrays.at(q * leg), leg, level + 1, index * radix + q, ahead);
      }
    }
    if (goes_back(kLeaf)) {
      pass<Pass::kJoin, R>(radix, arrays.x, leg, arrays.x, leg, leg, w);
    }
  }

  template <class F>
  void prefetch_level(const F& f, bool real, int64_t strip, int64_t i, int64_t below) const {
    strip += i / below;
    i %= below;
    const int64_t column = strip * columns;
    if (column >= plan->n2) return;
    for (int q = 0; q < plan->radix[0]; ++q) {
      const int64_t slot = (q * below + i) * plan->n2 + column;
      f.prefetch(slot, columns, kFar);
      if (!real) f.prefetch(slot + plan->n, columns, kFar);
    }
  }

  // Of a strip of columns, those rows from `first` to `last` that are in the part.
  void copy_rows(const Complex<R>* strip, const Rows& part, int64_t first, int64_t last,
                 int64_t column, Complex<R>* data) const {
    const int64_t wide = columns * kParts;
    const int64_t end = last < part.last ? last : part.last;
    for (int64_t row = first < part.first ? part.first : first; row < end; ++row) {
      Complex<R>* to = data + ((row - part.first) * plan->pitch + column) * kParts;
      memcpy(to, strip + row * wide, wide * sizeof(Complex<R>));
    }
  }

  // The first level for `columns` columns of row i of the first of its parts.
  void read_level(const Source<R>& source, bool real, int64_t column, int64_t i, int64_t below,
                  Complex<R>* out, int64_t out_leg) const {
    const int radix = plan->radix[0];
    const int64_t wide = columns, n2 = plan->n2;
    Complex<R> strip[8 * kRun * kParts];
    Vector<R>* v = reinterpret_cast<Vector<R>*>(strip);
    for (int q = 0; q < radix; ++q) {
      const int64_t slot = (q * below + i) * n2 + column;
      if (real) {
        source.read(v + q * wide * kParts, slot, wide);
        continue;
      }
      Vector<R> re[kRun * kParts], im[kRun * kParts];
      source.read(re, slot, wide);
      source.read(im, slot + plan->n, wide);
      Complex<R>* leg = strip + q * wide * kParts;
      for (int64_t j = 0; j < wide * kParts; ++j) leg[j] = {re[j], im[j]};
    }
    if (real) {
      pass<Pass::kSplitReal, R>(radix, v, wide, out, out_leg, wide, twiddles(0, 0));
    } else {
      pass<Pass::kSplit, R>(radix, strip, wide, out, out_leg, wide, twiddles(0, 0));
    }
  }

  void write_level(Sink<R>& sink, bool real, int64_t column, int64_t i, int64_t below,
                   const Complex<R>* in, int64_t in_leg) const {
    const int radix = plan->radix[0];
    const int64_t wide = columns, n2 = plan->n2;
    Complex<R> strip[8 * kRun * kParts];
    Vector<R>* v = reinterpret_cast<Vector<R>*>(strip);
    if (real) {
      pass<Pass::kJoinReal, R>(radix, in, in_leg, v, wide, wide, twiddles(0, 0));
    } else {
      pass<Pass::kJoin, R>(radix, in, in_leg, strip, wide, wide, twiddles(0, 0));
    }
    for (int q = 0; q < radix; ++q) {
      const int64_t slot = (q * below + i) * n2 + column;
      if (real) {
        sink.write(v + q * wide * kParts, slot, wide);
        continue;
      }
      Vector<R> re[kRun * kParts], im[kRun * kParts];
      const Complex<R>* leg = strip + q * wide * kParts;
      for (int64_t j = 0; j < wide * kParts; ++j) re[j] = leg[j].re, im[j] = leg[j].im;
      sink.write(re, slot, wide);
      sink.write(im, slot + plan->n, wide);
    }
  }
};

}  // namespace EMBER_ISA
}  // namespace ember
