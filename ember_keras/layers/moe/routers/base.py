"""What routers share: their logits, and what they hand to a mixture."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from ember_keras.layers.base import EmberLayer, wide, wide_dtype


class Routing(NamedTuple):
    """Which experts each token goes to, one after another, the likeliest first.

    Attributes:
        experts: int32 tensor `(B, T, K)`, for a router where tokens choose.
        weights: float tensor `(B, T, K)`, float32 or wider: what each one's output counts.
        chosen: bool tensor `(B, T, K)`, False where a token goes to fewer than K experts.
        gates: float tensor `(B, T, E)`, in place of these three where experts choose:
            the weight of each expert, and 0 where it has not chosen the token.
        taken: bool tensor `(B, T, E)`, whether each expert has chosen the token.
        mixing: a `Mixing`, in place of all of these for a router where experts take mixtures.
        probabilities: float tensor `(B, T, E)`, or None: what the load balance loss sees.
        logits: float tensor `(B, T, E)`, or None: what the z-loss sees.
    """

    experts: Any = None
    weights: Any = None
    chosen: Any = None
    gates: Any = None
    taken: Any = None
    mixing: Any = None
    probabilities: Any = None
    logits: Any = None


class Mixing(NamedTuple):
    """What the slots of the experts are made of, and what is made of them.

    Attributes:
        dispatch: float tensor `(B, S, T)`, the weight of each token in a slot. `S` is the slots of
            each sequence in a row after another, each of them E experts' slots in order.
        combine: float tensor `(B, T, S)`, the weight of each slot in a token.
        slots: int, how many slots an expert has.
    """

    dispatch: Any
    combine: Any
    slots: int


class Router(EmberLayer):
    """A layer that says which experts each token goes to.

    A subclass writes `route`. `connect` tells it how many experts there are before it is built; a
    router that stands alone has 8 experts, and two for each token.

    Call arguments:
        x: float tensor `(B, T, D)`.
        mask: bool tensor `(B, T)` or None, True at real positions.
        segment_ids: int tensor `(B, T)` or None.
        training: bool.

    Returns: a `Routing`.
    """

    num_experts = 8
    top_k = 2
    balances_itself = False
    """Whether experts are used evenly without the load balance loss."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None

    @property
    def is_causal(self) -> bool:
        """Whether a token's experts depend on no later token."""
        return True

    @property
    def slots(self) -> int | None:
        """K, how many experts a token may go to; None where experts choose tokens."""
        return self.top_k

    def connect(self, num_experts: int, top_k: int) -> None:
        """Says how many experts there are, and how many of them a token goes to."""
        self.num_experts, self.top_k = num_experts, top_k

    def _add_kernel(
        self, width: int, scale: float, name: str = "kernel", columns: int | None = None
    ) -> Any:
        """A map to logits that keeps their deviation at `scale` for inputs of deviation 1."""
        from keras.initializers import RandomNormal

        start = RandomNormal(stddev=scale / width**0.5) if scale else "zeros"
        dtype = wide_dtype(self.variable_dtype)
        shape = (width, columns or self.num_experts)
        return self.add_weight(shape, start, dtype=dtype, name=name, autocast=False)

    def _logits(self, x: Any, kernel: Any) -> Any:
        """`(B, T, E)` in float32 or wider, under every policy."""
        return ops.matmul(wide(x), ops.convert_to_tensor(kernel))

    def call(
        self, x: Any, mask: Any = None, segment_ids: Any = None, training: bool | None = None
    ) -> Routing:
        return self.route(x, mask, segment_ids, training)

    def route(self, x: Any, mask: Any, segment_ids: Any, training: bool | None) -> Routing:
        """The routing of a batch."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `route`.")


def top_k(scores: Any, k: int) -> Any:
    """The indices of the k largest along the last axis, the lowest first of equal ones: int32."""
    width = int(scores.shape[-1])
    place = ops.arange(width, dtype="int32")
    left = scores
    found = []
    for _ in range(k):
        best = ops.cast(ops.argmax(left, axis=-1), "int32")
        found.append(best)
        taken = ops.equal(place, best[..., None])
        left = ops.where(taken, ops.full_like(left, -float("inf")), left)
    return ops.stack(found, axis=-1)


def at(values: Any, experts: Any) -> Any:
    """The values `(B, T, E)` at some experts `(B, T, K)`, with a gradient that scatters nothing."""
    place = ops.arange(int(values.shape[-1]), dtype="int32")
    found = []
    for i in range(int(experts.shape[-1])):
        one = ops.equal(place, experts[..., i : i + 1])
        found.append(ops.sum(ops.where(one, values, ops.zeros_like(values)), axis=-1))
    return ops.stack(found, axis=-1)


def all_chosen(experts: Any) -> Any:
    """A `chosen` for tokens that go to all K experts."""
    return ops.ones_like(experts, dtype="bool")


def softmax(x: Any, axis: int = -1) -> Any:
    """As Keras's own, which warns of an axis of one, such as a single expert or token."""
    return ops.ones_like(x) if x.shape[axis] == 1 else ops.softmax(x, axis=axis)


def sigmoid(x: Any) -> Any:
    """As Keras's own, and the same number for the same number wherever it stands.

    Libraries compute whole vectors in one way and the few numbers at the end in another, which may
    differ in the last bit: equal logits would be no ties there.
    """
    flat = ops.reshape(x, (-1,))
    longer = ops.concatenate([flat, ops.zeros((64,), x.dtype)])
    return ops.reshape(ops.sigmoid(longer)[: ops.shape(flat)[0]], ops.shape(x))
