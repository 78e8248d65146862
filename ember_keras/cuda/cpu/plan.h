// Which transform a convolution takes, and its twiddles. Compiled once, for every machine.
#pragma once

#include <cstdint>

namespace ember {

// The transform of polynomials modulo x^n - i, level by level.
//
// The first `top` levels run down columns of a matrix of n1 rows of n2 positions; those below run
// inside rows, which fit a core's cache. No twiddles lie between the two: each row is a polynomial
// modulo x^n2 - w with a w of its own, and its twiddles follow from w.
struct Plan {
  int64_t n, n1, n2;
  int64_t pitch;    // positions from one row to the next: n2 and some, against cache conflicts
  int64_t columns;  // at most, a power of two: neighbouring ones that are transformed together
  int levels, top;
  int radix[32];
  // Of level l, for each of its polynomials in turn: the powers 1 .. radix - 1 of r, as (re, im).
  const void* twiddles[32];
  int64_t twiddle_bytes;
};

// Rows first .. last - 1 of a plan.
struct Rows {
  int64_t first, last;
};

// Real numbers modulo x^period + 1 with period = 2 n fold to complex ones modulo x^n - i.
int64_t transform_size(int64_t period);

// Null where memory runs out. Plans are kept; they are never freed.
const Plan* find_plan(int64_t n, bool wide, int vector_bytes);

}  // namespace ember
