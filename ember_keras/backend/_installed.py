"""Which backends are installed, found without importing any of them."""

import dataclasses

from ember_keras.backend._activation import PLUGIN, missing


@dataclasses.dataclass(frozen=True)
class Installed:
    """Whether a backend could run here.

    Args:
        version: string or None. The version of the library, None where it is missing.
        reason: string. Empty where the backend is usable; else why not, and what to install.
    """

    version: str | None
    reason: str = ""

    @property
    def usable(self):
        return not self.reason


_DISTRIBUTIONS = {
    "numpy": ("numpy",),
    "torch": ("torch",),
    "jax": ("jax",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tf-nightly"),
    "mlx": ("mlx",),
}


def installed():
    """Return a dict: backend -> `Installed`."""
    found = {}
    for backend, distributions in _DISTRIBUTIONS.items():
        version = _version(*distributions)
        reason = ""
        lacking = missing(backend)
        if version is None or backend in lacking:
            version, reason = None, "not installed"
        elif backend == "numpy" and lacking:
            reason = "Keras's numpy backend needs jax, which is not installed"
        elif backend == "jax" and _version("jaxlib") is None:
            reason = "jaxlib is not installed"
        elif backend == "mlx":
            reason = _mlx_reason(version)
        if reason:
            reason = f"{reason}; pip install 'ember-keras[{backend}]'"
        found[backend] = Installed(version, reason)
    return found


def _mlx_reason(version):
    plugin = _version("keras-mlx")
    if plugin is None:
        return "keras-mlx is not installed"
    if plugin != PLUGIN:
        return f"keras-mlx is {plugin}, expected {PLUGIN}"
    parts = {name: _version(name) for name in ("mlx-cpu", "mlx-metal", "mlx-cuda", "mlx-cuda-12")}
    present = {name: part for name, part in parts.items() if part}
    if not present:
        return "mlx has no device library (mlx-cpu on Linux, mlx-metal on macOS)"
    wrong = [f"{name} {part}" for name, part in present.items() if part != version]
    if wrong:
        return f"{', '.join(wrong)} and mlx {version} are of different versions"
    return ""


def _version(*distributions):
    """Return the version of the first installed distribution, or None."""
    from importlib import metadata

    for distribution in distributions:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None
