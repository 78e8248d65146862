"""LSTM and GRU beside `torch.nn`."""

import pytest

torch = pytest.importorskip("torch")  # Before the others, which it does not like to come after.

from ember_keras import interop  # noqa: E402

WIDTH = 12


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("name", ("LSTM", "GRU"))
def test_layer(name, bias, agrees, shaken):
    module = shaken(getattr(torch.nn, name)(WIDTH, WIDTH, bias=bias, batch_first=True))
    agrees(getattr(interop.torch_nn, name.lower())(module), lambda x: module(x)[0])


@pytest.mark.parametrize("name", ("LSTM", "GRU"))
def test_layers_one_by_one(name, agrees, shaken):
    module = shaken(getattr(torch.nn, name)(WIDTH, WIDTH, num_layers=2, batch_first=True))
    convert = getattr(interop.torch_nn, name.lower())
    lower = getattr(torch.nn, name)(WIDTH, WIDTH, batch_first=True)
    lower.load_state_dict({k: v for k, v in module.state_dict().items() if k.endswith("l0")})
    upper = getattr(torch.nn, name)(WIDTH, WIDTH, batch_first=True)
    upper.load_state_dict(
        {k.replace("l1", "l0"): v for k, v in module.state_dict().items() if k.endswith("l1")}
    )
    agrees(convert(module), lambda x: lower(x)[0])
    agrees(convert(module, layer=1), lambda x: upper(x)[0])


@pytest.mark.parametrize(
    "options, words",
    (
        ({"hidden_size": 5}, "hidden size 5"),
        ({"bidirectional": True}, "bidirectional"),
        ({"proj_size": 3}, "proj_size=3"),
    ),
)
def test_what_has_no_counterpart_is_refused(options, words):
    module = torch.nn.LSTM(**{"input_size": WIDTH, "hidden_size": WIDTH, **options})
    with pytest.raises(ValueError, match=words):
        interop.torch_nn.lstm(module)
    with pytest.raises(ValueError, match="layer=1"):
        interop.torch_nn.lstm(torch.nn.LSTM(WIDTH, WIDTH), layer=1)
