"""What every mixer makes of inputs that are no floats, of another size, or NaN at padding."""

import numpy as np
import pytest
from engines.support import trains
from laws.support import gradients

import ember_keras as ek  # before Keras

WIDTH, TIME = 16, 6
SEQUENCE = [
    *ek.registry.sequence_mixers.names(),
    *(name for name in ek.registry.channel_mixers.names() if "rwkv" in name),
]
EACH = pytest.mark.parametrize("name", SEQUENCE)


def build(name, width=WIDTH):
    kinds = (ek.registry.sequence_mixers, ek.registry.channel_mixers)
    kind = next(kind for kind in kinds if name in kind.names())
    layer = kind.build(name)
    layer.build((None, TIME, width))
    return layer


def same(one, other):
    """Equal up to the order of sums, which threads leave open."""
    assert np.isfinite(other).all()
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * max(1.0, np.abs(other).max()))


def numbers(rng, *shape):
    return rng.normal(size=shape).astype("float32")


@pytest.mark.parametrize("name", [*SEQUENCE, "mlp", "gated_mlp"])
def test_integers_are_numbers_and_complex_ones_are_refused(name, rng):
    layer, x = build(name), rng.integers(-3, 4, size=(2, TIME, WIDTH))
    expected = ek.backend.to_numpy(layer(x.astype("float32")))
    for dtype in ("int32", "int64"):
        same(ek.backend.to_numpy(layer(x.astype(dtype))), expected)
    with pytest.raises(TypeError, match="expected real numbers"):
        layer(x.astype("complex64"))


@EACH
def test_another_width_is_refused(name):
    layer = build(name)
    for width in (1, 8, 2 * WIDTH):
        with pytest.raises(ValueError, match=r"expected \(B, T, 16\): it was built for"):
            layer(np.zeros((2, TIME, width), "float32"))
    if layer.is_causal:
        with pytest.raises(ValueError, match=r"expected \(B, T, 16\): it was built for"):
            layer.step(np.zeros((2, 8), "float32"), layer.initial_state(2))


@EACH
def test_a_state_of_another_width_is_refused(name):
    layer = build(name)
    if not layer.is_causal:
        pytest.skip("it has no state")
    state = build(name, 2 * WIDTH).initial_state(2, 8)
    with pytest.raises(ValueError, match=r"received a state of shape .* `initial_state`"):
        layer(np.zeros((2, 3, WIDTH), "float32"), state=state, return_state=True)


@EACH
def test_a_state_of_no_size_is_refused(name):
    layer = build(name)
    if not layer.is_causal:
        pytest.skip("it has no state")
    for given in ((-1,), (1.5,), ("a",), (None,), (2, -1), (2, 0), (2, 2.5)):
        with pytest.raises(ValueError, match="expected an integer of at least"):
            layer.initial_state(*given)


def test_segment_ids_are_integers_of_any_sign(rng):
    layer, x = build("gru"), numbers(rng, 2, TIME, WIDTH)
    with pytest.raises(TypeError, match="segment_ids of dtype float32, expected integers"):
        layer(x, segment_ids=np.zeros((2, TIME), "float32"))

    def ids(value):
        return np.full((2, TIME), value, "int32")

    _, state = layer(x, segment_ids=ids(-1), return_state=True)
    fresh = ek.backend.to_numpy(layer(x, segment_ids=ids(-2)))
    other = layer(x, segment_ids=ids(-2), state=state, return_state=True)[0]
    same = layer(x, segment_ids=ids(-1), state=state, return_state=True)[0]
    np.testing.assert_allclose(ek.backend.to_numpy(other), fresh, atol=1e-6)
    assert np.abs(ek.backend.to_numpy(same) - fresh).max() > 1e-3


