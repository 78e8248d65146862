"""MLX on stock Keras: serve the `keras_mlx` plug-in as ``keras.src.backend.mlx``.

Keras 3.15 chooses its backend in closed ``elif`` chains. The plug-in `keras_mlx` is written for a
later Keras that loads plug-ins. `install` puts one finder in front of ``sys.meta_path`` that

1. answers ``keras.src.backend.mlx`` and its submodules with the modules of `keras_mlx`;
2. compiles a patched copy of the few Keras modules that need an ``mlx`` branch (`PATCHES`): each
   patch replaces source text that must occur exactly once, otherwise the import refuses;
3. runs the mends of `ember_keras.backend.mlx_mends` right after a module executed, before any
   other module can copy a defective name from it.

Nothing on disk is changed, and no bytecode of a patched module is written.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys

from ember_keras.backend import mlx_mends

ROOT = "keras.src.backend.mlx"

SUBMODULES = {
    f"{ROOT}.core": "keras_mlx.src.ops.core",
    f"{ROOT}.image": "keras_mlx.src.ops.image",
    f"{ROOT}.linalg": "keras_mlx.src.ops.linalg",
    f"{ROOT}.math": "keras_mlx.src.ops.math",
    f"{ROOT}.nn": "keras_mlx.src.ops.nn",
    f"{ROOT}.numpy": "keras_mlx.src.ops.numpy",
    f"{ROOT}.random": "keras_mlx.src.random",
    f"{ROOT}.rnn": "keras_mlx.src.rnn",
    f"{ROOT}.trainer": "keras_mlx.src.trainer",
    f"{ROOT}.variable": "keras_mlx.src.variable",
    f"{ROOT}.layer": "ember_keras.backend.mlx_mends.parts",
    f"{ROOT}.export": "ember_keras.backend.mlx_mends.parts",
}
"""Submodule of ``keras.src.backend.mlx`` -> the module that stands behind it."""

_NAMESPACE = {
    "keras_mlx.src": (
        "SUPPORTS_SPARSE_TENSORS",
        "SUPPORTS_RAGGED_TENSORS",
        "SUPPORTS_COMPLEX_DTYPES",
        "IS_THREAD_SAFE",
        "name_scope",
        "Variable",
    ),
    "keras_mlx.src.ops": ("core", "image", "linalg", "math", "nn", "numpy"),
    "keras_mlx.src.ops.core": (
        "cast",
        "compute_output_spec",
        "cond",
        "convert_to_numpy",
        "convert_to_tensor",
        "device_scope",
        "is_tensor",
        "random_seed_dtype",
        "shape",
        "vectorized_map",
    ),
    "keras_mlx.src.rnn": (
        "bidirectional_gru",
        "bidirectional_lstm",
        "cudnn_ok",
        "gru",
        "lstm",
        "rnn",
    ),
}
"""What ``from keras.src.backend.mlx import *`` must give stock Keras, by the module it is in."""

PATCHES = {
    "keras.src.backend": (
        (
            'else:\n    raise ValueError(f"Unable to import backend : {backend()}")',
            'elif backend() == "mlx":\n'
            "    from keras.src.backend.mlx import *  # noqa: F403\n"
            "    from keras.src.backend.mlx import Variable as BackendVariable\n"
            "\n"
            "    distribution_lib = None\n"
            'else:\n    raise ValueError(f"Unable to import backend : {backend()}")',
        ),
    ),
    # A dtype of mlx prints as "mlx.core.float32" and has neither `name` nor `__name__`.
    "keras.src.backend.common.variables": (
        (
            '"torch" in str(dtype) or "jax.numpy" in str(dtype)',
            '"torch" in str(dtype)\n'
            '        or "jax.numpy" in str(dtype)\n'
            '        or str(dtype).startswith("mlx.core.")',
        ),
    ),
    "keras.src.layers.layer": (
        (
            "else:\n    raise RuntimeError(\n        f\"Backend '{backend.backend()}' must "
            'implement a layer mixin class."',
            'elif backend.backend() == "mlx":\n'
            "    from keras.src.backend.mlx.layer import MLXLayer as BackendLayer\n"
            "else:\n    raise RuntimeError(\n        f\"Backend '{backend.backend()}' must "
            'implement a layer mixin class."',
        ),
    ),
    # Mid-epoch the plug-in, as jax does, holds the weights outside the model's variables.
    "keras.src.callbacks.callback": (
        (
            '        if backend.backend() == "jax" and hasattr(',
            '        if backend.backend() == "mlx" and hasattr(\n'
            '            self._model, "mlx_state_sync"\n'
            "        ):\n"
            "            self._model.mlx_state_sync()\n"
            '        if backend.backend() == "jax" and hasattr(',
        ),
    ),
    "keras.src.models.model": (
        (
            "else:\n    raise RuntimeError(\n        f\"Backend '{backend.backend()}' must "
            'implement the Trainer class."',
            'elif backend.backend() == "mlx":\n'
            "    from keras.src.backend.mlx.trainer import Trainer\n"
            "else:\n    raise RuntimeError(\n        f\"Backend '{backend.backend()}' must "
            'implement the Trainer class."',
        ),
    ),
    "keras.src.export.saved_model": (
        (
            "else:\n    raise RuntimeError(\n        f\"Backend '{backend.backend()}' must "
            'implement ExportArchive."',
            'elif backend.backend() == "mlx":\n'
            "    from keras.src.backend.mlx.export import (\n"
            "        MLXExportArchive as BackendSavedModelExportArchive,\n"
            "    )\n"
            "else:\n    raise RuntimeError(\n        f\"Backend '{backend.backend()}' must "
            'implement ExportArchive."',
        ),
    ),
    # A NaN constant becomes the word `nan` in the C++ that mlx writes and compiles on a CPU, and
    # that does not compile. A NaN that is computed does.
    "keras_mlx.src.random": (("mx.array(mx.nan)", "mx.sqrt(mx.array(-1.0))"),),
    "keras_mlx.src.ops.numpy": (
        ("mx.full((), mx.nan, dtype=dtype)", "mx.sqrt(mx.array(-1.0)).astype(dtype)"),
    ),
    "keras.src.utils.backend_utils": (
        (
            '        if self._backend == "openvino":\n',
            '        if self._backend == "mlx":\n'
            f'            module = importlib.import_module("{ROOT}")\n'
            "            return getattr(module, name)\n"
            '        if self._backend == "openvino":\n',
        ),
        (
            'if backend not in ("tensorflow", "jax", "torch", "numpy", "openvino"):',
            'if backend not in ("tensorflow", "jax", "torch", "numpy", "openvino", "mlx"):',
        ),
    ),
}
"""Keras module -> pairs of (text that occurs exactly once, text that takes its place)."""


def patched(name, source, patches=None):
    """Return `source` of module `name` with its patches applied.

    Args:
        name: string, dotted module name.
        source: string, the stock source text.
        patches: pairs of (anchor, replacement); the entry of `PATCHES` when omitted.

    Raises:
        ImportError: an anchor does not occur exactly once.
    """
    for anchor, replacement in PATCHES[name] if patches is None else patches:
        count = source.count(anchor)
        if count != 1:
            raise ImportError(
                f"MLX cannot be grafted onto this Keras. Received a {name} in which this text "
                f"occurs {count} times, expected exactly once:\n{anchor}\n"
                "Install the tested release: pip install 'keras==3.15.1'."
            )
        source = source.replace(anchor, replacement)
    return source


class _PatchingLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from its own file, with `PATCHES` applied to the text, past any bytecode."""

    def get_code(self, fullname):
        source = patched(fullname, self.get_source(fullname))
        return compile(source, self.path, "exec", dont_inherit=True)

    def exec_module(self, module):
        super().exec_module(module)
        mlx_mends.mend(module)


