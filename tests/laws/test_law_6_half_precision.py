"""Law 6: bfloat16 and float16 stay finite and close; what cannot work is refused when built."""

import keras
import numpy as np
import pytest
from keras import tree
from laws import cases
from laws.support import call, run, step

import ember_keras as ek

# A rounding of half precision is 2^-8 or 2^-11; a handful of them, in layers with gates, stay
# below.
TOLERANCE = {"bfloat16": 0.06, "float16": 0.01}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE + cases.CHANNEL))
def test_half_precision_stays_finite_and_close(case, policy, rng):
    x = case.inputs(rng, 2, 33)
    exact = run(case.build(), x)
    y = run(case.build(dtype=policy), x).astype("float32")
    assert np.isfinite(y).all()
    error = np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2))
    assert error <= TOLERANCE[policy.removeprefix("mixed_")]


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE + cases.CHANNEL))
def test_the_output_has_the_compute_dtype_and_the_weights_theirs(case, rng):
    layer = case.build(dtype="mixed_bfloat16")
    y = call(layer, case.inputs(rng, 1, 4))
    expected = "float32" if case.kind == "models" and case.name != "sequence_model" else "bfloat16"
    assert keras.backend.standardize_dtype(y.dtype) == expected
    floats = [w for w in layer.trainable_weights if "float" in w.dtype]
    assert all(w.dtype == "float32" for w in floats)


POLES = (
    "log_angle", "log_decay", "log_frequency", "log_gain", "log_rate", "log_step",
    "log_step_bias", "step_bias", "decay_bias",
)  # fmt: skip


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE))
def test_poles_decays_and_angles_are_not_rounded(case):
    layer = case.build(dtype="bfloat16")
    poles = [w for w in layer.weights if w.name in POLES]
    assert [w.path for w in poles if w.dtype != "float32"] == []


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE + cases.CHANNEL))
@pytest.mark.skipif(
    ek.backend.name() != "numpy", reason="the other libraries cast what a start gives"
)
def test_weights_start_in_their_own_dtype(case, rng):
    """numpy keeps the dtype that an initializer gives, and a file would round it."""
    build = getattr(ek.registry, case.kind).build
    layer = build(case.name, **dict(case.options), dtype="bfloat16")
    cases.build_symbolically(layer, case.inputs(rng, 1, 3))
    given = {w.path: keras.backend.standardize_dtype(w.value.dtype) for w in layer.weights}
    assert given == {w.path: w.dtype for w in layer.weights}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("case", **cases.by_id(cases.CAUSAL))
def test_a_state_keeps_its_dtypes_in_half_precision(case, policy, rng):
    layer = case.build(dtype=policy)
    x = case.inputs(rng, 1, 6)
    state = layer.initial_state(1, 8)
    packed = {} if case.summarizes else {"segment_ids": np.array([[4, 4, 5, 5, 5]], "int32")}
    _, after = call(layer, x[:, :5], state=state, return_state=True, **packed)
    _, later = step(layer, x[:, 5], after)
    dtypes = [[leaf.dtype for leaf in tree.flatten(s)] for s in (state, after, later)]
    assert dtypes[0] == dtypes[1] == dtypes[2]


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="heads do not divide"):
        ek.layers.Attention(num_heads=3)(np.ones((1, 4, 8), "float32"))


def test_options_that_cannot_work_are_refused():
    for name, options in (
        ("attention", {"num_heads": 4, "num_kv_heads": 3}),
        ("attention", {"num_heads": 0}),
        ("attention", {"rotary_base": 0.5}),
        ("hyena", {"order": 1}),
        ("hyena", {"short_taps": 0}),
        ("fft_conv", {"filter": {"type": "explicit", "num_taps": 0}}),
        ("fft_conv", {"filter": {"type": "s4d", "min_step": 1.0, "max_step": 0.1}}),
    ):
        with pytest.raises(ValueError, match="received"):
            ek.registry.sequence_mixers.build(name, **options)
    with pytest.raises(ValueError, match="bidirectional"):
        ek.models.CausalLM(blocks=[{"type": "attention", "causal": False}])
