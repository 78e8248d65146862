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
    order = _sort(expert, num_experts + 1)
    place = ops.arange(ops.shape(order)[0], dtype="int32")
    row = ops.scatter_update(ops.zeros_like(order), order[:, None], place)
    return Sorted(order, row, offsets_of(expert, num_experts))


def _sort(key: Any, keys: int) -> Any:
    """The places of `key` `(M,)` in the order of its values, then of the places: int32 `(M,)`.

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
    return ops.cast(ops.sort(key * count + place) % count, "int32")


def offsets_of(expert: Any, num_experts: int) -> Any:
    """Where each expert's rows begin, and where the last one's end, once sorted: `(E + 1,)`."""
    expert = ops.stop_gradient(expert)
    number = ops.arange(num_experts, dtype="int32")
    counts = ops.sum(ops.cast(ops.equal(expert[:, None], number), "int32"), axis=0)
    ends = ops.cast(ops.cumsum(ops.cast(counts, "int32")), "int32")
    return ops.concatenate([ops.zeros_like(ends[:1]), ends])


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
    order = _sort(ops.where(by_expert, 0, 1), 2)[:most]
    sizes = ops.cast(ops.sum(ops.cast(taken, "int32"), axis=0), "int32")
    ends = ops.cast(ops.cumsum(sizes), "int32")
    offsets = ops.concatenate([ops.zeros_like(ends[:1]), ends])
    expert = ops.minimum(order // count, num_experts - 1)
    return Taken(order % count, expert, offsets)
