"""The time loop on jax, whose products with weights are differentiated apart from the rest.

To each product of a step with a weight zeros are added, a tap. The gradients of the taps are those
of the products, stacked over the positions; with the other factors, stacked as well, one product
gives the gradient of each weight.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from ember_keras.ops.kernels.shards import varying_alike


def run(step, state, xs, weights):
    """Return ``(ys, state)`` of the loop, as `time_loop.run`."""
    return _loop(step)(state, xs, weights)


@functools.lru_cache(maxsize=128)
def _loop(step):
    def plain(state, xs, weights):
        return _scan(lambda x, s: step(x, s, weights), state, xs)

    def forward(state, xs, weights):
        graph = _Graph(step, state, xs, weights)
        leaves = jax.tree.leaves(weights)
        turned = jax.lax.optimization_barrier([p.turned(leaves[p.leaf]) for p in graph.products])
        time = len(jax.tree.leaves(xs)[0])
        taps = [jnp.zeros((time, *product.shape), product.dtype) for product in graph.products]
        taps = varying_alike(jax.tree.leaves(xs)[0], *taps)[1:]

        def tapped(state, xs, weights, taps):
            (ys, factors), state = _scan(
                lambda each, s: graph(*each, turned, s, weights), state, (xs, taps)
            )
            return (ys, state), factors

        results, pull, factors = jax.vjp(tapped, state, xs, weights, taps, has_aux=True)
        return results, (pull, graph.products, factors)

    def backward(residuals, slopes):
        pull, products, factors = residuals
        dstate, dxs, dweights, dtaps = pull(slopes)
        leaves, form = jax.tree.flatten(dweights)
        for product, factor, slope in zip(products, factors, dtaps, strict=True):
            leaves[product.leaf] += product.slope_of_weight(factor, slope)
        return dstate, dxs, jax.tree.unflatten(form, leaves)

    loop = jax.custom_vjp(plain)
    loop.defvjp(forward, backward)
    return jax.jit(loop)


def _scan(function, state, xs):
    """Return ``(ys, state)`` of the loop ``y, state = function(x, state)``."""
    state, ys = jax.lax.scan(lambda s, x: function(x, s)[::-1], state, xs)
    return ys, state


class _Graph:
    """A step as jax's graph, in which the products with a leaf of the weights are told apart."""

    def __init__(self, step, state, xs, weights):
        x = jax.tree.map(lambda leaf: leaf[0], xs)  # Of the kind that xs has in jax.shard_map.
        self._closed, form = jax.make_jaxpr(step, return_shape=True)(x, state, weights)
        self._form = jax.tree.structure(form)
        before, count = len(jax.tree.leaves((x, state))), len(jax.tree.leaves(weights))
        self._leaves = [*[None] * before, *range(count)]
        self.products = []

        def note(equation, leaf, is_left, left, right):
            self.products.append(_Product.of(equation, leaf, is_left))
            return self.products[-1].forward(*((right, left) if is_left else (left, right)))

        jax.eval_shape(
            lambda *values: self._run(values, note), *jax.tree.leaves((x, state, weights))
        )

    def __call__(self, x, taps, turned, state, weights):
        """Return ``((y, the other factor of each product), state)`` of a position."""
        each = iter(zip(self.products, taps, turned, strict=True))
        factors = []

        def multiply(equation, leaf, is_left, left, right):
            product, tap, back = next(each)
            weight, factor = (left, right) if is_left else (right, left)
            factors.append(factor)
            return _multiply(product, factor, weight, back) + tap

        y, state = self._run(jax.tree.leaves((x, state, weights)), multiply)
        return (y, factors), state

    def _run(self, values, multiply):
        found = _evaluate(self._closed, values, self._leaves, multiply)
        return jax.tree.unflatten(self._form, found)


