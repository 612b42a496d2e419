"""BIM: the basic iterative method, also called I-FGSM.

Kurakin et al., "Adversarial Examples in the Physical World", ICLR Workshop 2017, section 2.2,
https://arxiv.org/abs/1607.02533. With a loss on every pixel, papers on purification attack segmenters with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from purifier.attacks._gradient import GradientAttack
from purifier.attacks.base import COMPUTED


@dataclass(kw_only=True, eq=False, repr=False)
class BIM(GradientAttack):
    """Increases a model's loss by gradient steps from the image itself: PGD without a random start.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, in the same units. None means eps / 4.
        steps: Number of gradient steps.
        norm, targeted, loss: See `PGD`.
    """

    alpha: float = COMPUTED
    steps: int = 10
