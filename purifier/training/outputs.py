"""What a training writes: TensorBoard events and sample pictures on the way, a model card and settings at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from purifier._files import write_text
from purifier._images import to_uint8, write_image
from purifier.training.settings import LoopConfig

# Steps after which a training says how long it will take.
TIMED_STEPS = 5
# Settings that name places on the user's machine.
_PLACES = {"data", "masks", "annotations"}
_DEMO = """\
On held-out images, with the demo classifier; PSNR in dB; psr: purification success rate, the share of images that get
the class of the clean image. All attacks are blind: they do not know the purifier."""


class Log:
    """Writes scalars and pictures below a folder.

    Args:
        out: The folder.
        tensorboard: Whether to write TensorBoard events. Pictures are always written as files too.
        start: Step that the training resumes from. Later events of a killed run are hidden.
    """

    def __init__(self, out: Path, tensorboard: bool, start: int) -> None:
        self.out = out
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=start)

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Writes numbers as group/name."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def pictures(self, rows: list[Tensor], step: int) -> None:
        """Writes rows of pictures (N, 3, H, W), one below the other, as samples/step-<step>.png."""
        picture = torch.cat([torch.cat(list(row.detach().cpu().float().clamp(0, 1)), 2) for row in rows], 1)
        write_image(Image.fromarray(to_uint8(picture)), self.out / "samples" / f"step-{step:06d}.png")
        if self._writer is not None:
            self._writer.add_image("samples", picture, step)

    def close(self) -> None:
        """Ends the TensorBoard file."""
        if self._writer is not None:
            self._writer.close()


def training_card(
    name: str, method: str, text: str, config: LoopConfig, history: Sequence[dict[str, Any]], *, measured: str = _DEMO
) -> str:
    """Returns a model card that says how the weights were trained and what the validation measured.

    Args:
        name: The purifier's name.
        method: The method's name, for the tags.
        text: What the purifier is, its source, and how it was trained.
        config: The training's settings.
        history: The validations: "step", "loss" and figures.
        measured: What the validation measured, and on which images.
    """
    settings = "\n".join(f"- {key}: {value}" for key, value in asdict(config).items() if key not in _PLACES)
    columns = list(history[-1]) if history else ["step"]
    rows = "\n".join("| " + " | ".join(_cell(row[c]) for c in columns) + " |" for row in history)
    return f"""---
license: apache-2.0
tags: [adversarial-purification, {method}]
---
# {name}

{text} Trained with torch {torch.__version__}. The training images are the user's own. Nothing was measured beyond the
validation below. An attacker who knows a purifier of this kind can bypass it.

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


def expected_time(seconds: float, left: int, most_minutes: float = 0.0) -> str:
    """Says how long a training will take.

    Args:
        seconds: Time of the first `TIMED_STEPS` steps.
        left: Steps that are left.
        most_minutes: The training ends after that time; 0 means never.

    Example:
        >>> expected_time(25.0, 8000)
        '5 s a step: about 11.1 hours for the 8,000 steps that are left'
    """
    each = seconds / TIMED_STEPS
    rest = left * each
    if 0 < 60 * most_minutes < rest:
        return f"{each:.2g} s a step: ends after {most_minutes:g} minutes, before {left:,} further steps are done"
    amount = f"{rest / 3600:.1f} hours" if rest >= 5400 else f"{max(1, math.ceil(rest / 60))} minutes"
    return f"{each:.2g} s a step: about {amount} for the {left:,} steps that are left"
