// The part of XLA's foreign function interface that the kernels use.
//
// XLA hands a handler one pointer to a frame of plain structures: buffers in, buffers out, and
// attributes. Its binary interface (version 0) only ever grows at the end, and each structure tells
// its size. The part of it that is used is declared here, so that building the kernels needs no
// other package; a test compares it with XLA's own header.
#pragma once

#include <cstdint>
#include <cstring>

namespace ember {
namespace xla {

struct Extension {
  size_t bytes;
  int type;
  Extension* next;
};

constexpr int kMetadata = 1;

struct Version {
  size_t bytes;
  Extension* extension;
  int major, minor;
};

struct Metadata {
  size_t bytes;
  Version version;
};

struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

struct ErrorArguments {
  size_t bytes;
  Extension* extension;
  const char* message;
  int code;
};

struct StreamArguments {
  size_t bytes;
  Extension* extension;
  void* context;
  void* stream;  // out
};

struct AllocateArguments {
  size_t bytes;
  Extension* extension;
  void* context;
  size_t size, alignment;
  void* data;  // out
};

struct FreeArguments {
  size_t bytes;
  Extension* extension;
  void* context;
  size_t size;
  void* data;
};

constexpr int kInvalidArgument = 3;
constexpr int kInternal = 13;
constexpr int kExecute = 3;

// Each function but the first returns null or an error, which is the caller's.
struct Api {
  size_t bytes;
  Extension* extension;
  Version version;
  const void* internal;
  void* (*make_error)(ErrorArguments*);
  void (*error_message)(void*);
  void (*destroy_error)(void*);
  void* (*register_handler)(void*);
  void* (*get_stream)(StreamArguments*);
  void* (*register_type)(void*);
  void* (*get_context)(void*);
  void* (*set_state)(void*);
  void* (*get_state)(void*);
  void* (*allocate)(AllocateArguments*);
  void* (*free)(FreeArguments*);
};

struct Buffer {
  size_t bytes;
  Extension* extension;
  int type;
  void* data;
  int64_t rank;
  int64_t* sizes;
};

struct Buffers {
  size_t bytes;
  Extension* extension;
  int64_t count;
  int* types;
  void** all;

  const Buffer& operator[](int64_t i) const { return *static_cast<Buffer*>(all[i]); }
};

struct Text {
  const char* data;
  size_t size;
};

struct Scalar {
  int type;
  void* value;
};

struct Attributes {
  size_t bytes;
  Extension* extension;
  int64_t count;
  int* types;
  Text** names;
  void** all;

  int64_t number(const char* name) const {
    for (int64_t i = 0; i < count; ++i) {
      if (names[i]->size == strlen(name) && !memcmp(names[i]->data, name, names[i]->size)) {
        return *static_cast<int64_t*>(static_cast<Scalar*>(all[i])->value);
      }
    }
    return 0;
  }
};

struct Frame {
  size_t bytes;
  Extension* extension;
  const Api* api;
  void* context;
  int stage;
  Buffers arguments, results;
  Attributes attributes;
};

}  // namespace xla
}  // namespace ember
