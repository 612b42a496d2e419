"""Settings of a training of four steps on photographs."""

from __future__ import annotations

from typing import Any

SHORT: dict[str, Any] = {
    "steps": 4,
    "batch_size": 2,
    "crop_size": 16,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "precision": "no",
    "checkpoint_every": 3,
    "validate_every": 100,
    "validation_every": 4,
    "validation_images": 2,
    "device": "cpu",
}
