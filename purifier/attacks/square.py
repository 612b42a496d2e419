"""Square: random search with squares. It uses scores only, so masked gradients do not stop it.

Andriushchenko et al., "Square Attack: a Query-efficient Black-box Adversarial Attack via Random Search", ECCV 2020,
Algorithms 1 to 3, https://arxiv.org/abs/1912.00049. Every image draws its own squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._options import check_bool, check_integer
from purifier.attacks._balls import Norm, check_norm, project
from purifier.attacks._progress import progress_bar
from purifier.attacks._random import integers, signs, uniform
from purifier.attacks.base import Attack, Loss, Model, check_eps, per_image, pick
from purifier.attacks.losses import cross_entropy, logits_in, margin, mean_margin

_LOSSES = {"margin": mean_margin, "ce": cross_entropy}
# The share of the image that a square covers is halved at these queries out of 10,000.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# Tiles along the shorter side of the first L2 perturbation.
_TILES = 5


@dataclass(kw_only=True, eq=False, repr=False)
class Square(Attack):
    """Changes one random square of the perturbation at a time and keeps changes that raise the loss.

    It needs no gradients, and calls the model with gradients switched off. With a built-in loss on a classifier, an
    image that fools the model takes no further queries, and an image that is misclassified from the start is returned
    unchanged. A single call of the model decides that. If the model is random, average its calls with `attacks.EOT`.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        queries: Largest number of model calls for each image.
        loss: "margin" (largest other logit minus the label's), "ce" (cross entropy), or a function of (model output,
            targets) that returns a loss per image (N,) or a scalar.
        p: Share of the image that the first squares cover, in (0, 1]. It falls with the number of queries.
        norm, targeted, generator: See `PGD`.

    Raises:
        OptionError: If an option is out of its range.
    """

    gradient: ClassVar[bool] = False

    eps: float = 8 / 255
    queries: int = 5000
    norm: Norm = "Linf"
    targeted: bool = False
    loss: Literal["margin", "ce"] | Loss = "margin"
    p: float = 0.8
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        check_eps(self.eps, self.norm)
        if not callable(self.loss) and not (isinstance(self.loss, str) and self.loss in _LOSSES):
            raise OptionError(f'expected loss="margin", "ce" or a function, got {self.loss!r}')
        if not 0 < self.p <= 1:
            raise OptionError(f"expected p in (0, 1], got {self.p}")
        check_integer("queries", self.queries, low=1)
        check_bool("targeted", self.targeted)

    @property
    def steps(self) -> int:
        """Number of queries, under the name that other attacks use."""
        return self.queries

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        best = images.clone()
        loss, done = self._look(model, images, targets)
        first = self._stripes if self.norm == "Linf" else self._tiles
        with progress_bar(self.name, self.queries) as bar:
            bar.update()
            for query in range(1, self.queries):
                left = (~done).nonzero().squeeze(1)
                if not len(left):
                    break
                clean, now = images[left], best[left]
                tried = first(clean) if query == 1 else self._changed(clean, now, self._side(query, images))
                new_loss, new_done = self._look(model, tried, pick(targets, left, len(images)))
                # The search starts from the first perturbation, so that one is always kept.
                better = new_done | (new_loss > loss[left]) | (query == 1)
                best[left[better]] = tried[better]
                loss[left[better]], done[left] = new_loss[better], new_done
                bar.update()
        return best

    def _look(self, model: Model, images: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
        """Returns the loss and whether an image is known to fool the model, both (N,)."""
        outputs = model(images)
        loss = (_LOSSES[self.loss] if isinstance(self.loss, str) else self.loss)(outputs, targets)
        loss = per_image(-loss if self.targeted else loss, images).clone()
        if not isinstance(self.loss, str) or logits_in(outputs).ndim > 2:
            return loss, torch.zeros_like(loss, dtype=torch.bool)
        margins = margin(outputs, targets).squeeze(1)
        return loss, margins < 0 if self.targeted else margins > 0

    def _side(self, query: int, images: Tensor) -> int:
        """Side of the squares at a query (Algorithm 1, and the schedule of section 4.1)."""
        halvings = sum(query / self.queries * 10_000 > mark for mark in _HALVINGS)
        height, width = images.shape[-2:]
        side = round(math.sqrt(self.p / 2**halvings * height * width))
        if self.norm == "L2":
            side = max(3, side) | 1
        return max(1, min(side, height, width))

    def _changed(self, images: Tensor, now: Tensor, side: int) -> Tensor:
        return self._square(images, now, side) if self.norm == "Linf" else self._moved(images, now, side)

    # Linf: Algorithm 2.

    def _stripes(self, images: Tensor) -> Tensor:
        count, channels, _, width = images.shape
        return (images + self.eps * signs((count, channels, 1, width), images, self.generator)).clamp(0, 1)

    def _square(self, images: Tensor, now: Tensor, side: int) -> Tensor:
        colours = self.eps * signs((*images.shape[:2], 1, 1), images, self.generator)
        inside = self._window(images, side)[0]
        return torch.where(inside, (images + colours).clamp(0, 1), now)

    # L2: Algorithm 3.

    def _tiles(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        side = max(1, min(height, width) // _TILES)
        tiles = (height // side, width // side)
        shape = torch.stack([self._shape(side, images) for _ in range(math.prod(tiles))]).view(*tiles, side, side)
        grid = shape.permute(0, 2, 1, 3).reshape(tiles[0] * side, tiles[1] * side)
        colours = signs((count, channels, *tiles), images, self.generator)
        colours = colours.repeat_interleave(side, 2).repeat_interleave(side, 3)
        delta = torch.zeros_like(images)
        delta[..., : grid.shape[0], : grid.shape[1]] = grid * colours
        return self._clipped(images, delta * (self.eps / delta.flatten(1).norm(dim=1)).view(-1, 1, 1, 1))

    def _moved(self, images: Tensor, now: Tensor, side: int) -> Tensor:
        """Moves the mass of the perturbation from one window to another and adds the unused part of the budget."""
        delta = now - images
        target, rows, columns = self._window(images, side)
        source, *_ = self._window(images, side)
        unused = (self.eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0) / images.shape[1]
        mass = ((delta.square() * (target | source)).sum((2, 3), keepdim=True) + unused).sqrt()
        batch = torch.arange(len(images), device=images.device)
        place = (batch.view(-1, 1, 1), slice(None), rows.unsqueeze(2), columns.unsqueeze(1))
        old = _unit(delta[place].permute(0, 3, 1, 2))
        new = old + self._shape(side, images) * signs((*images.shape[:2], 1, 1), images, self.generator)
        delta = delta.masked_fill(source, 0)
        delta[place] = (mass * _unit(new)).permute(0, 2, 3, 1)
        return self._clipped(images, delta)

    def _clipped(self, images: Tensor, delta: Tensor) -> Tensor:
        return (images + project(delta, self.eps, self.norm)).clamp(0, 1)

    def _window(self, images: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draws a square for each image: a mask (N, 1, H, W), its rows and its columns (N, side)."""
        count, _, height, width = images.shape
        span = torch.arange(side, device=images.device)
        rows = integers(count, height - side, images, self.generator).unsqueeze(1) + span
        columns = integers(count, width - side, images, self.generator).unsqueeze(1) + span
        mask = torch.zeros(count, 1, height, width, dtype=torch.bool, device=images.device)
        batch = torch.arange(count, device=images.device).view(-1, 1, 1)
        mask[batch, 0, rows.unsqueeze(2), columns.unsqueeze(1)] = True
        return mask, rows, columns

    def _shape(self, side: int, like: Tensor) -> Tensor:
        """The pattern of a window (side, side), of length 1: a positive and a negative peak in a row or column."""
        half = side // 2
        pattern = torch.cat([_peak(half, side, like), -_peak(side - half, side, like)])
        pattern = pattern / pattern.norm()
        return pattern.T if float(uniform((), like, self.generator)) < 0.5 else pattern


def _peak(height: int, width: int, like: Tensor) -> Tensor:
    """A peak that falls off to the borders of a rectangle (height, width): eta in section 3.4 of the paper."""
    rows = torch.arange(height, device=like.device).sub(height // 2).abs()
    columns = torch.arange(width, device=like.device).sub(width // 2).abs()
    distance = torch.maximum(rows.unsqueeze(1), columns)
    rings = torch.arange(1, max(height, width) // 2 + 2, device=like.device, dtype=like.dtype) ** -2
    return rings.flip(0).cumsum(0).flip(0)[distance]


def _unit(windows: Tensor) -> Tensor:
    """Scales each channel of windows (N, C, h, w) to length 1."""
    return windows / windows.norm(dim=(2, 3), keepdim=True).clamp_min(1e-12)
