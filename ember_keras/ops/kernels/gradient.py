"""One way to give a function its own gradient on every backend.

`keras.ops.custom_gradient` passes through on mlx and does not compile on torch; this does both.
"""

import keras

from ember_keras import backend
from ember_keras.ops.kernels.shards import varying_alike


def with_gradient(forward, backward, saved=(), keep_output=False):
    """Return a function of tensors that computes `forward` and differentiates with `backward`.

    Both are written in `keras.ops` and hold no tensor in a closure: every tensor is an input or a
    residual, so that the two can be traced apart.

    Args:
        forward: function of tensors that returns ``(output, residuals)``: one tensor or a tuple of
            them, and a tuple of tensors that are neither inputs nor outputs.
        backward: function of ``(inputs, residuals, cotangent)`` that returns a tuple with one
            entry an input: the gradient in the input's dtype, or None for an integer input.
            `inputs` holds the inputs at the positions `saved`, in that order; `cotangent` is
            built like the output.
        saved: tuple of int, positions of the inputs that `backward` needs.
        keep_output: bool. Whether the outputs stand before the residuals that `backward` gets.

    Returns:
        A function of the same tensors that returns `output`.

    Example:

    >>> from keras import ops
    >>> square = with_gradient(
    ...     lambda x: (x * x, ()), lambda inputs, _, g: (2.0 * inputs[0] * g,), saved=(0,)
    ... )
    >>> float(square(ops.convert_to_tensor(3.0)))
    9.0
    """

    def run(*tensors):
        tensors = [keras.ops.convert_to_tensor(tensor) for tensor in tensors]
        if any(isinstance(tensor, keras.KerasTensor) for tensor in tensors):
            return forward(*tensors)[0]
        return _FORMS[backend.name()](forward, backward, tuple(saved), keep_output, tensors)

    return run


def is_differentiated_again():
    """Return whether a backward pass under torch is recorded for a gradient of its own.

    Residuals are constants there: what the gradient depends on through them is made anew.
    """
    if backend.name() != "torch":
        return False
    import torch

    return torch.is_grad_enabled()


def is_differentiated(tensors):
    """Return whether torch asks for a derivative with respect to any of some tensors.

    In forward mode, as under `torch.func.jvp`, no tensor says that it requires a gradient.
    """
    import torch
    from torch.autograd import forward_ad

    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return True
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def require_first_order(kernel):
    """Raise `RuntimeError` where torch asks a kernel that writes in place for a graph of its own.

    Such a kernel runs inside `with_gradient`, whose forward pass records nothing, and whose
    backward pass records only with ``create_graph=True``: what it made would be a constant there.

    Args:
        kernel: str, its name.
    """
    import torch

    if torch.is_grad_enabled():
        raise RuntimeError(
            f"Received a gradient of a gradient (create_graph=True) of the kernel {kernel}, which "
            "has first derivatives alone. Set EMBER_KERNELS=portable."
        )


def _numpy(forward, backward, saved, keep_output, tensors):
    return forward(*tensors)[0]


def _jax(forward, backward, saved, keep_output, tensors):
    import jax

    def with_residuals(*inputs):
        output, residuals = forward(*inputs)
        if keep_output:
            residuals = (*_flat(output), *residuals)
        return output, (tuple(inputs[at] for at in saved), residuals)

    function = jax.custom_vjp(lambda *inputs: forward(*inputs)[0])
    function.defvjp(with_residuals, lambda kept, cotangent: backward(*kept, cotangent))
    return function(*varying_alike(*tensors))


def _tensorflow(forward, backward, saved, keep_output, tensors):
    import tensorflow as tf

    tensors = map(tf.convert_to_tensor, tensors)  # Of a variable, what it holds.

    @tf.custom_gradient
    def function(*inputs):
        output, residuals = forward(*inputs)
        kept = tuple(inputs[at] for at in saved)
        known = (*_flat(output), *residuals) if keep_output else residuals

        def gradient(*cotangents):
            cotangent = cotangents if isinstance(output, tuple) else cotangents[0]
            return backward(kept, known, cotangent)

        return output, gradient

    return function(*tensors)