class _MendingLoader(importlib.machinery.SourceFileLoader):
    """Loads a module as usual, then mends it."""

    def exec_module(self, module):
        super().exec_module(module)
        mlx_mends.mend(module)


class _BackendLoader(importlib.abc.Loader):
    """Builds the package ``keras.src.backend.mlx`` out of the modules of `keras_mlx`."""

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        for source, names in _NAMESPACE.items():
            origin = importlib.import_module(source)
            for name in names:
                setattr(module, name, getattr(origin, name))
        module.random = importlib.import_module("keras_mlx.src.random")


class _AliasLoader(importlib.abc.Loader):
    """Answers an import with a module that lives under another name."""

    def __init__(self, target):
        self.target = target

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        sys.modules[module.__spec__.name] = importlib.import_module(self.target)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that the graft serves, patches or mends, and no others."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == ROOT:
            return importlib.machinery.ModuleSpec(fullname, _BackendLoader(), is_package=True)
        if fullname in SUBMODULES:
            return importlib.machinery.ModuleSpec(fullname, _AliasLoader(SUBMODULES[fullname]))
        if fullname in PATCHES:
            loader = _PatchingLoader
        elif fullname in mlx_mends.MENDS:
            loader = _MendingLoader
        else:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            raise ImportError(
                f"MLX cannot be grafted onto this Keras. Received no source file for {fullname}; "
                "expected an ordinary installation. Reinstall with: "
                "pip install --force-reinstall 'keras==3.15.1' 'keras-mlx==0.0.1'."
            )
        spec.loader = loader(fullname, spec.origin)
        return spec


def installed():
    """Return True when the finder is in ``sys.meta_path``."""
    return any(isinstance(finder, Finder) for finder in sys.meta_path)


def install():
    """Put the finder in front of ``sys.meta_path``. Must run before Keras is imported."""
    if not installed():
        sys.meta_path.insert(0, Finder())
