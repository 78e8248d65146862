// Complex numbers, roots of unity that the compiler knows, and transforms of a few points in
// registers. The forward transform has the exponent's sign +, the inverse -.
#pragma once

#include "grid.h"

namespace ember {
namespace gpu {

EMBER_DEVICE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
EMBER_DEVICE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
EMBER_DEVICE Complex operator*(Complex a, Complex b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
EMBER_DEVICE Complex conjugate(Complex a) { return {a.re, -a.im}; }

template <int I>
struct Index {
  static constexpr int value = I;
  EMBER_ANYWHERE constexpr operator int() const { return I; }
};

// Calls f with the integers 0 .. N - 1, each of a type of its own: what they index is in registers.
template <class F, int... I>
EMBER_DEVICE void each_of(F f, std::integer_sequence<int, I...>) {
  (f(Index<I>()), ...);
}
template <int N, class F>
EMBER_DEVICE void static_for(F f) {
  each_of(f, std::make_integer_sequence<int, N>());
}

// The cosine of 2 pi k / n, for the compiler.
EMBER_ANYWHERE constexpr double cosine(int k, int n) {
  k = k % n;
  if (2 * k > n) k = n - k;
  const double x = 6.28318530717958647692 * double(k) / double(n);
  double term = 1, sum = 1;
  for (int i = 1; i < 24; ++i) sum += term *= -x * x / double((2 * i - 1) * (2 * i));
  return sum;
}

// x times exp(2 pi i K / N), or its conjugate.
template <int K, int N, bool kConjugate>
EMBER_DEVICE Complex turned(Complex x) {
  constexpr int k = kConjugate ? (N - K % N) % N : K % N;
  if constexpr (k == 0) {
    return x;
  } else if constexpr (2 * k == N) {
    return {-x.re, -x.im};
  } else if constexpr (4 * k == N) {
    return {-x.im, x.re};
  } else if constexpr (4 * k == 3 * N) {
    return {x.im, -x.re};
  } else {
    constexpr float re = float(cosine(k, N));
    constexpr float im = float(cosine(4 * k + 3 * N, 4 * N));
    return x * Complex{re, im};
  }
}

template <int R, bool kInverse>
struct Dft {
  static EMBER_DEVICE void run(Complex (&v)[R]) {
    if constexpr (R == 2) {
      const Complex a = v[0];
      v[0] = a + v[1];
      v[1] = a - v[1];
    } else if constexpr (R == 3) {
      constexpr float half = 0.86602540378443864676f;
      const Complex sum = v[1] + v[2], difference = v[1] - v[2];
      const Complex middle = {v[0].re - 0.5f * sum.re, v[0].im - 0.5f * sum.im};
      const Complex side = {-half * difference.im, half * difference.re};
      v[0] = v[0] + sum;
      v[1] = kInverse ? middle - side : middle + side;
      v[2] = kInverse ? middle + side : middle - side;
    } else if constexpr (R == 4) {
      const Complex a = v[0] + v[2], b = v[0] - v[2], c = v[1] + v[3];
      const Complex d = turned<1, 4, kInverse>(v[1] - v[3]);
      v[0] = a + c;
      v[1] = b + d;
      v[2] = a - c;
      v[3] = b - d;
    } else {
      constexpr int A = R % 4 == 0 ? 4 : R % 2 == 0 ? 2 : 3, B = R / A;
      Complex parts[R];
      static_for<A>([&](auto a) {
        Complex w[B];
        static_for<B>([&](auto b) { w[b] = v[a + A * b]; });
        Dft<B, kInverse>::run(w);
        static_for<B>([&](auto q) {
          constexpr int k = decltype(a)::value * decltype(q)::value;
          parts[q * A + a] = turned<k, R, kInverse>(w[q]);
        });
      });
      static_for<B>([&](auto q) {
        Complex w[A];
        static_for<A>([&](auto a) { w[a] = parts[q * A + a]; });
        Dft<A, kInverse>::run(w);
        static_for<A>([&](auto p) { v[q + B * p] = w[p]; });
      });
    }
  }
};

}  // namespace gpu
}  // namespace ember
