"""The C++ convolution as operators of torch."""

import keras
import pytest
from engines.convolutions import arguments, only, run
from engines.support import error

pytestmark = only("torch")


def test_the_operator_of_torch():
    import torch

    u, k, d = arguments((2, 20, 6, 20, 3))
    operator = torch.ops.ember_keras.fft_conv
    torch.library.opcheck(operator.default, (u, k, d, None, None, 3, 17, 3))
    torch.library.opcheck(operator.default, (u, k, d, u.cos(), u.sin(), 0, 20, 0))
    torch.library.opcheck(operator.default, (u.transpose(0, 1), k, *[None] * 3, 0, 2, 0))
    with pytest.raises(ValueError, match="does not divide the width"):
        operator(u, k[:, :2].repeat(1, 2), *[None] * 3, 0, 20, 0)
    with pytest.raises(ValueError, match="negative"):
        operator(u, k, *[None] * 3, -1, 20, 0)
    with pytest.raises(TypeError, match="int32"):
        operator(u.int(), k, *[None] * 3, 0, 20, 0)


def test_the_operator_of_torch_has_gradients_by_itself():
    """Of both orders, with and without what it may be given besides."""
    import torch

    u, k, d = (x.double().requires_grad_() for x in arguments((2, 9, 4, 9, 2)))
    gates = [u.detach().cos().requires_grad_(), u.detach()[:, 1:].sin().requires_grad_()]
    operator = torch.ops.ember_keras.fft_conv
    for rest in ((None, None, None), (d, None, None), (d, *gates)):
        given = (u, k, *rest, 1, 8, 1)
        assert torch.autograd.gradcheck(operator, given)
        assert torch.autograd.gradgradcheck(operator, given)
    given = [x.detach().requires_grad_() for x in (u, k, d, *gates)]
    compiled = torch.compile(operator, backend="aot_eager", fullgraph=True)
    compiled(*given, 1, 8, 1).square().sum().backward()
    expected = torch.autograd.grad(operator(u, k, d, *gates, 1, 8, 1).square().sum(), (u, k))
    for x, wanted in zip(given, expected, strict=False):
        assert error(x.grad, wanted.numpy()) < 1e-6


def test_it_runs_in_the_threads_of_torch():
    """As many as torch uses, and no others."""
    import torch

    from ember_keras.cuda import library

    kernel = library.load()[0]
    assert kernel.use_openmp(torch._C.__file__)
    assert not library.load()[0].use_openmp("no-such-library.so")
    u, k, d = arguments((4, 300, 40, 300, 40))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found += [run(u, k, d), torch.ops.ember_keras.fft_conv(u, k, d, None, None, 0, 300, 0)]
    finally:
        torch.set_num_threads(threads)
    for y in found[1:]:
        assert error(y, found[0].numpy()) < 1e-6


def test_torch_derivatives_of_both_orders():
    import torch

    from ember_keras.ops.kernels.native_fft_conv import torch_form

    tensors = [x.double().requires_grad_() for x in arguments((2, 9, 4, 9, 2))]

    def window(u, k, d, gate_in=None, gate_out=None):
        return torch_form.run(u, k, d, 1, 8, 1, 18, gate_in, gate_out)

    gates = [tensors[0].detach().cos(), tensors[0].detach()[:, 1:].sin()]
    for given in (tensors, [*tensors, *(gate.requires_grad_() for gate in gates)]):
        assert torch.autograd.gradcheck(window, given)
        assert torch.autograd.gradgradcheck(window, given)


@pytest.mark.parametrize("setting", ("auto", "complex_fft"))
def test_torch_compile_where_no_gradient_is_wanted(setting, monkeypatch):
    import torch

    monkeypatch.setenv("EMBER_KERNELS", setting)
    u, k, d = arguments((2, 20, 6, 20, 3))
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    expected = run(u, k, d).numpy()
    assert error(compiled(u, k, d).numpy(), expected) < 1e-6
    with torch.no_grad():
        assert error(compiled(u.clone().requires_grad_(), k, d).numpy(), expected) < 1e-6


def test_torch_operators_refuse_what_they_would_misread():
    import torch

    import ember_keras.ops.kernels.native_fft_conv.torch_form  # noqa: F401 - the operators

    u, k, d = arguments((3, 20, 6, 20, 6))
    forward, backward = torch.ops.ember_keras.fft_conv, torch.ops.ember_keras.fft_conv_backward
    wrong = {
        "k of": (u, k.double(), d, None, None),
        "d of": (u, k, d[:2], None, None),
        "d of .* torch.float64": (u, k, d.double(), None, None),
        "gate_in of": (u, k, d, torch.ones(1, 1, 1), None),
        "gate_out of": (u, k, d, None, torch.ones(3, 20, 6).double()),
        "u and k": (u[0], k, d, None, None),
    }
    for words, tensors in wrong.items():
        with pytest.raises(ValueError, match=words):
            forward(*tensors, 0, 20, 0)
        with pytest.raises(ValueError, match=words):
            backward(u, *tensors, 0, 0)
    for g in (torch.ones(1, 20, 1), u.double(), u[0]):
        with pytest.raises(ValueError, match="g of"):
            backward(g, u, k, d, None, None, 0, 0)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated")
