"""The C++ convolution under transformations of jax."""

import numpy as np
import pytest
from engines.convolutions import arguments, both, gated, gates_of, only, run
from engines.support import error

pytestmark = only("jax")


def test_jax_transformations(monkeypatch):
    import jax
    import jax.numpy as jnp

    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    u, k, d = arguments((2, 20, 6, 20, 3))
    us, ks = jnp.stack([u, 2 * u, -u]), jnp.stack([k, k + 1, 2 * k])
    assert "ember_keras_fft_conv" in jax.jit(run).lower(u, k, d).as_text()

    def loss(u, k):
        return jnp.sum(jnp.sin(run(u, k, d)))

    slope = jax.grad(loss, (0, 1))
    for axes in ((0, 0), (0, None), (None, 0)):
        rows = [
            (u if axes[0] is None else us[i], k if axes[1] is None else ks[i]) for i in range(3)
        ]
        given = (u if axes[0] is None else us, k if axes[1] is None else ks)
        found = jax.jit(jax.vmap(slope, axes))(*given)
        for got, expected in zip(
            found, zip(*(slope(*row) for row in rows), strict=True), strict=True
        ):
            assert error(got, np.stack(expected)) < 1e-6
    skips = jnp.stack([d, 2 * d, -d])
    found = jax.vmap(jax.grad(lambda d: jnp.sum(run(u, k, d))))(skips)
    expected = jnp.broadcast_to(jnp.sum(u, axis=(0, 1)), found.shape)
    assert error(found, np.asarray(expected)) < 1e-5
    both_axes = jax.vmap(jax.vmap(lambda u, k: run(u, k, d), (0, None)), (None, 0))(us, ks)
    assert error(both_axes[1, 2], run(us[2], ks[1], d)) < 1e-6

    def second():
        return [jax.grad(lambda u: jnp.sum(jnp.tanh(jax.grad(loss)(u, k))))(u)]

    for got, expected in both(monkeypatch, second):
        assert error(got, expected) < 1e-5


def test_jax_transformations_of_gates(monkeypatch):
    import jax
    import jax.numpy as jnp

    u, k, d = arguments((2, 40, 6, 40, 3))
    gates = gates_of(u, (True, True))

    def loss(*x):
        return jnp.sum(jnp.sin(gated(*x, which=(True, True))))

    def second():
        first = jax.grad(loss, (0, 1, 2, 3, 4))
        total = jax.grad(lambda *x: sum(jnp.sum(jnp.tanh(y)) for y in first(*x)), (0, 1, 2, 3, 4))
        return total(u, k, d, *gates)

    for got, expected in both(monkeypatch, second):
        assert error(got, expected) < 1e-5

    def mapped():
        rows = jnp.stack([gates[1], 2 * gates[1]])
        slopes = jax.grad(loss, (0, 1, 3, 4))
        return jax.jit(jax.vmap(slopes, (None, None, None, None, 0)))(u, k, d, gates[0], rows)

    for got, expected in both(monkeypatch, mapped):
        assert error(got, expected) < 1e-5


def test_an_error_of_the_kernel_is_one_of_python():
    import jax

    from ember_keras.ops.kernels.native_fft_conv import jax_form

    u, k, _ = arguments((2, 20, 6, 20, 4))
    with pytest.raises(jax.errors.JaxRuntimeError, match="does not divide the width"):
        jax_form.run(u, k, None, 0, 20, 0, 40)
