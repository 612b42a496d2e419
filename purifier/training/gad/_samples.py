"""Labelled samples, each a function of (seed, index) alone, so that a resumed run sees what an unbroken one would
have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from purifier._errors import InputError
from purifier.training.gad.tasks import Task


class Samples(Dataset[tuple[Tensor, Any]]):
    """Random samples of a task's items.

    Args:
        task: Reads them.
        items: The items.
        length: Number of samples.
        seed: With the index, decides everything about a sample.
    """

    def __init__(self, task: Task, items: Sequence[Any], *, length: int, seed: int) -> None:
        self.task = task
        self.items = items
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """Returns image number `index`, (3, H, W), float in [0, 1], and its target."""
        random = np.random.default_rng((self.seed, index))
        return self.task.load(self.items[int(random.integers(len(self.items)))], random)

    def collate(self, samples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
        """Makes a batch: images (N, 3, H, W) and what the task makes of the targets."""
        return torch.stack([image for image, _ in samples]), self.task.collate([target for _, target in samples])


def split_items(items: Sequence[Any], every: int) -> tuple[list[Any], list[Any]]:
    """Returns (training, validation): each `every`-th item validates.

    Raises:
        InputError: Where too few are left to train on.
    """
    training = [item for number, item in enumerate(items) if number % every]
    if not training:
        raise InputError(
            f"expected samples beside those that validate, got {len(items)} in all with validation_every={every}; add "
            "some, or raise it"
        )
    return training, [item for number, item in enumerate(items) if number % every == 0]
