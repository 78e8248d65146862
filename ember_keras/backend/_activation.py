"""What happens before Keras is imported: the checks, and under mlx the graft."""

import importlib
import importlib.util
import pathlib
import re
import sys

from ember_keras.config import environment

KERAS_RANGE = ((3, 15, 1), (3, 16))
"""The tested Keras releases: from the first, below the second."""

PLUGIN = "0.0.1"
"""The tested release of `keras-mlx`."""

PACKAGES = {
    "numpy": ("numpy", "jax"),
    "torch": ("torch",),
    "jax": ("jax",),
    "tensorflow": ("tensorflow",),
    "mlx": ("mlx", "keras_mlx"),
}
"""Backend -> the modules that must be there to run it. Keras's numpy backend imports jax."""


def activate():
    """See `ember_keras.backend.activate`."""
    environment.refuse_unknown_variables()
    wanted = environment.keras_backend()
    check_keras_version(keras_version())
    if wanted == "mlx":
        _activate_mlx()
    elif "keras" not in sys.modules and missing(wanted):
        usable = [name for name in PACKAGES if not missing(name)]
        raise ImportError(
            f"Keras is set to the {wanted} backend, and {missing(wanted)[0]} is not installed; "
            f"expected one of the installed backends: {', '.join(usable) or '(none)'}. Set "
            f"KERAS_BACKEND to one of them, or install it: pip install 'ember-keras[{wanted}]'."
        )


def missing(backend):
    """Return the modules that `backend` needs and that are not installed."""
    return [name for name in PACKAGES[backend] if importlib.util.find_spec(name) is None]


def keras_version():
    """Return the version of the installed Keras without importing it."""
    if "keras" in sys.modules:
        return sys.modules["keras"].__version__
    source = _keras_file("version.py").read_text(encoding="utf-8")
    found = re.search(r"""__version__ = ["']([^"']+)["']""", source)
    return found.group(1) if found else "unknown"


def check_keras_version(version):
    """Raise `ImportError` where `version` is outside `KERAS_RANGE`."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    low, high = KERAS_RANGE
    if not low <= numbers < high:
        raise ImportError(
            f"Received Keras {version}; expected a tested release, >={_dotted(low)},"
            f"<{_dotted(high)}. Install one: pip install 'keras>={_dotted(low)},<{_dotted(high)}'."
        )


def loads_plugins(source):
    """Return True where the text of ``keras/src/backend/__init__.py`` knows mlx by itself."""
    return bool(re.search(r"\bkeras_mlx\b|==\s*[\"']mlx[\"']|\bimport_module\(", source))


def _activate_mlx():
    from ember_keras.backend import _graft, mlx_mends

    if _graft.installed():
        return
    if loads_plugins(_keras_file("backend", "__init__.py").read_text(encoding="utf-8")):
        return
    touched = {_graft.ROOT, "keras", *_graft.PATCHES, *mlx_mends.MENDS}
    early = sorted(touched & set(sys.modules))
    if early:
        raise ImportError(
            "Keras was imported before ember_keras, and the mlx backend must be set up first. "
            f"Received {', '.join(early[:3])} in sys.modules; expected no Keras module. Put "
            "`import ember_keras` before `import keras`."
        )
    _require_plugin()
    _graft.install()


def _require_plugin():
    """Raise `ImportError`, saying what to install, where mlx or the plug-in cannot be used."""
    from importlib import metadata

    install = (
        "Install the tested set: pip install 'ember-keras[mlx]', or by hand "
        f"'keras-mlx=={PLUGIN}' 'mlx==0.31.2' and, on Linux, 'mlx-cpu==0.31.2'."
    )
    try:
        importlib.import_module("mlx.core")
    except ImportError as error:
        raise ImportError(
            f"KERAS_BACKEND is mlx and mlx cannot be imported ({error}). {install}"
        ) from error
    try:
        version = metadata.version("keras-mlx")
    except metadata.PackageNotFoundError as error:
        raise ImportError(f"KERAS_BACKEND is mlx and keras-mlx is not installed. {install}") from (
            error
        )
    if version != PLUGIN:
        raise ImportError(f"Received keras-mlx {version}; expected {PLUGIN}. {install}")


def _keras_file(*parts):
    """Return the path of a file of the installed Keras, below ``keras/src``."""
    spec = importlib.util.find_spec("keras")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "Keras is not installed; expected "
            f">={_dotted(KERAS_RANGE[0])},<{_dotted(KERAS_RANGE[1])}. "
            "Install it: pip install 'keras>=3.15.1,<3.16'."
        )
    for root in spec.submodule_search_locations:
        path = pathlib.Path(root, "src", *parts)
        if path.is_file():
            return path
    raise ImportError(
        f"Received a Keras without the file src/{'/'.join(parts)}; expected an ordinary "
        "installation. Reinstall it: pip install --force-reinstall 'keras>=3.15.1,<3.16'."
    )


def _dotted(numbers):
    return ".".join(str(number) for number in numbers)
