"""SLSTM and both forms of MLSTM beside the plain PyTorch forms of the package `xlstm`."""

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


def large_layer(**options):
    pytest.importorskip("mlstm_kernels")
    from mlstm_kernels.torch.backend_module import mLSTMBackendConfig
    from xlstm.xlstm_large.model import mLSTMLayer, mLSTMLayerConfig

    backend = mLSTMBackendConfig(mode="inference", autocast_kernel_dtype="float32")
    config = mLSTMLayerConfig(embedding_dim=WIDTH, num_heads=3, mlstm_backend=backend, **options)
    return mLSTMLayer(config)


@pytest.mark.parametrize(
    "options",
    ({"gate_soft_cap": 2.0}, {"qk_dim_factor": 1.0, "v_dim_factor": 1.5, "weight_mode": "fused"}),
    ids=("single", "fused"),
)
def test_layer_of_the_large_model(options, agrees, shaken):
    module = shaken(large_layer(**options))
    agrees(interop.xlstm.mlstm(module), lambda x: module(x)[0])


def expanded_layer(**options):
    from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig

    config = mLSTMLayerConfig(
        embedding_dim=WIDTH, context_length=32, round_proj_up_to_multiple_of=8, **options
    )
    return mLSTMLayer(config)


@pytest.mark.parametrize(
    "options",
    ({}, {"num_heads": 2, "proj_factor": 1.2, "qkv_proj_blocksize": 8, "conv1d_kernel_size": 3}),
    ids=("default", "others"),
)
def test_layer_of_the_first_models(options, agrees, shaken):
    module = shaken(expanded_layer(**options))
    agrees(interop.xlstm.expanded_mlstm(module), module)


def test_what_has_no_counterpart_is_refused():
    with pytest.raises(ValueError, match="dropout=0.1"):
        interop.xlstm.slstm(layer_of(dropout=0.1))
    with pytest.raises(ValueError, match="use_bias=True"):
        interop.xlstm.mlstm(large_layer(use_bias=True))
    with pytest.raises(ValueError, match="mLSTMLayer of xlstm.xlstm_large"):
        interop.xlstm.mlstm(layer_of())
    for options in ({"bias": True}, {"dropout": 0.1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            interop.xlstm.expanded_mlstm(expanded_layer(**options))
    with pytest.raises(ValueError, match="mLSTMLayer of xlstm.blocks.mlstm.layer"):
        interop.xlstm.expanded_mlstm(layer_of())
