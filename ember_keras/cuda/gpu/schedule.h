// Which transform a card makes of a convolution, and how much of it at once.
#pragma once

#include "bodies.h"
#include "fft_conv_gpu.h"

namespace ember {
namespace gpu {

struct Schedule {
  Blocks cut;
  Shape shape;
  int64_t ratio;  // channels that share a filter
  int64_t groups, blocks;      // of the whole call: groups of channels, blocks of all sequences
  Part part;                   // of one launch; its firsts are 0
  int64_t filter_groups;       // of one launch
  int64_t skip_parts;
  bool data, other, sum;       // the arrays of a launch's items
  int column_threads, row_threads;
  bool tensor;  // the one tile goes through tensor cores

  bool one_tile() const { return shape.rows.rows == 1; }
  int64_t column_bytes() const {
    return tile_bytes(shape.columns.rows, shape.columns.lanes(), tensor);
  }
  int64_t row_bytes() const { return tile_bytes(shape.rows.rows, shape.channels(), false); }
  int64_t item_bytes() const { return shape.group_points() * int64_t(sizeof(Complex)); }
  int64_t scratch_bytes(int64_t width) const;
};

int make_schedule(const ember_fft_conv& conv, const ember_card& card, bool backward, int wanted,
                  Schedule* schedule);

}  // namespace gpu
}  // namespace ember
