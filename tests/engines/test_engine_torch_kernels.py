"""The kernels that write in place on torch: where they run, and gradients of gradients."""

import numpy as np
import pytest
from engines.support import error, normal, rng

from ember_keras import backend  # isort: skip - before Keras
from keras import ops

from ember_keras.layers.common.heads import HeadNorm
from ember_keras.ops import kernels
from ember_keras.ops.engines.fft_conv import fft_conv
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention

pytestmark = pytest.mark.skipif(
    backend.name() != "torch" or kernels.table.device_of(ops.zeros(())) != "cpu",
    reason="concerns the torch backend on a CPU only",
)


def running(engine, **call):
    return next(row.kernel for row in kernels.explain(engine, **call) if row.runs)


def test_where_they_run():
    assert running("fft_conv", u=(2, 64, 8), k=(4, 8)) == "torch_shifts"
    from ember_keras.ops.kernels import native_fft_conv

    long = "complex_fft" if native_fft_conv.reason() else "cpu_fft_conv"
    assert running("fft_conv", u=(2, 64, 8), k=(17, 8)) == long
    assert running("fft_conv", u=(2, 64, 8), k=(4, 8), device="cuda") == "portable"
    assert running("gated_linear_attention") == "torch_chunks"
    assert running("gated_linear_attention", device="cuda") == "portable"
    assert running("gated_linear_attention", v=(1, 64, 2, 8)) == "portable"
    channels = {"log_decay": (8, 1024, 8, 64)}
    assert running("gated_linear_attention", **channels) == "torch_turns"
    assert running("gated_linear_attention", **channels, q=(1, 1024, 8, 64)) == "portable"
    assert running("rows") == "torch_row_groups"
    assert running("rows", x=(1, 2**21, 1)) == running("rows", device="cuda") == "portable"
    assert running("head_norm") == "torch_head_norm"
    assert running("head_norm", x=(8, 1, 8, 64)) == "portable"


def test_checkpoint_of_torch():
    import torch
    from torch.utils.checkpoint import checkpoint

    g = rng(6)
    u, k = torch.tensor(normal(g, 2, 40, 6), requires_grad=True), torch.tensor(normal(g, 40, 6))
    plain = torch.autograd.grad(fft_conv(u, k).sin().sum(), u)[0]
    again = checkpoint(lambda u: fft_conv(u, k).sin().sum(), u, use_reentrant=False)
    assert error(torch.autograd.grad(again, u)[0], plain.numpy()) < 1e-6


@pytest.mark.parametrize("setting", ("portable", "complex_fft"))
def test_a_gradient_of_a_gradient_of_a_long_filter(setting, monkeypatch):
    import torch

    monkeypatch.setenv("EMBER_KERNELS", setting)
    g = rng(5)
    u, k = normal(g, 2, 40, 6), normal(g, 40, 6)
    lag = torch.arange(40)[:, None] - torch.arange(40)

    def plain(u, k):
        matrix = torch.where((lag >= 0)[..., None], k[lag.clamp(0)], 0)
        return torch.einsum("tsd,bsd->btd", matrix, u)

    found = []
    for function, dtype in ((fft_conv, torch.float32), (plain, torch.float64)):
        leaves = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in (u, k)]
        loss = function(*leaves).tanh().square().sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(x.tanh().sum() for x in first), leaves))
    for got, expected in zip(*found, strict=True):
        assert error(got, expected.numpy()) < 1e-3


@pytest.mark.parametrize("filters", (6, 2))
@pytest.mark.parametrize("time", (3, 50))
@pytest.mark.parametrize("causal", (True, False))
def test_a_gradient_of_a_gradient_of_a_short_filter(time, filters, causal, monkeypatch):
    import torch

    g = rng(1, time)
    u, k, d = normal(g, 2, time, 6), normal(g, 4, filters), normal(g, 6)
    found = {}
    for setting in ("portable", "torch_shifts"):
        monkeypatch.setenv("EMBER_KERNELS", setting)
        leaves = [torch.tensor(x, requires_grad=True) for x in (u, k, d)]
        y = fft_conv(*leaves, causal=causal).tanh()
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(x.tanh().sum() for x in first), leaves)
        found[setting] = [x.detach().numpy() for x in (y, *first, *second)]
    for got, expected in zip(found["torch_shifts"], found["portable"], strict=True):
        assert error(got, expected) < 3e-6


def test_many_blocks_and_many_rows_a_block(monkeypatch):
    """More numbers than a block holds, in long rows and in many short ones."""
    from ember_keras.ops.kernels import torch_shifts

    monkeypatch.setattr(torch_shifts, "BLOCK", 2**16)
    for shape in ((2, 40_000, 8), (300, 40, 16)):
        u, k = normal(rng(2), *shape), normal(rng(3), 3, shape[2])
        padded = np.pad(u, ((0, 0), (2, 0), (0, 0)))
        expected = sum(padded[:, 2 - s : 2 - s + shape[1]] * k[s] for s in range(3))
        assert error(fft_conv(u, k), expected) < 1e-6


def test_a_gradient_of_a_gradient_in_chunks_is_refused():
    import torch

    q = torch.ones(8, 64, 4, 2, requires_grad=True)
    o = gated_linear_attention(q, q, q)
    with pytest.raises(RuntimeError, match="create_graph=True.*torch_chunks.*portable"):
        torch.autograd.grad(o.square().sum(), q, create_graph=True)


@pytest.mark.parametrize("kind", ("rms", "layer"))
@pytest.mark.parametrize("shared", (True, False))
@pytest.mark.parametrize("gated", (True, False))
def test_norms_of_heads(kind, shared, gated, monkeypatch):
    """Outputs, gradients and gradients of gradients, in several blocks, on views of wider rows."""
    import torch

    from ember_keras.ops.kernels import torch_norms

    monkeypatch.setattr(torch_norms, "BLOCK", 2**15)
    g = rng(4)
    norm = HeadNorm(kind, shared=shared, bias=kind == "layer", scale=gated or shared)
    norm.build((None, None, 3, 32))
    for weight in norm.weights:
        weight.assign(normal(g, *weight.shape))
    x, gate = normal(g, 2, 750, 3, 40), normal(g, 2, 750, 3, 32)
    found = {}
    for setting in ("portable", "torch_head_norm"):
        monkeypatch.setenv("EMBER_KERNELS", setting)
        leaves = [torch.tensor(each, requires_grad=True) for each in (x, gate)]
        y, again = (
            norm(leaves[0][..., 4:36], gate=leaves[1] if gated else None).tanh() for _ in range(2)
        )
        leaves = [*leaves[: 1 + gated], *(weight.value for weight in norm.weights)]
        first = torch.autograd.grad(y.sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(each.tanh().sum() for each in first), leaves)
        alone = torch.autograd.grad(again.sum(), leaves)
        found[setting] = [each.detach().numpy() for each in (y, *first, *second, *alone)]
    for got, expected in zip(found["torch_head_norm"], found["portable"], strict=True):
        assert error(got, expected) < 1e-5
