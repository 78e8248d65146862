"""What the synapses of a liquid neuron add up to: a sigmoid for each pair of neurons.

On a CPU, XLA makes slow code of a product and a sum, and computes a slope again for each of its
uses: its kernel takes sums as products of matrices, and makes the slope once.
"""

from keras import ops

from ember_keras.ops import counting
from ember_keras.ops.kernels.gradient import with_gradient
from ember_keras.ops.kernels.table import Kernel, choose, register, request


@counting.counted(counting.synapses)
def synapses(v, slope, offset, weights):
    """Return, for each of the weights, ``sum_n sigmoid(v_n slope_nm - offset_nm) weight_nm``.

    Args:
        v: tensor ``(B, N)``.
        slope: tensor ``(N, M)``; offset alike.
        offset: tensor.
        weights: tuple of tensors ``(N, M)``.

    Returns:
        tuple of tensors ``(B, M)``.
    """
    kernel = choose(request("synapses", {"v": v, "slope": slope}))
    form = portable if kernel is None else kernel.run
    return form(v, slope, offset, *weights)


def portable(v, slope, offset, *weights):
    """`synapses` in `keras.ops`."""
    opened = _opened(v, slope, offset)
    return tuple(ops.sum(opened * weight, axis=1) for weight in weights)


def _refuse(request):
    if request.device != "cpu":
        return f"it was written for a CPU, and not measured on {request.device}."
    return None


def _run(v, slope, offset, *weights):
    saved = range(3 + len(weights))
    return with_gradient(_forward, _backward, saved)(v, slope, offset, *weights)


def _opened(v, slope, offset):
    return ops.sigmoid(ops.expand_dims(v, -1) * slope - offset)


def _forward(v, slope, offset, *weights):
    opened = _opened(v, slope, offset)
    return tuple(ops.einsum("bnm,nm->bm", opened, weight) for weight in weights), (opened,)


def _backward(inputs, residuals, slopes):
    import jax

    v, slope, _, *weights = inputs
    (opened,) = residuals
    pairs = zip(slopes, weights, strict=True)
    down = sum(ops.expand_dims(each, 1) * weight for each, weight in pairs)
    down = jax.lax.optimization_barrier(down * opened * (1 - opened))
    return (
        ops.einsum("bnm,nm->bn", down, slope),
        ops.einsum("bnm,bn->nm", down, v),
        -ops.sum(down, axis=0),
        *(ops.einsum("bnm,bm->nm", opened, each) for each in slopes),
    )


register(
    Kernel(
        "jax_synapses",
        "synapses",
        ("jax",),
        _refuse,
        _run,
        "sums as products of matrices, and the slope of a synapse made once for all its uses.",
    )
)
