// The words of Metal's language that the kernels use, for a C++ compiler: threadgroup memory, threads
// and barriers are those of the CUDA kernel's twin, which finds races.
#pragma once

#include "gpu/grid.h"

using uint = unsigned;
struct uint3 {
  uint x, y, z;
};

struct float2 {
  float x, y;
  float2() = default;
  float2(float a, float b) : x(a), y(b) {}
};
inline float2 operator+(float2 a, float2 b) { return {a.x + b.x, a.y + b.y}; }
inline float2 operator-(float2 a, float2 b) { return {a.x - b.x, a.y - b.y}; }

template <class Storage>
struct Stored {
  Storage bits;
  explicit Stored(float x) { ember::gpu::store(&bits, x); }
  operator float() const { return ember::gpu::load(&bits); }
};
using float16_t = Stored<ember::gpu::Half>;
using bfloat16_t = Stored<ember::gpu::Brain>;

inline ember::gpu::Thread* machine;  // of the running threadgroup

// A place in threadgroup memory: what is read and written goes through the machine.
namespace shared {
struct float2 {
  inline static float2* base;
  int index() const { return int(this - base); }
  operator ::float2() const {
    const ember::gpu::Complex x = machine->get(index());
    return {x.re, x.im};
  }
  float2& operator=(::float2 x) {
    machine->set(index(), {x.x, x.y});
    return *this;
  }
  float2& operator=(const float2& other) { return *this = ::float2(other); }
};
inline ::float2 operator+(const float2& a, const float2& b) { return ::float2(a) + ::float2(b); }
inline ::float2 operator-(const float2& a, const float2& b) { return ::float2(a) - ::float2(b); }
}  // namespace shared

// Where Metal declares its threadgroup memory, the twin takes the machine's.
template <int N>
shared::float2* threadgroup_memory() {
  static shared::float2 places[N];
  return shared::float2::base = places;
}

enum class mem_flags { mem_threadgroup };
inline void threadgroup_barrier(mem_flags) { machine->barrier(); }

#define threadgroup shared::
#define device
#define constant

// Runs a kernel of a grid of threads; returns the machine's complaint, or an empty text.
template <class F>
const char* run(F kernel, int x, int y, int threads, int words) {
  static char said[sizeof ember::gpu::fault];
  const int groups = x / threads;
  ember::gpu::fault[0] = 0;
  ember::gpu::launch(
      [&](const ember::gpu::Thread& thread) {
        ember::gpu::Thread own = thread;
        machine = &own;
        kernel(uint3{uint(thread.index()), 0, 0},
               uint3{uint(thread.block() % groups), uint(thread.block() / groups), 0});
      },
      int64_t(groups) * y, threads, words * int64_t(sizeof(ember::gpu::Complex)), nullptr);
  memcpy(said, ember::gpu::fault, sizeof said);
  return said;
}
