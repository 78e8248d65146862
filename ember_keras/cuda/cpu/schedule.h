// What one call does in which order: groups of lanes, blocks of positions, threads, scratch.
#pragma once

#include "../blocks.h"
#include "plan.h"

namespace ember {

// How threads share the work.
enum class Sharing {
  kSets,   // each takes sets of filters
  kRows,   // all take one set, each some of its sequences and blocks
  kPasses  // all take one transform, each a part of every pass
};

struct Schedule : Blocks {
  bool direct;  // tap by tap: no transform, and no plan
  int lanes;
  // A set is what shares a spectrum: filters_per_set filters with `ratio` channels each, in one
  // group of lanes, or one filter in several groups. Narrow signals put `packed` sequences side by
  // side in the lanes.
  int64_t ratio, filters_per_set, sets, groups, packed, row_groups;
  const Plan* plan;
  Sharing sharing;
  // The backward pass transforms its input in parts, some rows each, where memory is short.
  int64_t parts;
  int64_t columns;  // of a tile
  int64_t array_bytes, own_bytes, tile_bytes;  // filters; what else the work needs; a thread's tile

  int64_t scratch_bytes(int threads) const;

  Rows part(int64_t index) const {
    return {plan->n1 * index / parts, plan->n1 * (index + 1) / parts};
  }
};

// 0 or an error code.
int make_schedule(const ember_fft_conv& conv, bool backward, int threads, int vector_bytes,
                  Schedule* schedule);

}  // namespace ember
