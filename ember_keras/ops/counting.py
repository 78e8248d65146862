"""The operations of a function, counted as its mathematics has them, without running it.

Products are counted where `keras.ops` makes them. An engine is counted by its own rule, that of the
recurrence, convolution or attention that it is, whichever kernel or form would run; what it would
return is zeros. Elementwise work outside engines is not counted.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops, tree

from ember_keras import backend


class Count:
    """What was counted.

    Attributes:
        flops: int. Sums and products, each one operation.
        kept: int, bytes of what products and engines read and write, weights aside: about what a
            gradient needs.
        widest: int, the most bytes that one of them reads and writes.
    """

    def __init__(self, weights: list[Any]):
        self.flops = 0
        self.kept = 0
        self.widest = 0
        self._seen: dict[int, Any] = {id(weight): weight for weight in weights}
        self._thread = threading.get_ident()

    def add(self, flops: int, operands: list[Any], results: list[Any]) -> None:
        """Adds one product or engine: its operations, and the tensors beside it."""
        self.flops += int(flops)
        self.widest = max(self.widest, sum(bytes_of(x) for x in (*operands, *results)))
        for x in (*operands, *results):
            if id(x) not in self._seen:
                self._seen[id(x)] = x  # Held, so that no other tensor gets its number.
                self.kept += bytes_of(x)

    @property
    def counts_here(self) -> bool:
        """Whether this thread is the one that counts."""
        return threading.get_ident() == self._thread


_ACTIVE: list[Count] = []
_LOCK = threading.Lock()


def is_counting() -> bool:
    """Whether this thread counts: a kernel would hide the products that it makes."""
    return bool(_ACTIVE) and _ACTIVE[-1].counts_here


@contextlib.contextmanager
def counting(weights: list[Any]) -> Iterator[Count]:
    """Counts the products and engines that this thread calls meanwhile.

    Args:
        weights: list of tensors that are no activations.
    """
    count = Count(weights)

    def seen(flops: int, operands: list[Any], result: Any) -> None:
        if _ACTIVE and count.counts_here:
            count.add(flops, operands, [result])

    with _LOCK, backend.watch_products(seen):
        _ACTIVE.append(count)
        try:
            yield count
        finally:
            _ACTIVE.clear()


@contextlib.contextmanager
def _uncounted(count: Count) -> Iterator[None]:
    """Leaves out of a count what runs meanwhile."""
    before = count.flops, count.kept, count.widest
    try:
        yield
    finally:
        count.flops, count.kept, count.widest = before


def counted(rule: Callable[..., tuple[int, Any]]) -> Callable[[Any], Any]:
    """Decorates an engine with the rule for its operations.

    Args:
        rule: function of the engine's arguments that returns the operations of a call without a
            state, and what it would return, as a nest of tensors.
    """

    def decorate(function: Any) -> Any:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            if not is_counting():
                return function(*args, **kwargs)
            given = signature.bind(*args, **kwargs).arguments
            with _uncounted(_ACTIVE[-1]):
                flops, result = rule(**given)
                if given.get("initial_state") is not None or given.get("return_state"):
                    result = function(*args, **kwargs)
            tensors = [x for x in tree.flatten([*args, *kwargs.values()]) if hasattr(x, "shape")]
            _ACTIVE[-1].add(flops, tensors, tree.flatten(result))
            return result

        return run

    return decorate


def bytes_of(x: Any) -> int:
    """The bytes of a tensor, variable or spec."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    bits = 8 if dtype == "bool" or "float8" in dtype else int("".join(filter(str.isdigit, dtype)))
    return math.prod(int(size) for size in x.shape) * bits // 8


def _zeros(like: Any, *shape: int) -> Any:
    return ops.zeros(shape, dtype=keras.backend.standardize_dtype(like.dtype))


def _pairs(time: int, source: int, causal: bool, window: int | None) -> int:
    """The pairs of positions that see each other."""
    width = source if window is None else min(window, source)
    if causal:
        return sum(min(t + 1 + source - time, width) for t in range(time))
    if window is None:
        return time * source
    return sum(max(0, min(source, t + width) - max(0, t - width + 1)) for t in range(time))


def attention(q: Any, k: Any, v: Any, causal: bool = True, window: Any = None, **_: Any) -> Any:
    """A product of q and k, and one with v, for each pair of positions that see each other."""
    rows, time, heads, width = q.shape
    value = v.shape[3]
    pairs = _pairs(time, k.shape[1], causal, window)
    return 2 * rows * heads * pairs * (width + value), _zeros(q, rows, time, heads, value)


