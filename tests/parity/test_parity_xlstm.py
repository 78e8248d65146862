"""SLSTM beside the plain PyTorch form of the package `xlstm`."""

import pytest

torch = pytest.importorskip("torch")  # Before the others, which it does not like to come after.
pytest.importorskip("xlstm")
from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig  # noqa: E402

from ember_keras import interop  # noqa: E402

WIDTH = 12


def layer_of(heads=4, taps=4, **options):
    config = sLSTMLayerConfig(
        embedding_dim=WIDTH,
        num_heads=heads,
        conv1d_kernel_size=taps,
        backend="vanilla",
        dtype="float32",
        enable_automatic_mixed_precision=False,
        **options,
    )
    return sLSTMLayer(config)


@pytest.mark.parametrize("heads, taps", ((3, 4), (2, 0), (1, 3)))
def test_layer(heads, taps, agrees, shaken):
    module = shaken(layer_of(heads, taps))
    agrees(interop.xlstm.slstm(module), module)


def test_what_has_no_counterpart_is_refused():
    with pytest.raises(ValueError, match="dropout=0.1"):
        interop.xlstm.slstm(layer_of(dropout=0.1))
