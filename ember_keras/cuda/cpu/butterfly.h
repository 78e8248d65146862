// Discrete Fourier transforms of 2, 3, 4, 5 and 8 points in registers, and the passes made of them.
//
// One level of the transform takes a polynomial modulo x^m - w to its residues modulo the R factors
// x^(m/R) - r e^(2 pi i q / R), where r^R = w: with a_s its R parts of m/R coefficients,
//
//   b_q = sum_s a_s r^s e^(2 pi i q s / R).
//
// All coefficients of a part have the same factor r^s, so twiddles are scalars of a whole loop.
#pragma once

#include "vector.h"

namespace ember {
namespace EMBER_ISA {

template <class R>
struct Complex {
  Vector<R> re, im;
};

template <class R>
EMBER_INLINE Complex<R> operator+(Complex<R> a, Complex<R> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class R>
EMBER_INLINE Complex<R> operator-(Complex<R> a, Complex<R> b) {
  return {a.re - b.re, a.im - b.im};
}
template <class R>
EMBER_INLINE Complex<R> operator*(Complex<R> a, Complex<R> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
// a times the conjugate of b
template <class R>
EMBER_INLINE Complex<R> times_conjugate(Complex<R> a, Complex<R> b) {
  return {a.re * b.re + a.im * b.im, a.im * b.re - a.re * b.im};
}
template <class R>
EMBER_INLINE Complex<R> twiddled(Complex<R> a, const R* w) {
  return {a.re * w[0] - a.im * w[1], a.re * w[1] + a.im * w[0]};
}
template <class R>
EMBER_INLINE Complex<R> untwiddled(Complex<R> a, const R* w) {
  return {a.re * w[0] + a.im * w[1], a.im * w[0] - a.re * w[1]};
}
// a times i, or times -i in an inverse transform
template <bool Inverse, class R>
EMBER_INLINE Complex<R> turned(Complex<R> a) {
  return Inverse ? Complex<R>{a.im, -a.re} : Complex<R>{-a.im, a.re};
}

template <int N, bool Inverse, class R>
struct Dft;

template <bool I, class R>
struct Dft<1, I, R> {
  static EMBER_INLINE void run(Complex<R>*) {}
};

template <bool I, class R>
struct Dft<2, I, R> {
  static EMBER_INLINE void run(Complex<R>* a) {
    const Complex<R> b = a[0] - a[1];
    a[0] = a[0] + a[1];
    a[1] = b;
  }
};

template <bool I, class R>
struct Dft<3, I, R> {
  static EMBER_INLINE void run(Complex<R>* a) {
    constexpr R h = R(0.86602540378443864676372317075294);
    const Complex<R> s = a[1] + a[2], d = a[1] - a[2];
    const Complex<R> m = {a[0].re - R(0.5) * s.re, a[0].im - R(0.5) * s.im};
    const Complex<R> t = turned<I, R>({h * d.re, h * d.im});
    a[0] = a[0] + s;
    a[1] = m + t;
    a[2] = m - t;
  }
};

template <bool I, class R>
struct Dft<4, I, R> {
  static EMBER_INLINE void run(Complex<R>* a) {
    const Complex<R> e0 = a[0] + a[2], e1 = a[0] - a[2];
    const Complex<R> o0 = a[1] + a[3], d = a[1] - a[3];
    a[0] = e0 + o0;
    a[2] = e0 - o0;
    if (I) {
      a[1] = {e1.re + d.im, e1.im - d.re};
      a[3] = {e1.re - d.im, e1.im + d.re};
    } else {
      a[1] = {e1.re - d.im, e1.im + d.re};
      a[3] = {e1.re + d.im, e1.im - d.re};
    }
  }
};

template <bool I, class R>
struct Dft<5, I, R> {
  static EMBER_INLINE void run(Complex<R>* a) {
    constexpr R c1 = R(0.30901699437494742410229341718282);
    constexpr R c2 = R(-0.80901699437494742410229341718282);
    constexpr R s1 = R(0.95105651629515357211643933337938);
    constexpr R s2 = R(0.58778525229247312916870595463907);
    const Complex<R> p = a[1] + a[4], m = a[1] - a[4], q = a[2] + a[3], n = a[2] - a[3];
    const Complex<R> u = {a[0].re + c1 * p.re + c2 * q.re, a[0].im + c1 * p.im + c2 * q.im};
    const Complex<R> v = {a[0].re + c2 * p.re + c1 * q.re, a[0].im + c2 * p.im + c1 * q.im};
    const Complex<R> x = turned<I, R>({s1 * m.re + s2 * n.re, s1 * m.im + s2 * n.im});
    const Complex<R> y = turned<I, R>({s2 * m.re - s1 * n.re, s2 * m.im - s1 * n.im});
    a[0] = a[0] + p + q;
    a[1] = u + x;
    a[4] = u - x;
    a[2] = v + y;
    a[3] = v - y;
  }
};

template <bool I, class R>
struct Dft<8, I, R> {
  static EMBER_INLINE void run(Complex<R>* a) {
    constexpr R h = R(0.70710678118654752440084436210485);
    Complex<R> e[4] = {a[0], a[2], a[4], a[6]};
    Complex<R> o[4] = {a[1], a[3], a[5], a[7]};
    Dft<4, I, R>::run(e);
    Dft<4, I, R>::run(o);
    a[0] = e[0] + o[0];
    a[4] = e[0] - o[0];
    const Vector<R> p1 = o[1].re + o[1].im, m1 = o[1].re - o[1].im;
    const Vector<R> p3 = o[3].re + o[3].im, m3 = o[3].re - o[3].im;
    if (I) {
      a[1] = {e[1].re + h * p1, e[1].im - h * m1};
      a[5] = {e[1].re - h * p1, e[1].im + h * m1};
      a[2] = {e[2].re + o[2].im, e[2].im - o[2].re};
      a[6] = {e[2].re - o[2].im, e[2].im + o[2].re};
      a[3] = {e[3].re - h * m3, e[3].im - h * p3};
      a[7] = {e[3].re + h * m3, e[3].im + h * p3};
    } else {
      a[1] = {e[1].re + h * m1, e[1].im + h * p1};
      a[5] = {e[1].re - h * m1, e[1].im - h * p1};
      a[2] = {e[2].re - o[2].im, e[2].im + o[2].re};
      a[6] = {e[2].re + o[2].im, e[2].im - o[2].re};
      a[3] = {e[3].re - h * p3, e[3].im + h * m3};
      a[7] = {e[3].re + h * p3, e[3].im - h * m3};
    }
  }
};

// The level above, from coefficients to residues: `count` of them a part, parts `leg` apart.
template <int N, class R>
EMBER_INLINE void split(Complex<R>* a, const R* w) {
#pragma GCC unroll 8
  for (int s = 1; s < N; ++s) a[s] = twiddled(a[s], w + 2 * (s - 1));
  Dft<N, false, R>::run(a);
}
template <int N, class R>
EMBER_INLINE void join(Complex<R>* a, const R* w) {
  Dft<N, true, R>::run(a);
#pragma GCC unroll 8
  for (int s = 1; s < N; ++s) a[s] = untwiddled(a[s], w + 2 * (s - 1));
}

template <int N, class R>
void split_pass(const Complex<R>* in, int64_t in_leg, Complex<R>* out, int64_t out_leg,
                int64_t count, const R* w) {
  for (int64_t j = 0; j < count; ++j) {
    Complex<R> a[N];
#pragma GCC unroll 8
    for (int s = 0; s < N; ++s) a[s] = in[j + s * in_leg];
    split<N, R>(a, w);
#pragma GCC unroll 8
    for (int s = 0; s < N; ++s) out[j + s * out_leg] = a[s];
  }
}

// The same where every coefficient is real.
template <int N, class R>
void split_real_pass(const Vector<R>* in, int64_t in_leg, Complex<R>* out, int64_t out_leg,
                     int64_t count, const R* w) {
  for (int64_t j = 0; j < count; ++j) {
    Complex<R> a[N];
    a[0] = {in[j], Vector<R>{}};
#pragma GCC unroll 8
    for (int s = 1; s < N; ++s) {
      const Vector<R> x = in[j + s * in_leg];
      a[s] = {x * w[2 * s - 2], x * w[2 * s - 1]};
    }
    Dft<N, false, R>::run(a);
#pragma GCC unroll 8
    for (int s = 0; s < N; ++s) out[j + s * out_leg] = a[s];
  }
}

template <int N, class R>
void join_pass(const Complex<R>* in, int64_t in_leg, Complex<R>* out, int64_t out_leg,
               int64_t count, const R* w) {
  for (int64_t j = 0; j < count; ++j) {
    Complex<R> a[N];
#pragma GCC unroll 8
    for (int s = 0; s < N; ++s) a[s] = in[j + s * in_leg];
    join<N, R>(a, w);
#pragma GCC unroll 8
    for (int s = 0; s < N; ++s) out[j + s * out_leg] = a[s];
  }
}

// The same where only the real parts are wanted.
template <int N, class R>
void join_real_pass(const Complex<R>* in, int64_t in_leg, Vector<R>* out, int64_t out_leg,
                    int64_t count, const R* w) {
  for (int64_t j = 0; j < count; ++j) {
    Complex<R> a[N];
#pragma GCC unroll 8
    for (int s = 0; s < N; ++s) a[s] = in[j + s * in_leg];
    join<N, R>(a, w);
#pragma GCC unroll 8
    for (int s = 0; s < N; ++s) out[j + s * out_leg] = a[s].re;
  }
}

}  // namespace EMBER_ISA
}  // namespace ember
