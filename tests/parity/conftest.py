"""What the parity tests share: a comparison with a peer that runs under torch."""

import os
from pathlib import Path

import numpy as np
import pytest

BATCH, TIME, WIDTH = 3, 17, 12

# The peers run under torch. Beside tensorflow, which comes first there, torch may crash, and the
# mixers under it are held against those of the other backends by the laws.
collect_ignore = []
if os.environ["KERAS_BACKEND"] == "tensorflow":
    others = sorted(Path(__file__).parent.glob("test_parity_*.py"))
    collect_ignore = [path.name for path in others if path.name != "test_parity_keras.py"]


@pytest.fixture
def agrees(assert_close):
    """Compares a mixer with a peer: full pass, cached steps, and the gradient of the input."""

    def check(mixer, peer, batch=BATCH, **options):
        import torch

        from ember_keras import backend
        from laws.support import call, gradients, step  # isort: skip - after ember_keras

        rng = np.random.default_rng(1)
        x = rng.normal(size=(batch, TIME, WIDTH)).astype("float32")
        given = torch.tensor(x, requires_grad=True)
        theirs = peer(given)
        slope = rng.normal(size=tuple(theirs.shape)).astype("float32")
        (theirs * torch.tensor(slope)).sum().backward()
        expected = theirs.detach().numpy()
        y = call(mixer, x, **options)
        assert_close(backend.to_numpy(y), expected, name="full pass")
        first = {key: value[:, :9] for key, value in options.items()}
        y, state = call(mixer, x[:, :9], return_state=True, **first)
        outputs = [backend.to_numpy(y)]
        for t in range(9, TIME):
            now = {key: value[:, t] for key, value in options.items()}
            y, state = step(mixer, x[:, t], state, **now)
            outputs.append(backend.to_numpy(y)[:, None])
        assert_close(np.concatenate(outputs, axis=1), expected, name="cached steps")
        if backend.capabilities().trains:
            _, gradient = gradients(mixer, x, slope, **options)
            assert_close(backend.to_numpy(gradient), given.grad.numpy(), name="input gradient")

    return check


@pytest.fixture
def shaken():
    """A torch module with random weights everywhere, as far as they may be negative."""

    def shake(module, keep=(), scale=0.4):
        import torch

        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if parameter.requires_grad and not any(word in name for word in keep):
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(noise * scale)
        return module.eval()

    return shake
