"""The public function of the nonlinear scan engine."""

import dataclasses
from typing import Any

import keras
from keras import ops, tree

from ember_keras.ops import counting
from ember_keras.ops.engines import checks
from ember_keras.ops.engines.nonlinear_scan.steps import Step, spread
from ember_keras.ops.engines.timeline import timeline
from ember_keras.ops.kernels import choose, request, time_loop
from ember_keras.ops.kernels.shards import alike
from ember_keras.ops.tensor.nests import wrap


@wrap
@counting.counted(counting.nonlinear_scan)
def nonlinear_scan(
    cell,
    x,
    *,
    weights=None,
    initial_state=None,
    fresh_state=None,
    unroll=1,
    truncate=None,
    recompute=False,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """A cell run along time by a true loop, compiled by the backend: for any recurrence.

    ``y_t, s_t = cell(x_t, s_{t-1}, weights)``. What needs no state (the projections of the input)
    belongs before the loop, in one product over all positions.

    The loop is `jax.lax.scan`, `tf.while_loop`, or a loop over a step that mlx compiles, or that
    torch traces once: then no `keras.ops` function runs in the loop, and the gradients of the
    weights are summed by one product after it. A step is compiled once and used again if the cell
    is a function without closure, or an instance of a frozen dataclass; a cell that closes over
    tensors works, and is compiled anew in every eager call.

    Args:
        cell: function ``(x_t, state) -> (y_t, state)``, or ``(x_t, state, weights)`` where
            `weights` is given, written in `keras.ops`. It treats every row alone. It computes in
            float32, or float64 for float64.
        x: nest of tensors ``(B, T, ...)``, of which the cell gets ``(B, ...)``.
        weights: nest of tensors that the cell uses at every position, or None.
        initial_state: nest of tensors ``(B, ...)``, or None for a fresh sequence.
        fresh_state: nest of tensors ``(B, ...)`` or ``(1, ...)``, the state before the first
            position of a sequence; None is zeros. Needed where `initial_state` is None.
        unroll: int >= 1. Positions in one pass of the loop: more to compile, fewer passes.
        truncate: int >= 1 or None. No gradient flows through the state from a position to one
            before the last multiple of this many positions, counted from the chunk's start.
        recompute: bool. Keep only the states for the gradient, and compute the inside of the cell
            again: less memory where the inside is much larger than the state, and more time.
        return_state: bool. Also return the state after this chunk.
        mask: bool tensor ``(B, T)``, True at real positions. Padded positions are not there: they
            output 0 and leave the state as it is.
        segment_ids: int tensor ``(B, T)``. The state starts fresh where a run of equal ids begins;
            the initial state belongs to the first run, and the state after the chunk to the last.

    Returns:
        ``y``, a nest of tensors ``(B, T, ...)`` in the dtype of the first tensor of x, or
        ``(y, state)``.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> def leaky(x, state, weights):
    ...     state = ops.tanh(x + weights * state)
    ...     return state, state
    >>> x = np.ones((2, 100, 4), "float32")
    >>> y, state = nonlinear_scan(
    ...     leaky,
    ...     x,
    ...     weights=np.full((4,), 0.5, "float32"),
    ...     fresh_state=np.zeros((1, 4)),
    ...     return_state=True,
    ... )
    >>> tuple(y.shape), tuple(state.shape)
    ((2, 100, 4), (2, 4))
    """
    for name, value in (("unroll", unroll), ("truncate", truncate)):
        if value is not None and value < 1:
            raise ValueError(
                f"Received {name}={value}; expected an integer >= 1. Give a number of positions."
            )
    tensors = {"x": x}
    for name, nest in (("weights", weights), ("state", initial_state), ("fresh", fresh_state)):
        if nest is not None:
            tensors[name] = nest
    if mask is not None:
        tensors["mask"] = mask
    if segment_ids is not None:
        tensors["segment_ids"] = segment_ids
    scan = _Scan(cell, unroll, truncate, recompute)
    symbolic = any(isinstance(leaf, keras.KerasTensor) for leaf in tree.flatten(tensors))
    y, state = (_SymbolicScan(scan).symbolic_call if symbolic else scan)(tensors)
    return (y, state) if return_state else y


@dataclasses.dataclass(frozen=True)
class _Scan:
    """The engine as a function of a nest of tensors."""

    cell: Any
    unroll: int
    truncate: int | None
    recompute: bool

    def __call__(self, tensors):
        x, dtype = _inputs(tensors["x"])
        batch, time = tree.flatten(x)[0].shape[:2]
        lines = timeline(tree.flatten(x)[0], tensors.get("mask"), tensors.get("segment_ids"))
        rows = ops.shape(tree.flatten(x)[0])[0]
        state, fresh = _states(tensors, batch, rows)
        inputs, constant = {"x": x}, {}
        if "weights" in tensors:
            constant["cell"] = tree.map_structure(_wide, tensors["weights"])
        if lines.mask is not None:
            inputs["mask"] = lines.mask
            inputs["x"] = tree.map_structure(lambda leaf: spread(lines.mask, leaf, 0.0), x)
        if lines.starts is not None:
            inputs["starts"], constant["fresh"] = lines.starts, fresh
        if self.truncate is not None and self.truncate < time:
            at = ops.arange(time, dtype="int32")
            cut = ops.logical_and(at % self.truncate == 0, at > 0)
            inputs["cut"] = ops.broadcast_to(cut[None], (rows, time))
        y, state = _loop(self, inputs, state, constant, time)
        return tree.map_structure(lambda leaf: ops.cast(leaf, dtype), y), state


class _SymbolicScan(keras.Operation):
    """The engine on the symbolic tensors of a functional model."""

    def __init__(self, scan):
        super().__init__()
        self.call = scan


def _loop(scan, inputs, state, weights, time):
    count = min(scan.unroll, time)
    parts = [(Step(scan.cell, count), 0, time - time % count)]
    if time % count:
        parts.append((Step(scan.cell, time % count), time - time % count, time))
    outputs = []
    for step, start, end in parts:
        blocks = tree.map_structure(lambda leaf: _blocks(leaf[:, start:end], step.count), inputs)  # noqa: B023
        ys, state = _run(step, state, blocks, weights, scan.recompute)
        outputs.append(tree.map_structure(lambda leaf: _join(leaf, step.count), ys))  # noqa: B023
    if len(outputs) == 1:
        return outputs[0], state
    return tree.map_structure(lambda *each: ops.concatenate(each, axis=1), *outputs), state


def _run(step, state, blocks, weights, recompute):
    asked = request(
        "nonlinear_scan",
        {"x": tree.flatten(blocks["x"])[0]},
        cell=step.cell,
        recompute=recompute,
    )
    kernel = choose(asked)
    run = time_loop.run if kernel is None else kernel.run
    state, blocks, weights = alike((state, blocks, weights))
    return run(step, state, blocks, weights, recompute=recompute)


def _blocks(x, count):
    """Return ``(T / count, B, count, ...)`` of ``(B, T, ...)``, or ``(T, B, ...)``."""
    if count > 1:
        x = ops.reshape(x, (-1, x.shape[1] // count, count, *x.shape[2:]))
    return ops.swapaxes(x, 0, 1)


def _join(y, count):
    y = ops.swapaxes(y, 0, 1)
    return y if count == 1 else ops.reshape(y, (-1, y.shape[1] * count, *y.shape[3:]))


def _inputs(x):
    leaves = tree.flatten(x)
    if not leaves:
        raise ValueError(
            "Received x without a tensor; expected a nest of tensors (B, T, ...). Give at least "
            "one, for example zeros of (B, T, 1)."
        )
    found = []
    for leaf in leaves:
        leaf = ops.convert_to_tensor(leaf)
        if len(leaf.shape) < 2:
            raise ValueError(
                f"Received x of shape {tuple(leaf.shape)}; expected (B, T, ...). Add the axes of "
                "rows and positions."
            )
        checks.floating("x", leaf, "(" + ", ".join("B" for _ in leaf.shape) + ")")
        found.append(leaf)
        checks.same(
            "the length T of x", leaf.shape[1], checks.static("x", found[0], 1), "its first tensor"
        )
        checks.same("the rows B of x", leaf.shape[0], found[0].shape[0], "its first tensor")
    dtype = keras.backend.standardize_dtype(found[0].dtype)
    return tree.pack_sequence_as(x, [checks.wide(leaf) for leaf in found]), dtype


def _states(tensors, batch, rows):
    """Return the initial and the fresh state."""
    if "state" not in tensors and "fresh" not in tensors:
        raise ValueError(
            "Received neither initial_state nor fresh_state; expected at least one, which says "
            "what the cell carries. Give fresh_state, for example zeros of shape (1, D)."
        )
    fresh = tree.map_structure(_wide, tensors["fresh"]) if "fresh" in tensors else None
    if "state" not in tensors:
        state = tree.map_structure(
            lambda leaf: ops.broadcast_to(leaf, (rows, *leaf.shape[1:])), fresh
        )
        return state, fresh
    if fresh is not None:
        tree.assert_same_structure(tensors["state"], fresh)
        shapes = [tuple(leaf.shape) for leaf in tree.flatten(fresh)]
    else:
        shapes = [tuple(leaf.shape) for leaf in tree.flatten(tensors["state"])]
    leaves = [
        checks.state(leaf, (batch, *shape[1:]), "(B, ...)")
        for leaf, shape in zip(tree.flatten(tensors["state"]), shapes, strict=True)
    ]
    state = tree.pack_sequence_as(tensors["state"], leaves)
    if fresh is None:
        fresh = tree.map_structure(lambda leaf: ops.zeros_like(leaf[:1]), state)
    return state, fresh


def _wide(x):
    return checks.wide(ops.convert_to_tensor(x))
