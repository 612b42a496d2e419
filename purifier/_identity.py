"""Fingerprints of models and purifiers, versions, and the commit, which identify the settings of a run."""

from __future__ import annotations

import functools
import hashlib
import inspect
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn

from purifier._purified_model import PurifiedModel
from purifier._purifier import Purifier
from purifier._version import __version__
from purifier.methods import describe
from purifier.models.normalised import Normalised


def weights_sha256(module: nn.Module) -> str:
    """Returns the SHA-256 over names, dtypes, shapes and bytes of a module's parameters and stored buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def model_identity(model: Callable[..., Any]) -> dict[str, Any]:
    """Returns what identifies a model: its kind and its weights, or its source if it is a function.

    Purifiers anywhere in the model add their options. Functions add the values that they hold.
    """
    if isinstance(model, Purifier):
        return purifier_identity(model)
    if isinstance(model, functools.partial):
        given = [_held(value) for value in (*model.args, *model.keywords.values())]
        return {"kind": "functools.partial", "function": model_identity(model.func), "given": given}
    kind = model if inspect.isroutine(model) else type(model)
    identity: dict[str, Any] = {"kind": f"{kind.__module__}.{kind.__qualname__}"}
    if isinstance(model, nn.Module):
        return {**identity, "sha256": weights_sha256(model), **_purifiers_in(model)}
    if inspect.isfunction(model):
        held: dict[str, Any] = {**inspect.getclosurevars(model).nonlocals, "defaults": model.__defaults__}
        identity |= {"code_sha256": _code_sha256(model), "held": {name: _held(value) for name, value in held.items()}}
    return {**identity, "source_sha256": source_sha256(model)}


def _purifiers_in(model: nn.Module) -> dict[str, Any]:
    """Returns the purifiers inside a model, and the normalisation of each wrapper."""
    found: dict[str, Any] = {}
    for name, part in model.named_modules():
        if isinstance(part, Purifier):
            found[name] = purifier_identity(part)
        elif isinstance(part, PurifiedModel | Normalised) and part.normalisation is not None:
            found[f"{name}:normalised"] = [list(values) for values in part.normalisation]
    return {"inside": found} if found else {}


def _held(value: Any) -> Any:
    """Returns a JSON value that identifies a value held by a function."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_held(part) for part in value]
    if isinstance(value, torch.Tensor):
        return weights_sha256(nn.ParameterList([nn.Parameter(value.detach(), requires_grad=False)]))
    if inspect.isfunction(value):
        # Without its held values, which may include this function again.
        return _code_sha256(value)
    return model_identity(value) if callable(value) else type(value).__name__


def _code_sha256(function: FunctionType) -> str:
    """Returns the SHA-256 of a function's code, which does not depend on the file and the line."""
    return hashlib.sha256(_code(function.__code__)).hexdigest()


def _code(part: Any) -> bytes:
    if isinstance(part, CodeType):
        return b"\0".join([part.co_code, " ".join(part.co_names).encode(), *map(_code, part.co_consts)])
    # The order of a set differs between processes.
    return repr(sorted(map(repr, part)) if isinstance(part, frozenset) else part).encode()


def source_sha256(function: Any) -> str | None:
    """Returns the SHA-256 of the source file of a function or class, or None if there is none."""
    try:
        path = inspect.getsourcefile(function if inspect.isroutine(function) else type(function))
        return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (TypeError, OSError):
        return None


def purifier_identity(purifier: Any) -> dict[str, Any]:
    """Returns what identifies a purifier: method, options, weights, dtype and tiling."""
    if not isinstance(purifier, Purifier):
        return model_identity(purifier)
    return {
        **describe(purifier.method),
        "sha256": weights_sha256(purifier.method),
        "dtype": str(purifier.dtype).removeprefix("torch."),
        "tile": purifier._tile,
    }


def versions() -> dict[str, str]:
    """Returns the versions that results depend on."""
    return {"purifier": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def versions_of_figures() -> dict[str, str]:
    """Returns these versions without Python's: a run resumes under another Python, and under no other torch."""
    return {key: value for key, value in versions().items() if key != "python"}


def commit() -> str | None:
    """Returns the commit of the checkout, with "-dirty" for uncommitted changes, or None outside a checkout."""
    folder = Path(__file__).resolve().parents[1]
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
