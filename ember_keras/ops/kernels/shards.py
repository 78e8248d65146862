"""Tensors inside `jax.shard_map`, which are the same on all devices or vary among them.

A loop carries values of one kind, and a gradient that is made by a rule of its own has the kind of
its input: where one tensor varies, all have to.
"""

from keras import tree

from ember_keras import backend


def alike(nest):
    """Return a nest of tensors that vary along the same axes of `jax.shard_map`."""
    if backend.name() != "jax":
        return nest
    return tree.pack_sequence_as(nest, varying_alike(*tree.flatten(nest)))


def varying_alike(*tensors):
    """Return tensors of jax that all differ along the axes of `jax.shard_map` where one does.

    A gradient that is made by a rule of its own has the type of its input: that of one which is the
    same on all devices would have to be summed over them. Marked as different, it is, by jax.

    Args:
        *tensors: arrays or None, which stays None.
    """
    kinds = [frozenset() if x is None else _varying(x) for x in tensors]
    axes = frozenset().union(*kinds)
    return [
        x if x is None or kind == axes else _cast_to_varying(x, tuple(axes - kind))
        for x, kind in zip(tensors, kinds, strict=True)
    ]


def _varying(x):
    """Return the names of the axes of `jax.shard_map` along which `x` may differ."""
    import jax

    if not isinstance(x, jax.core.Tracer):
        return frozenset()
    if hasattr(x.aval, "manual_axis_type"):
        return frozenset(x.aval.manual_axis_type.varying)
    return getattr(x.aval, "vma", frozenset())  # Before jax 0.10.


def _cast_to_varying(x, axes):
    import jax

    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, axes, to="varying")
    return jax.lax.pvary(x, axes)  # Before jax 0.8.
