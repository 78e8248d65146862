// The machine as a processor plays it: the threads of a block are fibres that take turns at each
// barrier. Each word of shared memory knows who wrote and who read it since the last barrier, so a
// race, a word read before it is written, an index outside the memory, and a barrier that not all
// threads reach are found in any run.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace ember {
namespace gpu {

using Stream = void*;

inline float load(const float* p) {
  float x;
  memcpy(&x, p, sizeof x);
  return x;
}
inline float load(const Brain* p) {
  const uint32_t bits = uint32_t(p->bits) << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
inline float load(const Half* p) {
  const uint32_t sign = uint32_t(p->bits & 0x8000) << 16, size = p->bits & 0x7fff;
  uint32_t bits = (size << 13) + (112u << 23);
  if (size >= 0x7c00) bits += 112u << 23;  // infinite, or not a number
  float x;
  memcpy(&x, &bits, sizeof x);
  if (size < 0x400) x = float(size) * 5.9604644775390625e-8f;  // subnormal
  return sign ? -x : x;
}
inline void store(float* p, float x) { memcpy(p, &x, sizeof x); }
inline void store(Brain* p, float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof x);
  const bool number = x == x;
  p->bits = uint16_t(number ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : bits >> 16 | 0x40);
}
inline void store(Half* p, float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof x);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  const float size = std::fabs(x);
  uint16_t half;
  if (!(x == x)) {
    half = 0x7e00;
  } else if (size >= 65520.0f) {
    half = 0x7c00;
  } else if (size < 6.103515625e-5f) {
    half = uint16_t(std::nearbyint(size * 16777216.0f));
  } else {
    const uint32_t magnitude = bits & 0x7fffffff;
    half = uint16_t((magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13);
  }
  p->bits = sign | half;
}

inline Complex unit(float x) {
  const double angle = 3.14159265358979323846 * double(x);
  return {float(std::cos(angle)), float(std::sin(angle))};
}

inline Complex near_unit(float x) { return unit(x); }

inline uint32_t pair(Complex x) {
  Brain low, high;
  store(&low, x.re);
  store(&high, x.im);
  return uint32_t(high.bits) << 16 | low.bits;
}
inline Complex of_pair(uint32_t x) {
  const Brain low = {uint16_t(x)}, high = {uint16_t(x >> 16)};
  return {load(&low), load(&high)};
}

// The first fault of the calling thread, empty where there was none.
inline thread_local char fault[200] = "";

template <class... Values>
void report(const char* format, Values... values) {
  if (!fault[0]) snprintf(fault, sizeof fault, format, values...);
}

// Blocks, and threads in them, run from the last to the first: what depends on it has a race.
inline thread_local bool backwards = false;

class Machine {
 public:
  struct Word {
    Complex value;
    int writer, reader;  // -1: nobody; -2: several
    uint32_t written, read;  // since which barrier
  };

  void barrier() { give_way(Wait::kBarrier); }

  void multiply(const Left& a, const Right& b, Sums& sums) {
    Fibre& fibre = fibres_[size_t(now_)];
    fibre.left = &a, fibre.right = &b, fibre.sums = &sums;
    give_way(Wait::kProduct);
  }

  Complex get(int i) {
    Word* word = find(i);
    if (!word) return {0, 0};
    if (word->writer == -1) report("thread %d reads word %d, which nobody wrote", now_, i);
    if (word->written == phase_ && word->writer != now_ && word->writer != -1) {
      report("thread %d reads word %d beside thread %d's write", now_, i, word->writer);
    }
    word->reader = word->read != phase_ || word->reader == now_ ? now_ : -2;
    word->read = phase_;
    return word->value;
  }

  void set(int i, Complex x) {
    Word* word = find(i);
    if (!word) return;
    if (word->written == phase_ && word->writer != -1 && word->writer != now_) {
      report("threads %d and %d write word %d", now_, word->writer, i);
    }
    if (word->read == phase_ && word->reader != -1 && word->reader != now_) {
      report("thread %d writes word %d beside a read", now_, i);
    }
    *word = {x, now_, word->reader, phase_, word->read};
  }

  int index() const { return now_; }
  int count() const { return int(fibres_.size()); }
  int block() const { return int(index_); }

  template <class Body>
  bool run(const Body& body, int64_t blocks, int threads, int64_t shared_bytes);

 private:
  static constexpr size_t kStack = 96 * 1024;
  enum class Wait { kBarrier, kProduct, kDone };
  struct Fibre {
    ucontext_t context;
    Wait wait;
    void* fake = nullptr;
    const Left* left;
    const Right* right;
    Sums* sums;
    bool done() const { return wait == Wait::kDone; }
  };

  Word* find(int i) {
    if (i >= 0 && size_t(i) < words_.size()) return &words_[size_t(i)];
    report("thread %d uses word %d of %zu", now_, i, words_.size());
    return nullptr;
  }

  __attribute__((noinline)) void prepare(int thread) {
    Fibre& fibre = fibres_[size_t(thread)];
    fibre.wait = Wait::kBarrier;
    fibre.fake = nullptr;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = stacks_.get() + size_t(thread) * kStack;
    fibre.context.uc_stack.ss_size = kStack;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, enter, 0);
  }

