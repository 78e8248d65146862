// A product of matrices in packed blocks, C = A B or C += A B in float32.
//
// B is packed into panels of kColumns columns, and A into panels of up to kRows rows, so that the
// innermost loop reads both in order: it keeps kRows x kColumns sums in registers (Goto and van de
// Geijn 2008, Anatomy of high-performance matrix multiplication, doi 10.1145/1356052.1356053).
// Compiled once for each instruction set, like vector.h, and bound by the same rule.
#pragma once

#include "grouped_call.h"
#include "vector.h"
#if EMBER_VECTOR_BYTES >= 32
#include <immintrin.h>
#endif

namespace ember {
namespace EMBER_ISA {

typedef float Floats __attribute__((vector_size(kBytes)));
typedef float LooseFloats __attribute__((vector_size(kBytes), aligned(4), may_alias));
typedef float Four __attribute__((vector_size(16)));
typedef float LooseFour __attribute__((vector_size(16), aligned(4), may_alias));

constexpr int kFloats = kBytes / 4;
constexpr int kVectors = 2;
constexpr int kColumns = kFloats * kVectors;
constexpr int64_t kPiece = kLine / 4;  // inner positions of B that are packed at once
constexpr int kRows = kBytes == 64 ? 12 : kBytes == 32 ? 6 : 4;

// A matrix of lines, each of which lies dense: they are its rows, or its columns. Line i is that of
// number `index[i]`, or i where there is no index.
struct Matrix {
  const float* data;
  int64_t stride;
  bool columns;
  const int32_t* index;

