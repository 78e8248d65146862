"""What the laws are tested on: everything in the registry, as it stands, and in its main variants.

A mixer, block or model that is registered is a case from that moment, built with no arguments; the
variants below add the options that change its mathematics.
"""

import dataclasses
from typing import Any

import numpy as np

import ember_keras as ek
from ember_keras.blocks.named import Configured

import keras  # isort: skip - under mlx after ember_keras

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "attention": [
        {"num_heads": 4, "num_kv_heads": 2},
        {"num_heads": 2, "head_dim": 3, "use_bias": True},
        {"rotary": False, "output_gate": True, "head_norm": "rms_norm", "output_bias": True},
        {"causal": False, "rotary_scaling": {"factor": 4.0}, "rotary_fraction": 0.5},
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
    "ltc": [{"ode_unfolds": 2, "wiring": {"type": "ncp", "units": 13}}],
    "cfc": [
        {"mode": "pure", "backbone_layers": 0},
        {"mode": "no_gate", "backbone_layers": 2, "backbone_units": 9, "activation": "silu"},
        {"wiring": "ncp"},
        {"mode": "pure", "wiring": {"type": "random", "units": 11}},
    ],
    "gru": [{"reset_after": False}],
    "slstm": [{"num_heads": 2, "short_taps": 0}],
    "linear_attention": [
        {"feature_map": "taylor", "feature_dim": 3},
        {"feature_map": "hedgehog", "normalize": False},
    ],
    "mamba2": [{"head_dim": 4, "num_groups": 2}],
    "gated_delta_net": [{"num_key_heads": 2, "value_dim": 3, "negative_eigenvalues": True}],
    "delta_net": [{"negative_eigenvalues": True}],
    "hgrn2": [{"lower_bound": 0.5, "state_dim": 3}],
    "mlstm": [{"gate_soft_cap": 5.0, "key_dim": 3, "value_dim": 5}],
    "expanded_mlstm": [{"num_heads": 2, "inner_dim": 12, "block_dim": 3}],
    "hgrn": [{"complex": False, "lower_bound": 0.5, "expansion": 2}],
    "lru": [{"state_dim": 5, "max_phase": 0.3}],
    "mamba": [
        {"state_dim": 3, "dt_rank": 2, "norm_epsilon": 1e-6, "use_bias": True},
    ],
    "min_gru": [{"positive": False, "expansion": 2}],
    "rg_lru": [{"num_heads": 2, "inner_dim": 12, "scale_first": False}],
    "bidirectional": [{"mixer": {"type": "rwkv7_time_mixer", "head_dim": 4}, "merge": "concat"}],
    "pooled": [
        {"mixer": {"type": "fft_conv"}, "pool_size": 3, "pooling": "max"},
        {"mixer": "min_gru", "pool_size": 2, "pooling": "last"},
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
        {"mixer": "rwkv5_channel_mixer", "residual": "gated"},
        {"mixer": "min_gru", "residual": "scaled", "norm_position": "post"},
        {"mixer": "lru", "residual": "none"},
        {"mixer": "mamba2", "pool_size": 2, "pooling": "max"},
    ],
    "repeat": [
        {"times": 2, "blocks": ["min_gru", {"type": "repeat", "times": 2, "blocks": ["dense"]}]}
    ],
    "hybrid_block": [{"mixers": ["attention", "lru"], "arrangement": "interleaved"}],
    "sequence_model": [{"blocks": ["hyena", "gated_mlp", "attention", "mlp"]}],
    "causal_lm": [
        {"blocks": ["hyena", "gated_mlp", "attention"], "tie_embeddings": False},
        {"blocks": ["fft_conv"], "repeats": 2, "pad_token": 0, "logit_cap": 3.0},
    ],
    "masked_lm": [{"blocks": ["lru"], "tie_embeddings": False, "pad_token": 0}],
    "autoencoder": [{"blocks": ["lru"], "vocab_size": 11}],
    "forecaster": [{"blocks": ["lru"], "horizon": 2, "num_outputs": 8, "from_last": True}],
    "token_classifier": [{"blocks": ["lru", "mlp"], "vocab_size": 11, "pad_token": 0}],
    "sequence_classifier": [
        {"blocks": ["fft_conv", "mlp"], "pooling": "max"},
        {"blocks": ["hyena"], "pooling": "last", "vocab_size": 11},
        {"blocks": [{"type": "attention", "causal": False}]},
    ],
    "sequence_regressor": [{"blocks": ["hyena", "dense"], "num_outputs": 3}],
    "mixture_of_experts": [
        {
            "num_experts": 4,
            "expert": {"type": "mlp", "hidden_dim": 8},
            "router": "sigmoid",
            "shared_expert": "dense",
        },
        {"num_experts": 4, "top_k": 1, "router": "expert_choice"},
        {"num_experts": 4, "router": "soft"},
        {"experts": ["hyena", {"type": "mlp", "hidden_dim": 8}, "dense"]},
    ],
    "mlp": [{"activation": "relu", "use_bias": False}],
    "gated_mlp": [
        {"gate": "geglu", "use_bias": True},
        {"gate": "geglu_tanh", "output_gate": True},
    ],
}

