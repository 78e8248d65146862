// The handlers for graphics cards with frames made by hand: prints what they ask of XLA and of the
// kernel, which both are played here.
#include <cstdio>
#include <vector>

#include "gpu/fft_conv_gpu.h"
#include "xla_layout.h"

extern "C" {
XLA_FFI_Error* ember_gpu_fft_conv_xla_forward(XLA_FFI_CallFrame*);
XLA_FFI_Error* ember_gpu_fft_conv_xla_backward(XLA_FFI_CallFrame*);
}

struct XLA_FFI_ExecutionContext {};
struct XLA_FFI_Error {};

namespace {

XLA_FFI_ExecutionContext context;
XLA_FFI_Error failed;
char stream, memory[64], numbers[1 << 14];
const char* failing = "";
int64_t scratch_bytes = 64;

bool fails(const char* what) { return !strcmp(failing, what); }

XLA_FFI_Error* make_error(XLA_FFI_Error_Create_Args* args) {
  printf("error %d: %s\n", int(args->errc), args->message);
  return &failed;
}

XLA_FFI_Error* get_stream(XLA_FFI_Stream_Get_Args* args) {
  puts(args->ctx == &context ? "stream" : "stream of another context");
  args->stream = &stream;
  return fails("stream") ? &failed : nullptr;
}

XLA_FFI_Error* allocate(XLA_FFI_DeviceMemory_Allocate_Args* args) {
  printf("allocate %zu aligned to %zu%s\n", args->size, args->alignment,
         args->ctx == &context ? "" : " in another context");
  args->data = memory;
  return fails("allocate") ? &failed : nullptr;
}

XLA_FFI_Error* give_back(XLA_FFI_DeviceMemory_Free_Args* args) {
  printf("free %zu%s\n", args->size,
         args->ctx == &context && args->data == memory ? "" : " of something else");
  return fails("free") ? &failed : nullptr;
}

// Where a pointer lies in the numbers, as an index of floats; -1: null.
int at(const void* p) { return p ? int((static_cast<const char*>(p) - numbers) / 4) : -1; }

int launched(const char* what, const ember_card* card, const void* scratch, int64_t bytes,
             const void* on) {
  const bool fine = card->processors == 7 && on == &stream && bytes == scratch_bytes &&
                    scratch == (bytes ? memory : nullptr);
  puts(fine ? "" : " on another card, stream or scratch");
  return fails(what) ? EMBER_CARD_FAILED : EMBER_OK;
}

}  // namespace

extern "C" {

int ember_gpu_card(int index, ember_card* card) {
  printf("card %d\n", index);
  *card = {};
  card->processors = 7;
  return fails("card") ? EMBER_CARD_FAILED : EMBER_OK;
}

int64_t ember_gpu_fft_conv_scratch(const ember_fft_conv*, const ember_card*, int pass, int wanted) {
  printf("scratch of pass %d, wanted %d\n", pass, wanted);
  return fails("scratch") ? -EMBER_SIZE_OVERFLOW : scratch_bytes;
}

int ember_gpu_fft_conv_forward(const ember_fft_conv* c, const ember_card* card, const void* u,
                               const void* k, const void* d, const void*, const void*, void* y,
                               void* scratch, int64_t bytes, void* on) {
  printf("forward of (%d, %d, %d) with (%d, %d), %d from %d, skip %d: u %d k %d d %d y %d",
         int(c->batch), int(c->size), int(c->width), int(c->taps), int(c->filters), int(c->length),
         int(c->start), int(c->skip), at(u), at(k), at(d), at(y));
  return launched("forward", card, scratch, bytes, on);
}

int ember_gpu_fft_conv_backward(const ember_fft_conv*, const ember_card* card, const void* u,
                                const void* k, const void* d, const void*, const void*,
                                const void* g, void* du, void* dk, void* dd, void*, void*,
                                void* scratch, int64_t bytes, void* on) {
  printf("backward: u %d k %d d %d g %d du %d dk %d dd %d", at(u), at(k), at(d), at(g), at(du),
         at(dk), at(dd));
  return launched("backward", card, scratch, bytes, on);
}

const char* ember_gpu_error(int status) {
  return status == EMBER_CARD_FAILED ? "the card said no" : "too large";
}

}  // extern "C"

