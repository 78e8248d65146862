// The twin's handlers for XLA's processor, which has neither streams nor memory of a card.
//
// Each frame goes on to the handler with an interface that has both: scratch is exactly as large as
// asked for and full of what spoils a result, and a block that is freed twice, with another size or
// never, is counted as a fault.
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>

#include "xla_layout.h"

extern "C" {
XLA_FFI_Error* ember_gpu_fft_conv_xla_forward(XLA_FFI_CallFrame*);
XLA_FFI_Error* ember_gpu_fft_conv_xla_backward(XLA_FFI_CallFrame*);
}

namespace {

std::mutex mutex;
std::map<void*, size_t> blocks;  // that were not freed
std::atomic<long> calls{0}, allocated{0}, faults{0};
std::atomic<bool> full{false};  // whether there is no memory

thread_local const XLA_FFI_Api* real;

XLA_FFI_Error* get_stream(XLA_FFI_Stream_Get_Args* args) {
  args->stream = nullptr;
  return nullptr;
}

XLA_FFI_Error* allocate(XLA_FFI_DeviceMemory_Allocate_Args* args) {
  if (full) {
    XLA_FFI_Error_Create_Args error = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, nullptr,
                                       "the card has no room", XLA_FFI_Error_Code_RESOURCE_EXHAUSTED};
    return real->XLA_FFI_Error_Create(&error);
  }
  if (args->alignment > 16 || args->alignment & (args->alignment - 1) || !args->size) ++faults;
  args->data = malloc(args->size);
  memset(args->data, 0xff, args->size);
  const std::lock_guard<std::mutex> lock(mutex);
  blocks[args->data] = args->size;
  ++allocated;
  return nullptr;
}

XLA_FFI_Error* give_back(XLA_FFI_DeviceMemory_Free_Args* args) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto block = blocks.find(args->data);
  if (block == blocks.end() || block->second != args->size) {
    ++faults;
    return nullptr;
  }
  blocks.erase(block);
  free(args->data);
  return nullptr;
}

XLA_FFI_Error* pass_on(XLA_FFI_CallFrame* frame, XLA_FFI_Handler* handler) {
  if (frame->extension_start) return handler(frame);
  real = frame->api;
  XLA_FFI_Api api = *real;
  api.XLA_FFI_Stream_Get = get_stream;
  api.XLA_FFI_DeviceMemory_Allocate = allocate;
  api.XLA_FFI_DeviceMemory_Free = give_back;
  XLA_FFI_CallFrame own = *frame;
  own.api = &api;
  ++calls;
  return handler(&own);
}

}  // namespace

extern "C" {

XLA_FFI_Error* host_forward(XLA_FFI_CallFrame* frame) {
  return pass_on(frame, ember_gpu_fft_conv_xla_forward);
}

XLA_FFI_Error* host_backward(XLA_FFI_CallFrame* frame) {
  return pass_on(frame, ember_gpu_fft_conv_xla_backward);
}

void host_fill(int yes) { full = yes != 0; }

long host_calls() { return calls; }

long host_allocated() { return allocated; }

// What went wrong so far: faults, and blocks that nobody gave back.
long host_faults() {
  const std::lock_guard<std::mutex> lock(mutex);
  return faults + long(blocks.size());
}

}  // extern "C"
