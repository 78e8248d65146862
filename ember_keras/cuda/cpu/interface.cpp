// The C interface: checks, scratch, and the choice of an instruction set.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <initializer_list>
#include <new>

#include "../check.h"
#include "call.h"
#include "isa.h"
#include "scratch.h"

namespace ember {
namespace {

constexpr int kMostThreads = 1024;

struct Isa {
  int id;
  const char* name;
  int vector_bytes;
  void (*work)(void*, const Team&);
};

const Isa kIsas[] = {
#ifdef EMBER_HAS_AVX512
    {EMBER_ISA_AVX512, "avx512", 64, avx512::work},
#endif
#ifdef EMBER_HAS_AVX2
    {EMBER_ISA_AVX2, "avx2", 32, avx2::work},
#endif
#if defined(__aarch64__)
    {EMBER_ISA_PORTABLE, "neon", 16, portable::work},
#else
    {EMBER_ISA_PORTABLE, "portable", 16, portable::work},
#endif
};

const Isa* find_isa(int requested) {
  for (const Isa& isa : kIsas) {
    if ((requested == EMBER_ISA_BEST || requested == isa.id) && runs_here(isa.id)) return &isa;
  }
  return nullptr;
}

int check_call(const ember_fft_conv* conv, int threads) {
  if (!conv) return EMBER_NULL_POINTER;
  if (conv->version != EMBER_FFT_CONV_VERSION) return EMBER_UNKNOWN_VERSION;
  if (conv->isa < EMBER_ISA_BEST || conv->isa > EMBER_ISA_AVX512) return EMBER_UNKNOWN_ISA;
  if (!find_isa(conv->isa)) return EMBER_ISA_NOT_AVAILABLE;
  if (threads < 1) return EMBER_NO_THREADS;
  return check(*conv);
}

bool nothing(const ember_fft_conv& c) { return c.batch == 0 || c.width == 0; }

int most_threads(int threads) { return threads < kMostThreads ? threads : kMostThreads; }

// The schedules of a pass; the gradient of the output gate takes a forward one beside.
int schedules(const ember_fft_conv& c, bool backward, int threads, Call* call, int64_t* bytes) {
  const int vector_bytes = find_isa(c.isa)->vector_bytes;
  int status = make_schedule(c, false, threads, vector_bytes, &call->forward);
  if (!status && backward) {
    status = make_schedule(c, true, threads, vector_bytes, &call->backward);
  }
  if (status) return status;
  *bytes = call->forward.scratch_bytes(threads);
  if (backward) {
    const int64_t more = call->backward.scratch_bytes(threads);
    if (more > *bytes) *bytes = more;
  }
  return EMBER_OK;
}

// Scratch is left to the next call: the system need not clear its pages again, and may take
// them where memory is short. It starts at a large page, and the system puts large pages wherever a
// whole one fits; its end lies in small ones, so that no more is held than was asked for.
std::atomic<Scratch*> kept{nullptr};

void give_up(Scratch* scratch) {
  if (scratch && scratch->base) munmap(scratch->base, scratch->bytes);
  delete scratch;
}

char* map_pages(int64_t bytes, int64_t alignment) {
  const int64_t reserved = bytes + alignment;
  void* p = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  char* first = static_cast<char*>(p);
  const int64_t before = -reinterpret_cast<uintptr_t>(first) % uintptr_t(alignment);
  if (before) munmap(first, before);
  if (alignment > before) munmap(first + before + bytes, alignment - before);
  return first + before;
}

}  // namespace

Scratch* take_scratch(int64_t wanted) {
  constexpr int64_t kLargePage = 2 << 20;
  const int64_t page = sysconf(_SC_PAGESIZE);
  Scratch* scratch = kept.exchange(nullptr);
  if (scratch && scratch->bytes >= wanted) return scratch;
  give_up(scratch);
  scratch = new (std::nothrow) Scratch();
  if (!scratch) return nullptr;
  scratch->bytes = (wanted + page - 1) / page * page;
  scratch->base = map_pages(scratch->bytes, kLargePage);
  if (!scratch->base) {
    delete scratch;
    return nullptr;
  }
#ifdef MADV_HUGEPAGE
  madvise(scratch->base, scratch->bytes, MADV_HUGEPAGE);
#endif
  return scratch;
}

void leave_scratch(Scratch* scratch) {
#ifdef MADV_FREE
  constexpr int64_t kSmall = 16 << 20;
  if (scratch->bytes > kSmall) madvise(scratch->base, scratch->bytes, MADV_FREE);
#endif
  give_up(kept.exchange(scratch));
}

namespace {

int run(Call* call, void* scratch, int64_t scratch_bytes, int64_t bytes, int threads) {
  Scratch* own = nullptr;
  if (bytes > 0 && !scratch) {
    own = take_scratch(bytes);
    if (!own) return EMBER_OUT_OF_MEMORY;
    scratch = own->base;
  }
  const int64_t skipped = (64 - reinterpret_cast<uintptr_t>(scratch) % 64) % 64;
  if (!own && bytes > 0 && bytes > scratch_bytes - skipped) return EMBER_SCRATCH_TOO_SMALL;
  call->scratch = static_cast<char*>(scratch) + skipped;
  run_team(threads, find_isa(call->conv.isa)->work, call);
  if (own) leave_scratch(own);
  return EMBER_OK;
}

void clear_filters(const ember_fft_conv& c, void* dk, void* dd) {
  const int64_t bytes = c.filter_dtype == EMBER_FLOAT64 ? 8 : c.filter_dtype == EMBER_FLOAT32 ? 4 : 2;
  for (int64_t s = 0; dk && s < c.taps; ++s) {
    for (int64_t f = 0; f < c.filters; ++f) {
      memset(static_cast<char*>(dk) + (s * c.dk_tap + f * c.dk_filter) * bytes, 0, bytes);
    }
  }
  if (dd && c.width) memset(dd, 0, c.width * bytes);
}

}  // namespace

bool runs_here(int isa) {
#ifdef EMBER_HAS_AVX512
  if (isa == EMBER_ISA_AVX512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma");
  }
#endif
#ifdef EMBER_HAS_AVX2
  if (isa == EMBER_ISA_AVX2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
#endif
  return isa == EMBER_ISA_PORTABLE;
}

}  // namespace ember

using namespace ember;

extern "C" {

int64_t ember_fft_conv_scratch(const ember_fft_conv* conv, int pass, int threads) {
  int status = check_call(conv, threads);
  if (!status && pass != EMBER_FORWARD && pass != EMBER_BACKWARD) status = EMBER_UNKNOWN_PASS;
  if (status) return -status;
  if (nothing(*conv)) return 0;
  Call call = {};
  int64_t bytes = 0;
  status = schedules(*conv, pass == EMBER_BACKWARD, most_threads(threads), &call, &bytes);
  return status ? -status : bytes;
}

int ember_fft_conv_forward(const ember_fft_conv* conv, const void* u, const void* k, const void* d,
                           const void* gate_in, const void* gate_out, void* y, void* scratch,
                           int64_t scratch_bytes, int threads) {
  int status = check_call(conv, threads);
  if (status) return status;
  if (nothing(*conv) || conv->length == 0) return EMBER_OK;
  threads = most_threads(threads);
  Call call = {};
  call.conv = *conv;
  call.u = u, call.k = k, call.d = d, call.gate_in = gate_in, call.gate_out = gate_out;
  call.y = y;
  int64_t bytes = 0;
  status = schedules(*conv, false, threads, &call, &bytes);
  if (status) return status;
  if ((!u && conv->size) || !k || !y) return EMBER_NULL_POINTER;
  return run(&call, scratch, scratch_bytes, bytes, threads);
}

int ember_fft_conv_backward(const ember_fft_conv* conv, const void* u, const void* k, const void* d,
                            const void* gate_in, const void* gate_out, const void* g, void* du,
                            void* dk, void* dd, void* dgate_in, void* dgate_out, void* scratch,
                            int64_t scratch_bytes, int threads) {
  int status = check_call(conv, threads);
  if (status) return status;
  if (nothing(*conv)) {
    clear_filters(*conv, dk, dd);
    return EMBER_OK;
  }
  threads = most_threads(threads);
  Call call = {};
  call.conv = *conv;
  call.u = u, call.k = k, call.d = d, call.gate_in = gate_in, call.gate_out = gate_out;
  call.g = g, call.du = du, call.dk = dk, call.dd = dd;
  call.dgate_in = dgate_in, call.dgate_out = dgate_out;
  int64_t bytes = 0;
  status = schedules(*conv, true, threads, &call, &bytes);
  if (status) return status;
  if ((!u && conv->size) || !k || (!g && conv->length)) return EMBER_NULL_POINTER;
  return run(&call, scratch, scratch_bytes, bytes, threads);
}

void ember_fft_conv_use_openmp(void (*parallel)(void (*)(void*), void*, unsigned, unsigned),
                               int (*number)(void), int (*size)(void)) {
  use_openmp(parallel, number, size);
}

const char* ember_fft_conv_error(int status) { return describe(status); }

const char* ember_fft_conv_isa(int requested) {
  const Isa* isa = find_isa(requested);
  return isa ? isa->name : nullptr;
}

int ember_fft_conv_version(void) { return EMBER_FFT_CONV_VERSION; }

}  // extern "C"