def fft_conv(u: Any, k: Any = None, d: Any = None, **gates: Any) -> Any:
    """Shifts of short filters; else a transform of each signal, filter and result, 2.5 N log2 N."""
    rows, time, width = u.shape
    each = sum(gates.get(name) is not None for name in ("gate_in", "gate_out"))
    flops = rows * time * width * (each + (0 if d is None else 2))
    if k is not None:
        taps, filters = k.shape
        if taps <= 16:
            flops += 2 * rows * time * width * taps
        else:
            size = time + min(taps, time) - 1
            transform = round(2.5 * size * math.log2(max(size, 2)))
            signals = rows * width
            flops += transform * (2 * signals + filters) + 3 * size * signals
    return flops, _zeros(u, *u.shape)


def linear_recurrence(a: Any, b: Any, **_: Any) -> Any:
    """A product and a sum an element: 2 of real numbers, 8 of complex ones."""
    each = 8 if isinstance(b, tuple | list) else 2
    first = tree.flatten(b)[0]
    return each * math.prod(first.shape), tree.map_structure(lambda x: _zeros(x, *x.shape), b)


def diagonal_state_space(u: Any, a: Any, c: Any, d: Any = None, **_: Any) -> Any:
    """A convolution, and its filter out of the modes: 8 a mode and tap."""
    rows, time, width = u.shape
    flops, result = fft_conv(u, _zeros(u, time, width), d)
    return flops + 8 * time * math.prod(tree.flatten(c)[0].shape), result


def selective_scan(x: Any, delta: Any, a: Any, b: Any, c: Any, d: Any = None, **_: Any) -> Any:
    """7 for each number of the state: decay 2, input 1, step 2, output 2."""
    rows, time, width = x.shape
    flops = rows * time * width * (7 * a.shape[-1] + 1 + (0 if d is None else 2))
    return flops, _zeros(x, *x.shape)


def gated_linear_attention(q: Any, k: Any, v: Any, log_decay: Any = None, **_: Any) -> Any:
    """5 for each number of the state: decay 1, outer product 2, output 2."""
    rows, time, heads, width = q.shape
    each = 4 if log_decay is None else 5
    return each * rows * time * heads * width * v.shape[3], _zeros(v, *v.shape)


def delta_rule(q: Any, k: Any, v: Any, beta: Any, log_decay: Any = None, **_: Any) -> Any:
    """As linear attention, and 2 for what the state holds at the key, which is taken away."""
    rows, time, heads, width = q.shape
    each = 6 if log_decay is None else 7
    return each * rows * time * heads * width * v.shape[3], _zeros(v, *v.shape)


def grouped_matmul(x: Any, w: Any, offsets: Any) -> Any:
    """The product of each row with one matrix."""
    rows, width = x.shape
    return 2 * rows * width * w.shape[2], _zeros(x, rows, w.shape[2])


def synapses(v: Any, slope: Any, offset: Any, weights: Any) -> Any:
    """A sigmoid a pair of neurons (2 before it), and a product and a sum a weight."""
    rows, targets = v.shape[0], slope.shape[1]
    flops = rows * math.prod(slope.shape) * (2 + 2 * len(weights))
    return flops, tuple(_zeros(v, rows, targets) for _ in weights)


def nonlinear_scan(
    cell: Any,
    x: Any,
    weights: Any = None,
    initial_state: Any = None,
    fresh_state: Any = None,
    **_: Any,
) -> Any:
    """The products of one step of the cell, as many times as there are positions."""
    first = tree.flatten(x)[0]
    rows, time = first.shape[:2]
    state = tree.map_structure(
        lambda leaf: ops.zeros((rows, *leaf.shape[1:]), dtype=leaf.dtype),
        fresh_state if initial_state is None else initial_state,
    )
    step = tree.map_structure(lambda leaf: ops.cast(leaf[:, 0], _wide(leaf)), x)
    rest = [] if weights is None else [tree.map_structure(lambda w: ops.cast(w, _wide(w)), weights)]
    before = _ACTIVE[-1].flops
    y, _state = cell(step, state, *rest)
    flops = time * (_ACTIVE[-1].flops - before)
    return flops, tree.map_structure(lambda leaf: _zeros(first, rows, time, *leaf.shape[1:]), y)


def _wide(x: Any) -> str:
    dtype = keras.backend.standardize_dtype(x.dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype
