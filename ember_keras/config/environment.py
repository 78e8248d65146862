"""The only reader of environment variables in the package. It imports no Keras and writes nothing.

Two switches exist. ``KERAS_BACKEND`` is Keras's own and chooses the library that computes;
``EMBER_KERNELS`` chooses between fast kernels and the portable form. Two more are read when the
package is built and do nothing later. A variable that starts with ``EMBER_`` and is not known here
is a spelling mistake, and is refused when the package is imported.
"""

import json
import os

from ember_keras.config.components import nearest

BACKENDS = ("numpy", "torch", "jax", "tensorflow", "mlx")
"""Every backend Ember Keras runs on: the first predicts only, the others also train."""

VARIABLES = {
    "EMBER_KERNELS": "which kernels run: auto (default), portable, or a kernel's name",
    "EMBER_CPU_KERNEL": "when the package is installed: 0 leaves the C++ kernel out",
    "EMBER_CUDA": "when the package is installed: 1 builds the CUDA kernel",
}
"""The environment variables that belong to Ember Keras, each with one line on what it does."""


def keras_backend():
    """Return the name of the backend that Keras uses or will use in this process.

    The order is Keras's own: ``KERAS_BACKEND``, then ``backend`` in ``keras.json`` (in
    ``KERAS_HOME``, else ``~/.keras``), then ``tensorflow``.

    Raises:
        ValueError: the name is not one of `BACKENDS`.
    """
    name, source = _configured_backend()
    if name not in BACKENDS:
        raise ValueError(
            f"Unknown backend. Received {name!r} from {source}; expected one of "
            f"{', '.join(BACKENDS)}.{nearest(name, BACKENDS)} "
            "Set the environment variable KERAS_BACKEND to one of them before Python starts."
        )
    return name


def backend_is_default():
    """Return True where nobody chose a backend: no variable, and Keras's own default elsewhere.

    Keras writes that default into ``keras.json`` by itself, so that finding it there is no choice.
    """
    return not os.environ.get("KERAS_BACKEND") and _configured_backend()[0] == "tensorflow"


def use_backend(name, source):
    """Set the backend of this process, before Keras is imported. Only the command line does so.

    Raises:
        ValueError: the name is not one of `BACKENDS`.
    """
    if name not in BACKENDS:
        raise ValueError(
            f"Unknown backend. Received {name!r} from {source}; expected one of "
            f"{', '.join(BACKENDS)}.{nearest(name, BACKENDS)}"
        )
    os.environ["KERAS_BACKEND"] = name


def with_backend(name):
    """Return the environment for a new process that runs under the backend `name`."""
    return {**os.environ, "KERAS_BACKEND": name}


def kernels():
    """Return the kernel choice of ``EMBER_KERNELS``: ``auto``, ``portable``, or a kernel's name."""
    return os.environ.get("EMBER_KERNELS") or "auto"


def refuse_unknown_variables(environ=None):
    """Raise `ValueError` for every ``EMBER_`` variable in `environ` that is not in `VARIABLES`.

    Args:
        environ: mapping of names to values; the process environment when omitted.
    """
    environ = os.environ if environ is None else environ
    unknown = sorted(key for key in environ if key.startswith("EMBER_") and key not in VARIABLES)
    if unknown:
        hints = "".join(nearest(key, VARIABLES) for key in unknown[:1])
        raise ValueError(
            f"Unknown environment variable. Received {', '.join(unknown)}; "
            f"expected one of {', '.join(VARIABLES)}.{hints} Correct the name or unset it."
        )


def _keras_json():
    """Return the path where Keras looks for ``keras.json``, by Keras's own rule."""
    home = os.environ.get("KERAS_HOME")
    if home is None:
        base = os.path.expanduser("~")
        if not os.access(base, os.W_OK):
            base = "/tmp"  # noqa: S108  Keras's own rule; the file is only read here.
        home = os.path.join(base, ".keras")
    return os.path.expanduser(os.path.join(home, "keras.json"))


def _configured_backend():
    """Return the configured backend name and the place it came from, in words."""
    name = os.environ.get("KERAS_BACKEND")
    if name:
        return name, "the environment variable KERAS_BACKEND"
    path = _keras_json()
    try:
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
    except (OSError, ValueError):
        settings = {}
    name = settings.get("backend") if isinstance(settings, dict) else None
    if name:
        return name, path
    return "tensorflow", "Keras's default"
