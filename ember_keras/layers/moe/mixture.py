"""A mixture of experts: a router, experts, and what makes one output of theirs."""

from __future__ import annotations

import math
from typing import Annotated, Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence
from ember_keras.layers.common.heads import require_at_least, require_positive
from ember_keras.layers.moe import dispatch, statistics
from ember_keras.layers.moe.experts import Experts
from ember_keras.layers.moe.refusals import (
    require_experts,
    require_parts_that_agree,
    require_same_width,
)
from ember_keras.layers.moe.routers import Routing
from ember_keras.layers.sequence_mixing.base import SequenceMixer, Stateful

EXPERTS = ("experts", "channel_mixers", "sequence_mixers", "blocks")
SHARED = ("channel_mixers", "sequence_mixers", "blocks", "experts")
METRICS = ("load", "dropped", "entropy")


@registry.channel_mixers.register("mixture_of_experts")
class MixtureOfExperts(SequenceMixer):
    """A router sends each token to a few of many experts, and their outputs are combined.

    For more parameters at the same cost a token: the cost grows with `top_k`, not with
    `num_experts`. Experts that treat each position alone (`mlp`, `gated_mlp`, `dense`) run as
    grouped products over tokens sorted by expert (`ember_keras.ops.grouped_matmul`); padding is
    routed nowhere. Experts that mix positions (`transformer`, `hyena`, any sequence mixer or block)
    and layers from elsewhere run on whole sequences, and their outputs count where the router
    chose them.

    `y = sum_{i in top-k} g_i(x) f_i(x) + shared(x)` (Shazeer et al. 2017, arXiv 1701.06538,
    equation 1; shared experts: Dai et al. 2024, arXiv 2401.06066, equation 9).

    In training it adds its losses to the model's, a load balance loss where the router needs one
    and a z-loss, and moves its statistics: `fit` shows the largest load over the mean one, the
    dropped fraction and the router's entropy of each mixture.

    Args:
        num_experts: int or None. E; None is as many as `experts` names, or 8.
        top_k: int. How many experts a token goes to.
        expert: a name, configuration or layer of `registry.experts`, `channel_mixers`,
            `sequence_mixers` or `blocks`: what each expert is.
        experts: list of these or None. In place of `expert`: what each one is, by itself.
        shared_expert: one of these or None: an expert that every token goes to as well.
        router: a name or configuration of `registry.routers`.
        combiner: a name or configuration of `registry.combiners`.
        capacity_factor: float or None. In training, an expert takes at most `capacity_factor k / E`
            times the batch's tokens, the first ones; the others lose it. None drops nothing, and in
            prediction nothing is dropped.
        load_balance: float. The weight of the load balance loss.
        z_loss: float. The weight of the z-loss.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(num_experts=16, top_k=2, shared_expert="gated_mlp")
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    def __init__(
        self,
        num_experts: int | None = None,
        top_k: int = 2,
        expert: Annotated[Any, Component(*EXPERTS)] = "gated_mlp",
        experts: list[Annotated[Any, Component(*EXPERTS)]] | None = None,
        shared_expert: Annotated[Any, Component(*SHARED)] | None = None,
        router: Annotated[Any, Component("routers")] = "softmax",
        combiner: Annotated[Any, Component("combiners")] = "weighted_sum",
        capacity_factor: float | None = None,
        load_balance: float = 0.01,
        z_loss: float = 0.001,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        require_experts(experts)
        count = num_experts or (8 if experts is None else len(experts))
        require_at_least(self, 1, num_experts=num_experts, top_k=top_k)
        require_at_least(self, 0, load_balance=load_balance, z_loss=z_loss)
        require_positive(self, capacity_factor=capacity_factor)
        if experts is not None and len(experts) != count:
            raise ValueError(
                f"`MixtureOfExperts` received num_experts={num_experts} and {len(experts)} "
                "experts, expected as many. Leave num_experts out."
            )
        if top_k > count:
            raise ValueError(
                f"`MixtureOfExperts` received top_k={top_k} of {count} experts, expected at most "
                "as many. Lower top_k."
            )
        self.num_experts, self.top_k, self._count = num_experts, top_k, count
        self.capacity_factor = capacity_factor
        self.load_balance, self.z_loss = load_balance, z_loss
        self.router = registry.build_part(router, ("routers",), self.dtype_policy, "router")
        self.router.connect(count, top_k)
        self.combiner = registry.build_part(combiner, ("combiners",), self.dtype_policy, "combiner")
        self.combiner.connect(self.router.slots or top_k)
        self._sums = registry.combiners.name_of(self.combiner) == "weighted_sum"
        self._make_experts(expert, experts)
        self.shared_expert = None
        if shared_expert is not None:
            self.shared_expert = registry.build_part(
                shared_expert, SHARED, self.dtype_policy, "shared_expert"
            )
        require_parts_that_agree(self.router, self.combiner, self.whole, capacity_factor)

    def _make_experts(self, expert: Any, experts: Any) -> None:
        """Stacks of equal experts, by the number of their first one, and the others by theirs."""
        given = [expert] if experts is None else experts
        first = [_expert(each, self.dtype_policy, f"expert_{i}") for i, each in enumerate(given)]
        configs = [registry.plain(registry.part_config(each, EXPERTS)) for each in first]
        self.expert = configs[0] if experts is None else registry.plain(expert)
        self.experts = None if experts is None else configs
        self.stacks: list[Any] = []
        self.whole: list[Any] = []
        self._starts: list[int] = []
        self._numbers: list[int] = []
        if experts is None and isinstance(first[0], Experts):
            first[0].connect(self._count)
            self.stacks, self._starts = first, [0]
            return

        def config(number: int) -> Any:
            return configs[0] if experts is None else configs[number]

        start = 0
        while start < self._count:
            end = start + 1
            made = first[start] if start < len(first) else None
            if made is None:
                made = _expert(config(start), self.dtype_policy, f"expert_{start}")
            if isinstance(made, Experts):
                while end < self._count and config(end) == config(start):
                    end += 1
                made.connect(end - start)
                self.stacks.append(made)
                self._starts.append(start)
            else:
                self.whole.append(made)
                self._numbers.append(start)
            start = end

    @property
    def is_causal(self) -> bool:
        parts = [self.router, *self._moving()]
        return all(getattr(part, "is_causal", True) for part in parts)

    def _require_length(self, x: Any) -> None:
        if self.router.slots is None:  # It compares the positions of a sequence.
            super()._require_length(x)

    def _moving(self) -> list[Any]:
        """The experts that carry a state, the shared one last."""
        return [each for each in (*self.whole, self.shared_expert) if isinstance(each, Stateful)]

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self.router.build(input_shape)
        for stack in self.stacks:
            stack.build((None, width))
        for each in (*self.whole, self.shared_expert):
            if each is not None:
                each.build(input_shape)
        self.combiner.build((None, None, width))
        self.use = self.add_weight(
            (self._count + 2,),
            "zeros",
            dtype="float32",
            trainable=False,
            name="use",
            autocast=False,
        )
        place = list(dict.fromkeys(self.path.split("/")[1:])) or [self.name]
        self.reports = [
            statistics.RouterMetric(of, self.use, name="_".join([*place, of]), dtype="float32")
            for of in METRICS
        ]
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
        options = {"mask": mask, "segment_ids": segment_ids, "training": training}
        before = [None] * len(self._moving()) if state is None else list(state)
        outputs: list[Any] = []
        after: list[Any] = []
        for each in (*self.whole, self.shared_expert):
            if each is None:
                continue
            if isinstance(each, Stateful):
                y = each(x, state=before[len(after)], return_state=return_state, **options)
                y, past = y if return_state else (y, None)
                after.append(past)
            else:
                y = each(x, training=training)
            require_same_width(each, x, y)
            outputs.append(y)
        if x.shape[0] == 0:
            return x, after if return_state else None
        shared = None if self.shared_expert is None else outputs.pop()
        routing = self.router(x, mask=mask, segment_ids=segment_ids, training=training)
        if routing.mixing is not None:
            y, chosen, dropped = self._mixed(x, routing, training), None, None
        elif routing.gates is not None:
            y, chosen, dropped = self._taken(x, routing, outputs, training), None, None
        else:
            y, chosen, dropped = self._sent(x, routing, outputs, mask, training)
        if training is not None:
            self._report(routing, chosen, dropped, mask, training)
        if shared is not None:
            y = y + shared
        return y, after if return_state else None

    def _sent(
        self, x: Any, routing: Routing, whole: list[Any], mask: Any, training: bool | None
    ) -> tuple[Any, Any, Any]:
        """The output, which places the router wants `(B, T, K)`, and the part of them dropped."""
        slots, width = int(routing.experts.shape[2]), int(x.shape[2])
        wanted = routing.chosen
        if mask is not None:
            wanted = ops.logical_and(wanted, mask[..., None])
        if self.combiner.most is not None:
            rank = ops.arange(slots, dtype="int32")
            wanted = ops.logical_and(wanted, rank < self.combiner.most)
        experts, chosen = (ops.reshape(v, (-1, slots)) for v in (routing.experts, wanted))
        tokens = ops.reshape(x, (-1, width))
        dropped = None
        if training and self.capacity_factor is not None:
            places = dispatch.sort_places(experts, chosen, self._count)
            count = ops.shape(tokens)[0] if mask is None else ops.sum(ops.cast(mask, "int32"))
            room = self._capacity(self.capacity_factor, count)
            kept = ops.logical_and(chosen, dispatch.rank_of(places, experts) < room)
            lost = ops.sum(ops.cast(chosen, "float32")) - ops.sum(ops.cast(kept, "float32"))
            dropped = lost / ops.maximum(ops.sum(ops.cast(chosen, "float32")), 1.0)
            chosen = kept
        weights = ops.reshape(routing.weights, (-1, slots))
        weights = ops.where(chosen, weights, ops.zeros_like(weights))
        y = self._summed(tokens, experts, chosen, weights, training)
        if y is not None:
            return ops.reshape(y, ops.shape(x)), wanted, dropped
        if self.stacks:
            places = dispatch.sort_places(experts, chosen, self._count)
            rows = dispatch.to_rows(tokens, places, slots)
            rows = self._run_stacks(rows, places.offsets, training)
            y = dispatch.to_places(rows, places, slots)
        for number, output in zip(self._numbers, whole, strict=True):
            here = ops.equal(experts, number)[..., None]
            output = ops.reshape(output, (-1, 1, width))
            output = ops.where(here, output, ops.zeros_like(output))
            y = output if y is None else y + output
        y = self.combiner(y, weights=weights, chosen=chosen, tokens=tokens)
        return ops.reshape(y, ops.shape(x)), wanted, dropped

    def _summed(
        self, tokens: Any, experts: Any, chosen: Any, weights: Any, training: bool | None
    ) -> Any | None:
        """The output `(N, D)`, where all experts are of one stack that sums them by itself."""
        if self.whole or len(self.stacks) != 1 or not self._sums:
            return None
        experts = ops.where(chosen, experts, ops.full_like(experts, self._count))
        weights = ops.cast(weights, tokens.dtype)
        return self.stacks[0].weighted_sum(tokens, experts, weights, training)

    def _capacity(self, factor: float, tokens: Any) -> Any:
        # Less by more than float32 rounds up by: a whole number of places stays what it is.
        share = factor * self.top_k / self._count * (1 - 2**-22)
        if isinstance(tokens, int):
            return max(1, math.ceil(share * tokens))
        room = ops.ceil(share * ops.cast(tokens, "float32"))
        return ops.maximum(ops.cast(room, "int32"), 1)

    def _run_stacks(self, rows: Any, offsets: Any, training: bool | None) -> Any:
        y = None
        for start, stack in zip(self._starts, self.stacks, strict=True):
            own = offsets[start : start + stack.count + 1]
            found = stack(rows, offsets=own, training=training)
            y = found if y is None else y + found
        return y

    def _taken(self, x: Any, routing: Routing, whole: list[Any], training: bool | None) -> Any:
        """The sum over the experts that have chosen a token, each times its gate."""
        width = int(x.shape[2])
        tokens = ops.reshape(x, (-1, width))
        gates = ops.reshape(routing.gates, (-1, self._count))
        y = ops.zeros_like(tokens)
        if self.stacks:
            count = ops.shape(tokens)[0]
            taken = ops.reshape(routing.taken, (-1, self._count))
            pairs = dispatch.sort_taken(taken, count * self.top_k)
            rows = ops.take(tokens, pairs.token, axis=0)
            rows = self._run_stacks(rows, pairs.offsets, training)
            weights = ops.take(
                ops.reshape(gates, (-1,)), pairs.token * self._count + pairs.expert, axis=0
            )
            rows = rows * ops.cast(weights, rows.dtype)[:, None]
            y = ops.segment_sum(rows, pairs.token, num_segments=count)
            # No expert takes a token whose gates are no numbers: its output is none either.
            lost = ops.any(ops.isnan(gates), axis=-1, keepdims=True)
            y = ops.where(lost, ops.full_like(y, float("nan")), y)
        for number, output in zip(self._numbers, whole, strict=True):
            gate = ops.cast(gates[:, number], x.dtype)[:, None]
            y = y + gate * ops.reshape(output, (-1, width))
        return ops.reshape(y, ops.shape(x))

    def _mixed(self, x: Any, routing: Routing, training: bool | None) -> Any:
        """The experts' outputs for their slots, mixed into tokens again."""
        mixing, width, count = routing.mixing, int(x.shape[2]), self._count
        slots = ops.matmul(ops.cast(mixing.dispatch, x.dtype), x)  # (B, S, D)
        own = mixing.slots
        rows = ops.reshape(slots, (-1, count, own, width))
        rows = ops.reshape(ops.transpose(rows, (1, 0, 2, 3)), (-1, width))
        each = ops.shape(rows)[0] // count
        offsets = ops.arange(count + 1, dtype="int32") * each
        rows = self._run_stacks(rows, ops.cast(offsets, "int32"), training)
        rows = ops.transpose(ops.reshape(rows, (count, -1, own, width)), (1, 0, 2, 3))
        rows = ops.reshape(rows, (-1, int(slots.shape[1]), width))
        return ops.matmul(ops.cast(mixing.combine, x.dtype), rows)

    def _report(
        self, routing: Routing, chosen: Any, dropped: Any, mask: Any, training: bool
    ) -> None:
        load = statistics.expert_loads(routing, chosen, self._count, mask)
        if training and not self.router.balances_itself and self.load_balance:
            loss = statistics.load_balance(routing, load, mask)
            self.add_loss(ops.cast(self.load_balance * loss, "float32"))
        if training and routing.logits is not None and self.z_loss:
            loss = statistics.z_loss(routing, mask)
            self.add_loss(ops.cast(self.z_loss * loss, "float32"))
        dropped = ops.zeros((), "float32") if dropped is None else dropped
        use = statistics.pack(load, dropped, statistics.entropy(routing, mask))
        self.use.assign(use)
        self.update_reports()

    def update_reports(self) -> None:
        """Adds what the last batch has shown to the metrics of this mixture."""
        for report in self.reports:
            report.update_state(self.use)

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return [each.initial_state(batch_size, max_length) for each in self._moving()]

    def output_weights(self) -> list[Any]:
        parts = [*self.stacks, *self.whole]
        if self.shared_expert is not None:
            parts.append(self.shared_expert)
        found = [part.output_weights() for part in parts]
        return [weight for each in found for weight in each] if all(found) else []

    def get_config(self) -> dict[str, Any]:
        shared = self.shared_expert
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "top_k": self.top_k,
            "expert": registry.plain(self.expert),
            "experts": registry.plain(self.experts),
            "shared_expert": None if shared is None else registry.part_config(shared, SHARED),
            "router": registry.part_config(self.router, ("routers",)),
            "combiner": registry.part_config(self.combiner, ("combiners",)),
            "capacity_factor": self.capacity_factor,
            "load_balance": self.load_balance,
            "z_loss": self.z_loss,
        }


def _expert(given: Any, dtype: Any, name: str) -> keras.layers.Layer:
    """An expert as configured; of a channel mixer that has a stacked form, that form."""
    made = registry.build_part(given, EXPERTS, dtype, name)
    if registry.channel_mixers.name_of(made) in registry.experts.names():
        return registry.build_part(registry.to_config(made), EXPERTS, dtype, name)
    return made
