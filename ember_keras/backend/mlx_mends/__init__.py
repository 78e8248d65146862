"""The mends: one small named function a defect, run right after the defective module executed.

`MENDS` maps a module to its mends. Each mend takes the module and sets names in it; because it
runs before any other module can import from there, every later ``from module import name`` gets
the mended one. Its docstring says what is wrong upstream. They are written against `keras-mlx`
0.0.1 and mlx 0.31.2; on another release the import refuses, so none outlives its defect.
"""


def mend(module):
    """Run the mends of `module`, if it has any."""
    for fix in MENDS.get(module.__spec__.name, ()):
        fix(module)


def _later(path):
    """Return a mend that is imported when it runs, because it needs mlx."""
    home, name = path.rsplit(".", 1)

    def fix(module):
        from importlib import import_module

        getattr(import_module(f"{__name__}.{home}"), name)(module)

    fix.__name__ = name
    return fix


def _holomorphic(name):
    def fix(module):
        from ember_keras.backend.mlx_mends import complex_ops

        complex_ops.holomorphic(name)(module)

    fix.__name__ = f"holomorphic_{name}"
    return fix


_COMPLEX = "exp exp2 expm1 log log1p log2 log10 sqrt square sin cos tan sinh cosh tanh".split()

MENDS = {
    "keras.src.trainers.trainer": (_later("keras_side.base_trainer"),),
    "keras.src.backend.common.backend_utils": (_later("keras_side.normalize_shift_and_axis"),),
    "keras_mlx.src.ops.core": (
        _later("arrays.strided_slice"),
        _later("core.explicit_float64"),
        _later("core.computed_nan"),
        _later("core.traced_slice"),
        _later("core.traced_slice_update"),
        _later("core.traced_cond"),
        _later("core.traced_switch"),
        _later("core.traced_while_loop"),
        _later("core.tensor_bounds"),
        _later("core.custom_gradient"),
        _later("core.remat_keeps_gradients"),
        _later("arrays.matmul_with_variables"),
        _later("arrays.numpy_protocol"),
    ),
    "keras_mlx.src.ops.numpy": (
        *map(_holomorphic, _COMPLEX),
        _later("complex_ops.power"),
        _later("complex_ops.cumprod"),
        _later("arrays.complex_power"),
        _later("arrays.take_of_transposed"),
    ),
    "keras_mlx.src.random": (_later("sampling.float64"),),
    "keras_mlx.src.trainer": (_later("training.missing_inputs"),),
    "keras_mlx.src.ops.math": (_holomorphic("rsqrt"),),
    "keras_mlx.src.ops.nn": (_holomorphic("sigmoid"), _holomorphic("tanh")),
}
"""Module name -> the mends that run after it executed, in order."""
