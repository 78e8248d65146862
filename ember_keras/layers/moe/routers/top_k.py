"""Routers where each token goes to the k experts with the largest scores."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import wide_dtype
from ember_keras.layers.common.heads import require_at_least
from ember_keras.layers.moe.routers.base import (
    Router,
    Routing,
    all_chosen,
    at,
    sigmoid,
    softmax,
    top_k,
)


def real_mean(values: Any, mask: Any) -> Any:
    """The mean over the real tokens of `(B, T, ...)`; 0 where there is none."""
    if 0 in values.shape[:2]:
        return ops.zeros(values.shape[2:], values.dtype)
    if mask is None:
        return ops.mean(values, axis=(0, 1))
    real = ops.cast(mask, values.dtype)
    count = ops.maximum(ops.sum(real), 1.0)
    return ops.sum(values * ops.reshape(real, _rows(real, values)), axis=(0, 1)) / count


def _rows(real: Any, values: Any) -> tuple[Any, ...]:
    shape = ops.shape(real)
    return (*shape, *(1,) * (len(values.shape) - len(shape)))


def counts(experts: Any, chosen: Any, num_experts: int, mask: Any) -> Any:
    """How many places of real tokens each expert takes: whole numbers, float32 `(E,)`."""
    taken = ops.ones_like(experts, "float32") if chosen is None else ops.cast(chosen, "float32")
    if mask is not None:
        taken = taken * ops.cast(mask, "float32")[..., None]
    taken, expert = (ops.stop_gradient(ops.reshape(v, (-1,))) for v in (taken, experts))
    return ops.segment_sum(taken, expert, num_experts)


@registry.routers.register("softmax")
class SoftmaxRouter(Router):
    """Each token goes to the k experts with the largest logits, weighted by a softmax.

    The router of most mixtures. `g = softmax(x W)`, and the k largest of it; with `normalize` they
    are made to sum to 1, as in Mixtral (Jiang et al. 2024, arXiv 2401.04088, section 2.1), without
    they are left as they are, as in the Switch transformer (Fedus et al. 2021, arXiv 2101.03961,
    equation 2). It needs the load balance loss.

    Args:
        normalize: bool or None. Whether the weights of the chosen experts sum to 1; None is True
            for k > 1. With k = 1 a weight of 1 would teach the router nothing.
        scale: float. The deviation of the logits at the start; 0 makes all experts equally likely.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every router, `x` `(B, T, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(router={"type": "softmax", "normalize": False})
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    def __init__(self, normalize: bool | None = None, scale: float = 0.1, **kwargs: Any):
        super().__init__(**kwargs)
        require_at_least(self, 0, scale=scale)
        self.normalize = normalize
        self.scale = scale

    def build(self, input_shape: Any) -> None:
        self.kernel = self._add_kernel(int(input_shape[-1]), self.scale)
        super().build(input_shape)

    def route(self, x: Any, mask: Any, segment_ids: Any, training: bool | None) -> Routing:
        return self._choose(self._logits(x, self.kernel))

    def _choose(self, logits: Any) -> Routing:
        experts = top_k(logits, self.top_k)
        normalize = self.top_k > 1 if self.normalize is None else self.normalize
        probabilities = softmax(logits, axis=-1)
        if normalize:
            weights = softmax(at(logits, experts), axis=-1)
        else:
            weights = at(probabilities, experts)
        return Routing(
            experts,
            weights,
            all_chosen(experts),
            probabilities=probabilities,
            logits=logits,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "normalize": self.normalize, "scale": self.scale}


@registry.routers.register("noisy_top_k")
class NoisyTopKRouter(SoftmaxRouter):
    """As `softmax`, with learned noise on the logits in training, so that all experts are tried.

    `h = x W + n softplus(x W_n)`, n normal, and a softmax over the k largest of h (Shazeer et al.
    2017, arXiv 1701.06538, equations 3 to 5). In prediction there is no noise.

    Args:
        normalize: bool or None. As of `softmax`.
        scale: float. As of `softmax`.
        seed: int or None. The seed of the noise.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every router, `x` `(B, T, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(router="noisy_top_k")
    print(layer(np.ones((2, 5, 8), "float32"), training=True).shape)  # (2, 5, 8)
    ```
    """

    def __init__(
        self,
        normalize: bool | None = None,
        scale: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(normalize=normalize, scale=scale, **kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Any) -> None:
        self.noise_kernel = self._add_kernel(int(input_shape[-1]), 0.0, "noise_kernel")
        super().build(input_shape)

    def route(self, x: Any, mask: Any, segment_ids: Any, training: bool | None) -> Routing:
        logits = self._logits(x, self.kernel)
        if training:
            noise = keras.random.normal(
                ops.shape(logits), dtype=logits.dtype, seed=self.seed_generator
            )
            logits = logits + noise * ops.softplus(self._logits(x, self.noise_kernel))
        return self._choose(logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@registry.routers.register("sigmoid")
class SigmoidRouter(Router):
    """Each expert's score by itself, and a bias an expert that keeps the load even: no loss.

    `s = sigmoid(x W)`; a token goes to the k largest of `s + b`, with the weights `s` made to sum
    to 1. After each step in training, `b` rises by `bias_step` for experts with less than the mean
    load, and falls for those with more (Wang et al. 2024, arXiv 2408.15664, algorithm 1; DeepSeek
    2024, arXiv 2412.19437, equations 12 to 16).

    Args:
        bias_step: float. How far the bias moves in a step; 0 leaves it.
        scale: float. The deviation of the logits at the start.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every router, `x` `(B, T, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(router="sigmoid", shared_expert="gated_mlp")
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    balances_itself = True

    def __init__(self, bias_step: float = 0.001, scale: float = 0.1, **kwargs: Any):
        super().__init__(**kwargs)
        require_at_least(self, 0, bias_step=bias_step, scale=scale)
        self.bias_step = bias_step
        self.scale = scale

    def build(self, input_shape: Any) -> None:
        self.kernel = self._add_kernel(int(input_shape[-1]), self.scale)
        self.balance = self.add_weight(
            (self.num_experts,),
            "zeros",
            dtype=wide_dtype(self.variable_dtype),
            trainable=False,
            name="balance",
            autocast=False,
        )
        super().build(input_shape)

    def route(self, x: Any, mask: Any, segment_ids: Any, training: bool | None) -> Routing:
        logits = self._logits(x, self.kernel)
        scores = sigmoid(logits)
        balance = ops.convert_to_tensor(self.balance)
        experts = top_k(ops.stop_gradient(scores) + balance, self.top_k)
        weights = at(scores, experts)
        if self.top_k > 1:
            weights = weights / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1e-20)
        if training and self.bias_step:
            load = ops.cast(counts(experts, None, self.num_experts, mask), balance.dtype)
            # Of whole numbers, no means, which are rounded: an even load gives 0.
            missing = ops.sum(load) - self.num_experts * load
            self.balance.assign(balance + self.bias_step * ops.sign(missing))
        total = ops.maximum(ops.sum(scores, axis=-1, keepdims=True), 1e-20)
        return Routing(
            experts, weights, all_chosen(experts), probabilities=scores / total, logits=logits
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bias_step": self.bias_step, "scale": self.scale}
