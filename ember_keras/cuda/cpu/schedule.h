// What one call does in which order: groups of lanes, blocks of positions, threads, scratch.
#pragma once

#include "../fft_conv.h"
#include "plan.h"

namespace ember {

// One piece of a convolution that one transform computes: `size` positions of x from `first` on lie
// in slots 0 .. size - 1, and outputs (or their cotangents) in slots low .. high - 1.
struct Block {
  int64_t first, size, low, high;
};

// How threads share the work.
enum class Sharing {
  kSets,   // each takes sets of filters
  kRows,   // all take one set, each some of its sequences and blocks
  kPasses  // all take one transform, each a part of every pass
};

struct Schedule {
  bool backward, empty;
  bool direct;  // tap by tap: no transform, and no plan
  int lanes;
  int64_t low, high;  // the taps that reach the window
  // A set is what shares a spectrum: filters_per_set filters with `ratio` channels each, in one
  // group of lanes, or one filter in several groups. Narrow signals put `packed` sequences side by
  // side in the lanes.
  int64_t ratio, filters_per_set, sets, groups, packed, row_groups;
  int64_t block, blocks;
  const Plan* plan;
  Sharing sharing;
  int64_t array_bytes, tile_bytes;
  int arrays;  // of the transform's size, a thread or in all

  int64_t scratch_bytes(int threads) const;
};

// 0 or an error code.
int make_schedule(const ember_fft_conv& conv, bool backward, int threads, int vector_bytes,
                  Schedule* schedule);

Block block_of(const ember_fft_conv& conv, const Schedule& schedule, int64_t index);

}  // namespace ember
