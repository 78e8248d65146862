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

class Thread {
 public:
  __device__ int index() const { return int(threadIdx.x); }
  __device__ int count() const { return int(blockDim.x); }
  __device__ int block() const { return int(blockIdx.x); }
  __device__ void barrier() const { __syncthreads(); }
  __device__ Complex get(int i) const { return memory()[i]; }
  __device__ void set(int i, Complex x) const { memory()[i] = x; }

 private:
  static __device__ Complex* memory() {
    extern __shared__ Complex shared[];
    return shared;
  }
};

template <class Body>
__global__ void __launch_bounds__(kThreads, 1) run(const __grid_constant__ Body body) {
  body(Thread());
}

// Starts a body on a grid of blocks. Nothing waits for it.
template <class Body>
bool launch(const Body& body, int64_t blocks, int threads, int64_t shared_bytes, Stream stream) {
  if (blocks == 0) return true;
  if (shared_bytes > 48 * 1024) {
    const auto limit = cudaFuncAttributeMaxDynamicSharedMemorySize;
    if (cudaFuncSetAttribute(run<Body>, limit, int(shared_bytes)) != cudaSuccess) return false;
  }
  run<Body><<<unsigned(blocks), threads, size_t(shared_bytes), stream>>>(body);
  return cudaGetLastError() == cudaSuccess;
}

}  // namespace gpu
}  // namespace ember
