/* The long convolution: y = gate_out * (k * x + d x) with x = gate_in * u, and its gradients.
 *
 *   y[b, t, c] = gate_out[b, t, c] (sum_s k[s, f] x[b, start + t - s, c] + d[c] x[b, skip + t, c])
 *
 * for 0 <= t < length, with f = c / (width / filters): neighbouring channels share a filter. x is 0
 * outside 0 .. size - 1; with a period its positions are taken modulo the period instead.
 *
 * Plain C, thread-safe, no exceptions; every function but the three that return text returns an
 * error code, 0 where all went well. Pointers need no alignment beyond that of one byte.
 */
#ifndef EMBER_FFT_CONV_H
#define EMBER_FFT_CONV_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define EMBER_API __attribute__((visibility("default")))
#else
#define EMBER_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define EMBER_FFT_CONV_VERSION 1

/* Storage. 16-bit numbers are computed with in float32. */
enum ember_dtype { EMBER_FLOAT32 = 0, EMBER_FLOAT64 = 1, EMBER_FLOAT16 = 2, EMBER_BFLOAT16 = 3 };

enum ember_isa { EMBER_ISA_BEST = 0, EMBER_ISA_PORTABLE = 1, EMBER_ISA_AVX2 = 2, EMBER_ISA_AVX512 = 3 };

enum ember_pass { EMBER_FORWARD = 0, EMBER_BACKWARD = 1 };

enum ember_status {
  EMBER_OK = 0,
  EMBER_NULL_POINTER = 1,
  EMBER_NEGATIVE_SIZE = 2,
  EMBER_SIZE_OVERFLOW = 3,
  EMBER_UNKNOWN_DTYPE = 4,
  EMBER_FILTERS_DO_NOT_DIVIDE_WIDTH = 5,
  EMBER_NO_TAPS = 6,
  EMBER_PERIOD_TOO_SHORT = 7,
  EMBER_UNKNOWN_ISA = 8,
  EMBER_ISA_NOT_AVAILABLE = 9,
  EMBER_OUT_OF_MEMORY = 10,
  EMBER_SCRATCH_TOO_SMALL = 11,
  EMBER_UNKNOWN_PASS = 12,
  EMBER_NO_THREADS = 13,
  EMBER_UNKNOWN_VERSION = 14,
  EMBER_MISALIGNED = 15,
  EMBER_CARD_FAILED = 16
};

/* Strides are in elements, of any sign. */
typedef struct ember_strides {
  int64_t batch, time, channel;
} ember_strides;

typedef struct ember_fft_conv {
  int32_t version; /* EMBER_FFT_CONV_VERSION */
  int32_t dtype; /* of u, the gates, y and their gradients */
  int32_t filter_dtype; /* of k, d and their gradients: as dtype, or float32 beside 16 bits */
  int32_t isa; /* ember_isa */
  int64_t batch, width, filters;
  int64_t size; /* positions of u and gate_in */
  int64_t taps; /* rows of k, at least 1 */
  int64_t start, length; /* the window of outputs */
  int64_t skip; /* the position of x that d multiplies in output 0 */
  int64_t period; /* 0: none; otherwise size, taps and length are at most the period */
  ember_strides u, gate_in, y, gate_out;
  ember_strides du, dgate_in, dgate_out, g;
  int64_t k_tap, k_filter;
  int64_t dk_tap, dk_filter;
} ember_fft_conv;

/* Bytes of scratch that one call takes, or minus an error code. */
EMBER_API int64_t ember_fft_conv_scratch(const ember_fft_conv* conv, int pass, int threads);

/* gate_in, gate_out and d may be null. A null scratch is allocated and freed by the call; another one
 * lies at a multiple of 64 bytes, or is larger by what it takes to get there. */
EMBER_API int ember_fft_conv_forward(const ember_fft_conv* conv, const void* u, const void* k,
                                     const void* d, const void* gate_in, const void* gate_out,
                                     void* y, void* scratch, int64_t scratch_bytes, int threads);

/* The gradients for a cotangent g of y, each of which may be null: not wanted. dd and dk are
 * (width,) and (taps, filters); they are written, not added to. */
EMBER_API int ember_fft_conv_backward(const ember_fft_conv* conv, const void* u, const void* k,
                                      const void* d, const void* gate_in, const void* gate_out,
                                      const void* g, void* du, void* dk, void* dd, void* dgate_in,
                                      void* dgate_out, void* scratch, int64_t scratch_bytes,
                                      int threads);

/* Calls run in the threads of an OpenMP from now on, for a framework that has one: `parallel` is its
 * GOMP_parallel, `number` and `size` its omp_get_thread_num and omp_get_num_threads. Its threads look
 * for work for a while before they sleep, and the kernel's own would have to share the processor
 * with them. Null: the kernel's own threads again. */
EMBER_API void ember_fft_conv_use_openmp(void (*parallel)(void (*)(void*), void*, unsigned, unsigned),
                                         int (*number)(void), int (*size)(void));

/* A sentence for an error code. */
EMBER_API const char* ember_fft_conv_error(int status);

/* The name of the instruction set that a request gets, or null where this machine lacks it. */
EMBER_API const char* ember_fft_conv_isa(int requested);

EMBER_API int ember_fft_conv_version(void);

#ifdef __cplusplus
}
#endif
#endif
