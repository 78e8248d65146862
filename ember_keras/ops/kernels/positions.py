"""Dense layers over all positions at once, where that is faster: on jax, tensorflow and a CPU.

The gradient of a weight is a product that sums over rows and positions. As two axes XLA transposes
one operand first, which takes as long as the product; as one axis it does not. TensorFlow gains a
tenth where sequences are long.
"""

import math

from keras import ops

from ember_keras.ops.kernels.table import Kernel, choose, register, request


def by_positions(function, x):
    """Return ``function(x)``, of all positions as one axis where that is faster.

    Args:
        function: of a tensor that treats each position alone.
        x: tensor ``(..., D)``.
    """
    kernel = choose(request("positions", {"x": x}))
    return function(x) if kernel is None else kernel.run(function, x)


def _refuse(request):
    if len(request.shapes["x"]) < 3:
        return "the positions are one axis as they are."
    if request.device != "cpu":
        return f"{request.device} has products over several axes; it runs on cpu."
    if request.backend == "jax":
        import jax

        if jax.device_count() > 1:
            return "positions that devices share stay the axes along which they are divided."
    return None


def _run(function, x):
    shape = ops.shape(x)
    known = all(isinstance(size, int) for size in shape[:-1])
    y = function(ops.reshape(x, (math.prod(shape[:-1]) if known else -1, shape[-1])))
    return ops.reshape(y, (*shape[:-1], y.shape[-1]))


register(
    Kernel(
        "flat_positions",
        "positions",
        ("jax", "tensorflow"),
        _refuse,
        _run,
        "dense layers over all positions as one axis on a CPU.",
    )
)
