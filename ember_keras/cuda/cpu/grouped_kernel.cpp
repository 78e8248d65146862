// Compiled once for each instruction set, with EMBER_ISA and EMBER_VECTOR_BYTES defined.
#include "gemm.h"

namespace ember {
namespace EMBER_ISA {
namespace {

EMBER_INLINE void clear(float* from, int64_t count) { memset(from, 0, size_t(count) * 4); }

// A piece is up to `chunk` rows of a group: all pieces of the first group, then of the second, ...
void rows(const GroupedCall& call, int64_t piece, float* scratch) {
  const ember_grouped& s = call.sizes;
  for (int64_t e = 0; e < s.groups; ++e) {
    const int64_t start = call.offsets[e], count = call.offsets[e + 1] - start;
    const int64_t own = (count + call.chunk - 1) / call.chunk;
    if (piece >= own) {
      piece -= own;
      continue;
    }
    // Of equal size, so that no thread waits for a long one.
    const int64_t first = start + count * piece / own, last = start + count * (piece + 1) / own;
    const float* w = call.w + e * s.inner * s.width;
    const Matrix b = {w, s.transposed ? s.inner : s.width, s.transposed != 0, nullptr};
    multiply({call.x + first * s.inner, s.inner, false, nullptr}, b, call.y + first * s.width,
             s.width, last - first, s.inner, s.width, scratch);
    return;
  }
}

// A piece is up to `chunk` rows of a group's matrix.
void weights(const GroupedCall& call, int64_t piece, float* scratch) {
  const ember_grouped& s = call.sizes;
  const int64_t parts = (s.inner + call.chunk - 1) / call.chunk, e = piece / parts;
  const int64_t from = piece % parts * call.chunk, high = least(call.chunk, s.inner - from);
  const int64_t start = call.offsets[e], count = call.offsets[e + 1] - start;
  float* to = call.y + (e * s.inner + from) * s.width;
  if (count == 0) return clear(to, high * s.width);
  multiply({call.x + start * s.inner + from, s.inner, true, nullptr},
           {call.w + start * s.width, s.width, false, nullptr}, to, s.width, high, count, s.width,
           scratch);
}

}  // namespace

void grouped_work(void* argument, const Team& team) {
  const GroupedCall& call = *static_cast<const GroupedCall*>(argument);
  const ember_grouped& s = call.sizes;
  float* scratch = reinterpret_cast<float*>(call.scratch + team.rank * call.share);
  if (!call.weights && team.rank == 0) {
    clear(call.y, call.offsets[0] * s.width);
    clear(call.y + call.offsets[s.groups] * s.width, (s.rows - call.offsets[s.groups]) * s.width);
  }
  for (;;) {
    const int64_t piece = __atomic_fetch_add(call.next, 1, __ATOMIC_RELAXED);
    if (piece >= call.pieces) return;
    call.weights ? weights(call, piece, scratch) : rows(call, piece, scratch);
  }
}

}  // namespace EMBER_ISA
}  // namespace ember
