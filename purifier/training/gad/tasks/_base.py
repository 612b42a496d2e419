"""Task: all in which classification, segmentation and detection differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.utils.data import default_collate

from purifier.training.gad._config import GADTraining


@dataclass(frozen=True)
class Observed:
    """What the target model makes of a batch of images.

    Attributes:
        loss: The task's own loss, a scalar.
        vectors: Feature vectors (V, L); V depends on the targets alone, so that vector v of a purified image and of
            the image itself belong together.
        labels: Class of each vector (V,).
    """

    loss: Tensor
    vectors: Tensor
    labels: Tensor


class Task(ABC):
    """What a training needs to know about a task: samples, features with their labels, loss and attack.

    A task of the user's own is a subclass in a file of hers, which `GADTraining(task="module:Class")` names.

    Args:
        model: The target model, frozen and in eval mode, of images in [0, 1].
        config: The settings; those that are 0 there are the class's own.

    Attributes:
        downsamples: Halvings of the generator.
        size: Side of the samples, in pixels.
        eps: Radius of the attack while training, in units of the [0, 1] range.
        alpha: Its step size, same units.
        attack_steps: Its steps.
        scores: What `score` measures, for the model card.
    """

    downsamples: int = 2
    size: int = 32
    eps: float = 8 / 255
    alpha: float = 2 / 255
    attack_steps: int = 4
    scores: ClassVar[str] = "the task's own score"

    def __init__(self, model: nn.Module, config: GADTraining) -> None:
        self.model = model
        self.config = config
        for name in ("downsamples", "size", "eps", "alpha", "attack_steps"):
            setattr(self, name, getattr(config, name) or getattr(type(self), name))

    def __getstate__(self) -> dict[str, Any]:
        # Processes that prepare samples are sent the task without the model.
        return {name: value for name, value in vars(self).items() if name != "model"}

    @abstractmethod
    def items(self) -> Sequence[Any]:
        """Returns every sample there is, in a fixed order, as whatever `load` takes; reads no pixels.

        Raises:
            InputError: Where there are none, or labels are missing.
        """

    @abstractmethod
    def load(self, item: Any, random: np.random.Generator | None) -> tuple[Tensor, Any]:
        """Reads a sample.

        Args:
            item: One of `items`.
            random: Decides about the crop; None for the one sample of an item that validates.

        Returns:
            The image (3, size, size), float in [0, 1], and its target.
        """

    def collate(self, targets: list[Any]) -> Any:
        """Makes a batch's targets of those of its samples: tensors, in lists, tuples and dicts if need be."""
        return default_collate(targets)

    @abstractmethod
    def attack(self, images: Tensor, targets: Any, step: int) -> Tensor:
        """Attacks the target model alone: images (N, 3, H, W) in [0, 1] to adversarial ones, detached."""

    @abstractmethod
    def observe(self, images: Tensor, targets: Any) -> Observed:
        """Runs the target model on images (N, 3, H, W) in [0, 1]; gradients flow to the images."""

    @abstractmethod
    def score(self, images: Tensor, targets: Any) -> float:
        """How well the target model does on a batch, in [0, 1], higher is better."""
