#include "schedule.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ember {
namespace gpu {
namespace {

constexpr int64_t kLeast = 32, kMost = int64_t(1) << 23;  // points of a transform
constexpr int64_t kMostBlocks = int64_t(1) << 30;  // of a launch's threads
constexpr int64_t kMostPeriod = int64_t(1) << 28;
constexpr int kMostLanes = 32;
constexpr int kNearPoints = 4096;  // of a tile that leaves room for others beside it

int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

int log2_of(int64_t n) {
  int log2 = 0;
  while ((int64_t(2) << log2) <= n) ++log2;
  return log2;
}

// Whether a tile may have so many rows: a first radix of 2 to 16, and at least one factor 16.
bool make_tile(int64_t rows, int lanes_log2, int step, Tile* tile) {
  int more = 0;
  int64_t first = rows;
  while (first > 16 && first % 16 == 0) first /= 16, ++more;
  for (const int radix : {2, 3, 4, 6, 8, 12, 16}) {
    if (first == radix) {
      *tile = {int(rows), radix, more, lanes_log2, step};
      return more > 0;
    }
  }
  return false;
}

// One tile with as many channels as fit beside another one, or at least two of them.
bool one_tile(int64_t n, int64_t width, int64_t shared, bool tensor, Shape* shape) {
  const int widest = log2_of(2 * width - 1);
  shape->points = int(n);
  shape->rows = {1, 1, 0, 0, 1};
  for (int log2 = std::min(5, widest); log2 >= std::min(1, widest); --log2) {
    const int64_t bytes = tile_bytes(int(n), 1 << log2, tensor && n > kBlockPoints);
    const bool roomy = n << log2 <= kNearPoints && 2 * bytes <= shared;
    const bool fits = log2 <= 3 && bytes <= (log2 > 2 ? shared / 2 : shared);
    if (!roomy && !fits) continue;
    shape->channels_log2 = log2;
    return make_tile(n, log2, 1, &shape->columns);
  }
  return false;
}

// Columns and rows of about the same length.
bool two_tiles(int64_t n, int64_t width, int64_t shared, Shape* shape) {
  int64_t best = INT64_MAX;
  for (int channels = std::min(2, log2_of(2 * width - 1)); channels >= 0; --channels) {
    for (int64_t rows = kLeast; rows <= n / 2; rows *= 2) {
      Shape s;
      s.points = int(n);
      s.channels_log2 = channels;
      if (n % rows || !make_tile(n / rows, channels, int(rows), &s.columns)) continue;
      if (!make_tile(rows, channels, 1, &s.rows)) continue;
      if (tile_bytes(s.rows.rows, 1 << channels, false) > shared) continue;
      if (tile_bytes(s.columns.rows, 1 << channels, false) > shared) continue;
      while (s.columns.lanes() < kMostLanes && s.columns.lanes() << 1 <= rows << channels &&
             tile_bytes(s.columns.rows, 2 * s.columns.lanes(), false) <= shared / 2) {
        ++s.columns.lanes_log2;
      }
      const int64_t cost = std::max(s.columns.rows, s.rows.rows);
      if (cost < best) best = cost, *shape = s;
    }
    if (best < INT64_MAX) return true;
  }
  return false;
}

bool find_shape(int64_t n, int64_t width, int64_t shared, bool tensor, Shape* shape) {
  return one_tile(n, width, shared, tensor, shape) || two_tiles(n, width, shared, shape);
}

// The smallest transform of at least so many real points: 2^p or 3 * 2^p complex ones.
int64_t transform_points(int64_t real, int64_t width, int64_t shared, bool tensor, Shape* shape) {
  for (int64_t n = kLeast; n <= kMost; n *= 2) {
    if (2 * n >= real && find_shape(n, width, shared, tensor, shape)) return n;
    const int64_t between = n / 2 * 3;
    if (2 * between >= real && find_shape(between, width, shared, tensor, shape)) return between;
  }
  return 0;
}

double cost_of(const Shape& shape) {
  const double n = shape.points;
  return n * (std::log2(n) + 4) * (shape.rows.rows > 1 ? 2 : 1);
}

int threads_of(const Tile& tile) {
  const int64_t all = int64_t(tile.rows) * tile.lanes() / 16;
  const int least = std::max(32, tile.lanes());
  return int(std::min<int64_t>(kThreads, std::max<int64_t>(least, all / least * least)));
}

}  // namespace

int64_t Schedule::scratch_bytes(int64_t width) const {
  const int64_t sums = skip_parts * width * int64_t(sizeof(Complex));
  if (cut.empty) return sums;
  const int64_t arrays = int64_t(data) + int64_t(other) + int64_t(sum);
  return (filter_groups + arrays * part.items()) * item_bytes() + sums;
}

int make_schedule(const ember_fft_conv& conv, const ember_card& card, bool backward, int wanted,
                  Schedule* schedule) {
  Schedule& s = *schedule;
  s = Schedule();
  s.cut = Blocks::one(conv, backward);
  s.ratio = conv.width / conv.filters;
  if (conv.period > kMostPeriod || conv.length > kMostPeriod * 4) return EMBER_SIZE_OVERFLOW;
  const int64_t processors = std::max<int64_t>(1, card.processors);
  const int64_t wide = divided(conv.width, kSkipLanes);
  if (backward) {
    const int64_t parts = divided(4 * processors, wide);
    s.skip_parts = std::max<int64_t>(1, std::min(parts, conv.length / 256));
  }
  if (s.cut.empty) return EMBER_OK;
  const bool tensor = card.tensor && conv.dtype != EMBER_FLOAT32;
  const int64_t all = backward ? conv.size : conv.length, taps = s.cut.taps();
  if (!transform_points(s.cut.points(conv), conv.width, card.shared_bytes, tensor, &s.shape)) {
    return EMBER_SIZE_OVERFLOW;
  }
  double best = cost_of(s.shape);
  for (int64_t n = 256; n < s.shape.points; n *= 2) {
    Shape shape;
    const int64_t block = 2 * n - taps + 1;
    if (block < n / 2 || !find_shape(n, conv.width, card.shared_bytes, tensor, &shape)) continue;
    const double cost = double(divided(all, block)) * cost_of(shape);
    if (cost >= 0.95 * best) continue;
    best = cost;
    s.shape = shape;
    s.cut.cut(conv, block);
  }
  s.tensor = tensor && s.one_tile() && s.shape.points > kBlockPoints;
  s.column_threads = threads_of(s.shape.columns);
  s.row_threads = s.one_tile() ? 0 : threads_of(s.shape.rows);
  s.groups = divided(conv.width, s.shape.channels());
  s.blocks = conv.batch * s.cut.blocks;

  // As many items at once as half of the cache holds, or as the card has room for.
  s.data = !s.one_tile();
  s.other = s.sum = backward && (wanted & EMBER_WANT_FILTERS);
  const int64_t arrays = 1 + int64_t(s.data) + int64_t(s.other) + int64_t(s.sum);
  const int64_t items = std::max<int64_t>(1, card.cache_bytes / 2 / (arrays * s.item_bytes()));
  // Groups begin and end with filters.
  const int64_t unit = std::lcm(s.ratio, int64_t(s.shape.channels())) >> s.shape.channels_log2;
  const bool stored = s.data || s.sum;
  const int64_t groups = std::min(s.groups, std::max(unit, items / unit * unit));
  const int64_t blocks = stored ? std::max<int64_t>(1, items / groups) : s.blocks;
  const int64_t tiles = std::max({s.shape.tiles(), s.shape.columns.rows, 1});
  const int64_t most = kMostBlocks / (groups * tiles);
  if (most == 0 || s.blocks > kMostBlocks || s.groups > kMostBlocks) return EMBER_SIZE_OVERFLOW;
  s.part = {0, int(std::min({blocks, s.blocks, most})), 0, int(groups)};
  const int64_t filters = std::min(conv.filters, divided(groups << s.shape.channels_log2, s.ratio));
  s.filter_groups = divided(filters, s.shape.channels());
  return EMBER_OK;
}

}  // namespace gpu
}  // namespace ember