WIDTH = 8
_BUILT: dict[Any, Any] = {}
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
        """A built layer or model whose weights are the same on every backend.

        What is asked for again is the same one: a test changes no weight of what it builds here.
        """
        key = (self.kind, self.id, seed, *sorted(base.items()))
        if key not in _BUILT:
            _BUILT[key] = self.build_anew(seed, **base)
        return _BUILT[key]

    def build_anew(self, seed: int = 0, **base: Any) -> Any:
        """As `build`, but one that no other test holds."""
        layer = getattr(ek.registry, self.kind).build(self.name, **dict(self.options), **base)
        build_symbolically(layer, self.inputs(np.random.default_rng(0), 1, 3))
        set_weights(layer, seed)
        return layer

    def _tokens(self) -> int | None:
        arguments = dict(self.options)
        default = {"causal_lm": 256, "masked_lm": 256, "autoencoder": 16}.get(self.name)
        return arguments.get("vocab_size", default)

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
        return self.name in ("sequence_classifier", "sequence_regressor", "forecaster")


def forget_others(case: Case) -> bool:
    """Drops the layers of all cases but one; whether there were any."""
    others = [key for key in _BUILT if key[:2] != (case.kind, case.id)]
    for key in others:
        del _BUILT[key]
    return bool(others)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "+".join(str(v) for v in value.values())
    if isinstance(value, list):
        return "+".join(_short(v) for v in value)
    return str(value)


def build_symbolically(layer: Any, x: np.ndarray) -> None:
    """Builds a layer or model for inputs such as `x`, computing nothing."""
    layer(keras.Input((None, *x.shape[2:]), dtype=x.dtype.name))


RANDOM_STARTS = {
    "log_step": -3.0,
    "log_step_bias": -3.0,
    "log_decay": -1.0,
    "log_angle": -1.0,
    "log_gain": -1.0,
}
"""Where the noise is around of weights in log space that start at random."""


def set_weights(layer: Any, seed: int) -> None:
    """Sets every weight from its place and shape alone, and away from symmetric starts."""
    for i, variable in enumerate(layer.weights):
        if "int" in variable.dtype:
            continue  # The seeds of random generators.
        rng = np.random.default_rng([seed, i])
        value = ek.backend.to_numpy(variable)
        noise = rng.normal(size=value.shape) * 0.3
        if variable.name in RANDOM_STARTS:
            value = noise + RANDOM_STARTS[variable.name]
        elif variable.name == "capacitance":  # Large enough for a memory of some positions.
            value = noise + 2.0
        elif variable.name.endswith("slope"):  # Steep enough to pass a signal on.
            value = noise + 4.0
        elif variable.name.endswith("potential") and len(value.shape) == 2:  # Of both signs.
            value = value + noise
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


def _has_state(case: Case) -> bool:
    """RWKV's channel mixers look at the position before, so they keep a mixer's laws."""
    return issubclass(getattr(ek.registry, case.kind).get(case.name), ek.layers.SequenceMixer)


def _is_configured(case: Case) -> bool:
    """Whether it is a configuration of `Block`, made of nothing else."""
    return issubclass(getattr(ek.registry, case.kind).get(case.name), Configured)


def _gives_a_dict(case: Case) -> bool:
    """The laws compare one tensor; tests/models/test_features.py keeps them for a dict of them."""
    return case.name == "feature_extractor"


_MIXERS_OF_CHANNELS = _cases("channel_mixers")
_ALL = [
    *(c for c in _cases("sequence_mixers", "blocks", "models") if not _gives_a_dict(c)),
    *filter(_has_state, _MIXERS_OF_CHANNELS),
]
SEQUENCE = [case for case in _ALL if not _is_configured(case) or case.name == "hybrid_block"]
"""All that has the state contract, but what follows."""

NAMED = [case for case in _ALL if case not in SEQUENCE]
"""Blocks that are several `Block` in a row, as `repeat` is: they keep the laws as it does, and are
tested by those which would show that they are not what they say."""

CHANNEL = [case for case in _MIXERS_OF_CHANNELS if not _has_state(case)]


def _is_causal(case: Case) -> bool:
    return getattr(ek.registry, case.kind).build(case.name, **dict(case.options)).is_causal


CAUSAL = [case for case in SEQUENCE if _is_causal(case)]
BIDIRECTIONAL = [case for case in SEQUENCE if not _is_causal(case)]


def by_id(cases: list[Case]) -> dict[str, Any]:
    """The arguments of `pytest.mark.parametrize` for a list of cases."""
    return {"argvalues": cases, "ids": [case.id for case in cases]}
