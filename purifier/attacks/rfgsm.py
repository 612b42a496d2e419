"""R-FGSM: a random step, then a gradient step.

Tramèr et al., "Ensemble Adversarial Training: Attacks and Defenses", ICLR 2018, section 4.1, eq. 7.
"""

from __future__ import annotations

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier.attacks._balls import Norm, ascend
from purifier.attacks._gradient import GradientAttack
from purifier.attacks._random import normal
from purifier.attacks.base import Loss


class RFGSM(GradientAttack):
    """Steps to a random corner of the smaller ball of radius eps - alpha, then takes a gradient step of alpha.

    The random step is the sign (L2: the direction) of Gaussian noise.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Length of the gradient step, up to eps; the random step has the rest. eps / 2 where None, as in the
            paper.
        norm: "Linf" or "L2".
        targeted: Whether `targets` is where to go instead of what to leave.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar; cross entropy where None.
        generator: Source of the random step; torch's global one where None.

    Raises:
        OptionError: Where an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.RFGSM(eps=8 / 255)(model, images, labels)
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    def __init__(
        self,
        *,
        eps: float = 8 / 255,
        alpha: float | None = None,
        norm: Norm = "Linf",
        targeted: bool = False,
        loss: Loss | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        alpha = eps / 2 if alpha is None else alpha
        super().__init__(eps=eps, alpha=alpha, steps=1, norm=norm, targeted=targeted, loss=loss, generator=generator)
        if alpha > eps:
            raise OptionError(f"expected alpha <= eps, got alpha={alpha}, eps={eps}; the random step is eps - alpha")

    def _start(self, images: Tensor) -> Tensor:
        return ascend(normal(images.shape, images, self.generator), self.eps - self.alpha, self.norm)
