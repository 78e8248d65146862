/* Grouped matrix products: rows sorted by group, a matrix a group.
 *
 *   rows:     y[m] = x[m] W[e],  or x[m] W[e]^T,   for offsets[e] <= m < offsets[e + 1]
 *   weights:  dW[e] = sum over these m of x[m]^T g[m]
 *
 * Rows of no group are 0. All numbers are float32, dense and in row-major order. Plain C, thread-safe,
 * no exceptions; the two calls return an error code, 0 where all went well.
 */
#ifndef EMBER_GROUPED_H
#define EMBER_GROUPED_H

#include "fft_conv.h" /* its error codes and instruction sets */

#ifdef __cplusplus
extern "C" {
#endif

#define EMBER_GROUPED_VERSION 1

typedef struct ember_grouped {
  int32_t version; /* EMBER_GROUPED_VERSION */
  int32_t isa; /* ember_isa */
  int32_t transposed; /* rows: whether the matrices are (width, inner), and are used transposed */
  int32_t threads;
  int64_t rows, groups;
  int64_t inner; /* columns of x */
  int64_t width; /* columns of y, or of g */
} ember_grouped;

/* x (rows, inner), w (groups, inner, width) or its transpose, offsets (groups + 1,) not decreasing
 * and from 0 to rows, y (rows, width). */
EMBER_API int ember_grouped_rows(const ember_grouped* call, const float* x, const float* w,
                                 const int32_t* offsets, float* y);

/* x (rows, inner), g (rows, width), dw (groups, inner, width), which is written, not added to. */
EMBER_API int ember_grouped_weights(const ember_grouped* call, const float* x, const float* g,
                                    const int32_t* offsets, float* dw);

/* A sentence for an error code. */
EMBER_API const char* ember_grouped_error(int status);

EMBER_API int ember_grouped_version(void);

#ifdef __cplusplus
}
#endif
#endif
