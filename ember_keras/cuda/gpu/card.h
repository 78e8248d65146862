// The machine as a graphics card is.
#pragma once

#include <cuda_runtime.h>

namespace ember {
namespace gpu {

using Stream = cudaStream_t;

__device__ __forceinline__ float load(const float* p) { return *p; }
__device__ __forceinline__ float load(const Half* p) {
  return __half2float(__ushort_as_half(p->bits));
}
__device__ __forceinline__ float load(const Brain* p) {
  return __bfloat162float(__ushort_as_bfloat16(p->bits));
}
__device__ __forceinline__ void store(float* p, float x) { *p = x; }
__device__ __forceinline__ void store(Half* p, float x) {
  p->bits = __half_as_ushort(__float2half_rn(x));
}
__device__ __forceinline__ void store(Brain* p, float x) {
  p->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

// cos(pi x) + i sin(pi x)
__device__ __forceinline__ Complex unit(float x) {
  Complex w;
  sincospif(x, &w.im, &w.re);
  return w;
}

// The same with an error up to 2^-20, for |x| <= 1.
__device__ __forceinline__ Complex near_unit(float x) {
  const float angle = x * 3.14159265358979323846f;
  return {__cosf(angle), __sinf(angle)};
}

// Two numbers as bfloat16, the first in the lower half, and back.
__device__ __forceinline__ uint32_t pair(Complex x) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(x.re, x.im);
  uint32_t bits;
  memcpy(&bits, &both, sizeof bits);
  return bits;
}
__device__ __forceinline__ Complex of_pair(uint32_t x) {
  return {__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u)};
}

class Thread {
 public:
  __device__ int index() const { return int(threadIdx.x); }
  __device__ int lane() const { return int(threadIdx.x % kWarp); }  // of its warp
  __device__ int count() const { return int(blockDim.x); }
  __device__ int block() const { return int(blockIdx.x); }
  __device__ void barrier() const { __syncthreads(); }
  __device__ Complex get(int i) const { return memory()[i]; }
  __device__ void set(int i, Complex x) const { memory()[i] = x; }

  // sums += a b, by a whole warp.
  __device__ void multiply(const Left& a, const Right& b, Sums& sums) const {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums.x[0]), "+f"(sums.x[1]), "+f"(sums.x[2]), "+f"(sums.x[3])
        : "r"(a.words[0]), "r"(a.words[1]), "r"(a.words[2]), "r"(a.words[3]), "r"(b.words[0]),
          "r"(b.words[1]));
#endif
  }

 private:
  static __device__ Complex* memory() {
    extern __shared__ Complex shared[];
    return shared;
  }
};

// Whether a body makes products of matrices, which cards before 8.0 do not compile.
template <class Body, class = void>
constexpr bool kMakesProducts = false;
template <class Body>
constexpr bool kMakesProducts<Body, std::void_t<decltype(Body::kProducts)>> = Body::kProducts;

template <class Body>
__global__ void __launch_bounds__(kThreads, 1) run(const __grid_constant__ Body body) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  if constexpr (kMakesProducts<Body>) {
    __trap();
    return;
  }
#endif
  body(Thread());
}

// The error of this thread's last call that failed, which CUDA forgets when it is asked.
inline thread_local cudaError_t failure = cudaSuccess;

inline bool went_well(cudaError_t error) {
  if (error == cudaSuccess) return true;
  failure = error;
  cudaGetLastError();
  return false;
}

// Starts a body on a grid of blocks. Nothing waits for it.
template <class Body>
bool launch(const Body& body, int64_t blocks, int threads, int64_t shared_bytes, Stream stream) {
  if (blocks == 0) return true;
  if (shared_bytes > 48 * 1024) {
    const auto limit = cudaFuncAttributeMaxDynamicSharedMemorySize;
    if (!went_well(cudaFuncSetAttribute(run<Body>, limit, int(shared_bytes)))) return false;
  }
  run<Body><<<unsigned(blocks), threads, size_t(shared_bytes), stream>>>(body);
  return went_well(cudaGetLastError());
}

}  // namespace gpu
}  // namespace ember
