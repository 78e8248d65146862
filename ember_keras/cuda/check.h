// What a call may ask for, on any machine.
#pragma once

#include "fft_conv.h"

namespace ember {

// 0 or an error code: sizes, dtypes, strides.
int check(const ember_fft_conv& conv);

// A sentence for an error code.
const char* describe(int status);

}  // namespace ember