def test_torch_compile_and_torch_func():
    import torch

    from ember_keras.ops.kernels.native_fft_conv import torch_form

    u, k, d = arguments((2, 20, 6, 20, 3))
    compiled = torch.compile(
        lambda u, k, d: run(u, k, d).sin().sum(), backend="aot_eager", fullgraph=True
    )
    slopes = []
    for function in (compiled, lambda *tensors: run(*tensors).sin().sum()):
        leaves = [x.clone().requires_grad_() for x in (u, k, d)]
        function(*leaves).backward()
        slopes.append([x.grad.numpy() for x in leaves])
    for got, expected in zip(*slopes, strict=True):
        assert error(got, expected) < 1e-5

    def loss(u, k):
        return torch_form.run(u, k, d, 0, 20, 0, 40).sin().sum()

    us = torch.stack([u, 2 * u])
    found = torch.func.vmap(torch.func.grad(loss), (0, None))(us, k)
    for row, got in zip(us, found, strict=True):
        assert error(got.numpy(), torch.func.grad(loss)(row, k).numpy()) < 1e-5

    def with_gates(gate_in, gate_out):
        return torch_form.run(u, k, d, 0, 20, 0, 40, gate_in, gate_out)

    pairs = us.cos(), us.sin().movedim(0, 2)
    for axes in ((0, 2), (None, 2)):
        given = pairs if axes[0] == 0 else (pairs[0][1], pairs[1])
        found = torch.func.vmap(with_gates, axes)(*given)
        for at in range(2):
            gate_in = pairs[0][at if axes[0] == 0 else 1]
            expected = with_gates(gate_in, pairs[1].movedim(2, 0)[at])
            assert error(found[at].numpy(), expected.numpy()) < 1e-6


def test_torch_operators_refuse_tensors_on_two_devices():
    """A `meta` tensor among others would get room that nobody wrote to as a result."""
    import torch

    u, k, d = arguments((2, 30, 6, 30, 6))
    forward, backward = torch.ops.ember_keras.fft_conv, torch.ops.ember_keras.fft_conv_backward
    for tensors in ((u.to("meta"), k, d), (u, k.to("meta"), d), (u, k, d.to("meta"))):
        with pytest.raises(ValueError, match="expected all tensors on one device"):
            forward(*tensors, None, None, 0, 30, 0)
        with pytest.raises(ValueError, match="expected all tensors on one device"):
            backward(u, *tensors, None, None, 0, 0)
    for at in range(5):
        tensors = [u, k, d, u, u]
        tensors[at] = tensors[at].to("meta")
        with pytest.raises(ValueError, match="expected all tensors on one device"):
            backward(u, *tensors, 0, 0)
    with pytest.raises(ValueError, match="received g on meta"):
        backward(u.to("meta"), u, k, d, None, None, 0, 0)
    for name, tensors in {"u": (u.to("meta"), k, d), "k": (u, k.to("meta"), d)}.items():
        with pytest.raises(ValueError, match=f"Received {name} on the device meta"):
            run(*tensors)
    there = [x.to("meta") for x in (u, k, d)]
    assert forward(*there, None, None, 0, 30, 0).shape == (2, 30, 6)
    with keras.device("meta"):
        assert run(*there).shape == (2, 30, 6)
    x, w, offsets = torch.ones(4, 3), torch.ones(2, 3, 5), torch.tensor([0, 2, 4]).int()
    rows, weights = torch.ops.ember_keras.grouped_rows, torch.ops.ember_keras.grouped_weights
    for call in (
        lambda: rows(x, w.to("meta"), offsets, False),
        lambda: rows(x, w, offsets.to("meta"), False),
        lambda: weights(x.to("meta"), x, offsets),
    ):
        with pytest.raises(ValueError, match="grouped_matmul: .* expected all tensors on one"):
            call()


def test_torch_vmap_over_no_entries():
    import torch

    from ember_keras.ops.kernels.native_fft_conv import torch_form

    u, k, d = arguments((2, 30, 6, 30, 3))

    def window(u, k):
        return torch_form.run(u, k, d, 0, 30, 0, 60)

    def slopes(u, k):  # torch.func.grad would ask torch's FFT, which refuses to do nothing.
        return torch.ops.ember_keras.fft_conv_backward(u, u, k, d, None, None, 0, 0)[:2]

    us, ks = u.expand(0, *u.shape).movedim(0, 2), k.expand(0, *k.shape)
    for axes, given in {(2, None): (us, k), (2, 0): (us, ks), (None, 0): (u, ks)}.items():
        assert torch.func.vmap(window, axes)(*given).shape == (0, 2, 30, 6)
        du, dk = torch.func.vmap(slopes, axes)(*given)
        assert (du.shape, dk.shape) == ((0, 2, 30, 6), (0, 30, 3))