  EMBER_INLINE const float* line(int64_t i) const { return data + (index ? index[i] : i) * stride; }
  // The matrix without its first rows.
  EMBER_INLINE Matrix below(int64_t rows) const {
    if (columns) return {data + rows, stride, columns, index};
    return index ? Matrix{data, stride, columns, index + rows}
                 : Matrix{data + rows * stride, stride, columns, index};
  }
};

EMBER_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
EMBER_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Asks for a line of memory, for the first cache or the second. The empty assembly keeps compilers
// from taking functions that do nothing else for ones that do nothing.
template <bool far>
EMBER_INLINE void ask(const float* at) {
  __builtin_prefetch(at, 0, far ? 2 : 3);
  asm volatile("");
}

EMBER_INLINE Floats load(const float* from, int64_t count) {
  if (count >= kFloats) return *reinterpret_cast<const LooseFloats*>(from);
  Floats x = {};
  for (int64_t j = 0; j < count; ++j) x[j] = from[j];
  return x;
}

EMBER_INLINE void store(float* to, Floats x, int64_t count) {
  if (count >= kFloats) {
    *reinterpret_cast<LooseFloats*>(to) = x;
    return;
  }
  for (int64_t j = 0; j < count; ++j) to[j] = x[j];
}

// Stores whole vectors past the caches, to memory that is not read again soon: it need not be read
// before. Aligned to a vector. `end_streams` must follow before another thread reads them.
EMBER_INLINE void stream(float* to, Floats x) {
#if EMBER_VECTOR_BYTES >= 64
  _mm512_stream_ps(to, __m512(x));
#elif EMBER_VECTOR_BYTES >= 32
  _mm256_stream_ps(to, __m256(x));
#else
  *reinterpret_cast<Floats*>(to) = x;
#endif
}
EMBER_INLINE void end_streams() {
#if EMBER_VECTOR_BYTES >= 32
  _mm_sfence();
#endif
}
EMBER_INLINE bool streams(const float* to, int64_t stride) {
  return kBytes >= 32 && (uintptr_t(to) | uintptr_t(stride * 4)) % kLine == 0;
}

template <int A, int B, int C, int D>
EMBER_INLINE Four shuffle(Four x, Four y) {
#ifdef __clang__
  return __builtin_shufflevector(x, y, A, B, C, D);
#else
  typedef int Places __attribute__((vector_size(16)));
  return __builtin_shuffle(x, y, Places{A, B, C, D});
#endif
}

// Packs `count` lines side by side: to[k * stride + i] = line(first + i)[from + k].
inline void pack_side_by_side(const Matrix& m, int64_t first, int64_t count, int64_t from,
                              int64_t deep, float* to, int64_t stride) {
  const auto put = [](float* at, Four x) { *reinterpret_cast<LooseFour*>(at) = x; };
  const auto get = [](const float* at) -> Four { return *reinterpret_cast<const LooseFour*>(at); };
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const float* lines[4];
    for (int l = 0; l < 4; ++l) lines[l] = m.line(first + i + l) + from;
    int64_t k = 0;
    for (; k + 4 <= deep; k += 4) {
      const Four a = get(lines[0] + k), b = get(lines[1] + k);
      const Four c = get(lines[2] + k), d = get(lines[3] + k);
      const Four ab = shuffle<0, 4, 1, 5>(a, b), cd = shuffle<0, 4, 1, 5>(c, d);
      const Four ab2 = shuffle<2, 6, 3, 7>(a, b), cd2 = shuffle<2, 6, 3, 7>(c, d);
      float* out = to + k * stride + i;
      put(out, shuffle<0, 1, 4, 5>(ab, cd));
      put(out + stride, shuffle<2, 3, 6, 7>(ab, cd));
      put(out + 2 * stride, shuffle<0, 1, 4, 5>(ab2, cd2));
      put(out + 3 * stride, shuffle<2, 3, 6, 7>(ab2, cd2));
    }
    for (; k < deep; ++k) {
      for (int l = 0; l < 4; ++l) to[k * stride + i + l] = lines[l][k];
    }
  }
  for (; i < count; ++i) {
    const float* line = m.line(first + i) + from;
    for (int64_t k = 0; k < deep; ++k) to[k * stride + i] = line[k];
  }
}

// Packs pieces of lines below each other: to[k * stride + i] = line(first + k)[from + i], i < count,
// and zeros up to `filled`.
inline void pack_below(const Matrix& m, int64_t first, int64_t deep, int64_t from, int64_t count,
                       float* to, int64_t stride, int64_t filled) {
  for (int64_t k = 0; k < deep; ++k, to += stride) {
    const float* line = m.line(first + k) + from;
    int64_t i = 0;
    for (; i + kFloats <= count; i += kFloats) store(to + i, load(line + i, kFloats), kFloats);
    for (; i + 4 <= count; i += 4) {
      *reinterpret_cast<LooseFour*>(to + i) = *reinterpret_cast<const LooseFour*>(line + i);
    }
    for (; i < count; ++i) to[i] = line[i];
    for (; i < filled; ++i) to[i] = 0;
  }
}

// Packs `rows` x `deep` of A from an inner position on: panels of kRows rows, in each the rows of an
// inner position together.
inline void pack_rows(const Matrix& a, int64_t rows, int64_t inner, int64_t deep, float* to) {
  for (int64_t first = 0; first < rows; first += kRows) {
    const int64_t count = least(kRows, rows - first);
    if (a.columns) {
      pack_below(a, inner, deep, first, count, to, count, count);
    } else {
      pack_side_by_side(a, first, count, inner, deep, to, count);
    }
    to += count * deep;
  }
}

// Lines of memory that a tile asks for while it computes: so many pairs, each `stride` numbers behind
// the one before. All at once they would keep others from the cache.
struct Ahead {
  const float *one, *other;
  int64_t stride, pairs;

  template <bool far>
  EMBER_INLINE void ask_next() {
    ask<far>(one), ask<far>(other);
    one += stride, other += stride;
  }
};

// B: a matrix of `width` columns, in panels of kColumns. Where it is `paired`, it has twice as many,
// and a panel has kFloats of the first half and the same of the second.
struct Panels {
  Matrix matrix;
  int64_t width;
  bool paired;

  int64_t count() const {
    const int64_t own = paired ? kFloats : kColumns;
    return (width + own - 1) / own;
  }

