"""Total variation minimisation.

Guo et al., "Countering Adversarial Images using Input Transformations", ICLR 2018, section 4.2
(https://arxiv.org/abs/1711.00117): keep a random share of the pixels and reconstruct the image by total variation. The
solver is the primal-dual iteration of Chambolle and Pock, "A first-order primal-dual algorithm for convex problems",
2011, algorithm 1 (https://doi.org/10.1007/s10851-010-0251-1). It is unrolled, so gradients are exact.

Deviations: the kept pixels depend on the seed and the image size only, so equal images give equal outputs. The total
variation is isotropic and joint over the three channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._options import SLOW, check_integer, check_number, check_seed
from purifier.methods._base import Method, Stage


def _gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences down and to the right, zero at the last row and column."""
    return F.pad(images.diff(dim=-2), (0, 0, 0, 1)), F.pad(images.diff(dim=-1), (0, 1))


def _divergence(down: Tensor, right: Tensor) -> Tensor:
    """The negative adjoint of `_gradient`."""
    rows = torch.cat((down[..., :-1, :], torch.zeros_like(down[..., :1, :])), -2)
    columns = torch.cat((right[..., :-1], torch.zeros_like(right[..., :1])), -1)
    return rows - F.pad(rows[..., :-1, :], (0, 0, 1, 0)) + columns - F.pad(columns[..., :-1], (1, 0))


def _draw_kept(images: Tensor, keep: float, seed: int) -> Tensor:
    """(H, W) mask of ones and zeros in the dtype and on the device of `images`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(images.shape[-2:], generator=generator, dtype=torch.float32, device="cpu")
    return (drawn < keep).to(images)


# A custom operator, because compiled graphs cannot hold a generator.
_kept_pixels = torch.library.custom_op(
    "purifier::kept_pixels", _draw_kept, mutates_args=(), schema="(Tensor images, float keep, int seed) -> Tensor"
)
_kept_pixels.register_fake(lambda images, keep, seed: images.new_empty(images.shape[-2:]))


class TVM(Method):
    """Reconstructs an image from some of its pixels by total variation.

    Minimises 1/2 ||m (z - x)||^2 + weight * TV(z) over z, with m the kept pixels.

    Args:
        keep: Share of the pixels that are kept, in (0, 1].
        weight: Weight of the total variation.
        steps: Primal-dual iterations.
        seed: Seed of the kept pixels.
    """

    tunable = ("keep", "weight", "steps", "seed")
    export_obstacle = "the pixels it keeps are drawn by torch"

    def __init__(self, *, keep: float = 0.5, weight: float = 0.03, steps: int = 50, seed: int = 0) -> None:
        super().__init__()
        self.keep = check_number("keep", keep, low=0.01, high=1)
        self.weight = check_number("weight", weight, low=0, high=100)
        self.steps = check_integer("steps", steps, low=1, high=5000, why=SLOW)
        self.seed = check_seed(seed)

    @property
    def options(self) -> dict[str, Any]:
        return {"keep": self.keep, "weight": self.weight, "steps": self.steps, "seed": self.seed}

    def stages(self) -> list[Stage]:
        return [Stage(self._minimise, halo=None)]

    def _minimise(self, images: Tensor) -> Tensor:
        if self.weight == 0:
            return images
        # Keeps the derivative of the square root finite in flat regions. It is the smallest value in float16.
        least = max(1e-12, torch.finfo(images.dtype).tiny)
        kept = _kept_pixels(images.detach(), self.keep, self.seed)
        step = 8**-0.5  # the gradient's norm is at most sqrt(8)
        z = ahead = images
        down, right = _gradient(torch.zeros_like(images))
        for _ in range(self.steps):
            to_down, to_right = _gradient(ahead)
            down, right = down + step * to_down, right + step * to_right
            length = (down.square() + right.square()).sum(1, keepdim=True).add(least).sqrt()
            shrink = (length / self.weight).clamp_min(1)
            down, right = down / shrink, right / shrink
            before = z
            z = (z + step * _divergence(down, right) + step * kept * images) / (1 + step * kept)
            ahead = 2 * z - before
        return z
