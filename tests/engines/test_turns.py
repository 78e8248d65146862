"""A long sequence that is taken in blocks of chunks gives what it gives whole."""

import numpy as np
import pytest
from engines.support import normal, rng
from keras import ops

from ember_keras import backend
from ember_keras.ops import kernels
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention, per_channel
from ember_keras.ops.kernels import turns

pytestmark = pytest.mark.skipif(backend.name() != "torch", reason="only torch takes turns")


@pytest.mark.parametrize("with_bonus", (False, True))
@pytest.mark.parametrize("packed", (False, True))
def test_outputs_state_and_gradients_are_those_of_the_whole(packed, with_bonus, monkeypatch):
    import torch

    g = rng(8)
    q, k, decay = (normal(g, 2, 330, 3, 4) for _ in range(3))
    tensors = [q, k, normal(g, 2, 330, 3, 5), -np.abs(decay), normal(g, 2, 3, 4, 5)]
    bonus = ops.convert_to_tensor(normal(g, 3, 4)) if with_bonus else None
    ids = np.sort(g.integers(0, 4, (2, 330)), axis=1) if packed else None
    slopes = [ops.convert_to_tensor(normal(g, *shape)) for shape in ((2, 330, 3, 5), (2, 3, 4, 5))]
    sizes, run = [], per_channel.run
    monkeypatch.setattr(
        per_channel,
        "run",
        lambda q, *rest, **kw: (sizes.append(q.shape[1]), run(q, *rest, **kw))[1],
    )

    def results(large):
        monkeypatch.setattr(turns, "LARGE", large)
        sizes.clear()
        leaves = [ops.convert_to_tensor(x).requires_grad_() for x in tensors]
        *four, initial = leaves
        found = gated_linear_attention(
            *four, bonus=bonus, initial_state=initial, segment_ids=ids, return_state=True
        )
        total = sum(ops.sum(x * slope) for x, slope in zip(found, slopes, strict=True))
        return [*found, *torch.autograd.grad(total, leaves)]

    whole = results(2**30)
    decay_a_channel = {"q": q.shape, "v": tensors[2].shape, "log_decay": decay.shape}
    rows = kernels.explain("gated_linear_attention", **decay_a_channel, device="cpu")
    assert next(row.kernel for row in rows if row.runs) == "portable"
    chunks = sizes[0]
    assert sizes == [chunks] and chunks > 3
    parts = results(2 * 64 * 3 * 4)
    rows = kernels.explain("gated_linear_attention", **decay_a_channel, device="cpu")
    assert next(row.kernel for row in rows if row.runs) == "torch_turns"
    assert sum(sizes) == chunks and len(sizes) > 3
    for one, other in zip(parts, whole, strict=True):
        one, other = backend.to_numpy(one.detach()), backend.to_numpy(other.detach())
        assert np.abs(one - other).max() < 1e-5 * np.abs(other).max()
