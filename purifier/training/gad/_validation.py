"""How well the target model does on held-out samples, clean and attacked, bare and behind the generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from purifier.data.crops import evenly
from purifier.training._loop import to_device
from purifier.training._validation import psnr
from purifier.training.gad._samples import Samples
from purifier.training.gad.tasks import Task

# Images at a time.
_BATCH = 16


@dataclass(frozen=True)
class _Held:
    """A batch of held-out samples, on the model's device."""

    clean: Tensor
    attacked: Tensor
    targets: Any


class HeldOut:
    """Samples that validate: `count` of the items, evenly. They are read and attacked once, when first needed.

    Args:
        task: Reads, attacks and scores them.
        items: Held-out items.
        count: How many to take, at most.
        seed: Decides the attack's starts.
    """

    def __init__(self, task: Task, items: Sequence[Any], *, count: int, seed: int) -> None:
        self._task = task
        self._items = evenly(items, count)
        self._seed = seed
        self._batches: list[_Held] = []
        self._bare: dict[str, float] = {}

    def figures(self, purify: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
        """Figures of a purifier.

        Args:
            purify: Map of images (N, 3, H, W) on `device` to purified ones; the result is clamped to [0, 1].
            device: Where the target model is.

        Returns:
            "psnr", in dB, of purified clean images to clean ones; the task's score "clean" and "attacked" (the
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
        """The task's score of clean held-out samples without a purifier; reads and attacks them."""
        self._held(device)
        return self._bare["clean_bare"]

    def samples(self, purify: Callable[[Tensor], Tensor], device: torch.device, count: int = 6) -> list[Tensor]:
        """Rows of pictures: clean, clean purified, attacked, attacked purified."""
        one = self._held(device)[0]
        with torch.inference_mode():
            rows = [one.clean, _clamped(purify(one.clean)), one.attacked, _clamped(purify(one.attacked))]
        return [row[:count] for row in rows]

    def _held(self, device: torch.device) -> list[_Held]:
        if not self._batches:
            reader = Samples(self._task, self._items, length=len(self._items), seed=self._seed)
            # So that the training's random numbers stay a function of its steps.
            with torch.random.fork_rng():
                torch.manual_seed(self._seed)
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
    """The mean over images of values that are means over batches."""
    sizes = [len(one.clean) for one in held]
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)


def _clamped(images: Tensor) -> Tensor:
    return images.float().clamp(0, 1)
