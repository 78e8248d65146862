// Compares the structures of ember_keras/cuda/xla.h with those of XLA's own header.
#pragma once

#include <cstddef>

#include "xla.h"
#include "xla/ffi/api/c_api.h"

#define SAME_SIZE(ours, theirs) \
  static_assert(sizeof(ember::xla::ours) == sizeof(theirs), #ours " is not " #theirs)
#define SAME(ours, field, theirs, their)                                         \
  static_assert(offsetof(ember::xla::ours, field) == offsetof(theirs, their) &&  \
                    sizeof(ember::xla::ours::field) == sizeof(theirs::their),    \
                #ours "::" #field " is not " #theirs "::" #their)

SAME_SIZE(Extension, XLA_FFI_Extension_Base);
SAME(Extension, type, XLA_FFI_Extension_Base, type);
SAME(Extension, next, XLA_FFI_Extension_Base, next);
static_assert(ember::xla::kMetadata == XLA_FFI_Extension_Metadata, "");

SAME_SIZE(Version, XLA_FFI_Api_Version);
SAME(Version, extension, XLA_FFI_Api_Version, extension_start);
SAME(Version, major, XLA_FFI_Api_Version, major_version);
SAME(Version, minor, XLA_FFI_Api_Version, minor_version);
SAME(Metadata, version, XLA_FFI_Metadata, api_version);
SAME_SIZE(MetadataExtension, XLA_FFI_Metadata_Extension);
SAME(MetadataExtension, metadata, XLA_FFI_Metadata_Extension, metadata);

SAME_SIZE(ErrorArguments, XLA_FFI_Error_Create_Args);
SAME(ErrorArguments, message, XLA_FFI_Error_Create_Args, message);
SAME(ErrorArguments, code, XLA_FFI_Error_Create_Args, errc);
static_assert(ember::xla::kInvalidArgument == XLA_FFI_Error_Code_INVALID_ARGUMENT, "");
static_assert(ember::xla::kInternal == XLA_FFI_Error_Code_INTERNAL, "");

SAME_SIZE(StreamArguments, XLA_FFI_Stream_Get_Args);
SAME(StreamArguments, context, XLA_FFI_Stream_Get_Args, ctx);
SAME(StreamArguments, stream, XLA_FFI_Stream_Get_Args, stream);
SAME_SIZE(AllocateArguments, XLA_FFI_DeviceMemory_Allocate_Args);
SAME(AllocateArguments, context, XLA_FFI_DeviceMemory_Allocate_Args, ctx);
SAME(AllocateArguments, size, XLA_FFI_DeviceMemory_Allocate_Args, size);
SAME(AllocateArguments, alignment, XLA_FFI_DeviceMemory_Allocate_Args, alignment);
SAME(AllocateArguments, data, XLA_FFI_DeviceMemory_Allocate_Args, data);
SAME_SIZE(FreeArguments, XLA_FFI_DeviceMemory_Free_Args);
SAME(FreeArguments, context, XLA_FFI_DeviceMemory_Free_Args, ctx);
SAME(FreeArguments, size, XLA_FFI_DeviceMemory_Free_Args, size);
SAME(FreeArguments, data, XLA_FFI_DeviceMemory_Free_Args, data);

SAME(Api, version, XLA_FFI_Api, api_version);
SAME(Api, internal, XLA_FFI_Api, internal_api);
SAME(Api, make_error, XLA_FFI_Api, XLA_FFI_Error_Create);
SAME(Api, error_message, XLA_FFI_Api, XLA_FFI_Error_GetMessage);
SAME(Api, destroy_error, XLA_FFI_Api, XLA_FFI_Error_Destroy);
SAME(Api, register_handler, XLA_FFI_Api, XLA_FFI_Handler_Register);
SAME(Api, get_stream, XLA_FFI_Api, XLA_FFI_Stream_Get);
SAME(Api, register_type, XLA_FFI_Api, XLA_FFI_Type_Register);
SAME(Api, get_context, XLA_FFI_Api, XLA_FFI_ExecutionContext_Get);
SAME(Api, set_state, XLA_FFI_Api, XLA_FFI_State_Set);
SAME(Api, get_state, XLA_FFI_Api, XLA_FFI_State_Get);
SAME(Api, allocate, XLA_FFI_Api, XLA_FFI_DeviceMemory_Allocate);
SAME(Api, free, XLA_FFI_Api, XLA_FFI_DeviceMemory_Free);

SAME_SIZE(Buffer, XLA_FFI_Buffer);
SAME(Buffer, type, XLA_FFI_Buffer, dtype);
SAME(Buffer, data, XLA_FFI_Buffer, data);
SAME(Buffer, rank, XLA_FFI_Buffer, rank);
SAME(Buffer, sizes, XLA_FFI_Buffer, dims);
SAME_SIZE(Buffers, XLA_FFI_Args);
SAME(Buffers, count, XLA_FFI_Args, size);
SAME(Buffers, types, XLA_FFI_Args, types);
SAME(Buffers, all, XLA_FFI_Args, args);
SAME_SIZE(Buffers, XLA_FFI_Rets);
SAME(Buffers, count, XLA_FFI_Rets, size);
SAME(Buffers, types, XLA_FFI_Rets, types);
SAME(Buffers, all, XLA_FFI_Rets, rets);
SAME_SIZE(Text, XLA_FFI_ByteSpan);
SAME(Text, data, XLA_FFI_ByteSpan, ptr);
SAME(Text, size, XLA_FFI_ByteSpan, len);
SAME_SIZE(Scalar, XLA_FFI_Scalar);
SAME(Scalar, type, XLA_FFI_Scalar, dtype);
SAME(Scalar, value, XLA_FFI_Scalar, value);
SAME_SIZE(Attributes, XLA_FFI_Attrs);
SAME(Attributes, count, XLA_FFI_Attrs, size);
SAME(Attributes, types, XLA_FFI_Attrs, types);
SAME(Attributes, names, XLA_FFI_Attrs, names);
SAME(Attributes, all, XLA_FFI_Attrs, attrs);
SAME(Frame, api, XLA_FFI_CallFrame, api);
SAME(Frame, context, XLA_FFI_CallFrame, ctx);
SAME(Frame, stage, XLA_FFI_CallFrame, stage);
SAME(Frame, arguments, XLA_FFI_CallFrame, args);
SAME(Frame, results, XLA_FFI_CallFrame, rets);
SAME(Frame, attributes, XLA_FFI_CallFrame, attrs);
static_assert(ember::xla::kExecute == XLA_FFI_ExecutionStage_EXECUTE, "");
