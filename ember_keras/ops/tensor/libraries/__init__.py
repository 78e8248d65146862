"""What each array library can hand over, and how: one module a library, the same names in each.

A module is imported only when a tensor of its library is met or asked for, so this package never
imports a library that the program does not use. Every module has:

- `to_numpy(x)`: a numpy array of the values, sharing memory where the library can.
- `from_numpy(array)`: a tensor of this library, sharing memory where the library can.
- `from_dlpack(x)`: a tensor of this library that shares the memory of a DLPack exporter.
- `compact(x)`: `x` with its elements in memory without gaps, as most importers need them.
- `to_dlpack(x, **options)`: the DLPack capsule of `x`.
- `dlpack_device(x)`: the DLPack device pair `(type, index)` of `x`.
- `device(x)` and `to_device(x, device)`: the device's name, and a move to another.
- `gradient_risk(x)`: why taking the values of `x` out of this library would lose a gradient or is
  impossible, as the end of a sentence that starts with "it"; `None` where nothing is lost.
- `missing_dtype(name)`: why a dtype cannot be had, as such a sentence end, or `None`.
"""

import importlib

LIBRARIES = ("numpy", "torch", "jax", "tensorflow", "mlx")

_modules: dict = {}

_ROOTS = {
    "numpy": "numpy",
    "torch": "torch",
    "jax": "jax",
    "jaxlib": "jax",
    "tensorflow": "tensorflow",
    "mlx": "mlx",
}


def library(name):
    """The module that serves the library called `name` (one of `LIBRARIES`)."""
    if name not in LIBRARIES:
        raise ValueError(
            f"Received library={name!r}. Expected one of {', '.join(LIBRARIES)}. "
            "Name the library whose tensor you want, for example `x.to('torch')`."
        )
    if name in _modules:  # No import while TensorFlow's AutoGraph reads along.
        return _modules[name]
    try:
        _modules[name] = importlib.import_module(f"{__name__}.{name}_")
        return _modules[name]
    except ModuleNotFoundError as error:
        if error.name is None or _ROOTS.get(error.name.split(".")[0]) != name:
            raise
        raise ValueError(
            f"Received library={name!r}, which is not installed. "
            f"Install it with `pip install 'ember-keras[{name}]'`."
        ) from error


def library_of(x):
    """The name of the library whose tensor `x` is, or `None` for anything else.

    Only looks at class names, so that it imports nothing.
    """
    for parent in type(x).__mro__:
        root = _ROOTS.get(parent.__module__.split(".")[0])
        if root is not None:
            return root
    return None


def refuse_gradient_loss(x, what):
    """Raises `ValueError` where `what` would cost `x` its gradient, or cannot be done at all."""
    name = library_of(x)
    reason = None if name is None else library(name).gradient_risk(x)
    if reason is not None:
        raise ValueError(
            f"Received a tensor of shape {tuple(x.shape)} for {what}, but it {reason}. "
            "Expected a tensor with concrete values and no gradient to lose. "
            "Call `.detach()` (or `ember_keras.ops.stop_gradient`) first if the gradient is not "
            "wanted, or stay inside the library: `ember_keras.ops` and `.value` keep the gradient."
        )


def convert(x, target):
    """Hands the library tensor `x` over to the library `target`, sharing memory where possible.

    Args:
        x: A tensor of any of `LIBRARIES`, of any shape.
        target: The name of the library to hand it to.

    Returns:
        A tensor of the library `target` with the shape and dtype of `x`.
    """
    source = library_of(x)
    destination = library(target)
    if source == target:
        return x
    refuse_gradient_loss(x, f"a conversion from {source} to {target}")
    if target == "numpy":
        return library(source).to_numpy(x)
    if source == "numpy":
        return destination.from_numpy(x)
    if "mlx" in (source, target):  # MLX exports only unversioned capsules, and imports none.
        return destination.from_numpy(library(source).to_numpy(x))
    return destination.from_dlpack(library(source).compact(x))
