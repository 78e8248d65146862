"""Which backend runs, what it can do, MLX on stock Keras, and what `keras.ops` lacks.

`activate` is the first thing `import ember_keras` calls. The functions named in `FUNCTIONS` have
the same signature on every backend and are looked up in the module of the backend that runs:

| function | what it gives |
| --- | --- |
| `to_numpy(x)` | a numpy array with the values of a tensor or variable |
| `is_backend_tensor(x)` | True for a concrete or traced tensor of the running library |
| `is_tracing(x)` | True for a value that cannot be read now: traced, compiled, or symbolic |
| `value_and_grad(fn)` | a function that returns `fn`'s scalar and its gradients |
| `value_and_grad_variables(fn, variables)` | the scalar `fn()` and a gradient for each variable |
| `compile(fn, donate=())` | `fn` compiled by the library's own compiler, where one is used; \
jax may reuse the memory of the arguments at the positions `donate` |
| `no_gradients()` | a context in which nothing is recorded for a gradient |
| `recompute(layer, call, x, **options)` | what `call` gives, which is run again for the gradient |
| `to_dlpack(x)`, `from_dlpack(x)` | exchange with other libraries |
| `device_kind(x=None)` | the kind of device that a tensor is on, or a new one would be: \
``"cpu"``, ``"cuda"``, … |
| `writable(shape, dtype)` | an array of numpy to write into, and a function that makes a \
tensor of it, which takes no second copy on a CPU |
| `trace(fn, *specs)` | the shapes and dtypes of what ``fn`` gives for `KerasTensor` specs |
| `tells_memory()` | whether its compiler tells what memory a function takes |
| `compiled_memory(fn, *specs, donate=())` | the bytes that the compiler lays out for it, \
where it tells |
| `devices()` | the devices of this process, as strings such as ``"cpu:0"`` |

`pad(x, pad_width, constant_values=0)`, `each_length(model, kind)`, `has_value(variable)`,
`as_called(layer)`, `mask_of(x)`, `with_mask(x, mask)`, `replaced_loss(compiled, loss)`,
`compiled_metrics(compiled)`, `values_of(metric, y, y_pred)`,
`update_mean(metric, values, y_pred, weight)`,
`scale_start(variable, factor)`, `watch_products(seen)`, which counts, and `build_unfilled(build)`
with `fill(variable, parts=None)`, which build layers without drawing weights, are one function for
all.
"""

import importlib
import sys

from ember_keras.backend import _activation, _command
from ember_keras.backend._capabilities import Capabilities, capabilities, require_float64
from ember_keras.backend._installed import Installed, installed
from ember_keras.config import environment

FUNCTIONS = (
    "compile",
    "compiled_memory",
    "device_kind",
    "devices",
    "from_dlpack",
    "is_backend_tensor",
    "is_tracing",
    "no_gradients",
    "recompute",
    "tells_memory",
    "to_dlpack",
    "to_numpy",
    "trace",
    "value_and_grad",
    "value_and_grad_variables",
    "writable",
)
"""What every backend module offers, with the same signatures."""

_LATE = {
    "as_called": "_variables",
    "build_unfilled": "_deferred",
    "compiled_metrics": "_losses",
    "each_length": "_lengths",
    "fill": "_deferred",
    "has_value": "_variables",
    "mask_of": "_masks",
    "pad": "_padding",
    "replaced_loss": "_losses",
    "update_mean": "_losses",
    "values_of": "_losses",
    "with_mask": "_masks",
    "scale_start": "_variables",
    "watch_products": "_products",
}

__all__ = [
    "Capabilities",
    "Installed",
    "activate",
    "as_called",
    "build_unfilled",
    "capabilities",
    "compiled_metrics",
    "each_length",
    "fill",
    "has_value",
    "installed",
    "mask_of",
    "name",
    "pad",
    "replaced_loss",
    "require_float64",
    "require_training",
    "update_mean",
    "values_of",
    "with_mask",
    "scale_start",
    "watch_products",
    *FUNCTIONS,
]


def activate():
    """Check the backend and the Keras release; under mlx, graft the plug-in onto Keras.

    Called before the package imports Keras. It may be called again. Nothing is patched under any
    backend other than mlx.

    Raises:
        ValueError: the backend's name is unknown.
        SystemExit: the same in the process of the command `ember-keras`, after one line on it.
        ImportError: a package is missing, or Keras is outside the tested range, or Keras was
            imported before under mlx. The message says what to do.
    """
    command = _command.arguments()
    if command is None:
        _activation.activate()
    else:
        _command.activate(command)


def name():
    """Return the name of the backend: that of the imported Keras, else the configured one."""
    config = sys.modules.get("keras.src.backend.config")
    return config.backend() if config else environment.keras_backend()


def require_training():
    """Raise `ValueError` where the backend that runs cannot train."""
    if not capabilities().trains:
        raise ValueError(
            f"Training was asked for under the {name()} backend; the {name()} backend predicts "
            "only. Set KERAS_BACKEND=torch|jax|tensorflow|mlx before Python starts; a model that "
            "was trained and saved under one of them loads and predicts here."
        )


def __getattr__(attribute):
    if attribute in FUNCTIONS:
        module = importlib.import_module(f"ember_keras.backend._{name()}")
        function = globals()[attribute] = getattr(module, attribute)
        return function
    if attribute in _LATE:  # Their modules import Keras, which comes after `activate`.
        module = importlib.import_module(f"ember_keras.backend.{_LATE[attribute]}")
        function = globals()[attribute] = getattr(module, attribute)
        return function
    raise AttributeError(
        f"module 'ember_keras.backend' has no attribute {attribute!r}; it has "
        f"{', '.join(sorted(__all__))}.{environment.nearest(attribute, __all__)}"
    )


def __dir__():
    return sorted(__all__)
