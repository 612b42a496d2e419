"""Checkpoints: written so that a kill leaves the old or the new one, and compared with a resumed run's settings."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch

from purifier._errors import OptionError, PurifierWarning, WeightsError
from purifier._files import replacing
from purifier._pickled import load_pickle
from purifier.training.settings import LoopConfig

# What every checkpoint has, and its type.
_ENTRIES: dict[str, Any] = {
    "model": dict,
    "average": dict,
    "optimisers": dict,
    "step": int,
    "seconds": float | int,
    "history": list,
    "settings": dict,
    "data": str,
}
# Settings that do not change the trained weights.
_FREE = {"checkpoint_every", "validate_every", "sample_every", "tensorboard", "workers"}


def prepare_folder(out: Path) -> None:
    """Makes the folder of a training and checks that it can be written, before hours are spent on it.

    Raises:
        OptionError: If it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OptionError(f"expected a folder to write, got {out}: {error.strerror}; choose another one") from error


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` so that `path` always holds either the old or the new checkpoint, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's writer does not pass on the error of a full disk
            raise OSError(" ".join(str(error).split())[:200]) from error


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Reads a checkpoint onto the CPU without running any code in it. Returns None if there is no file.

    Raises:
        UnsafeFileError: If reading it would run code.
        WeightsError: If it is damaged or not the checkpoint of a training.
    """
    if not path.exists():
        return None
    state = load_pickle(path)
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in _ENTRIES.items()):
        raise WeightsError(
            f"expected {path} to be the checkpoint of a training, got something else; delete it, or choose another "
            "folder"
        )
    return state


def check_resumed(path: Path, state: dict[str, Any], config: LoopConfig, samples: str) -> None:
    """Checks that a checkpoint was made with these settings, and warns if it was made with other samples.

    Args:
        path: The checkpoint.
        state: Its contents.
        config: The settings of the run that resumes.
        samples: The `samples_sha256` of that run.

    Raises:
        OptionError: If a setting that changes the weights differs.
    """
    settings = asdict(config)
    # Settings newer than the checkpoint take their default.
    known = {one.name: one.default for one in fields(config) if one.default is not MISSING} | state["settings"]
    changed = sorted(name for name in settings if known.get(name) != settings[name] and name not in _FREE)
    if changed:
        raise OptionError(
            f"expected the settings that {path} was trained with, got others: "
            + ", ".join(f"{name} {settings[name]!r} for {known.get(name)!r}" for name in changed)
            + "; choose another folder or give the old settings"
        )
    if state["data"] != samples:
        warnings.warn(
            f"the samples are not those that {path} was trained on so far: the training resumes with the new ones, and "
            "may validate on images that it was trained on before",
            PurifierWarning,
            stacklevel=8,
        )


def common_facts(config: LoopConfig, samples: object) -> dict[str, Any]:
    """Returns what is equal in all processes of a training: its numbers, and the names of its images.

    Folders may differ between hosts.
    """
    numbers = {name: value for name, value in asdict(config).items() if isinstance(value, int | float)}
    names = _sha256(Path(_text(item)).name for item in _items(samples))
    return {name: value for name, value in numbers.items() if name not in _FREE} | {"images": names}


def samples_sha256(samples: object) -> str:
    """Returns a hash of the number of a data set's items and of what is read for each, by its `paths` or `items`."""
    return _sha256(map(_text, _items(samples)))


def _items(samples: object) -> Any:
    return getattr(samples, "paths", None) or getattr(samples, "items", ())


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _text(item: Any) -> str:
    """Returns an item of plain values as text. Of any other kind, whose text may change, it returns the kind."""
    if isinstance(item, list | tuple):
        return " ".join(map(_text, item))
    return str(item) if isinstance(item, str | int | float | Path) else type(item).__name__