  void pack(int64_t panel, int64_t inner, int64_t deep, float* to) const {
    if (paired) {
      const int64_t from = panel * kFloats, wide = least(kFloats, width - from);
      pack_below(matrix, inner, deep, from, wide, to, kColumns, kFloats);
      pack_below(matrix, inner, deep, width + from, wide, to + kFloats, kColumns, kFloats);
      return;
    }
    const int64_t from = panel * kColumns, wide = least(kColumns, width - from);
    if (!matrix.columns) {
      pack_below(matrix, inner, deep, from, wide, to, kColumns, kColumns);
      return;
    }
    pack_side_by_side(matrix, from, wide, inner, deep, to, kColumns);
    if (wide == kColumns) return;
    for (int64_t k = 0; k < deep; ++k) {
      for (int64_t j = wide; j < kColumns; ++j) to[k * kColumns + j] = 0;
    }
  }

  // Asks for the memory of a panel from one inner position to another. Its lines may be so far apart
  // that few of them fit the first cache.
  void prefetch(int64_t panel, int64_t from, int64_t to) const {
    Ahead lines = ahead(panel, from, to);
    for (; lines.pairs > 0; --lines.pairs) lines.ask_next<true>();
  }

  // The same, left to a tile as far as it has a stride.
  EMBER_INLINE Ahead ahead(int64_t panel, int64_t from, int64_t to) const {
    if (from >= to) return {};
    const int64_t first = panel * (paired ? kFloats : kColumns);
    if (matrix.columns) {
      const int64_t half = kColumns / 2 * matrix.stride;
      for (int64_t k = from + kPiece; k < to; k += kPiece) {
        Ahead more = {matrix.line(first) + k, matrix.line(first) + k + half, matrix.stride, 0};
        for (int j = 0; j < kColumns / 2; ++j) more.ask_next<true>();
      }
      const float* line = matrix.line(first) + from;
      return {line, line + half, matrix.stride, kColumns / 2};
    }
    if (matrix.index) {
      for (; from < to; ++from) {
        const float* line = matrix.line(from) + first;
        ask<true>(line), ask<true>(line + kColumns - 1);
      }
      return {};
    }
    const float* line = matrix.line(from) + first;
    return {line, line + (paired ? width : kColumns - 1), matrix.stride, to - from};
  }
};

// R rows and kColumns columns of the product of two panels.
template <int R>
__attribute__((noinline)) void tile(int64_t deep, const float* a, const float* b, Floats* out,
                                    Ahead next, Ahead own) {
  Floats sums[R][kVectors];
  for (int i = 0; i < R; ++i) {
    for (int v = 0; v < kVectors; ++v) sums[i][v] = Floats{};
  }
  const int64_t pairs = most(next.pairs, own.pairs);
  const int64_t step = pairs > 0 ? (deep + pairs - 1) / pairs : deep;
  for (int64_t k = 0; k < deep;) {
    if (next.pairs-- > 0) next.ask_next<true>();
    if (own.pairs-- > 0) own.ask_next<false>();
    for (const int64_t end = least(deep, k + step); k < end; ++k, a += R, b += kColumns) {
      Floats right[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        right[v] = *reinterpret_cast<const LooseFloats*>(b + v * kFloats);
      }
      for (int i = 0; i < R; ++i) {
        for (int v = 0; v < kVectors; ++v) sums[i][v] += a[i] * right[v];
      }
    }
  }
  for (int i = 0; i < R; ++i) {
    for (int v = 0; v < kVectors; ++v) out[i * kVectors + v] = sums[i][v];
  }
}

using Tile = void (*)(int64_t, const float*, const float*, Floats*, Ahead, Ahead);

EMBER_INLINE Tile tile_of(int64_t rows) {
  switch (rows) {
    case 1: return tile<1>;
    case 2: return tile<2>;
    case 3: return tile<3>;
    case 4: return tile<4>;
#if EMBER_VECTOR_BYTES >= 32
    case 5: return tile<5>;
    case 6: return tile<6>;
#endif
#if EMBER_VECTOR_BYTES >= 64
    case 7: return tile<7>;
    case 8: return tile<8>;
    case 9: return tile<9>;
    case 10: return tile<10>;
    case 11: return tile<11>;
    case 12: return tile<12>;
#endif
    default: return nullptr;
  }
}

// Where a tile of sums is: its first row, how many, its panel, and which part of the inner sum.
struct Place {
  int64_t row, rows, panel;
  bool first, last;
};

// Computes A B for so many rows of A that they fit the scratch, and calls finish(sums, place) with
// each tile of it, kVectors vectors a row, once for each block of the inner sum. Before it computes a
// tile, it calls prepare(place), which says what memory `finish` will need. While one panel of B
// is used, the next is packed, piece by piece. In the scratch of one thread.
template <class Prepare, class Finish>
inline void product(const Matrix& a, int64_t rows, int64_t inner, const Panels& b, float* scratch,
                    const Prepare& prepare, const Finish& finish) {
  float* const packed_a = scratch;
  float* packed_b = scratch + kMostRows * kInnerBlock;
  float* next_b = packed_b + kInnerBlock * kColumns;
  const int64_t panels = b.count(), tiles = (rows + kRows - 1) / kRows;
  Floats sums[kRows * kVectors];
  for (int64_t k = 0; k < inner; k += kInnerBlock) {
    const int64_t deep = least(kInnerBlock, inner - k);
    // Where the piece of the next panel begins that is packed before tile t.
    const auto piece = [&](int64_t t) {
      return t >= tiles ? deep : least(deep, deep * t / tiles / kPiece * kPiece);
    };
    pack_rows(a, rows, k, deep, packed_a);
    b.pack(0, k, deep, packed_b);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const bool more = panel + 1 < panels;
      if (more) b.prefetch(panel + 1, k, k + piece(2));
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t row = t * kRows, count = least(kRows, rows - row);
        const Place at = {row, count, panel, k == 0, k + deep == inner};
        const Ahead own = prepare(at);
        Ahead next = {};
        if (more) {
          next = b.ahead(panel + 1, k + piece(t + 2), k + piece(t + 3));
          const int64_t from = piece(t), to = piece(t + 1);
          if (to > from) b.pack(panel + 1, k + from, to - from, next_b + from * kColumns);
        }
        tile_of(count)(deep, packed_a + row * deep, packed_b, sums, next, own);
        finish(sums, at);
      }
      float* const used = packed_b;
      packed_b = next_b, next_b = used;
    }
  }
}

