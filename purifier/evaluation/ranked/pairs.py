"""Pairs of a clean and an attacked image for which a service's labels have nothing in common.

"NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024, supplement 4.1,
https://arxiv.org/abs/2106.11644: images are attacked on several classifiers at once, with a random class as the goal,
and a pair is kept if the service's top five labels of both are different.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from purifier._errors import InputError
from purifier._files import replacing, writing
from purifier._images import to_uint8
from purifier._random import seed_of
from purifier._records import Records
from purifier.attacks import Attack
from purifier.data.images import read_rgb
from purifier.data.sets import ImageSet
from purifier.evaluation.ranked.client import Asked, Labels


@dataclass(frozen=True)
class Pair:
    """A clean image and its attacked form.

    Attributes:
        index: Number of the image in its set.
        labels: The service's labels of the clean image.
        attacked: File of the attacked image.
    """

    index: int
    labels: Labels
    attacked: Path


class Left(Enum):
    """Why an image has no pair."""

    FEW = "fewer labels than are compared"
    SHARED = "a label in common"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Search:
    """What pairs are searched with.

    Attributes:
        asked: The service.
        data: The images.
        surrogate: What is attacked instead of the service: logits (N, K) of images in [0, 1].
        attack: The attack.
        records: The answers for clean and attacked images.
        folder: Where attacked images are kept.
        k: Number of labels that must all differ.
        seed: Seed of the order of the images, of their goals and of the attacks.
        device: Where images go to be attacked.
    """

    asked: Asked
    data: ImageSet
    surrogate: nn.Module
    attack: Attack
    records: Records
    folder: Path
    k: int
    seed: int
    device: torch.device

    def __call__(self) -> Iterator[Pair | Left]:
        """Yields, for each image in a random order, its pair, or why it has none."""
        generator, names = torch.Generator().manual_seed(seed_of(self.seed, "order")), self.data.names
        for index in torch.randperm(len(self.data), generator=generator).tolist():
            yield self._pair(index, names[index])

    def _pair(self, index: int, name: str) -> Pair | Left:
        # A picture without a clean answer on record may be of another run, whose records were removed.
        known = 2 * index in self.records.by_index
        try:
            clean: Tensor = self.data.load([index])[0][0]
        except InputError:
            return Left.UNREADABLE
        labels = self.asked(self.records, 2 * index, lambda: clean, file=name, attacked=False)
        if len(labels) < self.k:
            return Left.FEW
        path = self.folder / f"{index:06d}.png"
        if not (known and path.exists()):
            self._make(clean, index, path)
        wrong = self.asked(self.records, 2 * index + 1, lambda: read_rgb(path), file=name, attacked=True)
        if not wrong:
            return Left.FEW
        return Left.SHARED if set(labels) & set(wrong) else Pair(index, labels, path)

    def _make(self, clean: Tensor, index: int, path: Path) -> None:
        """Attacks an image and writes it."""
        image, seed = clean[None].to(self.device), seed_of(self.seed, "pair", index)
        attacked = self.attack.seeded(seed)(self.surrogate, image, self._target(image, seed))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            Image.fromarray(to_uint8(attacked[0].detach().cpu())).save(draft, format="png")

    def _target(self, image: Tensor, seed: int) -> Tensor:
        """Returns the class (1,) to attack: the predicted one, or another one as the goal of a targeted attack."""
        with torch.no_grad():
            logits: Tensor = self.surrogate(image)
        predicted = logits.argmax(1)
        if not getattr(self.attack, "targeted", False):
            return predicted
        step = torch.randint(1, logits.shape[1], (1,), generator=torch.Generator().manual_seed(seed))
        return (predicted + step.to(predicted.device)) % logits.shape[1]


def take(pairs: Iterator[Pair | Left], wanted: int) -> tuple[list[Pair], Counter[Left]]:
    """Takes pairs until there are enough, or no images are left.

    Returns:
        The pairs, and how many of the images that were tried have none, by the reason.
    """
    taken: list[Pair] = []
    left: Counter[Left] = Counter()
    for found in pairs:
        if isinstance(found, Left):
            left[found] += 1
        else:
            taken.append(found)
        if len(taken) == wanted:
            break
    return taken, left
