"""What a model takes, before it runs: memory, arithmetic, and bytes read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras

from ember_keras import backend
from ember_keras.layers.moe.mixture import MixtureOfExperts
from ember_keras.models.abstract import Abstract, abstract
from ember_keras.models.base import EmberModel
from ember_keras.ops.counting import bytes_of, counting

COMPILER = "compiler"
COUNTED = "counted"
ANALYTIC = "analytic"

HOW = {
    COMPILER: "laid out by the compiler of this backend, for this machine",
    COUNTED: "exact, from shapes and the rules of the engines",
    ANALYTIC: "a sum over products and engines; a run may take twice as much, or half",
}
"""What each word in `Estimate.sources` means."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What `estimate` found. Sizes are bytes; a field that does not apply is None.

    Attributes:
        batch_size: int, B.
        length: int, T.
        parameters: int, numbers in the weights.
        parameter_bytes: int, of all weights.
        gradient_bytes: int or None, of the trainable ones.
        optimizer_bytes: int or None, what the optimizer keeps.
        activation_bytes: int or None, what else a training step holds at its peak.
        training_peak_bytes: int or None, a training step's peak: all of the above and the batch.
        inference_peak_bytes: int, the peak of one call on the whole batch.
        state_bytes: int or None, a sequence's state after `length` positions; None where the model
            has no state.
        flops_per_token: int, a forward pass, divided by `B T`.
        training_flops_per_token: int or None, forward and backward: three times that.
        bytes_per_token: int or None, what a step of decoding reads for each of its B tokens.
        sources: dict from field to "counted", "compiler" or "analytic"; `HOW` says what they mean.
    """

    batch_size: int
    length: int
    parameters: int
    parameter_bytes: int
    gradient_bytes: int | None
    optimizer_bytes: int | None
    activation_bytes: int | None
    training_peak_bytes: int | None
    inference_peak_bytes: int
    state_bytes: int | None
    flops_per_token: int
    training_flops_per_token: int | None
    bytes_per_token: int | None
    sources: dict[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """Each figure with its name, in words, and how it was got."""
        found = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in self.sources and value is not None:
                is_size = "bytes" in field.name
                text = readable(value) if is_size else f"{value:,}"
                name = field.name.replace("_per_", " a ").replace("_bytes", "").replace("_", " ")
                if field.name == "bytes_per_token":
                    name = "bytes a token, decoding"
                if field.name == "state_bytes":
                    name = "state a sequence"
                found.append((name, text, self.sources[field.name]))
        return found

    def __str__(self) -> str:
        width = max(len(name) for name, _, _ in self.rows())
        lines = [f"{self.batch_size} x {self.length} positions"]
        lines += [f"  {name.ljust(width)}  {text:>12}  {how}" for name, text, how in self.rows()]
        return "\n".join(lines)


def readable(size: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def estimate(
    model: EmberModel,
    batch_size: int,
    length: int,
    *,
    training: bool = True,
    optimizer: Any = "adamw",
    loss: Any = None,
    width: int | None = None,
) -> Estimate:
    """Says what a model takes in memory and arithmetic, before anything of it runs.

    For choosing a batch, a length or a model that fits. A copy of the model is traced as shapes: no
    weight of it is drawn, no batch allocated. Each figure says in `sources` how it was got:

    - counted: parameters, state, operations. Operations are those of products (a product and a sum
      are two, Kaplan et al. 2020, arXiv 2001.08361, section 2.1) and of the engines, each by the
      rule of its mathematics, whichever kernel runs: attention counts the pairs that see each
      other, a long convolution its transforms, a recurrence its steps. Norms, activations and
      other elementwise work are left out. A backward pass counts twice the forward pass.
    - compiler: under jax, the peaks are those of the compiled step that `fit` runs, of the compiled
      call, on this machine: arguments, results and temporary memory as XLA lays them out. It is
      compiled for that, which takes as long as the first batch of `fit`.
    - analytic: elsewhere, activations are what products and engines read and write.

    A step of decoding reads every weight that it needs once, for all rows: embeddings one row a
    token, experts those that B tokens meet where routing is even; and the state of each sequence.

    Args:
        model: a model of `ek.models`, built or not.
        batch_size: int >= 1, B.
        length: int >= 1, T.
        training: bool. Whether a training step is estimated too.
        optimizer: a name, configuration or `keras.optimizers.Optimizer`, of the training step.
        loss: a name or `keras.losses.Loss`, of the training step. When None, cross-entropy for
            tokens and classes, the pinball loss for quantiles, else the mean squared error.
        width: int or None. The features of an input of vectors, where the model is not built.

    Returns:
        `Estimate`.

    Example:

    ```python
    import ember_keras as ek

    model = ek.models.CausalLM(vocab_size=50, width=16, blocks=["hyena", "gated_mlp"])
    found = ek.models.estimate(model, batch_size=2, length=64, training=False)
    print(found.parameters, found.flops_per_token, found.sources["flops_per_token"])
    print(found)
    ```
    """
    if not isinstance(model, EmberModel):
        raise TypeError(
            f"`estimate` received {type(model).__name__}, expected a model of `ek.models`, whose "
            "input it knows. Put the layers into a `SequenceModel`."
        )
    for name, value in (("batch_size", batch_size), ("length", length), ("width", width)):
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not fits and not (name == "width" and value is None):
            raise ValueError(
                f"`estimate` received {name}={value!r}, expected an integer of at least 1."
            )
    found = abstract(model, batch_size, length, width, optimizer, loss)
    parts = counted(found, batch_size, length)
    memory = _training(found, parts) if training else dict.fromkeys(_TRAINING)
    memory["training_flops_per_token"] = 3 * parts["flops_per_token"] if training else None
    peak, how = _inference(found, parts)
    parts.pop("kept"), parts.pop("widest")
    measured = COMPILER if how == COMPILER else ANALYTIC
    sources = {**dict.fromkeys(parts, COUNTED), **dict.fromkeys(memory, COUNTED)}
    sources.update(dict.fromkeys(("activation_bytes", "training_peak_bytes"), measured))
    sources["inference_peak_bytes"] = how
    return Estimate(
        batch_size, length, **parts, **memory, inference_peak_bytes=peak, sources=sources
    )


_TRAINING = ("gradient_bytes", "optimizer_bytes", "activation_bytes", "training_peak_bytes")


def counted(found: Abstract, batch_size: int, length: int) -> dict[str, Any]:
    """What shapes alone give: figures of `Estimate`, and bytes of activations.

    Those are all `kept` for a gradient, and the `widest` at once.
    """
    model = found.model
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    one, two = (_pass(found, rows) for rows in (1, 2))
    flops, kept, widest = (a + (batch_size - 1) * (b - a) for a, b in zip(one, two, strict=True))
    parts: dict[str, Any] = {
        "parameters": sum(math.prod(v.shape) for v in model.weights),
        "parameter_bytes": _bytes(variables),
        "flops_per_token": round(flops / (batch_size * length)),
        "state_bytes": None,
        "bytes_per_token": None,
        "kept": kept,
        "widest": widest,
    }
    if model.is_causal:
        states = [
            backend.trace(lambda a, b, n=n: found.state(a, b, n, length), *found.weights())
            for n in (1, 2)
        ]
        sizes = [_bytes(keras.tree.flatten(state)) for state in states]
        parts["state_bytes"] = sizes[1] - sizes[0]
        read = _read(model, batch_size)
        parts["bytes_per_token"] = round(read / batch_size) + parts["state_bytes"]
    return parts


def _pass(found: Abstract, rows: int) -> tuple[int, int, int]:
    """The operations of a pass over some rows, the bytes kept, and the most bytes at once."""
    counts = []

    def run(trainable: Any, other: Any, x: Any) -> Any:
        with counting([*trainable, *other]) as count:
            answer = found.answer(trainable, other, x)
        counts.append(count)
        return answer

    backend.trace(run, *found.weights(), found.inputs(rows))
    last = counts[-1]
    return last.flops, last.kept, last.widest


def _training(found: Abstract, parts: dict[str, Any]) -> dict[str, Any]:
    model = found.model
    gradients = _bytes(model.trainable_variables)
    slots = found.slot_bytes()
    held = parts["parameter_bytes"] + slots + _bytes([found.x, *keras.tree.flatten(found.y)])
    memory = found.step_memory()
    if memory is None:
        activations = parts["kept"]
        peak = held + gradients + activations
    else:
        peak = _peak(memory)
        activations = max(0, peak - held - gradients)
    return {
        "gradient_bytes": gradients,
        "optimizer_bytes": slots,
        "activation_bytes": activations,
        "training_peak_bytes": peak,
    }


def _inference(found: Abstract, parts: dict[str, Any]) -> tuple[int, str]:
    memory = found.call_memory()
    if memory is not None:
        return _peak(memory), COMPILER
    return parts["parameter_bytes"] + _bytes([found.x]) + parts["widest"], ANALYTIC


def _peak(memory: dict[str, int]) -> int:
    return sum(memory.values()) - 2 * memory["shared"]


def _read(model: Any, rows: int) -> int:
    """The bytes of the weights that one step of `rows` tokens reads."""
    unread = 0.0
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Embedding):
            table = layer.embeddings
            if not getattr(layer, "tie_weights", False):
                unread += _bytes([table]) * max(0, 1 - rows / table.shape[0])
        elif isinstance(layer, MixtureOfExperts):
            unread += _idle(layer, rows)
    return round(_bytes(model.weights) - unread)


def _idle(mixture: Any, rows: int) -> float:
    """The bytes of the experts that no token meets, where each goes to any as likely."""
    router = mixture.router
    if router.slots is None:
        return 0.0
    experts = [weight for stack in mixture.stacks for weight in stack.weights]
    return _bytes(experts) * (1 - router.slots / router.num_experts) ** rows


def _bytes(tensors: list[Any]) -> int:
    return sum(map(bytes_of, tensors))