// C (rows, width) = A (rows, inner) B (inner, width), in the scratch of one thread. Where C is `far`,
// it is not read again soon.
template <bool far = false>
inline void multiply(const Matrix& a, const Matrix& b, float* c, int64_t stride, int64_t rows,
                     int64_t inner, int64_t width, float* scratch) {
  const int64_t limit = kMostRows * kInnerBlock / least(inner, kInnerBlock);
  const int64_t parts = (rows + limit - 1) / limit;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t from = rows * part / parts, high = rows * (part + 1) / parts - from;
    float* const to = c + from * stride;
    const bool past = far && inner <= kInnerBlock && streams(to, stride);
    const auto prepare = [&](const Place& at) -> Ahead {
      if (past) return {};
      const float* line = to + at.row * stride + at.panel * kColumns;
      return {line, line + kColumns - 1, stride, at.rows};
    };
    const auto finish = [&](const Floats* sums, const Place& at) {
      if (past && (at.panel + 1) * kColumns <= width) {
        float* line = to + at.row * stride + at.panel * kColumns;
        for (int64_t i = 0; i < at.rows; ++i, line += stride) {
          for (int v = 0; v < kVectors; ++v) stream(line + v * kFloats, sums[i * kVectors + v]);
        }
        return;
      }
      for (int64_t i = 0; i < at.rows; ++i) {
        for (int v = 0; v < kVectors; ++v) {
          const int64_t column = at.panel * kColumns + v * kFloats;
          float* line = to + (at.row + i) * stride + column;
          Floats sum = sums[i * kVectors + v];
          if (!at.first) sum += load(line, width - column);
          store(line, sum, width - column);
        }
      }
    };
    product(a.below(from), high, inner, {b, width, false}, scratch, prepare, finish);
  }
}

}  // namespace EMBER_ISA
}  // namespace ember
