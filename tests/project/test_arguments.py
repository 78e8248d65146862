"""A constructor refuses wrong types and unknown names itself, in words."""

import numpy as np
import pytest

import ember_keras as ek

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ek.layers.Hyena(order="3"), "`Hyena` received order='3' .str., expected an int"),
        (lambda: ek.layers.Hyena("3"), "received order='3'"),
        (lambda: ek.layers.Hyena(order=True), "received order=True"),
        (lambda: ek.layers.Attention(num_heads=2.5), "num_heads=2.5 .float., expected an int"),
        (lambda: ek.models.CausalLM(dropout=None), "dropout=None .NoneType., expected a number"),
        (lambda: ek.layers.Attention(causal="no"), "causal='no' .str., expected True or False"),
        (lambda: ek.layers.GatedMLP(hidden_dim="4"), "expected an int or None"),
    ],
)
def test_wrong_type(build, words):
    with pytest.raises(TypeError, match=words):
        build()


def test_numbers_of_numpy_are_numbers():
    assert ek.layers.Hyena(order=np.int64(3)).order == 3
    assert ek.blocks.Block("mlp", dropout=np.float32(0.5)).dropout == 0.5


@pytest.mark.parametrize(
    ("build", "near"),
    [
        (lambda: ek.layers.Hyena(ordr=3), "order"),
        (lambda: ek.models.CausalLM(widht=8), "width"),
        (lambda: ek.layers.Hyena(dtyp="float32"), "dtype"),
    ],
)
def test_unknown_name(build, near):
    with pytest.raises(ValueError, match=f"unknown argument .*Did you mean '{near}'?"):
        build()


def test_a_subclass_may_take_more():
    class Windowed(ek.layers.Attention):
        def __init__(self, label: "Unresolvable" = None, **kwargs):  # noqa: F821
            super().__init__(**kwargs)
            self.label = label

    assert Windowed(label=3, num_heads=2).num_heads == 2
    with pytest.raises(ValueError, match="Did you mean 'num_heads'?"):
        Windowed(num_head=2)


def test_a_part_of_a_name_is_near():
    with pytest.raises(ValueError, match="'sequence_mixers' or 'channel_mixers'"):
        ek.registry.table("mixers")
