// One call of a mixture of gated perceptrons, checked, as the code of an instruction set receives it.
#pragma once

#include "../experts.h"
#include "grouped_call.h"

namespace ember {

struct ExpertsCall {
  ember_experts sizes;
  const float *x, *weights, *gate_up, *down, *g;
  const int32_t* chosen;
  float *y, *kept, *dx, *dweights, *dgate_up, *ddown;
  bool backward;
  // A row is a token at one of its experts; rows are sorted by expert, then by token.
  int32_t* offsets;  // (experts + 1,), where the rows of each expert begin, and those of the last end
  int32_t* token;    // of each row
  int32_t* place;    // of each row: token * slots + slot
  int32_t* row;      // of each place, -1 for none
  float* rows;       // (rows, width): of y, or of dx
  // The gradients of hidden units, `slope_floats` a row, for all experts, or null: a thread has those
  // of an expert in its own scratch then.
  float* slopes;
  int64_t largest;         // rows of an expert
  int64_t chunk;           // rows of a piece of work at most
  int64_t parts;           // pieces of an expert's weights
  int64_t pieces;          // of rows
  char* scratch;           // aligned to 64 bytes; `share` bytes a thread
  int64_t share;
  int64_t *next, *second;  // the next pieces that no thread has taken
};

// What is kept of a row's hidden units lies in blocks of so many: `kept` is (blocks, rows, 2, kBlock),
// so that a tile of it is one piece of memory.
constexpr int64_t kBlock = 16;
constexpr int64_t blocks_of(int64_t hidden) { return (hidden + kBlock - 1) / kBlock; }

// Rows of scratch are a line longer than a power of two, or they would share few places of a cache.
constexpr int64_t hidden_stride(int64_t hidden) { return blocks_of(hidden) * kBlock + kBlock; }
constexpr int64_t both_stride(int64_t hidden) { return 2 * blocks_of(hidden) * kBlock + kBlock; }
constexpr int64_t slope_floats(int64_t hidden) { return hidden_stride(hidden) + both_stride(hidden); }

// Defined once for each instruction set; `call` is an ExpertsCall.
namespace portable {
void experts_work(void* call, const Team& team);
}
namespace avx2 {
void experts_work(void* call, const Team& team);
}
namespace avx512 {
void experts_work(void* call, const Team& team);
}

}  // namespace ember
