// The instruction sets that the library was compiled for.
#pragma once

#include "../fft_conv.h"

namespace ember {

// Whether this machine has what a member of ember_isa needs, and the library was compiled for it.
bool runs_here(int isa);

}  // namespace ember
