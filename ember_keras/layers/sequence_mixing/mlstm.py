"""The mLSTM of xLSTM."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention
from ember_keras.ops.engines.running_max import EMPTY, running_max


@registry.sequence_mixers.register("mlstm")
class MLSTM(SequenceMixer):
    """An LSTM with a matrix for a memory and gates that may be exponential; it trains in parallel.

    It stores and revises associations; among linear attentions its input gate is the sharpest.

    `C_t = f_t C_{t-1} + i_t k_t v_t^T`, `n_t = f_t n_{t-1} + i_t k_t`,
    `o_t = C_t^T q_t / max(|n_t . q_t|, 1)`, `y = W_o (sigmoid(W_g x) * norm(o))`, with
    `i_t = exp(w_i x + b_i)`, `f_t = sigmoid(w_f x + b_f)` and queries scaled by `1 / sqrt(K)` (Beck
    et al. 2024, arXiv 2405.04517, equations 19 to 27). A running maximum of the logs keeps the
    exponentials finite and changes no output. Where `|n_t . q_t|` is less than e^-14 of the largest
    weight in the memory, which is rounding in float32, that stands in its place.

    Args:
        num_heads: int >= 1. H, which divides the model width unless both widths below are given.
        key_dim: int or None. K, the width of a head's queries and keys; D / H when None. xLSTM-7B
            (arXiv 2503.13427) has half of that.
        value_dim: int or None. V, the width of a head's values; D / H when None.
        gate_soft_cap: float > 0 or None. With a number c, the logs of the gates are `c tanh(. / c)`
            (as in xLSTM-7B).
        use_bias: bool. Whether the linear maps other than the gates have biases.
        epsilon: float > 0. Of the norm of each head.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.MLSTM(num_heads=2)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    def __init__(
        self,
        num_heads: int = 4,
        key_dim: int | None = None,
        value_dim: int | None = None,
        gate_soft_cap: float | None = None,
        use_bias: bool = False,
        epsilon: float = 1e-6,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        heads.require_at_least(self, 1, num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
        if gate_soft_cap is not None and gate_soft_cap <= 0:
            raise ValueError(
                f"`MLSTM` received gate_soft_cap={gate_soft_cap}, expected more than 0, or None."
            )
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.value_dim = value_dim
        self.gate_soft_cap = gate_soft_cap
        self.use_bias = use_bias
        heads.require_positive(self, epsilon=epsilon)
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self._key_dim = self.key_dim or heads.head_width(self, width, self.num_heads)
        self._value_dim = self.value_dim or heads.head_width(self, width, self.num_heads)
        keys, values = self.num_heads * self._key_dim, self.num_heads * self._value_dim
        sizes = {"query": keys, "key": keys, "value": values, "output_gate": values}
        for name, units in sizes.items():
            setattr(self, name, heads.dense(self, units, name, width, self.use_bias))
        gates: dict[str, Any] = {"use_bias": True, "kernel_initializer": "zeros"}
        self.input_gate = heads.dense(
            self, self.num_heads, "input_gate", width, bias_initializer=_input_biases, **gates
        )
        self.forget_gate = heads.dense(
            self, self.num_heads, "forget_gate", width, bias_initializer=forget_biases, **gates
        )
        self.norm = heads.HeadNorm(
            "layer", shared=False, epsilon=self.epsilon, dtype=self.dtype_policy, name="norm"
        )
        self.norm.build((None, None, self.num_heads, self._value_dim))
        self.output_projection = heads.dense(
            self, width, "output_projection", values, self.use_bias
        )
        super().build(input_shape)

    def _logs(self, x: Any) -> tuple[Any, Any]:
        """The logs of the input and of the forget gate, `(B, T, H)`."""
        write, forget = wide(self.input_gate(x)), wide(self.forget_gate(x))
        if self.gate_soft_cap is not None:
            cap = self.gate_soft_cap
            write, forget = (cap * ops.tanh(gate / cap) for gate in (write, forget))
        return write, ops.log_sigmoid(forget)

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        q, k, v = (
            wide(heads.split_heads(layer(x), self.num_heads))
            for layer in (self.query, self.key, self.value)
        )
        log_write, log_forget = self._logs(x)
        o, state = matrix_memory(
            q, k, v, log_write, log_forget, state, mask=mask, segment_ids=segment_ids
        )
        o = ops.cast(self.norm(o), self.compute_dtype)
        y = heads.join_heads(o) * ops.sigmoid(self.output_gate(x))
        return self.output_projection(y), state

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return matrix_memory_state(
            batch_size, self.num_heads, self._key_dim, self._value_dim, heads.state_dtype(self)
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "gate_soft_cap": self.gate_soft_cap,
            "use_bias": self.use_bias,
            "epsilon": self.epsilon,
        }


def matrix_memory(
    q: Any, k: Any, v: Any, log_write: Any, log_forget: Any, state: State | None, **options: Any
) -> tuple[Any, State]:
    """What every mLSTM reads from its memory, `(B, T, H, V)`, and its state.

    Args:
        q: float32 tensor `(B, T, H, K)`, as are all of these; it is scaled here.
        k: tensor `(B, T, H, K)`.
        v: tensor `(B, T, H, V)`.
        log_write: tensor `(B, T, H)`, the log of the input gate.
        log_forget: tensor `(B, T, H)`, the log of the forget gate.
        state: what `matrix_memory_state` or an earlier call returned, or None.
        **options: `mask` and `segment_ids`.
    """
    before = state or {"matrix": None, "log_scale": None}
    if options["mask"] is not None:
        log_write = ops.where(options["mask"][..., None], log_write, EMPTY)
    # The state is kept divided by exp(m), m the largest log weight in it.
    m_before, m = running_max(log_forget, log_write, before["log_scale"], **options)
    o, matrix = gated_linear_attention(
        q * q.shape[-1] ** -0.5,
        k,
        ops.concatenate([v, ops.ones_like(v[..., :1])], axis=-1),
        log_forget + m_before - m,
        beta=ops.exp(log_write - m),
        initial_state=before["matrix"],
        return_state=True,
        **options,
    )
    # Below a millionth of the largest weight a sum is rounding: there its size is not believed.
    least = ops.exp(-ops.clip(m, -80.0, 14.0))
    weight = ops.maximum(ops.abs(o[..., -1:]), least[..., None])
    return o[..., :-1] / weight, {"matrix": matrix, "log_scale": m[:, -1]}


def matrix_memory_state(
    batch_size: int, num_heads: int, key_dim: int, value_dim: int, dtype: str
) -> State:
    """The empty memory; the last column of the matrix is the normaliser."""
    return {
        "matrix": ops.zeros((batch_size, num_heads, key_dim, value_dim + 1), dtype),
        "log_scale": ops.full((batch_size, num_heads), EMPTY, dtype),
    }


def _input_biases(shape: Any, dtype: Any = None) -> Any:
    return ops.full(shape, -10.0, dtype=dtype)


def forget_biases(shape: Any, dtype: Any = None) -> Any:
    """Biases from 3 to 6, so that the heads remember at first, for different times."""
    return ops.cast(np.linspace(3.0, 6.0, shape[0]), dtype or "float32")
