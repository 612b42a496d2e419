"""Settings of a tiny NRP training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purifier.training.nrp import NRPTraining
from tests.training.short import SHORT

Settings = Callable[..., NRPTraining]
TINY: dict[str, Any] = {
    **SHORT,
    "network": "nrp-resg",
    "filters": 4,
    "blocks": 2,
    "growth": 2,
    "features": "tests.training.features:tiny",
    "attack_steps": 2,
    "eps_low": 4 / 255,
    "adversarial_weight": 0.0,
}
