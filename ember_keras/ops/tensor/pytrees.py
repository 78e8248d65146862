"""EmberTensor in the pytree libraries.

`register` makes EmberTensor a container of one leaf:

- for `keras.tree`, whose maps return the backend tensor in its place. This is how every Keras
  layer, model and data adapter takes EmberTensors: they map a conversion over their arguments
  before they look at them. Under torch `keras.tree` is torch's own pytree, so `torch.func` follows
  the same rule; under the other backends it is optree's namespace "keras";
- for optree itself, in the namespace "ember_keras", whose maps return EmberTensors;
- for `jax.tree` under the jax backend, whose maps and transformations return EmberTensors.
"""

import optree

from ember_keras import backend
from ember_keras.ops.tensor.ember_tensor import EmberTensor
from ember_keras.ops.tensor.libraries import library

OPTREE_NAMESPACE = "ember_keras"


def _flatten(tensor):
    return (tensor.value,), None


def _unflatten(_, children):
    # These libraries also rebuild containers around placeholders that are no tensors (axes, specs,
    # `object()`), and compare their structures: no check here.
    (value,) = children
    tensor = object.__new__(EmberTensor)
    tensor._value = value
    return tensor


def _register_jax():
    import jax

    jax.tree_util.register_pytree_node(EmberTensor, _flatten, _unflatten)


def _register_torch():
    from torch.utils import _pytree

    _pytree.register_pytree_node(
        EmberTensor,
        lambda tensor: ([tensor.value], None),
        lambda children, _: children[0],
        serialized_type_name="ember_keras.EmberTensor",
    )


def _register_keras():
    optree.register_pytree_node(
        EmberTensor, _flatten, lambda _, children: children[0], namespace="keras"
    )


def register():
    """Registers EmberTensor, once; imports no library that Keras has not imported already."""
    optree.register_pytree_node(EmberTensor, _flatten, _unflatten, namespace=OPTREE_NAMESPACE)
    name = backend.name()
    library(name)
    if name == "torch":
        _register_torch()
    else:
        _register_keras()
    if name == "jax":
        _register_jax()
