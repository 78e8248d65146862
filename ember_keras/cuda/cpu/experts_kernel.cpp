// Compiled once for each instruction set, with EMBER_ISA and EMBER_VECTOR_BYTES defined.
//
// A piece of work is some rows of an expert: their tokens are packed from where they lie, hidden
// units are made as soon as the sums for them are, and only what the gradients need is written out.
#include "experts_call.h"
#include "gemm.h"

namespace ember {
namespace EMBER_ISA {
namespace {

EMBER_INLINE void clear(float* from, int64_t count) { memset(from, 0, size_t(count) * 4); }

EMBER_INLINE Floats all_of(float x) { return x - Floats{}; }

// exp(x) to 1e-7 of it, for x up to 88; what is below -87 is taken for -87.
EMBER_INLINE Floats exponential(Floats x) {
  const Floats low = all_of(-87.0f), high = all_of(88.0f), shift = all_of(0x1.8p23f);
  x = x < low ? low : x;
  x = x > high ? high : x;
  // x = n log(2) + r; the lowest bits of n + shift are those of n.
  const Floats shifted = x * 1.44269504f + shift, n = shifted - shift;
  const Floats r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  Floats sum = all_of(1.0f / 5040);
  sum = sum * r + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  return bits_of<Floats>(bits_of<Words>(sum) + (bits_of<Words>(shifted) << 23));
}

EMBER_INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

// The scratch of one thread.
struct Own {
  float* packed;  // for `product`
  Floats* dots;   // (kMostRows,)
  float* both;    // forward: gates and ups of a piece; backward: their gradients, of an expert
  float* hidden;  // the same: hidden units
};

Own scratch_of(const ExpertsCall& call, int rank) {
  float* at = reinterpret_cast<float*>(call.scratch + rank * call.share);
  Own own = {at, nullptr, nullptr, nullptr};
  at += kPackedFloats;
  own.dots = reinterpret_cast<Floats*>(at);
  at += kMostRows * kLanes<float>;
  own.both = at;
  own.hidden = at + (call.backward ? call.largest : kMostRows) * both_stride(call.sizes.hidden);
  return own;
}

// Rows from `first` on of expert e: y of each, without its weight.
void forward_rows(const ExpertsCall& call, int64_t e, int64_t first, int64_t count,
                  const Own& own) {
  const int64_t width = call.sizes.width, hidden = call.sizes.hidden;
  // Gates and ups, in blocks: what is kept of all rows, or of these alone.
  float* const both = call.kept ? call.kept + first * 2 * kBlock : own.both;
  const int64_t rows = call.kept ? call.offsets[call.sizes.experts] : count;
  const int64_t stride = hidden_stride(hidden);
  const auto line_of = [&](int64_t row, int64_t column) {
    return both + (column / kBlock * rows + row) * 2 * kBlock + column % kBlock;
  };
  const Matrix x = {call.x, width, false, call.token + first};
  const Matrix gate_up = {call.gate_up + e * width * 2 * hidden, 2 * hidden, false, nullptr};
  const bool past = call.kept && kBytes == kLine && width <= kInnerBlock && streams(both, 2 * kBlock);
  const auto prepare = [&](const Place& at) -> Ahead {
    if (past) return {};
    const float* line = line_of(at.row, at.panel * kFloats);
    return {line, line + kBlock, 2 * kBlock, at.rows};
  };
  const auto finish = [&](const Floats* sums, const Place& at) {
    const int64_t column = at.panel * kFloats;
    float* line = line_of(at.row, column);
    float* to = own.hidden + at.row * stride + column;
    for (int64_t i = 0; i < at.rows; ++i, line += 2 * kBlock, to += stride) {
      Floats gate = sums[2 * i], up = sums[2 * i + 1];
      if (!at.first) gate += load(line, kFloats), up += load(line + kBlock, kFloats);
      if (past) {
        stream(line, gate), stream(line + kBlock, up);
      } else if (call.kept || !at.last) {
        store(line, gate, kFloats), store(line + kBlock, up, kFloats);
      }
      if (at.last) store(to, gate * sigmoid(gate) * up, kFloats);
    }
  };
  product(x, count, width, {gate_up, hidden, true}, own.packed, prepare, finish);
  multiply({own.hidden, stride, false, nullptr},
           {call.down + e * hidden * width, width, false, nullptr}, call.rows + first * width, width,
           count, hidden, width, own.packed);
}

// Where the gradients of an expert's hidden units begin, the first row of which is `start`.
struct Slopes {
  float *both, *hidden;
};
EMBER_INLINE Slopes slopes_of(const ExpertsCall& call, int64_t start, const Own& own) {
  if (!call.slopes) return {own.both, own.hidden};
  const int64_t hidden = call.sizes.hidden, rows = call.offsets[call.sizes.experts];
  float* const behind = call.slopes + rows * both_stride(hidden);
  return {call.slopes + start * both_stride(hidden), behind + start * hidden_stride(hidden)};
}

// Rows from `first` on of expert e: dx of each, and what the gradients of weights are made of.
void backward_rows(const ExpertsCall& call, int64_t e, int64_t first, int64_t count,
                   const Slopes& slopes, const Own& own) {
  const int64_t width = call.sizes.width, hidden = call.sizes.hidden;
  const int64_t rows = call.offsets[call.sizes.experts];
  const int64_t wide = both_stride(hidden), narrow = hidden_stride(hidden);
  const auto kept = [&](int64_t row, int64_t column) {
    return call.kept + (column / kBlock * rows + first + row) * 2 * kBlock + column % kBlock;
  };
  const Matrix g = {call.g, width, false, call.token + first};
  const Matrix down = {call.down + e * hidden * width, width, true, nullptr};
  for (int64_t i = 0; i < count; ++i) own.dots[i] = Floats{};
  const auto prepare = [&](const Place& at) -> Ahead {
    if (!at.last) return {};
    const int64_t first = at.panel * kColumns, second = least(first + kColumns, hidden) - 1;
    return {kept(at.row, first), kept(at.row, second / kBlock * kBlock), kBlock, 2 * at.rows};
  };
  const auto finish = [&](const Floats* sums, const Place& at) {
    for (int64_t i = 0; i < at.rows; ++i) {
      const int64_t row = at.row + i;
      const float weight = call.weights[call.place[first + row]];
      for (int v = 0; v < kVectors; ++v) {
        const int64_t column = at.panel * kColumns + v * kFloats;
        if (column >= hidden) break;
        float* const to = slopes.hidden + row * narrow + column;
        Floats slope = sums[i * kVectors + v];
        if (!at.first) slope += load(to, kFloats);
        if (!at.last) {
          store(to, slope, kFloats);
          continue;
        }
        const float* const from = kept(row, column);
        const Floats gate = load(from, kFloats), up = load(from + kBlock, kFloats);
        const Floats s = sigmoid(gate), silu = gate * s, unit = silu * up;
        own.dots[row] += slope * unit;
        slope *= weight;
        float* const both = slopes.both + row * wide + column;
        const int64_t left = hidden - column;
        store(both, slope * up * (s + silu * (1.0f - s)), left);
        store(both + hidden, slope * silu, left);
        store(to, unit * weight, kFloats);
      }
    }
  };
  product(g, count, width, {down, hidden, false}, own.packed, prepare, finish);
  for (int64_t i = 0; i < count; ++i) {
    float sum = 0;
    for (int j = 0; j < kFloats; ++j) sum += own.dots[i][j];
    call.dweights[call.place[first + i]] = sum;
  }
  multiply({slopes.both, wide, false, nullptr},
           {call.gate_up + e * width * 2 * hidden, 2 * hidden, true, nullptr},
           call.rows + first * width, width, count, 2 * hidden, width, own.packed);
}

// Part `part` of `parts` of the gradients of an expert's weights.
void backward_weights(const ExpertsCall& call, int64_t e, int64_t part, int64_t parts,
                      const Own& own) {
  const int64_t width = call.sizes.width, hidden = call.sizes.hidden;
  const int64_t start = call.offsets[e], count = call.offsets[e + 1] - start;
  const Slopes slopes = slopes_of(call, start, own);
  const int64_t a = width * part / parts, b = width * (part + 1) / parts;
  const int64_t c = hidden * part / parts, d = hidden * (part + 1) / parts;
  float* const gate_up = call.dgate_up + (e * width + a) * 2 * hidden;
  float* const down = call.ddown + (e * hidden + c) * width;
  if (count == 0) {
    clear(gate_up, (b - a) * 2 * hidden);
    clear(down, (d - c) * width);
    return;
  }
  multiply<true>({call.x + a, width, true, call.token + start}, {slopes.both, both_stride(hidden), false, nullptr},
           gate_up, 2 * hidden, b - a, count, 2 * hidden, own.packed);
  multiply<true>({slopes.hidden + c, hidden_stride(hidden), true, nullptr}, {call.g, width, false, call.token + start},
           down, width, d - c, count, width, own.packed);
}

// The sums of each token's rows, from token `first` on: y, with their weights, or dx.
void sum_rows(const ExpertsCall& call, int64_t first, int64_t last) {
  const int64_t width = call.sizes.width, slots = call.sizes.slots;
  for (int64_t n = first; n < last; ++n) {
    float* const to = (call.backward ? call.dx : call.y) + n * width;
    bool none = true;
    for (int64_t place = n * slots; place < (n + 1) * slots; ++place) {
      const int64_t row = call.row[place];
      if (row < 0) {
        if (call.backward) call.dweights[place] = 0;
        continue;
      }
      const float weight = call.backward ? 1.0f : call.weights[place];
      const float* const from = call.rows + row * width;
      for (int64_t j = 0; j < width; j += kFloats) {
        Floats sum = load(from + j, width - j) * weight;
        if (!none) sum += load(to + j, width - j);
        store(to + j, sum, width - j);
      }
      none = false;
    }
    if (none) clear(to, width);
  }
}

// A piece is up to `chunk` rows of an expert: all pieces of the first expert, then of the second, ...
template <class Run>
EMBER_INLINE void run_piece(const ExpertsCall& call, int64_t piece, const Run& run) {
  for (int64_t e = 0; e < call.sizes.experts; ++e) {
    const int64_t start = call.offsets[e], count = call.offsets[e + 1] - start;
    const int64_t own = (count + call.chunk - 1) / call.chunk;
    if (piece < own) {
      const int64_t first = start + count * piece / own;
      return run(e, first, start + count * (piece + 1) / own - first);
    }
    piece -= own;
  }
}

template <class Run>
EMBER_INLINE void take_all(int64_t* next, int64_t pieces, const Run& run) {
  for (;;) {
    const int64_t piece = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
    if (piece >= pieces) return;
    run(piece);
  }
}

void run_backward(const ExpertsCall& call, const Team& team, const Own& own) {
  const int64_t hidden = call.sizes.hidden, experts = call.sizes.experts;
  const auto rows = [&](int64_t e, int64_t first, int64_t count) {
    const int64_t start = call.offsets[e], in = first - start;
    Slopes slopes = slopes_of(call, start, own);
    slopes.both += in * both_stride(hidden), slopes.hidden += in * hidden_stride(hidden);
    backward_rows(call, e, first, count, slopes, own);
  };
  if (call.slopes) {
    take_all(call.next, call.pieces, [&](int64_t piece) { run_piece(call, piece, rows); });
    team.wait();
    take_all(call.second, experts * call.parts, [&](int64_t piece) {
      backward_weights(call, piece / call.parts, piece % call.parts, call.parts, own);
    });
    return;
  }
  take_all(call.next, experts, [&](int64_t e) {
    const int64_t start = call.offsets[e], count = call.offsets[e + 1] - start;
    const int64_t pieces = (count + call.chunk - 1) / call.chunk;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t first = count * piece / pieces, last = count * (piece + 1) / pieces;
      rows(e, start + first, last - first);
    }
    backward_weights(call, e, 0, 1, own);
  });
}

}  // namespace

void experts_work(void* argument, const Team& team) {
  const ExpertsCall& call = *static_cast<const ExpertsCall*>(argument);
  const ember_experts& s = call.sizes;
  const Own own = scratch_of(call, team.rank);
  if (call.backward) {
    run_backward(call, team, own);
  } else {
    take_all(call.next, call.pieces, [&](int64_t piece) {
      run_piece(call, piece, [&](int64_t e, int64_t first, int64_t count) {
        forward_rows(call, e, first, count, own);
      });
    });
  }
  end_streams();
  team.wait();
  sum_rows(call, s.tokens * team.rank / team.size, s.tokens * (team.rank + 1) / team.size);
}

}  // namespace EMBER_ISA
}  // namespace ember
