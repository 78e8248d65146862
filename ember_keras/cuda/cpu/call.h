// One call of the C interface, checked, as the code of an instruction set receives it.
#pragma once

#include "schedule.h"
#include "threads.h"

namespace ember {

struct Call {
  ember_fft_conv conv;
  const void *u, *k, *d, *gate_in, *gate_out, *g;
  void *y, *du, *dk, *dd, *dgate_in, *dgate_out;
  Schedule forward, backward;
  char* scratch;  // aligned to 64 bytes
};

// Defined once for each instruction set; `call` is a Call.
namespace portable {
void work(void* call, const Team& team);
}
namespace avx2 {
void work(void* call, const Team& team);
}
namespace avx512 {
void work(void* call, const Team& team);
}

}  // namespace ember
