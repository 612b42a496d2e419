"""A tiny Alloy training on two extractors, one of them a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from purifier.training.alloy import AlloyTraining

TINY: dict[str, Any] = {
    "steps": 4,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "precision": "no",
    "checkpoint_every": 3,
    "validate_every": 100,
    "device": "cpu",
    "filters": 12,
    "blocks": 2,
    "levels": 1,
    "iterations": 2,
    "crop_size": 16,
    "blur": 0,
    "pixel_weight": 4.0,
    "prediction_weight": 0.0,
    "extractors": ("tiny=tests.training.features:tiny:0.5", "classifier=tests.training.features:classifier@0+2:0.25"),
    "sources": ("ssp:*:0.4:1-2", "kl:classifier:0.3:2", "gaussian:0.1", "sign:0.1", "none:0.1"),
    "validation_every": 4,
    "validation_images": 2,
}


def configuration(photos: Path, **changes: Any) -> AlloyTraining:
    """A few changes to the tiny training."""
    return AlloyTraining(data=(str(photos),), **{**TINY, **changes})
