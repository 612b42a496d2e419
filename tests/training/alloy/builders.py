"""A tiny Alloy training on two extractors, one of them a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from purifier.training.alloy import AlloyTraining
from tests.training.short import SHORT

TINY: dict[str, Any] = {
    **SHORT,
    "filters": 12,
    "blocks": 2,
    "levels": 1,
    "iterations": 2,
    "blur": 0,
    "pixel_weight": 4.0,
    "prediction_weight": 0.0,
    "extractors": ("tiny=tests.training.features:tiny:0.5", "classifier=tests.training.features:classifier@0+2:0.25"),
    "sources": ("ssp:*:0.4:1-2", "kl:classifier:0.3:2", "gaussian:0.1", "sign:0.1", "none:0.1"),
}


def configuration(photos: Path, **changes: Any) -> AlloyTraining:
    """A few changes to the tiny training."""
    return AlloyTraining(data=(str(photos),), **{**TINY, **changes})
