"""The kernel table: what runs, why the others would not, and that all of it computes the same."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from engines.support import error, gradients, mask_of, normal, rng, segments_of

from ember_keras import backend
from ember_keras.ops import kernels
from ember_keras.ops.engines.attention import attention
from ember_keras.ops.engines.attention import naive as naive_attention
from ember_keras.ops.engines.fft_conv import fft_conv
from ember_keras.ops.engines.fft_conv import naive as naive_fft_conv
from ember_keras.ops.kernels import table

OPTIONS = {
    "causal": {},
    "bidirectional": {"causal": False},
    "window": {"window": 5},
    "mask": {"mask": mask_of(rng(1), 2, 40, "both")},
    "segments": {"segment_ids": segments_of(rng(2), 2, 40)},
}


def here(engine):
    return [each for each in kernels.kernels(engine) if backend.name() in each.backends]


@pytest.fixture
def only(monkeypatch):
    """A table that holds one kernel of the test's making."""

    def install(**changes):
        kept = dict(table._KERNELS)
        monkeypatch.setattr(table, "_KERNELS", kept)
        kernel = kernels.Kernel(
            **{
                "name": "test_kernel",
                "engine": "fft_conv",
                "backends": (backend.name(),),
                "refuse": lambda request: None,
                "run": lambda u, k, d, **_: u * 0 + 7,
                **changes,
            }
        )
        return kernels.register(kernel)

    return install


@pytest.mark.parametrize("setting", ("auto", "portable"))
@pytest.mark.parametrize("name", OPTIONS)
def test_every_setting_computes_the_same(name, setting, monkeypatch):
    monkeypatch.setenv("EMBER_KERNELS", setting)
    if setting == "portable" and not (here("attention") or here("fft_conv")):
        pytest.skip("this backend has no kernels: auto is portable")
    g, options = rng(3), OPTIONS[name]
    q, k, v = (normal(g, 2, 40, heads, 8) for heads in (4, 2, 2))
    u, taps, d = normal(g, 2, 40, 6), normal(g, 40, 6), normal(g, 6)
    cases = [(attention, naive_attention.attention, naive_attention.gradients, "qkv", (q, k, v))]
    if "window" not in options:
        case = (fft_conv, naive_fft_conv.fft_conv, naive_fft_conv.gradients, "ukd", (u, taps, d))
        cases.append(case)
    for function, naive, slopes, names, tensors in cases:
        expected = naive(*tensors, **options)
        if not backend.capabilities().trains:
            assert error(function(*tensors, **options), expected) < 2e-6
            continue
        slope = normal(rng(4), *expected.shape)
        found = gradients(lambda *x: function(*x, **options), names, tensors, slope)  # noqa: B023
        assert error(found["output"], expected) < 2e-6
        for each, gradient in slopes(*tensors, slope, **options).items():
            assert error(found[each], gradient) < 5e-6, each


def test_explain_has_one_row_that_runs():
    for engine in table.TYPICAL:
        rows = kernels.explain(engine, device="cpu")
        assert [row.runs for row in rows].count(True) == 1
        assert rows[-1].kernel == "portable" and all(row.reason for row in rows)
        (running,) = (row.kernel for row in rows if row.runs)
        assert running in ([each.name for each in here(engine)] or ["portable"])


def test_attention_of_mlx_on_a_cpu_leaves_long_inputs_to_the_portable_form():
    if backend.name() != "mlx":
        pytest.skip("mlx's kernel alone makes all scores")

    def running(time, device):
        shapes = dict.fromkeys("qkv", (1, time, 1, 4))
        rows = kernels.explain("attention", **shapes, device=device)
        return next(row.kernel for row in rows if row.runs)

    assert running(1024, "cpu") == running(2048, "gpu") == "mlx_sdpa"
    assert running(2048, "cpu") == "portable"


def test_explain_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="Did you mean 'fft_conv'"):
        kernels.explain("fft_convolution")
    with pytest.raises(ValueError, match="Did you mean 'window'"):
        kernels.explain("attention", windows=3)


def test_a_kernel_needs_no_change_to_the_engine(only):
    only(engine="fft_conv", name="first")
    table._KERNELS = {"first": table._KERNELS.pop("first"), **table._KERNELS}
    assert np.all(
        backend.to_numpy(fft_conv(np.ones((1, 4, 2), "float32"), np.ones((2, 2), "float32"))) == 7
    )


def test_a_refusing_kernel_leaves_the_portable_form(only, monkeypatch):
    only(refuse=lambda request: "it is raining.")
    u, k = normal(rng(5), 1, 30, 2), normal(rng(6), 30, 2)
    assert error(fft_conv(u, k), naive_fft_conv.fft_conv(u, k)) < 2e-6
    monkeypatch.setenv("EMBER_KERNELS", "test_kernel")
    with pytest.raises(ValueError, match="it is raining"):
        fft_conv(u, k)
    rows = {row.kernel: row for row in kernels.explain("fft_conv")}
    assert rows["test_kernel"].reason == "it is raining." and not rows["portable"].runs


def test_another_backend_is_a_reason(only, monkeypatch):
    only(backends=("abacus",))
    monkeypatch.setenv("EMBER_KERNELS", "test_kernel")
    with pytest.raises(ValueError, match="runs on abacus"):
        fft_conv(normal(rng(5), 1, 3, 2), normal(rng(6), 3, 2))


def test_an_error_of_the_verifier_is_an_error(only, monkeypatch):
    def broken(request):
        raise KeyError("a bug in the kernel")

    only(refuse=broken)
    monkeypatch.setenv("EMBER_KERNELS", "test_kernel")
    with pytest.raises(KeyError, match="a bug"):
        fft_conv(normal(rng(5), 1, 3, 2), normal(rng(6), 3, 2))


def test_names_are_unique_and_engines_known(only):
    only()
    with pytest.raises(ValueError, match="is taken"):
        only()
    with pytest.raises(ValueError, match="expected one of attention, fft_conv"):
        only(name="other", engine="atention")


def in_a_process(code, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_an_unknown_setting_is_refused_at_import():
    done = in_a_process("import ember_keras.ops", EMBER_KERNELS="portabel")
    assert done.returncode == 1
    assert "EMBER_KERNELS=portabel" in done.stderr and "Did you mean 'portable'" in done.stderr


@pytest.mark.slow
def test_attention_never_holds_all_scores():
    """Scores of 8192 x 8192 would be 256 MiB, and their gradient as much again."""
    done = in_a_process(
        """
        import resource

        import numpy as np

        import ember_keras
        from ember_keras import backend
        from ember_keras.ops.engines.attention import attention
        from keras import ops


        def run(time):
            x = ops.convert_to_tensor(np.ones((1, time, 1, 4), "float32"))
            forward = lambda *x: ops.sum(attention(*x))
            if backend.capabilities().trains:
                forward = backend.value_and_grad(forward)
            for each in keras_tree(backend.compile(forward)(x, x, x)):
                backend.to_numpy(each)
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


        def keras_tree(nest):
            from keras import tree

            return tree.flatten(nest)


        small = run(1100)
        print(run(8192) - small)
        """,
        EMBER_KERNELS="portable",
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 160
