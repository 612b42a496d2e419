"""What tells two settings apart: fingerprints of models and purifiers, versions, the commit."""

from __future__ import annotations

import hashlib
import inspect
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from purifier._purifier import Purifier
from purifier._version import __version__
from purifier.methods import describe


def weights_sha256(module: nn.Module) -> str:
    """Returns the SHA-256 over names, dtypes, shapes and bytes of a module's parameters and stored buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def model_identity(model: Callable[..., Any]) -> dict[str, Any]:
    """Returns what tells this model from another: its kind, and its weights or, for a function, its source."""
    kind = model if inspect.isfunction(model) else type(model)
    identity = {"kind": f"{kind.__module__}.{kind.__qualname__}"}
    if isinstance(model, nn.Module):
        return {**identity, "sha256": weights_sha256(model)}
    return {**identity, "source_sha256": source_sha256(model)}


def source_sha256(function: Any) -> str | None:
    """Returns the SHA-256 of the file that a function or class was written in, or None where there is none."""
    try:
        path = inspect.getsourcefile(function if inspect.isroutine(function) else type(function))
        return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (TypeError, OSError):
        return None


def purifier_identity(purifier: Any) -> dict[str, Any]:
    """Returns what tells this purifier from another: method, options, weights, dtype and tiling."""
    if not isinstance(purifier, Purifier):
        return model_identity(purifier)
    return {
        **describe(purifier.method),
        "sha256": weights_sha256(purifier.method),
        "dtype": str(purifier.dtype).removeprefix("torch."),
        "tile": purifier._tile,
    }


def versions() -> dict[str, str]:
    """Returns the versions that figures depend on."""
    return {"purifier": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def commit() -> str | None:
    """Returns the commit that the package is at, "-dirty" with changes on top; None where it is no checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
