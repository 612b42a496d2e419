"""Samples of a GAD training, and its validation: the target model's score on held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from purifier._random import isolated_randomness
from purifier.data.crops import evenly
from purifier.training.gad.tasks import Task
from purifier.training.processes import to_device
from purifier.training.validation import psnr

_BATCH = 16


class Samples(Dataset[tuple[Tensor, Any]]):
    """Random samples of a task's items. Each is a function of (seed, index) alone, so that a run can resume.

    Args:
        task: Reads the samples.
        items: The items.
        length: Number of samples.
        seed: Decides the samples, together with the index.
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
        """Makes a batch: images (N, 3, H, W) and the task's batch of targets."""
        return torch.stack([image for image, _ in samples]), self.task.collate([target for _, target in samples])


@dataclass(frozen=True)
class _Held:
    """A batch of held-out samples, on the model's device."""

    clean: Tensor
    attacked: Tensor
    targets: Any


class HeldOut:
    """Held-out samples, spread evenly over the items. They are read and attacked once, when first needed.

    Args:
        task: Reads, attacks and scores the samples.
        items: Held-out items.
        count: Most samples to use.
        seed: Decides the attack's random starts.
    """

    def __init__(self, task: Task, items: Sequence[Any], *, count: int, seed: int) -> None:
        self._task = task
        self._items = evenly(items, count)
        self._seed = seed
        self._batches: list[_Held] = []
        self._bare: dict[str, float] = {}

    def figures(self, purify: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
        """Measures a purifier.

        Args:
            purify: Maps images (N, 3, H, W) on `device` to purified ones, which are then clamped to [0, 1].
            device: Device of the target model.

        Returns:
            "psnr", in dB, of purified clean images to clean ones; the task's scores "clean" and "attacked" (the
            training's attack, blind) behind the purifier, and "clean_bare" and "attacked_bare" without it.
        """
        held = self._held(device)
        with torch.inference_mode():
            purified = [(_clamped(purify(one.clean)), _clamped(purify(one.attacked))) for one in held]
            quality = _mean([psnr(clean, one.clean) for (clean, _), one in zip(purified, held, strict=True)], held)
            clean = self._score([clean for clean, _ in purified], held)
            attacked = self._score([attacked for _, attacked in purified], held)
        return {"psnr": quality, "clean": clean, "attacked": attacked, **self._bare}

    def bare(self, device: torch.device) -> float:
        """Reads and attacks the held-out samples; returns the task's score of the clean ones without a purifier."""
        self._held(device)
        return self._bare["clean_bare"]

    def clean(self, device: torch.device) -> list[tuple[Tensor, Any]]:
        """Returns the batches: clean images (N, 3, H, W) and their targets."""
        return [(one.clean, one.targets) for one in self._held(device)]

    def samples(self, purify: Callable[[Tensor], Tensor], device: torch.device, count: int = 6) -> list[Tensor]:
        """Rows of pictures: clean, clean purified, attacked, attacked purified."""
        one = self._held(device)[0]
        with torch.inference_mode():
            rows = [one.clean, _clamped(purify(one.clean)), one.attacked, _clamped(purify(one.attacked))]
        return [row[:count] for row in rows]

    def _held(self, device: torch.device) -> list[_Held]:
        if not self._batches:
            reader = Samples(self._task, self._items, length=len(self._items), seed=self._seed)
            # The training's random numbers stay a function of its steps.
            with isolated_randomness(device, seed=self._seed):
                for number, start in enumerate(range(0, len(self._items), _BATCH)):
                    items = self._items[start : start + _BATCH]
                    images, targets = reader.collate([self._task.load(item, None) for item in items])
                    images, targets = images.to(device), to_device(targets, device)
                    self._batches.append(_Held(images, self._task.attack(images, targets, number), targets))
            with torch.inference_mode():
                self._bare = {
                    "clean_bare": self._score([one.clean for one in self._batches], self._batches),
                    "attacked_bare": self._score([one.attacked for one in self._batches], self._batches),
                }
        return self._batches

    def _score(self, images: Sequence[Tensor], held: Sequence[_Held]) -> float:
        scores = [self._task.score(batch, one.targets) for batch, one in zip(images, held, strict=True)]
        return _mean(scores, held)


def _mean(values: Sequence[float], held: Sequence[_Held]) -> float:
    """Returns the mean over images of values that are means over batches."""
    sizes = [len(one.clean) for one in held]
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)


def _clamped(images: Tensor) -> Tensor:
    return images.float().clamp(0, 1)
