"""The kernel table: what may run in place of an engine's portable form, and why it would not.

`EMBER_KERNELS` chooses: ``auto`` takes the first kernel that does not refuse, ``portable`` takes
none, and a kernel's name takes that one or raises the reason for which it refuses.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from ember_keras import backend
from ember_keras.config import environment
from ember_keras.ops.counting import is_counting

PORTABLE = "portable"
"""The name of every engine's form in `keras.ops`, which never refuses."""

SYMBOLIC = "symbolic"
"""The device of a `KerasTensor`, which only the portable form can compute with."""

TYPICAL = {
    "attention": {
        "q": (8, 1024, 4, 64),
        "k": (8, 1024, 4, 64),
        "v": (8, 1024, 4, 64),
        "causal": True,
        "window": None,
        "masked": False,
    },
    "fft_conv": {"u": (8, 1024, 256), "k": (1024, 256), "start": 0, "length": 1024},
    "grouped_matmul": {"x": (16384, 256), "w": (64, 256, 512)},
    "gated_experts": {
        "x": (8192, 256),
        "gate_up": (64, 256, 1024),
        "gate": "swiglu",
        "biased": False,
        "dropped": False,
    },
    "gated_linear_attention": {
        "q": (8, 1024, 8, 64),
        "v": (8, 1024, 8, 64),
        "log_decay": (8, 1024, 8),
        "size": 64,
    },
    "linear_recurrence": {"b": (8, 1024, 256), "a": (8, 1024, 256), "complex": False},
    "selective_scan": {"x": (8, 1024, 512), "a": (512, 16)},
    "nonlinear_scan": {"x": (1024, 8, 256), "cell": None, "recompute": False},
    "head_norm": {"x": (8, 1024, 8, 64)},
    "synapses": {"v": (8, 64), "slope": (64, 64)},
    "rows": {"x": (8, 1024, 256)},
    "positions": {"x": (8, 1024, 256)},
}
"""The engines, and parts of layers, with a place for kernels, and the call that `explain` supposes
where not told."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A call of an engine, as far as a kernel needs it to decide whether it can run.

    Attributes:
        engine: str.
        backend: str.
        device: str, such as ``"cpu"``, ``"cuda"``, ``"gpu"``, as `backend.device_kind` says.
        dtype: str.
        shapes: dict from argument name to shape.
        options: dict of the engine's other arguments.
    """

    engine: str
    backend: str
    device: str
    dtype: str
    shapes: dict[str, tuple]
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A fast implementation of an engine for some backends.

    Attributes:
        name: str, unique in the table.
        engine: str.
        backends: tuple of str.
        refuse: function of a `Request` that returns None, or the reason as a sentence.
        run: function of the engine's tensors and options; `docs/engines.md` has its signature.
        about: str, one line.
        fuses: tuple of str, the options that `run` takes and that other kernels leave to the
            engine.
    """

    name: str
    engine: str
    backends: tuple[str, ...]
    refuse: Callable[[Request], str | None]
    run: Callable[..., Any]
    about: str = ""
    fuses: tuple[str, ...] = ()


class Row(NamedTuple):
    """One line of `explain`."""

    kernel: str
    runs: bool
    reason: str


_KERNELS: dict[str, Kernel] = {}


def register(kernel, first=False):
    """Add a `Kernel` to the table.

    Args:
        kernel: `Kernel`.
        first: bool. Whether ``auto`` asks it before those that were registered earlier.
    """
    taken = {*_KERNELS, PORTABLE, "auto"}
    if kernel.name in taken:
        raise ValueError(
            f"Received a kernel named {kernel.name!r}, which is taken; expected a name other than "
            f"{', '.join(sorted(taken))}. Rename it."
        )
    if kernel.engine not in TYPICAL:
        raise ValueError(
            f"Received a kernel for the engine {kernel.engine!r}; expected one of "
            f"{', '.join(TYPICAL)}.{environment.nearest(kernel.engine, TYPICAL)} Correct it."
        )
    others = dict(_KERNELS)
    if first:
        _KERNELS.clear()
    _KERNELS[kernel.name] = kernel
    _KERNELS.update(others)
    return kernel


def kernels(engine=None):
    """Return the kernels of one engine, or all, in the order in which they are asked."""
    return [each for each in _KERNELS.values() if engine in (None, each.engine)]


def setting():
    """Return ``EMBER_KERNELS``, refused where it names nothing."""
    name = environment.kernels()
    valid = ("auto", PORTABLE, *_KERNELS)
    if name not in valid:
        raise ValueError(
            f"Received EMBER_KERNELS={name}; expected one of {', '.join(valid)}."
            f"{environment.nearest(name, valid)} Correct it or unset it."
        )
    return name


def refusal(kernel, request):
    """Return None where `kernel` can run `request`, else the reason."""
    if request.backend not in kernel.backends:
        return (
            f"{kernel.name} runs on {', '.join(kernel.backends)}, and the backend is "
            f"{request.backend}."
        )
    return kernel.refuse(request)


def choose(request):
    """Return the `Kernel` for a `Request`, or None for the portable form.

    Raises:
        ValueError: a kernel of this engine was asked for by name and refuses.
    """
    name = setting()
    if name == PORTABLE or request.device == SYMBOLIC or is_counting():
        return None
    if name != "auto" and _KERNELS[name].engine == request.engine:
        reason = refusal(_KERNELS[name], request)
        if reason is not None:
            raise ValueError(
                f"EMBER_KERNELS={name} was asked for and cannot run here: {reason} "
                "Set EMBER_KERNELS=auto or portable, or change the call."
            )
        return _KERNELS[name]
    for kernel in kernels(request.engine):
        if refusal(kernel, request) is None:
            return kernel
    return None


def request(engine, tensors, **options):
    """Return the `Request` of a call with a dict of tensors."""
    first = next(iter(tensors.values()))
    return Request(
        engine,
        backend.name(),
        device_of(first),
        keras.backend.standardize_dtype(first.dtype),
        {name: tuple(x.shape) for name, x in tensors.items()},
        options,
    )


def device_of(x):
    """Return the kind of device a tensor is on, or would be where it is traced."""
    if isinstance(x, keras.KerasTensor):
        return SYMBOLIC
    return backend.device_kind(x)


def explain(engine, *, device=None, dtype=None, **call):
    """Return which kernel an engine would run and why the others would not.

    Args:
        engine: str, such as ``"attention"`` or ``"fft_conv"``.
        device: str or None; None is the default device.
        dtype: str or None; None is `keras.config.floatx()`.
        **call: shapes by argument name, as tuples, and options; a typical call where omitted.

    Returns:
        list of rows ``(kernel, runs, reason)``, the portable form last. One row runs.

    Example:

    >>> rows = explain("fft_conv", u=(8, 1024, 256), k=(1024, 256))
    >>> rows[-1].kernel
    'portable'
    """
    if engine not in TYPICAL:
        raise ValueError(
            f"Received the engine {engine!r}; expected one of {', '.join(TYPICAL)}."
            f"{environment.nearest(engine, TYPICAL)} Correct the name."
        )
    unknown = sorted(set(call) - set(TYPICAL[engine]))
    if unknown:
        raise ValueError(
            f"Received {', '.join(unknown)} for {engine}; expected some of "
            f"{', '.join(TYPICAL[engine])}.{environment.nearest(unknown[0], TYPICAL[engine])} "
            "Correct the name."
        )
    full = {**TYPICAL[engine], **call}
    asked = Request(
        engine,
        backend.name(),
        device or backend.device_kind(),
        dtype or keras.config.floatx(),
        {name: value for name, value in full.items() if isinstance(value, tuple)},
        {name: value for name, value in full.items() if not isinstance(value, tuple)},
    )
    name = setting()
    others = (*(each.name for each in kernels(engine)), PORTABLE)
    only = name if name in others else None
    rows, running = [], None
    for kernel in kernels(engine):
        reason = refusal(kernel, asked)
        if only not in (None, kernel.name):
            reason = f"EMBER_KERNELS={only} leaves it out."
        elif reason is None and running is not None:
            reason = f"{running} comes first."
        if reason is None:
            running = kernel.name
        rows.append(Row(kernel.name, reason is None, reason or kernel.about))
    if running is not None:
        rows.append(Row(PORTABLE, False, f"{running} comes first."))
    elif only not in (None, PORTABLE):
        rows.append(Row(PORTABLE, False, f"EMBER_KERNELS={only} leaves it out."))
    else:
        rows.append(Row(PORTABLE, True, "The form in keras.ops, on any backend and device."))
    return rows
