"""Several mixers side by side."""

from __future__ import annotations

from typing import Any

import keras

from ember_keras import registry
from ember_keras.layers.base import EmberLayer, State, require_rows, require_sequence
from ember_keras.layers.sequence_mixing.base import Stateful


class ParallelMixers(Stateful, EmberLayer):
    """Mixers over one input, whose outputs are scaled alike, weighted a channel, and averaged.

    `y = 1/n sum_i w_i * rms_norm(mixer_i(x))` with learned w_i `(D,)` (Hymba, Dong et al. 2024,
    arXiv 2411.13676, equation 3, whose output map the mixers have themselves).
    """

    def __init__(self, mixers: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.mixers = [
            registry.build_part(mixer, ("sequence_mixers",), self.dtype_policy, f"mixer_{i}")
            for i, mixer in enumerate(mixers)
        ]
        self.merge_norms = [  # Their scales are the weights w_i.
            keras.layers.RMSNormalization(dtype=self.dtype_policy, name=f"merge_norm_{i}")
            for i, _ in enumerate(mixers)
        ]
        for norm in self.merge_norms:
            norm.supports_masking = True  # Keras's RMSNormalization does not say so.

    @property
    def is_causal(self) -> bool:
        return all(mixer.is_causal for mixer in self.mixers)

    def build(self, input_shape: Any) -> None:
        require_sequence(self, input_shape)
        for layer in (*self.mixers, *self.merge_norms):
            layer.build(input_shape)
        super().build(input_shape)

    def call(
        self,
        x: Any,
        state: State | None = None,
        mask: Any = None,
        segment_ids: Any = None,
        training: bool | None = None,
        return_state: bool = False,
    ) -> Any:
        require_rows(self, x, mask=mask, segment_ids=segment_ids)
        if state is not None:
            self._require_state(state, x)
        options = {"mask": mask, "segment_ids": segment_ids, "training": training}
        outputs, after = [], []
        for i, (mixer, norm) in enumerate(zip(self.mixers, self.merge_norms, strict=True)):
            before = None if state is None else state[i]
            y = mixer(x, state=before, return_state=return_state, **options)
            if return_state:
                y, past = y
                after.append(past)
            outputs.append(norm(y))
        y = sum(outputs[1:], outputs[0]) / len(outputs)
        return (y, after) if return_state else y

    def output_weights(self) -> list[Any]:
        return [norm.gamma if hasattr(norm, "gamma") else norm.scale for norm in self.merge_norms]

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        self._require_causal("state")
        self._require_built()
        return [mixer.initial_state(batch_size, max_length) for mixer in self.mixers]