@trains
@EACH
def test_gradients_are_finite_whatever_stands_at_padding(name, rng):
    layer, x = build(name), numbers(rng, 2, TIME, WIDTH)
    mask = np.ones((2, TIME), bool)
    mask[0, :2], mask[1, 4:], mask[1, 2] = False, False, False
    slope = np.where(mask[..., None], numbers(rng, 2, TIME, WIDTH), np.float32(0))

    def slopes(value):
        given = np.where(mask[..., None], x, np.float32(value))
        by_weights, by_input = gradients(layer, given, slope, mask=mask)
        return [ek.backend.to_numpy(each) for each in (*by_weights, by_input)]

    for one, other in zip(slopes(np.nan), slopes(0.0), strict=True):
        same(one, other)


@pytest.mark.parametrize("name", ("ltc", "cfc"))
def test_time_deltas_below_zero_are_refused(name, rng):
    layer, x = build(name), rng.normal(size=(2, 5, WIDTH)).astype("float32")
    deltas = np.ones((2, 5), "float32")
    deltas[1, 3] = -0.5
    with pytest.raises(ValueError, match="time_deltas with -0.5"):
        layer(x, time_deltas=deltas)
    mask = deltas > 0
    assert np.isfinite(ek.backend.to_numpy(layer(x, time_deltas=deltas, mask=mask))).all()


@trains
@pytest.mark.parametrize("name", ("ltc", "cfc"))
def test_time_deltas_at_padding_may_be_anything(name, rng):
    layer, x = build(name), numbers(rng, 2, TIME, WIDTH)
    mask = np.ones((2, TIME), bool)
    mask[0, 2], mask[1, 4:] = False, False
    slope, deltas = mask[..., None] * numbers(rng, 2, TIME, WIDTH), rng.random((2, TIME))

    def slopes(value):
        given = np.where(mask, deltas, value).astype("float32")
        by_weights, by_input = gradients(layer, x, slope, mask=mask, time_deltas=given)
        return [ek.backend.to_numpy(each) for each in (*by_weights, by_input)]

    for one, other in zip(slopes(np.nan), slopes(1.0), strict=True):
        same(one, other)


def test_what_is_no_tensor_is_said_by_name(rng):
    layer, x = build("min_gru"), numbers(rng, 2, TIME, WIDTH)
    rows = [[True] * 4 + [False] * 2] * 2
    same(
        ek.backend.to_numpy(layer(x, mask=rows)), ek.backend.to_numpy(layer(x, mask=np.array(rows)))
    )
    same(ek.backend.to_numpy(layer(x, segment_ids=[[3] * TIME] * 2)), ek.backend.to_numpy(layer(x)))
    with pytest.raises(TypeError, match=r"`MinGRU` received mask='yes'.*\(2, 6\)"):
        layer(x, mask="yes")


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: ek.layers.Bidirectional(merge="nonsense"), "'sum', 'concat'"),
        (lambda: ek.layers.GatedMLP(gate="relu"), "'swiglu', 'geglu', 'geglu_tanh', 'reglu'"),
        (lambda: ek.layers.S4D(max_step=float("inf")), "max_step=inf"),
        (lambda: ek.layers.Retention(expand_values=float("inf")), "expand_values=inf"),
        (lambda: ek.layers.LTC(wiring=None), "wiring=None"),
        (lambda: ek.layers.Mamba(dtype="int32"), "dtype='int32'"),
    ],
)
def test_options_that_mean_nothing_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize("option", [{"window": 2.5}, {"scale": float("nan")}])
def test_attention_refuses_windows_and_scales_that_are_none(option, rng):
    q = numbers(rng, 1, 4, 2, 8)
    with pytest.raises(ValueError, match=f"{next(iter(option))}="):
        ek.ops.attention(q, q, q, **option)


@pytest.mark.parametrize("name", ek.registry.sequence_mixers.names())
def test_a_batch_of_no_rows_gives_none(name):
    assert tuple(build(name)(np.zeros((0, TIME, WIDTH), "float32")).shape) == (0, TIME, WIDTH)
