// Compiled once for each instruction set, with EMBER_ISA and EMBER_VECTOR_BYTES defined.
#include "convolution.h"

namespace ember {
namespace EMBER_ISA {

void work(void* argument, const Team& team) {
  const Call& call = *static_cast<const Call*>(argument);
  if (call.conv.dtype == EMBER_FLOAT64) {
    Convolution<double>(call, team).run();
  } else {
    Convolution<float>(call, team).run();
  }
}

}  // namespace EMBER_ISA
}  // namespace ember
