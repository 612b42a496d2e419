"""Settings of a tiny NRP training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purifier.training.nrp import NRPTraining

Settings = Callable[..., NRPTraining]
TINY: dict[str, Any] = {
    "steps": 4,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "precision": "no",
    "checkpoint_every": 3,
    "validate_every": 100,
    "device": "cpu",
    "network": "nrp-resg",
    "filters": 4,
    "blocks": 2,
    "growth": 2,
    "features": "tests.training.features:tiny",
    "crop_size": 16,
    "attack_steps": 2,
    "eps_low": 4 / 255,
    "adversarial_weight": 0.0,
    "validation_every": 4,
    "validation_images": 2,
}
