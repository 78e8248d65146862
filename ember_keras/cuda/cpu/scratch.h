// Scratch that calls leave to the next one.
#pragma once

#include <cstdint>

namespace ember {

struct Scratch {
  char* base = nullptr;
  int64_t bytes = 0;
};

// At least `wanted` bytes, which begin at a large page; null where memory is short.
Scratch* take_scratch(int64_t wanted);
void leave_scratch(Scratch* scratch);

}  // namespace ember
