"""FGSM: the fast gradient sign method.

Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015, section 4,
https://arxiv.org/abs/1412.6572. The L2 form, the fast gradient method, steps along the direction of the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from purifier.attacks._gradient import GradientAttack


@dataclass(kw_only=True, eq=False, repr=False)
class FGSM(GradientAttack):
    """Takes one gradient step whose length is the radius of the ball.

    Args:
        eps: Radius of the ball and length of the step, in units of the [0, 1] image range (8/255, not 8).
        norm, targeted, loss: See `PGD`.
    """

    def _default_alpha(self) -> float:
        return self.eps
