"""Law 2: causal means causal, and bidirectional forms do see the future."""

import numpy as np
import pytest
from laws import cases
from laws.support import run


def _with_other_future(case, rng, x, at):
    other = x.copy()
    other[:, at:] = case.inputs(rng, len(x), x.shape[1] - at)
    if not case.takes_tokens:
        other[:, at:] *= 5
    return other


@pytest.mark.parametrize("case", **cases.by_id([c for c in cases.CAUSAL if not c.summarizes]))
def test_the_future_changes_no_past_output(case, rng, assert_close):
    layer = case.build()
    for time in (13, 40):  # In the second, filters are transforms.
        x = case.inputs(rng, 2, time)
        y = run(layer, x)
        for at in (1, 6, time - 1):
            changed = run(layer, _with_other_future(case, rng, x, at))
            assert_close(changed[:, :at], y[:, :at], 1e-5, name=f"before {at} of {time}")


# A block around a channel mixer moves nothing along time, nor do experts that are none.
MIXES_TIME = [
    case
    for case in cases.CAUSAL
    if not case.summarizes
    and dict(case.options).get("mixer") != "gated_mlp"
    and (case.name != "mixture_of_experts" or "experts" in dict(case.options))
]


@pytest.mark.parametrize("case", **cases.by_id(MIXES_TIME))
def test_the_past_changes_later_outputs_where_time_is_mixed(case, rng):
    layer = case.build()
    x = case.inputs(rng, 1, 7)
    other = x.copy()
    other[:, 3] = case.inputs(rng, 1, 1)[:, 0]
    # RWKV's channel mixers see one position back, everything else sees all.
    later = 4 if "channel_mixer" in case.id else 5
    assert np.abs(run(layer, x) - run(layer, other))[:, later:].max() > 1e-6


@pytest.mark.parametrize(
    "case", **cases.by_id([c for c in cases.BIDIRECTIONAL if not c.summarizes])
)
def test_bidirectional_forms_see_the_future(case, rng):
    layer = case.build()
    x = case.inputs(rng, 1, 6)
    changed = run(layer, _with_other_future(case, rng, x, 4))
    assert np.abs(run(layer, x)[:, 3] - changed[:, 3]).max() > 1e-6


@pytest.mark.parametrize("case", **cases.by_id(cases.CHANNEL))
def test_channel_mixers_move_nothing_along_time(case, rng, assert_close):
    layer = case.build()
    x = case.inputs(rng, 2, 7)
    together = run(layer, x)
    for t in range(7):
        assert_close(run(layer, x[:, t : t + 1]), together[:, t : t + 1], 1e-5)
