"""A layer's call as a function without side effects, which a backward pass may run again.

What the call does beside its output is handed out of it and done after: changes of variables
(seeds, statistics, metrics) and losses. It begins from the values that variables had before, so
that dropout draws the same masks the second time.
"""

import contextlib
import threading

import keras
from keras import tree
from keras.src.backend.common import global_state
from keras.src.backend.common.variables import AutocastScope, get_autocast_scope

from ember_keras.backend import _common
from ember_keras.backend._variables import has_value

_CALL = "current_call_ctx"
_INSIDE = threading.local()


def run(form, layer, call, x, options):
    """Return ``call(x, **options)``, of which `form` keeps nothing for the backward pass.

    Args:
        form: function of a pure function, its tensors, how many of them, the first ones, are values
            of variables, and what the function will have made. It returns the tuple of tensors that
            the function gives, and makes its gradient by running it again.
        layer: `keras.layers.Layer`, built: the one that holds all variables of `call`.
        call: function.
        x: tensor.
        options: dict of nests of tensors, None, and plain values.
    """
    if getattr(_INSIDE, "depth", 0):
        return call(x, **options)
    variables = _variables(layer)
    with AutocastScope(None):
        values = [keras.ops.convert_to_tensor(variable.value) for variable in variables]
    nest = {"x": x, **options}
    leaves = tree.flatten(nest)
    places = [at for at, leaf in enumerate(leaves) if keras.ops.is_tensor(leaf)]
    ambient = _Ambient()
    made = _Made()

    def pure(*tensors):
        full = list(leaves)
        for at, tensor in zip(places, tensors[len(values) :], strict=True):
            full[at] = tensor
        given = tree.pack_sequence_as(nest, full)
        mapping = list(zip(variables, tensors[: len(values)], strict=True))
        scope = _common.RecordingScope(mapping, collect_losses=True)
        with ambient.again(), scope:
            output = call(given.pop("x"), **given)
        _forget(layer, scope.losses)
        assigned = list(scope.assigned.values())
        after = [scope.get_current_value(variable) for variable in assigned]
        made.output, made.assigned, made.losses = output, assigned, len(scope.losses)
        made.places = [at for at, each in enumerate(variables) if id(each) in scope.assigned]
        return (*tree.flatten(output), *after, *scope.losses)

    found = form(pure, [*values, *(leaves[at] for at in places)], len(values), made)
    outputs = len(found) - len(made.assigned) - made.losses
    for variable, value in zip(made.assigned, found[outputs:], strict=False):
        variable.assign(value)
    for loss in found[len(found) - made.losses :]:
        layer.add_loss(loss)
    return tree.pack_sequence_as(made.output, list(found[:outputs]))


class _Made:
    """What the function has made beside tensors.

    Attributes:
        output: the nest of its output.
        assigned: list of `keras.Variable` that it has changed.
        places: list of int, the positions of their values among its tensors.
        losses: int, how many losses it has added.
    """

    def __init__(self):
        self.output, self.assigned, self.places, self.losses = None, [], [], 0


class _Ambient:
    """What Keras knows of the calls around this one, for a call that is made later."""

    def __init__(self):
        scope = get_autocast_scope()
        self.dtype = None if scope is None else scope.dtype
        self.call = global_state.get_global_attribute(_CALL)

    @contextlib.contextmanager
    def again(self):
        before = global_state.get_global_attribute(_CALL)
        global_state.set_global_attribute(_CALL, self.call)
        _INSIDE.depth = getattr(_INSIDE, "depth", 0) + 1
        try:
            with AutocastScope(self.dtype):
                yield
        finally:
            _INSIDE.depth -= 1
            global_state.set_global_attribute(_CALL, before)


def _forget(layer, losses):
    """Takes losses from those that layers know as their own.

    Layers know them by identity. These are handed out and end here, and a later loss that Python
    puts in the place of one would be counted by the layer of either.
    """
    gone = {id(loss) for loss in losses}
    for each in layer._flatten_layers():
        each._loss_ids -= gone


def _variables(layer):
    """The variables of a layer and of what is in it, metrics too, that hold a value."""
    found = {id(each): each for each in [*layer.variables, *layer.metrics_variables]}
    return [variable for variable in found.values() if has_value(variable)]
