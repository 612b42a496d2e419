"""MI-FGSM: iterative steps with momentum, for perturbations that transfer to other models.

Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018, Algorithm 1, https://arxiv.org/abs/1710.06081.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier.attacks._gradient import GradientAttack
from purifier.attacks.base import COMPUTED


@dataclass(kw_only=True, eq=False, repr=False)
class MIFGSM(GradientAttack):
    """Steps along a running sum of gradients, each divided by its L1 norm (eq. 6 and 7).

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, in the same units. None means eps / steps, as in the paper.
        steps: Number of gradient steps.
        decay: Share of the running sum that is kept at each step. 0 gives BIM.
        norm, targeted, loss, generator: See `PGD`.
    """

    alpha: float = COMPUTED
    steps: int = 10
    decay: float = 1.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < math.inf:
            raise OptionError(f"expected decay >= 0, got {self.decay}")

    def _default_alpha(self) -> float:
        return self.eps / max(1, self.steps)

    def _direct(self, gradient: Tensor, previous: Tensor) -> Tensor:
        size = gradient.flatten(1).norm(p=1, dim=1).clamp_min(1e-30).view(-1, 1, 1, 1)
        return self.decay * previous + gradient / size
