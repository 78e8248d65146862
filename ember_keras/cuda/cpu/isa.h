// The instruction sets that the library was compiled for.
#pragma once

#include "../fft_conv.h"
#include "threads.h"

namespace ember {

// Whether this machine has what a member of ember_isa needs, and the library was compiled for it.
bool runs_here(int isa);

using Work = void (*)(void*, const Team&);

// Of a function's forms, null where the library was compiled without one, that of an instruction
// set, or the best that runs here; null where that does not.
inline Work choose(int isa, Work portable, Work avx2, Work avx512) {
  const bool best = isa == EMBER_ISA_BEST;
  if (avx512 && (best || isa == EMBER_ISA_AVX512) && runs_here(EMBER_ISA_AVX512)) return avx512;
  if (avx2 && (best || isa == EMBER_ISA_AVX2) && runs_here(EMBER_ISA_AVX2)) return avx2;
  return best || isa == EMBER_ISA_PORTABLE ? portable : nullptr;
}

#ifdef EMBER_HAS_AVX2
#define EMBER_AVX2(name) avx2::name
#else
#define EMBER_AVX2(name) nullptr
#endif
#ifdef EMBER_HAS_AVX512
#define EMBER_AVX512(name) avx512::name
#else
#define EMBER_AVX512(name) nullptr
#endif
#define EMBER_FORMS(name) portable::name, EMBER_AVX2(name), EMBER_AVX512(name)

}  // namespace ember
