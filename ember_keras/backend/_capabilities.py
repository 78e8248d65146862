"""What each backend can do: a table that the tests prove entry by entry."""

import dataclasses

from ember_keras.config import environment


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What a backend can do under Keras with its default settings.

    Args:
        trains: bool. `fit` works.
        float64: bool. A tensor asked for as float64 keeps and computes in full precision in every
            op. Keras 3.15 promotes float64 to float32 under all backends but tensorflow
            (`BIT64_TO_BIT32_DTYPE` of its `common/dtypes.py`): under numpy in nearly all ops, under
            torch in `matmul`, `cumsum` and `maximum` among others, under jax with
            ``jax_enable_x64`` in `tanh` and `sin`; mlx has single precision exponentials besides.
        complex: bool. Complex tensors work, and gradients pass through them where it trains.
        dynamic_shapes: bool. One compiled function serves every length of an axis; where False,
            each new shape compiles once.
        custom_gradients: bool. `keras.ops.custom_gradient` replaces the gradient.
        distribution: bool. `keras.distribution` shards over devices.
    """

    trains: bool
    float64: bool
    complex: bool
    dynamic_shapes: bool
    custom_gradients: bool
    distribution: bool


TABLE = {
    "numpy": Capabilities(
        trains=False,
        float64=False,
        complex=True,
        dynamic_shapes=True,
        custom_gradients=False,
        distribution=False,
    ),
    "torch": Capabilities(
        trains=True,
        float64=False,
        complex=True,
        dynamic_shapes=True,
        custom_gradients=True,
        distribution=False,
    ),
    "jax": Capabilities(
        trains=True,
        float64=False,
        complex=True,
        dynamic_shapes=False,
        custom_gradients=True,
        distribution=True,
    ),
    "tensorflow": Capabilities(
        trains=True,
        float64=True,
        complex=True,
        dynamic_shapes=True,
        custom_gradients=True,
        distribution=False,
    ),
    "mlx": Capabilities(
        trains=True,
        float64=False,
        complex=True,
        dynamic_shapes=False,
        custom_gradients=True,
        distribution=False,
    ),
}
"""Backend -> its capabilities, as they are when nothing is configured."""


def capabilities(backend=None):
    """Return the `Capabilities` of a backend.

    Args:
        backend: string, one of the five names; the running backend when omitted.
    """
    from ember_keras.backend import name

    backend = name() if backend is None else backend
    if backend not in TABLE:
        raise ValueError(
            f"Unknown backend. Received {backend!r}; expected one of {', '.join(TABLE)}."
            f"{environment.nearest(backend, TABLE)}"
        )
    return TABLE[backend]


def require_float64(what):
    """Raise `ValueError` where the backend that runs computes parts of float64 in float32.

    Args:
        what: string, what was received, such as ``"`LRU` received dtype='float64'"``.
    """
    from ember_keras.backend import name

    if not capabilities().float64:
        able = ", ".join(backend for backend, entry in TABLE.items() if entry.float64)
        raise ValueError(
            f"{what} under the {name()} backend, where Keras computes parts of float64 in float32 "
            f"and half the digits are lost; expected float32 or narrower. Use float32, or set "
            f"KERAS_BACKEND to a backend that has float64 ({able}) before Python starts."
        )
