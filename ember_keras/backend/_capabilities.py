"""What each backend can do: a table that the tests prove entry by entry."""

import dataclasses
import sys

from ember_keras.config import environment


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What a backend can do under Keras with its default settings.

    Args:
        trains: bool. `fit` works.
        float64: bool. A tensor asked for as float64 keeps and computes in full precision. Under
            numpy Keras casts it to float32 in the next op; mlx has single precision exponentials.
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
        float64=True,
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

    One entry depends on the process and is looked up where jax runs here: it computes in float64
    once ``jax_enable_x64`` is set.

    Args:
        backend: string, one of the five names; the running backend when omitted.
    """
    from ember_keras.backend import name

    running = name()
    backend = running if backend is None else backend
    if backend not in TABLE:
        raise ValueError(
            f"Unknown backend. Received {backend!r}; expected one of {', '.join(TABLE)}."
            f"{environment.nearest(backend, TABLE)}"
        )
    entry = TABLE[backend]
    if backend == running == "jax" and "jax" in sys.modules:
        return dataclasses.replace(entry, float64=bool(sys.modules["jax"].config.jax_enable_x64))
    return entry
