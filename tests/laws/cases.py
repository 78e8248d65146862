"""What the laws are tested on: everything in the registry, as it stands, and in its main variants.

A mixer, block or model that is registered is a case from that moment, built with no arguments; the
variants below add the options that change its mathematics.
"""

import dataclasses
from typing import Any

import numpy as np

import ember_keras as ek

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "attention": [
        {"num_heads": 4, "num_kv_heads": 2},
        {"num_heads": 2, "head_dim": 3, "use_bias": True},
        {"rotary": False},
        {"causal": False},
    ],
    "sliding_attention": [
        {"window": 4, "num_kv_heads": 2},
        {"window": 3, "rotary": False},
        {"window": 3, "causal": False},
    ],
    "fft_conv": [
        {"filter": {"type": "explicit", "num_taps": 5}},
        {"filter": {"type": "explicit", "num_taps": 40}, "gate": False},
        {"filter": {"type": "s4d", "state_dim": 4}},
        {"filter": {"type": "decay", "num_taps": 9}},
        {"filter": {"type": "rtf", "order": 3}},
        {"causal": False},
        {"causal": False, "filter": {"type": "explicit", "num_taps": 5}},
    ],
    "hyena": [
        {"order": 3},
        {"filter": {"type": "explicit", "num_taps": 20}, "short_taps": 4},
        {"causal": False},
    ],
    "multihead_hyena": [{"num_heads": 2}, {"num_heads": 4, "causal": False}],
    "hyena_experts": [{"num_experts": 3, "active_experts": 3, "expert_dim": 3}],
    "h3": [{"head_dim": 2, "shift_taps": 3}],
    "block": [
        {"mixer": "hyena", "norm": "layer_norm", "norm_position": "post"},
        {"mixer": "gated_mlp", "norm": None},
    ],
    "sequence_model": [{"blocks": ["hyena", "gated_mlp", "attention", "mlp"]}],
    "causal_lm": [
        {"blocks": ["hyena", "gated_mlp", "attention"], "tie_embeddings": False},
        {"blocks": ["fft_conv"], "repeats": 2, "pad_token": 0},
    ],
    "sequence_classifier": [
        {"blocks": ["fft_conv", "mlp"], "pooling": "max"},
        {"blocks": ["hyena"], "pooling": "last", "vocab_size": 11},
        {"blocks": [{"type": "attention", "causal": False}]},
    ],
    "sequence_regressor": [{"blocks": ["hyena", "dense"], "num_outputs": 3}],
    "mlp": [{"activation": "relu", "use_bias": False}],
    "gated_mlp": [{"gate": "geglu", "use_bias": True}],
}

WIDTH = 8
SMALL_MODEL = {"width": WIDTH}


@dataclasses.dataclass(frozen=True)
class Case:
    """A configuration of something registered, and how to feed it."""

    kind: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def id(self) -> str:
        """The case's name in a test's name."""
        return "-".join([self.name, *(f"{key}={_short(value)}" for key, value in self.options)])

    def build(self, seed: int = 0, **base: Any) -> Any:
        """A built layer or model whose weights are the same on every backend."""
        layer = getattr(ek.registry, self.kind).build(self.name, **dict(self.options), **base)
        layer(self.inputs(np.random.default_rng(0), 1, 3))
        set_weights(layer, seed)
        return layer

    def _tokens(self) -> int | None:
        arguments = dict(self.options)
        return arguments.get("vocab_size", 256 if self.name == "causal_lm" else None)

    def inputs(self, rng: np.random.Generator, batch: int, time: int) -> np.ndarray:
        """A batch of inputs, `(B, T)` tokens or `(B, T, D)` vectors."""
        vocabulary = self._tokens()
        if vocabulary is not None:
            return rng.integers(1, vocabulary, size=(batch, time)).astype("int32")
        return rng.normal(size=(batch, time, WIDTH)).astype("float32")

    @property
    def takes_tokens(self) -> bool:
        """Whether its input is tokens, which have no gradient."""
        return self._tokens() is not None

    @property
    def summarizes(self) -> bool:
        """Whether it gives one answer for a sequence, in place of one a position."""
        return self.name in ("sequence_classifier", "sequence_regressor")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "+".join(str(v) for v in value.values())
    if isinstance(value, list):
        return "+".join(_short(v) for v in value)
    return str(value)


def set_weights(layer: Any, seed: int) -> None:
    """Sets every weight from its place and shape alone, and away from symmetric starts."""
    for i, variable in enumerate(layer.weights):
        if "int" in variable.dtype:
            continue  # The seeds of random generators.
        rng = np.random.default_rng([seed, i])
        value = ek.backend.to_numpy(variable)
        noise = rng.normal(size=value.shape) * 0.3
        if variable.name == "log_step":  # Which starts at random.
            value = noise - 3.0
        elif variable.name.startswith(("log_", "frequency")):
            value = value + noise
        elif variable.name == "denominator":  # Whose poles lie inside the circle.
            value = 0.8 * noise / np.abs(noise).sum(axis=0)
        elif len(value.shape) == 1:
            value = noise + (1.0 if variable.name in ("scale", "gamma", "skip") else 0.0)
        else:
            value = noise * (2.0 / value.shape[0] ** 0.5)
        variable.assign(value.astype(variable.dtype))


def _cases(*kinds: str) -> list[Case]:
    found = []
    for kind in kinds:
        for name in getattr(ek.registry, kind).names():
            base = SMALL_MODEL if kind == "models" and name != "sequence_model" else {}
            for options in [{}, *VARIANTS.get(name, [])]:
                found.append(Case(kind, name, tuple({**base, **options}.items())))
    return found


SEQUENCE = _cases("sequence_mixers", "blocks", "models")
"""All that has the state contract."""

CHANNEL = _cases("channel_mixers")


def _is_causal(case: Case) -> bool:
    return getattr(ek.registry, case.kind).build(case.name, **dict(case.options)).is_causal


CAUSAL = [case for case in SEQUENCE if _is_causal(case)]
BIDIRECTIONAL = [case for case in SEQUENCE if not _is_causal(case)]


def by_id(cases: list[Case]) -> dict[str, Any]:
    """The arguments of `pytest.mark.parametrize` for a list of cases."""
    return {"argvalues": cases, "ids": [case.id for case in cases]}
