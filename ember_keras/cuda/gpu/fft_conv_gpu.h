/* The long convolution of fft_conv.h on a graphics card: the same structure and the same results,
 * with pointers to the card's memory, scratch from the caller, and a stream. No call waits for the
 * card, takes memory, or keeps anything, so calls may be captured into CUDA graphs.
 *
 * float32, float16 and bfloat16; pointers are aligned to their elements.
 */
#ifndef EMBER_FFT_CONV_GPU_H
#define EMBER_FFT_CONV_GPU_H

#include "../fft_conv.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ember_card {
  int64_t shared_bytes; /* of shared memory that a block may use */
  int64_t processors;   /* multiprocessors */
  int64_t cache_bytes;  /* of the second-level cache */
  int64_t tensor;       /* 16-bit signals go through tensor cores: 0 or 1 */
} ember_card;

/* The properties of card number `index`; 0 or an error code. `tensor` is 1 where tensor cores
 * should need less time than ordinary arithmetic, on capabilities 8.0 and 9.0, the only ones that it
 * may be 1 on; 0 does without. */
EMBER_API int ember_gpu_card(int index, ember_card* card);
enum { EMBER_CURRENT_CARD = -1 }; /* as an index: the card that the calling thread works with */

/* Bytes of scratch that one call takes, or minus an error code. wanted: a sum of ember_wanted. */
enum ember_wanted { EMBER_WANT_SIGNALS = 1, EMBER_WANT_FILTERS = 2 };
EMBER_API int64_t ember_gpu_fft_conv_scratch(const ember_fft_conv* conv, const ember_card* card,
                                             int pass, int wanted);

/* How a call is computed. */
typedef struct ember_gpu_plan {
  int64_t points;       /* complex points of a transform */
  int64_t columns;      /* those in one tile of the first pass; all of them: one tile */
  int64_t channels;     /* side by side in a tile */
  int64_t blocks;       /* of positions, of each sequence */
  int64_t items;        /* transforms of so many channels that one launch computes, at most */
  int64_t launches;     /* of a forward pass */
  int64_t shared_bytes; /* of a block of threads, at most */
  int64_t tensor;       /* whether tensor cores make the products of matrices */
} ember_gpu_plan;
EMBER_API int ember_gpu_fft_conv_plan(const ember_fft_conv* conv, const ember_card* card, int pass,
                                      int wanted, ember_gpu_plan* plan);

EMBER_API int ember_gpu_fft_conv_forward(const ember_fft_conv* conv, const ember_card* card,
                                         const void* u, const void* k, const void* d,
                                         const void* gate_in, const void* gate_out, void* y,
                                         void* scratch, int64_t scratch_bytes, void* stream);

EMBER_API int ember_gpu_fft_conv_backward(const ember_fft_conv* conv, const ember_card* card,
                                          const void* u, const void* k, const void* d,
                                          const void* gate_in, const void* gate_out, const void* g,
                                          void* du, void* dk, void* dd, void* dgate_in,
                                          void* dgate_out, void* scratch, int64_t scratch_bytes,
                                          void* stream);

/* A sentence for an error code; on the twin, for the last fault of this thread. */
EMBER_API const char* ember_gpu_error(int status);

EMBER_API int ember_gpu_version(void);

#ifdef __cplusplus
}
#endif
#endif
