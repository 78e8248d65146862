"""Law 5: any length of at least one, however odd; a clear error at none."""

import numpy as np
import pytest
from laws import cases
from laws.support import call, run

import ember_keras as ek

LENGTHS = (1, 2, 17, 64, 100)
LONG = 1031


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE))
def test_every_length_gives_what_its_first_positions_give(case, rng, assert_close):
    """Odd, prime, short; a causal output at a position is the same in a longer sequence."""
    layer = case.build()
    x = case.inputs(rng, 1, max(LENGTHS))
    whole = run(layer, x)
    for length in LENGTHS:
        y = run(layer, x[:, :length])
        assert np.isfinite(y).all()
        if layer.is_causal and not case.summarizes:
            assert_close(y, whole[:, :length], name=f"length {length}")
        elif not case.summarizes:
            assert y.shape[1] == length


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE))
def test_a_long_sequence_of_prime_length_agrees_with_its_chunks(case, rng, assert_close):
    layer = case.build()
    x = case.inputs(rng, 1, LONG)
    y = run(layer, x)
    assert np.isfinite(y).all()
    if layer.is_causal:
        _, state = call(layer, x[:, :700], return_state=True)
        last, _ = call(layer, x[:, 700:], state=state, return_state=True)
        assert_close(ek.backend.to_numpy(last), y if case.summarizes else y[:, 700:])


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE))
def test_length_zero_is_refused(case, rng):
    layer = case.build()
    with pytest.raises(ValueError, match="length 0"):
        layer(case.inputs(rng, 2, 0))


@pytest.mark.parametrize("case", **cases.by_id([c for c in cases.SEQUENCE if not c.takes_tokens]))
def test_an_input_without_time_is_refused(case, rng):
    layer = case.build()
    with pytest.raises(ValueError, match=r"\(B, T, D\)"):
        layer(np.ones((2, 8), "float32"))
