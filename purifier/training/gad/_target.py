"""Which target model a folder was trained for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import nn

from purifier._errors import OptionError
from purifier._files import write_text


def hold_target(out: Path, model: nn.Module) -> None:
    """Writes which model a training in `out` is for; a training that goes on must be for the same one.

    Raises:
        OptionError: Where the checkpoint in `out` was made for another model.
    """
    path, digest = out / "target.json", _digest(model)
    if (out / "checkpoint.pt").exists() and path.exists():
        if json.loads(path.read_text())["sha256"] != digest:
            raise OptionError(
                f"expected the model that {out} was trained for, got another; choose another folder or give that model"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"class": type(model).__name__, "sha256": digest}))


def _digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of a model's weights."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in model.state_dict().items():
        digest.update(f"\n{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
