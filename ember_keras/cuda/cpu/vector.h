// Vectors of neighbouring channels, and the storage they are read from and written to.
//
// Everything here is compiled once for each instruction set, in a namespace of its own. No function
// of the standard library's templates may be used in these files: the linker would keep one copy
// of it, perhaps one that another processor cannot run.
#pragma once

#include <cstdint>
#include <cstring>

#ifndef EMBER_ISA
#define EMBER_ISA portable
#define EMBER_VECTOR_BYTES 16
#endif

#define EMBER_INLINE inline __attribute__((always_inline))

namespace ember {
namespace EMBER_ISA {

constexpr int kBytes = EMBER_VECTOR_BYTES;

template <class R>
struct VectorOf {
  typedef R type __attribute__((vector_size(kBytes)));
};
template <class R>
using Vector = typename VectorOf<R>::type;
template <class R>
constexpr int kWidth = kBytes / int(sizeof(R));

// A group of lanes is what lies in one line of cache, in one or several vectors: memory moves by
// lines, and twiddles serve all vectors of a line.
constexpr int kLine = 64;
constexpr int kParts = kLine / kBytes;
template <class R>
constexpr int kLanes = kLine / int(sizeof(R));

typedef uint32_t Words __attribute__((vector_size(kBytes)));
typedef uint16_t Halves __attribute__((vector_size(kBytes / 2)));

struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};

template <class To, class From>
EMBER_INLINE To bits_of(From x) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}

// float16 and bfloat16 by integer operations: the same on every machine. W is a word or a vector.
template <class W>
EMBER_INLINE W select(W mask, W yes, W no) {
  return (yes & mask) | (no & ~mask);
}
EMBER_INLINE uint32_t mask_of(bool x) { return x ? ~0u : 0u; }
EMBER_INLINE Words mask_of(Words x) { return x; }

EMBER_INLINE float as_float(uint32_t x) { return bits_of<float>(x); }
EMBER_INLINE Vector<float> as_float(Words x) { return bits_of<Vector<float>>(x); }
EMBER_INLINE uint32_t as_words(float x) { return bits_of<uint32_t>(x); }
EMBER_INLINE Words as_words(Vector<float> x) { return bits_of<Words>(x); }

template <class W>
EMBER_INLINE auto widen(Half, W h) {
  // Exponent and fraction move to their places; the product mends the bias, subnormals too.
  const W magnitude = (h & 0x7fffu) << 13;
  const W scaled = as_words(as_float(magnitude) * 0x1p112f);
  const W special = mask_of((W)((h & 0x7c00u) == 0x7c00u));
  return as_float(select<W>(special, magnitude | 0x7f800000u, scaled) | ((h & 0x8000u) << 16));
}
template <class W>
EMBER_INLINE auto widen(Brain, W h) {
  return as_float((W)(h << 16));
}

template <class W>
EMBER_INLINE W narrow(Half, W x) {
  const W sign = (x >> 16) & 0x8000u;
  const W a = x & 0x7fffffffu;
  const W normal = (a - (112u << 23) + 0xfffu + ((a >> 13) & 1u)) >> 13;
  // Below 2^-14 the sum with 0.5 rounds at the place of the last subnormal bit.
  const W small = as_words(as_float(a) + 0.5f) - 0x3f000000u;
  W h = select<W>(mask_of((W)(a < (113u << 23))), small, normal);
  h = select<W>(mask_of((W)(a >= 0x477ff000u)), (a & 0u) + 0x7c00u, h);
  h = select<W>(mask_of((W)(a > 0x7f800000u)), (a & 0u) + 0x7e00u, h);
  return h | sign;
}
template <class W>
EMBER_INLINE W narrow(Brain, W x) {
  const W rounded = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16;
  return select<W>(mask_of((W)((x & 0x7fffffffu) > 0x7f800000u)), (x >> 16) | 0x40u, rounded);
}

// What is stored as S, one number or a vector of them, at any address.
template <class S, class R>
struct Storage {
  static EMBER_INLINE Vector<R> load(const char* p) {
    Halves h;
    memcpy(&h, p, sizeof h);
    return widen(S(), __builtin_convertvector(h, Words));
  }
  static EMBER_INLINE void store(char* p, Vector<R> x) {
    const Halves h = __builtin_convertvector(narrow(S(), as_words(x)), Halves);
    memcpy(p, &h, sizeof h);
  }
  static EMBER_INLINE R load_one(const char* p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return widen(S(), uint32_t(h));
  }
  static EMBER_INLINE void store_one(char* p, R x) {
    const uint16_t h = uint16_t(narrow(S(), as_words(x)));
    memcpy(p, &h, sizeof h);
  }
};
template <class R>
struct Storage<R, R> {
  static EMBER_INLINE Vector<R> load(const char* p) {
    Vector<R> x;
    memcpy(&x, p, sizeof x);
    return x;
  }
  static EMBER_INLINE void store(char* p, Vector<R> x) { memcpy(p, &x, sizeof x); }
  static EMBER_INLINE R load_one(const char* p) {
    R x;
    memcpy(&x, p, sizeof x);
    return x;
  }
  static EMBER_INLINE void store_one(char* p, R x) { memcpy(p, &x, sizeof x); }
};

}  // namespace EMBER_ISA
}  // namespace ember
