// One call of the grouped product, checked, as the code of an instruction set receives it.
#pragma once

#include "../grouped.h"
#include "threads.h"

namespace ember {

struct GroupedCall {
  ember_grouped sizes;
  const float *x, *w;  // w is g for the gradient of the weights
  const int32_t* offsets;
  float* y;  // dw for the gradient of the weights
  bool weights;
  int64_t chunk;  // rows of a piece of work
  int64_t pieces;
  char* scratch;  // aligned to 64 bytes; `share` bytes a thread
  int64_t share;
  int64_t* next;  // the next piece that no thread has taken; taken by an atomic addition
};

// How a product is cut: so many rows, with a panel of at most so many columns, and so much of the
// inner sum.
constexpr int64_t kMostRows = 384, kMostColumns = 32, kInnerBlock = 512;
// What a thread packs rows and two panels of columns into.
constexpr int64_t kPackedFloats = kInnerBlock * (kMostRows + 2 * kMostColumns);

// Defined once for each instruction set; `call` is a GroupedCall.
namespace portable {
void grouped_work(void* call, const Team& team);
}
namespace avx2 {
void grouped_work(void* call, const Team& team);
}
namespace avx512 {
void grouped_work(void* call, const Team& team);
}

}  // namespace ember
