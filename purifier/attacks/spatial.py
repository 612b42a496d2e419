"""Spatial: a rotation and a translation, without any change of pixel values.

Engstrom et al., "Exploring the Landscape of Spatial Robustness", ICML 2019, section 3, https://arxiv.org/abs/1712.02779.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._errors import InputError
from purifier._options import check_bool, check_integer, check_number
from purifier.attacks._progress import progress_bar
from purifier.attacks._random import uniform
from purifier.attacks.base import Attack, Loss, Model, per_image
from purifier.attacks.losses import logits_in, mean_margin

Search = Literal["grid", "random"]


@dataclass(kw_only=True, eq=False, repr=False)
class Spatial(Attack):
    """Rotates and shifts each image and keeps the version with the highest loss.

    It needs no gradients, and calls the model with gradients switched off. Pixels from outside the image are black.
    The result is in no norm ball, and may be any of the versions or the image itself. It takes classifiers only,
    because the labels of a dense output would have to move too, unless a loss is given.

    Args:
        rotation: Largest angle in degrees, in either direction, from 0 to 180.
        shift: Largest shift as a share of the image's height and width, in either direction, from 0 to 1.
        search: "grid" for all combinations of `angles` angles and `shifts` shifts along each axis, or "random" for the
            worst of `tries` random versions.
        angles: Number of angles of the grid, evenly spread.
        shifts: Number of shifts of the grid along each axis, evenly spread.
        tries: Number of random versions of each image.
        targeted: Whether to lower the loss, so that the model predicts `targets`, instead of raising it.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar. None means `losses.mean_margin`:
            then a result fools the model if any of the versions does.
        generator: Source of randomness. None means torch's global generator.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> attacks.Spatial(search="random", tries=5)(model, images, labels).shape
        torch.Size([4, 3, 8, 8])
    """

    gradient: ClassVar[bool] = False
    bounded: ClassVar[bool] = False
    _aim: ClassVar[str] = "moves images instead of adding a perturbation"

    rotation: float = 30.0
    shift: float = 0.1
    search: Search = "grid"
    angles: int = 31
    shifts: int = 5
    tries: int = 10
    targeted: bool = False
    loss: Loss | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("rotation", self.rotation, low=0, high=180)
        check_number("shift", self.shift, low=0, high=1)
        for name in ("angles", "shifts", "tries"):
            check_integer(name, getattr(self, name), low=1)
        check_bool("targeted", self.targeted)

    @property
    def steps(self) -> int:
        """Number of versions of each image, under the name that other attacks use."""
        return self.angles * self.shifts**2 if self.search == "grid" else self.tries

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        best, highest = images, self._losses(model, images, targets)
        with progress_bar(self.name, self.steps) as bar:
            for moves in self._moves(images):
                moved = rotate_and_shift(images, *moves.unbind(1)).clamp(0, 1)
                losses = self._losses(model, moved, targets)
                worse = losses > highest
                best = torch.where(worse.view(-1, 1, 1, 1), moved, best)
                highest = torch.where(worse, losses, highest)
                bar.update()
        return best

    def _losses(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        outputs = model(images)
        if self.loss is None:
            logits = logits_in(outputs)
            if isinstance(logits, Tensor) and logits.ndim == 4:
                raise InputError(
                    f"expected logits of shape (N, classes) from the model, got shape {tuple(logits.shape)}, whose "
                    "labels would have to move with the image; attack a classifier, or pass your own loss"
                )
        losses = (mean_margin if self.loss is None else self.loss)(outputs, targets)
        return per_image(-losses if self.targeted else losses, images)

    def _moves(self, images: Tensor) -> Iterator[Tensor]:
        """Yields angles in degrees and shifts as shares of height and width, (N, 3)."""
        reach = torch.tensor([self.rotation, self.shift, self.shift], dtype=images.dtype, device=images.device)
        if self.search == "random":
            for _ in range(self.tries):
                yield (2 * uniform((len(images), 3), images, self.generator) - 1) * reach
            return
        for place in itertools.product(_spread(self.angles), _spread(self.shifts), _spread(self.shifts)):
            yield (torch.tensor(place, dtype=images.dtype, device=images.device) * reach).expand(len(images), 3)


def _spread(count: int) -> list[float]:
    """Returns evenly spread numbers from -1 to 1; 0 if there is one."""
    return [0.0] if count == 1 else [2 * i / (count - 1) - 1 for i in range(count)]


def rotate_and_shift(images: Tensor, angles: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Rotates images about their centre, counter-clockwise, and then shifts them; bilinear, black outside.

    Gradients flow to the images.

    Args:
        images: (N, C, H, W).
        angles: Degrees, (N,).
        down: Shift as a share of the height, (N,).
        right: Shift as a share of the width, (N,).
    """
    height, width = images.shape[-2:]
    cos, sin = torch.cos(angles * math.pi / 180), torch.sin(angles * math.pi / 180)
    # affine_grid maps places of the result to places of the image, both from -1 to 1: the inverse of the movement.
    x, y = -2 * right, -2 * down
    ratio = height / width
    first = torch.stack([cos, -sin * ratio, cos * x - sin * ratio * y], 1)
    second = torch.stack([sin / ratio, cos, sin / ratio * x + cos * y], 1)
    grid = F.affine_grid(torch.stack([first, second], 1).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
