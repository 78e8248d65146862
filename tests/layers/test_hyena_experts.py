"""`HyenaExperts` reads as many experts as it says, ties or not."""

import numpy as np
import pytest

import ember_keras as ek

WIDTH, EXPERTS = 6, 4


def _telling(active):
    """A mixer whose output is how much of each expert a position reads."""
    mixer = ek.layers.HyenaExperts(
        num_experts=EXPERTS,
        active_experts=active,
        expert_dim=EXPERTS,
        short_taps=1,
        filter={"type": "explicit", "num_taps": 1},
    )
    mixer.build((None, None, WIDTH))
    convolution = mixer.convolutions[0]
    for layer in (mixer.input_projection, mixer.output_projection, mixer.short_convolution):
        layer.bias.assign(np.zeros(layer.bias.shape))
        layer.kernel.assign(np.zeros(layer.kernel.shape))
    mixer.short_convolution.bias.assign(np.ones(mixer.short_convolution.bias.shape))
    convolution.filter.kernel.assign(np.zeros(convolution.filter.kernel.shape))
    convolution.skip.assign(np.eye(EXPERTS).reshape(-1))
    mixer.output_projection.kernel.assign(np.eye(EXPERTS, WIDTH))
    return mixer


@pytest.mark.parametrize("active", range(1, EXPERTS + 1))
def test_a_position_reads_as_many_as_are_active(active, rng):
    mixer = _telling(active)
    x = rng.normal(size=(1, 9, WIDTH)).astype("float32")
    x[0, 4] = 0.0  # A position at which all scores tie.
    router = ek.backend.to_numpy(mixer.router).copy()
    router[:, 2] = router[:, 1]  # Two experts that tie at every position.
    mixer.router.assign(router)
    read = ek.backend.to_numpy(mixer(x))[0, :, :EXPERTS]
    assert ((read > 0).sum(axis=1) == active).all()
    np.testing.assert_allclose(read.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(read[4], (np.arange(EXPERTS) < active) / active, rtol=1e-6)
    for scores, weights in zip(x[0] @ router, read, strict=True):
        least = np.sort(scores)[-active]
        assert (scores[weights > 0] > least - 1e-5).all()
