"""Any causal sequence mixer, in both directions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from keras import ops

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence
from ember_keras.layers.common import heads
from ember_keras.layers.sequence_mixing.base import SequenceMixer


@registry.sequence_mixers.register("bidirectional")
class Bidirectional(SequenceMixer):
    """A causal mixer beside a second one of its make, with weights of its own, that reads backward.

    For whole sequences: classification, labels a position, encoders. What is bidirectional by
    itself (attention, convolution: `causal=False`) needs no wrapper.

    `y = f(x) + reverse(g(reverse(x)))`, or the two side by side and `y = W_o [f; g]`
    (Schuster and Paliwal 1997, Bidirectional recurrent neural networks). Padding and packed
    sequences are reversed with what they belong to, so that both directions see the same.

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers`: what reads forward. It
            must be causal. What reads backward is built from its configuration.
        merge: "sum" or "concat". The second has an output map back to D.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first. There is no state.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.Bidirectional("min_gru", merge="concat")
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    def __init__(
        self,
        mixer: Annotated[Any, Component("sequence_mixers")] = "mamba",
        merge: Literal["sum", "concat"] = "sum",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.mixer = registry.build_part(mixer, ("sequence_mixers",), self.dtype_policy, "forward")
        if not self.mixer.is_causal:
            raise ValueError(
                f"`Bidirectional` received a `{type(self.mixer).__name__}` that is bidirectional "
                "itself, expected a causal mixer. Use it without the wrapper, or build it causal."
            )
        config = registry.part_config(self.mixer, ("sequence_mixers",))
        self.backward = registry.build_part(
            config, ("sequence_mixers",), self.dtype_policy, "backward"
        )
        self.merge = merge

    @property
    def is_causal(self) -> bool:
        return False

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self.mixer.build(input_shape)
        self.backward.build(input_shape)
        if self.merge == "concat":
            self.output_projection = heads.dense(self, width, "output_projection", 2 * width)
        super().build(input_shape)

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        given = {"mask": mask, "segment_ids": segment_ids}
        turned = {key: None if v is None else ops.flip(v, axis=1) for key, v in given.items()}
        y = self.mixer(x, training=training, **given)
        back = self.backward(ops.flip(x, axis=1), training=training, **turned)
        back = ops.flip(back, axis=1)
        if self.merge == "sum":
            return y + back, None
        return self.output_projection(ops.concatenate([y, back], axis=-1)), None

    def output_weights(self) -> list[Any]:
        if self.merge == "concat":
            return super().output_weights()
        both = [mixer.output_weights() for mixer in (self.mixer, self.backward)]
        return [weight for each in both for weight in each] if all(both) else []

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mixer": registry.part_config(self.mixer, ("sequence_mixers",)),
            "merge": self.merge,
        }
