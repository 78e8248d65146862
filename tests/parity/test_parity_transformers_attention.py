"""Attention and SlidingAttention beside transformers: Llama, Mistral, Mixtral and Qwen2."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import ember_keras as ek  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

WIDTH = 12


def attention_of(family, **options):
    """The module, and what calls it with the positions and the mask that its model gives it."""
    from transformers import masking_utils

    config = getattr(transformers, f"{family}Config")(
        **{"hidden_size": WIDTH, "num_attention_heads": 4, "num_hidden_layers": 1, **options}
    )
    config._attn_implementation = "eager"
    model = __import__(
        f"transformers.models.{family.lower()}.modeling_{family.lower()}", fromlist=["model"]
    )
    module = getattr(model, f"{family}Attention")(config, 0)
    turn = getattr(model, f"{family}RotaryEmbedding")(config)
    masks = masking_utils.create_causal_mask
    if getattr(config, "sliding_window", None) is not None:
        masks = masking_utils.create_sliding_window_causal_mask

    def call(x):
        positions = torch.arange(x.shape[1])[None]
        mask = masks(config, x, None, None, position_ids=positions)
        return module(x, turn(x, positions), mask)[0]

    return module, call


FAMILIES = {
    "llama": (
        "Llama",
        {
            "num_key_value_heads": 2,
            "head_dim": 6,
            "attention_bias": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 50.0},
        },
    ),
    "mistral": ("Mistral", {"num_key_value_heads": 1, "head_dim": 4, "sliding_window": 5}),
    "mixtral": ("Mixtral", {"num_key_value_heads": 2, "head_dim": 4}),
    "qwen2": (
        "Qwen2",
        {
            "num_key_value_heads": 2,
            "head_dim": 4,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 0,
        },
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_attention(name, agrees, shaken):
    family, options = FAMILIES[name]
    module, call = attention_of(family, **options)
    shaken(module)
    layer = ek.interop.transformers.attention(module)
    assert layer.window == options.get("sliding_window")
    agrees(layer, call)


def test_what_has_no_counterpart_is_refused():
    convert = ek.interop.transformers.attention
    with pytest.raises(ValueError, match="expected one of LlamaAttention"):
        convert(torch.nn.Linear(2, 2))
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    with pytest.raises(ValueError, match="positions of type 'linear'"):
        convert(attention_of("Llama", rope_parameters=scaled)[0])
    with pytest.raises(ValueError, match="attention_dropout=0.5"):
        convert(attention_of("Llama", attention_dropout=0.5)[0])
