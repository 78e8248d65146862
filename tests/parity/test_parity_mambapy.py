"""Mamba beside the PyTorch form of the package `mambapy`."""

import pytest

torch = pytest.importorskip("torch")
mamba = pytest.importorskip("mambapy.mamba")

from ember_keras import interop  # noqa: E402

WIDTH = 12


@pytest.mark.parametrize(
    "options",
    ({}, {"inner_layernorms": True, "bias": True, "rms_norm_eps": 1e-3, "d_conv": 3}),
    ids=("plain", "norms"),
)
def test_block(options, agrees, shaken):
    config = mamba.MambaConfig(d_model=WIDTH, n_layers=1, d_state=5, **options)
    module = shaken(mamba.MambaBlock(config))
    agrees(interop.mambapy.mamba(module), module)


def test_a_residual_block_is_refused():
    config = mamba.MambaConfig(d_model=WIDTH, n_layers=1)
    with pytest.raises(ValueError, match="expected the weights of the mixer"):
        interop.mambapy.mamba(mamba.ResidualBlock(config))
