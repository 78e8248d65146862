"""Gradients through `jax.shard_map`, of sequences and of channels that devices share."""

import os
import subprocess
import sys

import pytest

from ember_keras import backend

pytestmark = pytest.mark.skipif(backend.name() != "jax", reason="concerns jax only")

CODE = """
import sys
import ember_keras as ek
import jax
import keras
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec as P

mesh = Mesh(np.array(jax.devices()), ("x",))
draw = np.random.default_rng(0).normal

def compare(function, tensors, specs, name):
    shared = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=specs[0])
    slopes = [
        jax.jit(jax.grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x))), tuple(range(len(tensors)))))
        for f in (shared, function)
    ]
    for found, expected in zip(*(slope(*tensors) for slope in slopes), strict=True):
        error = float(jnp.abs(found - expected).max() / jnp.abs(expected).max())
        assert error < 1e-5, (name, error)

if sys.argv[1] == "fft_conv":
    u, g = (jnp.asarray(draw(size=(4, 50, 6)), "float32") for _ in range(2))
    k, d = jnp.asarray(draw(size=(50, 6)), "float32"), jnp.asarray(draw(size=6), "float32")
    rows = P("x"), P(), P(), P("x")
    channels = P(None, None, "x"), P(None, "x"), P("x"), P(None, None, "x")
    for specs in (rows, channels):
        gated = lambda u, k, d, g: ek.ops.fft_conv(u, k, d, gate_in=g, gate_out=g)
        compare(gated, (u, k, d, g), specs, "fft_conv")
else:
    for name in ("hyena", "mamba", "gated_linear_attention", "delta_net", "rg_lru", "lstm"):
        keras.utils.set_random_seed(0)  # Some weights round by more than the limit.
        layer = ek.registry.sequence_mixers.build(name)
        x = jnp.asarray(draw(size=(4, 20, 8)), "float32")
        layer(x)
        compare(layer, (x,), (P("x"),), name)
"""


@pytest.mark.parametrize("setting", ("auto", "portable", "complex_fft"))
def test_the_convolution(setting):
    run("fft_conv", setting)


def test_mixers():
    run("mixers", "auto")


def run(what, setting):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    places = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", CODE, what],
        env={**os.environ, "XLA_FLAGS": flags, "EMBER_KERNELS": setting, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
