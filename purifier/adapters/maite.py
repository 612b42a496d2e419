"""Models and augmentations by the protocols of MAITE, https://github.com/mit-ll-ai-technology/maite.

The protocols are structural: nothing is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from purifier._errors import InputError
from purifier._purifier import Purifier
from purifier.adapters.models import Attackable, check_purifier


class MaiteModel:
    """See `as_maite_model`.

    Attributes:
        metadata: {"id": name, "index2label": {0: ..., ...}}.
    """

    def __init__(self, model: Attackable, metadata: dict[str, Any]) -> None:
        self.metadata, self._model = metadata, model

    @torch.no_grad()
    def __call__(self, batch: Sequence[Any], /) -> Sequence[np.ndarray]:
        """Returns the probabilities (K,) of each image (3, H, W); images of one size go through the model together."""
        found: list[np.ndarray] = [np.empty(0)] * len(batch)
        for indices, images in _by_size(batch):
            rows = self._model(images).softmax(1).cpu().numpy()
            for index, row in zip(indices, rows, strict=True):
                found[index] = row
        return found


class MaiteAugmentation:
    """See `as_maite_augmentation`.

    Attributes:
        metadata: {"id": name}.
    """

    def __init__(self, purifier: Purifier, metadata: dict[str, Any]) -> None:
        self.metadata, self._purifier = metadata, purifier

    @torch.no_grad()
    def __call__(self, batch: tuple[Sequence[Any], Sequence[Any], Sequence[Any]], /) -> tuple[Any, Any, Any]:
        """Returns the batch with purified images; targets and metadata are passed on."""
        inputs, targets, metadata = batch
        found: list[np.ndarray] = [np.empty(0)] * len(inputs)
        for indices, images in _by_size(inputs):
            for index, image in zip(indices, self._purifier.purify(images).cpu().numpy(), strict=True):
                found[index] = image
        return found, targets, metadata


def as_maite_model(
    defended: Callable[..., Any], *, name: str = "purified", classes: Sequence[str] | None = None
) -> MaiteModel:
    """Returns a defended classifier as an image classification model of MAITE.

    Args:
        defended: What `purifier.wrap` returned, or a model with a purifier attached. It is shared, not copied.
        name: The model's id in the metadata.
        classes: Names of the classes by number, for the metadata.

    Returns:
        A function of a sequence of images (3, H, W), RGB in [0, 1], that returns probabilities (K,) of each.

    Raises:
        OptionError: If it has no purifier.
    """
    labels = {} if classes is None else {"index2label": dict(enumerate(classes))}
    return MaiteModel(Attackable(defended), {"id": name, **labels})


def as_maite_augmentation(purifier: Purifier, *, name: str | None = None) -> MaiteAugmentation:
    """Returns a purifier as an augmentation of MAITE, which changes the images of batches of any task.

    Args:
        purifier: The purifier. Images are (3, H, W), RGB in [0, 1].
        name: The augmentation's id in the metadata. None means the purifier's name.

    Raises:
        OptionError: If it is no purifier.
    """
    check_purifier(purifier)
    return MaiteAugmentation(purifier, {"id": name or purifier.name or "purifier"})


def _by_size(batch: Sequence[Any]) -> list[tuple[list[int], Tensor]]:
    """Returns images of one size as tensors, with their places in the batch."""
    groups: dict[tuple[int, ...], list[int]] = {}
    try:
        images = [torch.as_tensor(np.asarray(image), dtype=torch.float32) for image in batch]
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"expected images (3, H, W) as arrays of numbers, got others: {error}") from error
    for index, image in enumerate(images):
        groups.setdefault(tuple(image.shape), []).append(index)
    return [(indices, torch.stack([images[index] for index in indices])) for indices in groups.values()]
