#include "plan.h"

#include <pthread.h>

#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <tuple>
#include <vector>

namespace ember {
namespace {

constexpr double kTurn = 6.283185307179586476925286766559;
constexpr int64_t kRowBytes = 256 * 1024;
constexpr int64_t kTileBytes = 256 * 1024;
constexpr int kOdd[] = {1, 3, 5, 9, 15, 25, 27, 45};

struct Owned {
  Plan plan;
  std::vector<std::unique_ptr<char[]>> tables;
};

// Twiddles of one level. Angles are in turns; level by level each polynomial x^m - e^(2 pi i angle)
// splits into those with the angles (angle + q) / radix.
template <class R>
std::unique_ptr<char[]> level_table(const std::vector<double>& angles, int radix) {
  std::unique_ptr<char[]> bytes(new char[angles.size() * (radix - 1) * 2 * sizeof(R)]);
  R* w = reinterpret_cast<R*>(bytes.get());
  for (const double angle : angles) {
    const double turn = kTurn * (angle / radix);
    const double c = std::cos(turn), s = std::sin(turn);
    double re = c, im = s;
    for (int q = 1; q < radix; ++q) {
      *w++ = R(re);
      *w++ = R(im);
      const double next = re * c - im * s;
      im = re * s + im * c;
      re = next;
    }
  }
  return bytes;
}

// Splits 2^bits into radices 4 and 8. With few registers 8 only stands for a 4 and a 2.
void add_levels(Plan* plan, int bits, int most) {
  while (bits > 0) {
    int take = bits == 1 ? 1 : 2;
    if (most == 8 ? bits % 3 == 0 : bits == 3) take = 3;
    plan->radix[plan->levels++] = 1 << take;
    bits -= take;
  }
}

std::unique_ptr<Owned> make_plan(int64_t n, bool wide, int vector_bytes) {
  std::unique_ptr<Owned> owned(new Owned());
  Plan& plan = owned->plan;
  plan = Plan();
  plan.n = n;
  const int64_t position = 128;  // bytes
#if defined(__aarch64__)
  const int most = 8;
#else
  const int most = vector_bytes == 64 ? 8 : 4;
#endif
  int bits = 0;
  int64_t odd = n;
  while (odd % 2 == 0) odd /= 2, ++bits;
  for (const int p : {3, 5}) {
    for (; odd % p == 0; odd /= p) plan.radix[plan.levels++] = p;
  }
  int64_t n1 = 1;
  for (int l = 0; l < plan.levels; ++l) n1 *= plan.radix[l];
  int row_bits = bits;
  while (row_bits > 1 && (int64_t(1) << row_bits) * position > kRowBytes) --row_bits;
  int top_bits = bits - row_bits;
  // One pass over the columns costs the same for any radix: take a large one.
  const int least = most == 8 ? 3 : 2;
  if (n1 == 1 && top_bits < least) top_bits = bits - least >= 2 ? least : 1;
  add_levels(&plan, top_bits, most);
  plan.top = plan.levels;
  plan.n1 = n1 << top_bits;
  plan.n2 = n / plan.n1;
  add_levels(&plan, bits - top_bits, most);
  plan.pitch = plan.n2 + (plan.n1 > 4 && plan.n2 * position >= 4096 ? 1 : 0);
  // A power of two, as n2 is: strips of columns leave no rest.
  const int64_t fit = plan.top == 1 ? 8 : kTileBytes / (plan.n1 * position);
  plan.columns = 16;
  while (plan.columns > plan.n2 || (plan.columns > fit && plan.columns > 4)) plan.columns /= 2;

  std::vector<double> angles(1, 0.25);
  for (int l = 0; l < plan.levels; ++l) {
    const int radix = plan.radix[l];
    owned->tables.push_back(wide ? level_table<double>(angles, radix)
                                 : level_table<float>(angles, radix));
    plan.twiddles[l] = owned->tables.back().get();
    plan.twiddle_bytes += angles.size() * (radix - 1) * 2 * (wide ? 8 : 4);
    std::vector<double> next;
    if (l + 1 < plan.levels) {
      next.reserve(angles.size() * radix);
      for (const double angle : angles) {
        for (int q = 0; q < radix; ++q) next.push_back((angle + q) / radix);
      }
    }
    angles.swap(next);
  }
  return owned;
}

// No thread holds the lock when the process forks: in the child nobody would give it back.
std::mutex* lock = new std::mutex();
void take_lock() { lock->lock(); }
void give_lock() { lock->unlock(); }
const int registered = pthread_atfork(take_lock, give_lock, give_lock);

}  // namespace

int64_t transform_size(int64_t period) {
  const int64_t least = (period + 1) / 2;
  int64_t best = 0;
  double best_cost = 0;
  for (const int odd : kOdd) {
    // Short rows under many make for large tiles: 45 is not worth them where 48 is near.
    int64_t n = (odd == 1 ? 16 : odd == 45 ? 64 : 8) * int64_t(odd);
    while (n < least) n *= 2;
    const double cost = double(n) * std::log2(double(n)) * (odd == 1 ? 1.0 : 1.05);
    if (best == 0 || cost < best_cost) best = n, best_cost = cost;
  }
  return best;
}

const Plan* find_plan(int64_t n, bool wide, int vector_bytes) {
  (void)registered;
  static auto* plans = new std::map<std::tuple<int64_t, bool, int>, std::unique_ptr<Owned>>();
  try {
    const std::lock_guard<std::mutex> guard(*lock);
    std::unique_ptr<Owned>& found = (*plans)[std::make_tuple(n, wide, vector_bytes)];
    if (!found) found = make_plan(n, wide, vector_bytes);
    return &found->plan;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace ember
