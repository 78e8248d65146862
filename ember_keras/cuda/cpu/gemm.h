// A product of matrices in packed blocks, C = A B or C += A B in float32.
//
// B is packed into panels of kColumns columns, and A into panels of up to kRows rows, so that the
// innermost loop reads both in order: it keeps kRows x kColumns sums in registers (Goto and van de
// Geijn 2008, Anatomy of high-performance matrix multiplication, doi 10.1145/1356052.1356053).
// Compiled once for each instruction set, like vector.h, and bound by the same rule.
#pragma once

#include "grouped_call.h"
#include "vector.h"

namespace ember {
namespace EMBER_ISA {

typedef float Floats __attribute__((vector_size(kBytes)));
typedef float LooseFloats __attribute__((vector_size(kBytes), aligned(4), may_alias));

constexpr int kFloats = kBytes / 4;
constexpr int kVectors = 2;
constexpr int kColumns = kFloats * kVectors;
constexpr int kRows = kBytes == 64 ? 12 : kBytes == 32 ? 6 : 4;

// A matrix anywhere: one of its strides is 1.
struct Matrix {
  const float* data;
  int64_t row, column;
};

EMBER_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Packs `rows` x `inner` of A: panels of kRows rows, in each the rows of an inner position together.
inline void pack_rows(const Matrix& a, int64_t rows, int64_t inner, float* to) {
  for (int64_t first = 0; first < rows; first += kRows) {
    const int64_t count = least(kRows, rows - first);
    const float* from = a.data + first * a.row;
    if (a.row == 1) {
      for (int64_t k = 0; k < inner; ++k, to += count) {
        const float* line = from + k * a.column;
        for (int64_t i = 0; i < count; ++i) to[i] = line[i];
      }
      continue;
    }
    for (int64_t i = 0; i < count; ++i) {
      const float* line = from + i * a.row;
      for (int64_t k = 0; k < inner; ++k) to[k * count + i] = line[k * a.column];
    }
    to += count * inner;
  }
}

// Packs `inner` x `width` of B: panels of kColumns columns, the last one filled with zeros.
inline void pack_columns(const Matrix& b, int64_t inner, int64_t width, float* to) {
  for (int64_t first = 0; first < width; first += kColumns) {
    const int64_t count = least(kColumns, width - first);
    const float* from = b.data + first * b.column;
    if (b.column == 1) {
      for (int64_t k = 0; k < inner; ++k) {
        const float* line = from + k * b.row;
        float* out = to + k * kColumns;
        if (count == kColumns) {
          for (int v = 0; v < kVectors; ++v) {
            *reinterpret_cast<LooseFloats*>(out + v * kFloats) =
                *reinterpret_cast<const LooseFloats*>(line + v * kFloats);
          }
        } else {
          for (int64_t j = 0; j < count; ++j) out[j] = line[j];
          for (int64_t j = count; j < kColumns; ++j) out[j] = 0;
        }
      }
    } else {
      // Sixteen lines of the matrix at a time, each read along itself.
      constexpr int64_t kDepth = 16;
      for (int64_t k = 0; k < inner; k += kDepth) {
        const int64_t deep = least(kDepth, inner - k);
        for (int64_t j = 0; j < count; ++j) {
          const float* line = from + j * b.column + k * b.row;
          for (int64_t d = 0; d < deep; ++d) to[(k + d) * kColumns + j] = line[d * b.row];
        }
        for (int64_t j = count; j < kColumns; ++j) {
          for (int64_t d = 0; d < deep; ++d) to[(k + d) * kColumns + j] = 0;
        }
      }
    }
    to += kColumns * inner;
  }
}

// R rows and kColumns columns of the product of two panels.
template <int R>
void tile(int64_t inner, const float* a, const float* b, float* c, int64_t stride, int64_t width,
          bool add) {
  Floats sums[R][kVectors] = {};
  for (int64_t k = 0; k < inner; ++k, a += R, b += kColumns) {
    Floats right[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      right[v] = *reinterpret_cast<const LooseFloats*>(b + v * kFloats);
    }
    for (int i = 0; i < R; ++i) {
      for (int v = 0; v < kVectors; ++v) sums[i][v] += a[i] * right[v];
    }
  }
  for (int i = 0; i < R; ++i) {
    float* line = c + i * stride;
    if (width >= kColumns) {
      for (int v = 0; v < kVectors; ++v) {
        LooseFloats* out = reinterpret_cast<LooseFloats*>(line + v * kFloats);
        *out = add ? Floats(*out + sums[i][v]) : sums[i][v];
      }
      continue;
    }
    for (int64_t j = 0; j < width; ++j) {
      const float sum = sums[i][j / kFloats][j % kFloats];
      line[j] = add ? line[j] + sum : sum;
    }
  }
}

using Tile = void (*)(int64_t, const float*, const float*, float*, int64_t, int64_t, bool);

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

// C (rows, width) = or += A (rows, inner) B (inner, width), in the scratch of one thread.
inline void multiply(const Matrix& a, const Matrix& b, float* c, int64_t stride, int64_t rows,
                     int64_t inner, int64_t width, float* scratch) {
  float* const packed_a = scratch;
  float* const packed_b = scratch + kPackRows * kInnerBlock;
  for (int64_t j = 0; j < width; j += kWidthBlock) {
    const int64_t wide = least(kWidthBlock, width - j);
    for (int64_t k = 0; k < inner; k += kInnerBlock) {
      const int64_t deep = least(kInnerBlock, inner - k);
      pack_columns({b.data + k * b.row + j * b.column, b.row, b.column}, deep, wide, packed_b);
      for (int64_t i = 0; i < rows; i += kPackRows) {
        const int64_t high = least(kPackRows, rows - i);
        pack_rows({a.data + i * a.row + k * a.column, a.row, a.column}, high, deep, packed_a);
        for (int64_t column = 0; column < wide; column += kColumns) {
          const float* panel = packed_b + column * deep;
          for (int64_t row = 0; row < high; row += kRows) {
            const int64_t count = least(kRows, high - row);
            tile_of(count)(deep, packed_a + row * deep, panel,
                           c + (i + row) * stride + j + column, stride, wide - column, k > 0);
          }
        }
      }
    }
  }
}

}  // namespace EMBER_ISA
}  // namespace ember
