"""Registers the kernel's handlers in the XLA that another package brings with it.

XLA gives its interface to handlers as one structure of functions, `XLA_FFI_Api`, whose layout only
grows at the end within a major version. What is used of it here is declared below.
"""

import ctypes

PLATFORM = b"Host"
"""What XLA calls the processor."""

MAJOR = 0
"""The version of the interface that `xla.cpp` and the structures below are written for."""

_ENTRY = "_ZN3xla3ffi12GetXlaFfiApiEv"  # const XLA_FFI_Api* xla::ffi::GetXlaFfiApi()


class _Api(ctypes.Structure):
    _fields_ = [
        *(("bytes", ctypes.c_size_t), ("extension", ctypes.c_void_p)),
        *(("version_bytes", ctypes.c_size_t), ("version_extension", ctypes.c_void_p)),
        *((name, ctypes.c_int) for name in ("major", "minor")),
        *((name, ctypes.c_void_p) for name in ("internal", "make_error", "message")),
        *((name, ctypes.c_void_p) for name in ("free_error", "register")),
    ]


class _Handler(ctypes.Structure):
    _fields_ = [
        *(("bytes", ctypes.c_size_t), ("extension", ctypes.c_void_p)),
        *(("name", ctypes.c_char_p), ("name_size", ctypes.c_size_t)),
        *(("platform", ctypes.c_char_p), ("platform_size", ctypes.c_size_t)),
        *(
            (stage, ctypes.c_void_p)
            for stage in ("instantiate", "prepare", "initialize", "execute")
        ),
        ("traits", ctypes.c_uint32),
    ]


class _Error(ctypes.Structure):
    _fields_ = [
        *(("bytes", ctypes.c_size_t), ("extension", ctypes.c_void_p)),
        *(("error", ctypes.c_void_p), ("message", ctypes.c_char_p)),
    ]


def register(path, handlers):
    """Register handlers for the processor in the XLA of a shared library.

    Args:
        path: path of the shared library that holds XLA.
        handlers: dict from the name of a custom call to a handler of `library.Library`.

    Returns:
        None, or the reason in a sentence where they can't be registered.
    """
    try:
        entry = getattr(ctypes.CDLL(str(path)), _ENTRY)
    except (OSError, AttributeError) as error:
        return f"its XLA takes no handlers: {error}."
    entry.restype = ctypes.c_void_p
    api = _Api.from_address(entry())
    if api.major != MAJOR or api.bytes < ctypes.sizeof(_Api):
        return (
            f"its XLA has version {api.major}.{api.minor} of the interface to handlers, and the "
            f"kernel is written for version {MAJOR}."
        )
    add = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Handler))(api.register)
    for name, function in handlers.items():
        handler = _Handler(ctypes.sizeof(_Handler), None, name.encode(), len(name))
        handler.platform, handler.platform_size = PLATFORM, len(PLATFORM)
        handler.execute = ctypes.cast(function, ctypes.c_void_p)
        refused = add(handler)
        if refused is not None:
            return f"its XLA refused the handler {name}: {_said(api, refused)}"
    return None


def _said(api, error):
    """Return the text of an error, and free it."""
    arguments = _Error(ctypes.sizeof(_Error), None, error)
    call = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Error))
    call(api.message)(arguments)
    text = arguments.message.decode()
    call(api.free_error)(arguments)
    return text
