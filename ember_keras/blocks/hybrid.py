"""The block of several sequence mixers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ember_keras import registry
from ember_keras.blocks.named import PLAIN, SEQUENCE, Configured
from ember_keras.blocks.parallel import ParallelMixers
from ember_keras.config import Component
from ember_keras.layers.stack import BlockStack

_HYBRID: Any = ("mamba", "sliding_attention")


@registry.blocks.register("hybrid_block")
class HybridBlock(Configured):
    """Several sequence mixers in one block, side by side or one after another.

    In parallel they read one normed input, and their outputs, scaled to a root mean square of 1,
    are averaged with learned weights a channel (Hymba, Dong et al. 2024, arXiv 2411.13676,
    equation 3). Interleaved, each has a block of its own with the channel mixer after it (Griffin,
    De et al. 2024, arXiv 2402.19427, section 2).

    Args:
        mixers: list of names or configurations of `registry.sequence_mixers`, at least one.
        arrangement: "parallel" or "interleaved".
        channel_mixer: a name or configuration of `registry.channel_mixers`, or None for none.
        norm: a name or configuration of `registry.norms`; `rms_norm` when None.
        norm_position: "pre" or "post", as in `Block`.
        residual: "plain", "scaled", "gated" or "none", as in `Block`.
        dropout: float in [0, 1), as in `Block`.
        stochastic_depth: float in [0, 1), as in `Block`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.HybridBlock(["mamba", {"type": "sliding_attention", "window": 64}])
    print(block(np.ones((2, 7, 16), "float32")).shape)  # (2, 7, 16)
    ```
    """

    def __init__(
        self,
        mixers: list[Annotated[Any, Component("sequence_mixers")]] = _HYBRID,
        arrangement: Literal["parallel", "interleaved"] = "parallel",
        channel_mixer: Annotated[Any, Component("channel_mixers")] | None = "gated_mlp",
        norm: Annotated[Any, Component("norms")] | None = None,
        norm_position: Literal["pre", "post"] = "pre",
        residual: Literal["plain", "scaled", "gated", "none"] = "plain",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        **kwargs: Any,
    ):
        BlockStack.__init__(self, **kwargs)
        if not isinstance(mixers, list | tuple) or not mixers:
            raise ValueError(
                f"`HybridBlock` received mixers={mixers!r}, expected a list of at least one name "
                "or configuration of a sequence mixer."
            )
        self._take_options(norm, norm_position, residual, dropout, stochastic_depth)
        self.arrangement = arrangement
        self.stack = []
        self.channel_mixer = channel_mixer
        if arrangement == "parallel":
            both = ParallelMixers(mixers, dtype=self.dtype_policy, name="mixer")
            self.stack.append(self._block("time", both, SEQUENCE))
            self.channel_mixer = self._add_channel_mixer(channel_mixer)
            built = both.mixers
        else:
            built = []
            for i, mixer in enumerate(mixers):
                self.stack.append(self._block(f"time_{i}", mixer, SEQUENCE))
                built.append(self.stack[-1].mixer)
                self.channel_mixer = self._add_channel_mixer(channel_mixer, f"_{i}")
        self.mixers = [registry.part_config(mixer, SEQUENCE) for mixer in built]

    def get_config(self) -> dict[str, Any]:
        config = BlockStack.get_config(self)
        for key in ("mixers", "channel_mixer", "norm"):
            config[key] = registry.plain(getattr(self, key))
        for key in ("arrangement", *PLAIN):
            config[key] = getattr(self, key)
        return config