def _evaluate(closed, values, leaves, multiply):
    """Return the outputs of a graph, whose products with a weight are those of `multiply`.

    Args:
        closed: the graph.
        values: list of its inputs.
        leaves: for each input the number of the weight that it is, or None.
        multiply: function of ``(equation, number of the weight, is it the left, left, right)``.
    """
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known.update(zip(jaxpr.invars, values, strict=True))
    numbers = dict(zip(jaxpr.invars, leaves, strict=True))

    def read(variable):
        return variable.val if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        given = [read(variable) for variable in equation.invars]
        which = [None if isinstance(v, Literal) else numbers.get(v) for v in equation.invars]
        name = equation.primitive.name
        if name == "jit":
            found = _evaluate(equation.params["jaxpr"], given, which, multiply)
        elif name == "dot_general" and (which[0] is None) != (which[1] is None):
            is_left = which[1] is None
            found = [multiply(equation, which[0 if is_left else 1], is_left, *given)]
        else:
            found = _bind(jaxpr, equation, given)
        known.update(zip(equation.outvars, found, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _bind(jaxpr, equation, given):
    """Return the results of one equation: how a primitive is bound differs between releases."""
    named = {
        v: x for v, x in zip(equation.invars, given, strict=True) if not isinstance(v, Literal)
    }
    alone = jaxpr.replace(
        constvars=[], invars=list(named), outvars=equation.outvars, eqns=[equation]
    )
    return jaxpr_as_fun(ClosedJaxpr(alone, []))(*named.values())


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Product:
    """A product with a leaf of the weights: which, and how its axes are named.

    Of the other factor and of the weight, `batch` axes are kept and `summed` axes are summed, in
    pairs. The result has the batch axes, then the others of its left, then those of its right.
    """

    leaf: int
    is_left: bool
    ranks: tuple[int, int]
    summed: tuple[tuple[int, ...], tuple[int, ...]]
    batch: tuple[tuple[int, ...], tuple[int, ...]]
    shape: tuple[int, ...]
    dtype: Any
    precision: Any

    @classmethod
    def of(cls, equation, leaf, is_left):
        order = slice(None, None, -1 if is_left else 1)
        summed, batch = equation.params["dimension_numbers"]
        result = equation.outvars[0].aval
        return cls(
            leaf,
            is_left,
            tuple(len(variable.aval.shape) for variable in equation.invars)[order],
            tuple(map(tuple, summed))[order],
            tuple(map(tuple, batch))[order],
            result.shape,
            result.dtype,
            equation.params["precision"],
        )

    def _others(self, side):
        used = {*self.summed[side], *self.batch[side]}
        return [axis for axis in range(self.ranks[side]) if axis not in used]

    def _places(self):
        """Return the axes of the result: of the batch, of the other factor, of the weight."""
        first = len(self.batch[0])
        counts = [len(self._others(side)) for side in (0, 1)]
        middle = first + counts[1 if self.is_left else 0]
        ahead, behind = list(range(first, middle)), list(range(middle, len(self.shape)))
        return list(range(first)), *((behind, ahead) if self.is_left else (ahead, behind))

    def _dot(self, left, right, summed, batch, dtype=None):
        return jax.lax.dot_general(
            left, right, (summed, batch), self.precision, preferred_element_type=dtype
        )

    def forward(self, factor, weight):
        order = slice(None, None, -1 if self.is_left else 1)
        pair = (factor, weight)[order]
        return self._dot(*pair, self.summed[order], self.batch[order], self.dtype)

    def turned(self, weight):
        """Return the weight with its summed axes last."""
        return jnp.transpose(weight, [*self.batch[1], *self._others(1), *self.summed[1]])

    def slope_of_factor(self, slope, turned):
        batch, _, of_weight = self._places()
        first = len(batch)
        summed = (of_weight, range(first, first + len(of_weight)))
        found = self._dot(slope, turned, summed, (batch, batch))
        return _placed(found, [*self.batch[0], *self._others(0), *self.summed[0]])

    def slope_of_weight(self, factors, slopes):
        """Return the gradient of the weight; both have an axis of positions before theirs."""
        batch, of_factor, _ = self._places()
        summed = ([0, *_next(self._others(0))], [0, *_next(of_factor)])
        found = self._dot(factors, slopes, summed, (_next(self.batch[0]), _next(batch)))
        pairs = dict(zip(*self.summed, strict=True))
        return _placed(
            found, [*self.batch[1], *(pairs[axis] for axis in sorted(pairs)), *self._others(1)]
        )


def _next(axes):
    return [axis + 1 for axis in axes]


def _placed(x, axes):
    """Return x with each of its axes where `axes` says."""
    return jnp.transpose(x, np.argsort(axes))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _multiply(product, factor, weight, turned):
    return product.forward(factor, weight)


def _multiply_forward(product, factor, weight, turned):
    return product.forward(factor, weight), turned


def _multiply_backward(product, turned, slope):
    # The gradient of the weight is that of the tap.
    return product.slope_of_factor(slope, turned), None, None


_multiply.defvjp(_multiply_forward, _multiply_backward)
