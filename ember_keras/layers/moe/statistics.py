"""What a mixture says of its routing: losses, and numbers that `fit` shows."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from ember_keras import backend
from ember_keras.layers.moe.routers import Routing
from ember_keras.layers.moe.routers.top_k import counts, real_mean


def expert_loads(routing: Routing, chosen: Any, num_experts: int, mask: Any) -> Any:
    """Each expert's share of the work, `(E,)`; they sum to 1 where there is any."""
    if routing.mixing is not None:
        load = real_mean(ops.cast(routing.probabilities, "float32"), mask)
    elif routing.gates is not None:
        load = real_mean(ops.cast(routing.taken, "float32"), mask)
    else:
        load = counts(routing.experts, chosen, num_experts, mask)
    load = ops.stop_gradient(load)
    return load / ops.maximum(ops.sum(load), 1e-20)


def load_balance(routing: Routing, load: Any, mask: Any) -> Any:
    """`E sum_e f_e P_e`: 1 where experts are used evenly (arXiv 2101.03961, equation 4).

    f is the share of the work of each expert, and P its mean probability.
    """
    mean = real_mean(routing.probabilities, mask)
    return int(load.shape[0]) * ops.sum(ops.cast(load, mean.dtype) * mean)


def z_loss(routing: Routing, mask: Any) -> Any:
    """The mean of `log(sum_e exp(l_e))^2`: keeps logits small (arXiv 2202.08906, equation 5)."""
    return real_mean(ops.square(ops.logsumexp(routing.logits, axis=-1)), mask)


def entropy(routing: Routing, mask: Any) -> Any:
    """The mean entropy of the router's probabilities, in nats; 0 where it has none."""
    if routing.probabilities is None:
        return ops.zeros((), "float32")
    p = ops.stop_gradient(routing.probabilities)
    return ops.cast(
        real_mean(-ops.sum(p * ops.log(ops.maximum(p, 1e-30)), axis=-1), mask), "float32"
    )


def pack(load: Any, dropped: Any, entropy: Any) -> Any:
    """The loads, the dropped fraction and the entropy as one vector `(E + 2,)`."""
    return ops.concatenate([load, ops.reshape(dropped, (1,)), ops.reshape(entropy, (1,))])


@dataclasses.dataclass(frozen=True, eq=False)
class _Held:
    """A variable that Keras does not take for one of the metric that holds it."""

    variable: Any


class RouterMetric(keras.metrics.Metric):
    """A number on the routing of a mixture, a mean over the batches of an epoch.

    `fit` shows it beside the loss. Before the first batch, and where a backend's `fit` keeps
    nothing that a layer reports, it is that of the last batch that the mixture has seen.

    Args:
        of: str, "load", the largest load over the mean one; "dropped", the fraction of places
            dropped; or "entropy", the mean entropy of the router's probabilities in nats.
        use: variable `(E + 2,)` of the mixture, or None for one that has seen nothing.
        **kwargs: `name` and `dtype`, as of any Keras metric.
    """

    def __init__(self, of: str = "load", use: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.of = of
        self._seen = _Held(use)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, use: Any, sample_weight: Any = None) -> None:
        """Adds what the mixture has seen of one batch: a tensor `(E + 2,)`.

        It does nothing while a `fit` runs a function that was not given this metric.
        """
        if not backend.has_value(self.total):
            return
        self.total.assign(self.total + ops.cast(self._value(use), self.dtype))
        self.count.assign(self.count + 1.0)

    def result(self) -> Any:
        """The mean so far."""
        use = self._seen.variable
        mean = self.total / ops.maximum(ops.convert_to_tensor(self.count), 1.0)
        if use is None or not backend.has_value(use):
            return mean
        last = ops.cast(self._value(use), self.dtype)
        return ops.where(ops.convert_to_tensor(self.count) > 0, mean, last)

    def _value(self, use: Any) -> Any:
        use = ops.convert_to_tensor(use)
        if self.of == "load":
            return ops.max(use[:-2]) * float(int(use.shape[0]) - 2)
        return use[-2] if self.of == "dropped" else use[-1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "of": self.of}
