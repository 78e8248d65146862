"""Tokens sorted by expert, and back: no one-hot of tokens, and no scatter in a gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from ember_keras.ops.kernels.gradient import with_gradient

LARGEST = 2**31


class Sorted(NamedTuple):
    """The places `(N, K)` of tokens with experts, sorted by expert, then by token.

    Attributes:
        order: int32 tensor `(M,)`, the place `n K + i` that each sorted row is of.
        row: int32 tensor `(M,)`, the sorted row of each place.
        offsets: int32 tensor `(E + 1,)`, where the rows of each expert begin. Places without an
            expert are behind the last.
    """

    order: Any
    row: Any
    offsets: Any


def sort_places(experts: Any, chosen: Any, num_experts: int) -> Sorted:
    """Sorts the places of `experts` and `chosen` `(N, K)`."""
    expert = ops.where(chosen, experts, ops.full_like(experts, num_experts))
    expert = ops.reshape(expert, (-1,))
    numbers, count = _sort(expert, num_experts + 1)
    order = ops.cast(numbers % count, "int32")
    place = ops.arange(count, dtype="int32")
    row = ops.scatter_update(ops.zeros_like(order), order[:, None], place)
    first = ops.arange(num_experts + 1, dtype="int32") * count
    return Sorted(order, row, ops.cast(ops.searchsorted(numbers, first), "int32"))


def _sort(key: Any, keys: int) -> tuple[Any, Any]:
    """The numbers `key * M + place` of `key` `(M,)`, sorted: int32 `(M,)`; and M.

    Each key with its place is a number of its own, so that every sort is stable.
    """
    key = ops.stop_gradient(key)
    count = ops.shape(key)[0]
    if isinstance(count, int) and count * keys >= LARGEST:
        raise ValueError(
            f"`MixtureOfExperts` received {count} pairs of a token and an expert, expected fewer "
            f"than {LARGEST // keys} for {keys - 1} experts. Give fewer tokens at once."
        )
    place = ops.arange(count, dtype="int32")
    return ops.sort(key * count + place), count


def rank_of(places: Sorted, experts: Any) -> Any:
    """How many earlier places have the same expert, for `experts` `(N, K)`."""
    row = ops.reshape(places.row, ops.shape(experts))
    return row - ops.take(places.offsets, experts)


def to_rows(x: Any, places: Sorted, slots: int) -> Any:
    """The tokens `(N, D)` as sorted rows `(M, D)`; their gradients are gathered, not scattered."""

    def forward(x: Any, order: Any, row: Any) -> Any:
        return ops.take(x, order // slots, axis=0), ()

    def backward(inputs: Any, _: Any, g: Any) -> Any:
        given = ops.take(g, inputs[0], axis=0)
        return ops.sum(ops.reshape(given, (-1, slots, int(g.shape[1]))), axis=1), None, None

    return with_gradient(forward, backward, saved=(2,))(x, places.order, places.row)


def to_places(y: Any, places: Sorted, slots: int) -> Any:
    """Sorted rows `(M, D)` back at the places that they are of: `(N, K, D)`."""

    def forward(y: Any, order: Any, row: Any) -> Any:
        return ops.take(y, row, axis=0), ()

    def backward(inputs: Any, _: Any, g: Any) -> Any:
        return ops.take(g, inputs[0], axis=0), None, None

    y = with_gradient(forward, backward, saved=(1,))(y, places.order, places.row)
    return ops.reshape(y, (-1, slots, int(y.shape[1])))


class Taken(NamedTuple):
    """The pairs of an expert and a token that it has chosen, sorted by expert, then by token.

    Attributes:
        token: int32 tensor `(M,)`.
        expert: int32 tensor `(M,)`.
        offsets: int32 tensor `(E + 1,)`. Pairs that are none are behind the last.
    """

    token: Any
    expert: Any
    offsets: Any


def sort_taken(taken: Any, most: Any) -> Taken:
    """The pairs of `taken` `(N, E)`, of which there are at most `most`."""
    taken = ops.stop_gradient(taken)
    count, num_experts = ops.shape(taken)[0], int(taken.shape[1])
    by_expert = ops.reshape(ops.transpose(taken), (-1,))
    numbers, pairs = _sort(ops.where(by_expert, 0, 1), 2)
    order = ops.cast(numbers % pairs, "int32")[:most]
    sizes = ops.cast(ops.sum(ops.cast(taken, "int32"), axis=0), "int32")
    ends = ops.cast(ops.cumsum(sizes), "int32")
    offsets = ops.concatenate([ops.zeros_like(ends[:1]), ends])
    expert = ops.minimum(order // count, num_experts - 1)
    return Taken(order % count, expert, offsets)
