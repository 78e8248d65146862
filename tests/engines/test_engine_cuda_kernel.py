"""The CUDA convolution in the kernel table, where no graphics card is needed to see it."""

import pytest

from ember_keras import backend
from ember_keras.cuda import library
from ember_keras.ops import kernels
from ember_keras.ops.kernels import native_fft_conv

pytestmark = pytest.mark.skipif(
    backend.name() not in ("torch", "jax"), reason="reached by torch and jax"
)


def row(**request):
    return {row.kernel: row for row in kernels.explain("fft_conv", **request)}["cuda_fft_conv"]


def test_it_says_why_it_does_not_run():
    built = library.load_gpu()[1] is None
    assert not row(device="cpu").runs
    if built:
        assert "on cpu" in row(device="cpu").reason
        assert "on rocm" in row(device="rocm").reason
        assert "float64" in row(device="cuda", dtype="float64").reason
        assert row(device="cuda").runs
    else:
        assert "EMBER_CUDA=1" in row(device="cuda").reason


def test_where_the_library_is_there_device_and_dtype_decide():
    refuse = native_fft_conv._refusal(None, "cuda", native_fft_conv._FLOATS)

    def reason(device, dtype):
        return refuse(kernels.Request("fft_conv", backend.name(), device, dtype, {}, {}))

    for dtype in ("float32", "float16", "bfloat16"):
        assert reason("cuda", dtype) is None
    assert "float64" in reason("cuda", "float64")
    for device in ("cpu", "rocm", "tpu"):
        assert f"the tensors are on {device}" in reason(device, "float32")


def test_it_says_that_no_card_has_run_it():
    (kernel,) = (each for each in kernels.kernels("fft_conv") if each.name == "cuda_fft_conv")
    assert "no graphics card has run it" in kernel.about
