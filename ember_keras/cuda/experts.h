/* A mixture of gated perceptrons: each token through those of its experts, and their weighted sum.
 *
 *   y[n] = sum over i of weights[n, i] f_e(x[n]), e = chosen[n, i],
 *   f_e(x) = (silu(x A_e) * (x B_e)) C_e
 *
 * gate_up[e] is [A_e, B_e], down[e] is C_e. A number of an expert that there is not stands for none.
 * All numbers are float32, dense and in row-major order. Plain C, thread-safe, no exceptions; the two
 * calls return an error code, 0 where all went well.
 */
#ifndef EMBER_EXPERTS_H
#define EMBER_EXPERTS_H

#include "fft_conv.h" /* its error codes and instruction sets */

#ifdef __cplusplus
extern "C" {
#endif

#define EMBER_EXPERTS_VERSION 1

typedef struct ember_experts {
  int32_t version; /* EMBER_EXPERTS_VERSION */
  int32_t isa; /* ember_isa */
  int64_t threads;
  int64_t tokens, slots; /* slots: how many experts a token has */
  int64_t experts, width, hidden;
} ember_experts;

/* x (tokens, width), chosen and weights (tokens, slots), gate_up (experts, width, 2 hidden), down
 * (experts, hidden, width), y (tokens, width). kept (tokens, slots 2 H) is what the gradients need,
 * H the next multiple of 16 to hidden; null where there are none. */
EMBER_API int ember_experts_forward(const ember_experts* call, const float* x, const int32_t* chosen,
                                    const float* weights, const float* gate_up, const float* down,
                                    float* y, float* kept);

/* g (tokens, width) is the cotangent of y; the last four are written, not added to. */
EMBER_API int ember_experts_backward(const ember_experts* call, const float* x,
                                     const int32_t* chosen, const float* weights,
                                     const float* gate_up, const float* down, const float* kept,
                                     const float* g, float* dx, float* dweights, float* dgate_up,
                                     float* ddown);

/* A sentence for an error code. */
EMBER_API const char* ember_experts_error(int status);

EMBER_API int ember_experts_version(void);

#ifdef __cplusplus
}
#endif
#endif
