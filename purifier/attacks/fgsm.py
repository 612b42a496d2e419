"""FGSM: the fast gradient sign method.

Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015, section 4; the L2 form is the fast
gradient method of Miyato et al.: the step follows the gradient's direction.
"""

from __future__ import annotations

from purifier.attacks._balls import Norm
from purifier.attacks._gradient import GradientAttack
from purifier.attacks.base import Loss


class FGSM(GradientAttack):
    """Takes one gradient step of the ball's whole radius.

    Args:
        eps: Radius of the ball and length of the step, in units of the [0, 1] image range (8/255, not 8).
        norm: "Linf" or "L2".
        targeted: Whether `targets` is where to go instead of what to leave.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar; cross entropy where None.

    Raises:
        OptionError: Where an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.FGSM(eps=8 / 255)(model, images, labels)
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    def __init__(
        self, *, eps: float = 8 / 255, norm: Norm = "Linf", targeted: bool = False, loss: Loss | None = None
    ) -> None:
        super().__init__(eps=eps, alpha=eps, steps=1, norm=norm, targeted=targeted, loss=loss)
