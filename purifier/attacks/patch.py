"""Adversarial patch: a square that replaces pixels, at a fixed place or at random ones.

Brown et al., "Adversarial Patch", 2017, section 2, https://arxiv.org/abs/1712.09665. Our deviation: the patch is square
and upright; its places alone are random.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from purifier._errors import InputError, OptionError
from purifier._options import check_bool, check_integer, check_number
from purifier.attacks._balls import Norm
from purifier.attacks._learning import LearningAttack
from purifier.attacks._random import integers, uniform
from purifier.attacks.base import Model, check_images, input_gradient


@dataclass(kw_only=True, eq=False, repr=False)
class Patch(LearningAttack):
    """Covers a square of each image with a patch that raises the model's loss, by steps along the gradient's sign.

    With `place="random"`, each step takes the mean loss over `samples` random places (expectation over
    transformation), and the result has the patch at one more random place. With `shared`, all images of the batch
    have one patch; `learn` returns it, and `apply` puts it on other images. For detectors, use
    `DetectionAttack(Patch(...))`: one patch for each image. `learn` returns (1, C, S, S) if `shared`, else
    (N, C, S, S), in [0, 1].

    Args:
        size: Side of the patch as a share of the image's shorter side, in (0, 1].
        place: "random", or "fixed" for the place of `top` and `left`.
        top: Free rows above the patch as a share of all free rows, from 0 (top) to 1 (bottom). For "fixed".
        left: Free columns beside the patch as a share of all free columns, from 0 (left) to 1 (right). For "fixed".
        alpha: Step size, in units of the [0, 1] image range.
        steps: Number of gradient steps.
        samples: Number of random places in each step. A fixed place needs one.
        shared: Whether all images have the same patch, instead of one each.
        targeted: Whether to lower the loss, so that the model predicts `targets`, instead of raising it.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar. None means cross entropy.
        generator: Source of randomness. None means torch's global generator.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.Patch(size=0.25, place="fixed", top=0, left=0, steps=5)(model, images, labels)
        >>> bool((adversarial[..., 2:, :] == images[..., 2:, :]).all())
        True
    """

    bounded: ClassVar[bool] = False
    _aim: ClassVar[str] = "covers a part of the image"
    _learned: ClassVar[str] = "patch"

    eps: float = field(default=1.0, init=False)
    norm: Norm = field(default="Linf", init=False)
    size: float = 0.25
    place: str = "random"
    top: float = 0.5
    left: float = 0.5
    alpha: float = 8 / 255
    steps: int = 100
    samples: int = 4
    shared: bool = True
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.place not in ("random", "fixed"):
            raise OptionError(f"expected place='random' or place='fixed', got {self.place!r}")
        for name in ("size", "top", "left"):
            check_number(name, getattr(self, name), low=1e-6 if name == "size" else 0, high=1)
        check_integer("samples", self.samples, low=1)
        check_bool("shared", self.shared)

    def apply(self, images: Tensor, patches: Tensor) -> Tensor:
        """Returns images (N, C, H, W) with patches (1 or N, C, S, S) at this attack's place; gradients flow to both.

        Raises:
            InputError: If the patches do not fit the images.
        """
        check_images(images)
        side = patches.shape[-1]
        fits = patches.ndim == 4 and patches.shape[1] == images.shape[1] and patches.shape[2] == side
        if not (fits and len(patches) in (1, len(images)) and side <= min(images.shape[-2:])):
            raise InputError(
                f"expected patches of shape (1 or {len(images)}, {images.shape[1]}, S, S) no larger than the images, "
                f"got {tuple(patches.shape)} for images of shape {tuple(images.shape)}"
            )
        return self._on(images, patches.to(images))

    def _climb(self, model: Model, images: Tensor, targets: Any, bar: Any) -> Tensor:
        return self._on(images, self._learn(model, images, targets, bar))

    def _learn(self, model: Model, images: Tensor, targets: Any, bar: Any) -> Tensor:
        side = max(1, round(self.size * min(images.shape[-2:])))
        count = 1 if self.shared else len(images)
        patches = uniform((count, images.shape[1], side, side), images, self.generator)
        for _ in range(self.steps):
            slope = torch.zeros_like(patches)
            for _ in range(1 if self.place == "fixed" else self.samples):
                with torch.enable_grad():
                    leaf = patches.detach().requires_grad_(True)
                    loss = self._signed(model(self._view(self._on(images, leaf))), targets)
                slope += input_gradient(loss, leaf)
            patches = (patches + self.alpha * slope.sign()).clamp(0, 1)
            if bar is not None:
                bar.update()
        return patches

    def _on(self, images: Tensor, patches: Tensor) -> Tensor:
        """Returns images with the patches at their places; each image draws its own."""
        count, _, height, width = images.shape
        side = patches.shape[-1]
        if self.place == "random":
            tops = integers(count, height - side, images, self.generator)
            lefts = integers(count, width - side, images, self.generator)
        else:
            tops = torch.full((count,), round(self.top * (height - side)), device=images.device)
            lefts = torch.full((count,), round(self.left * (width - side)), device=images.device)
        rows = torch.arange(height, device=images.device) - tops.unsqueeze(1)
        columns = torch.arange(width, device=images.device) - lefts.unsqueeze(1)
        inside = _within(rows, side).unsqueeze(2) & _within(columns, side).unsqueeze(1)
        # Every pixel looks up a pixel of the patch; those outside are not used.
        batch = torch.arange(count, device=images.device).view(-1, 1, 1)
        at = (batch, slice(None), rows.clamp(0, side - 1).unsqueeze(2), columns.clamp(0, side - 1).unsqueeze(1))
        spread = patches.expand(count, -1, -1, -1)[at].permute(0, 3, 1, 2)
        return torch.where(inside.unsqueeze(1), spread, images)


def _within(places: Tensor, side: int) -> Tensor:
    return (places >= 0) & (places < side)
