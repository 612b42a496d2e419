"""R-FGSM: a random step, then a gradient step.

Tramèr et al., "Ensemble Adversarial Training: Attacks and Defenses", ICLR 2018, section 4.1, eq. 7,
https://arxiv.org/abs/1705.07204.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier.attacks._balls import ascend
from purifier.attacks._gradient import GradientAttack
from purifier.attacks._random import normal
from purifier.attacks.base import COMPUTED


@dataclass(kw_only=True, eq=False, repr=False)
class RFGSM(GradientAttack):
    """Takes a random step of length eps - alpha, then a gradient step of length alpha.

    The random step is the sign (L2: the direction) of Gaussian noise.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Length of the gradient step, up to eps. None means eps / 2, as in the paper.
        norm, targeted, loss, generator: See `PGD`.

    Raises:
        OptionError: If an option is out of its range.
    """

    alpha: float = COMPUTED
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha > self.eps:
            raise OptionError(
                f"expected alpha <= eps, got alpha={self.alpha}, eps={self.eps}; the random step is eps - alpha"
            )

    def _default_alpha(self) -> float:
        return self.eps / 2

    def _start(self, images: Tensor) -> Tensor:
        return ascend(normal(images.shape, images, self.generator), self.eps - self.alpha, self.norm)
