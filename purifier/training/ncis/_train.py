"""From a configuration to a finished folder."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from purifier._purifier import Purifier
from purifier.methods.ncis import NCIS
from purifier.training._loop import fit
from purifier.training.ncis._config import NCISTraining
from purifier.training.ncis._recipe import NCISRecipe


def train(config: NCISTraining, out: str | Path) -> Path:
    """Trains NCIS and writes a folder that `Purifier.from_pretrained` loads.

    Checkpoints and the finished purifier go to `out`; a run that was stopped goes on from its last checkpoint.

    Args:
        config: The settings; `config.data` names at least one folder of images.
        out: The folder.

    Returns:
        `out / "ncis"`, with config.json, model.safetensors and a model card.

    Raises:
        InputError: Where there are no images.
        OptionError: Where `out` holds a run with other settings.
    """
    out = Path(out)
    recipe = NCISRecipe(config)
    start = copy.deepcopy(recipe.model.method.state_dict())
    average, history = fit(recipe, config, out)
    method: NCIS = average.method.cpu()  # type: ignore[assignment]
    for key, value in method.state_dict().items():
        value.lerp_(start[key], config.init_share)
    card = model_card(config, history)
    Purifier(method, name="ncis", card=card).save_pretrained(out / "ncis")
    return out / "ncis"


def model_card(config: NCISTraining, history: list[dict[str, Any]]) -> str:
    """Returns a model card that says how the weights were made and what validation measured."""
    settings = "\n".join(f"- {name}: {value}" for name, value in asdict(config).items() if name != "data")
    columns = list(history[-1]) if history else []
    rows = "\n".join("| " + " | ".join(f"{row[c]:.4g}" for c in columns) + " |" for row in history)
    return f"""---
license: apache-2.0
tags: [adversarial-purification, ncis]
---
# ncis

NCIS (Cha et al., WACV 2024), trained with `purifier train ncis` (torch {torch.__version__}). The training images are
the user's own; nothing was measured beyond the validation below. Purifiers of this kind can be bypassed by an
attacker who knows them.

## Settings

{settings}

## Validation

Held-out images; PSNR in dB, purification success rates (psr) at {config.iterations} iterations.

| {" | ".join(columns)} |
|{"---|" * len(columns)}
{rows}
"""
