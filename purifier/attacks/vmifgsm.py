"""VMI-FGSM and VNI-FGSM: gradients corrected by those of the neighbourhood, for perturbations that transfer.

Wang & He, "Enhancing the Transferability of Adversarial Attacks through Variance Tuning", CVPR 2021, Algorithm 1 and
eq. 8, https://arxiv.org/abs/2103.15571.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._options import check_integer
from purifier.attacks._balls import random_start
from purifier.attacks.base import Model
from purifier.attacks.mifgsm import MIFGSM
from purifier.attacks.nifgsm import NIFGSM


@dataclass(kw_only=True, eq=False, repr=False)
class VMIFGSM(MIFGSM):
    """MI-FGSM, with each gradient corrected by how gradients differed around the previous point.

    A step takes `samples` + 1 gradients. The last step takes one.

    Args:
        samples: Number of neighbours whose mean gradient is compared with that of the point.
        beta: Radius of the neighbourhood, as a multiple of `eps`. The neighbours are uniform in it, and may leave
            [0, 1].
        eps, alpha, steps, decay: See `MIFGSM`.
        norm, targeted, loss, generator: See `PGD`.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.VMIFGSM(eps=8 / 255, steps=5, samples=4)(model, images, labels)
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    samples: int = 20
    beta: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("samples", self.samples, low=1)
        if not 0 <= self.beta < math.inf:
            raise OptionError(f"expected beta >= 0, got {self.beta}")

    def _climb(self, model: Model, images: Tensor, targets: Any, bar: Any) -> Tensor:
        delta = self._start(images)
        direction, variance = torch.zeros_like(images), torch.zeros_like(images)
        for step in range(1, self.steps + 1):
            points = images + delta
            gradient = self._gradient(model, self._ahead(points, direction), targets)
            direction = self._direct(gradient + variance, direction)
            if step < self.steps:
                variance = self._around(model, points, targets) - gradient
            delta = self._moved(images, delta, direction)
            bar.update()
        return images + delta

    def _around(self, model: Model, points: Tensor, targets: Any) -> Tensor:
        """Returns the mean gradient at random neighbours of the points."""
        total = torch.zeros_like(points)
        for _ in range(self.samples):
            offset = random_start(points, self.beta * self.eps, self.norm, self.generator)
            total += self._gradient(model, points + offset, targets)
        return total / self.samples


@dataclass(kw_only=True, eq=False, repr=False)
class VNIFGSM(VMIFGSM, NIFGSM):
    """VMI-FGSM with the look-ahead of `NIFGSM`; the neighbours are those of the current point.

    Args:
        samples, beta: See `VMIFGSM`.
        eps, alpha, steps, decay: See `MIFGSM`.
        norm, targeted, loss, generator: See `PGD`.
    """
