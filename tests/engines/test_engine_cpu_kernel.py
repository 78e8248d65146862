"""The C++ convolution as each backend reaches it, beside the portable form."""

import os
import re

import numpy as np
import pytest
from engines.convolutions import GATES, MARKS, SIZES, arguments, both, gated, gates_of, run
from engines.support import error, trains

import ember_keras as ek
from ember_keras import backend
from ember_keras.cuda import library
from ember_keras.ops import kernels

from keras import ops  # isort: skip - after ember_keras

pytestmark = MARKS


def test_it_runs_where_there_is_a_compiler():
    rows = {row.kernel: row for row in kernels.explain("fft_conv")}
    assert rows["cpu_fft_conv"].runs, rows["cpu_fft_conv"].reason
    row = {row.kernel: row for row in kernels.explain("fft_conv", device="cuda")}["cpu_fft_conv"]
    assert not row.runs
    assert "runs on cpu" in row.reason


@pytest.mark.parametrize("causal", (True, False))
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values(sizes, causal, monkeypatch):
    u, k, d = arguments(sizes)
    for got, expected in both(monkeypatch, lambda: [run(u, k, d, causal), run(u, k, None, causal)]):
        assert error(got, expected) < 2e-6


def test_continued_in_chunks(monkeypatch):
    u, k, d = arguments((2, 60, 6, 60, 6))

    def chunks():
        whole, state = [], ek.ops.fft_conv_state(2, 6)
        for start, stop in ((0, 20), (20, 21), (21, 60)):
            y, state = ek.ops.fft_conv(
                u[:, start:stop], k, d, initial_state=state, return_state=True
            )
            whole.append(y)
        return [ops.concatenate(whole, axis=1), run(u, k, d)]

    for got, expected in both(monkeypatch, chunks):
        assert error(got, expected) < 2e-6


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_half_precision(dtype, monkeypatch):
    u, k, d = arguments((2, 40, 12, 40, 6), dtype)
    for got, expected in both(monkeypatch, lambda: [ops.cast(run(u, k, d), "float32")]):
        assert error(got, expected) < (1e-3 if dtype == "float16" else 8e-3)


@trains
@pytest.mark.parametrize("causal", (True, False))
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gradients(sizes, causal, monkeypatch):
    tensors = arguments(sizes)

    def gradients():
        loss = backend.value_and_grad(lambda u, k, d: ops.sum(ops.tanh(run(u, k, d, causal))))
        return loss(*tensors)[1]

    for got, expected in both(monkeypatch, gradients):
        assert error(got, expected) < 5e-6


@pytest.mark.parametrize("causal", (True, False))
@pytest.mark.parametrize("which", GATES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gates(sizes, which, causal, monkeypatch):
    u, k, d = arguments(sizes)
    gates = gates_of(u, which)

    def values():
        return [gated(u, k, x, *gates, which=which, causal=causal) for x in (d, None)]

    for got, expected in both(monkeypatch, values):
        assert error(got, expected) < 2e-6
    half = [ops.cast(x, "bfloat16") for x in (u, k, d, *gates)]

    def rounded():
        return [ops.cast(gated(*half, which=which, causal=causal), "float32")]

    for got, expected in both(monkeypatch, rounded):
        assert error(got, expected) < 1e-2


@trains
@pytest.mark.parametrize("which", GATES, ids=str)
def test_gradients_with_gates(which, monkeypatch):
    u, k, d = arguments((2, 60, 12, 60, 6))

    def gradients():
        loss = backend.value_and_grad(lambda *x: ops.sum(ops.tanh(gated(*x, which=which))))
        return loss(u, k, d, *gates_of(u, which))[1]

    for got, expected in both(monkeypatch, gradients):
        assert error(got, expected) < 5e-6


def test_nan_stays_in_its_row_and_channel():
    u, k, d = (backend.to_numpy(x).copy() for x in arguments((3, 40, 20, 40, 20)))
    u[1, 5, 7] = np.nan
    broken = ~np.isfinite(backend.to_numpy(run(u, k, d)))
    expected = np.zeros_like(broken)
    expected[1, :, 7] = broken[1, :, 7]
    assert broken[1, 5:, 7].all()
    np.testing.assert_array_equal(broken, expected)


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux alone counts so")
@pytest.mark.parametrize("dtype", ("float32", "float16"))
def test_nothing_of_the_size_of_the_signal_but_the_result(dtype, monkeypatch):
    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    u, k, _ = arguments((16, 4096, 128, 4096, 128), dtype)
    size = u.shape[0] * u.shape[1] * u.shape[2] * np.dtype(dtype).itemsize
    call = backend.compile(run)

    def held():
        before = _resident("RSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # The peak begins anew.
        y = call(u, k, None)
        backend.to_numpy(y[0, 0, 0])  # It is there by now.
        return _resident("HWM") - before - size

    held()  # It is compiled, and takes the scratch that it keeps.
    assert held() <= 512 * 4096 * library.cores() + size // 4


def _resident(kind):
    with open("/proc/self/status") as file:
        return int(re.search(rf"Vm{kind}:\s*(\d+) kB", file.read())[1]) << 10
