// One call of the long convolution's C interface, for a processor that is not the test's own: reads
// the call from standard input and writes the arrays back to standard output.
//
// In: threads, 1 for the gradients, the structure, and twelve arrays (six forward), each as the
// bytes of its memory, where in it the first element lies, and the memory; -1 for one that is null.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "fft_conv.h"

namespace {

void read(void* to, size_t bytes) {
  if (bytes && fread(to, 1, bytes, stdin) != bytes) exit(3);
}

int64_t number() {
  int64_t x;
  read(&x, sizeof x);
  return x;
}

}  // namespace

int main() {
  const int threads = int(number());
  const bool backward = number() != 0;
  ember_fft_conv conv;
  read(&conv, sizeof conv);
  std::vector<std::vector<char>> memory(backward ? 11 : 6);
  std::vector<void*> p;
  for (auto& bytes : memory) {
    const int64_t size = number();
    if (size < 0) {
      p.push_back(nullptr);
      continue;
    }
    const int64_t first = number();
    bytes.resize(size_t(size));
    read(bytes.data(), bytes.size());
    p.push_back(bytes.data() + first);
  }
  const int status =
      backward ? ember_fft_conv_backward(&conv, p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7],
                                         p[8], p[9], p[10], nullptr, 0, threads)
               : ember_fft_conv_forward(&conv, p[0], p[1], p[2], p[3], p[4], p[5], nullptr, 0,
                                        threads);
  if (status) {
    fprintf(stderr, "%s\n", ember_fft_conv_error(status));
    return 1;
  }
  fprintf(stderr, "%s\n", ember_fft_conv_isa(conv.isa));
  for (const auto& bytes : memory) fwrite(bytes.data(), 1, bytes.size(), stdout);
  return 0;
}