def _mlx(forward, backward, saved, keep_output, tensors):
    import mlx.core as mx

    # mlx hands no residuals to the backward pass: they are outputs here.
    counts = []

    @mx.custom_function
    def function(*inputs):
        output, residuals = forward(*inputs)
        counts.append(_count(output))
        return (*_flat(output), *residuals)

    def slopes(primals, known, cotangents):
        kept = tuple(primals[at] for at in saved)
        found = backward(kept, known, _pack(cotangents, counts[0]))
        return tuple(
            mx.zeros_like(primal) if gradient is None else gradient
            for primal, gradient in zip(primals, found, strict=True)
        )

    @function.vjp
    def function_vjp(primals, cotangents, outputs):
        count = counts[0] or 1
        known = tuple(outputs if keep_output else outputs[count:])
        sizes = len(primals), len(primals) + len(known)

        def parts(given):
            return given[: sizes[0]], given[sizes[0] : sizes[1]], given[sizes[1] :]

        @mx.custom_function
        def gradients(*given):
            return slopes(*parts(given))

        # A gradient of these gradients goes through the residuals too, which are made anew for it.
        @gradients.vjp
        def gradients_vjp(given, upstream, _):
            primals, known, cotangents = parts(given)

            def again(*tensors):
                inputs, cotangents = tensors[: sizes[0]], tensors[sizes[0] :]
                output, residuals = forward(*inputs)
                known = (*_flat(output), *residuals) if keep_output else residuals
                return list(slopes(inputs, known, cotangents))

            found = mx.vjp(again, [*primals, *cotangents], list(upstream))[1]
            return (*found[: sizes[0]], *map(mx.zeros_like, known), *found[sizes[0] :])

        return gradients(*primals, *known, *_flat(_pack(cotangents, counts[0])))

    return _pack(function(*tensors), counts[0])


def _torch(forward, backward, saved, keep_output, tensors):
    import torch

    # torch.compile takes an autograd function apart only where a gradient is wanted.
    if torch.compiler.is_compiling() and not is_differentiated(tensors):
        return forward(*tensors)[0]
    call = _Call(forward, backward, saved, keep_output)
    return _pack(_TORCH.apply(call, *tensors), call.count)


class _Call:
    """What torch hands on whole: torch.func would copy a list, and lose what was put into it."""

    def __init__(self, forward, backward, saved, keep_output):
        self.forward, self.backward = forward, backward
        self.saved, self.keep_output, self.count = saved, keep_output, None


def _count(output):
    """The length of a tuple of outputs, or None for a single one."""
    return len(output) if isinstance(output, tuple) else None


def _flat(output):
    return output if isinstance(output, tuple) else (output,)


def _pack(values, count):
    return values[0] if count is None else tuple(values[:count])


def _torch_function():
    import torch

    class WithGradient(torch.autograd.Function):
        """`forward` and `backward` as an autograd function; residuals ride as outputs."""

        generate_vmap_rule = True

        @staticmethod
        def forward(call, *tensors):
            output, residuals = call.forward(*tensors)
            call.count = _count(output)
            return (*_flat(output), *residuals)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.call, *tensors = inputs
            residuals = output[ctx.call.count or 1 :]
            ctx.mark_non_differentiable(*residuals)
            ctx.set_materialize_grads(False)  # Zeros for residuals would be large and unread.
            ctx.like = [(x.shape, x.dtype, x.device) for x in output[: ctx.call.count or 1]]
            kept = output if ctx.call.keep_output else residuals
            ctx.save_for_backward(*(tensors[at] for at in ctx.call.saved), *kept)

        @staticmethod
        def backward(ctx, *cotangents):
            call, count = ctx.call, len(ctx.call.saved)
            cotangents = [
                torch.zeros(shape, dtype=dtype, device=device) if given is None else given
                for given, (shape, dtype, device) in zip(cotangents, ctx.like, strict=False)
            ]
            saved = ctx.saved_tensors  # Read once: torch's checkpoint refuses a second time.
            inputs, residuals = saved[:count], saved[count:]
            return None, *call.backward(inputs, residuals, _pack(cotangents, call.count))

    return WithGradient


_FORMS = {
    "numpy": _numpy,
    "jax": _jax,
    "tensorflow": _tensorflow,
    "mlx": _mlx,
    "torch": _torch,
}
# torch.compile cannot trace the making of a class, so it is made here.
_TORCH = _torch_function() if backend.name() == "torch" else None
