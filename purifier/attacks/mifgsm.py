"""MI-FGSM: iterative steps with momentum, for perturbations that transfer to other models.

Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018, Algorithm 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier.attacks._balls import Norm
from purifier.attacks._gradient import GradientAttack
from purifier.attacks.base import Loss


class MIFGSM(GradientAttack):
    """Steps along a running sum of gradients, each divided by its L1 norm (eq. 6 and 7).

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, same units; eps / steps where None, as in the paper.
        steps: Number of gradient steps.
        norm: "Linf" or "L2".
        targeted: Whether `targets` is where to go instead of what to leave.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar; cross entropy where None.
        decay: Share of the running sum that is kept at each step; 0 is BIM.
        generator: Source of randomness of the forms that have any; torch's global one where None.

    Raises:
        OptionError: Where an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.MIFGSM(eps=8 / 255, steps=5)(model, images, labels)
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    def __init__(
        self,
        *,
        eps: float = 8 / 255,
        alpha: float | None = None,
        steps: int = 10,
        norm: Norm = "Linf",
        targeted: bool = False,
        loss: Loss | None = None,
        decay: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        alpha = eps / max(1, steps) if alpha is None else alpha
        super().__init__(
            eps=eps, alpha=alpha, steps=steps, norm=norm, targeted=targeted, loss=loss, generator=generator
        )
        if not 0 <= decay < math.inf:
            raise OptionError(f"expected decay >= 0, got {decay}")
        self.decay = decay

    def _direct(self, gradient: Tensor, previous: Tensor) -> Tensor:
        size = gradient.flatten(1).norm(p=1, dim=1).clamp_min(1e-30).view(-1, 1, 1, 1)
        return self.decay * previous + gradient / size
