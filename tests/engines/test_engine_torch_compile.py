"""torch.compile takes every engine whole: no graph breaks, one graph a shape, forward and back."""

import numpy as np
import pytest
from engines.support import error, mask_of, normal, rng, segments_of
from keras import ops

from ember_keras import backend
from ember_keras.ops.engines.attention import attention
from ember_keras.ops.engines.delta_rule import delta_rule
from ember_keras.ops.engines.fft_conv import fft_conv
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention
from ember_keras.ops.engines.linear_recurrence import linear_recurrence, selective_scan
from ember_keras.ops.engines.nonlinear_scan import nonlinear_scan

pytestmark = [
    pytest.mark.skipif(backend.name() != "torch", reason="torch.compile is torch's"),
    # torch's own compiler does what torch warns of.
    pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated"),
]

TIME = 70
"""More than a chunk of the matrix-valued engines."""


def sizes(time):
    g = rng(0)
    heads = [normal(g, 2, time, 2, 4) for _ in range(3)]
    unit = heads[1] / np.linalg.norm(heads[1], axis=-1, keepdims=True)
    per_head = -np.abs(normal(g, 2, time, 2))
    per_channel = -np.abs(normal(g, 2, time, 2, 4))
    beta = 1 / (1 + np.exp(normal(g, 2, time, 2)))
    wide = [normal(g, 2, time, 4) for _ in range(2)]
    return {
        "attention": (attention, heads),
        "fft_conv": (fft_conv, [wide[0], normal(g, time, 4), normal(g, 4)]),
        "fft_conv of few taps": (fft_conv, [wide[0], normal(g, 3, 4)]),
        "linear_recurrence": (linear_recurrence, [np.abs(wide[0]) / 4, wide[1]]),
        "selective_scan": (
            selective_scan,
            [wide[0], np.abs(wide[1]), -np.abs(normal(g, 4, 3)), *(normal(g, 2, 2, time, 3))],
        ),
        "gated_linear_attention": (gated_linear_attention, [*heads, per_channel]),
        "gated_linear_attention of one decay a head": (gated_linear_attention, [*heads, per_head]),
        "delta_rule": (delta_rule, [heads[0], unit, heads[2], beta, per_channel]),
        "delta_rule of one decay a head": (delta_rule, [heads[0], unit, heads[2], beta, per_head]),
        "nonlinear_scan": (scan, [wide[0][:, :9], 0.3 * normal(g, 4, 4)]),
    }


def scan(x, kernel, **options):
    def cell(x, state, kernel):
        state = ops.tanh(x + ops.matmul(state, kernel))
        return state, state

    fresh = ops.zeros((1, 4))
    return nonlinear_scan(cell, x, weights=kernel, fresh_state=fresh, **options)


CASES = [(name, True) for name in sizes(TIME)]
# Without padding and segments these two take other ways.
CASES += [("attention", False), ("fft_conv", False)]


@pytest.mark.parametrize("name, packed", CASES)
def test_one_whole_graph_a_shape(name, packed):
    import torch
    from torch._dynamo.backends.debugging import aot_eager

    engine, arrays = sizes(TIME)[name]
    time = arrays[0].shape[1]
    options = {}
    if packed:
        given = {
            "mask": mask_of(rng(1), 2, time, "both"),
            "segment_ids": segments_of(rng(2), 2, time),
        }
        options = {key: ops.convert_to_tensor(value) for key, value in given.items()}
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return aot_eager(graph, inputs)

    torch._dynamo.reset()
    whole = torch.compile(lambda *x: engine(*x, **options), backend=counted, fullgraph=True)
    found = []
    for function in (lambda *x: engine(*x, **options), whole, whole):
        tensors = [ops.convert_to_tensor(x).requires_grad_() for x in arrays]
        y = function(*tensors)
        y.square().mean().backward()
        found.append([y.detach(), *(x.grad for x in tensors)])
    assert len(graphs) == 1
    eager, *compiled = found
    for each in compiled:
        for got, expected in zip(each, eager, strict=True):
            assert error(got, backend.to_numpy(expected)) < 1e-5
