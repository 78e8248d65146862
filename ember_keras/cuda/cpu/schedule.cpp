#include "schedule.h"

#include <algorithm>
#include <cmath>

namespace ember {
namespace {

constexpr int64_t kLineBytes = 64;     // of lanes, in real and in imaginary parts
constexpr int64_t kMostPoints = int64_t(1) << 28;  // of a transform
constexpr int64_t kDirectBlock = 128;  // positions
constexpr int64_t kShared = 3 << 20;    // a larger transform is shared by all threads
constexpr int64_t kPrivate = 1 << 20;   // a core's own cache
constexpr int64_t kMostParts = 5;       // more of them cost more than narrow tiles
constexpr int64_t kFewColumns = 4;      // of a tile
constexpr int64_t kBudget = 512;        // bytes a position and thread
constexpr int64_t kShort = 256;         // shorter sequences may take as much as this one
constexpr int64_t kFewTwiddles = 16 << 10;  // bytes that do not count

int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Filters up to this long are applied tap by tap. Products gain more from wide vectors than
// transforms do, which wait for memory: the costs were measured to meet here, forward and backward.
int64_t direct_taps(int vector_bytes) {
  return vector_bytes >= 64 ? 48 : vector_bytes >= 32 ? 40 : 32;
}

// How threads share a call's sets and the items of each.
Sharing sharing_of(const Schedule& s, int threads) {
  const int64_t items = s.row_groups * s.blocks * s.groups;
  if (threads == 1) return Sharing::kSets;
  if (s.array_bytes > kShared) return Sharing::kPasses;
  if (s.sets % threads == 0 || s.sets >= 4 * threads) return Sharing::kSets;
  if (items >= 2 * threads) return Sharing::kRows;
  return s.sets >= threads || s.direct ? Sharing::kSets : Sharing::kPasses;
}

double cost_of(int64_t n, int64_t position) {
  return double(n) * (std::log2(double(n)) + 3) * (n * position > kPrivate ? 1.3 : 1.0);
}

}  // namespace

int64_t Schedule::scratch_bytes(int threads) const {
  if (empty) return 0;
  const int64_t tiles = threads * tile_bytes;
  int64_t all = 0;
  switch (sharing) {
    case Sharing::kSets: all = threads * (array_bytes + own_bytes); break;
    case Sharing::kRows: all = array_bytes + threads * own_bytes; break;
    case Sharing::kPasses: all = array_bytes + own_bytes; break;
  }
  return all + tiles;
}

int make_schedule(const ember_fft_conv& conv, bool backward, int threads, int vector_bytes,
                  Schedule* schedule) {
  Schedule& s = *schedule;
  s = Schedule();
  static_cast<Blocks&>(s) = Blocks::one(conv, backward);
  const bool wide = conv.dtype == EMBER_FLOAT64;
  s.lanes = kLineBytes / (wide ? 8 : 4);

  const int64_t lanes = s.lanes;
  s.ratio = conv.width / conv.filters;
  s.filters_per_set = s.ratio <= lanes ? std::min(conv.filters, lanes / s.ratio) : 1;
  s.sets = divided(conv.filters, s.filters_per_set);
  s.groups = s.ratio <= lanes ? 1 : divided(s.ratio, lanes);
  s.packed = s.sets == 1 && s.groups == 1 ? std::min(conv.batch, lanes / conv.width) : 1;
  s.row_groups = divided(conv.batch, s.packed);

  const int64_t all = backward ? conv.size : conv.length;
  const int64_t taps = s.taps(), position = 2 * kLineBytes;
  if (s.empty) return EMBER_OK;
  s.parts = 1;
  if (taps <= direct_taps(vector_bytes)) {
    s.direct = true;
    s.cut(conv, std::min(all, kDirectBlock));
    // Positions in and out, and what the last sums read and write past the end.
    s.array_bytes = (2 * s.block + 2 * direct_taps(vector_bytes) + 8) * kLineBytes;
    s.own_bytes = (backward ? 3 : 1) * s.array_bytes;
    s.sharing = sharing_of(s, threads);
    return EMBER_OK;
  }
  int64_t n = transform_size(s.points(conv));
  double best = cost_of(n, position);
  for (int64_t m = 256; m < n; m *= 2) {
    const int64_t block = 2 * m - taps + 1;
    if (block < m / 2 || m * position > kPrivate) continue;
    const double cost = double(divided(all, block)) * cost_of(m, position);
    if (cost >= 0.95 * best) continue;
    best = cost, n = m;
    s.cut(conv, block);
  }
  if (n > kMostPoints) return EMBER_SIZE_OVERFLOW;
  s.plan = find_plan(n, wide, vector_bytes);
  if (!s.plan) return EMBER_OUT_OF_MEMORY;
  s.array_bytes = s.plan->n1 * s.plan->pitch * position;
  s.sharing = sharing_of(s, threads);
  const int64_t twiddles = s.plan->twiddle_bytes > kFewTwiddles ? s.plan->twiddle_bytes : 0;
  const int64_t budget =
      threads * kBudget * std::max({conv.size, conv.length, taps, kShort}) - twiddles;
  const auto fits = [&](int64_t columns, int64_t parts) {
    const int64_t rows = divided(s.plan->n1, parts);
    s.columns = columns, s.parts = parts;
    s.tile_bytes = s.plan->top > 1 ? s.plan->n1 * columns * position : 0;
    s.own_bytes = backward ? 2 * s.array_bytes + rows * s.plan->pitch * position : s.array_bytes;
    return !backward || s.scratch_bytes(threads) <= budget;
  };
  const int64_t most = std::min(kMostParts, s.plan->n1);
  for (int64_t columns = s.plan->columns; columns >= kFewColumns; columns /= 2) {
    for (int64_t parts = 1; parts <= most; ++parts) {
      if (fits(columns, parts)) return EMBER_OK;
    }
  }
  return EMBER_OK;
}

}  // namespace ember
