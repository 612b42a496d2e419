"""PGD: projected gradient descent.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, section 2.1; the L2 form
steps along the gradient's direction. With targets and any loss it attacks any task.
"""

from __future__ import annotations

import torch
from torch import Tensor

from purifier._options import check_bool
from purifier.attacks._balls import Norm
from purifier.attacks._gradient import GradientAttack
from purifier.attacks.base import Loss


class PGD(GradientAttack):
    """Climbs a model's loss inside a norm ball round each image, from a random point of the ball.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, same units; eps / 4 where None.
        steps: Number of gradient steps.
        norm: "Linf" or "L2".
        targeted: Whether `targets` is where to go (the loss falls) instead of what to leave (the loss rises).
        restarts: Number of random starts; per image, the highest loss wins.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar; cross entropy where None.
        random_start: Whether to start at a random point of the ball.
        generator: Source of the random starts; torch's global one where None.

    Raises:
        OptionError: Where an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.PGD(eps=8 / 255, steps=5)(model, images, labels)
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
        restarts: int = 1,
        loss: Loss | None = None,
        random_start: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            eps=eps,
            alpha=eps / 4 if alpha is None else alpha,
            steps=steps,
            norm=norm,
            targeted=targeted,
            restarts=restarts,
            loss=loss,
            generator=generator,
        )
        self.random_start = check_bool("random_start", random_start)

    def _start(self, images: Tensor) -> Tensor:
        return self._random_point(images) if self.random_start else super()._start(images)
