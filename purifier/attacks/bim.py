"""BIM: the basic iterative method, I-FGSM.

Kurakin et al., "Adversarial Examples in the Physical World", ICLR Workshop 2017, section 2.2. With a loss on every
pixel it is the attack on segmenters of the purification papers.
"""

from __future__ import annotations

from purifier.attacks._balls import Norm
from purifier.attacks._gradient import GradientAttack
from purifier.attacks.base import Loss


class BIM(GradientAttack):
    """Climbs a model's loss inside a norm ball round each image, from the image itself: PGD without a random start.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, same units; eps / 4 where None.
        steps: Number of gradient steps.
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
        >>> adversarial = attacks.BIM(eps=8 / 255, steps=5)(model, images, labels)
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
    ) -> None:
        alpha = eps / 4 if alpha is None else alpha
        super().__init__(eps=eps, alpha=alpha, steps=steps, norm=norm, targeted=targeted, loss=loss)
