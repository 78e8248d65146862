"""Mamba-2 and Gated DeltaNet beside transformers: same weights, outputs, steps and gradients."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from ember_keras import interop  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

WIDTH = 12


def mamba2_mixer(**options):
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = transformers.Mamba2Config(
        hidden_size=WIDTH, num_heads=6, head_dim=4, state_size=5, num_hidden_layers=1, **options
    )
    return Mamba2Mixer(config, 0)


def gated_delta_net(key_heads, value_heads, **options):
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    config = transformers.Qwen3NextConfig(
        hidden_size=WIDTH,
        linear_num_key_heads=key_heads,
        linear_num_value_heads=value_heads,
        linear_key_head_dim=4,
        linear_value_head_dim=5,
        num_hidden_layers=1,
        **options,
    )
    return Qwen3NextGatedDeltaNet(config, 0)


@pytest.mark.parametrize(
    "options",
    (
        {"n_groups": 1, "chunk_size": 4},
        {"n_groups": 3, "use_bias": True, "use_conv_bias": False, "layer_norm_epsilon": 1e-3},
    ),
    ids=("one_group", "three_groups"),
)
def test_mamba2(options, agrees, shaken):
    module = shaken(mamba2_mixer(**options))
    agrees(interop.transformers.mamba2(module), module)


@pytest.mark.parametrize("key_heads, value_heads", ((3, 3), (2, 6)))
def test_gated_delta_net(key_heads, value_heads, agrees, shaken):
    module = shaken(gated_delta_net(key_heads, value_heads, rms_norm_eps=1e-3))
    agrees(interop.transformers.gated_delta_net(module), module)


def test_what_has_no_counterpart_is_refused():
    with pytest.raises(ValueError, match="time_step_limit"):
        interop.transformers.mamba2(mamba2_mixer(n_groups=1, time_step_limit=(0.0, 1.0)))
    with pytest.raises(ValueError, match="activation 'gelu'"):
        interop.transformers.gated_delta_net(gated_delta_net(2, 2, hidden_act="gelu"))
    for convert in (interop.transformers.mamba2, interop.transformers.gated_delta_net):
        with pytest.raises(ValueError, match="expected the weights of the mixer"):
            convert(torch.nn.Linear(2, 2))
