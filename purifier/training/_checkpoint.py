"""Checkpoints that survive a kill: written to a temporary name, then renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from purifier._errors import OptionError
from purifier._files import PART, replacing


def prepare_folder(out: Path) -> None:
    """Makes the folder of a training, and sees that it can be written, before hours are spent on it.

    Raises:
        OptionError: Where it cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".{os.getpid()}{PART}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OptionError(f"expected a folder to write, got {out}: {error.strerror}; choose another one") from error


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` so that `path` always holds either the old or the new checkpoint, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Reads a checkpoint onto the CPU without running any code in it; None where there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
