"""What this machine can run, and why not the rest."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from typing import Any

import ember_keras
from ember_keras import backend
from ember_keras.ops.kernels.table import TYPICAL, explain

_EXTRAS = {"data": "aeon", "plot": "matplotlib"}


def diagnose() -> dict[str, Any]:
    """Versions, backends, devices and kernels, as plain data."""
    return {
        "versions": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "ember-keras": ember_keras.__version__,
            **{name: _version(name) for name in ("keras", "numpy")},
        },
        "backend": {
            "name": backend.name(),
            "devices": backend.devices(),
            "capabilities": dataclasses.asdict(backend.capabilities()),
        },
        "backends": {
            name: {
                "version": found.version,
                "usable": found.usable,
                "reason": found.reason,
                "trains": backend.capabilities(name).trains,
            }
            for name, found in backend.installed().items()
        },
        "kernels": {
            engine: [
                {"kernel": row.kernel, "runs": row.runs, "reason": row.reason}
                for row in explain(engine)
            ]
            for engine in TYPICAL
        },
        "extras": {extra: _version(package) for extra, package in _EXTRAS.items()},
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