  void give_way(Wait wait) {
    Fibre& fibre = fibres_[size_t(now_)];
    fibre.wait = wait;
    leave(fibre.done() ? nullptr : &fibre.fake, main_stack_, main_bytes_);
    swapcontext(&fibre.context, &main_);
    arrive(fibre.fake);
  }

  void resume(int thread) {
    now_ = thread;
    void* fake = nullptr;
    leave(&fake, stacks_.get() + size_t(thread) * kStack, kStack);
    swapcontext(&main_, &fibres_[size_t(thread)].context);
    arrive(fake);
  }

  // Runs a warp's threads, from `first` on, to the next barrier or to their end.
  bool run_warp(int first, int threads) {
    const int count = std::min(kWarp, threads - first);
    for (bool products = true; products;) {
      int at_product = 0;
      for (int t = 0; t < count; ++t) {
        const int thread = first + (backwards ? count - 1 - t : t);
        if (!fibres_[size_t(thread)].done()) resume(thread);
        at_product += fibres_[size_t(thread)].wait == Wait::kProduct;
      }
      products = at_product > 0;
      if (products && at_product < kWarp) {
        report("%d of %d threads of warp %d are at a product", at_product, kWarp, first / kWarp);
        return false;  // The others never end.
      }
      if (products) multiply_warp(&fibres_[size_t(first)]);
    }
    return true;
  }

  // A warp's product, from its threads' parts.
  static void multiply_warp(Fibre* lanes) {
    const auto half = [](uint32_t word, int upper) {
      const Brain x = {uint16_t(word >> 16 * upper)};
      return load(&x);
    };
    float a[16][16], b[16][8];
    for (int lane = 0; lane < kWarp; ++lane) {
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 8; ++i) {
        const int row = group + i / 2 % 2 * 8, column = pair + i % 2 + i / 4 * 8;
        a[row][column] = half(lanes[lane].left->words[i / 2], i % 2);
      }
      for (int i = 0; i < 4; ++i) {
        b[pair + i % 2 + i / 2 * 8][group] = half(lanes[lane].right->words[i / 2], i % 2);
      }
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float& sum = lanes[lane].sums->x[i];
        for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      }
    }
  }

  // The address sanitizer wants to know which stack is in use.
  static void leave([[maybe_unused]] void** fake, [[maybe_unused]] const void* stack,
                    [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake, stack, bytes);
#endif
  }
  void arrive([[maybe_unused]] void* fake) {
#if defined(__SANITIZE_ADDRESS__)
    const void* stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(fake, &stack, &bytes);
    if (!main_stack_) main_stack_ = stack, main_bytes_ = bytes;
#endif
  }

  static Machine*& running() {
    static thread_local Machine* machine = nullptr;
    return machine;
  }
  static void enter() {
    Machine* machine = running();
    machine->arrive(nullptr);
    machine->call_(machine);
    machine->give_way(Wait::kDone);
  }

  std::vector<Word> words_;
  std::vector<Fibre> fibres_;
  std::unique_ptr<char[]> stacks_;
  ucontext_t main_;
  const void* main_stack_ = nullptr;
  size_t main_bytes_ = 0;
  int now_ = 0;
  int64_t index_ = 0;
  uint32_t phase_ = 1;
  const void* body_ = nullptr;
  void (*call_)(Machine*) = nullptr;
};

class Thread {
 public:
  explicit Thread(Machine* machine) : machine_(machine) {}
  int index() const { return machine_->index(); }
  int lane() const { return index() % kWarp; }  // of its warp
  int count() const { return machine_->count(); }
  int block() const { return machine_->block(); }
  void barrier() const { machine_->barrier(); }
  Complex get(int i) const { return machine_->get(i); }
  void set(int i, Complex x) const { machine_->set(i, x); }
  void multiply(const Left& a, const Right& b, Sums& sums) const { machine_->multiply(a, b, sums); }

 private:
  Machine* machine_;
};

template <class Body>
bool Machine::run(const Body& body, int64_t blocks, int threads, int64_t shared_bytes) {
  body_ = &body;
  call_ = [](Machine* m) { (*static_cast<const Body*>(m->body_))(Thread(m)); };
  running() = this;
  fibres_.resize(size_t(threads));
  stacks_.reset(new char[size_t(threads) * kStack]);
  for (int64_t i = 0; i < blocks && !fault[0]; ++i) {
    index_ = backwards ? blocks - 1 - i : i;
    words_.assign(size_t(shared_bytes) / sizeof(Complex), {{0, 0}, -1, -1, 0, 0});
    for (int t = 0; t < threads; ++t) prepare(t);
    for (int done = 0; done < threads;) {
      const int warps = (threads + kWarp - 1) / kWarp;
      for (int w = 0; w < warps; ++w) {
        if (!run_warp((backwards ? warps - 1 - w : w) * kWarp, threads)) return false;
      }
      done = int(std::count_if(fibres_.begin(), fibres_.end(), [](const Fibre& f) { return f.done(); }));
      if (done && done < threads) {
        report("%d of %d threads of block %lld left before a barrier", done, threads,
               static_cast<long long>(index_));
        return false;  // The others never end.
      }
      ++phase_;
    }
  }
  return !fault[0];
}

template <class Body>
bool launch(const Body& body, int64_t blocks, int threads, int64_t shared_bytes, Stream) {
  if (blocks == 0) return true;
  Machine machine;
  return machine.run(body, blocks, threads, shared_bytes);
}

}  // namespace gpu
}  // namespace ember
