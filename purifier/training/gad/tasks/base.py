"""Task: everything in which classification, segmentation and detection differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.utils.data import default_collate

from purifier._errors import InputError, OptionError
from purifier.training.gad.config import GADTraining


@dataclass(frozen=True)
class Observed:
    """The target model's loss and features for a batch of images.

    Attributes:
        loss: The task's own loss, a scalar.
        vectors: Feature vectors (V, L). V depends on the targets alone, so that vector v of a purified image
            corresponds to vector v of the image itself.
        labels: Class of each vector (V,).
    """

    loss: Tensor
    vectors: Tensor
    labels: Tensor


class Task(ABC):
    """The samples, features with their labels, loss and attack of a task.

    Users write a task of their own as a subclass and name it with `GADTraining(task="module:Class")`.

    Args:
        model: The target model, frozen and in eval mode, of images in [0, 1].
        config: The settings. For a setting that is 0, the class attribute is used.

    Attributes:
        downsamples: Halvings of the generator.
        size: Side of the samples, in pixels.
        eps: Radius of the attack in training, in units of the [0, 1] range.
        alpha: Its step size, same units.
        attack_steps: Its steps.
        scores: Name of what `score` measures, for the model card.
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
        # Processes that prepare samples receive the task without networks.
        return {name: value for name, value in vars(self).items() if not isinstance(value, nn.Module)}

    @abstractmethod
    def items(self) -> Sequence[Any]:
        """Returns all samples in a fixed order, each in a form that `load` takes. Reads no pixels.

        Raises:
            InputError: If there are none, or labels are missing.
        """

    @abstractmethod
    def load(self, item: Any, random: np.random.Generator | None) -> tuple[Tensor, Any]:
        """Reads a sample.

        Args:
            item: One of `items`.
            random: Decides the crop; None gives the item's one sample for validation.

        Returns:
            The image (3, size, size), float in [0, 1], and its target.
        """

    def collate(self, targets: list[Any]) -> Any:
        """Makes the targets of a batch from those of its samples: tensors, also in lists, tuples and dicts."""
        return default_collate(targets)

    @abstractmethod
    def attack(self, images: Tensor, targets: Any, step: int) -> Tensor:
        """Attacks the target model without a purifier: images (N, 3, H, W) in [0, 1] to adversarial ones, detached."""

    @abstractmethod
    def observe(self, images: Tensor, targets: Any) -> Observed:
        """Runs the target model on images (N, 3, H, W) in [0, 1]; gradients flow to the images."""

    @abstractmethod
    def score(self, images: Tensor, targets: Any) -> float:
        """Scores the target model on a batch, in [0, 1]; higher is better."""


def folder_of(name: str, option: str) -> Path:
    """Returns the folder that an option names.

    Raises:
        OptionError: If the option was not given.
        InputError: If there is no such folder.
    """
    if not name:
        raise OptionError(f"expected {option}, a folder, for this task, got none")
    if not Path(name).is_dir():
        raise InputError(f"expected {option} to be a folder, got {name}, which is not a folder")
    return Path(name)
