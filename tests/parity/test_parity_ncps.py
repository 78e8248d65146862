"""LTC and CfC beside `ncps.torch`, with the same wiring, and irregular time steps."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")  # Before the others, which it does not like to come after.
pytest.importorskip("ncps")
from ncps import wirings  # noqa: E402
from ncps.torch import LTC, CfC  # noqa: E402

from ember_keras import interop  # noqa: E402

WIDTH, TIME = 12, 17
POSITIVE = ("gleak", "cm", "w")


def wiring_of(name):
    if name == "full":
        return wirings.FullyConnected(WIDTH)
    if name == "random":
        return wirings.Random(20, output_dim=WIDTH, sparsity_level=0.4)
    return wirings.AutoNCP(26, WIDTH)


def with_times(module):
    """The module and our options, of one row: ncps takes time steps of one sequence at a time."""
    deltas = np.random.default_rng(3).uniform(0.1, 2.0, (1, TIME)).astype("float32")
    return lambda x: module(x, timespans=torch.tensor(deltas))[0], {"time_deltas": deltas}


@pytest.mark.parametrize("implicit", (False, True))
@pytest.mark.parametrize("wiring", ("full", "random", "ncp"))
def test_ltc(wiring, implicit, agrees, shaken):
    options = {"implicit_param_constraints": implicit, "ode_unfolds": 4}
    module = LTC(WIDTH, wiring_of(wiring), **options)
    module = shaken(module, keep=("gleak", "cm", "_w", ".w", "mask"))
    mixer = interop.ncps.ltc(module)
    agrees(mixer, lambda x: module(x)[0])
    peer, options = with_times(module)
    agrees(mixer, peer, batch=1, **options)


@pytest.mark.parametrize("mode", ("default", "pure", "no_gate"))
@pytest.mark.parametrize("layers, activation", ((1, "lecun_tanh"), (2, "silu"), (0, "tanh")))
def test_cfc(mode, layers, activation, agrees, shaken):
    options = {"backbone_layers": layers, "backbone_units": 20, "activation": activation}
    module = shaken(CfC(WIDTH, WIDTH, mode=mode, **options))
    mixer = interop.ncps.cfc(module)
    agrees(mixer, lambda x: module(x)[0])
    peer, options = with_times(module)
    agrees(mixer, peer, batch=1, **options)


@pytest.mark.parametrize("mode", ("default", "pure", "no_gate"))
@pytest.mark.parametrize("wiring", ("full", "ncp"))
def test_wired_cfc(mode, wiring, agrees, shaken):
    module = shaken(CfC(WIDTH, wiring_of(wiring), mode=mode), keep=("sparsity_mask",))
    mixer = interop.ncps.cfc(module)
    agrees(mixer, lambda x: module(x)[0])
    peer, options = with_times(module)
    agrees(mixer, peer, batch=1, **options)


def test_what_has_no_counterpart_is_refused():
    with pytest.raises(ValueError, match="mixed_memory"):
        interop.ncps.cfc(CfC(WIDTH, WIDTH, mixed_memory=True))
    with pytest.raises(ValueError, match="proj_size"):
        interop.ncps.cfc(CfC(WIDTH, WIDTH, proj_size=3))
    with pytest.raises(ValueError, match="12 inputs and 5 outputs"):
        interop.ncps.ltc(LTC(WIDTH, wirings.AutoNCP(20, 5)))
