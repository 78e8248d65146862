"""The kernel for gated experts gives what a mixture gives without it, with every gradient."""

import pytest

import ember_keras as ek  # before Keras
from ember_keras.ops import kernels
from ember_keras.ops.kernels.native_experts import plain

from keras import ops  # isort: skip

SHAPES = {"tokens": 37, "slots": 3, "experts": 5, "width": 9, "hidden": 21}


def _kernel(**options):
    asked = {"gate": "swiglu", "biased": False, "dropped": False, **options}
    like = {"x": ops.ones((2, 3)), "gate_up": ops.ones((2, 3, 8))}
    kernel = next(k for k in kernels.kernels("gated_experts"))
    return kernel, kernels.table.refusal(kernel, kernels.request("gated_experts", like, **asked))


def _inputs(rng):
    tokens, slots, experts, width, hidden = SHAPES.values()
    chosen = rng.integers(0, experts + 1, size=(tokens, slots)).astype("int32")
    floats = [
        rng.normal(size=(tokens, width)),
        rng.normal(size=(tokens, slots)),
        rng.normal(size=(experts, width, 2 * hidden)) / width**0.5,
        rng.normal(size=(experts, hidden, width)) / hidden**0.5,
    ]
    x, *weights = (each.astype("float32") for each in floats)
    return x, chosen, *weights


@pytest.fixture
def run():
    kernel, reason = _kernel()
    if reason is not None:
        pytest.skip(reason)
    return kernel.run


def test_it_equals_the_plain_form(run, rng, assert_close):
    inputs = [ops.convert_to_tensor(each) for each in _inputs(rng)]
    expected = ek.backend.to_numpy(plain.run(*inputs))
    assert_close(ek.backend.to_numpy(run(*inputs)), expected, 1e-5)
    compiled = ek.backend.compile(run)
    assert_close(ek.backend.to_numpy(compiled(*inputs)), expected, 1e-5)


@pytest.mark.trains
def test_every_gradient_equals_the_plain_form(run, rng, assert_close):
    x, chosen, *weights = _inputs(rng)
    slope = ops.convert_to_tensor(rng.normal(size=x.shape).astype("float32"))
    chosen = ops.convert_to_tensor(chosen)

    def slopes(form):
        def scalar(x, *weights):
            return ops.sum(form(x, chosen, *weights) * slope)

        given = [ops.convert_to_tensor(each) for each in (x, *weights)]
        return ek.backend.value_and_grad(scalar)(*given)[1]

    for name, found, expected in zip(
        ("x", "weights", "gate_up", "down"), slopes(run), slopes(plain.run), strict=True
    ):
        assert_close(ek.backend.to_numpy(found), ek.backend.to_numpy(expected), 1e-5, name)


@pytest.mark.trains
def test_a_gradient_of_a_gradient(run, rng, assert_close):
    x, chosen, *weights = (ops.convert_to_tensor(each) for each in _inputs(rng))

    def second(form):
        if ek.backend.name() == "torch":
            import torch

            leaf = x.clone().requires_grad_()
            y = torch.sum(torch.sin(form(leaf, chosen, *weights)))
            (dx,) = torch.autograd.grad(y, leaf, create_graph=True)
            return torch.autograd.grad(torch.sum(dx * dx), leaf)[0]

        def slope(x):
            def scalar(x):
                return ops.sum(ops.sin(form(x * 1.0, chosen, *weights)))

            dx = ek.backend.value_and_grad(scalar)(x)[1][0]
            return ops.sum(dx * dx)

        return ek.backend.value_and_grad(slope)(x)[1][0]

    found, expected = (ek.backend.to_numpy(second(form)) for form in (run, plain.run))
    assert_close(found, expected, 1e-4)


@pytest.mark.trains
def test_a_mixture_is_the_same_without_it(run, rng, monkeypatch, assert_close):
    layer = ek.layers.MixtureOfExperts(6, 2, {"type": "gated_mlp", "hidden_dim": 12})
    x = ops.convert_to_tensor(rng.normal(size=(2, 11, 8)).astype("float32"))
    mask = ops.convert_to_tensor(rng.random((2, 11)) < 0.8)
    layer.build((2, 11, 8))
    expected = None
    for setting in ("portable", "auto"):
        monkeypatch.setenv("EMBER_KERNELS", setting)

        def scalar(x):
            return ops.sum(ops.square(layer(x, mask=mask)))

        y, (dx,) = ek.backend.value_and_grad(scalar)(x)
        found = ek.backend.to_numpy(y), ek.backend.to_numpy(dx)
        expected = expected or found
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b, 1e-4)


def test_what_it_cannot_do_is_refused(run):
    for options, reason in (
        ({"gate": "reglu"}, "its gate is swiglu"),
        ({"biased": True}, "neither biases nor dropout"),
        ({"dropped": True}, "neither biases nor dropout"),
    ):
        assert reason in _kernel(**options)[1]


@pytest.mark.trains
@pytest.mark.skipif(ek.backend.name() != "torch", reason="torch.func is torch's")
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own use of it.
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated")
def test_transformed_by_torch_func(run, rng, assert_close):
    """Derivatives that no tensor asks for: `torch.func` gives right ones, or refuses."""
    import torch

    x, chosen, *weights = (torch.from_numpy(each) for each in _inputs(rng))

    def loss(form):
        return lambda x: form(x, chosen, *weights).square().sum()

    def slope(form):
        return torch.func.grad(loss(form))

    assert_close(slope(run)(x), slope(plain.run)(x), 1e-5)

    def curvature(form):
        return torch.func.grad(lambda x: slope(form)(x).square().sum())(x)

    assert_close(curvature(run), curvature(plain.run), 1e-5)
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(loss(run), (x,), (torch.ones_like(x),))
    compiled = torch.compile(lambda x, v: torch.func.jvp(loss(run), (x,), (v,))[1], backend="eager")
    with pytest.raises(NotImplementedError, match="jvp"):
        compiled(x, torch.ones_like(x))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(NotImplementedError, match="jvp"):
            run(dual, chosen, *weights)
