"""What a forward pass keeps for its gradients is written where the last one gave it up."""

import threading

import numpy as np
import pytest

from ember_keras import backend  # before Keras
from ember_keras.ops import kernels

from keras import ops  # isort: skip

pytestmark = pytest.mark.skipif(backend.name() != "torch", reason="torch's memory")

COUNT = 1 << 20


@pytest.fixture
def blocks():
    from ember_keras.ops.kernels.torch_memory import Blocks

    return Blocks()


def test_memory_is_used_again_when_no_tensor_is_left(blocks):
    first = blocks.empty(COUNT)
    at, part = first.data_ptr(), first.view(2, -1)[1]
    part.fill_(3.0)
    del first
    second = blocks.empty(COUNT)
    second.fill_(5.0)
    assert second.data_ptr() != at
    assert float(part.min()) == 3.0
    del part
    third = blocks.empty(2, COUNT // 2)
    assert third.data_ptr() == at
    assert third.shape == (2, COUNT // 2)
    assert blocks.idle_bytes() == 0


def test_a_graph_holds_its_memory(blocks):
    tensor = blocks.empty(COUNT).fill_(2.0)
    factor = tensor.new_ones(COUNT, requires_grad=True)
    y = (tensor * factor).sum()
    del tensor
    blocks.empty(COUNT).fill_(7.0)
    y.backward()
    assert float(factor.grad.min()) == float(factor.grad.max()) == 2.0


def test_another_size_takes_the_place_of_what_is_idle(blocks):
    held = [blocks.empty(COUNT) for _ in range(3)]
    held.clear()
    assert blocks.idle_bytes() == 3 * 4 * COUNT
    held = [blocks.empty(COUNT), blocks.empty(COUNT), blocks.empty(COUNT)]
    assert blocks.idle_bytes() == 0
    held.clear()
    larger = blocks.empty(2 * COUNT)
    assert blocks.idle_bytes() == 0
    del larger
    assert blocks.idle_bytes() == 8 * COUNT


def test_few_numbers_are_torchs_own(blocks):
    assert blocks.empty(0, 0).shape == (0, 0)
    few = blocks.empty(3, 5)
    assert few.shape == (3, 5)
    del few
    assert blocks.idle_bytes() == 0


def test_threads_never_share_a_block(blocks):
    wrong = []

    def work(number):
        for _ in range(200):
            tensor = blocks.empty(COUNT // 2)
            tensor[:: COUNT // 8] = number
            if not bool((tensor[:: COUNT // 8] == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert blocks.idle_bytes() <= 4 * 2 * (2 * COUNT)  # Each makes the next before it drops one.


@pytest.mark.skipif(not kernels.kernels("gated_experts"), reason="no kernel")
def test_gradients_of_graphs_that_live_at_once():
    """Both passes keep 2 MiB and more; one graph is used twice, and one after the other is gone."""
    import torch

    from ember_keras.ops.kernels.torch_memory import BLOCKS, SMALLEST

    (kernel,) = kernels.kernels("gated_experts")
    like = {"x": ops.ones((2, 3)), "gate_up": ops.ones((2, 3, 8))}
    asked = kernels.request("gated_experts", like, gate="swiglu", biased=False, dropped=False)
    if kernels.table.refusal(kernel, asked) is not None:
        pytest.skip("the kernel is not built")
    tokens, slots, experts, width, hidden = 4096, 2, 4, 8, 64
    assert 4 * tokens * slots * 2 * hidden >= SMALLEST

    def given(seed):
        numbers = np.random.default_rng(seed)
        chosen = torch.from_numpy(numbers.integers(0, experts, (tokens, slots)).astype("int32"))
        shapes = [(tokens, width), (tokens, slots), (experts, width, 2 * hidden)]
        shapes += [(experts, hidden, width)]
        x, *weights = [
            torch.from_numpy(numbers.normal(size=shape).astype("float32")).requires_grad_()
            for shape in shapes
        ]
        return x, chosen, *weights

    def slopes(inputs, retain=False):
        y = kernel.run(*inputs).square().sum()
        wanted = [each for each in inputs if each.requires_grad]
        return lambda: torch.autograd.grad(y, wanted, retain_graph=retain)

    def equal(found, expected):
        return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    inputs = [given(seed) for seed in range(3)]
    alone = [slopes(each)() for each in inputs]
    first, second = slopes(inputs[0], retain=True), slopes(inputs[1])
    assert equal(first(), alone[0])
    assert equal(second(), alone[1])
    del second
    third = slopes(inputs[2])
    assert equal(first(), alone[0])
    assert equal(third(), alone[2])
    del first, third
    assert BLOCKS.idle_bytes() > 0
