"""A converter that is given another module says which one it expects."""

import inspect

import pytest

import ember_keras as ek
from ember_keras import interop

torch = pytest.importorskip("torch")
PEERS = ("keras_layers", "mambapy", "ncps", "torch_nn", "transformers", "xlstm")
CONVERTERS = [
    (peer, name)
    for peer in PEERS
    for name, function in inspect.getmembers(getattr(interop, peer), inspect.isfunction)
    if not name.startswith("_") and function.__module__ == getattr(interop, peer).__name__
]


@pytest.mark.parametrize("peer, name", CONVERTERS)
def test_another_module_is_refused(peer, name):
    converter = getattr(getattr(interop, peer), name)
    for given in (torch.nn.Linear(4, 4), torch.nn.RNN(4, 4), ek.layers.LRU(), None):
        with pytest.raises((TypeError, ValueError), match=r"^Received .* expected "):
            converter(given)