namespace {

using Shape = std::vector<int64_t>;

// Calls a handler with float32 buffers of these shapes, each 256 numbers behind the last.
void call(const char* title, XLA_FFI_Handler* handler, std::vector<Shape> in, std::vector<Shape> out,
          int64_t skips, XLA_FFI_ExecutionStage stage = XLA_FFI_ExecutionStage_EXECUTE) {
  printf("-- %s\n", title);
  XLA_FFI_Api api = {};
  api.struct_size = XLA_FFI_Api_STRUCT_SIZE;
  api.XLA_FFI_Error_Create = make_error;
  api.XLA_FFI_Stream_Get = get_stream;
  api.XLA_FFI_DeviceMemory_Allocate = allocate;
  api.XLA_FFI_DeviceMemory_Free = give_back;
  std::vector<XLA_FFI_Buffer> buffers;
  std::vector<void*> all;
  for (std::vector<Shape>* shapes : {&in, &out}) {
    for (Shape& shape : *shapes) {
      void* data = numbers + 4 * 256 * buffers.size();
      buffers.push_back({sizeof(XLA_FFI_Buffer), nullptr, XLA_FFI_DataType_F32, data,
                         int64_t(shape.size()), shape.data()});
    }
  }
  for (XLA_FFI_Buffer& buffer : buffers) all.push_back(&buffer);
  int64_t values[] = {1, 2, skips, 3};
  XLA_FFI_ByteSpan names[] = {{"skip", 4}, {"start", 5}, {"skips", 5}, {"threads", 7}};
  XLA_FFI_Scalar scalars[4];
  XLA_FFI_ByteSpan* named[4];
  void* attributes[4];
  for (int i = 0; i < 4; ++i) {
    scalars[i] = {XLA_FFI_DataType_S64, &values[i]};
    named[i] = &names[i];
    attributes[i] = &scalars[i];
  }
  XLA_FFI_CallFrame frame = {};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.api = &api;
  frame.ctx = &context;
  frame.stage = stage;
  frame.args = {sizeof(XLA_FFI_Args), nullptr, int64_t(in.size()), nullptr, all.data()};
  frame.rets = {sizeof(XLA_FFI_Rets), nullptr, int64_t(out.size()), nullptr, all.data() + in.size()};
  frame.attrs = {sizeof(XLA_FFI_Attrs), nullptr, 4, nullptr, named, attributes};
  puts(handler(&frame) ? "an error" : "fine");
}

void forward(const char* title, XLA_FFI_ExecutionStage stage = XLA_FFI_ExecutionStage_EXECUTE) {
  call(title, ember_gpu_fft_conv_xla_forward, {{2, 5, 4}, {3, 2}}, {{2, 4, 4}}, 0, stage);
}

void question() {
  puts("-- question");
  XLA_FFI_Metadata metadata = {};
  metadata.traits = 0;
  XLA_FFI_Metadata_Extension extension = {
      {sizeof(XLA_FFI_Metadata_Extension), XLA_FFI_Extension_Metadata, nullptr}, &metadata};
  XLA_FFI_CallFrame frame = {};
  frame.extension_start = &extension.extension_base;
  const bool fine = !ember_gpu_fft_conv_xla_forward(&frame);
  printf("%s: version %d.%d, traits %u\n", fine ? "fine" : "an error",
         metadata.api_version.major_version, metadata.api_version.minor_version, metadata.traits);
}

}  // namespace

int main() {
  forward("forward");
  call("backward with skips", ember_gpu_fft_conv_xla_backward,
       {{2, 5, 4}, {3, 2}, {2, 4, 4}, {4}}, {{2, 5, 4}, {3, 2}, {4}}, 1);
  call("leading axes", ember_gpu_fft_conv_xla_forward,
       {{2, 1, 1, 5, 4}, {1, 3, 3, 2}, {1, 1, 4}}, {{2, 3, 1, 4, 4}}, 1);
  scratch_bytes = 0;
  forward("no scratch");
  scratch_bytes = 64;
  forward("another stage", XLA_FFI_ExecutionStage_INSTANTIATE);
  for (const char* what : {"stream", "card", "scratch", "allocate", "forward", "free"}) {
    failing = what;
    forward(what);
  }
  const auto handler = ember_gpu_fft_conv_xla_forward;
  failing = "forward";
  call("the first of two entries", handler, {{2, 2, 5, 4}, {1, 3, 2}}, {{2, 2, 4, 4}}, 0);
  failing = "";
  call("too few buffers", handler, {{2, 5, 4}, {3, 2}}, {{2, 4, 4}}, 1);
  call("another width", handler, {{2, 5, 4}, {3, 2}, {3}}, {{2, 4, 4}}, 1);
  call("another batch", handler, {{2, 5, 4}, {3, 2}}, {{1, 4, 4}}, 0);
  call("other leading axes", handler, {{2, 2, 5, 4}, {3, 3, 2}}, {{2, 2, 4, 4}}, 0);
  question();
}
