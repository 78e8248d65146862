// What a kernel's body sees of the machine: its thread, its block's shared memory, barriers, and
// 16-bit numbers. nvcc compiles the bodies for graphics cards; any C++ compiler compiles the same
// bodies for a twin on the processor (twin.h), which checks what each thread does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define EMBER_DEVICE __device__ __forceinline__
#define EMBER_ANYWHERE __host__ __device__ __forceinline__
#define EMBER_ON_CARD 1
#else
#define EMBER_DEVICE inline
#define EMBER_ANYWHERE inline
#define EMBER_ON_CARD 0
#endif

namespace ember {
namespace gpu {

struct alignas(8) Complex {
  float re, im;
};

// Threads of a block, at most; the kernels are compiled to fit so many.
constexpr int kThreads = 512;

// 16-bit storage; numbers are computed with as float.
struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};

// What one of a warp's threads has of a product of matrices (16, 16) times (16, 8), summed in float:
// two bfloat16 a word. The PTX ISA says under mma.m16n8k16 which numbers a thread has.
struct Left {
  uint32_t words[4];
};
struct Right {
  uint32_t words[2];
};
struct Sums {
  float x[4];
};
constexpr int kWarp = 32;

}  // namespace gpu
}  // namespace ember

#if EMBER_ON_CARD
#include "card.h"
#else
#include "twin.h"
#endif
