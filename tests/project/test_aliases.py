"""The names of MAD-Lab build what is registered here, and none of their arguments is ignored."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras import registry
from ember_keras.config.aliases import ALIASES, SHARED

RESOLVED = [
    (registry.table(kind), alias)
    for kind in ("sequence_mixers", "channel_mixers")
    for alias in registry.table(kind).aliases()
]
MISSING = [
    name for name, alias in ALIASES.items() if alias.target not in registry.table(alias.kind)
]
MH_ATTENTION = {
    "dim": 128,
    "max_length": 1280,
    "causal": True,
    "n_heads": 16,
    "rotary_emb_dim": 8,
    "dropout": 0,
    "window_size": [-1, -1],
    "use_flash_attn": True,
}


@pytest.mark.parametrize("table, alias", RESOLVED, ids=lambda value: getattr(value, "kind", value))
def test_an_alias_builds_its_target_and_is_written_back_as_that(table, alias):
    layer = table.build(alias)
    target = table.aliases()[alias]
    assert type(layer) is table.get(target)
    config = registry.to_config(layer)
    assert (config if isinstance(config, str) else config["type"]) == target
    assert registry.to_config(table.build(config)) == config


def test_names_are_not_aliases():
    for kind in ("sequence_mixers", "channel_mixers"):
        assert not set(registry.table(kind).names()) & set(registry.table(kind).aliases())
    assert registry.norms.aliases() == {}


def test_a_recipe_is_typed_in_unchanged():
    text = "type: sequence_model\nblocks: [mh-attention, swiglu, hyena, mlp]\n"
    model = registry.models.build(ek.config.from_yaml(text))
    assert model(np.ones((1, 3, 32), "float32")).shape == (1, 3, 32)


@pytest.mark.parametrize("name", ["rwkv5-time-mixer", "rwkv6-time-mixer"])
def test_time_mixers_take_their_recipes(name):
    recipe = {"dim": 128, "max_length": 1280, "head_dim": 16, "dim_att": 64, "head_dim_divisor": 8}
    layer = registry.sequence_mixers.build({"type": name, **recipe})
    assert (layer.head_dim, layer.inner_dim, layer.epsilon) == (16, 64, 64e-5)
    assert layer(np.ones((1, 3, 128), "float32")).shape == (1, 3, 128)
    with pytest.raises(ValueError, match="epsilon"):
        registry.sequence_mixers.build(name, head_dim_divisor=4)


@pytest.mark.parametrize("name", ["mh-attention", "attention"])
def test_its_arguments_are_ours(name):
    layer = registry.sequence_mixers.build({"type": name, **MH_ATTENTION})
    assert (layer.num_heads, layer.rotary, layer.causal) == (16, True, True)
    layer = registry.sequence_mixers.build(
        name, n_heads=4, num_heads_kv=2, rotary_emb_dim=0, name="mixer", dtype="float16"
    )
    assert (layer.num_heads, layer.num_kv_heads, layer.rotary) == (4, 2, False)
    assert (layer.name, layer.compute_dtype) == ("mixer", "float16")


def test_arguments_of_the_others():
    mlp = registry.channel_mixers.build("mlp", dim_inner=24, drop_rate=0, bias=False)
    assert (mlp.hidden_dim, mlp.use_bias) == (24, False)
    swiglu = registry.channel_mixers.build("swiglu", dim=128, dim_inner=None, bias=True)
    assert (swiglu.gate, swiglu.use_bias) == ("swiglu", True)
    hyena = registry.sequence_mixers.build("hyena", short_filter_order=4, activation="id", order=3)
    assert (hyena.short_taps, hyena.order) == (4, 3)


@pytest.mark.parametrize(
    "name, key, value",
    [
        ("mh-attention", "dropout", 0.1),
        ("mh-attention", "window_size", [32, 32]),
        ("mh-attention", "rotary_emb_dim", 8),
        ("mh-attention", "dim", "wide"),
        ("mh-attention", "softmax_scale", 2.0),
        ("hyena", "inner_factor", 4),
        ("swiglu", "dim_inner", 64),
        ("mlp", "drop_rate", 0.5),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(name, key, value):
    config = {"blocks": [{"type": name, key: value}]}
    with pytest.raises(ValueError, match=rf"blocks\[0\]\.{key}: "):
        registry.models.build({"type": "sequence_model", **config})


def test_the_same_argument_under_two_names_is_refused():
    with pytest.raises(ValueError, match="n_heads.*num_heads"):
        registry.sequence_mixers.build("mh-attention", n_heads=2, num_heads=4)


@pytest.mark.parametrize("name", MISSING)
def test_what_is_not_registered_yet_says_so(name):
    with pytest.raises(ValueError, match=f"stands for '{ALIASES[name].target}'"):
        registry.table(ALIASES[name].kind).build(name)


def test_every_rule_names_an_argument_that_is_there():
    for entry in [*ALIASES.values(), *SHARED.values()]:
        if entry.target in registry.table(entry.kind):
            cls = registry.table(entry.kind).get(entry.target)
            own = {parameter.name for parameter in registry.own_parameters(cls)}
            ours = {rule for rule in entry.arguments.values() if isinstance(rule, str)}
            assert ours | set(entry.options) <= own
