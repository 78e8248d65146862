/* How a convolution is cut: the taps that reach its window, and blocks of positions that one
 * transform computes each. */
#ifndef EMBER_BLOCKS_H
#define EMBER_BLOCKS_H

#include "fft_conv.h"

#if defined(__CUDACC__)
#define EMBER_SHARED_INLINE __host__ __device__ inline
#else
#define EMBER_SHARED_INLINE inline
#endif

namespace ember {

EMBER_SHARED_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
EMBER_SHARED_INLINE int64_t most(int64_t a, int64_t b) { return a < b ? b : a; }

// One piece of a convolution that one transform computes: `size` positions of x from `first` on lie
// in slots 0 .. size - 1, and outputs (or their cotangents) in slots low .. high - 1.
struct Block {
  int64_t first, size, low, high;
};

struct Blocks {
  bool backward, empty;
  int64_t low, high;     // the taps that reach the window
  int64_t block, blocks;  // positions of one block; their number

  // All in one block.
  static Blocks one(const ember_fft_conv& conv, bool backward) {
    Blocks b;
    b.backward = backward;
    b.low = conv.period ? 0 : most(0, conv.start - conv.size + 1);
    b.high = conv.period ? conv.taps : least(conv.taps, conv.start + conv.length);
    b.empty = b.low >= b.high || conv.size == 0 || conv.length == 0;
    if (b.empty) b.low = b.high = 0;
    b.cut(conv, backward ? conv.size : conv.length);
    return b;
  }

  void cut(const ember_fft_conv& conv, int64_t positions) {
    block = positions;
    blocks = positions ? ((backward ? conv.size : conv.length) + positions - 1) / positions : 1;
  }

  EMBER_SHARED_INLINE int64_t taps() const { return high - low; }

  EMBER_SHARED_INLINE Block at(const ember_fft_conv& conv, int64_t index) const {
    const int64_t begin = index * block;
    Block b;
    if (backward) {
      b.first = begin;
      b.size = least(block, conv.size - begin);
      const int64_t shift = low + b.first - conv.start;  // slot j is output j + shift
      b.low = conv.period ? 0 : most(0, -shift);
      b.high = b.size + taps() - 1;
      if (!conv.period) b.high = least(b.high, conv.length - shift);
      b.high = most(b.high, b.low);
      return b;
    }
    const int64_t t0 = conv.start + begin;
    const int64_t t1 = conv.start + least(conv.length, begin + block);
    b.first = t0 - high + 1;
    int64_t end = t1 - low;
    if (!conv.period) {
      b.first = most(0, b.first);
      end = least(conv.size, end);
      if (end <= b.first) {
        b.first = t0 - high + 1;
        end = b.first;
      }
    }
    b.size = end - b.first;
    b.low = t0 - low - b.first;
    b.high = t1 - low - b.first;
    return b;
  }

  // Real points that keep what wraps around out of the wanted slots, and out of all gradients.
  int64_t points(const ember_fft_conv& conv) const {
    const Block b = at(conv, 0);
    return most(most(b.size + taps() - 1 - b.low, b.high), most(b.size, taps()));
  }
};

}  // namespace ember
#endif
