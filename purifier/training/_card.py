"""What a training writes beside the weights: a model card, and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from purifier._files import write_text
from purifier.training._loop import LoopConfig

# Settings that say where the user keeps things.
_PLACES = {"data", "masks", "annotations"}
_DEMO = """\
Held-out images and the demo classifier; PSNR in dB; psr: purification success rate, the share of images that are
classified as the clean image was. All attacks are blind: they do not know the purifier."""


def training_card(
    name: str,
    method: str,
    text: str,
    config: LoopConfig,
    history: Sequence[dict[str, Any]],
    *,
    measured: str = _DEMO,
) -> str:
    """Returns a model card that says how weights were made and what validation measured.

    Args:
        name: The purifier's name.
        method: The method's, for the tags.
        text: What it is, from whom, and how it was trained.
        config: The training's settings.
        history: Its validations: "step", "loss" and figures.
        measured: What validation measured, and on what.
    """
    settings = "\n".join(f"- {key}: {value}" for key, value in asdict(config).items() if key not in _PLACES)
    columns = list(history[-1]) if history else ["step"]
    rows = "\n".join("| " + " | ".join(_cell(row[c]) for c in columns) + " |" for row in history)
    return f"""---
license: apache-2.0
tags: [adversarial-purification, {method}]
---
# {name}

{text} Made with torch {torch.__version__}. The training images are the user's own; nothing was measured beyond the
validation below. Purifiers of this kind can be bypassed by an attacker who knows them.

## Settings

{settings}

## Validation

{measured}

| {" | ".join(columns)} |
|{"---|" * len(columns)}
{rows}
"""


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def write_settings(folder: Path, config: LoopConfig) -> None:
    """Writes training.yaml, which `purifier train --config` reads."""
    import yaml

    values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
    write_text(folder / "training.yaml", yaml.safe_dump(values, sort_keys=False))
